"""What the daemon has noticed to be wrong outside of the step, as far as decisions depend on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from powerd.limits import Floats


class Trigger(StrEnum):
    """What can go wrong while the daemon runs."""

    SOLVER_LATE = "solver late"
    """A solve was not done after half a period."""
    SOLVER_FAILED = "solver failed"
    """No solver proved an answer."""
    AC_CHECK_FAILED = "AC check failed"
    """The power flow of what was wanted breaks a bound, or has no solution."""
    METER_STALE = "meter stale"
    """A meter has not been heard from for longer than it may be silent."""
    CONTROLLER_SILENT = "controller silent"
    """A controller with cars has sent no stamp for a ttl."""
    SWITCHGEAR_SILENT = "switchgear silent"
    """The positions of switches are not known."""
    OPERATOR_SILENT = "grid operator silent"
    """A grid operator who promised a heartbeat has not spoken in time."""
    CLOCK_STEPPED = "clock stepped"
    """The wall clock moved against the boottime clock (NTP, a person)."""
    SUSPENDED = "suspended"
    """No tick for longer than the shortest lease: the machine slept, or the process was stopped."""
    OVERLOAD = "inbox full"
    """More came in than the inbox takes."""
    DISK_SLOW = "disk slow"
    """A tick has waited for the disk for longer than two ticks."""
    DISK_FAILED = "disk failed"
    """The disk refuses the journal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Impaired:
    """What is wrong now, and what follows for the ceilings."""

    triggers: tuple[Trigger, ...]
    """What the daemon told and has not taken back, oldest first."""
    cap: Floats
    """(n,) the most that may be granted: what a restart would cover; inf while the disk takes what it is given."""
    utc_ahead_s: float
    """By how much the wall clock was ahead of the boottime clock at the last step [s]; nan before the first."""

    @property
    def disk(self) -> bool:
        """There is trouble with the disk: nothing new becomes durable for now."""
        return Trigger.DISK_SLOW in self.triggers or Trigger.DISK_FAILED in self.triggers

    def began(self, trigger: Trigger, cap: Floats | None) -> Impaired:
        """The same with one trouble more; a new ``cap`` replaces the one before."""
        others = tuple(own for own in self.triggers if own is not trigger)
        return replace(self, triggers=(*others, trigger), cap=self.cap if cap is None else cap)

    def ended(self, trigger: Trigger) -> Impaired:
        """The same with one trouble less; with the last one of the disk its cap ends."""
        after = replace(self, triggers=tuple(own for own in self.triggers if own is not trigger))
        return after if after.disk else replace(after, cap=np.full_like(self.cap, np.inf))


def unimpaired(count: int) -> Impaired:
    """Nothing is wrong with ``count`` EVSEs."""
    return Impaired(triggers=(), cap=np.full(count, np.inf), utc_ahead_s=float("nan"))
