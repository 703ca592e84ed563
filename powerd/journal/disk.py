"""What the ticker knows of the disk: what is durable, how long it has been waited for, and when that is trouble."""

from __future__ import annotations

from collections import deque

import numpy as np

from powerd.control.decision import Decision
from powerd.control.durable import covered_by
from powerd.control.events import Event, TroubleBegan, TroubleEnded
from powerd.limits import Floats
from powerd.state.impaired import Trigger


class DiskWatch:
    """Counts commits out and in; tells trouble as events, once when it begins and once when it ends."""

    def __init__(self, covered: Floats, slow_s: float, *, epoch: int | None) -> None:
        """Begins with a disk that is well.

        Args:
            covered: (n,) W of the last durable state, what a restart would hold; inf where nothing is journalled.
            slow_s: a commit that waits for longer is trouble [s].
            epoch: of the last durable state; None where nothing is journalled: then nothing waits.
        """
        self._covered = covered
        self._epoch = epoch
        self._slow_s = slow_s
        self._waiting: deque[tuple[float, Floats]] = deque()  # (handed over at, its W), oldest first
        self._unsure: list[Floats] = []  # the least W of ticks that were given up, each maybe durable; at most one
        self._least: Floats | None = covered  # of the covered W and of all that wait; None = to be found again
        self._failed = False
        self._told: set[Trigger] = set()
        self.newest_tick = -1
        """The newest tick that is durable; -1 = none of this process."""

    @property
    def troubled(self) -> bool:
        """The step knows of trouble with the disk."""
        return bool(self._told)

    def covering(self, decision: Decision) -> Floats:
        """(n,) up to where its grants need not wait: nowhere while the disk does not know its epoch (R4)."""
        fenced = self._epoch is not None and decision.snapshot.leases.epoch > self._epoch
        return np.full_like(self._covered, -np.inf) if fenced else self._least_covered()

    def _least_covered(self) -> Floats:
        """(n,) what a restart would hold whichever of the waiting ticks turns out to be the last durable one.

        A tick that still waits may have voided a lease (another car came) which the last durable one covers.
        """
        if self._least is None:
            self._least = covered_by([self._covered, *self._unsure, *(worst for _, worst in self._waiting)])
        return self._least

    def handed_over(self, decision: Decision) -> None:
        """A tick waits for the disk from now on."""
        if self._epoch is None:
            return
        self._waiting.append((decision.now.boottime_s, decision.worst))
        if self._least is not None:
            self._least = covered_by([self._least, decision.worst])

    def took(self, decision: Decision) -> None:
        """The oldest waiting tick is durable."""
        if self._epoch is None:
            return
        self._waiting.popleft()
        self.newest_tick = decision.tick
        self._failed = False
        self._unsure = []
        self._covered, self._least = decision.worst, None
        self._epoch = decision.snapshot.leases.epoch

    def refused(self, *, unsure: bool = False) -> None:
        """The disk refused the oldest waiting tick; it will be written with a later one. ``unsure``: see ``Gate``."""
        _, worst = self._waiting.popleft()
        if unsure:
            self._unsure = [covered_by([worst, *self._unsure])]
        self._failed, self._least = True, None

    def news(self, boottime_s: float) -> list[Event]:
        """What the step must be told now."""
        slow = bool(self._waiting) and boottime_s - self._waiting[0][0] > self._slow_s
        events: list[Event] = []
        for trigger, on in ((Trigger.DISK_FAILED, self._failed), (Trigger.DISK_SLOW, slow)):
            if on and trigger not in self._told:
                events.append(TroubleBegan(trigger=trigger, cap=self._least_covered()))
                self._told.add(trigger)
            elif not on and trigger in self._told:
                events.append(TroubleEnded(trigger=trigger))
                self._told.remove(trigger)
        return events
