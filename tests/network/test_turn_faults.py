"""Who is warned of waits in the tick itself for as long as the others stand there, and nobody else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerd.control.compiled import CompiledSite
from powerd.control.turns import MIN_OFF_S
from powerd.network.load import load_site
from tests.control.garage import Player, site_text

#: Longer than anything that keeps a car off for a while: its turn, and the pause after one [s].
LONG_S = 4200.0


def _waits(path: Path, posts: int, limit_a: float) -> bool:
    """The car at P0 comes when all others have been served, and gets nothing for as long as it is watched."""
    site = CompiledSite.of(load_site(path).must())
    player = Player.of(site)
    for evse in range(posts):
        player.hello(evse)
    for evse in range(1, posts):
        player.plug(evse)
    for _ in range(30):
        player.tick()
    player.plug(0)
    decision = player.tick()
    while decision.ceiling[0] == 0.0 and player.now_s < LONG_S:
        decision = player.tick(seconds=4.0)
    assert decision.worst.sum() <= limit_a + 1e-6
    return bool(decision.ceiling[0] == 0.0)


@pytest.mark.parametrize("limit_a", [24.0, 29.0, 30.0])
def test_who_is_warned_of_has_no_turn(tmp_path: Path, limit_a: float) -> None:
    """Three cars hold 8 A each whatever they are granted: under 30 A the fourth's 6 A fit, below that they never do."""
    assert LONG_S > 30 * 60 + 2 * 15 * 60 + MIN_OFF_S
    path = tmp_path / "site.yaml"
    text = site_text(4, limit_a, fallback_a=8.0, controllers=4)
    without = "{id: P0, type: bare}"
    types = "{id: bare, phases: '3', max_current_a: 32}]"
    text = text.replace("{id: P0, type: t}", without).replace("fallback_a: 8.0}]", "fallback_a: 8.0}, " + types)
    path.write_text(text, encoding="utf-8")
    faults = [fault for fault in load_site(path).faults if fault.code == "no-turn"]
    assert [fault.element for fault in faults] == (["F1"] if limit_a < 30.0 else [])
    assert all("of P0:" in fault.message for fault in faults)
    assert _waits(path, 4, limit_a) is bool(faults)


def test_a_fallback_that_a_car_can_charge_with_is_a_turn(tmp_path: Path) -> None:
    """Everybody has 8 A of 32 A, and that is what each of them charges with in the worst case."""
    path = tmp_path / "site.yaml"
    path.write_text(site_text(4, 32.0, fallback_a=8.0, controllers=4), encoding="utf-8")
    assert not [fault for fault in load_site(path).faults if fault.code == "no-turn"]
    assert not _waits(path, 4, 32.0)
