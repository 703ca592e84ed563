"""Columns of a loaded site: capacities after derating, ratios, angles and posts, against what is known otherwise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandapower as pp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerd.errors import SiteRefused
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.load import load_site, standard_cable
from powerd.network.parts import feeder_capacity, transformer_part
from powerd.site.schema import Feeder, Transformer

BASE = Path(__file__).parents[1] / "site" / "cases" / "base.yaml"
PHASE = np.exp(1j * np.radians([0.0, -120.0, 120.0]))


def load(tmp_path: Path, *changes: tuple[str, str]) -> Electrical:
    """The base site of the fault cases, with texts replaced."""
    text = BASE.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / "site.yaml").write_text(text, encoding="utf-8")
    return load_site(tmp_path).must()


def branch(electrical: Electrical, name: str) -> int:
    return electrical.branches.ids.index(name)


positive = st.floats(1.0, 1000.0)


@given(positive, positive, st.integers(1, 4), st.floats(0.5, 1.2), st.floats(0.5, 1.0))
def test_the_smaller_of_cable_and_breaker_counts(
    cable: float, breaker: float, n: int, warm: float, hours: float
) -> None:
    """min(ampacity x parallel x temperature, breaker x continuous), and the source says which it was."""
    feeder = Feeder(
        id="F",
        from_bus="a",
        to_bus="b",
        length_m=10,
        ampacity_a=cable,
        breaker_a=breaker,
        parallel=n,
        temperature_factor=warm,
    )
    capacity, why = feeder_capacity(feeder, None, hours)
    assert capacity == pytest.approx(min(cable * n * warm, breaker * hours))
    if not math.isclose(breaker * hours, cable * n * warm):
        assert ("breaker" in why) == (breaker * hours < cable * n * warm)


def test_a_feeder_s_own_continuous_factor_wins(tmp_path: Path) -> None:
    """The site's factor is a default, for feeders, switches and transfer switches alike."""
    electrical = load(
        tmp_path,
        ("title: A yard", "continuous_factor: 0.8\ntitle: A yard"),
        ("breaker_a: 400", "breaker_a: 400, continuous_factor: 0.9"),
    )
    capacity = electrical.branches.capacity_from_a
    assert capacity[branch(electrical, "F1")] == pytest.approx(360.0)
    assert capacity[branch(electrical, "TIE")] == pytest.approx(1280.0)
    assert capacity[branch(electrical, "ATS/preferred")] == pytest.approx(504.0)
    assert "400 A breaker × 0.9 continuous" in electrical.branches.source[branch(electrical, "F1")]


def test_cable_types_are_pandapower_s(tmp_path: Path) -> None:
    """Resistance, reactance and ampacity of every catalogue name are those pandapower gives a line of that type."""
    net = pp.create_empty_network()
    a, b = pp.create_bus(net, 0.4), pp.create_bus(net, 0.4)
    for name in net.std_types["line"]:
        line = net.line.loc[pp.create_line(net, a, b, 1.0, name)]
        cable = standard_cable(name)
        assert cable is not None
        assert cable.r_ohm_per_km == line.r_ohm_per_km
        assert cable.x_ohm_per_km == line.x_ohm_per_km
        assert cable.c_nf_per_km == line.c_nf_per_km
        assert cable.ampacity_a == pytest.approx(1000 * line.max_i_ka)
    own = "r_ohm_per_km: 0.2, x_ohm_per_km: 0.08, ampacity_a: 500, breaker_a: 400"
    electrical = load(tmp_path, (own, "cable: NAYY 4x150 SE, parallel: 2"))
    f1 = branch(electrical, "F1")
    assert electrical.branches.capacity_from_a[f1] == pytest.approx(540.0)
    assert electrical.impedances.r_ohm[f1] == pytest.approx(0.208 * 0.04 / 2)


def test_parallel_cables_share_impedance_and_add_capacitance(tmp_path: Path) -> None:
    """r and x of n cables are an nth, capacitance n times; zero sequence is four times the positive (IEC 60909)."""
    one = load(tmp_path, ("ampacity_a: 500", "ampacity_a: 500, c_nf_per_km: 300"))
    three = load(tmp_path, ("ampacity_a: 500", "ampacity_a: 500, c_nf_per_km: 300, parallel: 3"))
    f1 = branch(one, "F1")
    assert three.impedances.r_ohm[f1] == pytest.approx(one.impedances.r_ohm[f1] / 3)
    assert three.impedances.x0_ohm[f1] == pytest.approx(4 * one.impedances.x_ohm[f1] / 3)
    assert three.impedances.c_nf[f1] == pytest.approx(3 * one.impedances.c_nf[f1])


@given(st.floats(50, 5000), st.floats(0.5, 1.2), st.integers(1, 3), st.integers(-5, 5))
def test_a_transformer_s_rating_on_both_sides(kva: float, factor: float, units: int, tap: int) -> None:
    """S / (sqrt(3) U) of each winding, times units and loading factor; the tap moves the ratio, not the rating."""
    transformer = Transformer(
        id="T",
        high_bus="h",
        low_bus="l",
        rated_power_kva=kva,
        loading_factor=factor,
        parallel=units,
        tap_position=tap,
        tap_step_percent=2.5,
    )
    part = transformer_part(transformer, {"h": 10_000.0, "l": 400.0})
    assert part.capacity_from_a * 10 * math.sqrt(3) == pytest.approx(kva * units * factor)
    assert part.capacity_to_a * 0.4 * math.sqrt(3) == pytest.approx(kva * units * factor)
    assert part.turns_ratio == pytest.approx(25 * (1 + 0.025 * tap))
    assert part.rated_kva == pytest.approx(kva * units)


def test_an_impedance_that_would_underflow_is_none(tmp_path: Path) -> None:
    """2e-308 ohm/km, which a power flow cannot divide by, counts as 0 beside a reactance."""
    electrical = load(tmp_path, ("r_ohm_per_km: 0.2", "r_ohm_per_km: 2.0e-308"))
    assert electrical.impedances.r_ohm[branch(electrical, "F1")] == 0


def test_losses_inside_the_rating_cost_the_no_load_current() -> None:
    """2 % no-load current leave 98 % of the high side; where losses are outside, all of it."""
    common = {"id": "T", "high_bus": "h", "low_bus": "l", "rated_power_kva": 100, "no_load_current_percent": 2}
    volts = {"h": 10_000.0, "l": 400.0}
    inside = transformer_part(Transformer.model_validate(common), volts)
    outside = transformer_part(Transformer.model_validate({**common, "losses_inside_rating": False}), volts)
    assert inside.capacity_from_a == pytest.approx(0.98 * outside.capacity_from_a)
    assert inside.capacity_to_a == outside.capacity_to_a


def test_stated_currents_win_over_the_nameplate(tmp_path: Path) -> None:
    """rated_current_low_a is what counts on the low side, and the source tells both."""
    electrical = load(tmp_path, ("vector_group: Dyn5, high_v: 10000", "vector_group: Dyn5, rated_current_low_a: 1200"))
    ts = branch(electrical, "TS")
    assert electrical.branches.capacity_to_a[ts] == pytest.approx(1200.0)
    assert electrical.branches.capacity_from_a[ts] == pytest.approx(1000 / math.sqrt(3) / 10)
    assert "1200 A low" in electrical.branches.source[ts]


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (2, 0)])
def test_line_to_line_angles_follow_from_the_phase_voltages(tmp_path: Path, pair: tuple[int, int]) -> None:
    """At unity power factor the current is in phase with U_i - U_j, flows in on i and out on j."""
    name = f"l{pair[0] + 1}{pair[1] + 1}"
    electrical = load(tmp_path, ("connection: l23", f"connection: {name}"))
    angles = electrical.evse_phasor_deg[electrical.posts.ids.index("S1-2")]
    voltage = PHASE[pair[0]] - PHASE[pair[1]]
    current = voltage / abs(voltage)
    assert np.exp(1j * np.radians(angles[pair[0]])) == pytest.approx(current)
    assert np.exp(1j * np.radians(angles[pair[1]])) == pytest.approx(-current)
    assert np.isnan(angles[3 - sum(pair)])


def test_one_and_three_phase_angles_are_the_voltages_own(tmp_path: Path) -> None:
    """To neutral and in star the current is in phase with the bus phase it hangs on."""
    electrical = load(tmp_path)
    expected = np.angle(PHASE, deg=True)
    three = electrical.evse_phasor_deg[electrical.posts.ids.index("P001")]
    assert three == pytest.approx(expected)
    for name, phase in (("Q1", 0), ("Q2", 1), ("Q3", 2), ("Q4", 0)):
        angles = electrical.evse_phasor_deg[electrical.posts.ids.index(name)]
        assert angles[phase] == pytest.approx(expected[phase])
        assert np.isnan(np.delete(angles, phase)).all()
    rotations = [electrical.evse_rotation[electrical.posts.ids.index(f"P{n:03}")] for n in range(1, 5)]
    assert rotations == [0, 1, 2, 0]


def test_dc_posts_count_at_low_voltage_and_worst_efficiency(tmp_path: Path) -> None:
    """150 kW at the vehicle: the current of P / eta / pf at 90 % of 400 V; idle power is a load of its own."""
    electrical = load(tmp_path)
    fast = electrical.posts.ids.index("S2")
    apparent_kva = 150 / 0.94 / 0.98
    current = 150 * electrical.evse_amps_per_unit[fast]
    assert math.sqrt(3) * 0.9 * 0.4 * current == pytest.approx(apparent_kva)
    assert electrical.posts.max_ceiling[fast] == 150
    assert electrical.posts.is_dc[fast]
    idle = electrical.loads.ids.index("~idle/lv-s/fast")
    assert electrical.loads.worst_kw[idle] == pytest.approx(0.5)
    assert electrical.loads.bus[idle] == electrical.buses.ids.index("lv-s")


def test_post_columns(tmp_path: Path) -> None:
    """Steps ascend from 0, kW per ampere is that of the connection, columns follow the file's order."""
    posts = load(tmp_path).posts
    at = {name: index for index, name in enumerate(posts.ids)}
    assert posts.ids[:4] == ("S1-1", "S1-2", "S2", "P001")
    assert posts.pilot_steps[at["S1-1"]].tolist() == [0, 6, 10, 16]
    assert posts.pilot_steps[at["P020"]].tolist() == [0, *range(6, 33)]
    assert posts.pilot_steps[at["S1-2"]].size == 0
    assert posts.kw_per_unit[[at["S1-1"], at["S1-2"], at["S2"], at["P001"]]] == pytest.approx(
        [0.4 / math.sqrt(3), 0.4, 1.0, 0.4 * math.sqrt(3)]
    )
    assert posts.phase_count[[at["S1-1"], at["S1-2"], at["S2"], at["P001"]]].tolist() == [1, 2, 3, 3]
    assert posts.fallback[at["P001"]] == 6


def test_a_transfer_switch_is_two_interlocked_halves(tmp_path: Path) -> None:
    """Only one half is closed, and without closed transition never both."""
    electrical = load(tmp_path)
    halves = (branch(electrical, "ATS/preferred"), branch(electrical, "ATS/alternate"))
    assert electrical.branches.normally_closed[list(halves)].tolist() == [True, False]
    assert any(lock.branches == halves and lock.at_most_closed == 1 for lock in electrical.interlocks)
    assert electrical.branches.kind[halves[0]] == BranchKind.SWITCH
    swift = load(tmp_path, ("load_bus: critical,", "load_bus: critical, closed_transition: true,"))
    assert not any(lock.branches == halves for lock in swift.interlocks)


def test_what_is_not_there_is_not_in_the_columns(tmp_path: Path) -> None:
    """Stations and loads out of service leave the columns; branches stay, marked."""
    electrical = load(
        tmp_path,
        ("{id: S2, bus", "{id: S2, in_service: false, bus"),
        ("{id: offices,", "{id: offices, in_service: false,"),
        ("{id: TIE,", "{id: TIE, in_service: false,"),
    )
    assert "S2" not in electrical.posts.ids
    assert electrical.loads.ids == ()
    assert not electrical.branches.in_service[branch(electrical, "TIE")]


def test_a_site_with_errors_is_refused_with_its_faults(tmp_path: Path) -> None:
    """``must`` raises with the errors that ``check`` would print."""
    (tmp_path / "site.yaml").write_text(BASE.read_text(encoding="utf-8").replace("at: TN", "at: TX"), "utf-8")
    loaded = load_site(tmp_path)
    with pytest.raises(SiteRefused, match="there is no element TX") as refused:
        loaded.must()
    assert refused.value.faults == loaded.errors
