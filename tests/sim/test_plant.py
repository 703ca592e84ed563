"""The plant counts what really flows, and calls a broken rating broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerd.network.curves import Mcb, McbType, stands_s
from powerd.network.rows import build_limits
from powerd.network.supply import normal_positions
from powerd.network.tolerance import Overload
from powerd.sim.breakers import Breakers
from powerd.sim.grid import Grid
from powerd.sim.plant import Plant
from powerd.sim.switches import Gear
from powerd.sim.wires import Survey, as_drawn
from tests.network.drawings import Drawing

BOTH = np.ones(2, dtype=np.bool_)


def _plant() -> Plant:
    """Two three-phase posts behind a transformer of 50 A on the low side and a feeder of 40 A."""
    drawing = Drawing()
    high, low, panel = drawing.bus(10_000.0), drawing.bus(400.0), drawing.bus(400.0)
    drawing.supply(high)
    drawing.transformer(high, low, low=50.0)
    drawing.feeder(low, panel, 40.0)
    drawing.evse(panel, "l123")
    drawing.evse(low, "l123")
    electrical = drawing.electrical()
    mcb = Overload(devices=(Mcb(type=McbType.C, rated_a=40.0),))
    electrical = replace(electrical, overload=(electrical.overload[0], mcb))
    limits = build_limits(electrical, normal_positions(electrical))
    survey = Survey(electrical, np.random.default_rng(0))
    grid = Grid(survey, Gear(electrical), Breakers(electrical), (), acts=False)
    return Plant(survey.wires(as_drawn(electrical)), limits, limits.capacity, grid)


def _once(plant: Plant, first: float, second: float, seconds: int = 10) -> None:
    drawn = np.array([first, second])
    plant.account(0, seconds, drawn, drawn, BOTH)


def test_a_kept_limit_shows_its_margin() -> None:
    """30 A on the feeder and 45 A on the transformer leave 10 and 5 A; the smaller one is told."""
    plant = _plant()
    _once(plant, 30.0, 15.0)
    truth = plant.close()
    assert truth.worst_margin_a == pytest.approx(5.0)
    assert truth.limit_violations == 0
    assert truth.violations == ()
    assert truth.peak_kw == pytest.approx(45.0 * 0.4 * 3**0.5)


def test_a_broken_rating_is_counted_per_phase_and_named() -> None:
    """44 A on a feeder of 40 A breaks three phases, and nothing else."""
    plant = _plant()
    plant.account(0, 5, np.array([10.0, 0.0]), np.array([10.0, 0.0]), BOTH)
    plant.account(5, 7, np.array([44.0, 0.0]), np.array([44.0, 0.0]), BOTH)
    truth = plant.close()
    assert truth.limit_violations == 3
    assert {v.element for v in truth.violations} == {"feeder1"}
    assert {(v.limit, round(v.worst, 9), v.steps, v.seconds, v.first_s) for v in truth.violations} == {
        (40.0, 44.0, 1, 7, 5)
    }
    assert truth.worst_margin_a == pytest.approx(-4.0)


@pytest.mark.parametrize(("excess", "violations"), [(0.9e-6, 0), (1.1e-6, 3)])
def test_rounding_is_no_violation_but_little_more_is(excess: float, violations: int) -> None:
    """The tolerance is one part in a million."""
    plant = _plant()
    _once(plant, 40.0 * (1 + excess), 0.0)
    assert plant.close().limit_violations == violations


def test_what_counts_is_drawn_not_granted() -> None:
    """Ceilings above a rating break nothing while the cars draw less."""
    plant = _plant()
    plant.account(0, 10, np.array([20.0, 0.0]), np.array([60.0, 60.0]), BOTH)
    truth = plant.close()
    assert truth.limit_violations == 0
    assert truth.steps_binding == 1


def test_a_limit_binds_when_the_ceilings_use_it_up() -> None:
    """Within 1 A of the limit it binds; ceilings without a car do not count; transformers are counted apart."""
    plant = _plant()
    plant.account(0, 1, np.zeros(2), np.array([39.5, 0.0]), BOTH)  # the feeder
    plant.account(1, 1, np.zeros(2), np.array([38.5, 0.0]), BOTH)  # nothing
    plant.account(2, 1, np.zeros(2), np.array([20.0, 29.5]), BOTH)  # the transformer
    plant.account(3, 1, np.zeros(2), np.array([39.5, 0.0]), np.zeros(2, dtype=np.bool_))
    truth = plant.close()
    assert (truth.steps, truth.steps_binding, truth.steps_transformer_binding) == (4, 2, 1)


def test_a_trip_is_counted_when_the_curve_says() -> None:
    """A C 40 at 56 A on three phases: one trip, in the step in which its curve ends; a pause starts anew."""
    plant = _plant()
    stands = int(stands_s(Mcb(type=McbType.C, rated_a=40.0), 56.0))
    _once(plant, 56.0, -20.0, stands - 10)
    assert plant.close().breaker_trips == 0
    _once(plant, 10.0, -5.0, 900)
    _once(plant, 56.0, -20.0, stands - 10)
    assert plant.close().breaker_trips == 0
    _once(plant, 56.0, -20.0, 11)
    assert plant.close().breaker_trips == 1


def test_an_overload_that_nothing_opens_is_one_trip() -> None:
    """A device that stays closed though it tripped does so once an overload, and is no event of a loss."""
    plant = _plant()
    for _ in range(5):
        _once(plant, 400.0, 0.0, 60)  # it stands this for no minute
    _once(plant, 10.0, 0.0, 3600)
    assert plant.close().breaker_trips == 1
    _once(plant, 300.0, 0.0, 600)
    truth = plant.close()
    assert truth.compliance == ()
    (one,) = truth.trips
    assert (one.element, one.times, one.most_a, one.opened) == ("feeder1", 2, 400.0, False)


def test_the_series_holds_every_step() -> None:
    """Start, length, power, loading and cars of each step, for the plot."""
    plant = _plant()
    plant.account(0, 10, np.array([20.0, 0.0]), np.array([20.0, 0.0]), np.array([True, False]))
    plant.account(10, 5, np.array([0.0, 0.0]), np.array([0.0, 0.0]), np.array([False, False]))
    series = plant.close().series
    assert series.start_s.tolist() == [0, 10]
    assert series.seconds.tolist() == [10, 5]
    assert series.plugged.tolist() == [1, 0]
    assert series.charging.tolist() == [1, 0]
    assert series.loading_percent.max(axis=1).tolist() == pytest.approx([50.0, 0.0])
