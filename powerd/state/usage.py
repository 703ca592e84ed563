"""What each car makes of its ceiling, and when it had its turn; columns over the n EVSEs, times on our boottime [s]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Floats, Ints
from powerd.state.columns import put, replace


@dataclass(frozen=True, kw_only=True, eq=False)
class Usage:
    """(n,) each; replaced, never changed in place."""

    slack_since_s: Floats
    """Since when it has drawn clearly less than its ceiling; inf = it presses against it."""
    dry_since_s: Floats
    """Since when it has drawn nothing of what it is offered; inf = it draws, or nothing was offered."""
    usable: Floats
    """Most it seems able to take [own unit]; inf = no sign of a bound."""
    reach: Floats
    """Up to where its ceiling may be raised [own unit]; inf = at will."""
    on_since_s: Floats
    """Since when its ceiling is above 0; inf = it is at 0."""
    off_since_s: Floats
    """When its ceiling last went from above 0 to 0 with this car; -inf = never."""
    waiting_since_s: Floats
    """Since when it waits at 0 for a turn; inf = it does not."""
    order_key: Floats
    """Who goes first when not all minima fit, lower first, renewed once a rotation period: energy [kWh]; negative =
    overdue, the longest waiting lowest."""
    order_at_s: float
    """When ``order_key`` was last renewed."""


def open_usage(count: int, boottime_s: float) -> Usage:
    """Nothing known of ``count`` EVSEs."""
    return Usage(
        slack_since_s=np.full(count, np.inf),
        dry_since_s=np.full(count, np.inf),
        usable=np.full(count, np.inf),
        reach=np.zeros(count),
        on_since_s=np.full(count, np.inf),
        off_since_s=np.full(count, -np.inf),
        waiting_since_s=np.full(count, np.inf),
        order_key=np.zeros(count),
        order_at_s=boottime_s,
    )


def forget_car(usage: Usage, evse: Ints) -> Usage:
    """The cars at ``evse`` are gone; the next ones may be others."""
    return replace(
        usage,
        slack_since_s=put(usage.slack_since_s, evse, np.inf),
        dry_since_s=put(usage.dry_since_s, evse, np.inf),
        usable=put(usage.usable, evse, np.inf),
        reach=put(usage.reach, evse, 0.0),
        on_since_s=put(usage.on_since_s, evse, np.inf),
        off_since_s=put(usage.off_since_s, evse, -np.inf),
        waiting_since_s=put(usage.waiting_since_s, evse, np.inf),
        order_key=put(usage.order_key, evse, 0.0),
    )


def reopen_usage(usage: Usage, was_s: float, now_s: float) -> Usage:
    """After a restart: how long cars had waited and paused stays, on this boot's clock; readings start afresh."""
    count, shift = usage.order_key.shape[0], now_s - was_s
    return replace(
        usage,
        slack_since_s=np.full(count, np.inf),
        dry_since_s=np.full(count, np.inf),
        usable=np.full(count, np.inf),
        on_since_s=usage.on_since_s + shift,
        off_since_s=usage.off_since_s + shift,
        waiting_since_s=usage.waiting_since_s + shift,
        order_at_s=now_s,
    )
