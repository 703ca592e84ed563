"""The control of I9: with each interlock taken out of the core, the simulated switchgear tells what it had prevented.

An operator gives the wrong order. With the rule it is refused and nothing forbidden happens; without it the order is
carried out, and the true state, which knows nothing of rules, shows the harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from powerd.control.compiled import CompiledSite
from powerd.control.step import Stepper
from powerd.control.switch_events import SwitchOrdered
from powerd.errors import PowerdError
from powerd.network import interlocks
from powerd.network.electrical import Electrical, Interlock
from powerd.network.load import load_site
from powerd.network.operation import By
from powerd.sim.outage import Cause, elements_of
from powerd.sim.switches import transfers_of
from powerd.sim.wires import Survey
from powerd.sim.world import World

DEPOT = load_site(Path(__file__).resolve().parents[2] / "models" / "two_feeder_depot")
BRANCH = {name: index for index, name in enumerate(DEPOT.must().branches.ids)}
MAIN_A, MAIN_B, TIE = BRANCH["main-a"], BRANCH["main-b"], BRANCH["tie"]


def world_of(electrical: Electrical) -> World:
    """A full depot, steady; its main-a refuses every order, so that nothing is switched without an operator."""
    stepper, survey = Stepper(CompiledSite.of(electrical)), Survey(electrical, np.random.default_rng(1))
    world = World(stepper, survey, transfers_of(DEPOT.site, electrical))
    world.gear.refuses.add(MAIN_A)
    world.run(40)
    return world


def lose(world: World, name: str, cause: Cause) -> None:
    world.strike(next(one for one in elements_of(world.electrical) if one.name == name), cause)
    world.run(25)


def order(world: World, branch: int) -> None:
    """The operator says close; then there is time to make room and to move."""
    world.disturbed()
    world.news.append(SwitchOrdered(request_id="", branch=branch, close=True, reason="wrong"))
    with contextlib.suppress(PowerdError):  # the sweep refuses the state that two supplies in parallel make
        world.run(60)


def no_group(electrical: Electrical) -> Electrical:
    return replace(electrical, interlocks=())


def other_group(electrical: Electrical) -> Electrical:
    return replace(electrical, interlocks=(Interlock(branches=(MAIN_B, TIE), at_most_closed=1),))


def few_operations(electrical: Electrical) -> Electrical:
    most = electrical.operation.max_operations.copy()
    most[TIE] = 0
    return replace(electrical, interlocks=(), operation=replace(electrical.operation, max_operations=most))


def by_hand(electrical: Electrical) -> Electrical:
    by = electrical.operation.by.copy()
    by[TIE] = int(By.HAND)
    return replace(electrical, interlocks=(), operation=replace(electrical.operation, by=by))


def onto_fault(world: World) -> None:
    lose(world, "main-a", Cause.PROTECTION)
    order(world, TIE)


def back_feed(world: World) -> None:
    lose(world, "utility-a", Cause.UPSTREAM)
    order(world, TIE)


def parallel(world: World) -> None:
    order(world, TIE)


def opened_by_hand(world: World) -> None:
    """The lost side is apart: but for what else stands in the way, the tie may close."""
    lose(world, "utility-a", Cause.UPSTREAM)
    world.gear.pull(MAIN_A, False, world.now_s)
    world.disturbed()


def closes(world: World) -> None:
    opened_by_hand(world)
    world.run(1)
    order(world, TIE)


def near_an_earth(world: World) -> None:
    world.gear.earthed.add(MAIN_A)
    opened_by_hand(world)
    world.run(5)
    order(world, TIE)


def tagged(world: World) -> None:
    world.gear.tagged.add(TIE)
    world.relays.tells(TIE, world.now_s)
    opened_by_hand(world)
    world.run(5)
    order(world, TIE)


def blind(world: World) -> None:
    world.gear.blind.add(TIE)
    world.relays.tells(TIE, world.now_s)
    closes(world)


def drifting(world: World) -> None:
    """Both supplies have voltage, and the one runs out of step with the other: the gateway permits nothing."""
    world.gear.drifting.add(0)
    world.disturbed()
    world.run(5)
    order(world, TIE)


def in_parallel(electrical: Electrical) -> Electrical:
    """The site lets its supplies be joined, where the sync check permits it."""
    return replace(electrical, interlocks=(), parallel_supplies=True)


def halves(electrical: Electrical) -> Electrical:
    """The tie and main-b are the halves of one transfer switch, and may not overlap."""
    partner = electrical.operation.partner.copy()
    partner[[TIE, MAIN_B]] = MAIN_B, TIE
    return replace(electrical, interlocks=(), operation=replace(electrical.operation, partner=partner))


CASES: dict[str, tuple[str, Callable[[Electrical], Electrical], Callable[[World], None]]] = {
    "no_close_after_trip": ("onto_fault", no_group, onto_fault),
    "no_back_feed": ("back_feed", no_group, back_feed),
    "no_parallel": ("parallel", no_group, parallel),
    "no_parallel, sync check": ("out_of_step", in_parallel, drifting),
    "break_before_make": ("both_halves", halves, closes),
    "known_position": ("blind", no_group, blind),
    "interlock_group": ("interlock", other_group, closes),
    "no_earthed_part": ("earthed", no_group, near_an_earth),
    "may_operate": ("not_ours", by_hand, closes),
    "available": ("tagged", no_group, tagged),
    "operations_left": ("too_often", few_operations, closes),
}


def story(case: str) -> set[str]:
    """What the true state tells after the wrong order."""
    _, site, play = CASES[case]
    world = world_of(site(DEPOT.must()))
    play(world)
    return {one.rule for one in world.gear.broken}


@pytest.mark.parametrize("case", CASES)
def test_the_rule_prevents_what_happens_without_it(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing forbidden with all rules; without this one, exactly what it is for."""
    assert story(case) == set()
    rule = case.split(",", maxsplit=1)[0]
    left = tuple(one for one in interlocks.RULES if one.__name__ != rule)
    assert len(left) == len(interlocks.RULES) - 1
    defaults = interlocks.findings.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "rules", left)
    monkeypatch.setattr(interlocks, "linked", lambda _: None)  # a second net: nobody listens for what is not powerd's
    assert story(case) == {CASES[case][0]}


def test_every_rule_has_its_control() -> None:
    """No interlock is without a story of what it prevents."""
    assert {case.split(",")[0] for case in CASES} == {rule.__name__ for rule in interlocks.RULES}


def test_supplies_in_step_are_joined_by_the_permissive_and_no_sooner() -> None:
    """Where the site lets supplies be joined, the tie closes as soon as the gateway tells its permissive."""
    world = world_of(in_parallel(DEPOT.must()))
    drifting(world)
    assert not world.gear.closed[TIE]
    world.gear.drifting.clear()
    world.run(5)
    order(world, TIE)
    assert world.gear.closed[TIE]
    assert world.gear.broken == []
