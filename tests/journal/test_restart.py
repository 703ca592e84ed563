"""A daemon that dies and comes back with its journal: R3, and nothing lost that was acknowledged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control.turns import MIN_OFF_S
from powerd.state import leases
from powerd.state.snapshot import largest_phase, reopen_snapshot
from powerd.units import ROW_TOLERANCE
from tests.control.garage import LIFE, Player, instant, site_text
from tests.control.test_step import ACTIONS, approx, play


def restart(player: Player, *, boottime_s: float) -> None:
    """The daemon dies now; another goes on with its last state, its clock at ``boottime_s``."""
    player.snapshot = reopen_snapshot(player.snapshot, player.site.terms, instant(boottime_s))
    player.now_s = boottime_s
    player.decision = None
    player.alive.clear()


def worst_now(player: Player) -> np.ndarray:
    """W at the player's instant."""
    state = player.snapshot
    plugged, drawn = state.sessions.plugged, largest_phase(state.drawn)
    return leases.worst(state.leases, player.site.terms, plugged, drawn, player.now_s)


@pytest.mark.parametrize("boottime_s", [7.0, 1e6])
def test_nothing_is_raised_before_every_journalled_lease_is_over(tmp_path: Path, boottime_s: float) -> None:
    """R3: cars go on at their ceilings, the freed current waits for E; also after a reboot of the machine."""
    player = Player.open(tmp_path, site_text(2, 32.0))
    player.plug(0)
    player.plug(1)
    player.hello(0)
    player.hello(1)
    for _ in range(12):
        player.tick()
    player.plug(1, plugged=False)
    player.tick()
    assert player.tick().ceiling == approx(np.array([32.0, 0.0]))
    restart(player, boottime_s=boottime_s)
    player.plug(1)
    player.hello(0, highest_epoch=1, ceiling=32.0, remaining_s=10.0)
    player.hello(1, highest_epoch=1)
    first = player.tick()
    assert first.snapshot.leases.epoch == 2
    assert first.ceiling == approx(np.array([16.0, 0.0]))
    raised_at = None
    while raised_at is None and player.now_s < boottime_s + 40:
        if player.tick().ceiling[1] > 0:
            raised_at = player.now_s
    assert raised_at is not None
    assert LIFE <= raised_at - boottime_s <= LIFE + 2.0


@pytest.mark.parametrize("plugged", [True, False], ids=["with a car", "empty"])
@pytest.mark.parametrize(
    ("before", "after", "limit_a", "granted"),
    [
        ("max_current_a: 16", "max_current_a: 32", 64.0, [32.0, 32.0]),
        ("max_current_a: 16", "min_current_a: 10, max_current_a: 16", 16.0, [16.0, 0.0]),
    ],
)
def test_a_post_has_the_bounds_of_the_site_file_of_today(
    tmp_path: Path, plugged: bool, before: str, after: str, limit_a: float, granted: list[float]
) -> None:
    """Exchanged for a larger one, or found to need 10 A: its cars get what it is built for now, and 0 below that."""
    older, newer = (site_text(2, limit_a).replace("max_current_a: 32", bounds) for bounds in (before, after))
    player = Player.open(tmp_path, older)
    for k in (0, 1):
        if plugged:
            player.plug(k)
        player.hello(k)
    for _ in range(20):
        player.tick()
    kept, player = player.snapshot, Player.open(tmp_path, newer)
    player.snapshot = kept
    restart(player, boottime_s=100.0)
    for k in (0, 1):
        if plugged:
            player.plugged.add(k)
        else:
            player.plug(k)
        player.hello(k, highest_epoch=1)
    for _ in range(240):
        decision = player.tick()
    assert sorted(decision.ceiling, reverse=True) == approx(granted)


def test_sessions_stops_and_answers_survive(tmp_path: Path) -> None:
    """What was acknowledged before the kill is known after it; a stop still holds."""
    player = Player.open(tmp_path, site_text(2, 32.0))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    player.tick(ev.SessionStarted(request_id="r", evse=0, session_id="a", demand=ev.Demand(requested_energy_kwh=9.0)))
    player.tick(ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke"))
    restart(player, boottime_s=50.0)
    player.hello(0, highest_epoch=1)
    same = ev.Demand(requested_energy_kwh=9.0)
    again = player.tick(ev.SessionStarted(request_id="r", evse=0, session_id="a", demand=same))
    assert again.outcomes[-1] == ev.Done("a", (0,))
    assert player.snapshot.sessions.requested_kwh[0] == 9.0
    for _ in range(int(MIN_OFF_S)):  # longer than a car that was switched off must stay off
        assert player.tick().ceiling[0] == 0.0
    player.tick(ev.StopReleased(request_id="", stop_id="s", reason="checked"))
    assert player.tick().ceiling[0] == approx(32.0)


@settings(max_examples=60, deadline=None)
@given(before=ACTIONS, after=ACTIONS, away_s=st.floats(0.0, 30.0))
def test_w_never_falls_through_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[str, int, float]],
    after: list[tuple[str, int, float]],
    away_s: float,
) -> None:
    """I1 and I2 over a kill at any moment: W after covers W before, and sum W stays below the limit."""
    player = Player.open(tmp_path_factory.mktemp("s"), site_text(6, 37.0))
    player.hello(0)
    player.hello(1)
    play(player, before)
    covered = worst_now(player)
    restart(player, boottime_s=player.now_s + away_s)
    assert np.all(worst_now(player) >= covered)
    for decision in play(player, after):
        assert decision.worst.sum() <= 37.0 + ROW_TOLERANCE
