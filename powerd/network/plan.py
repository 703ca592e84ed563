"""For a set of outages the best switch state: first what is safe, then what is fed, then how few switches move.

Lexicographic, each level only among the best of the one above (``Score``):

    safe            no ring, no two supplies together, nothing fed that must not be, reserves and loads fit every rating
    critical        most critical load fed
    deliverable     most power that can reach loads and EVSEs: max flow on the tree, phase by phase
    fed             most EVSE rating fed, what has a voltage first
    operations      fewest switches moved

Exact by enumeration up to ``EXACT_SWITCHES`` switches that may move; beyond that a search over one, two and three
switches at a time, which may miss a better state. The bound takes every post at its rating, so a
plan stays right whoever plugs in next, and counts loads at their configured worst, those without voltage times their
pick-up factor (R8), and EVSEs at least at their reserve (R5).
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import V_LOW_PU, Electrical, reserve_of
from powerd.network.plan_kernels import search
from powerd.units import SQRT3

EXACT_SWITCHES = 16
"""Up to so many switches that may move, every state is looked at."""
CHUNK = 4096
"""States that are judged in one compiled call."""
KEPT = 1.001
"""EVSEs that have a voltage count so much more than those that have none: of equal plans the one that keeps them."""
MARGIN = 0.01
"""A running state is left for another one only for so much more deliverable power, or for something dead."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The drawing as the planner reckons with it; B buses, E branches, S supplies, kVA a phase."""

    from_bus: Ints
    to_bus: Ints
    start: Ints
    """(B + 1,) with ``links``: the branches at each bus."""
    links: Ints
    capacity: Floats
    """(E, 3) rating; inf = none."""
    demand: Floats
    """(B, 3) ratings of the EVSEs."""
    reserve: Floats
    """(B, 3) what they may draw without a grant."""
    load: Floats
    """(B, 3) uncontrolled loads at their worst: the current at the lowest voltage, as kVA at the nominal one."""
    pickup: Floats
    """(B, 3) the same, right after an outage."""
    worth: Floats
    """(B, 2) critical load and EVSE rating, all phases."""
    supply_bus: Ints
    """(S,) bus of each supply."""
    import_kva: Floats
    """(S,) most it may give, all phases."""
    site_kva: float
    """Most for the whole site."""
    locks: tuple[Ints, Ints, Ints]
    """Interlock groups: where each starts (G + 1,), their branches, and how many may be closed (G,)."""

    @staticmethod
    def of(electrical: Electrical) -> Grid:
        """The columns of a site."""
        branches, buses = electrical.branches, electrical.buses.voltage_v.shape[0]
        ends = np.concatenate([branches.from_bus, branches.to_bus])
        order = np.argsort(ends, kind="stable")
        count = branches.kind.shape[0]
        sides = [
            np.where(np.isfinite(c), c, np.inf) * electrical.buses.voltage_v[end] / SQRT3 / 1000
            for c, end in (
                (branches.capacity_from_a, branches.from_bus),
                (branches.capacity_to_a, branches.to_bus),
            )
        ]
        posts = _post_kva(electrical, electrical.posts.max_ceiling)
        loads = _load_kva(electrical, np.ones_like(electrical.loads.worst_kw))
        critical = _load_kva(electrical, electrical.loads.critical.astype(np.float64))
        return Grid(
            from_bus=branches.from_bus,
            to_bus=branches.to_bus,
            start=np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=buses))]).astype(np.int64),
            links=(order % max(count, 1)).astype(np.int64),
            capacity=np.repeat(np.minimum(*sides)[:, None], 3, axis=1),
            demand=posts,
            reserve=_post_kva(electrical, reserve_of(electrical)),
            load=loads,
            pickup=_load_kva(electrical, electrical.loads.pickup_factor),
            worth=np.column_stack([critical.sum(axis=1), posts.sum(axis=1)]),
            supply_bus=electrical.supplies.bus,
            import_kva=electrical.supplies.import_limit_kw,
            site_kva=float(electrical.site_import_limit_kw),
            locks=_locks(electrical),
        )


def _locks(electrical: Electrical) -> tuple[Ints, Ints, Ints]:
    """See ``Grid.locks``."""
    groups = electrical.interlocks
    start = np.cumsum([0] + [len(group.branches) for group in groups]).astype(np.int64)
    branches = np.array([b for group in groups for b in group.branches], np.int64)
    return start, branches, np.array([group.at_most_closed for group in groups], np.int64)


def _post_kva(electrical: Electrical, ceiling: Floats) -> Floats:
    """(B, 3) what EVSEs at these ceilings (n,) put on their bus's phases [kVA]."""
    on = ~np.isnan(electrical.evse_phasor_deg)
    posts, volts = electrical.posts, electrical.buses.voltage_v[electrical.evse_bus]
    dc = electrical.evse_amps_per_unit * SQRT3 * volts / 1000
    whole = ceiling * np.where(posts.is_dc, dc, posts.kw_per_unit)
    total = np.zeros((electrical.buses.voltage_v.shape[0], 3))
    np.add.at(total, electrical.evse_bus, whole[:, None] * on / np.maximum(on.sum(axis=1, keepdims=True), 1))
    return total


def _load_kva(electrical: Electrical, factor: Floats) -> Floats:
    """(B, 3) uncontrolled loads at ``factor`` (D,) times their worst, at the lowest voltage, as in the rows [kVA]."""
    loads = electrical.loads
    on = (loads.phase_bits[:, None] >> np.arange(3)) & 1
    share = loads.worst_kw * factor / loads.power_factor / V_LOW_PU / np.maximum(on.sum(axis=1), 1)
    total = np.zeros((electrical.buses.voltage_v.shape[0], 3))
    np.add.at(total, loads.bus, share[:, None] * on)
    return total


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """From where, with what, around what."""

    closed: Bools
    """(E,) positions now; True for what is not a switch, and where nobody knows."""
    known: Bools
    """(E,) current can be sent through it where it is closed: in service, not lost, position certain."""
    shadow: Bools
    """(E,) could conduct although nothing may be fed through it: lost, or not confirmed open."""
    movable: Bools
    """(E,) powerd may order it now."""
    alive: Bools
    """(S,) feeding."""
    barred: Bools
    """(B,) without voltage, and must stay so."""
    dead: Bools
    """(B,) without voltage now."""

    @cached_property
    def key(self) -> str:
        """The same for the same question."""
        parts = (self.closed, self.known, self.shadow, self.movable, self.alive, self.barred, self.dead)
        return hashlib.blake2b(b"".join(part.tobytes() for part in parts), digest_size=12).hexdigest()


@dataclass(frozen=True, kw_only=True, order=True)
class Score:
    """How good a state is; larger is better, in this order."""

    wrong: int
    """0, or minus the number of things that are not safe and that the present state does not have."""
    critical: float
    """Critical load fed [kVA]."""
    deliverable: float
    """Bound on what can be delivered [kVA]."""
    fed: float
    """EVSE rating fed, times ``KEPT`` where it is fed now [kVA]."""
    operations: int
    """Minus the number of switches moved."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What to do."""

    closed: Bools
    """(E,) positions in the end."""
    steps: tuple[int, ...]
    """In this order: e + 1 closes branch e, -(e + 1) opens it."""
    score: Score
    """How good the end is."""
    found_by: str
    """"exact" or "heuristic"."""


class Planner:
    """Plans for one site."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    @staticmethod
    def of(electrical: Electrical) -> Planner:
        """The planner of a site."""
        return Planner(Grid.of(electrical))

    def plan(self, question: Question) -> Plan:
        """The best state: exact where few enough switches may move."""
        if int(question.movable.sum()) <= EXACT_SWITCHES:
            return self.exact(question)
        return self.heuristic(question)

    def exact(self, question: Question) -> Plan:
        """Looks at every state of the switches that may move."""
        which = np.flatnonzero(question.movable)
        best, top = _bits(question.closed, which), self.score(question, question.closed)
        for first in range(0, 2 ** which.shape[0], CHUNK):
            states = np.arange(first, min(first + CHUNK, 2 ** which.shape[0]), dtype=np.int64)
            best, top = self._better(question, which, states, best, top)
        return self._told(question, _state(question.closed, which, best), top, "exact")

    def heuristic(self, question: Question) -> Plan:
        """Moves one, two or three switches at a time as long as that helps."""
        which = np.flatnonzero(question.movable)
        best, top = _bits(question.closed, which), self.score(question, question.closed)
        flips = _flips(which.shape[0])
        for _ in range(2 * which.shape[0] + 1):
            at = best
            best, top = self._better(question, which, flips ^ at, at, top)
            if best == at:
                break
        return self._told(question, _state(question.closed, which, best), top, "heuristic")

    def towards(self, question: Question, closed: Bools) -> Plan:
        """The way to a given state of the switches that may move, if it is safe and no worse than to stay."""
        goal = np.where(question.movable, closed, question.closed)
        score, stay = self.score(question, goal), self.score(question, question.closed)
        worse = score.wrong < 0 or score.critical < stay.critical or score.deliverable < stay.deliverable
        if worse:
            goal, score = question.closed, stay
        return Plan(closed=goal, steps=self._steps(question, goal), score=score, found_by="exact")

    def score(self, question: Question, closed: Bools) -> Score:
        """How good a state is, compared with the present one where that is not safe either."""
        which = np.flatnonzero(question.movable)
        return _score(self._scores(question, which, np.array([_bits(closed, which)], np.int64))[0])

    def _better(self, question: Question, which: Ints, states: Ints, best: int, top: Score) -> tuple[int, Score]:
        """The best of the ``states`` and the one known so far, which wins a tie."""
        scores = self._scores(question, which, states)
        order = np.lexsort((-np.arange(states.shape[0]), *(scores[:, c] for c in (4, 3, 2, 1, 0))))
        chosen = _score(scores[order[-1]])
        return (int(states[order[-1]]), chosen) if chosen > top else (best, top)

    def _scores(self, question: Question, which: Ints, states: Ints) -> Floats:
        """(len(states), 5) see ``search``."""
        grid = self.grid
        return search(
            question.closed,
            states,
            which,
            *grid.locks,
            question.known,
            question.shadow,
            grid.from_bus,
            grid.to_bus,
            grid.start,
            grid.links,
            grid.supply_bus[question.alive],
            grid.supply_bus,
            question.barred,
            np.where(question.dead[:, None], grid.worth, grid.worth * [1.0, KEPT]),
            grid.capacity,
            grid.demand,
            grid.reserve,
            np.where(question.dead[:, None], grid.pickup, grid.load),
            grid.import_kva[question.alive],
            grid.site_kva,
        )

    def _told(self, question: Question, closed: Bools, score: Score, found_by: str) -> Plan:
        """The plan towards a state; to stay, where the gain is not worth an interruption."""
        stay = self.score(question, question.closed)
        gains = score.wrong > stay.wrong or score.critical > stay.critical or score.fed > stay.fed
        gains |= score.deliverable > (1 + MARGIN) * stay.deliverable
        if not gains:
            closed, score = question.closed, stay
        return Plan(closed=closed, steps=self._steps(question, closed), score=score, found_by=found_by)

    def _steps(self, question: Question, closed: Bools) -> tuple[int, ...]:
        """Openings first, then closings outwards from what is fed: a dead source is apart before its bus is fed."""
        opened = np.flatnonzero(question.closed & ~closed)
        steps = [-(int(e) + 1) for e in opened]
        waiting = np.flatnonzero(~question.closed & closed).tolist()
        at = question.closed.copy()
        at[opened] = False
        while waiting:
            live = self.fed(question, at)
            ready = [e for e in waiting if live[self.grid.from_bus[e]] or live[self.grid.to_bus[e]]]
            chosen = (ready or waiting)[0]
            waiting.remove(chosen)
            at[chosen] = True
            steps.append(chosen + 1)
        return tuple(steps)

    def fed(self, question: Question, closed: Bools) -> Bools:
        """(B,) buses with voltage in a state."""
        conducting = question.known & closed
        live = np.zeros(self.grid.demand.shape[0], np.bool_)
        live[self.grid.supply_bus[question.alive]] = True
        while True:
            ends = live[self.grid.from_bus] | live[self.grid.to_bus]
            after = live.copy()
            after[self.grid.from_bus[conducting & ends]] = True
            after[self.grid.to_bus[conducting & ends]] = True
            if (after == live).all():
                return live
            live = after


def _bits(closed: Bools, which: Ints) -> int:
    """A state as a number: bit k tells whether switch ``which[k]`` is closed."""
    return sum(1 << k for k, e in enumerate(which.tolist()) if closed[e])


def _state(closed: Bools, which: Ints, bits: int) -> Bools:
    """The positions (E,) that a number stands for."""
    state = closed.copy()
    state[which] = [bool(bits >> k & 1) for k in range(which.shape[0])]
    return state


def _flips(count: int) -> Ints:
    """Numbers with one, two or three bits of ``count``."""
    chosen = itertools.chain.from_iterable(itertools.combinations(range(count), k) for k in (1, 2, 3))
    return np.array([sum(1 << k for k in some) for some in chosen] or [0], np.int64)


def _score(row: Floats) -> Score:
    wrong, critical, delivered, fed, operations = row.tolist()
    return Score(wrong=round(wrong), critical=critical, deliverable=delivered, fed=fed, operations=round(operations))


def without(question: Question, *, branch: int | None = None, supply: int | None = None) -> Question:
    """The same question after one more loss, upstream of everything it fed and without a fault there."""
    known, alive, shadow = question.known.copy(), question.alive.copy(), question.shadow.copy()
    if branch is not None:
        known[branch], shadow[branch] = False, True
    if supply is not None:
        alive[supply] = False
    return replace(question, known=known, alive=alive, shadow=shadow)
