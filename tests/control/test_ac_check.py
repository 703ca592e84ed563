"""The AC check on whole ticks: at full ceilings no bus leaves the band, whatever the rows alone would have let pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from powerd.control.compiled import CompiledSite
from powerd.control.decision import Decision
from powerd.limits import Floats, Limits
from powerd.network.electrical import Electrical
from powerd.network.flow import RadialFlow
from powerd.network.load import load_site
from powerd.network.supply import normal_positions
from powerd.network.taken import drawn_at_buses
from powerd.server.explain import holding, limits_above, reason
from powerd.state.impaired import Trigger
from tests.control.garage import Player
from tests.network.drawings import Drawing
from tests.network.powers import pandapower_at

MODELS = Path(__file__).parents[2] / "models"
TICKS = 25


@dataclass(frozen=True)
class _Drawing:
    """A drawing with its limits."""

    electrical: Electrical
    limits: Limits


@cache
def _model(name: str) -> Electrical:
    return load_site(MODELS / name / "site.yaml").must()


def _stretched(electrical: Electrical, ohms: float, supply_pu: float) -> Electrical:
    """Feeders ``ohms`` times as long, the supply at ``supply_pu``, everything rated for twice the current."""
    of = electrical.impedances
    longer = {name: getattr(of, name) * ohms for name in ("r_ohm", "x_ohm", "r0_ohm", "x0_ohm")}
    supplies = replace(electrical.supplies, voltage_pu=np.full(len(electrical.supplies.ids), supply_pu))
    branches = replace(
        electrical.branches,
        capacity_from_a=2 * electrical.branches.capacity_from_a,
        capacity_to_a=2 * electrical.branches.capacity_to_a,
    )
    return replace(electrical, impedances=replace(of, **longer), supplies=supplies, branches=branches)


def _full_house(site: CompiledSite) -> Player:
    """Every post has a car that wants all; its controllers have said hello."""
    player = Player.of(site)
    player.plugged = set(range(site.electrical.posts.count))
    for controller in range(len(site.electrical.controllers.ids)):
        player.hello(controller)
    return player


def _charged(site: CompiledSite) -> Decision:
    """Ticks until ceilings have settled; after none of them the power flow breaks a bound."""
    player = _full_house(site)
    for _ in range(TICKS):
        decision = player.tick()
        assert site.ac is not None
        assert site.ac.judge(decision.ceiling).count == 0 or any("nothing is left" in a for a in decision.alarms)
    return decision


def _pu(electrical: Electrical, ceiling: Floats) -> Floats:
    """Voltages (bus, phase) at full ceilings and worst loads, the found state confirmed by pandapower."""
    closed = normal_positions(electrical)
    every = np.ones((electrical.evse_count, 3), dtype=np.bool_)
    taken = drawn_at_buses(electrical, ceiling, phases=every, loads_kw=electrical.loads.worst_kw)
    flow = RadialFlow(electrical, closed).solve(taken)
    theirs = pandapower_at(electrical, closed, taken, flow)
    assert np.nanmax(np.abs(flow.voltage_pu - theirs.voltage_pu)) < 1e-6
    return np.abs(theirs.voltage_pu)


def _lowest_pu(electrical: Electrical, ceiling: Floats) -> float:
    """Lowest voltage of any loaded bus."""
    loaded = np.unique(np.concatenate([electrical.evse_bus, electrical.loads.bus]))
    return float(_pu(electrical, ceiling)[loaded].min())


def _told(decision: Decision) -> list[str]:
    """The sentence for each EVSE."""
    site = decision.site
    return [reason(_Drawing(site.electrical, site.limits), decision, i) for i in range(site.electrical.evse_count)]


@pytest.mark.parametrize(
    ("name", "ohms", "supply_pu"),
    [("street_lv", 1.0, 0.97), ("caltech_garage", 3.0, 0.93), ("two_feeder_depot", 4.0, 0.96)],
)
def test_no_bus_leaves_the_band_at_full_ceilings(name: str, ohms: float, supply_pu: float) -> None:
    """Long feeders, a low supply: without the check a bus would fall below 90 %, with it none does, by pandapower."""
    electrical = _stretched(_model(name), ohms, supply_pu)
    site = CompiledSite.of(electrical)
    blind = _charged_without_check(site)
    assert _lowest_pu(electrical, blind) < 0.899
    decision = _charged(site)
    assert decision.ceiling.sum() > 0.3 * blind.sum()
    assert _lowest_pu(electrical, decision.ceiling) >= 0.9 - 1e-6
    assert any("hold ceilings down" in alarm for alarm in decision.alarms)
    assert set(decision.modes) - {Trigger.METER_STALE} == {Trigger.AC_CHECK_FAILED}  # nobody plays its meters


def _charged_without_check(site: CompiledSite) -> Floats:
    """What the rows alone allow."""
    player = _full_house(replace(site, ac=None))
    for _ in range(TICKS):
        decision = player.tick()
    return decision.ceiling


@pytest.mark.parametrize(("name", "ohms", "supply_pu"), [("street_lv", 1.0, 0.97), ("caltech_garage", 3.0, 0.93)])
def test_whom_a_voltage_holds_is_told_so(name: str, ohms: float, supply_pu: float) -> None:
    """A voltage that is named would be too low otherwise, any other limit that is named is full; nobody waits."""
    electrical = _stretched(_model(name), ohms, supply_pu)
    site = CompiledSite.of(electrical)
    without = _pu(electrical, _charged_without_check(site))
    decision = _charged(site)
    wanted = _pu(electrical, decision.want)
    told = _told(decision)
    assert not any("to rise to" in sentence for sentence in told)
    assert any("by voltage of phase L" in sentence and "(at least 90 % of nominal" in sentence for sentence in told)
    for evse, limit in enumerate(holding(decision).tolist()):
        if limit < 0:
            continue
        limits, own = limits_above(decision, evse), site.limits
        one = (np.arange(electrical.evse_count) == evse).astype(np.float64)
        assert f"A by {limits.name[limit]} (" in told[evse]
        assert limits.limit_flow(one)[limit] > 0.0
        if limits.name[limit] != own.name[limit]:
            bus, phase = electrical.buses.ids.index(limits.element[limit]), int(limits.phase[limit][1]) - 1
            assert (without if limits is decision.limits else wanted)[bus, phase] < 0.9
            assert f"so less through {own.name[limit]}" in told[evse]
        else:
            room = own.capacity[limit] - decision.uncontrolled[limit] - own.limit_flow(decision.want)[limit]
            assert room < 6.0 * own.limit_flow(one)[limit]


def test_what_the_last_power_flow_sheds_is_told_at_every_look() -> None:
    """Pilot steps leave a voltage too low: those below the bus get less than was wanted, and wait for nobody."""
    player = _full_house(CompiledSite.of(_stretched(_model("street_lv"), 1.0, 0.97)))
    looks = 0
    for tick in range(TICKS):
        decision = player.tick()
        if tick < 10:
            continue
        told = _told(decision)
        for evse in np.flatnonzero(decision.ceiling < decision.want - 0.05).tolist():
            assert told[evse].startswith(f"held at {decision.ceiling[evse]:.4g} A by voltage of phase L")
            looks += 1
    assert looks >= TICKS - 10


def test_ceilings_that_no_voltage_stands_are_told_so() -> None:
    """Where the power flow has no solution everything is to carry less, and that is what is named."""
    site = CompiledSite.of(_stretched(_model("street_lv"), 1.0, 0.97))
    assert site.ac is not None
    x = np.full(site.electrical.evse_count, 1e4)
    verdict = site.ac.judge(x)
    assert not verdict.settled
    tighter = site.ac.tightened(site.limits, np.zeros(site.limits.capacity.shape), x / 1e4, verdict)
    lower = np.flatnonzero(tighter.capacity < site.limits.capacity)
    assert lower.shape[0] > 0
    for limit in lower.tolist():
        assert tighter.name[limit] == "power flow"
        assert tighter.source[limit] == f"no voltages hold, so less through {site.limits.name[limit]}"


@pytest.mark.parametrize(("name", "supply_pu"), [("street_lv", 1.03), ("caltech_garage", 1.0)])
def test_a_current_that_only_the_power_flow_sees_is_held(name: str, supply_pu: float) -> None:
    """Rows that believe in twice every rating: the power flow, which knows the ratings, keeps each of them."""
    electrical = _stretched(_model(name), 0.2, supply_pu)
    true = CompiledSite.of(replace(electrical, branches=_model(name).branches))
    assert true.ac is not None
    site = replace(CompiledSite.of(electrical), ac=true.ac)
    assert _most_loaded(true.electrical, _charged_without_check(site)) > 1.2
    decision = _charged(site)
    assert decision.ceiling.sum() > 100.0
    assert 0.9 < _most_loaded(true.electrical, decision.ceiling) <= 1.001
    assert any("A too much" in alarm for alarm in decision.alarms)
    assert any(
        "by current in phase L" in told and "A by the power flow, so less through" in told for told in _told(decision)
    )


def _most_loaded(electrical: Electrical, ceiling: Floats) -> float:
    """Largest current of any branch end at full ceilings and worst loads, as a share of its rating."""
    closed, branches = normal_positions(electrical), electrical.branches
    every = np.ones((electrical.evse_count, 3), dtype=np.bool_)
    taken = drawn_at_buses(electrical, ceiling, phases=every, loads_kw=electrical.loads.worst_kw)
    flow = RadialFlow(electrical, closed).solve(taken)
    ends = ((flow.from_a, branches.capacity_from_a), (flow.to_a, branches.capacity_to_a))
    return float(max(np.nanmax(amps.max(axis=1) / rated) for amps, rated in ends))


def test_loads_that_break_the_band_alone_do_not_stop_everybody() -> None:
    """Where the homes alone pull a bus below 90 %, cars may still charge: at most one per cent of voltage more."""
    electrical = _stretched(_model("street_lv"), 1.0, 0.95)
    decision = _charged(CompiledSite.of(electrical))
    none = _lowest_pu(electrical, np.zeros(electrical.evse_count))
    assert none < 0.9
    assert decision.ceiling.sum() > 36.0
    assert _lowest_pu(electrical, decision.ceiling) >= none - 0.01 - 1e-6


def test_what_leaks_through_a_star_star_transformer_is_held() -> None:
    """A one-phase load leaks into the other phases of an YNyn transformer; the rating there holds all the same."""
    drawing = Drawing()
    high, low = drawing.bus(20_000.0), drawing.bus(400.0)
    drawing.supply(high)
    drawing.transformer(high, low, 1000.0, 100.0, "YNyn0")
    for phase in ("l1", "l2", "l3", "l1", "l1", "l2", "l3", "l1"):
        drawing.evse(low, phase)
    site = CompiledSite.of(drawing.electrical())
    decision = _charged(site)
    taken = drawn_at_buses(site.electrical, decision.ceiling)
    amps = RadialFlow(site.electrical, normal_positions(site.electrical)).solve(taken).to_a
    assert amps.max() <= 100.0 * 1.001
