"""The rows against pandapower: its unbalanced power flow finds the currents that the rows promise.

A row knows nominal angles and constant currents; the power flow turns every voltage a little by its drop. The nets here
drop at most two per cent, so the two may differ by two per cent of the arithmetic sum on the most loaded phase there (a
star-star transformer leaks a little of one phase's current into the others), and by no more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerd.network.build import build_net
from powerd.network.loading import ac_loading, loading_of_limits
from powerd.network.rows import build_rows
from powerd.network.supply import energise, normal_positions
from powerd.network.taken import CannotSolve
from tests.network.drawings import Drawing
from tests.network.oracle import branch_currents, taken_at_buses
from tests.network.randoms import some_use, trees

GROUPS = ("YNyn0", "Dyn1", "Dyn5", "Dyn11")
SLOW = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])


def _compare(drawing: Drawing, seed: int) -> None:
    """pandapower's currents and the oracle's, for a random use of the posts."""
    electrical = drawing.electrical()
    closed = normal_positions(electrical)
    rows = build_rows(electrical, closed)
    drawn, used = some_use(electrical, drawing, np.random.default_rng(seed))
    measured = loading_of_limits(rows, ac_loading(electrical, closed, drawn, phases=used))
    sides = branch_currents(electrical, energise(electrical, closed), taken_at_buses(electrical, drawn, used))
    arithmetic = abs(rows.limits.real) @ drawn + abs(rows.limits.imag) @ drawn
    slack: dict[tuple[int, int], float] = {}
    for row, limit in enumerate(rows.limits.limit_of_row.tolist()):
        place = (rows.branch[limit], rows.side[limit])
        slack[place] = max(slack.get(place, 1e-3), 0.02 * arithmetic[row])
    for limit, place in enumerate(zip(rows.branch, rows.side, strict=True)):
        promised = abs(sides[place][rows.phase[limit]])
        assert abs(measured[limit] - promised) <= slack[place], rows.limits.name[limit]


@SLOW
@given(trees(connections=("l1", "l2", "l3", "l12", "l23", "l31", "l123"), groups=GROUPS), st.integers(0, 2**31))
def test_unbalanced_power_flow_finds_the_same_currents(drawing: Drawing, seed: int) -> None:
    """One-phase, line-to-line and three-phase posts behind YNyn0, Dyn1, Dyn5, Dyn11: every rated side, every phase."""
    _compare(drawing, seed)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(trees(connections=("l1", "l2", "l3", "l12", "l23", "l31", "l123"), groups=GROUPS), st.integers(0, 2**31))
def test_unbalanced_power_flow_finds_the_same_currents_often(drawing: Drawing, seed: int) -> None:
    """The same over many more nets."""
    _compare(drawing, seed)


def _plain(*connections: str, group: str = "Dyn5") -> Drawing:
    """A transformer, one feeder, posts at its end."""
    drawing = Drawing()
    high, low, panel = drawing.bus(20_000.0), drawing.bus(400.0), drawing.bus(400.0)
    drawing.supply(high, 900.0)
    drawing.transformer(high, low, 30.0, 1400.0, group)
    drawing.feeder(low, panel, 400.0)
    for connection in connections:
        drawing.evse(panel, connection)
    return drawing


def test_dc_posts_take_less_than_their_row_at_nominal_voltage() -> None:
    """A row reckons DC posts at 90 % voltage: at 100 % they take between 88 and 100 % of it."""
    electrical = _plain("dc", "dc").electrical()
    closed = normal_positions(electrical)
    rows = build_rows(electrical, closed)
    drawn = np.array([80.0, 40.0])
    amps = rows.branch >= 0
    share = loading_of_limits(rows, ac_loading(electrical, closed, drawn))[amps] / rows.limits.limit_flow(drawn)[amps]
    assert (share > 0.88).all()
    assert (share < 1.0).all()


def test_balanced_and_unbalanced_power_flow_agree() -> None:
    """Three-phase posts give the same currents by runpp as by runpp_3ph (forced by one ampere on one phase)."""
    drawing = _plain("l123", "l123", "l1")
    electrical = drawing.electrical()
    closed = normal_positions(electrical)
    balanced = ac_loading(electrical, closed, np.array([30.0, 20.0, 0.0]))
    nudged = ac_loading(electrical, closed, np.array([30.0, 20.0, 1e-6]))
    np.testing.assert_allclose(balanced.to_a, nudged.to_a, rtol=1e-4)
    np.testing.assert_allclose(np.abs(balanced.voltage_pu), np.abs(nudged.voltage_pu), rtol=1e-6)
    np.testing.assert_allclose(balanced.import_kw, nudged.import_kw, rtol=1e-4)


def test_import_stays_within_its_limit_with_all_losses() -> None:
    """Posts at the ceilings a 40 kW import allows take less than that at the supply's meter."""
    drawing = _plain("l123", "l123", "dc")
    drawing.supplies[0] = ("s0", 0, 40.0, True)
    electrical = drawing.electrical()
    closed = normal_positions(electrical)
    rows = build_rows(electrical, closed)
    drawn = np.array([16.0, 16.0, 5.0])
    drawn *= rows.limits.capacity[0] / rows.limits.flow(drawn)[0]
    flow = ac_loading(electrical, closed, drawn)
    assert 28.0 < flow.import_kw[0] < 40.0


def test_constant_current_is_constant() -> None:
    """At 85 % voltage a post still takes its 20 A, to a tenth of a per cent; a constant-power one would take 23.5 A."""
    drawing = _plain("l1", "l12")
    electrical = drawing.electrical()
    electrical = replace(electrical, supplies=replace(electrical.supplies, voltage_pu=np.array([0.85])))
    flow = ac_loading(electrical, normal_positions(electrical), np.array([20.0, 0.0]))
    assert flow.to_a[1, 0] == pytest.approx(20.0, rel=1e-3)
    flow = ac_loading(electrical, normal_positions(electrical), np.array([0.0, 20.0]))
    np.testing.assert_allclose(flow.to_a[1], [20.0, 20.0, 0.0], rtol=1e-3, atol=0.01)


def test_an_open_switch_carries_nothing_and_leaves_its_bus_dead() -> None:
    """Dead buses have no voltage and branches to them no current."""
    drawing = _plain("l123")
    behind = drawing.bus(400.0)
    switch = drawing.switch(1, behind, 100.0, closed=False)
    drawing.evse(behind, "l123")
    electrical = drawing.electrical()
    flow = ac_loading(electrical, normal_positions(electrical), np.array([20.0, 20.0]))
    assert np.isnan(flow.voltage_pu[behind]).all()
    assert not flow.from_a[switch].any()
    closed = ac_loading(electrical, np.ones(3, dtype=bool), np.array([20.0, 20.0]))
    np.testing.assert_allclose(closed.from_a[switch], 20.0, rtol=1e-3)


def test_uncontrolled_loads_are_constant_power() -> None:
    """10 kW at a power factor of 1 on one phase of 230 V is 43.5 A there and nothing on the others."""
    drawing = _plain("l123", group="YNyn0")
    drawing.load(2, 10.0, 1)
    electrical = drawing.electrical()
    flow = ac_loading(electrical, normal_positions(electrical), np.zeros(1), loads_kw=np.array([10.0]))
    assert flow.to_a[1, 0] == pytest.approx(10_000 / (400 / np.sqrt(3)), rel=0.02)
    assert abs(flow.to_a[1, 1:]).max() < 0.1


def test_impossible_load_is_refused_with_a_reason() -> None:
    """A load far beyond the feeder says so instead of giving numbers."""
    electrical = _plain("dc").electrical()
    with pytest.raises(CannotSolve, match="far above its feeder"):
        ac_loading(electrical, normal_positions(electrical), np.array([1e6]))


def test_unknown_vector_groups_are_refused_only_where_unbalanced() -> None:
    """A Dzn transformer is fine for balanced currents and named when they are not."""
    drawing = _plain("l123", "l1", group="Dzn0")
    electrical = drawing.electrical()
    closed = normal_positions(electrical)
    assert ac_loading(electrical, closed, np.array([20.0, 0.0])).to_a[1, 0] == pytest.approx(20.0, rel=1e-3)
    with pytest.raises(CannotSolve, match="Dzn"):
        ac_loading(electrical, closed, np.array([20.0, 10.0]))


def test_net_keeps_bus_numbers_and_names() -> None:
    """Buses, transformers, lines carry the drawing's ids, so that a person finds them in the exported net."""
    electrical = _plain("l123").electrical()
    built = build_net(electrical, normal_positions(electrical))
    assert built.net.bus.name.tolist() == list(electrical.buses.ids)
    assert built.net.trafo.name.tolist() == ["transformer0"]
    assert built.net.line.name.tolist() == ["feeder1"]
    assert built.net.trafo.shift_degree.tolist() == [150.0]


@SLOW
@given(st.integers(0, 2**31))
def test_no_branch_of_a_loop_carries_more_than_its_row(seed: int) -> None:
    """Two transformers in parallel, their switchboards joined by a ring of unequal feeders, posts anywhere on it."""
    rng = np.random.default_rng(seed)
    drawing = Drawing()
    high = drawing.bus(20_000.0)
    low = [drawing.bus(400.0) for _ in range(4)]
    drawing.supply(high)
    drawing.transformer(high, low[0], 30.0, 1400.0, "Dyn5")
    drawing.transformer(high, low[2], 30.0, 1400.0, "Dyn5")
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
        drawing.feeder(low[a], low[b], 400.0)
    for _ in range(6):
        drawing.evse(low[rng.integers(0, 4)], str(rng.choice(["l1", "l2", "l31", "l123"])))
    electrical = drawing.electrical()
    stretch = rng.uniform(0.2, 5.0, len(drawing.branches))
    wires = electrical.impedances
    wires = replace(wires, r_ohm=wires.r_ohm * stretch, x_ohm=wires.x_ohm / stretch, r0_ohm=wires.r0_ohm * stretch)
    electrical = replace(electrical, impedances=wires)
    closed = normal_positions(electrical)
    rows = build_rows(electrical, closed)
    drawn, used = some_use(electrical, drawing, rng)
    flow = ac_loading(electrical, closed, drawn, phases=used)
    assert (rows.limits.limit_flow(drawn) >= 0.98 * loading_of_limits(rows, flow) - 0.1).all()
