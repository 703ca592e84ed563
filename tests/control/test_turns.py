"""Not all minima fit: who charges, for how long, and who waits how long at most. Played on the whole tick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control.turns import MIN_OFF_S, MIN_ON_S, OVERDUE_S, ROTATION_S, longest_wait_s
from powerd.limits import Bools, Floats
from tests.control.garage import LIFE, REACTION, TTL, Player, site_text

TICK_S = TTL
"""Stamps and renewals keep the leases alive at this pace, and hours pass in few ticks."""
LAG_S = 2 * TICK_S + REACTION
"""A lowering is acked one tick later; what it frees is lent on in the first tick after the reaction."""


class Watch:
    """Notes turns and waits, and complains."""

    def __init__(self, slots: int, count: int) -> None:
        self.slots = slots
        self.on_for = np.zeros(count)
        self.off_for = np.full(count, np.inf)
        self.waited = np.zeros(count)
        self.ahead = np.zeros(count, dtype=np.int64)
        self.longest = 0.0

    def see(self, ceiling: Floats, plugged: Bools) -> None:
        """One tick's ceilings (n,) hold for ``TICK_S``."""
        on = plugged & (ceiling > 0.0)
        ended = ~on & plugged & (self.on_for > 0.0)
        assert np.all(self.on_for[ended] >= MIN_ON_S), "a turn was cut short"
        begun = on & (self.on_for == 0.0)
        assert np.all(self.off_for[begun] >= MIN_OFF_S), "a pause was cut short"
        waits = plugged & ~on
        for i in np.flatnonzero(waits & (self.waited == 0.0)):
            self.ahead[i] = int(np.sum(waits & (self.waited >= self.waited[i]))) - 1
        self.waited = np.where(waits, self.waited + TICK_S, 0.0)
        for i in np.flatnonzero(waits):
            assert self.waited[i] <= longest_wait_s(int(self.ahead[i]), self.slots, LAG_S) + TICK_S, f"car {i} starves"
        self.longest = max(self.longest, float(self.waited.max()))
        self.on_for = np.where(on, self.on_for + TICK_S, 0.0)
        self.off_for = np.where(plugged, np.where(on, 0.0, self.off_for + TICK_S), np.inf)


def run(player: Player, watch: Watch, ticks: int, visits: dict[int, list[tuple[int, bool]]], share: Floats) -> None:
    """Plays ``ticks``; ``visits`` says by tick who comes (True) and leaves; cars draw ``share`` (n,) of the ceiling."""
    player.hello(0)
    player.hello(1)
    count = share.shape[0]
    for tick in range(ticks):
        for evse, comes in visits.get(tick, []):
            player.plug(evse, comes)
        ceiling = np.zeros(count) if player.decision is None else player.decision.ceiling
        drawn = {i: float(ceiling[i] * share[i]) for i in player.plugged}
        decision = player.tick(player.draw(drawn), seconds=TICK_S) if drawn else player.tick(seconds=TICK_S)
        plugged = np.isin(np.arange(count), list(player.plugged))
        watch.see(decision.ceiling, plugged)


def test_turns_rotate_every_fifteen_minutes(tmp_path: Path) -> None:
    """Three cars, two places: each one has about two thirds of the time, in turns of fifteen minutes."""
    player, watch = Player.open(tmp_path, site_text(3, 13.0)), Watch(2, 3)
    served = np.zeros(3)
    original = watch.see

    def see(ceiling: Floats, plugged: Bools) -> None:
        original(ceiling, plugged)
        served[:] += ceiling > 0.0

    watch.see = see  # type: ignore[method-assign]
    ticks = int(3 * 3600 / TICK_S)
    run(player, watch, ticks, {0: [(k, True) for k in range(3)]}, np.ones(3))
    assert np.all(np.abs(served / ticks - 2 / 3) < 0.1)
    assert watch.longest <= 2 * ROTATION_S + LAG_S + TICK_S


def test_a_car_that_needs_much_is_not_kept_out_by_small_ones_that_come_and_go(tmp_path: Path) -> None:
    """20 A of 24 A are needed at once while 6 A cars take turns beside: when it is overdue, room is kept for it."""
    player, watch = Player.open(tmp_path, site_text(4, 24.0)), Watch(1, 4)
    visits: dict[int, list[tuple[int, bool]]] = {0: [(k, True) for k in range(3)]}
    for tick in range(15, 240, 5):  # one of the small cars is replaced every 75 s
        visits.setdefault(tick, []).append((tick // 5 % 3, False))
        visits.setdefault(tick + 1, []).append((tick // 5 % 3, True))
    player.plug(3)
    player.tick(ev.SessionStarted(request_id="", evse=3, session_id="big", demand=ev.Demand(min_ceiling=20.0)))
    run(player, watch, 240, visits, np.ones(4))
    assert OVERDUE_S <= watch.longest <= longest_wait_s(0, 1, LAG_S)


def test_a_limit_and_a_higher_class_end_a_turn_at_once(tmp_path: Path) -> None:
    """The minimum on-time holds within a class only: a higher class takes the place in the tick in which it appears."""
    player = Player.open(tmp_path, site_text(2, 8.0))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    assert player.tick().ceiling[0] > 6.0
    player.plug(1)
    assert player.tick().ceiling[0] > 6.0  # same class: it has its turn
    demand = ev.Demand(priority=1)
    decision = player.tick(ev.SessionStarted(request_id="", evse=1, session_id="vip", demand=demand))
    assert decision.ceiling[0] == 0.0


def test_off_is_off_even_when_room_comes_back(tmp_path: Path) -> None:
    """The minimum off-time is never overridden, not even by an empty garage."""
    player = Player.open(tmp_path, site_text(2, 8.0))
    player.plug(0)
    player.plug(1)
    player.hello(0)
    player.hello(1)
    player.tick()
    (first,) = np.flatnonzero(player.tick().ceiling)
    demand = ev.Demand(priority=1)
    player.tick(ev.SessionStarted(request_id="", evse=1 - int(first), session_id="vip", demand=demand))
    off_at = player.now_s
    player.plug(1 - int(first), plugged=False)
    while player.tick().ceiling[first] == 0.0:
        assert player.now_s - off_at <= MIN_OFF_S + 2.0
    assert player.now_s - off_at >= MIN_OFF_S


@pytest.mark.parametrize("silent", ["controllers", "daemon"])
def test_a_lease_that_ended_in_silence_is_no_turn(tmp_path: Path, silent: str) -> None:
    """Whoever was silent for longer than a lease, controllers or the daemon: once both speak, cars go on within ticks,
    as I6 says; nobody has switched them off, so nothing is to be waited for.
    """
    player = Player.open(tmp_path, site_text(3, 60.0))
    player.hello(0)
    player.hello(1)
    for evse in range(3):
        player.plug(evse)
    before = [player.tick() for _ in range(10)][-1].ceiling
    if silent == "controllers":
        player.alive.clear()
        for _ in range(int(TTL + LIFE) + 5):  # renewals go on for a ttl, for the case that only the reports are lost
            player.tick()
    else:
        player.now_s += LIFE + 5.0
        player.alive.clear()
        player.tick()
    assert np.all(player.tick().ceiling == 0.0)
    player.hello(0, highest_epoch=1)
    player.hello(1, highest_epoch=1)
    after = [player.tick() for _ in range(5)][-1].ceiling
    assert after == pytest.approx(before)
    assert before.sum() > 59.0


def play(folder: Path, count: int, slots: int, seed: int, ticks: int) -> Watch:
    """``slots`` of ``count`` minima fit; cars of some posts stay, those of the others change all the time."""
    rng = np.random.default_rng(seed)
    player = Player.open(folder, site_text(count, 6.0 * slots + 4.0))
    visits: dict[int, list[tuple[int, bool]]] = {0: [(k, True) for k in range(count)]}
    busy = int(rng.integers(0, count))  # posts above this number change cars all the time
    for evse in range(busy + 1, count):
        tick = 1
        while tick < ticks:
            tick += int(rng.integers(2, 120))
            visits.setdefault(tick, []).append((evse, False))
            visits.setdefault(tick + 1, []).append((evse, True))
            tick += 1
    watch = Watch(slots, count)
    run(player, watch, ticks, visits, rng.uniform(0.3, 1.0, count))
    return watch


@settings(max_examples=6, deadline=None)
@given(
    count=st.integers(2, 6),
    slots=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_no_car_starves(tmp_path_factory: pytest.TempPathFactory, count: int, slots: int, seed: int) -> None:
    """However cars come and go and whatever they draw, nobody waits longer than the stated bound."""
    play(tmp_path_factory.mktemp("t"), count, min(slots, count - 1), seed, 500)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_no_car_starves_in_larger_garages_and_longer(tmp_path: Path, seed: int) -> None:
    """The same in forty garages of up to 24 posts with one to all but one place, for five hours each."""
    rng = np.random.default_rng(10_000 + seed)
    count = int(rng.integers(4, 25))
    slots = int(rng.integers(1, count))
    watch = play(tmp_path, count, slots, seed, int(5 * 3600 / TICK_S))
    assert watch.longest > 0.0  # somebody had to wait, so the bound was tried
