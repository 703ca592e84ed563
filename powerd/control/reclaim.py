"""What cars leave unused is lent on: by lowering their ceilings, never by counting a reading instead of W.

A car that draws clearly less than its ceiling for ``SETTLE_S`` is bounded at what it draws plus some headroom. When
it presses against its ceiling again the bound is gone, in the same tick. A car lags 5 to 30 s behind its ceiling, less
than ``SETTLE_S``: lag alone never lowers anything. Only readings of now count: what a car drew under an earlier ceiling
says nothing of this one.

Some cars, and every charger that is metered before its losses, draw a fixed share of whatever they are offered. A bound
would lower what they draw, that a lower bound, and so on; and once bounded they never press. So a bound rises at once,
when more than half of the headroom is used, but is lowered only every ``LIFT_EVERY_S``, after it was gone for
``SETTLE_S``: then such a car shows what it takes of all that it can get. Bounded at its minimum, and by less than the
headroom below it, it has no room to show that: there the bound is gone as soon as more than that was drawn. So it is
when a car that drew nothing begins to.

A car that draws nothing at all for ``IDLE_S`` is idle: full, or asleep. It is served after all others and asked again
like any other after ``PROBE_S``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from powerd.compiled import kernel, read
from powerd.limits import Bools, Floats
from powerd.state.columns import kept, replace
from powerd.state.usage import Usage

SETTLE_S = 60.0
"""A car that draws less than offered for this long does not want more (cars lag up to 30 s: openeo#13)."""
IDLE_S = 300.0
"""A car that draws nothing of its offer for this long is idle (longer than WARP's 210 s for a wake-up)."""
PROBE_S = 3600.0
"""An idle car that got nothing for this long is offered its minimum again like any other: it may have woken up."""
HEADROOM, HEADROOM_SHARE = 2.0, 0.1
"""Left above what such a car draws, so that it can show that it wants more: the larger of so much [own unit] and such a
share of its draw. Charging losses and calibration take less."""
LIFT_EVERY_S = 900.0
"""How often a bound is taken away to see what the car would take (rotation takes as long)."""
PRESSING = 0.75
"""Closer than this to its ceiling a car is taken to want more [own unit]; less than one pilot step of 1 A."""


def watch_draw(
    usage: Usage,
    drawn: Floats,
    ceiling: Floats,
    metered: Bools,
    fresh: Bools,
    least: Floats,
    next_step_up: Callable[[Floats], Floats],
    now_s: float,
) -> Usage:
    """The usage columns after one more reading.

    Args:
        usage: as of the last step.
        drawn: (n,) newest reading [own unit].
        ceiling: (n,) ceiling in force [own unit].
        metered: (n,) a car is plugged in and a reading of it is known; a post without tells nothing.
        fresh: (n,) that reading is of now; meanwhile what was known of the others stays.
        least: (n,) smallest ceiling the car can charge with [own unit].
        next_step_up: (n,) -> (n,) the smallest ceiling the posts can take that is not below.
        now_s: this step's boottime.
    """
    up = next_step_up(np.maximum(drawn + np.maximum(HEADROOM, HEADROOM_SHARE * drawn), least))
    lowest = next_step_up(least)
    slack_since_s, dry_since_s, usable = _noted(
        read(usage.slack_since_s),
        read(usage.dry_since_s),
        read(usage.usable),
        read(drawn),
        read(ceiling),
        read(metered),
        read(fresh),
        read(up),
        read(lowest),
        now_s,
    )
    return replace(
        usage,
        slack_since_s=kept(usage.slack_since_s, slack_since_s),
        dry_since_s=kept(usage.dry_since_s, dry_since_s),
        usable=kept(usage.usable, usable),
    )


@kernel
def _begun(usable: float, drawn: float, least: float, dry_since_s: float) -> bool:
    """A bounded car draws more than it did when it was bounded, at a bound that says nothing of how much."""
    woken = dry_since_s < np.inf and drawn >= PRESSING
    return woken or (usable <= least and drawn > usable - max(HEADROOM, HEADROOM_SHARE * drawn))


@kernel
def _bound(usable: float, drawn: float, up: float, slack_s: float) -> float:
    """The bound of a car that has drawn less than its ceiling for so long; inf = none [own unit]."""
    if slack_s % LIFT_EVERY_S < SETTLE_S:
        return np.inf
    used_up = usable - drawn < 0.5 * max(HEADROOM, HEADROOM_SHARE * drawn)
    return up if usable == np.inf or used_up else usable


@kernel
def _noted(
    slack_since_s: Floats,
    dry_since_s: Floats,
    usable: Floats,
    drawn: Floats,
    ceiling: Floats,
    metered: Bools,
    fresh: Bools,
    up: Floats,
    lowest: Floats,
    now_s: float,
) -> tuple[Floats, Floats, Floats]:
    """(n,) the three columns anew; ``up`` is the step above reading and headroom, ``lowest`` above the minimum."""
    slack_since_s, dry_since_s, usable = slack_since_s.copy(), dry_since_s.copy(), usable.copy()
    for i in range(drawn.shape[0]):
        if metered[i] and not fresh[i]:
            continue
        offered = metered[i] and ceiling[i] > 0.0
        dry_s = now_s - dry_since_s[i]
        if metered[i] and not offered and IDLE_S <= dry_s < IDLE_S + PROBE_S:
            # Asleep: at 0 it cannot show what it wants; what was known of it stays.
            usable[i] = usable[i] if np.isfinite(slack_since_s[i]) else np.inf
            continue
        begun = _begun(usable[i], drawn[i], lowest[i], dry_since_s[i])
        dry_since_s[i] = min(dry_since_s[i], now_s) if offered and drawn[i] < PRESSING else np.inf
        if begun or not (offered and drawn[i] < ceiling[i] - PRESSING):
            slack_since_s[i], usable[i] = np.inf, np.inf
            continue
        slack_since_s[i] = min(slack_since_s[i], now_s)
        usable[i] = _bound(usable[i], drawn[i], up[i], now_s - slack_since_s[i])
    return slack_since_s, dry_since_s, usable


def idle(usage: Usage, now_s: float) -> Bools:
    """(n,) cars that have drawn nothing of what they were offered for ``IDLE_S``."""
    return now_s - usage.dry_since_s >= IDLE_S
