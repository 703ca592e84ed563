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

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools
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


@kernel
def headroom(drawn: float) -> float:
    """What is left above what a bounded car draws [own unit]."""
    return max(HEADROOM, HEADROOM_SHARE * drawn)


@kernel
def _begun(usable: float, drawn: float, least: float, dry_since_s: float) -> bool:
    """A bounded car draws more than it did when it was bounded, at a bound that says nothing of how much."""
    woken = dry_since_s < np.inf and drawn >= PRESSING
    return woken or (usable <= least and drawn > usable - headroom(drawn))


@kernel
def _bound(usable: float, drawn: float, up: float, slack_s: float) -> float:
    """The bound of a car that has drawn less than its ceiling for so long; inf = none [own unit]."""
    if slack_s % LIFT_EVERY_S < SETTLE_S:
        return np.inf
    used_up = usable - drawn < 0.5 * headroom(drawn)
    return up if usable == np.inf or used_up else usable


@kernel
def note_draw(
    slack_since_s: float,
    dry_since_s: float,
    usable: float,
    drawn: float,
    ceiling: float,
    metered: bool,
    up: float,
    lowest: float,
    now_s: float,
) -> tuple[float, float, float]:
    """``Usage.slack_since_s``, ``dry_since_s`` and ``usable`` of an EVSE after one more reading.

    Args:
        slack_since_s: as of the last step, likewise the next two.
        dry_since_s: of it.
        usable: of it.
        drawn: newest reading [own unit].
        ceiling: in force [own unit].
        metered: a car is plugged in and a reading of it is known; a post without tells nothing.
        up: the smallest ceiling that the post can take above reading and headroom, and with which the car can charge.
        lowest: the smallest with which it can charge.
        now_s: this step's boottime.
    """
    offered = metered and ceiling > 0.0
    dry_s = now_s - dry_since_s
    if metered and not offered and IDLE_S <= dry_s < IDLE_S + PROBE_S:
        # Asleep: at 0 it cannot show what it wants; what was known of it stays.
        return slack_since_s, dry_since_s, usable if np.isfinite(slack_since_s) else np.inf
    begun = _begun(usable, drawn, lowest, dry_since_s)
    dry_since_s = min(dry_since_s, now_s) if offered and drawn < PRESSING else np.inf
    if begun or not (offered and drawn < ceiling - PRESSING):
        return np.inf, dry_since_s, np.inf
    slack_since_s = min(slack_since_s, now_s)
    return slack_since_s, dry_since_s, _bound(usable, drawn, up, now_s - slack_since_s)


@kernel
def is_idle(dry_since_s: float, now_s: float) -> bool:
    """A car that has drawn nothing of what it was offered for ``IDLE_S``."""
    return now_s - dry_since_s >= IDLE_S


def idle(usage: Usage, now_s: float) -> Bools:
    """(n,) ``is_idle`` of each car; most have drawn something."""
    found = np.isfinite(usage.dry_since_s)
    found[found] = [is_idle(since_s, now_s) for since_s in usage.dry_since_s[found].tolist()]
    return found
