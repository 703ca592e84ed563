"""Random sequences of losses, returns, refusals, wrong and late reports: the same promises, whatever the order.

Deterministic: a sequence is a seed. Between two happenings pass 1 to 25 s, so that they fall into each other's work.
With people in it also tags, earths, operators' orders and service words, and restarts of powerd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from powerd.control.switch_events import ElementKind, ServiceChanged, SwitchOrdered
from powerd.errors import PowerdError
from powerd.sim.outage import Cause
from powerd.sim.relays import operated
from powerd.sim.world import Mark, World
from powerd.studies.outages import Study

HAPPENINGS = 6
"""Of one sequence."""
APART_S = (1, 25)
"""Between two of them [s]."""
DELAYS_S = (0, 0, 1, 3)
"""How late reports are in a sequence [s]."""
CALM_S = 30
"""Watched after the last one [s]."""


class What(StrEnum):
    """What can happen."""

    LOST = "lost"
    """An element is lost."""
    BACK = "back"
    """It comes back."""
    LIED = "reported wrongly"
    """Somebody reports the opposite of a switch."""
    REFUSES = "takes no orders"
    """A switch refuses from now on."""
    TAGGED = "is tagged out"
    """Somebody works at a switch."""
    EARTHED = "is earthed"
    """Somebody works at a dead part and earths it; where it is not dead, nothing happens."""
    FREED = "is free again"
    """Tag or earth is gone."""
    OPENED = "is ordered open"
    """An operator's word, whatever it does."""
    CLOSED = "is ordered closed"
    """The same."""
    OUT = "is taken out of service"
    """The same of an element."""
    IN = "is put into service"
    """It comes after ``OUT``, and only where nothing is wrong with the element."""
    RESTARTED = "restarts"
    """powerd is killed and starts anew from what it has written."""


ALONE = {What.LOST: 0.5, What.BACK: 0.3, What.LIED: 0.1, What.REFUSES: 0.1}
"""How often each happens without people."""
PEOPLED = {
    What.LOST: 0.22,
    What.BACK: 0.14,
    What.LIED: 0.05,
    What.REFUSES: 0.04,
    What.TAGGED: 0.08,
    What.EARTHED: 0.06,
    What.FREED: 0.08,
    What.OPENED: 0.07,
    What.CLOSED: 0.07,
    What.OUT: 0.08,
    What.IN: 0.05,
    What.RESTARTED: 0.06,
}
"""And with them."""


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One of them."""

    what: What
    """What."""
    name: str
    """Element or switch."""
    cause: Cause | None
    """Why it is lost."""
    then_s: int
    """How long until the next one [s]."""

    def __str__(self) -> str:
        why = "" if self.cause is None else f" ({self.cause})"
        return f"{self.name} {self.what}{why}, then {self.then_s} s"


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """What happens, in order."""

    delay_s: int
    """How late reports are [s]."""
    happenings: tuple[Happening, ...]
    """One after the other."""

    @property
    def story(self) -> tuple[str, ...]:
        """For people."""
        late = (f"reports {self.delay_s} s late",) if self.delay_s else ()
        return (*late, *(str(one) for one in self.happenings))


@dataclass(frozen=True, kw_only=True)
class Played:
    """One sequence and what was broken in it; field names are the keys of a file of results."""

    seed: int
    """Of the sequence."""
    story: tuple[str, ...]
    """What happened, in order."""
    broken: tuple[str, ...]
    """Promises that were not kept; empty = all were."""
    overload_s: float
    """Longest time that anything carried more than its rating [s]."""


def drawn(study: Study, seed: int, *, people: bool = False) -> Sequence:
    """The sequence of ``seed``; ``people``: they do something, too."""
    rng, now = np.random.default_rng(seed), _Standing()
    delay_s = int(rng.choice(DELAYS_S))
    happenings = tuple(_drawn(study, now, PEOPLED if people else ALONE, rng) for _ in range(HAPPENINGS))
    return Sequence(delay_s=delay_s, happenings=happenings)


@dataclass
class _Standing:
    """What went before, by name."""

    lost: set[str] = field(default_factory=set)
    marked: set[str] = field(default_factory=set)
    out: set[str] = field(default_factory=set)


def _drawn(study: Study, now: _Standing, often: Mapping[What, float], rng: np.random.Generator) -> Happening:
    """One more happening, of which ``now`` knows what went before."""
    what = What(rng.choice(list(often), p=list(often.values())))
    then_s, cause = int(rng.integers(*APART_S)), None
    names = _names(study, now, what)
    if not names:
        what = What.LOST if len(now.lost) < len(study.elements) else What.BACK
        names = _names(study, now, what)
    if what is What.LOST:
        cause = Cause(rng.choice(list(Cause)))
    name = str(rng.choice(names))
    if what in (What.LOST, What.BACK):
        now.lost ^= {name}
    elif what in (What.TAGGED, What.EARTHED, What.FREED):
        now.marked ^= {name}
    elif what in (What.OUT, What.IN):
        now.out ^= {name}
    return Happening(what=what, name=name, cause=cause, then_s=then_s)


def _names(study: Study, now: _Standing, what: What) -> list[str]:
    """To what it can happen."""
    ids, elements = study.electrical.branches.ids, [element.name for element in study.elements]
    switches = [ids[b] for b in np.flatnonzero(study.electrical.branches.switchable)]
    ours = [ids[b] for b in operated(study.electrical)]
    match what:
        case What.LOST:
            return [name for name in elements if name not in now.lost]
        case What.BACK:
            return sorted(now.lost)
        case What.LIED:
            return switches
        case What.TAGGED | What.EARTHED:
            return [name for name in switches if name not in now.marked]
        case What.FREED:
            return sorted(now.marked)
        case What.REFUSES | What.OPENED | What.CLOSED:
            return ours
        case What.OUT:
            return [name for name in elements if name not in now.out]
        case What.IN:
            return sorted(now.out - now.lost)
        case What.RESTARTED:
            return ["powerd"]


def play_sequence(study: Study, seed: int, *, people: bool = False) -> Played:
    """Plays the sequence of ``seed`` from the steady full house."""
    sequence = drawn(study, seed, people=people)
    world, broken = play(study, sequence)
    longest = max((window.seconds for window in world.windows.all()), default=0.0)
    return Played(seed=seed, story=sequence.story, broken=tuple(broken), overload_s=longest)


def play(study: Study, sequence: Sequence) -> tuple[World, list[str]]:
    """The world after it, and what was broken."""
    world = study.house.fork()
    world.relays.delay_s = float(sequence.delay_s)
    at_s = []
    try:
        for one in sequence.happenings:
            at_s.append(world.now_s)
            _happens(study, world, one)
            world.run(one.then_s)
        world.run(CALM_S)
    except PowerdError as error:  # what flows in a ring or between two supplies is not known: the sequence ends there
        return world, [*_broken(study, world, at_s), str(error)]
    return world, _broken(study, world, at_s)


def _happens(study: Study, world: World, one: Happening) -> None:
    world.disturbed()
    match one.what:
        case What.LOST:
            world.strike(study.element(one.name), one.cause or Cause.UPSTREAM)
        case What.BACK:
            world.heal(study.element(one.name))
        case What.LIED:
            world.relays.lies(study.electrical.branches.ids.index(one.name), world.now_s)
        case What.REFUSES:
            world.gear.refuses.add(study.electrical.branches.ids.index(one.name))
        case What.TAGGED | What.EARTHED | What.FREED:
            world.marks(study.electrical.branches.ids.index(one.name), _MARKS[one.what])
        case What.OPENED | What.CLOSED:
            branch = study.electrical.branches.ids.index(one.name)
            world.news.append(
                SwitchOrdered(request_id="", branch=branch, close=one.what is What.CLOSED, reason="by hand")
            )
        case What.OUT | What.IN:
            element = study.element(one.name)
            world.news.append(
                ServiceChanged(
                    request_id="",
                    kind=ElementKind(element.kind),
                    indices=element.indices,
                    in_service=one.what is What.IN,
                    reason="by hand",
                )
            )
        case What.RESTARTED:
            world.restart()


_MARKS = {What.TAGGED: Mark.TAG, What.EARTHED: Mark.EARTH, What.FREED: None}


def _broken(study: Study, world: World, at_s: list[float]) -> list[str]:
    """Forbidden movements, trips, and overloads beyond the bound (a late report starts it later)."""
    found = [f"{one.rule} at {one.element}, {one.at_s:g} s" for one in world.gear.broken]
    found += [f"{study.electrical.branches.ids[trip.branch]} tripped" for trip in world.breakers.trips]
    if world.breakers.worn.max(initial=0.0) >= 1.0:
        found.append("an element has stood more than it can")
    bound_s = study.answering_s + world.relays.delay_s
    for window in world.windows.all():
        # What happens during an overload gives it a new cause: the bound is counted from the last one.
        since_s = max([window.since_s, *(at for at in at_s if window.since_s < at < window.until_s)])
        if window.until_s - since_s > bound_s:
            found.append(f"{window.name} over for {window.until_s - since_s:g} s (at most {bound_s:g} s)")
    return found


def shrunk(study: Study, sequence: Sequence) -> Sequence:
    """A shorter sequence that breaks something, too: happenings left out one at a time, waits halved, while it does."""
    smaller: Iterable[Sequence] = _smaller(sequence)
    for one in smaller:
        if play(study, one)[1]:
            return shrunk(study, one)
    return sequence


def _smaller(sequence: Sequence) -> Iterable[Sequence]:
    happenings = sequence.happenings
    for k in range(len(happenings)):
        yield replace(sequence, happenings=happenings[:k] + happenings[k + 1 :])
    if sequence.delay_s:
        yield replace(sequence, delay_s=0)
    for k, one in enumerate(happenings):
        if one.then_s > 1:
            half = replace(one, then_s=one.then_s // 2)
            yield replace(sequence, happenings=(*happenings[:k], half, *happenings[k + 1 :]))
