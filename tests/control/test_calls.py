"""Controllers without a stream: what a process's first call, or an ack of another leader's grant, tells of a post."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.control.decision import Decision
from powerd.units import ROW_TOLERANCE
from tests.control.garage import LIFE, Player, site_text

FULL, F = 32.0, 8.0
ME = 7


def call(
    player: Player,
    order: tuple[int, int] | None = None,
    *,
    plugged: bool = True,
    came_s: float = 0.0,
    process: int = ME,
    applied: float = F,
    accepted: bool = False,
) -> ev.CallReceived:
    """EVSE 0 asks at the instant of the next tick; ``order``: the grant last applied, for this car if ``accepted``."""
    one = np.array([0])
    return ev.CallReceived(
        seen=ev.StampSeen(evse=one, incarnation=process, boottime_s=player.now_s + 1.0),
        plug=ev.PlugChanged(evse=one, plugged=np.array([plugged]), plug_boottime_s=np.array([came_s])),
        ack=None if order is None else ev.Acked(evse=one, epoch=order[0], seq=order[1], ceiling=np.array([applied])),
        accepted=accepted,
    )


def asked(player: Player, said: ev.CallReceived) -> Decision:
    """The tick that answers it."""
    return player.tick(said, ev.FreshWanted(evse=said.seen.evse))


@pytest.fixture
def beside_a_full_feeder(tmp_path: Path) -> Player:
    """The car at EVSE 1, on a stream, has all but what is reserved for EVSE 0, which was not heard of."""
    player = Player.open(tmp_path, site_text(2, FULL, fallback_a=F))
    player.plug(1)
    player.hello(1)
    for _ in range(6):
        player.tick()
    assert player.snapshot.leases.acked_ceiling[1] == pytest.approx(FULL - F)
    return player


@pytest.mark.parametrize("order", [(9, 4), (1, 5000)])
def test_a_grant_that_is_not_ours_makes_us_lead_with_a_higher_epoch(
    beside_a_full_feeder: Player, order: tuple[int, int]
) -> None:
    """Of an epoch ahead, or of ours with a seq never sent: R4, and wait as without state; its ack retires nothing."""
    player = beside_a_full_feeder
    decision = asked(player, call(player, order, came_s=1.0, accepted=True))
    book = decision.snapshot.leases
    assert book.epoch == order[0] + 1
    assert (book.acked_seq[0], book.acked_ceiling[0]) == (0, 0.0)
    assert decision.worst == pytest.approx(np.array([32.0, 32.0]))
    assert any("another leader" in alarm for alarm in decision.alarms)
    (answer,) = np.flatnonzero(decision.raised.evse == 0)
    assert (decision.raised.epoch, decision.raised.ceiling[answer]) == (order[0] + 1, pytest.approx(F))


def test_an_absurd_epoch_is_that_posts_fault_alone(beside_a_full_feeder: Player) -> None:
    """Trace 12 for single calls: no grant for it, nothing else moves, and a call that can be true ends it."""
    player = beside_a_full_feeder
    decision = asked(player, call(player, (9_000_000_000_000, 1)))
    assert decision.snapshot.leases.epoch == 1
    assert any("epoch" in alarm for alarm in decision.alarms)
    assert 0 not in (*decision.lowered.evse, *decision.raised.evse)
    assert decision.worst[0] >= F
    for _ in range(int(LIFE)):
        decision = asked(player, call(player))
    assert 0 in (*decision.lowered.evse, *decision.raised.evse)


OPENED = {
    "found there": (None, 0.0, True),
    "an earlier leader's grant": ((1, 3), 1.0, True),
    "seen to come, no grant": (None, 1.0, False),
}


@pytest.mark.parametrize(("order", "came_s", "opened"), OPENED.values(), ids=OPENED)
def test_a_car_that_another_leader_may_have_granted_to_counts_at_its_fallback(
    tmp_path: Path, order: tuple[int, int] | None, came_s: float, opened: bool
) -> None:
    """Before our own first grant, and for good: its lease of then ends in the fallback. Another has all the rest."""
    player = Player.open(tmp_path, site_text(2, FULL, fallback_a=F))
    player.plug(1)
    player.hello(1, highest_epoch=4)
    for _ in range(int(LIFE) + 6):
        player.tick()
    assert player.snapshot.leases.epoch == 5
    assert player.snapshot.leases.acked_ceiling[1] == pytest.approx(FULL - F)
    decision = player.tick(call(player, order, came_s=came_s))
    assert bool(decision.snapshot.leases.perhaps_open[0]) is opened
    assert not decision.snapshot.leases.granted[0]
    for _ in range(int(2 * LIFE)):
        decision = player.tick()
    assert bool(decision.worst[0] >= F) is opened
    assert decision.worst.sum() <= FULL + ROW_TOLERANCE


def test_our_own_grant_of_before_the_car_opens_no_fallback(tmp_path: Path) -> None:
    """It was to the idle post. Nor does one of our epoch of before, for a car that we were told of meanwhile."""
    player = Player.open(tmp_path, site_text(2, FULL, fallback_a=F))
    decision = asked(player, call(player, plugged=False))
    ours = decision.raised.epoch, decision.raised.seq
    player.plug(1)
    player.hello(1)
    for _ in range(6):
        player.tick()
    assert not fallback_counts(player.tick(call(player, ours, came_s=player.now_s)))
    came_s = float(player.snapshot.leases.plug_boottime_s[0])
    player.hello(1, highest_epoch=6)
    player.tick()
    decision = player.tick(call(player, ours, came_s=came_s))
    assert decision.snapshot.leases.epoch == 7
    assert not fallback_counts(decision)


def fallback_counts(decision: Decision) -> bool:
    """That of EVSE 0 is open, or may be."""
    book = decision.snapshot.leases
    return bool(book.granted[0] | book.perhaps_open[0])


@pytest.mark.parametrize("order", [None, (1, 3)], ids=["found there", "an earlier leader's grant"])
def test_a_fallback_that_is_only_perhaps_open_is_granted_by_r1_alone(
    tmp_path: Path, order: tuple[int, int] | None
) -> None:
    """A guess is reserved, and nobody stands on it: what another car holds is taken back before the first grant leaves.

    It was granted at once, beside a car whose lowering had just been sent: F more than the feeder carries.
    """
    player = Player.open(tmp_path, site_text(2, FULL, fallback_a=F))
    player.plug(1)
    player.hello(1, highest_epoch=4)
    asked(player, call(player, plugged=False))
    for _ in range(int(LIFE) + 6):
        asked(player, call(player, plugged=False))
    assert player.snapshot.leases.acked_ceiling[1] == pytest.approx(FULL)
    first = asked(player, call(player, order, came_s=0.0, process=ME + 1))
    assert first.worst[0] == pytest.approx(F)
    assert 0 not in (*first.lowered.evse, *first.raised.evse)
    assert 1 in first.lowered.evse
    for _ in range(8):
        decision = asked(player, call(player, order, came_s=0.0, process=ME + 1))
        named = decision.raised.evse.tolist()
        assert 0 not in named or decision.worst.sum() <= FULL + ROW_TOLERANCE
    assert 0 in named
