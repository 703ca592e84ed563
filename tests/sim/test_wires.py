"""The simulator's currents against sources it shares nothing with: windings, the published garage, pandapower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.errors import PowerdError
from powerd.network.electrical import Electrical
from powerd.network.load import load_site
from powerd.network.loading import ac_loading
from powerd.network.rows import build_rows
from powerd.network.supply import energise, normal_positions
from powerd.sim.wires import Wires, lay
from tests.network.balances import KINDS, limited, truth
from tests.network.drawings import Drawing
from tests.network.oracle import branch_currents, taken_at_buses
from tests.network.randoms import trees

MODELS = Path(__file__).resolve().parents[2] / "models"
ONES = ("l1", "l2", "l3", "l12", "l23", "l31", "l123")


def _lay(electrical: Electrical, seed: int = 0) -> Wires:
    return lay(electrical, np.random.default_rng(seed))


@given(trees(connections=ONES, groups=("YNyn0", "Dyn1", "Dyn5", "Dyn7", "Dyn11")), st.integers(0, 2**31))
def test_the_sweep_agrees_with_winding_by_winding_sums(drawing: Drawing, seed: int) -> None:
    """Every rated side and phase of random trees carries what summing currents through each winding gives."""
    electrical = drawing.electrical()
    wires = _lay(electrical)
    drawn = np.random.default_rng(seed).uniform(0.0, 32.0, electrical.evse_count)
    taken = taken_at_buses(electrical, drawn, np.ones((electrical.evse_count, 3), dtype=np.bool_))
    load = electrical.loads
    live = energise(electrical, normal_positions(electrical))
    angle = np.exp(1j * np.radians([0.0, -120.0, 120.0]))
    for d in range(load.bus.shape[0]):
        on = (load.phase_bits[d] >> np.arange(3)) & 1
        volts = electrical.buses.voltage_v[load.bus[d]] / np.sqrt(3)
        taken[load.bus[d]] += on * angle * load.typical_kw[d] * 1000.0 / (on.sum() * volts)
    sides = branch_currents(electrical, live, taken)
    flow = dict(zip(wires.name, wires.flow(drawn).tolist(), strict=True))
    checked = 0
    for (branch, side), currents in sides.items():
        end = {0: ", high side", 1: ", low side"}[side] if electrical.branches.kind[branch] == 1 else ""
        for phase in range(3):
            name = f"{electrical.branches.ids[branch]}{end}"
            found = [v for k, v in flow.items() if k.endswith(name) and k.startswith(f"phase L{phase + 1} ")]
            assert all(v == pytest.approx(abs(currents[phase]), abs=1e-6) for v in found)
            checked += len(found)
    assert checked >= sum(unit == "A" for unit in wires.unit)


@settings(max_examples=30, deadline=None)
@given(trees(connections=(*ONES, "dc")), st.integers(0, 2**31))
def test_the_sweep_sees_what_phases_differ_by_and_neutrals_carry(drawing: Drawing, seed: int) -> None:
    """Every imbalance and neutral of random trees is what the winding-by-winding sums say of it."""
    electrical, rows = limited(drawing)
    wires = _lay(electrical)
    drawn = np.random.default_rng(seed).uniform(0.0, 32.0, electrical.evse_count)
    every = np.ones((electrical.evse_count, 3), dtype=np.bool_)
    seen = truth(electrical, rows, taken_at_buses(electrical, drawn, every))
    flow = dict(zip(wires.name, wires.flow(drawn).tolist(), strict=True))
    for l in np.flatnonzero(np.isin(rows.limits.kind, KINDS)).tolist():
        name = rows.limits.name[l].removeprefix("the ")
        parts = [v for k, v in flow.items() if k == name]
        if "the other phases" in name:
            parts = [v for k, v in flow.items() if k.startswith(name[:18]) and k.endswith(name[-10:].split(" ", 1)[1])]
        assert max(parts) == pytest.approx(max(seen[l], 0.0), abs=1e-6)


def _garage() -> Electrical:
    return load_site(MODELS / "caltech_garage").must()


def test_the_garage_flows_as_published() -> None:
    """Caltech ACN (acnportal 0.3.3): secondary = differences of pair currents, primary = a quarter of theirs."""
    electrical = _garage()
    wires = _lay(electrical)
    drawn = np.random.default_rng(3).uniform(0.0, 32.0, electrical.evse_count)
    deg = electrical.evse_phasor_deg
    pair = [~np.isnan(deg[:, k]) & ~np.isnan(deg[:, (k + 1) % 3]) for k in range(3)]  # AB, BC, CA
    phasor = [drawn[pair[k]].sum() * np.exp(1j * np.radians(a)) for k, a in enumerate((30.0, -90.0, 150.0))]
    secondary = [phasor[k] - phasor[(k + 2) % 3] for k in range(3)]  # A = AB - CA, B = BC - AB, C = CA - BC
    primary = [(secondary[k] - secondary[(k + 2) % 3]) / 4 for k in range(3)]
    flow = dict(zip(wires.name, wires.flow(drawn).tolist(), strict=True))
    for k in range(3):
        assert flow[f"phase L{k + 1} of transformer T1, low side"] == pytest.approx(abs(secondary[k]))
        assert flow[f"phase L{k + 1} of transformer T1, high side"] == pytest.approx(abs(primary[k]))
    pods = {e: electrical.buses.ids[b] for e, b in zip(electrical.posts.ids, electrical.evse_bus.tolist(), strict=True)}
    for panel, breaker in (("av-panel", "av-breaker"), ("cc-panel", "cc-breaker")):
        total = sum(drawn[i] for i, e in enumerate(electrical.posts.ids) if pods[e] == panel)
        assert flow[f"phase L1 of switch {breaker}"] == pytest.approx(total)
        assert flow[f"phase L3 of switch {breaker}"] == pytest.approx(0.0, abs=1e-9)
    assert wires.site_kw(drawn) == pytest.approx(0.208 * drawn.sum())


def test_the_garage_agrees_with_an_unbalanced_power_flow() -> None:
    """pandapower's ``runpp_3ph``, with losses and drops, moves no rated current by more than 1 % of its rating."""
    electrical = _garage()
    wires = _lay(electrical)
    drawn = np.random.default_rng(4).uniform(0.0, 24.0, electrical.evse_count)
    solved = ac_loading(electrical, normal_positions(electrical), drawn)
    branches = list(electrical.branches.ids)
    for name, unit, value, capacity in zip(
        wires.name, wires.unit, wires.flow(drawn).tolist(), wires.capacity.tolist(), strict=True
    ):
        assert unit == "A"
        phase, element = int(name[7]) - 1, name.split(" ")[4].rstrip(",")
        side = solved.from_a if name.endswith("high side") else solved.to_a
        assert side[branches.index(element), phase] == pytest.approx(value, abs=0.01 * capacity)


@pytest.mark.parametrize("site", ["caltech_garage", "two_feeder_depot", "street_lv", "campus_ring", "mega_hub"])
def test_the_truth_never_exceeds_what_the_rows_count(site: str) -> None:
    """On every site of ours the rows bound the real current from above: what they admit, the wires can carry."""
    electrical = load_site(MODELS / site).must()
    wires = _lay(electrical)
    rows = build_rows(electrical, normal_positions(electrical))
    place = {name: k for k, name in enumerate(wires.name)}
    shared = [(k, place[name]) for k, name in enumerate(rows.limits.name) if name in place]
    assert len(shared) >= 0.9 * rows.limits.capacity.shape[0]
    rng = np.random.default_rng(5)
    for _ in range(3):
        drawn = rng.uniform(0.0, 1.0, electrical.evse_count) * electrical.posts.max_ceiling
        counted = rows.limits.limit_flow(drawn) + rows.load_share @ electrical.loads.typical_kw
        flow = wires.flow(drawn)
        assert all(flow[p] <= counted[k] * (1 + 1e-9) + 1e-9 for k, p in shared)
        assert max(flow[p] / counted[k] for k, p in shared) > 0.9


def test_an_unknown_phase_is_settled_by_the_seed_on_one_phase() -> None:
    """The truth puts a one-phase car on one phase, not on all three candidates."""
    drawing = Drawing()
    source, panel = drawing.bus(400.0), drawing.bus(400.0)
    drawing.supply(source)
    drawing.feeder(source, panel, 100.0)
    drawing.evse(panel, "unknown")
    electrical = drawing.electrical()
    seen = {tuple(np.round(_lay(electrical, seed).flow(np.array([10.0])), 6)) for seed in range(20)}
    assert seen == {(10.0, 0.0, 0.0), (0.0, 10.0, 0.0), (0.0, 0.0, 10.0)}


def test_import_limits_count_power() -> None:
    """A supply's and the site's limit see the sum of all cars and loads in kW."""
    drawing = Drawing(site_import_limit_kw=80.0)
    source, panel = drawing.bus(400.0), drawing.bus(400.0)
    drawing.supply(source, limit_kw=50.0)
    drawing.feeder(source, panel)
    drawing.evse(panel, "l123")
    drawing.load(panel, 20.0)
    wires = _lay(drawing.electrical())
    expected = 0.4 * 3**0.5 * 32 + 10.0
    flow = dict(zip(wires.name, wires.flow(np.array([32.0])).tolist(), strict=True))
    assert flow == pytest.approx({"import from supply s0": expected, "import of the site": expected})
    assert wires.capacity.tolist() == [50.0, 80.0]


def test_a_loop_is_refused_with_a_mend() -> None:
    """A sweep cannot split currents between two ways."""
    drawing = Drawing()
    source, panel = drawing.bus(400.0), drawing.bus(400.0)
    drawing.supply(source)
    drawing.feeder(source, panel, 100.0)
    drawing.feeder(source, panel, 100.0)
    drawing.evse(panel, "l123")
    with pytest.raises(PowerdError, match="open a tie"):
        _lay(drawing.electrical())
