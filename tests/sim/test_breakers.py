"""Simulated breakers open when their curve says so; simulated switchgear tells every forbidden movement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control.switch_events import SwitchesSeen
from powerd.errors import PowerdError
from powerd.network.curves import Edge
from powerd.network.electrical import Electrical
from powerd.network.load import load_site
from powerd.network.tolerance import trips_s
from powerd.sim.breakers import Breakers
from powerd.sim.relays import Relays
from powerd.sim.switches import Gear, transfers_of
from powerd.sim.wires import Survey, as_drawn
from powerd.state.switchgear import Flag

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def depot() -> Electrical:
    """Two transformers, a tie, an automatic transfer switch."""
    return load_site(MODELS / "two_feeder_depot").must()


@pytest.fixture(scope="module")
def survey(depot: Electrical) -> Survey:
    """Its wires."""
    return Survey(depot, np.random.default_rng(1))


def branch(electrical: Electrical, name: str) -> int:
    return electrical.branches.ids.index(name)


@settings(max_examples=25)
@given(multiple=st.floats(1.2, 5.0), edge=st.sampled_from(Edge))
def test_a_constant_overload_trips_when_the_curve_says(
    multiple: float, edge: Edge, depot: Electrical, survey: Survey
) -> None:
    """The device opens in the second in which its curve ends, at both edges."""
    wires = survey.wires(as_drawn(depot))
    own = branch(depot, "main-b")
    flow = np.where(wires.branch == own, 2500.0 * multiple, 0.0)
    breakers = Breakers(depot, edge)
    after = trips_s(depot.overload[own], round(2500.0 * multiple, 3), edge=edge)
    for second in range(3000):
        opened = breakers.carry(wires, flow, float(second), 1.0)
        if opened:
            assert second - 1e-6 <= after <= second + 1 + 1e-6
            assert [trip.branch for trip in opened] == [own]
            return
    assert after >= 3000


def test_what_is_within_its_rating_never_trips(depot: Electrical, survey: Survey) -> None:
    """A day at exactly the ratings wears nothing."""
    wires = survey.wires(as_drawn(depot))
    breakers = Breakers(depot)
    flow = np.where(wires.branch >= 0, wires.capacity, 1e9)
    for second in range(24):
        assert not breakers.carry(wires, flow, 3600.0 * second, 3600.0)
    assert breakers.worn.max() == 0.0


def test_a_short_overload_is_forgotten(depot: Electrical, survey: Survey) -> None:
    """Twice twenty seconds of 31 with a quarter of an hour between open nothing; on end they do."""
    wires = survey.wires(as_drawn(depot))
    own = branch(depot, "main-b")
    hot, cool = np.where(wires.branch == own, 4050.0, 0.0), np.zeros(wires.capacity.shape[0])
    rested, driven = Breakers(depot), Breakers(depot)
    for breakers, rest in ((rested, 900.0), (driven, 0.0)):
        breakers.carry(wires, hot, 0.0, 20.0)
        breakers.carry(wires, cool, 20.0, rest)
        breakers.carry(wires, hot, 920.0, 20.0)
    assert not rested.trips
    assert driven.trips


def test_the_wires_follow_the_transfer(depot: Electrical, survey: Survey) -> None:
    """With T1 gone and the transfer switch over, T2 carries both halves; what stays on lv-a is dark."""
    gear = Gear(depot, transfers_of(load_site(MODELS / "two_feeder_depot").site, depot))
    gear.lose(branch(depot, "T1"), 100.0)
    gear.advance(100.4)
    assert gear.closed[branch(depot, "ats/preferred")]
    gear.advance(101.0)
    assert gear.closed[branch(depot, "ats/alternate")]
    assert not gear.closed[branch(depot, "ats/preferred")]
    wires = survey.wires(gear.state(101.0))
    assert wires.live.all()
    drawn = np.where(depot.posts.is_dc, 20.0, 0.0)
    flow = dict(zip(wires.name, wires.flow(drawn).tolist(), strict=True))
    normal = survey.wires(as_drawn(depot))
    before = dict(zip(normal.name, normal.flow(drawn).tolist(), strict=True))
    assert flow["phase L1 of transformer T1, low side"] == 0.0
    assert flow["phase L1 of switch main-b"] > 1.9 * before["phase L1 of switch main-b"]
    assert flow["import from supply utility-a"] == 0.0
    assert wires.name == normal.name
    assert not gear.broken


def test_loads_come_back_with_their_pick_up(depot: Electrical) -> None:
    """What was dark takes 1.5 times its typical power for ten minutes after its voltage came back."""
    gear = Gear(depot, transfers_of(load_site(MODELS / "two_feeder_depot").site, depot))
    gear.supply(0, alive=False, now_s=10.0)
    gear.advance(10.6)
    loads = dict(zip(depot.loads.ids, gear.state(11.0).load_factor.tolist(), strict=True))
    assert loads["depot-it"] == 1.5
    assert loads["offices"] == 1.0
    assert (gear.state(700.0).load_factor == 1.0).all()


def test_each_forbidden_movement_is_told(depot: Electrical) -> None:
    """Closing onto a fault, feeding back into a dead supply, paralleling two, and breaking an interlock."""
    tie, main_a, main_b = (branch(depot, name) for name in ("tie", "main-a", "main-b"))
    free = replace(depot, interlocks=())

    fault = Gear(free)
    fault.lose(branch(depot, "T1"), 0.0)
    fault.pull(tie, True, 1.0)
    assert {b.rule for b in fault.broken} == {"onto_fault"}

    isolated = Gear(free)
    isolated.lose(branch(depot, "T1"), 0.0)
    isolated.pull(main_a, False, 1.0)
    isolated.pull(tie, True, 2.0)
    assert not isolated.broken

    back = Gear(free)
    back.supply(0, alive=False, now_s=0.0)
    back.pull(tie, True, 1.0)
    assert {b.rule for b in back.broken} == {"back_feed"}

    both = Gear(free)
    both.pull(tie, True, 1.0)
    assert {b.rule for b in both.broken} == {"parallel"}

    locked = Gear(depot)
    locked.pull(main_b, False, 0.0)
    locked.pull(main_b, True, 1.0)
    assert not locked.broken
    locked.pull(tie, True, 2.0)
    assert "interlock" in {b.rule for b in locked.broken}


def test_a_returning_supply_may_be_the_one_that_parallels(depot: Electrical) -> None:
    """A tie that was closed while one side was dead becomes a parallel when that side comes back."""
    gear = Gear(replace(depot, interlocks=()))
    gear.supply(0, alive=False, now_s=0.0)
    gear.pull(branch(depot, "tie"), True, 1.0)
    gear.broken.clear()
    gear.supply(0, alive=True, now_s=2.0)
    assert {b.rule for b in gear.broken} == {"parallel"}


def test_relays_tell_of_a_lost_voltage_only_where_one_was_lost(depot: Electrical) -> None:
    """A half that a transfer switch leaves for a dead source was without voltage, the one it comes back from was not,
    nor is a tie that is drawn open, a switch that opens by order, or one that a hand opens under voltage.
    """
    gear = Gear(depot, transfers_of(load_site(MODELS / "two_feeder_depot").site, depot))
    relays = Relays(gear=gear)

    def upstream(now_s: float) -> set[str]:
        (seen,) = (event for event in relays.speaks(now_s) if isinstance(event, SwitchesSeen))
        told = (seen.flags & int(Flag.UPSTREAM_LOST)) != 0
        return {depot.branches.ids[e] for e in seen.branch[told]}

    assert upstream(0.0) == set()
    gear.supply(0, False, 1.0)
    gear.advance(60.0)
    assert upstream(60.0) == {"ats/preferred"}
    gear.supply(0, True, 61.0)
    gear.advance(2000.0)
    assert gear.closed[branch(depot, "ats/preferred")]
    gear.pull(branch(depot, "main-b"), False, 2000.0)
    gear.order(branch(depot, "main-a"), False, 2000.0)
    gear.advance(2010.0)
    assert upstream(2010.0) == set()


def test_switches_take_their_time_refuse_and_stick(depot: Electrical) -> None:
    """An order moves after the travel time; a refusal is said at once; a stuck switch says nothing and stays."""
    gear = Gear(depot, travel_s=2.0)
    main_a, main_b, tie = (branch(depot, name) for name in ("main-a", "main-b", "tie"))
    assert gear.order(main_a, False, 0.0)
    gear.advance(1.9)
    assert gear.closed[main_a]
    gear.advance(2.0)
    assert not gear.closed[main_a]
    gear.refuses.add(main_b)
    assert not gear.order(main_b, False, 3.0)
    gear.stuck.add(tie)
    assert gear.order(tie, True, 3.0)
    gear.advance(60.0)
    assert not gear.closed[tie]


def test_a_meshed_state_is_refused(depot: Electrical, survey: Survey) -> None:
    """The sweep does not guess how parallel paths share."""
    state = as_drawn(depot)
    closed = state.closed.copy()
    closed[branch(depot, "tie")] = True
    with pytest.raises(PowerdError, match="loop or supplies in parallel"):
        survey.wires(replace(state, closed=closed))
