"""What users of other systems keep asking for, played on the whole tick. Threads are named where the ask comes from."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from powerd.control import events as ev
from powerd.control.turns import MIN_OFF_S
from powerd.limits import Floats
from tests.control.garage import Player, site_text


def approx(value: float | Floats) -> Floats:
    """To 10 uA: a continuous post gets what the solver found."""
    rounded: Floats = np.asarray(value, dtype=np.float64).round(5)
    return rounded


def one_phase_text(connections: list[str], limit_a: float, loads: str = "") -> str:
    """One-phase 32 A posts on the given phases behind one feeder; ``loads`` as in a site file."""
    stations = [
        f"  - {{id: S{k}, bus: panel, controller: c0, evses: [{{id: P{k}, type: t, connection: {phase}}}]}}"
        for k, phase in enumerate(connections)
    ]
    return "\n".join(
        [
            "site: street",
            "supplies: [{id: grid, bus: main}]",
            "buses: [{id: main, voltage_v: 400}, {id: panel, voltage_v: 400}]",
            "feeders:",
            "  - {id: F1, from_bus: main, to_bus: panel, length_m: 20, r_ohm_per_km: 0.2, x_ohm_per_km: 0.08,",
            f"     ampacity_a: {limit_a}, source: test}}",
            f"loads: [{loads}]",
            "controller_classes: [{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 0}]",
            "controllers: [{id: c0, class: c}]",
            "evse_types: [{id: t, phases: '1', max_current_a: 32}]",
            "stations:",
            *stations,
            "",
        ]
    )


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


def test_ask_2_a_load_on_l3_does_not_throttle_a_car_on_l1(tmp_path: Path) -> None:
    """Ask 2, per-phase management (evcc#29532, EVerest#2631): each phase has its own room."""
    load = "{id: heater, bus: panel, typical_kw: 4, worst_kw: 4.14, power_factor: 1, phases: l3}"
    player = full_house(tmp_path, one_phase_text(["l1", "l3"], 40.0, load), 2)
    ceiling = player.tick().ceiling
    assert ceiling[0] == approx(32.0)
    assert 18.0 <= ceiling[1] <= 22.0  # 40 A less 4.14 kW at a low 207 V


def test_ask_3_phase_rotation_makes_room(tmp_path: Path) -> None:
    """Ask 3, a rotation map per charger (evcc#18522, openWB#2934): three posts on three phases get 32 A each."""
    rotated = full_house(tmp_path, one_phase_text(["l1", "l2", "l3"], 32.0), 3)
    assert approx(rotated.tick().ceiling).tolist() == [32.0, 32.0, 32.0]
    (tmp_path / "same").mkdir()
    same = full_house(tmp_path / "same", one_phase_text(["l1", "l1", "l1"], 32.0), 3)
    assert approx(same.tick().ceiling.sum()) <= 32.0


def test_ask_4_eight_cars_are_throttled_and_none_is_stopped(tmp_path: Path) -> None:
    """Ask 4, throttle instead of stop, no start/stop loops (evcc#13207: the eighth charger oscillates)."""
    player = full_house(tmp_path, site_text(8, 52.0), 8)
    for _ in range(600):
        decision = player.tick()
        assert np.all(decision.ceiling >= 6.0)
        assert decision.raised.evse.shape == (0,)
        assert decision.lowered.evse.shape == (0,)


def test_ask_5_cars_that_take_26_seconds_to_follow_cause_no_oscillation(tmp_path: Path) -> None:
    """Ask 5, slow cars (openeo#13: 26 to 30 s, openWB#1605): after an arrival each ceiling moves once, then rests."""
    player = full_house(tmp_path, site_text(3, 48.0), 2)
    lag = deque([np.zeros(3)] * 26, maxlen=26)
    player.plug(2)
    moves = np.zeros(3)
    ceiling = player.snapshot.leases.sent_ceiling
    for _ in range(300):
        drawn = lag[0]
        decision = player.tick(player.draw({k: float(drawn[k]) for k in range(3)}))
        lag.append(decision.ceiling.copy())
        moves += np.abs(decision.ceiling - np.nan_to_num(ceiling)) > 0.5
        ceiling = decision.ceiling
    assert approx(ceiling).tolist() == [16.0, 16.0, 16.0]
    assert np.all(moves <= 2)


def test_ask_20_the_first_setpoint_already_respects_the_limit(tmp_path: Path) -> None:
    """Ask 20 (evcc#26380: "would burn the main fuse"): ten cars at once, and not even the first tick exceeds it."""
    player = Player.open(tmp_path, site_text(10, 63.0))
    for k in range(10):
        player.plug(k)
    player.hello(0)
    player.hello(1)
    for _ in range(10):
        decision = player.tick()
        assert decision.ceiling.sum() <= 63.0 + 1e-6
        assert decision.worst.sum() <= 63.0 + 1e-6
    assert decision.ceiling.sum() >= 60.0


def test_ask_10_one_dead_charger_stops_nobody_else(tmp_path: Path) -> None:
    """Ask 10 (Tinkerforge#287, evcc#31398): a silent controller costs its own share, and only for a while."""
    player = full_house(tmp_path, site_text(4, 64.0, controllers=4), 4)
    player.alive.discard(3)
    for _ in range(60):
        decision = player.tick()
        assert np.all(decision.ceiling[:3] >= 16.0 - 1e-4)
    assert decision.ceiling[:3].sum() >= 63.0


def test_ask_11_priorities_can_change_while_cars_charge(tmp_path: Path) -> None:
    """Ask 11, an easy VIP toggle (evcc#20435, TWCManager#480): the class takes effect at once and can be taken back."""
    player = full_house(tmp_path, site_text(2, 32.0), 2)
    first = player.snapshot.sessions.session_id[0]
    raise_class = ev.SessionUpdated(request_id="", session_id=first, demand=ev.Demand(priority=9))
    assert player.tick(raise_class).ceiling[1] == approx(0.0)
    for _ in range(10):
        decision = player.tick()
    assert approx(decision.ceiling).tolist() == [32.0, 0.0]
    player.tick(ev.SessionUpdated(request_id="", session_id=first, demand=ev.Demand(priority=0)))
    for _ in range(int(MIN_OFF_S)):  # the other one was switched off: it stays off for a while
        decision = player.tick()
    assert approx(decision.ceiling).tolist() == [16.0, 16.0]
