"""What the ticker knows of the disk: what is durable, how long it has been waited for, and when that is trouble."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from powerd.control.decision import Decision
from powerd.control.durable import covered_by
from powerd.control.events import Event, TroubleBegan, TroubleEnded
from powerd.limits import Bools, Floats
from powerd.state.impaired import Trigger
from powerd.state.snapshot import Snapshot


class Covered(NamedTuple):
    """What a restart from a tick, or from any of several, would hold for sure; (n,) each."""

    worst: Floats
    """W [own unit]."""
    alone: Bools
    """It would count the post on its L1 alone."""


def alone_in(snapshot: Snapshot) -> Bools:
    """(n,) posts that a restart from there would count on their L1 alone."""
    return snapshot.contactors.one & snapshot.contactors.proved


def _all_of(known: Sequence[Covered]) -> Covered:
    """Whichever of them it would be."""
    return Covered(covered_by([one.worst for one in known]), np.logical_or.reduce([one.alone for one in known]))


class DiskWatch:
    """Counts commits out and in; tells trouble as events, once when it begins and once when it ends."""

    def __init__(self, covered: Covered, slow_s: float, *, epoch: int | None) -> None:
        """Begins with a disk that is well.

        Args:
            covered: of the last durable state; W is inf where nothing is journalled.
            slow_s: a commit that waits for longer is trouble [s].
            epoch: of the last durable state; None where nothing is journalled: then nothing waits.
        """
        self._covered = covered
        self._epoch = epoch
        self._slow_s = slow_s
        self._waiting: deque[tuple[float, Covered]] = deque()  # (handed over at, what it would hold), oldest first
        # Of ticks that the disk refused: what failed as it was flushed may be there at the next start. At most one.
        self._unsure: list[Covered] = []
        self._least: Covered | None = covered  # of that, what is covered, and all that wait; None = to be found again
        self._failed = False
        self._told: set[Trigger] = set()
        self.newest_tick = -1
        """The newest tick that is durable; -1 = none of this process."""

    @property
    def troubled(self) -> bool:
        """The step knows of trouble with the disk."""
        return bool(self._told)

    def covering(self, decision: Decision) -> Floats:
        """(n,) up to where its grants need not wait: nowhere while the disk does not know its epoch (R4).

        Nor where they are for all phases, and a restart would count the post on L1 alone.
        """
        least, alone = self._least_covered()
        if self._epoch is not None and decision.snapshot.leases.epoch > self._epoch:
            return np.full_like(least, -np.inf)
        return np.where(alone & ~decision.snapshot.contactors.one, np.minimum(least, 0.0), least)

    def _least_covered(self) -> Covered:
        """What a restart would hold whichever of the waiting ticks turns out to be the last durable one.

        A tick that still waits may have voided a lease (another car came) which the last durable one covers.
        """
        if self._least is None:
            self._least = _all_of([self._covered, *self._unsure, *(one for _, one in self._waiting)])
        return self._least

    def handed_over(self, decision: Decision) -> None:
        """A tick waits for the disk from now on."""
        if self._epoch is None:
            return
        own = Covered(decision.worst, alone_in(decision.snapshot))
        self._waiting.append((decision.now.boottime_s, own))
        if self._least is not None:
            self._least = _all_of([self._least, own])

    def took(self, decision: Decision) -> None:
        """The oldest waiting tick is durable."""
        if self._epoch is None:
            return
        self._waiting.popleft()
        self.newest_tick = decision.tick
        self._failed = False
        self._unsure = []
        self._covered, self._least = Covered(decision.worst, alone_in(decision.snapshot)), None
        self._epoch = decision.snapshot.leases.epoch

    def refused(self) -> None:
        """The disk refused the oldest waiting tick: it may be durable all the same, and a later one says it again."""
        _, own = self._waiting.popleft()
        self._unsure = [_all_of([own, *self._unsure])]
        self._failed, self._least = True, None

    def news(self, boottime_s: float) -> list[Event]:
        """What the step must be told now."""
        slow = bool(self._waiting) and boottime_s - self._waiting[0][0] > self._slow_s
        events: list[Event] = []
        for trigger, on in ((Trigger.DISK_FAILED, self._failed), (Trigger.DISK_SLOW, slow)):
            if on and trigger not in self._told:
                events.append(TroubleBegan(trigger=trigger, cap=self._least_covered().worst))
                self._told.add(trigger)
            elif not on and trigger in self._told:
                events.append(TroubleEnded(trigger=trigger))
                self._told.remove(trigger)
        return events
