"""Limits that fall below what is granted: declared, bounded, over in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.control.decision import Decision
from powerd.control.lease_alarms import tolerance_s
from powerd.control.step import Stepper
from powerd.network.tolerance import tolerated_s
from powerd.state.hello import Said
from powerd.state.overshoot import Overshoot, track
from tests.control.garage import LIFE, REACTION, TTL, Player, site_text


def falls(player: Player, share: float) -> None:
    """The feeder's limit becomes this share of what it is."""
    limits = replace(player.site.limits, capacity=player.site.limits.capacity * share)
    player.site = replace(player.site, limits=limits)
    player.stepper = Stepper(player.site)


@pytest.fixture
def full(tmp_path: Path) -> Player:
    """Two posts at 16 A each under 32 A, F = 6 A."""
    player = Player.open(tmp_path, site_text(2, 32.0, fallback_a=6.0))
    for k in range(2):
        player.plug(k)
        player.hello(k)
    for _ in range(3):
        player.tick()
    return player


def test_an_acked_curtailment_is_over_after_the_reaction(full: Player) -> None:
    """R6: declared in the tick, bounded by E, over once acked + reaction."""
    falls(full, 0.5)
    decision = full.tick()
    began = full.now_s
    assert decision.ceiling.sum() <= 16.0 + 1e-6
    assert {one.element for one in decision.overshoots} == {"F1"}
    assert all(one.until_s <= began + LIFE for one in decision.overshoots)
    assert decision.overshoots[0].over == pytest.approx(16.0, abs=1e-3)
    assert any("declared overshoot" in alarm for alarm in decision.alarms)
    while any(one.lasts for one in decision.overshoots):
        decision = full.tick()
    assert full.now_s - began <= REACTION + 2.0
    assert all(one.ended_s == full.now_s for one in decision.overshoots)
    assert not full.tick().overshoots


def test_the_time_until_the_readings_comply_is_told_beside_what_the_element_stands(full: Player) -> None:
    """Cars follow 3 s after the limit fell: 3.0 s at 32 A, and how long feeder F1 stands that at its earliest edge."""
    full.tick(full.draw({0: 16.0, 1: 16.0}))
    falls(full, 0.5)
    for _ in range(3):
        decision = full.tick(full.draw({0: 16.0, 1: 16.0}))
        assert all(one.complied_s == np.inf for one in decision.overshoots)
        assert not any("was over for" in alarm for alarm in decision.alarms)
    decision = full.tick(full.draw({0: 8.0, 1: 8.0}))
    assert {(one.complied_s - one.since_s, one.peak) for one in decision.overshoots} == {(3.0, 32.0)}
    stands_s = tolerance_s(full.site.electrical, decision.overshoots[0])
    assert stands_s == tolerated_s(full.site.electrical.overload[0], 32.0)
    told = [alarm for alarm in decision.alarms if "was over for" in alarm]
    assert told
    assert all("was over for 3.0 s, at most at 32.0 A; it stands that for" in alarm for alarm in told)
    decision = full.tick(full.draw({0: 16.0, 1: 16.0}))
    assert all(one.complied_s == np.inf for one in decision.overshoots)


def test_an_overshoot_says_how_much_it_is_now_whose_and_how_it_ends(full: Player) -> None:
    """One car follows at once, the controller of the other is silent: 16 A too much, then 8, for whom, until when."""
    full.tick(full.draw({0: 16.0, 1: 16.0}))
    full.alive.discard(1)
    falls(full, 0.5)
    first = _of_l1(full.tick())
    for words in ("phase L1 of feeder F1 (test (32 A conductor)) could carry 32.0 A, 16.0 A more", "for 0 s now"):
        assert words in first
    assert "measured now: 32.0 A: P0 and P1 may not have followed yet; over in" in first
    for _ in range(int(TTL)):
        decision = full.tick(full.draw({0: 8.0}))
    last = _of_l1(decision)
    assert "could carry 24.0 A, 8.0 A more than it may, for 15 s now; measured now: 24.0 A" in last
    assert ": controller c1 is silent" in last
    assert "; over in " in last


def test_an_overshoot_of_cars_that_do_not_obey_names_them(full: Player) -> None:
    """Nothing fell: a car draws what it is not granted. Both are told, with what was seen and how it ends."""
    for _ in range(200):
        decision = full.tick(full.draw({0: 28.0, 1: 16.0}))
    assert "P0 drew more than allowed; over when that ends, or the limit rises" in _of_l1(decision)
    (told,) = [alarm for alarm in decision.alarms if alarm.startswith("P0: ")]
    ceiling = f"{decision.ceiling[0]:.4g} A"
    why = f"P0: it draws 28 A, more than any ceiling it had within a minute (now {ceiling})"
    assert told == f"{why}: it counts at its rating, 32 A, until it has obeyed for 60 s"
    for _ in range(21):
        decision = full.tick(full.draw({0: 0.0, 1: 16.0}))
    (told,) = [alarm for alarm in decision.alarms if alarm.startswith("P0: ")]
    assert told.startswith("P0: it drew more than its ceilings, and obeys for 20 s now (0 A of ")
    assert told.endswith("it counts at its rating, 32 A, for 40 s more")
    for _ in range(40):
        decision = full.tick(full.draw({0: 0.0, 1: 16.0}))
    assert not any(alarm.startswith("P0") for alarm in decision.alarms)


def _of_l1(decision: Decision) -> str:
    """What is told of the overshoot on L1."""
    (alarm,) = [one for one in decision.alarms if one.startswith("declared overshoot: phase L1 ")]
    return alarm


def test_only_a_limit_that_falls_again_moves_the_bound(full: Player) -> None:
    """From 20 to 25 A and back under 32 A of W: what was granted under 25 A ends later than the first bound says."""
    limits = full.site.limits
    flow, calm = np.full(limits.capacity.shape, 32.0), np.zeros(limits.capacity.shape, np.bool_)
    found: tuple[Overshoot, ...] = ()
    seen = []
    for now_s, room in enumerate((20.0, 20.0, 25.0, 25.0, 20.0, 20.0)):
        bound_s = np.full(flow.shape, 10.0 + now_s)
        available = np.full(flow.shape, room)
        found = track(
            found, limits, flow, 0.0 * flow, available, bound_s, float(now_s), anew=calm, returned=calm, uneven=calm
        )
        seen.append(found[0].until_s)
    assert seen == [10.0, 10.0, 10.0, 10.0, 14.0, 14.0]
    assert found[0].available == 20.0


def test_what_nobody_is_told_to_lower_is_no_overshoot(full: Player) -> None:
    """Both cars follow ceilings that are less than a millionth above what they should: none is sent for that.

    Together they are above the limit by more; an overshoot of 0.0 A would last as long as they stay so.
    """
    full.tick()
    assert full.snapshot.leases.acked_ceiling == pytest.approx(np.full(2, 16.0), abs=1e-5)
    sent = full.snapshot.leases.acked_ceiling.sum()
    falls(full, (sent - 1.4e-6) / 32.0)
    for _ in range(3):
        decision = full.tick()
        assert decision.worst.sum() > decision.site.limits.capacity.min() + 1.2e-6
        assert not decision.lowered.evse.shape[0]
        assert not decision.overshoots
    falls(full, 0.999)
    assert full.tick().overshoots


def test_what_was_never_drawn_complies_at_once(full: Player) -> None:
    """A limit that falls below the ceilings, but not below the readings, is no overload: nothing is told of one."""
    full.tick(full.draw({0: 5.0, 1: 5.0}))
    falls(full, 0.5)
    decision = full.tick()
    assert {one.complied_s - one.since_s for one in decision.overshoots} == {0.0}
    assert not any("was over for" in alarm for alarm in decision.alarms)


def test_a_silent_controller_bounds_the_overshoot_by_its_expiry(full: Player) -> None:
    """R6: what nobody acks is over at E, and not later."""
    full.alive.discard(0)
    full.tick()
    falls(full, 0.6)
    decision = full.tick()
    bound = max(one.until_s for one in decision.overshoots)
    assert full.now_s < bound <= full.now_s + LIFE
    while any(one.lasts for one in decision.overshoots):
        decision = full.tick()
        assert not any("should have been over" in alarm for alarm in decision.alarms)
    assert full.now_s <= bound + 1.0


def test_a_silent_controller_that_speaks_again_under_an_overshoot(tmp_path: Path) -> None:
    """R6: what its two cars hold and a fallback do not fit, so the third is off at once; heard again they fall as well.

    Nobody acks that any more, and yet the overshoot is over by its bound.
    """
    player = Player.open(tmp_path, site_text(4, 32.0, fallback_a=6.0))
    for k in (0, 1, 3):
        player.plug(k)
    for k in range(2):
        player.hello(k)
    for _ in range(3):
        player.tick()
    player.alive.discard(1)
    while player.now_s - player.snapshot.leases.echo_at_s[1] <= TTL:
        player.tick()
    falls(player, 0.75)
    decision = player.tick()
    assert decision.ceiling[[0, 1, 3]] == pytest.approx([0.0, 32 / 3, 32 / 3])
    first = max(one.until_s for one in decision.overshoots)
    player.alive.add(1)
    decision = player.tick()
    assert decision.ceiling[[1, 3]].sum() <= 18.0 + 1e-4
    bound = max(one.until_s for one in decision.overshoots)
    assert bound >= first
    player.alive.clear()
    while any(one.lasts for one in decision.overshoots):
        decision = player.tick()
        assert not any("should have been over" in alarm for alarm in decision.alarms)
    assert player.now_s <= bound + 1.0


def test_a_limit_below_the_reserve_has_no_bound(full: Player) -> None:
    """The fallbacks alone exceed it: declared for as long as it lasts, and live grants obey it."""
    falls(full, 0.25)
    for _ in range(40):
        decision = full.tick()
    assert all(one.until_s == np.inf for one in decision.overshoots)
    assert decision.ceiling.sum() <= 8.0 + 1e-6
    falls(full, 4.0)
    assert not any(one.lasts for one in full.tick().overshoots)


def test_a_mismatch_with_the_site_file_is_alarmed_and_the_larger_value_reserved(tmp_path: Path) -> None:
    """A controller that says F = 10 A where the site file says 6 A is counted at 10 A."""
    player = Player.open(tmp_path, site_text(2, 32.0, fallback_a=6.0))
    for k in range(2):
        player.plug(k)
        player.hello(k)
    hello = player.news[1]
    assert isinstance(hello, ev.HelloReceived)
    nan = np.full(1, np.nan)
    said = Said(fallback=np.array([10.0]), fallback_idle=nan, boot_current=nan, watchdog_s=nan)
    player.news[1] = replace(hello, said=said)
    player.tick()
    player.alive.discard(0)
    for _ in range(60):
        decision = player.tick()
    assert decision.worst[0] == 10.0
    assert decision.ceiling[1] == pytest.approx(22.0, abs=1e-4)
    assert any("says fallback 10" in alarm for alarm in decision.alarms)


def test_an_untrusted_controller_gets_nothing_however_it_asks(tmp_path: Path) -> None:
    """R4: after a hello with an absurd epoch neither stamps nor wants bring a grant; what it reported is counted."""
    player = Player.open(tmp_path, site_text(2, 32.0))
    for k in range(2):
        player.plug(k)
    player.hello(0, highest_epoch=2**50, ceiling=20.0, remaining_s=5.0)
    player.hello(1)
    for _ in range(60):
        decision = player.tick(ev.FreshWanted(evse=np.array([0])))
        assert 0 not in decision.raised.evse
        assert 0 not in decision.lowered.evse
    assert decision.worst[0] == 20.0
    assert decision.ceiling[1] == pytest.approx(12.0, abs=1e-4)
    player.hello(0)
    for _ in range(10):
        decision = player.tick()
    assert decision.ceiling == pytest.approx(np.array([16.0, 16.0]), abs=1e-4)
