"""What cars leave unused is lent on: by lowering their ceilings, never by counting a reading instead of W.

A car that draws clearly less than its ceiling for ``SETTLE_S`` is bounded at what it draws plus ``HEADROOM``. When
it presses against its ceiling again the bound is gone, in the same tick. A car lags 5 to 30 s behind its ceiling, less
than ``SETTLE_S``: lag alone never lowers anything. The bound itself moves only when the room above the reading leaves
1 ... 3 units, so a noisy meter moves no ceiling.

A car that draws nothing at all for ``IDLE_S`` is idle: full, or asleep. It is served after all others and asked again
like any other after ``PROBE_S``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from powerd.limits import Bools, Floats
from powerd.state.columns import replace
from powerd.state.usage import Usage

SETTLE_S = 60.0
"""A car that draws less than offered for this long does not want more (cars lag up to 30 s: openeo#13)."""
IDLE_S = 300.0
"""A car that draws nothing of its offer for this long is idle (longer than WARP's 210 s for a wake-up)."""
PROBE_S = 3600.0
"""An idle car that got nothing for this long is offered its minimum again like any other: it may have woken up."""
HEADROOM = 2.0
"""Left above what such a car draws, so that it can show that it wants more [own unit]."""
ROOM_KEPT = (1.0, 3.0)
"""While the room above the reading stays between these the bound stands [own unit]."""
PRESSING = 0.75
"""Closer than this to its ceiling a car is taken to want more [own unit]; less than one pilot step of 1 A."""


def watch_draw(
    usage: Usage,
    drawn: Floats,
    ceiling: Floats,
    metered: Bools,
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
        least: (n,) smallest ceiling the car can charge with [own unit].
        next_step_up: (n,) -> (n,) the smallest ceiling the posts can take that is not below.
        now_s: this step's boottime.
    """
    offered = metered & (ceiling > 0.0)
    was_idle = idle(usage, now_s) & (now_s - usage.dry_since_s < IDLE_S + PROBE_S) & metered
    asleep = was_idle & ~offered  # at 0 it cannot show what it wants: what was known of it stays
    dry = np.where(offered & (drawn < PRESSING), np.minimum(usage.dry_since_s, now_s), np.inf)
    slack = np.where(offered & (drawn < ceiling - PRESSING), np.minimum(usage.slack_since_s, now_s), np.inf)
    dry_since = np.where(asleep, usage.dry_since_s, dry)
    slack_since = np.where(asleep, usage.slack_since_s, slack)
    room = usage.usable - drawn
    stands = (room >= ROOM_KEPT[0]) & (room <= ROOM_KEPT[1])
    bound = np.where(stands, usage.usable, next_step_up(np.maximum(drawn + HEADROOM, least)))
    settled = np.isfinite(slack_since) & (now_s - slack_since >= SETTLE_S) & ~asleep
    usable = np.where(settled, bound, np.where(np.isfinite(slack_since), usage.usable, np.inf))
    return replace(usage, slack_since_s=slack_since, dry_since_s=dry_since, usable=usable)


def idle(usage: Usage, now_s: float) -> Bools:
    """(n,) cars that have drawn nothing of what they were offered for ``IDLE_S``."""
    return now_s - usage.dry_since_s >= IDLE_S
