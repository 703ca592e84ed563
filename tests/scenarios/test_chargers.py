"""Real chargers and cars on the whole tick: the field's asks 1, 5, 9 and 14, ramps, and DC posts."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control.reclaim import HEADROOM, LIFT_EVERY_S, SETTLE_S
from powerd.limits import Floats
from tests.control.garage import REACTION, Player, site_text


def full_house(path: Path, text: str, posts: int) -> Player:
    """A car at every post, everybody connected, settled for half a minute."""
    player = Player.open(path, text)
    for k in range(posts):
        player.plug(k)
    for c in range(len(player.site.electrical.controllers.ids)):
        player.hello(c)
    for _ in range(30):
        player.tick()
    return player


def with_type(posts: int, limit_a: float, keys: str) -> str:
    """The test garage with more said about its EVSE type."""
    return site_text(posts, limit_a).replace("max_current_a: 32", f"max_current_a: 32, {keys}")


def test_ask_1_running_sessions_make_room_for_a_new_car(tmp_path: Path) -> None:
    """Ask 1 (evcc#20113, #30340: newcomers get "only the remaining headroom"): everybody is equal within seconds."""
    player = full_house(tmp_path, site_text(4, 48.0), 3)
    assert player.tick().ceiling[:3] == pytest.approx(16.0, abs=1e-4)
    player.plug(3)
    arrived = player.tick()
    assert arrived.ceiling[:3] == pytest.approx(12.0, abs=1e-4)  # lowered in the tick of the arrival
    for _ in range(int(REACTION) + 2):
        decision = player.tick()
        assert decision.worst.sum() <= 48.0 + 1e-6
    assert decision.ceiling == pytest.approx(12.0, abs=1e-4)


def test_ask_9_what_a_car_does_not_draw_is_lent_on_and_returned(tmp_path: Path) -> None:
    """Ask 9 (EVerest#2628, #2630): by a lower ceiling; back within one tick of wanting it, as soon as R1 admits."""
    player = full_house(tmp_path, site_text(2, 32.0), 2)
    for _ in range(int(SETTLE_S) + int(REACTION) + 10):
        assert player.decision is not None
        decision = player.tick(player.draw({0: 7.0, 1: float(player.decision.ceiling[1])}))
        assert decision.worst.sum() <= 32.0 + 1e-6  # never the reading in the place of W
    assert decision.ceiling == pytest.approx(np.array([7.0 + HEADROOM, 32.0 - 7.0 - HEADROOM]), abs=1e-4)
    pressing = player.draw({0: 9.0, 1: 23.0})
    player.tick(pressing)
    decision = player.tick(pressing)  # the tick after the reading came in
    assert decision.want[0] == pytest.approx(16.0, abs=1e-4)
    for _ in range(int(REACTION) + 2):
        admitted = 32.0 - decision.worst[1]
        assert decision.ceiling[0] >= min(16.0, admitted) - 1e-4  # all that R1 admits, in each tick
        decision = player.tick(player.draw({0: 9.0, 1: 16.0}))
    assert decision.ceiling[0] == pytest.approx(16.0, abs=1e-4)


def test_ask_14_nobody_gets_less_than_his_minimum(tmp_path: Path) -> None:
    """Ask 14, semi-continuous minima (optimizer#91, hsem#572): 0 or at least the car's own minimum, at every limit."""
    for limit in (5.0, 9.0, 14.0, 21.0, 27.0):
        folder = tmp_path / str(limit)
        folder.mkdir()
        player = Player.open(folder, site_text(3, limit))
        for k in range(3):
            player.plug(k)
        player.hello(0)
        player.hello(1)
        player.tick(ev.SessionStarted(request_id="", evse=2, session_id="van", demand=ev.Demand(min_ceiling=13.0)))
        for _ in range(20):
            ceiling = player.tick().ceiling
            least = np.array([6.0, 6.0, 13.0])
            assert np.all((ceiling == 0.0) | (ceiling >= least - 1e-9))
        # Each one that is off would not fit beside the minima of those who are on.
        on = ceiling > 0.0
        for off in np.flatnonzero(~on):
            assert least[on].sum() + least[off] > limit


def direction_changes(history: list[Floats]) -> Floats:
    """(n,) how often each ceiling turned from falling to rising or back."""
    moves = np.diff(np.array(history), axis=0)
    changes = np.zeros(moves.shape[1])
    for k in range(moves.shape[1]):
        signs = np.sign(moves[:, k][np.abs(moves[:, k]) > 0.01])
        changes[k] = np.sum(signs[1:] != signs[:-1])
    return changes


@settings(max_examples=4, deadline=None)
@given(
    lags=st.lists(st.integers(5, 30), min_size=4, max_size=4),
    takes=st.lists(st.sampled_from([7.0, 11.0, 16.0, 32.0]), min_size=4, max_size=4),
    noise=st.sampled_from([0.0, 0.2, 0.4]),
)
def test_ask_5_cars_that_lag_never_make_ceilings_swing(
    tmp_path_factory: pytest.TempPathFactory, lags: list[int], takes: list[float], noise: float
) -> None:
    """Ask 5 (openWB#1605 "extreme swings", openeo#13): dead times of 5 to 30 s, cars that take less than offered, noisy
    meters: after an arrival each ceiling turns at most four times in five minutes, and in the last minute it rests.
    """
    player = full_house(tmp_path_factory.mktemp("s"), site_text(4, 48.0), 3)
    rng = np.random.default_rng(int(sum(lags)))
    seen = [deque([0.0] * lag, maxlen=lag) for lag in lags]
    player.plug(3)
    history: list[Floats] = []
    for _ in range(300):
        wiggle = rng.uniform(-noise, noise, 4)
        drawn = {k: max(0.0, min(seen[k][0], takes[k]) + (wiggle[k] if seen[k][0] else 0.0)) for k in range(4)}
        decision = player.tick(player.draw(drawn))
        for k in range(4):
            seen[k].append(float(decision.ceiling[k]))
        history.append(decision.ceiling.copy())
    assert np.all(direction_changes(history) <= 4)
    assert np.ptp(np.array(history[-60:]), axis=0).max() <= 0.01
    assert decision.ceiling.sum() <= 48.0 + 1e-6


def taking(player: Player, share: float, most: float, seconds: int, *, every_s: int = 1) -> list[float]:
    """The ceilings of P0 while its car takes this share of each, up to ``most``, and its meter speaks so often."""
    ceilings = [float(player.tick().ceiling[0])]
    for second in range(seconds):
        drawn = min(most, share * ceilings[-1])
        reading = replace(player.draw({0: drawn}), window_s=None if every_s == 1 else 10.0)
        ceilings.append(float(player.tick(*([reading] if second % every_s == every_s - 1 else [])).ceiling[0]))
    return ceilings


@pytest.mark.parametrize(
    ("text", "share", "rating"),
    [
        ("{id: t, current: dc, max_power_kw: 150}", 0.97, 150.0),
        ("{id: t, current: dc, max_power_kw: 350}", 0.92, 350.0),
        ("{id: t, phases: '3', max_current_a: 32}", 0.95, 32.0),
        ("{id: t, phases: '3', max_current_a: 32}", 0.85, 32.0),
    ],
)
def test_a_car_that_takes_a_share_of_its_ceiling_is_not_bounded_down_and_down(
    text: str, share: float, rating: float, tmp_path: Path
) -> None:
    """Nobody else is there: it keeps nearly all that it could take, for ever; where losses alone are meant, all."""
    alone = site_text(1, 2000.0).replace("{id: t, phases: '3', max_current_a: 32, fallback_a: 0.0}", text)
    player = full_house(tmp_path, alone, 1)
    ceilings = taking(player, share, np.inf, 4000)
    assert min(ceilings[60:]) >= (0.93 if share < 0.9 else 1.0) * rating


def test_a_car_that_wants_more_again_gets_it_though_it_never_presses(tmp_path: Path) -> None:
    """It took 10 A for a while and was bounded; then it takes nine tenths of whatever it is offered."""
    player = full_house(tmp_path, site_text(1, 63.0), 1)
    assert taking(player, 0.9, 10.0, 200)[-1] == 12.0
    assert taking(player, 0.9, 32.0, int(LIFT_EVERY_S))[-1] >= 0.98 * 32.0


@pytest.mark.parametrize(
    ("text", "share", "rating"),
    [
        ("{id: t, phases: '3', max_current_a: 32}", 0.8, 32.0),
        ("{id: t, current: dc, max_power_kw: 150, min_power_kw: 30}", 0.93, 150.0),
    ],
)
def test_a_car_that_begins_late_is_not_held_at_its_minimum(
    text: str, share: float, rating: float, tmp_path: Path
) -> None:
    """It draws nothing for 90 s, and is bounded at its minimum; then it takes a share of whatever it is offered."""
    alone = site_text(1, 2000.0).replace("{id: t, phases: '3', max_current_a: 32, fallback_a: 0.0}", text)
    player = full_house(tmp_path, alone, 1)
    assert taking(player, 0.0, np.inf, 90)[-1] < 0.25 * rating
    assert min(taking(player, share, np.inf, 600)[5:]) >= 0.87 * rating


def test_a_minimum_that_rises_above_what_a_car_took_switches_nobody_off(tmp_path: Path) -> None:
    """It drew 4 A, so it was offered 6 A; its driver then says that it needs 13 A, in an empty garage."""
    player = Player.open(tmp_path, site_text(1, 63.0))
    player.plug(0)
    player.hello(0)
    player.tick(ev.SessionStarted(request_id="", evse=0, session_id="s", demand=ev.Demand()))
    assert taking(player, 1.0, 4.0, 100)[-1] == 6.0
    player.tick(ev.SessionUpdated(request_id="", session_id="s", demand=ev.Demand(min_ceiling=13.0)))
    assert min(taking(player, 1.0, 4.0, 100)) >= 13.0


@pytest.mark.parametrize("every_s", [120, 300])
def test_a_reading_of_a_window_that_is_past_bounds_nobody(every_s: int, tmp_path: Path) -> None:
    """The car has not begun when it is read first; then it takes all of every ceiling."""
    player = Player.open(tmp_path, site_text(1, 63.0))
    player.plug(0)
    player.hello(0)
    player.tick()
    player.tick(replace(player.draw({0: 0.0}), window_s=10.0))
    assert set(taking(player, 1.0, np.inf, 1000, every_s=every_s)) == {32.0}


def test_a_ramp_holds_back_raises_and_never_a_decrease(tmp_path: Path) -> None:
    """0.5 A/s on posts with steps of 1 A: one step every two seconds up, the whole way down at once."""
    player = Player.open(tmp_path, with_type(2, 40.0, "pilot_step_a: 1, ramp_a_per_s: 0.5"))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    ceilings = [float(player.tick().ceiling[0]) for _ in range(70)]
    assert ceilings[0] == 6.0  # from 0 straight to the minimum
    assert np.diff(ceilings).max() <= 1.0
    assert all(later - earlier <= 1.0 + 0.5 * 10 for earlier, later in zip(ceilings, ceilings[10:], strict=False))
    assert ceilings[-1] == 32.0
    assert ceilings.index(32.0) <= 2 * (32 - 6) + 1
    player.plug(1)
    assert player.tick().ceiling[0] == 20.0  # down at once


@pytest.mark.parametrize(("steps", "least"), [("pilot_step_a: 1", 9.2), ("pilot_steps_a: [8, 16, 24, 32]", 10.0)])
def test_a_minimum_between_two_steps_is_met_by_the_step_above_it(steps: str, least: float, tmp_path: Path) -> None:
    """From 0 a raise goes straight to what the car can charge with, however slow the ramp."""
    player = Player.open(tmp_path, with_type(1, 63.0, f"{steps}, ramp_a_per_s: 0.3"))
    player.plug(0)
    player.hello(0)
    player.tick()
    sessions = replace(player.snapshot.sessions, min_ceiling=np.array([least]))
    player.snapshot = replace(player.snapshot, sessions=sessions)
    ceilings = [float(player.tick().ceiling[0]) for _ in range(120)]
    assert min(ceiling for ceiling in ceilings if ceiling > 0.0) >= least
    assert ceilings[-1] == 32.0


def test_dc_posts_count_constant_power_at_low_voltage_with_their_auxiliaries(tmp_path: Path) -> None:
    """50 kW at the car are 50 / (0.94 x 0.98) kVA at 90 % voltage, and each post takes 0.5 kW even while idle."""
    text = site_text(2, 100.0).replace(
        "{id: t, phases: '3', max_current_a: 32, fallback_a: 0.0}",
        "{id: t, current: dc, max_power_kw: 50, min_power_kw: 5, auxiliary_kw: 0.5}",
    )
    assert "dc" in text
    player = Player.open(tmp_path, text)
    player.plug(0)
    player.hello(0)
    player.hello(1)
    for _ in range(5):
        decision = player.tick()
    per_kva = 1000.0 / (3**0.5 * 0.9 * 400.0)
    room_a = 100.0 - 2 * 0.5 / 0.98 * per_kva
    assert decision.ceiling[0] == pytest.approx(min(50.0, room_a / per_kva * 0.94 * 0.98), rel=1e-6)
    for k in range(2):
        player.plug(k)
    for _ in range(20):
        ceiling = player.tick().ceiling
        assert np.all((ceiling == 0.0) | (ceiling >= 5.0))
