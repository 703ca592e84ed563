"""How long the daemon was down: what the clocks of before and after a restart tell of the time between."""

from __future__ import annotations

from dataclasses import dataclass

from powerd.units import Now


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The time from the last step before a restart to the start after it."""

    was_s: float
    """Boottime of that step, on its own boot's clock [s]."""
    utc_ahead_s: float
    """By how much the wall clock was ahead of that clock then [s]."""
    now: Now
    """The start."""
    same_boot: bool
    """Both boottimes are of one clock."""

    @property
    def down_s(self) -> float:
        """How long it lasted [s]; nan = nobody can say: the wall clock is behind (a machine without one of its own).

        Another boot's clock began after that step, so more has passed than it shows, and a wall clock by which less has
        passed is behind.
        """
        if self.same_boot:
            return self.now.boottime_s - self.was_s
        passed_s = self.now.utc.timestamp() - (self.was_s + self.utc_ahead_s)
        return passed_s if passed_s >= self.now.boottime_s else float("nan")


def gap_of(was_s: float, utc_ahead_s: float, boot: str, now: Now, boot_now: str) -> Gap:
    """The gap between two instants; ``boot`` and ``boot_now`` say of which boot each is, "" = not known."""
    same = boot == boot_now != "" and now.boottime_s >= was_s  # it goes back where a machine is restored from an image
    return Gap(was_s=was_s, utc_ahead_s=utc_ahead_s, now=now, same_boot=same)
