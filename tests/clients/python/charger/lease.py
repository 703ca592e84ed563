"""The controller's half of the lease rules, as common.proto states them: which grants count, and for how long."""

from __future__ import annotations

import threading
import time
from typing import Any

Place = tuple[int, int]
"""(epoch, seq): compared as a pair."""


def boottime() -> float:
    """Seconds since boot, suspend included: the clock that stamps are written in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Stamps of one process: each later than every one before."""

    def __init__(self) -> None:
        self._before = 0.0
        self._lock = threading.Lock()

    def later(self) -> float:
        """Now, or a little later if the clock has not moved."""
        with self._lock:
            self._before = max(boottime(), self._before + 1e-9)
            return self._before


def place(message: Any) -> Place:
    """Where a message stands in powerd's order."""
    return (message.epoch, message.seq)


def refusal(message: Any, *, incarnation: int, last: Place, now: float, plug: float = 0.0) -> str | None:
    """Why a Grant, Grants or RenewAll must not be applied, or None.

    ``last`` is the place last accepted for the same EVSE, ``plug`` when its plug last changed or a car was found there.
    """
    if not message.HasField("echo") or message.echo.incarnation != incarnation:
        return "foreign incarnation"
    ttl = message.ttl.seconds + message.ttl.nanos / 1e9
    if not 0 <= now - message.echo.boottime_s <= ttl:
        return "old echo"
    if message.echo.boottime_s < plug:
        return "meant for another car"
    if place(message) <= last:
        return "not newer"
    return None
