"""power-grid-model on the drawing's columns: the sweep on trees, pandapower on loops; why the two programs differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from powerd.network import models
from powerd.network.electrical import Electrical
from powerd.network.flow import RadialFlow
from powerd.network.load import load_site
from powerd.network.meshed import MeshedFlow
from powerd.network.supply import normal_positions
from powerd.network.taken import CannotSolve, Drawn, Flow, drawn_at_buses
from tests.network.drawings import Drawing
from tests.network.powers import pandapower_at

MODELS = Path(__file__).parents[2] / "models"


def _model(name: str) -> tuple[Electrical, Drawn]:
    """A model with half of every post's rating and the typical loads drawn."""
    electrical = load_site(MODELS / name / "site.yaml").must()
    return electrical, drawn_at_buses(
        electrical, 0.5 * electrical.posts.max_ceiling, loads_kw=electrical.loads.typical_kw
    )


def _stiff(electrical: Electrical) -> Electrical:
    """Supplies without impedance in any sequence."""
    supplies = replace(electrical.supplies, short_circuit_mva=np.full(len(electrical.supplies.ids), 1e12))
    return replace(electrical, supplies=supplies)


def _apart(one: Flow, other: Flow) -> float:
    """Largest difference of two voltages."""
    return float(np.nanmax(np.abs(one.voltage_pu - other.voltage_pu)))


def _both(electrical: Electrical, taken: Drawn) -> tuple[Flow, Flow]:
    """Sweep and power-grid-model."""
    closed = normal_positions(electrical)
    return RadialFlow(electrical, closed).solve(taken), MeshedFlow(electrical, closed).solve(taken)


@pytest.mark.parametrize("name", ["campus_ring", "mega_hub", "two_feeder_depot"])
def test_balanced_trees_as_the_sweep(name: str) -> None:
    """The same pi circuits: voltages to 1e-8, currents and imports alike."""
    electrical, taken = _model(name)
    sweep, grid = _both(electrical, taken)
    assert _apart(sweep, grid) < 1e-8
    np.testing.assert_allclose(grid.from_a, sweep.from_a, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(grid.to_a, sweep.to_a, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(grid.import_kw, sweep.import_kw, rtol=1e-6)


def _ring() -> Electrical:
    """A transformer, two cables to one panel, a third on from there, loads and posts at all."""
    drawing = Drawing()
    high, low, near, far = drawing.bus(20_000.0), drawing.bus(), drawing.bus(), drawing.bus()
    drawing.supply(high)
    drawing.transformer(high, low, 50.0, 1443.0, "Dyn5")
    for a, b in ((low, near), (low, far), (near, far)):
        drawing.feeder(a, b, 400.0)
    for bus in (near, far):
        drawing.load(bus, 30.0)
        drawing.evse(bus, "l123")
    electrical = drawing.electrical()
    c_nf = np.where(electrical.impedances.length_km > 0, 300.0, 0.0)
    return replace(electrical, impedances=replace(electrical.impedances, c_nf=c_nf))


def test_loops_as_runpp() -> None:
    """A ring has no tree to sweep; power-grid-model finds what ``runpp`` finds, to 1e-8 of the nominal voltage."""
    electrical = _ring()
    closed = normal_positions(electrical)
    taken = drawn_at_buses(electrical, np.array([32.0, 20.0]), loads_kw=electrical.loads.worst_kw)
    flow = MeshedFlow(electrical, closed).solve(taken)
    theirs = pandapower_at(electrical, closed, taken, flow)
    assert _apart(flow, theirs) < 1e-8
    np.testing.assert_allclose(flow.from_a, theirs.from_a, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(flow.import_kw, theirs.import_kw, rtol=1e-6)


def test_what_no_ring_can_carry_is_told() -> None:
    """90 MW at 400 V have no solution."""
    electrical = _ring()
    taken = drawn_at_buses(electrical, np.zeros(2), loads_kw=np.full(2, 90_000.0))
    with pytest.raises(CannotSolve, match="no solution"):
        MeshedFlow(electrical, normal_positions(electrical)).solve(taken)


def test_the_supply_makes_the_programs_differ() -> None:
    """Garage of one-phase pairs: 9e-4 apart, nearly all negative sequence; with a stiff supply less than 1e-9.

    ``runpp_3ph`` gives the supply its short-circuit impedance in the negative and zero sequence only, power-grid-model
    in all sequences or none.
    """
    electrical, taken = _model("caltech_garage")
    sweep, grid = _both(electrical, taken)
    negative = np.exp(2j * np.pi / 3 * np.array([0, 2, 1])) / 3
    apart = (grid.voltage_pu - sweep.voltage_pu) @ negative
    assert 5e-4 < np.abs(apart).max() < 1.5e-3
    assert _apart(*_both(_stiff(electrical), taken)) < 1e-9


def test_the_rest_is_the_zero_sequence_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Street of one-phase posts: 6e-6 apart with a stiff supply; without zero-sequence magnetising less than 1e-8.

    pandapower's zero-sequence T puts 100 times the leakage across the star point; power-grid-model has no such branch.
    """
    electrical, taken = _model("street_lv")
    stiff = _stiff(electrical)
    assert 2e-6 < _apart(*_both(stiff, taken)) < 2e-5
    monkeypatch.setattr(models, "ZERO_MAGNETISING", 1e9)
    assert _apart(*_both(stiff, taken)) < 1e-8
