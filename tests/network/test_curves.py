"""Tolerance curves: the standards' own points, monotone, never later than a maker's curve or the thermal equations."""

from __future__ import annotations

import math

import numpy as np
import pandapower as pp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerd.network.curves import (
    GATES,
    Conductor,
    Device,
    DryTransformer,
    Edge,
    Fuse,
    Mcb,
    McbType,
    OilTransformer,
    TripUnit,
    UnknownBreaker,
    hot_share,
    stands_s,
)
from powerd.network.tolerance import Overload, tolerated_a, tolerated_s, trips_s, wear

RATED = st.sampled_from([6.0, 16.0, 32.0, 40.0, 63.0, 80.0, 125.0, 250.0, 400.0, 1000.0, 2500.0])


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """Any device of any kind."""
    rated = draw(RATED)
    steps = st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0])
    kinds: st.SearchStrategy[Device] = st.one_of(
        st.builds(Mcb, type=st.sampled_from(McbType), rated_a=st.just(rated)),
        st.builds(Fuse, rated_a=st.just(rated)),
        st.builds(UnknownBreaker, rated_a=st.just(rated)),
        st.builds(
            TripUnit,
            ir_a=st.just(rated),
            tr_s=steps,
            isd_a=st.sampled_from([1.5 * rated, 4 * rated, math.inf]),
            tsd_s=st.sampled_from([0.0, 0.1, 0.4]),
            ii_a=st.sampled_from([3 * rated, 12 * rated, math.inf]),
        ),
        st.builds(OilTransformer, rated_a=st.just(rated), unit_kva=st.sampled_from([100.0, 1600.0, 25_000.0])),
        st.builds(DryTransformer, rated_a=st.just(rated)),
        st.builds(Conductor, ampacity_a=st.just(rated), time_constant_s=st.sampled_from([60.0, 120.0, 1800.0])),
    )
    return draw(kinds)


def _rated(device: Device) -> float:
    match device:
        case TripUnit():
            return device.ir_a
        case Conductor():
            return device.ampacity_a
        case _:
            return device.rated_a


@given(devices(), st.floats(0.01, 60.0), st.floats(1.0, 3.0), st.sampled_from(Edge))
def test_more_current_is_never_stood_longer(device: Device, multiple: float, factor: float, edge: Edge) -> None:
    """Every curve falls: twice the current is stood no longer; what is at most rated is stood for ever."""
    amps = multiple * _rated(device)
    first, second = stands_s(device, amps, edge), stands_s(device, factor * amps, edge)
    assert second <= first * (1 + 1e-9)
    assert second >= 0
    assert stands_s(device, 0.999 * _rated(device), edge) == math.inf


@given(devices(), st.floats(1.0, 40.0))
def test_the_earliest_edge_is_before_the_nominal_one(device: Device, multiple: float) -> None:
    """What powerd plans by is never later than the middle of the band."""
    amps = multiple * _rated(device)
    assert stands_s(device, amps) <= stands_s(device, amps, Edge.NOMINAL) * (1 + 1e-9)


@pytest.mark.parametrize("type_", McbType)
@pytest.mark.parametrize("rated", [6.0, 16.0, 32.0, 40.0, 63.0, 100.0])
def test_miniature_breakers_keep_the_points_of_the_standard(type_: McbType, rated: float) -> None:
    """IEC 60898-1 table 7 from cold: 1.13 In holds 1 h (2 h), 2.55 In trips between 1 s and 60 s (120 s)."""
    device, hour = Mcb(type=type_, rated_a=rated), 3600.0 if rated <= 63 else 7200.0
    low, high = {McbType.B: (3, 5), McbType.C: (5, 10), McbType.D: (10, 20)}[type_]
    assert stands_s(device, 1.13 * rated) == pytest.approx(hour, rel=1e-6)
    cold = stands_s(device, 2.55 * rated) / hot_share(2.55, 1.13)
    assert cold == pytest.approx(1.0, rel=1e-6)
    assert 1.0 < stands_s(device, 2.55 * rated, Edge.NOMINAL) < (60 if rated <= 32 else 120)
    assert stands_s(device, 1.45 * rated, Edge.NOMINAL) < hour
    assert stands_s(device, low * 0.999 * rated) > 0.01 == stands_s(device, low * rated)
    assert stands_s(device, high * rated, Edge.NOMINAL) == 0.01


def test_a_trip_unit_does_what_it_is_set_to() -> None:
    """Ir 1 000 A, tr 8 s at 6 Ir, Isd 4 Ir after 0.3 s, Ii 12 kA: each part where the standard's +-20 % puts it."""
    unit = TripUnit(ir_a=1000, tr_s=8, isd_a=4000, tsd_s=0.3, ii_a=12_000)
    assert stands_s(unit, 1050) == 7200
    assert stands_s(unit, 3000, Edge.NOMINAL) == pytest.approx(0.9 * 8 * 4)
    assert stands_s(unit, 3000) == pytest.approx(0.8 * 8 * 4 * hot_share(3.0, 1.05))
    assert stands_s(unit, 3200) == pytest.approx(0.21)
    assert stands_s(unit, 4000, Edge.NOMINAL) == pytest.approx(0.3)
    assert stands_s(unit, 9600) == 0.01 < stands_s(unit, 9500)


@pytest.mark.parametrize("gate", GATES)
def test_fuses_stand_what_their_gates_say(gate: tuple[float, ...]) -> None:
    """IEC 60269-1 table 3 from cold: 10 s at Imin(10 s), nothing before Imin(0.1 s); nominal is inside the gates."""
    rated, ten, five, tenth, tenth_late = gate
    device = Fuse(rated_a=rated)
    assert stands_s(device, ten) / hot_share(ten / rated, 1.25) == pytest.approx(10.0)
    assert stands_s(device, tenth) == 0.01
    assert stands_s(device, five, Edge.NOMINAL) < 5.0
    assert stands_s(device, tenth_late, Edge.NOMINAL) < 0.1


def test_no_makers_fuse_melts_before_the_earliest_edge() -> None:
    """Against the melting curves of Siemens NH links that pandapower ships: each point lies later than our edge."""
    catalogue = pp.create_empty_network().std_types["fuse"]
    compared = 0
    for name, data in catalogue.items():
        if not name.startswith("Siemens NH"):
            continue
        for amps, seconds in zip(data["x_avg"], data["t_avg"], strict=True):
            if seconds >= 0.01:
                assert stands_s(Fuse(rated_a=data["i_rated_a"]), amps) <= seconds * 1.001, (name, amps)
                compared += 1
    assert compared > 60


@pytest.mark.parametrize("load", [1.1, 1.3, 1.5, 1.8, 2.0])
def test_the_oil_transformer_follows_the_differential_equations(load: float) -> None:
    """Stepping IEC 60076-7's difference equations (8.2.3) from the hot state reaches 140 C no earlier than we say, and
    soon after.
    """
    device = OilTransformer(rated_a=100, unit_kva=1600)
    stated = stands_s(device, 100 * load)
    oil, one, two, step = 55.0, 23.0, 0.0, 1.0
    k21, k22, tau_o, tau_w = 1.0, 2.0, 180 * 60.0, 4 * 60.0
    ultimate = 55 * ((1 + 5 * load**2) / 6) ** 0.8
    reached = math.inf
    for k in range(200_000):
        if 40 + oil + one - two > 140:
            reached = k * step
            break
        oil += step / tau_o * (ultimate - oil)
        one += step / (k22 * tau_w) * (k21 * 23 * load**1.6 - one)
        two += step * k22 / tau_o * ((k21 - 1) * 23 * load**1.6 - two)
    assert stated <= reached + step
    assert math.isinf(reached) or stated > 0.97 * reached - 5


def test_transformers_stand_seconds_but_not_everything() -> None:
    """At 1.5 of the nameplate oil stands minutes, dry a minute; above the emergency limits neither stands anything."""
    assert stands_s(OilTransformer(rated_a=100, unit_kva=1600), 150) > 240
    assert stands_s(DryTransformer(rated_a=100), 150) > 60
    assert stands_s(OilTransformer(rated_a=100, unit_kva=1600), 201) == 0
    assert stands_s(OilTransformer(rated_a=100, unit_kva=25_000), 181) == 0
    assert stands_s(DryTransformer(rated_a=100), 151) == 0


def test_a_conductor_heats_adiabatically_when_it_is_quick() -> None:
    """At 20 times the ampacity I2t is constant to 1 %, and it is below what IEC 60364-4-43 allows NAYY 4x150."""
    conductor = Conductor(ampacity_a=270, time_constant_s=1800)
    heat = [stands_s(conductor, 270 * m) * (270 * m) ** 2 for m in (20.0, 40.0)]
    assert heat[0] == pytest.approx(heat[1], rel=0.01)
    assert heat[0] < (76 * 150) ** 2


@given(devices(), st.floats(0.05, 3000.0))
def test_the_inverse_is_the_largest_current_that_is_stood(device: Device, seconds: float) -> None:
    """A little less is stood for the time asked, a little more is not."""
    overload, rated = Overload(devices=(device,)), _rated(device)
    most = tolerated_a(overload, seconds, rated_a=rated)
    if math.isfinite(most) and most > rated:
        assert tolerated_s(overload, most * (1 - 1e-9)) >= seconds
        assert tolerated_s(overload, most * (1 + 1e-5)) < seconds


def test_an_unknown_breaker_is_the_fastest_of_all() -> None:
    """Whatever the device turns out to be, it stands at least what the unknown one is taken to stand."""
    for m in np.linspace(1.01, 20, 200).tolist():
        unknown = stands_s(UnknownBreaker(rated_a=100), 100 * m)
        for known in (*(Mcb(type=t, rated_a=100) for t in McbType), Fuse(rated_a=100), TripUnit(ir_a=100, tr_s=1)):
            assert unknown <= stands_s(known, 100 * m)


def test_a_transformer_is_the_same_seen_from_either_side() -> None:
    """The to side's ampere are those of the from side times the ratio."""
    overload = Overload(devices=(OilTransformer(rated_a=92.4, unit_kva=1600),), ratio=25)
    assert tolerated_s(overload, 25 * 120, to_side=True) == tolerated_s(overload, 120)
    assert trips_s(overload, 120) == math.inf
    assert not overload.opens


def test_wear_adds_up_and_cools() -> None:
    """Two halves make a whole whatever the currents were; a quarter of an hour at rest forgets it."""
    half = wear(0.0, 10.0, 5.0)
    assert wear(half, 200.0, 100.0) == pytest.approx(1.0)
    assert wear(half, math.inf, 900.0) == 0.0
    assert wear(0.0, 0.0, 0.1) == math.inf
