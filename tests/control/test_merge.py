"""Joining events changes nothing: the snapshot after is the one that the same events one by one give."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control import merge
from powerd.control.absorb import absorb
from powerd.state.columns import freeze
from powerd.state.snapshot import columns_of
from powerd.units import Now
from tests.control.garage import Player, site_text

POSTS, CONTROLLERS = 12, 4


def _event(rng: np.random.Generator, player: Player, now_s: float) -> ev.Event:
    """Anything that may come in, about a few posts of one controller, with sequence numbers near the true ones."""
    members = player.members(int(rng.integers(CONTROLLERS)))
    evse = rng.permutation(members)[: int(rng.integers(1, members.shape[0] + 1))]
    k, seq = evse.shape[0], int(rng.integers(1, player.snapshot.leases.seq + 2))
    kind = int(rng.integers(8))
    if kind == 0:
        clock = now_s + float(rng.integers(-1, 1))
        return ev.StampSeen(evse=members, incarnation=int(rng.integers(99, 103)), boottime_s=clock)
    if kind == 1:
        return ev.Acked(evse=evse, epoch=1, seq=seq, ceiling=rng.integers(0, 33, k).astype(float))
    if kind == 2:
        return ev.RenewalAcked(evse=members, epoch=1, seq=seq)
    if kind == 3:
        return ev.FreshWanted(evse=evse)
    if kind == 4:
        return ev.Measured(evse=evse, drawn=rng.uniform(0, 32, (k, 3)), window_s=None if rng.random() < 0.5 else 1.0)
    if kind == 5:
        return ev.StreamClosed(evse=members) if rng.random() < 0.2 else ev.FreshWanted(evse=evse)
    if kind == 6:
        return ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=evse, reason="test")
    since = np.full(k, now_s - float(rng.integers(0, 2)))
    return ev.PlugChanged(evse=evse, plugged=np.less(rng.random(k), 0.5), plug_boottime_s=since)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_joined_or_one_by_one(tmp_path: Path, seed: int) -> None:
    """A tick's worth of random events about overlapping posts: every column, outcome and fresh mark is the same."""
    rng = np.random.default_rng(seed)
    player = Player.open(tmp_path, site_text(POSTS, 150.0, controllers=CONTROLLERS))
    for c in range(CONTROLLERS):
        player.hello(c)
    for i in rng.permutation(POSTS)[:8].tolist():
        player.plug(i)
    for _ in range(4):
        player.tick()
    before = player.snapshot
    now = Now(utc=datetime(2026, 1, 1, tzinfo=UTC), boottime_s=player.now_s + 1.0)
    events = [_event(rng, player, now.boottime_s) for _ in range(40)]
    freeze(columns_of(before).values())
    together = absorb(player.site, before, events, now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "WORTH_JOINING", 1000)
        freeze(columns_of(before).values())
        apart = absorb(player.site, before, events, now)
    assert together.outcomes == apart.outcomes
    np.testing.assert_array_equal(together.fresh, apart.fresh)
    theirs = columns_of(apart.snapshot)
    for name, column in columns_of(together.snapshot).items():
        np.testing.assert_array_equal(column, theirs[name], err_msg=name)
    assert together.snapshot.sessions.session_id == apart.snapshot.sessions.session_id


def test_a_hundred_controllers_are_one_run() -> None:
    """Stamps and acks of different controllers join; a request keeps its place between what came before and after."""
    stamps = [ev.StampSeen(evse=np.array([i]), incarnation=i, boottime_s=0.0) for i in range(100)]
    acks = [ev.Acked(evse=np.array([i]), epoch=1, seq=1, ceiling=np.zeros(1)) for i in range(100)]
    both: list[ev.Event] = [event for pair in zip(stamps, acks, strict=True) for event in pair]
    assert [len(run) for run in merge.runs(both, 100)] == [100, 100]
    stop = ev.SessionStopped(request_id="", session_id="x")
    assert [len(run) for run in merge.runs([*stamps[:50], stop, *stamps[50:]], 100)] == [50, 1, 50]


def test_what_concerns_a_post_twice_is_not_joined() -> None:
    """Two readings of one post stay two, and so do readings on both sides of a plug change."""
    readings = [ev.Measured(evse=np.array([0]), drawn=np.full((1, 3), float(i))) for i in range(10)]
    assert [len(run) for run in merge.runs(readings, 1)] == [1] * 10
    change = ev.PlugChanged(evse=np.array([1]), plugged=np.array([True]), plug_boottime_s=np.zeros(1))
    apart = [ev.Measured(evse=np.array([i]), drawn=np.zeros((1, 3))) for i in range(8)]
    found = merge.runs([*apart[2:], change, apart[0], apart[1]], 8)
    assert [sorted(run) for run in found] == [[0, 1, 2, 3, 4, 5, 7], [6], [8]]
