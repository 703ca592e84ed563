"""For a set of outages the best switch state: first what is safe, then what is fed, then how few switches move.

Lexicographic, each level only among the best of the one above (``Score``):

    safe            no ring, no two supplies together, nothing fed that must not be, reserves and loads fit every rating
    critical        most critical load fed
    deliverable     most power that can reach loads and the cars that are there: max flow on the tree, phase by phase
    fed             most EVSE rating and load fed, whoever plugs in next; what has a voltage first
    operations      fewest switches moved

Exact by enumeration up to ``EXACT_SWITCHES`` switches that may move. Beyond that a search over one, two and three
switches at a time, which may miss a better state, and off the tick the same question as a mixed-integer program
(``plan_milp``). The bound counts loads at their configured worst and EVSEs at least at their reserve (R5); what has no
voltage, had none a short while ago, or loses it on the way, must fit with its pick-up (R8). Before a state is told, the
limits of the tick themselves say whether R5 holds in it (``Fits``): what breaks it is refused, and the next best is
taken.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.network.admission import keeps_reserve
from powerd.network.electrical import Electrical
from powerd.network.plan_grid import grid_of
from powerd.network.plan_kernels import Case, Grid, search
from powerd.network.plan_milp import best_state
from powerd.network.states import seen_as
from powerd.state.switchgear import PlanEntry

EXACT_SWITCHES = 16
"""Up to so many switches that may move, every state is looked at."""
CHUNK = 4096
"""States that are judged in one compiled call."""
THREE_FROM = 64
"""From so many switches that may move on, the search takes two at a time at most: threes take longer than a tick."""
KEPT = 1.001
"""EVSEs that have a voltage count so much more than those that have none: of equal plans the one that keeps them."""
MARGIN = 0.01
"""A running state is left for another one only for so much more deliverable power, or for something dead."""
TRIES = 32
"""Best states that are held against R5 before the planner stays where it is."""
SECONDS = 20.0
"""Most time for a level of the mixed-integer program [s]."""


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
    fresh: Bools
    """(B,) it came back so short a while ago that loads still take their pick-up."""
    sync: Bools
    """(E,) may be closed while both sides have voltage: the site permits it, and its sync check does so now."""
    demand: Floats
    """(B, 3) what the cars at each bus can take [kVA]."""

    @cached_property
    def key(self) -> str:
        """The same for the same state of the switchgear, whatever cars there are and sync checks say."""
        parts = (self.closed, self.known, self.shadow, self.movable, self.alive, self.barred, self.dead, self.fresh)
        return hashlib.blake2b(b"".join(part.tobytes() for part in parts), digest_size=12).hexdigest()


Fits = Callable[[Question, Bools], bool]
"""Whether R5 holds in a state (E,) by the limits of the tick."""


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
    """EVSE rating and load fed, times ``KEPT`` where it is fed now [kVA]."""
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
    """"exact", "heuristic" or "program"."""


class Planner:
    """Plans for one site."""

    def __init__(self, grid: Grid, fits: Fits | None = None, seconds: float = SECONDS) -> None:
        """``fits`` refuses states that the kernels' bound lets through, None = none; ``seconds`` is for each level."""
        self.grid = grid
        self._seconds = seconds
        self._refuses = fits
        self._book: tuple[tuple[PlanEntry, ...], dict[str, list[tuple[int, ...]]]] = ((), {})

    def _fits(self, question: Question, closed: Bools) -> bool:
        return self._refuses is None or self._refuses(question, closed)

    @staticmethod
    def of(electrical: Electrical) -> Planner:
        """The planner of a site."""
        kept: dict[bytes, bool] = {}

        def holds(question: Question, closed: Bools) -> bool:
            key = np.concatenate([closed & question.known, question.alive]).tobytes()
            if key not in kept:
                here = seen_as(electrical, question.known, question.alive)
                kept[key] = keeps_reserve(here, closed)
            return kept[key]

        def no_worse(question: Question, closed: Bools) -> bool:
            return holds(question, closed) or not holds(question, question.closed)

        return Planner(grid_of(electrical), no_worse)

    def plan(self, question: Question) -> Plan:
        """The best state, taking its time: exact where few enough switches may move, else by HiGHS."""
        if int(question.movable.sum()) <= EXACT_SWITCHES:
            return self.exact(question)
        return self.program(question)

    def exact(self, question: Question) -> Plan:
        """Looks at every state of the switches that may move."""
        best, top = next(self._ranked(question), (question.closed, self.score(question, question.closed)))
        return self._told(question, best, top, "exact")

    def some(self, question: Question, count: int) -> list[Plan]:
        """The best ``count`` states at most, each another end: for cars that are not there yet."""
        if int(question.movable.sum()) > EXACT_SWITCHES:
            return [self.program(question)]
        found = itertools.islice(self._ranked(question), count)
        return [self._told(question, closed, score, "exact") for closed, score in found] or [self.exact(question)]

    def heuristic(self, question: Question) -> Plan:
        """Moves one, two or three switches at a time as long as that helps."""
        case = self.case(question)
        which = case.which
        for careful in (False, True):
            best, top = question.closed[which], self.score(question, question.closed)
            for _ in range(2 * which.shape[0] + 1):
                at = best
                for flips in _flips(which.shape[0]):
                    best, top = self._better(question, case, flips ^ at, best, top, careful=careful)
                if (best == at).all():
                    break
            closed = _state(question.closed, which, best)
            if careful or self._fits(question, closed):
                break
        return self._told(question, closed, top, "heuristic")

    def program(self, question: Question) -> Plan:
        """The answer of HiGHS where it is better than the search, else the search's."""
        found = self.heuristic(question)
        closed = best_state(self.grid, self.case(question), self._seconds)
        if closed is None or not self._fits(question, closed):
            return found
        plan = self._told(question, closed, self.score(question, closed), "program")
        return plan if plan.score > found.score else found

    def towards(self, question: Question, closed: Bools) -> Plan:
        """The way to a given state of the switches that may move, if it is safe and no worse than to stay."""
        goal = np.where(question.movable, closed, question.closed)
        score, stay = self.score(question, goal), self.score(question, question.closed)
        worse = score.wrong < 0 or score.critical < stay.critical or score.deliverable < stay.deliverable
        if worse or score.fed < stay.fed or not self._fits(question, goal):
            goal, score = question.closed, stay
        return Plan(closed=goal, steps=self.steps(question, goal), score=score, found_by="exact")

    def remembered(self, entries: tuple[PlanEntry, ...], key: str) -> list[tuple[int, ...]]:
        """What a playbook answers to a question; its index is made anew when it is another one."""
        kept, index = self._book
        if kept is not entries:
            index = {}
            for entry in entries:
                index.setdefault(entry.key, []).append(entry.steps)
            self._book = (entries, index)
        return index.get(key, [])

    def chosen(self, question: Question, answers: list[tuple[int, ...]]) -> tuple[int, ...]:
        """The way to the end of the answers that is best for the cars that are there; the first of equals."""
        ends = [self.end(question, steps) for steps in answers]
        return self.steps(question, max(ends, key=lambda end: self.score(question, end)))

    def score(self, question: Question, closed: Bools) -> Score:
        """How good a state is, compared with the present one where that is not safe either."""
        which = np.flatnonzero(question.movable)
        return _score(search(self.grid, self.case(question), closed[None, which])[0])

    def _ranked(self, question: Question) -> Iterator[tuple[Bools, Score]]:
        """States better than the present one that are safe and keep R5, best first."""
        case = self.case(question)
        which = case.which
        states = np.arange(2 ** which.shape[0])[:, None] >> np.arange(which.shape[0]) & 1 == 1
        chunks = np.array_split(states, max(1, states.shape[0] // CHUNK))
        scores = np.concatenate([search(self.grid, case, some) for some in chunks])
        top = _score(scores[np.flatnonzero((states == question.closed[which]).all(axis=1))[0]])
        for at in _best_first(scores)[:TRIES]:
            score = _score(scores[at])
            if score <= top:
                return
            closed = _state(question.closed, which, states[at])
            if self._fits(question, closed):
                yield closed, score

    def _better(
        self, question: Question, case: Case, states: Bools, best: Bools, top: Score, *, careful: bool
    ) -> tuple[Bools, Score]:
        """The best of the ``states`` (s, k) and the one known so far, which wins a tie; ``careful``: that keeps R5."""
        scores = search(self.grid, case, states)
        for at in _best_first(scores)[: TRIES if careful else 1]:
            chosen = _score(scores[at])
            if chosen <= top:
                break
            if not careful or self._fits(question, _state(question.closed, case.which, states[at])):
                return states[at], chosen
        return best, top

    def case(self, question: Question) -> Case:
        """The question as the kernels read it."""
        grid, dead = self.grid, question.dead
        cold = dead | question.fresh
        return Case(
            present=question.closed,
            known=question.known,
            shadow=question.shadow,
            which=np.flatnonzero(question.movable),
            roots=grid.supply_bus[question.alive],
            import_kw=grid.import_kw[question.alive],
            barred=question.barred,
            worth=np.where(dead[:, None], grid.worth, grid.worth * [1.0, KEPT]),
            demand=question.demand,
            load=np.where(cold[:, None], grid.pickup, grid.load),
            load_kw=np.where(cold, grid.pickup_kw, grid.load_kw),
        )

    def _told(self, question: Question, closed: Bools, score: Score, found_by: str) -> Plan:
        """The plan towards a state; to stay, where the gain is not worth an interruption."""
        stay = self.score(question, question.closed)
        gains = score.wrong > stay.wrong or score.critical > stay.critical or score.fed > stay.fed
        gains |= score.deliverable > (1 + MARGIN) * stay.deliverable
        if not gains:
            closed, score = question.closed, stay
        return Plan(closed=closed, steps=self.steps(question, closed), score=score, found_by=found_by)

    def end(self, question: Question, steps: tuple[int, ...]) -> Bools:
        """(E,) positions after all the steps."""
        closed = question.closed.copy()
        for step in steps:
            closed[abs(step) - 1] = step > 0
        return closed

    def steps(self, question: Question, closed: Bools) -> tuple[int, ...]:
        """Openings first, then closings outwards from what is fed: a dead source is apart before its bus is fed.

        Where an opening would interrupt somebody, every closing that may be made before it comes before it: none of
        them may be refused afterwards, and where the sync check permits it nobody is interrupted at all.
        """
        opened = np.flatnonzero(question.closed & ~closed)
        waiting = np.flatnonzero(~question.closed & closed).tolist()
        at, steps = question.closed.copy(), []
        live = self.fed(question, at)
        for e in self._made_first(question, waiting) if live[self.grid.from_bus[opened]].any() else []:
            waiting.remove(e)
            at[e] = True
            steps.append(e + 1)
        steps += [-(int(e) + 1) for e in opened]
        at[opened] = False
        while waiting:
            chosen = (self._ready(question, at, waiting) or waiting)[0]
            waiting.remove(chosen)
            at[chosen] = True
            steps.append(chosen + 1)
        return tuple(steps)

    def _ready(self, question: Question, at: Bools, waiting: list[int]) -> list[int]:
        """Those of the ``waiting`` with voltage on a side."""
        live = self.fed(question, at)
        return [e for e in waiting if live[self.grid.from_bus[e]] or live[self.grid.to_bus[e]]]

    def _made_first(self, question: Question, waiting: list[int]) -> list[int]:
        """Closings that are permitted before anything is opened, outwards, as many as interlocks and R5 allow together.

        Live on live with the sync check's word; live on dead where that alone is as safe as to stay.
        """
        at, found = question.closed.copy(), list[int]()
        while True:
            ready = [e for e in self._ready(question, at, waiting) if e not in found]
            chosen = next((e for e in ready if self._may_be_made(question, at, e)), None)
            if chosen is None:
                return found
            at[chosen] = True
            found.append(chosen)

    def _may_be_made(self, question: Question, at: Bools, e: int) -> bool:
        """Whether ``e`` may be closed while everything else stands as in ``at`` (E,)."""
        live, after = self.fed(question, at), at.copy()
        after[e] = True
        if live[self.grid.from_bus[e]] and live[self.grid.to_bus[e]]:
            return bool(question.sync[e]) and self._unlocked(after) and self._fits(question, after)
        return self.score(question, after).wrong >= 0 and self._fits(question, after)

    def _unlocked(self, closed: Bools) -> bool:
        """No interlock has more closed than it may."""
        grid = self.grid
        return all(
            closed[grid.lock_branch[grid.lock_start[g] : grid.lock_start[g + 1]]].sum() <= most
            for g, most in enumerate(grid.lock_most.tolist())
        )

    def fed(self, question: Question, closed: Bools) -> Bools:
        """(B,) buses with voltage in a state."""
        conducting = question.known & closed
        live = np.zeros(self.grid.rating.shape[0], np.bool_)
        live[self.grid.supply_bus[question.alive]] = True
        while True:
            ends = live[self.grid.from_bus] | live[self.grid.to_bus]
            after = live.copy()
            after[self.grid.from_bus[conducting & ends]] = True
            after[self.grid.to_bus[conducting & ends]] = True
            if (after == live).all():
                return live
            live = after


def _state(closed: Bools, which: Ints, moved: Bools) -> Bools:
    """``closed`` (E,) with the switches ``which`` (k,) where ``moved`` (k,) has them."""
    state = closed.copy()
    state[which] = moved
    return state


def _best_first(scores: Floats) -> Ints:
    """Places in order of their scores (k, 5), best first, equal ones as they come."""
    return np.lexsort(tuple(-scores[:, c] for c in (4, 3, 2, 1, 0)))


@cache
def _flips(count: int) -> tuple[Bools, ...]:
    """Rows of ``count`` with one, two or three True, ``CHUNK`` at a time; above ``THREE_FROM`` switches one or two."""
    most = 3 if count < THREE_FROM else 2
    chosen = itertools.chain.from_iterable(itertools.combinations(range(count), k) for k in range(1, most + 1))
    blocks = []
    while some := list(itertools.islice(chosen, CHUNK)):
        block = np.zeros((len(some), count), np.bool_)
        for row, at in zip(block, some, strict=True):
            row[list(at)] = True
        blocks.append(block)
    return tuple(blocks)


def _score(row: Floats) -> Score:
    wrong, critical, delivered, fed, operations = row.tolist()
    return Score(wrong=round(wrong), critical=critical, deliverable=delivered, fed=fed, operations=round(operations))
