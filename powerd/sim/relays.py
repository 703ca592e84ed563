"""What powerd is told of the simulated switchgear: positions, losses, heartbeats; late, wrong or not at all.

One reporter speaks for every switch, as a substation gateway does, and takes the orders for those that powerd operates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from powerd.control import switch_events as sw
from powerd.control.decision import Decision
from powerd.control.events import Event
from powerd.network.electrical import Electrical
from powerd.network.operation import By
from powerd.sim.outage import Loss
from powerd.sim.switches import Gear
from powerd.state.switchgear import Flag, Phase, Position

GATEWAY, LIAR = 1, 2
"""Reporters: the one that speaks the truth, and one that may not."""


@dataclass(kw_only=True)
class Relays:
    """The gateway between a ``Gear`` and the core; mutable."""

    gear: Gear
    delay_s: float = 0.0
    """From a movement to its report [s]."""
    mute: set[int] = field(default_factory=set)
    """Branches whose movements nobody reports."""
    _told: int = 0
    _first: bool = True
    _waiting: list[tuple[float, Event]] = field(default_factory=list)
    _refused: list[int] = field(default_factory=list)
    _order: int = 0
    _in_step: set[int] = field(default_factory=set)

    def speaks(self, now_s: float) -> list[Event]:
        """Everything that is due at ``now_s``."""
        electrical = self.gear.electrical
        found: list[Event] = []
        switches = np.flatnonzero(electrical.branches.switchable)
        if self._first and switches.shape[0]:
            self._first = False
            found.append(self._seen(switches.tolist(), now_s))
        mine = np.flatnonzero(electrical.operation.by == By.POWERD)
        if mine.shape[0]:
            found.append(sw.GearHeard(branch=mine, incarnation=1, clock_s=now_s))
        moved = [branch for _, branch, _ in self.gear.moves[self._told :] if branch not in self.mute]
        self._told = len(self.gear.moves)
        moved += self._sync_changed()
        if moved:
            self._waiting.append((now_s + self.delay_s, self._seen(dict.fromkeys(moved), now_s)))
        found += [event for due_s, event in self._waiting if due_s <= now_s]
        self._waiting = [(due_s, event) for due_s, event in self._waiting if due_s > now_s]
        found += [sw.OrderRefused(order_id=order, reason="local") for order in self._refused]
        self._refused = []
        return found

    @property
    def waiting(self) -> bool:
        """Something has still to be told."""
        return bool(self._waiting or self._refused)

    def hears(self, decision: Decision, now_s: float) -> None:
        """Passes an order of the tick on to the contacts."""
        gear = decision.snapshot.gear
        if gear.phase == Phase.WAITING and gear.order_id != self._order:
            self._order = gear.order_id
            step = gear.steps[0]
            if not self.gear.order(abs(step) - 1, step > 0, now_s):
                self._refused.append(gear.order_id)

    def loses(self, loss: Loss, now_s: float) -> None:
        """Something without a contact was lost or is back."""
        flags = Flag(0) if not loss.lost else Flag.PROTECTION if loss.protection else Flag.UPSTREAM_LOST
        event = sw.OutageSeen(
            reporter=GATEWAY,
            reporter_id="gateway",
            incarnation=GATEWAY,
            clock_s=now_s,
            kind=sw.ElementKind(loss.kind),
            index=loss.index,
            lost=loss.lost,
            flags=int(flags),
        )
        self._waiting.append((now_s + self.delay_s, event))

    def tells(self, branch: int, now_s: float) -> None:
        """How a switch stands, though it has not moved: somebody tagged or earthed it, and waits for the answer."""
        self._waiting.append((now_s, self._seen([branch], now_s)))

    def reconnects(self) -> None:
        """powerd is a new process: it hears anew how everything stands."""
        self._first, self._refused = True, []

    def lies(self, branch: int, now_s: float) -> None:
        """Another device says the opposite of the truth about a switch."""
        event = self._seen([branch], now_s, reporter=LIAR, flip=True)
        self._waiting.append((now_s, event))

    def _sync_changed(self) -> list[int]:
        """Switches with a sync check, whose permissive came or went."""
        may = self.gear.electrical.operation.closed_transition | self.gear.electrical.parallel_supplies
        checked = np.flatnonzero(may & self.gear.electrical.branches.switchable).tolist()
        before, self._in_step = self._in_step, {branch for branch in checked if self.gear.in_step(branch)}
        return sorted(before ^ self._in_step)

    def _seen(
        self, branches: Iterable[int], now_s: float, reporter: int = GATEWAY, *, flip: bool = False
    ) -> sw.SwitchesSeen:
        index = np.array(list(branches), np.int64)
        closed = self.gear.closed[index] != flip
        tripped = self.gear.tripped[index]
        upstream = ~closed & ~tripped & np.isin(index, list(self.gear.starved))
        flags = np.where(tripped & ~closed, int(Flag.PROTECTION), np.where(upstream, int(Flag.UPSTREAM_LOST), 0))
        marks = (self.gear.tagged, Flag.TAGGED), (self.gear.earthed, Flag.EARTHED), (self._in_step, Flag.SYNC)
        for marked, flag in marks:
            flags = flags | np.where(np.isin(index, list(marked)), int(flag), 0)
        return sw.SwitchesSeen(
            reporter=reporter,
            reporter_id="gateway" if reporter == GATEWAY else "another",
            incarnation=reporter,
            clock_s=now_s,
            branch=index,
            position=np.where(
                np.isin(index, list(self.gear.blind)),
                int(Position.UNKNOWN),
                np.where(closed, int(Position.CLOSED), int(Position.OPEN)),
            ),
            flags=flags,
        )


def operated(electrical: Electrical) -> list[int]:
    """Switches that powerd may order."""
    return np.flatnonzero(electrical.operation.by == By.POWERD).tolist()
