"""A car never draws above the ceiling it has seen, never more than it needs, and follows after its own lag."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerd.sim.cars import Battery, Car, Cars, make_car
from tests.network.drawings import Drawing

KW = 0.4 * 3**0.5  # of one ampere at a three-phase post of 400 V


def _cars(count: int = 1) -> Cars:
    drawing = Drawing()
    bus = drawing.bus(400.0)
    for _ in range(count):
        drawing.evse(bus, "l123")
    return Cars(drawing.electrical().posts)


def _car(need: float = 10.0, lag: int = 2, tail: float = 0.0) -> Car:
    return Car(need_kwh=need, max_ceiling=32.0, min_ceiling=6.0, lag_s=lag, tail_kwh=tail)


def test_a_car_follows_after_its_lag_up_and_down() -> None:
    """A new ceiling is followed exactly lag seconds after it came into force."""
    cars = _cars()
    cars.plug(0, _car(lag=3))
    course = []
    for ceiling in [16.0] * 5 + [8.0] * 5:
        cars.apply(np.array([ceiling]))
        course.append(float(cars.drawn()[0]))
        cars.advance(1)
    assert course == [0, 0, 0, 16, 16, 16, 16, 16, 8, 8]


def test_below_its_minimum_a_car_pauses() -> None:
    """IEC 61851-1: nothing between 0 and 6 A."""
    cars = _cars()
    cars.plug(0, _car(lag=0))
    for ceiling, expected in ((5.9, 0.0), (6.0, 6.0), (40.0, 32.0), (0.0, 0.0)):
        cars.apply(np.array([ceiling]))
        assert cars.drawn()[0] == expected


def test_a_car_stops_when_it_has_what_it_needs_and_the_energy_adds_up() -> None:
    """1 kWh at 16 A takes 1 / (16 * KW) hours; the last step gives only what is left."""
    cars = _cars()
    cars.plug(0, _car(need=1.0, lag=0))
    cars.apply(np.array([16.0]))
    assert cars.steady_s() == pytest.approx(3600.0 / (16.0 * KW))
    taken = sum(float(cars.advance(15)[0]) for _ in range(100))
    assert taken == pytest.approx(1.0)
    assert cars.drawn()[0] == 0.0
    assert not cars.hungry[0]
    assert cars.unplug(0) == pytest.approx(1.0)


def test_a_taper_falls_in_a_straight_line_to_the_minimum_and_ends() -> None:
    """With half the tail left the current stands half-way between rating and minimum; the need is met in the end."""
    cars = _cars()
    cars.plug(0, _car(need=8.0, lag=0, tail=4.0))
    cars.apply(np.array([32.0]))
    cars.got_kwh[0] = 3.9
    assert cars.drawn()[0] == 32.0
    cars.got_kwh[0] = 6.0
    assert cars.drawn()[0] == pytest.approx(6.0 + 26.0 / 2)
    for _ in range(4000):
        assert cars.drawn()[0] == 0.0 or cars.drawn()[0] >= 6.0
        cars.advance(5)
    assert cars.got_kwh[0] == pytest.approx(8.0)


def test_a_long_step_is_the_same_as_many_short_ones() -> None:
    """Once a car has followed, 60 s at once give the same energy as 60 times 1 s."""
    energies = []
    for steps in ([60], [1] * 60):
        cars = _cars()
        cars.plug(0, _car(lag=2))
        for _ in range(3):
            cars.apply(np.array([20.0]))
            cars.advance(1)
        assert not cars.following[0]
        energies.append(sum(float(cars.advance(s)[0]) for s in steps))
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)


def test_steady_time_is_zero_while_a_car_follows() -> None:
    """Nobody may take a long step over a current that is about to change."""
    cars = _cars()
    cars.plug(0, _car(lag=2))
    cars.apply(np.array([10.0]))
    assert cars.steady_s() == 0.0
    cars.advance(1)
    cars.advance(1)
    assert cars.following[0] == (cars.drawn()[0] == 0.0)


def test_the_next_car_does_not_see_the_last_ones_ceiling() -> None:
    """A plug-in starts from nothing."""
    cars = _cars()
    cars.plug(0, _car(lag=4))
    cars.apply(np.array([32.0]))
    cars.advance(10)
    cars.unplug(0)
    cars.plug(0, _car(lag=4))
    cars.apply(np.array([0.0]))
    assert cars.drawn()[0] == 0.0


@given(st.lists(st.floats(0.0, 40.0), min_size=1, max_size=30), st.integers(0, 4), st.floats(0.0, 5.0), st.data())
def test_no_car_ever_draws_above_what_it_was_allowed(
    ceilings: list[float], lag: int, tail: float, data: st.DataObject
) -> None:
    """Drawn <= the ceiling in force lag seconds ago, drawn is 0 or at least the minimum, got <= need."""
    cars = _cars()
    cars.plug(0, _car(need=data.draw(st.floats(0.0, 0.2)), lag=lag, tail=tail))
    past = [0.0] * (lag + 1)
    for ceiling in ceilings:
        past.append(ceiling)
        cars.apply(np.array([ceiling]))
        drawn = float(cars.drawn()[0])
        assert drawn <= past[-1 - lag]
        assert drawn == 0.0 or drawn >= 6.0
        cars.advance(1)
        assert cars.got_kwh[0] <= cars.need_kwh[0] + 1e-12


def test_the_same_seed_makes_the_same_cars_whatever_the_battery() -> None:
    """Lags are drawn alike for ideal and tapering batteries, so that runs can be compared; they stay within 5 s."""
    drawing = Drawing()
    drawing.evse(drawing.bus(400.0), "l123")
    posts = drawing.electrical().posts
    made = {}
    for battery in Battery:
        rng = np.random.default_rng(7)
        made[battery] = [make_car(5.0, 0, posts, battery, rng) for _ in range(50)]
    lags = [car.lag_s for car in made[Battery.IDEAL]]
    assert lags == [car.lag_s for car in made[Battery.TAPER]]
    assert set(lags) == {1, 2, 3, 4}
    assert all(car.tail_kwh == 0.0 for car in made[Battery.IDEAL])
    assert all(4.8 <= car.tail_kwh <= 15.0 for car in made[Battery.TAPER])
