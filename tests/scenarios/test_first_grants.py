"""The first grant after a plug-in opens a fallback: who gets it, what counts with it, and what must not open it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.control.lease_alarms import LONG_WAIT_S
from powerd.state import leases
from powerd.state.snapshot import Stop
from tests.control.garage import LIFE, TTL, Player, site_text
from tests.control.test_envelopes import said


def two_fallbacks(path: Path, limit_a: float, first: float, second: float) -> Player:
    """Two posts that fall back to these under one feeder."""
    big = f"evse_types: [{{id: big, phases: '3', max_current_a: 32, fallback_a: {first}}}, "
    text = site_text(2, limit_a, fallback_a=second).replace("evse_types: [", big)
    return Player.open(path, text.replace("{id: P0, type: t}", "{id: P0, type: big}"))


def counted(player: Player) -> float:
    """Sum of W [A]."""
    plugged, drawn = player.snapshot.sessions.plugged, player.snapshot.drawn.max(axis=1)
    return float(leases.worst(player.snapshot.leases, player.site.terms, plugged, drawn, player.now_s).sum())


def session(evse: int, *, priority: int | None = None, most: float | None = None) -> ev.SessionStarted:
    """What a driver says."""
    demand = ev.Demand(priority=priority, max_ceiling=most)
    return ev.SessionStarted(request_id="", evse=evse, session_id=f"s{evse}", demand=demand)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("limit_a", "first", "second"), [(22.0, 16.0, 6.0), (39.0, 8.0, 8.0), (32.0, 16.0, 16.0)])
def test_a_fallback_above_the_fair_share_keeps_nobody_out(
    limit_a: float, first: float, second: float, order: tuple[int, int], tmp_path: Path
) -> None:
    """Both fallbacks fit (R5), so both cars charge, whoever came first; what counts never exceeds the limit."""
    player = two_fallbacks(tmp_path, limit_a, first, second)
    player.hello(0)
    player.hello(1)
    player.tick()
    weights = replace(player.snapshot.sessions, weight=np.array([10.0, 1.0]))
    player.snapshot = replace(player.snapshot, sessions=weights)
    for evse in order:
        player.plug(evse)
        for _ in range(int(2 * LIFE)):
            player.tick()
            assert counted(player) <= limit_a + 1e-6
    assert np.all(player.tick().ceiling >= 6.0)
    assert player.snapshot.leases.granted.all()


def test_a_car_that_takes_less_than_its_posts_fallback_charges(tmp_path: Path) -> None:
    """It is granted its 10 A, and the row counts the 16 A that its post may fall back to."""
    player = two_fallbacks(tmp_path, 32.0, 16.0, 6.0)
    player.plug(0)
    player.hello(0)
    player.hello(1)
    player.tick(session(0, most=10.0))
    assert player.tick().ceiling[0] == 10.0
    assert counted(player) == 16.0


def test_a_higher_class_need_not_make_room_for_a_fallback_that_nobody_has_opened(tmp_path: Path) -> None:
    """Classes are strict: a car of a lower one waits for its first grant, and what it would open is not kept free."""
    player = two_fallbacks(tmp_path, 32.0, 16.0, 6.0)
    player.hello(0)
    player.hello(1)
    player.plug(1)
    player.tick(session(1, priority=5))
    player.plug(0)
    ceilings = np.array([player.tick().ceiling for _ in range(int(2 * LIFE))])
    assert np.all(ceilings == [0.0, 32.0])


def waiting_beside_a_lease(path: Path) -> Player:
    """c0 has P0 and P2, c1 P1 and P3 of a higher class; P0 lives by an old stop, and P2 has a car without room."""
    player = Player.open(path, site_text(4, 24.0, fallback_a=6.0))
    player.hello(0)
    player.hello(1)
    player.plug(1)
    player.plug(3)
    player.tick(session(1, priority=5), session(3, priority=5))
    stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="told")
    player.plug(0)
    player.tick(stop)
    for _ in range(5):
        player.tick()
    player.tick(ev.StopReleased(request_id="", stop_id="s", reason="checked"))
    player.plug(2)
    return player


def test_no_renewal_for_all_reaches_a_car_that_waits_for_its_first_grant(tmp_path: Path) -> None:
    """Its controller would take it for that car's first grant, and open a fallback that no row counts."""
    player = waiting_beside_a_lease(tmp_path)
    owner = player.site.electrical.posts.controller
    renewed = 0
    for _ in range(int(3 * TTL)):
        decision = player.tick()
        waits = player.snapshot.sessions.plugged & ~player.snapshot.leases.granted
        assert not np.isin(owner[waits], decision.renewal.controller).any()
        renewed += decision.renewal.controller.shape[0]
    assert waits[2]
    assert renewed > 0


def test_what_a_post_cannot_take_is_not_renewed(tmp_path: Path) -> None:
    """A post that does not answer its controller's new process: its lease ends in the book as it does there."""
    player = Player.open(tmp_path, site_text(4, 24.0))
    for evse in (0, 1):
        player.plug(evse)
    player.hello(0)
    player.hello(1)
    for _ in range(int(LIFE)):
        player.tick()
    assert player.tick().ceiling[:2].tolist() == [12.0, 12.0]
    player.hello(0)
    again = player.news.pop()
    assert isinstance(again, ev.HelloReceived)
    silent = np.array([True, False])
    player.news.append(replace(again, incarnation=200, plugged=np.array([True, False]), unsettled=silent))
    player.alive.discard(0)
    for _ in range(int(2 * LIFE) + 5):
        stamp = ev.StampSeen(evse=player.members(0), incarnation=200, boottime_s=player.now_s + 1.0)
        decision = player.tick(stamp)
    assert decision.ceiling[1] == 24.0  # what the silent post had is lent on
    assert sum("P0 has not taken its controller's first order" in alarm for alarm in decision.alarms) == 1


def test_a_post_that_answers_nobody_is_told_of_also_where_it_has_a_fallback(tmp_path: Path) -> None:
    """It stands at its fallback, so its car does not wait for current; its controller is well."""
    player = Player.open(tmp_path, site_text(1, 64.0, fallback_a=6.0))
    player.plug(0)
    player.hello(0)
    for _ in range(5):
        player.tick()
    player.hello(0)
    again = player.news.pop()
    assert isinstance(again, ev.HelloReceived)
    player.news.append(replace(again, incarnation=200, unsettled=np.array([True])))
    player.alive.discard(0)
    told = []
    for _ in range(int(LIFE) + 5):
        stamp = ev.StampSeen(evse=player.members(0), incarnation=200, boottime_s=player.now_s + 1.0)
        told.append(any("has not taken its controller's first order" in one for one in player.tick(stamp).alarms))
    assert told == sorted(told), "not before its lease is over, and then for as long as it lasts"
    assert told[-1]


def test_cars_that_fallbacks_leave_no_turn_are_told_of(tmp_path: Path) -> None:
    """25 A: three posts hold 8 A each whatever they are granted, and the fourth's car needs 6 A."""
    text = site_text(4, 25.0, fallback_a=8.0).replace("{id: P3, type: t}", "{id: P3, type: bare}")
    text = text.replace("evse_types: [", "evse_types: [{id: bare, phases: '3', max_current_a: 32}, ")
    player = Player.open(tmp_path, text)
    for evse in range(4):
        player.plug(evse)
    player.hello(0)
    player.hello(1)
    told = []
    for _ in range(int(LONG_WAIT_S / 10.0) + 5):
        decision = player.tick(seconds=10.0)
        told.append([one for one in decision.alarms if "has waited for more than 2 h" in one])
    assert decision.ceiling[3] == 0.0
    assert told[-10] == []
    held = "phase L1 of feeder F1 (test (25 A conductor)) leaves it no turn beside who goes first"
    assert told[-1] == [f"P3: its car has waited for more than 2 h: {held} and what posts fall back to"]


def waiting_alarms(player: Player) -> list[str]:
    """What is told after so long that the wait of all who get nothing is very long."""
    player.hello(0)
    player.hello(1)
    for _ in range(int(LONG_WAIT_S / 10.0) + 5):
        decision = player.tick(seconds=10.0)
    return [one for one in decision.alarms if "waited for more than 2 h" in one]


def test_a_limit_below_all_that_cars_need_is_told_once(tmp_path: Path) -> None:
    """An envelope of 0 kW: one sentence with its name for the whole garage; nobody is said to be in another's way."""
    player = Player.open(tmp_path, site_text(4, 400.0) + "grid_connection: {import_limit_kw: 200}\n")
    for evse in range(4):
        player.plug(evse)
    player.tick(said(0.0))
    why = "import of the site (envelope night of dso, 0 kW) has less room than the least that any of them needs"
    who = "P0 and 3 more: their cars have waited for more than 2 h"
    assert waiting_alarms(player) == [f"{who}: {why}, whoever else charges"]


def test_a_car_that_needs_more_than_its_wire_carries_is_told_so(tmp_path: Path) -> None:
    """A driver's minimum of 24 A under 20 A: no other car is the cause."""
    player = Player.open(tmp_path, site_text(3, 20.0))
    for evse in range(3):
        player.plug(evse)
    player.tick()
    demand = ev.Demand(min_ceiling=24.0)
    player.tick(ev.SessionStarted(request_id="", session_id="s0", evse=0, demand=demand))
    why = "phase L1 of feeder F1 (test (20 A conductor)) has less room than the least that it needs"
    assert waiting_alarms(player) == [f"P0: its car has waited for more than 2 h: {why}, whoever else charges"]


def test_a_stop_holds_whoever_another_drawing_feeds_through_its_element(tmp_path: Path) -> None:
    """A start under another site file: P1 hangs below F1 too by now."""
    player = Player.open(tmp_path, site_text(2, 64.0))
    before = Stop(stop_id="s", element="F1", evse=np.array([0]), reason="smoke")
    player.snapshot = replace(player.snapshot, stops=(before,))
    for evse in (0, 1):
        player.plug(evse)
    player.hello(0)
    player.hello(1)
    decision = player.tick()
    assert decision.snapshot.stops[0].evse.tolist() == [0, 1]
    assert decision.ceiling.tolist() == [0.0, 0.0]


def test_a_controller_that_claims_nonsense_counts_at_its_fallback_for_as_long_as_it_does(tmp_path: Path) -> None:
    """Its heartbeats end neither that nor the alarm."""
    player = two_fallbacks(tmp_path, 32.0, 16.0, 6.0)
    player.hello(1)
    player.plug(1)
    player.hello(0, highest_epoch=9 * 10**15, ceiling=6.0, remaining_s=10.0)
    player.plugged.add(0)
    for _ in range(int(2 * LIFE)):
        decision = player.tick()
        assert decision.worst[0] == 16.0
        assert decision.ceiling[1] <= 16.0
        assert any("claims an epoch" in alarm for alarm in decision.alarms)


def test_a_stopped_post_that_connects_again_opens_no_fallback(tmp_path: Path) -> None:
    """It names the stop as its newest grant, and cannot fall back below that."""
    player = waiting_beside_a_lease(tmp_path)
    stop = ev.StopOrdered(request_id="", stop_id="t", element="P0", evse=np.array([0]), reason="told")
    for _ in range(int(LIFE)):
        player.tick(stop)
    player.hello(0, highest_epoch=1)
    again = player.news.pop()
    assert isinstance(again, ev.HelloReceived)
    latched = np.array([True, False])
    named = replace(again, latched=latched, epoch=np.where(latched, 1, 0), seq=np.where(latched, 3, 0))
    decision = player.tick(named)
    assert decision.worst[0] == 0.0
    assert not decision.overshoots
