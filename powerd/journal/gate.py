"""What may leave before the disk has it, and what when it has answered: the one place of that rule. No clock, no disk.

    decided -> what no restart could contradict leaves -> (disk) -> took: all the rest | refused: a part, or never

The daemon and the fault simulation ask the same gate, so what is tried there is what runs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from powerd.control.decision import Decision
from powerd.control.durable import HeldBack, split_lowered, split_raised
from powerd.control.events import Event, FreshWanted
from powerd.journal.disk import Covered, DiskWatch
from powerd.limits import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaving:
    """What leaves now, in this order; a decision stands for the part of it that leaves."""

    lowered: tuple[Decision, ...]
    """Decreases and stops, the oldest first."""
    raised: tuple[Decision, ...]
    """After them, the oldest first: of each its raises and repeated grants, order to the switchgear, renewals."""


class Gate:
    """Ticks go in as they are decided, the disk's answers in the same order; what may leave comes out of both."""

    def __init__(
        self, owner: Ints, covered: Floats, slow_s: float, *, epoch: int | None, alone: Bools | None = None
    ) -> None:
        """Begins with a disk that is well.

        Args:
            owner: (n,) controller of each EVSE.
            covered: (n,) W of the last durable state, what a restart would hold; inf where nothing is journalled.
            slow_s: a tick that waits for longer is trouble [s].
            epoch: of the last durable state; None where nothing is journalled: then every tick is taken as it comes.
            alone: (n,) posts that a restart from that state would count on their L1 alone; default none.
        """
        self._owner = owner
        known = Covered(covered, np.zeros(owner.shape, np.bool_) if alone is None else alone)
        self._disk = DiskWatch(known, slow_s, epoch=epoch)
        self._held_back = HeldBack()
        # Each tick that waits, and what of its raises has not left; None = nothing.
        self._waiting: deque[tuple[Decision, Decision | None]] = deque()
        self._unsaid = np.zeros(owner.shape, np.bool_)  # raises that the disk refused: to be named again

    @property
    def troubled(self) -> bool:
        """The step knows of trouble with the disk."""
        return self._disk.troubled

    def news(self, boottime_s: float) -> list[Event]:
        """What the step of this instant must be told, after all that came in."""
        events = self._disk.news(boottime_s)
        if self._unsaid.any():
            events.append(FreshWanted(evse=np.flatnonzero(self._unsaid)))
            self._unsaid[:] = False
        return events

    def decided(self, decision: Decision) -> Leaving:
        """A tick was decided and waits for the disk from now on; what needs no disk leaves before it is handed over.

        While the disk is well every raise waits for it: that takes less than a tick.
        """
        lowered, held_back = split_lowered(decision, self._disk.covering(decision))
        if held_back is not None:
            self._held_back.add(held_back)
        self._disk.handed_over(decision)
        self._waiting.append((decision, decision))
        return Leaving(lowered=(lowered,), raised=self._sifted())

    def took(self) -> Leaving:
        """The oldest waiting tick is durable: nothing of it waits any longer."""
        decision, later = self._waiting.popleft()
        self._disk.took(decision)
        own = () if later is None else (later,)
        return Leaving(lowered=self._freed(), raised=(*own, *self._sifted()))

    def refused(self) -> Leaving:
        """The disk refused the oldest waiting tick: raises of it that a restart would not cover never leave.

        It may be durable after all: what fails as it is flushed has been written.
        """
        _, later = self._waiting.popleft()
        self._disk.refused()
        own: list[Decision] = []
        if later is not None:
            now, never = self._needless(later)
            self._unsaid[never.raised.evse] = True
            own.append(now)
        return Leaving(lowered=self._freed(), raised=(*own, *self._sifted()))

    def _freed(self) -> tuple[Decision, ...]:
        """Decreases that need not wait any longer."""
        return tuple(self._held_back.freed(self._disk.newest_tick, self._disk.covering))

    def _sifted(self) -> tuple[Decision, ...]:
        """In trouble what needs no disk of all that waits, so that no renewal leaves before an older grant may.

        A post refuses a grant that comes after a newer renewal, and nothing would name it again.
        """
        if not self.troubled:
            return ()
        found: list[Decision] = []
        left: deque[tuple[Decision, Decision | None]] = deque()
        for decision, part in self._waiting:
            now, later = (None, None) if part is None else self._needless(part)
            found += [] if now is None else [now]
            left.append((decision, None if later is None or _is_empty(later) else later))
        self._waiting = left
        return tuple(found)

    def _needless(self, part: Decision) -> tuple[Decision, Decision]:
        """The raises and renewals that need no disk, and those that do."""
        return split_raised(part, self._disk.covering(part), self._owner)


def _is_empty(part: Decision) -> bool:
    """Nothing of it leaves after the disk."""
    return part.order is None and part.raised.evse.shape[0] + part.renewal.controller.shape[0] == 0
