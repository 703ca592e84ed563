"""The switchgear of the simulated world: contacts that take time, refuse, stick and move by themselves.

Rule: what is here is true. What powerd is told of it (late, wrong, twice) is another module's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from powerd.limits import Bools, Ints
from powerd.network.electrical import Electrical
from powerd.network.operation import By
from powerd.network.supply import energise
from powerd.sim.wires import GridState, as_drawn, seen_in
from powerd.site.schema import Operator, SiteFile, TransferKind
from powerd.state.switchgear import HOUR_S

#: How long a switch takes from its order to its contact [s]: motor-driven breakers and load-break switches.
TRAVEL_S = 1.0
#: Loads take their pick-up for this long after their voltage came back [s].
PICKUP_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """An automatic transfer switch, as it acts on its own."""

    name: str
    """Its id."""
    preferred: int
    """Branch of its preferred half."""
    alternate: int
    """Branch of the other half."""
    load_bus: int
    """Bus it feeds."""
    sources: tuple[int, int]
    """Buses of the preferred and the alternate source."""
    transfer_s: float
    """From the loss to the transfer [s]."""
    back_s: float
    """Wait before it goes back [s]."""
    closed_transition: bool
    """Both halves closed for a moment."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule of I9 that a movement broke."""

    rule: str
    """ "onto_fault", "back_feed", "parallel", "out_of_step", "both_halves", "interlock", "earthed", or of the order
    itself "tagged", "blind", "not_ours", "too_often"."""
    element: str
    """Where."""
    at_s: float
    """When [s]."""


class Gear:
    """Contacts, losses and faults of a site during one run; mutable."""

    def __init__(self, electrical: Electrical, transfers: Iterable[Transfer] = (), travel_s: float = TRAVEL_S) -> None:
        self.electrical = electrical
        drawn = as_drawn(electrical)
        self.closed, self.sound, self.alive = drawn.closed.copy(), drawn.sound.copy(), drawn.alive.copy()
        self.faulted: Bools = np.zeros_like(self.closed)
        """(E,) a fault is on it: it conducts nothing, and closing onto it is what must never happen."""
        self._exposed: dict[int, tuple[int, ...]] = {}  # faulted branch -> its ends that no protection cut off
        self._barred: dict[int, Ints] = {}  # faulted branch -> buses that went dead with it
        self.tripped: Bools = np.zeros_like(self.closed)
        """(E,) opened on protection and not reset."""
        self.refuses: set[int] = set()
        """Branches that do not take orders and say so."""
        self.stuck: set[int] = set()
        """Branches that take orders and do not move."""
        self.tagged: set[int] = set()
        """Switches that somebody works at: no order may come."""
        self.earthed: set[int] = set()
        """Branches with an earth on them: no voltage may come near."""
        self.blind: set[int] = set()
        """Switches whose position contacts disagree: nobody can say how they stand, so no order may come."""
        self.drifting: set[int] = set()
        """Supplies that are not in step with the others: joined to one of them, the surge is as a fault's."""
        self.starved: set[int] = set()
        """Branches that opened by themselves, with no voltage at one end any more: their relays say so."""
        self.broken: list[Broken] = []
        """What was broken so far."""
        self.moves: list[tuple[float, int, bool]] = []
        """(when, branch, closed) of every movement."""
        self._transfers = tuple(transfers)
        self._travel_s = travel_s
        self._ordered: list[tuple[float, int]] = []
        self._under_way: dict[int, tuple[bool, float]] = {}
        self._dead_since = [float("inf")] * len(self._transfers)
        self._back_since = [-float("inf")] * len(self._transfers)
        self._live = self._buses_live()
        self._back_at = np.full(len(electrical.buses.ids), -np.inf)

    def state(self, now_s: float) -> GridState:
        """As it is now, loads that came back at their pick-up."""
        loads = self.electrical.loads
        fresh = now_s - self._back_at[loads.bus] < PICKUP_S
        return GridState(
            closed=self.closed.copy(),
            sound=self.sound & ~self.faulted,
            alive=self.alive.copy(),
            load_factor=np.where(fresh, loads.pickup_factor, 1.0),
        )

    def cold(self, now_s: float) -> Bools:
        """(D,) loads without a voltage, and those that take more than usual after theirs came back."""
        bus = self.electrical.loads.bus
        found: Bools = ~self._live[bus] | (now_s - self._back_at[bus] < PICKUP_S)
        return found

    @property
    def exposed(self) -> tuple[int, ...]:
        """Buses at the open end of a fault: a voltage there feeds it."""
        return tuple(bus for ends in self._exposed.values() for bus in ends)

    @property
    def barred(self) -> Ints:
        """Dead buses that protection took the voltage from: nothing may close onto them without a person's word."""
        gone = np.unique(np.concatenate([np.zeros(0, np.int64), *self._barred.values()]))
        dead: Ints = gone[~self._live[gone]]
        return dead

    @property
    def moving(self) -> bool:
        """An order is being carried out."""
        return bool(self._under_way)

    def in_step(self, branch: int) -> bool:
        """What the sync check at a switch sees: voltage at both ends, and no supply drifting against another."""
        one, other = self._supplies_at(branch)
        together = one | other
        return bool(one and other) and (len(together) == 1 or not together & self.drifting)

    def order(self, branch: int, close: bool, now_s: float) -> bool:
        """An order from outside; False = refused. It moves after its travel time, if it is not stuck."""
        self._ordered.append((now_s, branch))
        self._judge_order(branch, now_s)
        if branch in self.refuses:
            return False
        if branch not in self.stuck:
            self._under_way[branch] = (close, now_s + self._travel_s)
        return True

    def pull(self, branch: int, close: bool, now_s: float, *, protection: bool = False) -> None:
        """It moves at once: a relay, a hand."""
        self._under_way.pop(branch, None)
        self._move(branch, close, now_s)
        self.tripped[branch] = protection and not close

    def lose(self, branch: int, now_s: float) -> None:
        """A branch fails, or a switch trips on a fault behind it: protection cuts it off from where it was fed."""
        branches = self.electrical.branches
        before = self._live
        self.faulted[branch] = True
        if branches.switchable[branch]:
            self._move(branch, False, now_s)
            self.tripped[branch] = True
        self._settle(now_s)
        ends = (int(branches.from_bus[branch]), int(branches.to_bus[branch]))
        self._exposed[branch] = tuple(bus for bus in ends if before[bus] and not self._live[bus])
        self._barred[branch] = np.flatnonzero(before & ~self._live)

    def vanish(self, branch: int, now_s: float) -> None:
        """A branch conducts no more though there is no fault: its far end lost its voltage; a switch will not close."""
        if self.electrical.branches.switchable[branch]:
            self._move(branch, False, now_s)
            self.refuses.add(branch)
            self.starved.add(branch)
        else:
            self.sound[branch] = False
        self._settle(now_s)

    def mend(self, branch: int, now_s: float) -> None:
        """The fault is gone; a switch stays as it is."""
        self.faulted[branch] = self.tripped[branch] = False
        self.sound[branch] = True
        self._exposed.pop(branch, None)
        self._barred.pop(branch, None)
        self._settle(now_s)

    def supply(self, supply: int, alive: bool, now_s: float) -> None:
        """A supply loses or regains its voltage."""
        self.alive[supply] = alive
        self._settle(now_s)
        self._judge(-1, now_s)

    def advance(self, now_s: float) -> None:
        """Whatever comes due by ``now_s``: orders arrive, transfer switches act."""
        for branch, (close, due_s) in sorted(self._under_way.items(), key=lambda item: item[1][1]):
            if due_s <= now_s:
                del self._under_way[branch]
                self._move(branch, close, due_s)
                self.starved.discard(branch)
        for k, transfer in enumerate(self._transfers):
            self._transfer(k, transfer, now_s)

    def _transfer(self, k: int, transfer: Transfer, now_s: float) -> None:
        """Dead preferred source and live alternate: over. Preferred source back for long enough: back."""
        preferred, alternate = (bool(self._live[bus]) for bus in transfer.sources)
        on_preferred, on_alternate = bool(self.closed[transfer.preferred]), bool(self.closed[transfer.alternate])
        pair = {transfer.preferred, transfer.alternate}
        if pair & self.stuck or pair & set(np.flatnonzero(self.faulted).tolist()):
            return
        if on_preferred and not preferred and alternate and now_s - self._dead_since[k] >= transfer.transfer_s:
            self._move(transfer.preferred, False, now_s)
            self._move(transfer.alternate, True, now_s)
        elif on_alternate and preferred and now_s - self._back_since[k] >= transfer.back_s:
            self._move(transfer.alternate, False, now_s)
            self._move(transfer.preferred, True, now_s)

    def _move(self, branch: int, close: bool, now_s: float) -> None:
        if bool(self.closed[branch]) == close:
            return
        branches = self.electrical.branches
        both_live = self._live[branches.from_bus[branch]] and self._live[branches.to_bus[branch]]
        (self.starved.discard if close or both_live else self.starved.add)(branch)
        self.closed[branch] = close
        self.moves.append((now_s, branch, close))
        self._settle(now_s)
        if close:
            self._judge(branch, now_s)

    def near_voltage(self, branch: int) -> bool:
        """A voltage is at one of its ends."""
        branches = self.electrical.branches
        return bool(self._live[[branches.from_bus[branch], branches.to_bus[branch]]].any())

    def _buses_live(self) -> Bools:
        state = GridState(
            closed=self.closed, sound=self.sound & ~self.faulted, alive=self.alive, load_factor=np.zeros(0)
        )
        return energise(seen_in(self.electrical, state), self.closed).bus_is_live

    def _settle(self, now_s: float) -> None:
        live = self._buses_live()
        self._back_at = np.where(live & ~self._live, now_s, self._back_at)
        self._live = live
        for k, transfer in enumerate(self._transfers):
            preferred = bool(live[transfer.sources[0]])
            self._dead_since[k] = float("inf") if preferred else min(self._dead_since[k], now_s)
            self._back_since[k] = min(self._back_since[k], now_s) if preferred else float("inf")

    def _judge_order(self, branch: int, now_s: float) -> None:
        """Whether this switch may be ordered at all, and now."""
        operation, name = self.electrical.operation, self.electrical.branches.ids[branch]
        often = sum(other == branch and now_s - at_s < HOUR_S for at_s, other in self._ordered)
        found = {
            "not_ours": operation.by[branch] != By.POWERD,
            "tagged": branch in self.tagged,
            "blind": branch in self.blind,
            "too_often": often > operation.max_operations[branch],
        }
        self.broken += [Broken(rule=rule, element=name, at_s=now_s) for rule, is_so in found.items() if is_so]

    def _judge(self, branch: int, now_s: float) -> None:
        """I9 after a movement, from the true state alone; ``branch`` is what closed, -1 = a supply came back."""
        branches = self.electrical.branches
        closing = branches.ids[branch] if branch >= 0 else ""
        everything = replace(
            self.electrical,
            branches=replace(branches, in_service=self.sound & ~self.faulted),
            supplies=replace(self.electrical.supplies, in_service=np.ones_like(self.alive)),
        )
        island = energise(everything, self.closed).island
        ends = set(island[[branches.from_bus[branch], branches.to_bus[branch]]].tolist()) if branch >= 0 else set()
        found = [*self._onto_fault(branch, ends, island), *self._joined(branch), *self._sources(branch, ends, island)]
        found += ["earthed" for earthed in self.earthed if self._voltage_at(earthed, ends, island)]
        found += [
            "interlock"
            for lock in self.electrical.interlocks
            if branch in lock.branches and int(self.closed[list(lock.branches)].sum()) > lock.at_most_closed
        ]
        self.broken += [Broken(rule=rule, element=closing or "a supply", at_s=now_s) for rule in found]

    def _voltage_at(self, branch: int, ends: set[int], island: Ints) -> bool:
        """The closing that joined ``ends`` brings a voltage to an end of a branch."""
        branches = self.electrical.branches
        both = (int(branches.from_bus[branch]), int(branches.to_bus[branch]))
        return any(int(island[bus]) in ends and self._live[bus] for bus in both)

    def _onto_fault(self, branch: int, ends: set[int], island: Ints) -> Iterator[str]:
        """The switch that closed is faulty itself, or brings a voltage to the open end of something that is."""
        if branch >= 0 and self.faulted[branch]:
            yield "onto_fault"
        for exposed in self._exposed.values():
            if any(int(island[bus]) in ends and self._live[bus] for bus in exposed):
                yield "onto_fault"

    def _supplies_at(self, branch: int) -> tuple[set[int], set[int]]:
        """Live supplies behind either end of a switch, as if it were open."""
        branches, apart = self.electrical.branches, self.closed.copy()
        apart[branch] = False
        state = GridState(closed=apart, sound=self.sound & ~self.faulted, alive=self.alive, load_factor=np.zeros(0))
        island = energise(seen_in(self.electrical, state), apart).island
        at = island[self.electrical.supplies.bus]
        one, other = (
            set(np.flatnonzero(self.alive & (at == island[ends[branch]])).tolist())
            for ends in (branches.from_bus, branches.to_bus)
        )
        return one, other

    def _joined(self, branch: int) -> Iterator[str]:
        """The switch that closed joins what is out of step, or is the second half of a transfer switch to be closed."""
        if branch < 0:
            return
        if all(self._supplies_at(branch)) and not self.in_step(branch):
            yield "out_of_step"
        partner = int(self.electrical.operation.partner[branch])
        if partner >= 0 and self.closed[partner] and not self._transition(branch):
            yield "both_halves"

    def _transition(self, branch: int) -> bool:
        """The halves of a transfer switch overlap as its site file allows, its supplies in step."""
        operation = self.electrical.operation
        partner = int(operation.partner[branch])
        overlap = partner >= 0 and bool(self.closed[[branch, partner]].all())
        return overlap and bool(operation.closed_transition[branch]) and self.in_step(branch)

    def _sources(self, branch: int, ends: set[int], island: Ints) -> Iterator[str]:
        """Supplies that hang together: one dead = it is fed back into, both alive = in parallel."""
        supplies = self.electrical.supplies
        may = self.electrical.parallel_supplies or (branch >= 0 and self._transition(branch))
        groups: dict[int, list[bool]] = {}
        for s in np.flatnonzero(supplies.in_service).tolist():
            groups.setdefault(int(island[supplies.bus[s]]), []).append(bool(self.alive[s]))
        for label, alive in groups.items():
            if ends and label not in ends:
                continue
            if any(alive) and not all(alive):
                yield "back_feed"
            if sum(alive) > 1 and not may:
                yield "parallel"


def transfers_of(site: SiteFile | None, electrical: Electrical) -> tuple[Transfer, ...]:
    """The automatic transfer switches of a site file."""
    ids = electrical.branches.ids
    bus = {name: index for index, name in enumerate(electrical.buses.ids)}
    return tuple(
        Transfer(
            name=t.id,
            preferred=ids.index(f"{t.id}/preferred"),
            alternate=ids.index(f"{t.id}/alternate"),
            load_bus=bus[t.load_bus],
            sources=(bus[t.preferred_bus], bus[t.alternate_bus]),
            transfer_s=t.transfer_time_s,
            back_s=t.retransfer_delay_s,
            closed_transition=t.closed_transition,
        )
        for t in (site.transfer_switches if site is not None else ())
        if t.in_service and t.operated_by is Operator.ITSELF and t.kind is TransferKind.AUTOMATIC
    )
