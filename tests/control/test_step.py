"""One tick after another, as a site lives them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control import step as step_module
from powerd.control.absorb import absorb
from powerd.control.decision import Decision
from powerd.control.turns import MIN_OFF_S
from powerd.state import leases
from powerd.state.columns import replace
from powerd.state.overshoot import Overshoot
from powerd.state.snapshot import Snapshot, columns_of, reopen_snapshot
from powerd.units import ROW_TOLERANCE
from tests.control.garage import LIFE, REACTION, TTL, Player, instant, site_text


def approx(value: object) -> object:
    """Equal within 10 uA: continuous posts get what the solver found, a microampere below the limit."""
    return pytest.approx(value, abs=1e-5)


@pytest.fixture
def two(tmp_path: Path) -> Player:
    """Two posts of 32 A under 32 A, each with a controller of its own."""
    return Player.open(tmp_path, site_text(2, 32.0))


def test_a_newcomer_is_served_as_soon_as_the_incumbent_has_followed(two: Player) -> None:
    """Want then grant: the incumbent goes down at once, the newcomer up only when W has fallen (ack + reaction)."""
    two.plug(0)
    two.hello(0)
    two.hello(1)
    assert two.tick().ceiling == approx(np.array([32.0, 0.0]))
    two.tick()
    two.plug(1)
    came = two.tick()
    assert came.ceiling == approx(np.array([16.0, 0.0]))
    assert came.worst == approx(np.array([32.0, 0.0]))
    served_at = next(k for k in range(1, 30) if two.tick().ceiling[1] == approx(16.0))
    assert served_at == int(REACTION) + 1  # acked one tick after the decision, then the reaction


def test_a_silent_controller_keeps_its_share_until_its_lease_is_over(two: Player) -> None:
    """R7: nothing is lent on before E; then the others get it."""
    two.plug(0)
    two.plug(1)
    two.hello(0)
    two.hello(1)
    for _ in range(3):
        two.tick()
    two.alive.discard(0)
    last_stamp = two.now_s
    lent_at = None
    for _ in range(60):
        decision = two.tick()
        if decision.ceiling[1] > 16.5 and lent_at is None:
            lent_at = two.now_s
    assert lent_at is not None
    assert lent_at >= last_stamp + LIFE
    assert decision.ceiling[1] == approx(32.0)
    assert any("silent" in alarm for alarm in decision.alarms)


def test_fallbacks_stay_reserved_for_a_silent_controller(tmp_path: Path) -> None:
    """A silent post with F = 6 A is counted at 6 A for as long as its car is there."""
    player = Player.open(tmp_path, site_text(2, 32.0, fallback_a=6.0))
    player.plug(0)
    player.plug(1)
    player.hello(0)
    player.hello(1)
    player.tick()
    player.alive.discard(0)
    for _ in range(80):
        decision = player.tick()
    assert decision.ceiling[1] == approx(26.0)
    assert decision.worst[0] == approx(6.0)


def test_without_watchdog_a_silent_controller_keeps_its_share_for_ever(tmp_path: Path) -> None:
    """A class that cannot fall back by itself never frees current by silence."""
    player = Player.open(tmp_path, site_text(2, 64.0, watchdog=""))
    player.plug(0)
    player.plug(1)
    player.hello(0)
    player.hello(1)
    player.tick()
    player.alive.discard(0)
    for _ in range(200):
        decision = player.tick()
    assert decision.worst[0] == approx(32.0)


def test_a_restart_without_state_raises_nothing_until_every_old_lease_is_over(tmp_path: Path) -> None:
    """R3: cars go on with what hello reported; nobody gets more before E."""
    player = Player.open(tmp_path, site_text(2, 32.0), unknown_until_s=LIFE)
    player.plug(0)
    player.plug(1)
    player.hello(0, ceiling=20.0, remaining_s=10.0)
    player.hello(1, ceiling=10.0, remaining_s=10.0)
    first = player.tick()
    assert first.ceiling == approx(np.array([16.0, 10.0]))  # lowered at once, not raised
    while player.now_s < LIFE - 1:
        assert player.tick().ceiling[1] == approx(10.0)
    for _ in range(4):
        decision = player.tick()
    assert decision.ceiling == approx(np.array([16.0, 16.0]))


def test_the_living_share_what_a_silent_post_leaves(tmp_path: Path) -> None:
    """What a silent post may draw is counted before the others are made equal, not after."""
    player = Player.open(tmp_path, site_text(3, 32.0, fallback_a=6.0, controllers=3))
    for k in range(3):
        player.plug(k)
        player.hello(k)
    player.tick()
    player.alive.discard(0)
    for _ in range(80):
        decision = player.tick()
    assert decision.ceiling[1:] == approx(np.array([13.0, 13.0]))


def test_a_car_that_leaves_frees_its_current_at_once(two: Player) -> None:
    """Unplugging voids the lease: the other car is raised in the same tick."""
    two.plug(0)
    two.plug(1)
    two.hello(0)
    two.hello(1)
    two.tick()
    two.tick()
    two.plug(0, plugged=False)
    assert two.tick().ceiling == approx(np.array([0.0, 32.0]))


def test_the_first_grant_waits_until_the_fallback_fits(tmp_path: Path) -> None:
    """Any grant after a plug-in, even 0 A, makes the fallback possible: it is sent only when that fits."""
    player = Player.open(tmp_path, site_text(2, 32.0, fallback_a=10.0, controllers=1))
    player.plug(0)
    player.hello(0)
    assert player.tick().ceiling == approx(np.array([32.0, 0.0]))
    player.plug(1)
    for _ in range(int(REACTION) + 1):
        decision = player.tick()
        assert 1 not in decision.raised.evse
        assert not decision.snapshot.leases.granted[1]
        assert decision.renewal.controller.shape == (0,)
        assert decision.worst.sum() <= 32.0
    assert player.tick().ceiling == approx(np.array([16.0, 16.0]))


def test_a_reading_of_before_a_silence_says_nothing_after_it(two: Player) -> None:
    """R7: what a silent controller's post drew last is over with its lease; a hello, without readings, renews none.

    Its share is lent on, and when it is back nothing counts that nobody draws.
    """
    two.plug(0)
    two.hello(0)
    two.hello(1)
    for _ in range(3):
        two.tick()
    two.tick(two.draw({0: 32.0}))
    two.alive.discard(0)
    two.plug(1)
    for _ in range(2 * int(LIFE)):
        decision = two.tick()
    assert decision.ceiling[1] == approx(32.0)
    two.hello(0)
    decision = two.tick()
    assert decision.worst[0] == 0.0
    assert not decision.overshoots


FULL = 38.0
"""Capacity of the feeder in ``_beside_a_full_feeder`` [A]."""


def _says_hello(player: Player, incarnation: int, clock_s: float, plug_s: float) -> None:
    """The controller of EVSE 0 connects: this process, what its clock shows, and when its plug last changed."""
    player.hello(0, highest_epoch=player.snapshot.leases.epoch)
    hello = player.news.pop()
    assert isinstance(hello, ev.HelloReceived)
    player.news.append(replace(hello, incarnation=incarnation, boottime_s=clock_s, plug_boottime_s=np.array([plug_s])))


@pytest.mark.parametrize("restarted", [False, True], ids=["powerd goes on", "powerd restarted"])
@pytest.mark.parametrize(
    ("incarnation", "plug_s", "same_car"),
    [(6, 0.0, True), (6, 13.0, False), (6, 50014.0, False), (5, 50003.0, True), (5, 50013.0, False)],
)
def test_plug_times_are_compared_within_one_process(
    tmp_path: Path, incarnation: int, plug_s: float, same_car: bool, restarted: bool
) -> None:
    """Another process may have another clock: a car that it saw come is another one, however small its time; one that
    it found there goes on with its session. The same process tells of another car by a later time.
    """
    player = Player.open(tmp_path, site_text(2, 64.0))
    player.plugged.add(0)
    _says_hello(player, 5, 50004.0, 50003.0)
    player.tick()
    demand = ev.Demand(max_ceiling=8.0, priority=3)
    player.tick(ev.SessionStarted(request_id="", evse=0, session_id="anna", demand=demand))
    if restarted:
        player.snapshot = reopen_snapshot(player.snapshot, player.site.terms, instant(player.now_s))
        player.decision = None
    _says_hello(player, incarnation, 50015.0, plug_s)
    sessions = player.tick().snapshot.sessions
    assert (sessions.session_id[0] == "anna", sessions.max_ceiling[0] == 8.0) == (same_car, same_car)


def _beside_a_full_feeder(folder: Path, came_ago_s: float | None, **told: float) -> Decision:
    """What a tick makes of a hello: a car has come at EVSE 1 (None = found there) and EVSE 0 has all the rest."""
    player = Player.open(folder, site_text(2, FULL, fallback_a=8.0, idle_a=6.0))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    for _ in range(6):
        player.tick()
    assert player.snapshot.leases.acked_ceiling[0] == approx(32.0)
    player.plugged.add(1)
    player.now_s += 0.5
    player.hello(1, highest_epoch=player.snapshot.leases.epoch)
    hello = player.news.pop()
    assert isinstance(hello, ev.HelloReceived)
    came_s = 0.0 if came_ago_s is None else player.now_s - came_ago_s
    columns: dict[str, Any] = {name: np.array([value]) for name, value in told.items()}
    player.news.append(replace(hello, plug_boottime_s=np.array([came_s]), **columns))
    return player.tick(seconds=0.5)


@pytest.mark.parametrize("echo_is_older", [True, False])
def test_a_grant_from_before_the_car_opens_no_fallback(tmp_path: Path, echo_is_older: bool) -> None:
    """A hello tells of a car, and of the last grant that its post accepted: while it was idle.

    The fallback that a restart of the stream makes nobody's is not handed out where the feeder is full. Where the grant
    may have been accepted since the car came, the fallback counts.
    """
    decision = _beside_a_full_feeder(tmp_path, 0.1 if echo_is_older else 5.0, seq=1)
    assert bool(decision.snapshot.leases.granted[1]) is not echo_is_older
    if echo_is_older:
        assert decision.worst.sum() <= FULL + ROW_TOLERANCE
        assert not decision.overshoots


@pytest.mark.parametrize("saw_it_come", [True, False])
@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("ceiling", [6.0, 7.0])
def test_a_post_that_took_its_first_order_has_no_fallback_open(
    tmp_path: Path, saw_it_come: bool, settled: bool, ceiling: float
) -> None:
    """Epoch 0: the process has accepted no grant. What one before it accepted may be in force until its post has taken
    the order for an idle post; whoever stands higher than that has it from somebody.
    """
    ago_s = 5.0 if saw_it_come else None
    told = {"epoch": 0, "seq": 0, "ceiling": ceiling, "remaining_s": 0.0, "unsettled": not settled}
    decision = _beside_a_full_feeder(tmp_path, ago_s, **told)
    closed = settled and ceiling == 6.0
    book = decision.snapshot.leases
    assert bool(book.granted[1] | book.perhaps_open[1]) is not closed
    if closed:
        assert decision.worst.sum() <= FULL + ROW_TOLERANCE
        assert not decision.overshoots


def test_the_first_order_closes_the_fallback_that_another_process_had_opened(tmp_path: Path) -> None:
    """Until then it counts; then the post is at its idle fallback, and refuses what is older."""
    player = Player.open(tmp_path, site_text(2, FULL, fallback_a=8.0, idle_a=6.0))
    for evse in (0, 1):
        player.plug(evse)
        player.hello(evse)
    for _ in range(6):
        player.tick()
    assert player.snapshot.leases.granted.all()
    player.alive.discard(1)
    for _ in range(int(TTL + LIFE) + 5):
        player.tick()
    player.hello(1, highest_epoch=player.snapshot.leases.epoch)
    hello = player.news.pop()
    assert isinstance(hello, ev.HelloReceived)
    none, true = np.zeros(1, np.int64), np.ones(1, np.bool_)
    found = replace(hello, incarnation=99, unsettled=true, ceiling=np.array([6.0]), plug_boottime_s=np.zeros(1))
    player.news.append(replace(found, epoch=none, seq=none))
    assert player.tick().worst[1] == approx(8.0)
    ours = np.array([1])
    took = ev.PlugChanged(evse=ours, plugged=true, plug_boottime_s=np.zeros(1))
    heard = absorb(player.site, player.snapshot, [took], instant(player.now_s)).snapshot
    assert not heard.leases.granted[1]
    assert leases.reserve(heard.leases, player.site.terms, heard.sessions.plugged)[1] == approx(6.0)


@pytest.mark.parametrize("acked", [False, True])
@pytest.mark.parametrize("says_so", [False, True])
def test_a_stop_that_the_process_before_never_took_is_told_as_in_force_by_nobody(
    tmp_path: Path, acked: bool, says_so: bool
) -> None:
    """It was ordered while the controller was down, and released before it came back: its post is at its fallback.

    One that was acked is kept, for a process knows of a stop from its disk; unless it says that there is none.
    """
    player = Player.open(tmp_path, site_text(1, FULL, fallback_a=8.0, idle_a=6.0))
    player.plug(0)
    player.hello(0)
    for _ in range(6):
        player.tick()
    stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke")
    if not acked:
        player.alive.discard(0)
    player.tick(stop)
    player.tick()
    player.alive.discard(0)
    for _ in range(int(TTL) + 1):
        player.tick()
    player.tick(ev.StopReleased(request_id="", stop_id="s", reason="no smoke"))
    assert player.snapshot.leases.sent_latched.all()
    player.hello(0, highest_epoch=player.snapshot.leases.epoch)
    hello = player.news.pop()
    assert isinstance(hello, ev.HelloReceived)
    none, true = np.zeros(1, np.int64), np.ones(1, np.bool_)
    found = replace(hello, incarnation=99, ceiling=np.array([6.0]), plug_boottime_s=np.zeros(1), epoch=none, seq=none)
    took = ev.PlugChanged(evse=np.array([0]), plugged=true, plug_boottime_s=np.zeros(1))
    news: list[ev.Event] = [found] if says_so else [replace(found, unsettled=true), took]
    book = absorb(player.site, player.snapshot, news, instant(player.now_s)).snapshot.leases
    assert bool(book.sent_latched[0]) is (acked and not says_so)
    told = leases.in_force(book, player.site.terms, true, player.now_s)
    assert bool(told[0] >= 6.0) is not bool(book.sent_latched[0])


@pytest.mark.parametrize("by_call", [False, True])
def test_what_a_lowering_without_the_disk_took_is_not_given_back_after_a_crash(tmp_path: Path, by_call: bool) -> None:
    """The journal says 32 A each; the limit has fallen to 90 A, and all were lowered to 30 A before the crash.

    All count at 32 A until the end of their leases, EVSE 1, which is not heard of, for longest. 32 A for the other two
    would be right without it, but they say that they are at 30 A: there they stay until they fit.
    """
    before = Player.open(tmp_path, site_text(3, 96.0, controllers=3))
    for evse in range(3):
        before.plug(evse)
        before.hello(evse)
    for _ in range(6):
        before.tick()
    assert before.snapshot.leases.acked_ceiling == approx(np.full(3, 32.0))
    player = Player.open(tmp_path, site_text(3, 90.0, controllers=3))
    player.snapshot = reopen_snapshot(before.snapshot, player.site.terms, instant(before.now_s + 1.0))
    player.now_s, player.plugged = before.now_s + 1.0, {0, 1, 2}
    for evse in (0, 2):
        if by_call:
            player.news += [_call(player, evse, 30.0), ev.FreshWanted(evse=np.array([evse]))]
            player.alive.add(evse)
        else:
            player.hello(evse, highest_epoch=1, ceiling=30.0, remaining_s=10.0)
    decision = player.tick()
    assert decision.want == approx(np.array([32.0, 0.0, 32.0]))
    assert decision.raised.evse.tolist() == [0, 2]
    while decision.worst[1] > 0.0:
        assert decision.ceiling[[0, 2]] == approx(np.array([30.0, 30.0]))
        decision = player.tick()
    asked = [ev.FreshWanted(evse=np.array([0, 2]))] if by_call else []
    assert player.tick(*asked).ceiling[[0, 2]] == approx(np.array([32.0, 32.0]))


@pytest.mark.parametrize("unsettled", [True, False])
def test_a_call_of_a_post_that_took_no_order_frees_nothing(two: Player, unsettled: bool) -> None:
    """Its program has restarted, and the car has left; what the post does nobody knows until it has taken an order."""
    two.plug(0)
    two.hello(1)
    call = replace(_call(two, 0, 32.0), ack=None)
    two.tick(call, ev.FreshWanted(evse=np.array([0])))
    two.alive.add(0)
    assert two.tick().worst[0] == approx(32.0)
    gone = replace(call.plug, plugged=np.zeros(1, np.bool_))
    new = replace(call.seen, incarnation=55, boottime_s=two.now_s)
    said = replace(call, seen=new, plug=gone, unsettled=unsettled)
    decision = two.tick(said, ev.FreshWanted(evse=np.array([0])))
    assert decision.worst[0] == approx(32.0 if unsettled else 0.0)
    assert bool(decision.snapshot.sessions.plugged[0]) is unsettled
    assert (0 in decision.raised.evse.tolist()) is not unsettled


@pytest.mark.parametrize("accepted", [False, True])
def test_a_call_tells_of_a_grant_that_is_not_applied_yet(tmp_path: Path, accepted: bool) -> None:
    """Its actuator is still writing it, so that there is nothing to ack: the fallback is open all the same."""
    player = Player.open(tmp_path, site_text(2, 64.0, fallback_a=16.0))
    call = replace(_call(player, 0, 0.0), ack=None, accepted=accepted)
    state = absorb(player.site, player.snapshot, [call], instant(1.0)).snapshot
    state = replace(state, leases=replace(state.leases, granted=np.zeros(2, np.bool_)))
    again = replace(call, seen=replace(call.seen, boottime_s=2.0))
    assert bool(absorb(player.site, state, [again], instant(2.0)).snapshot.leases.granted[0]) is accepted


@pytest.mark.parametrize("by_the_guard", [False, True])
def test_who_fell_back_to_nothing_in_silence_needs_no_pause(tmp_path: Path, by_the_guard: bool) -> None:
    """powerd and its controller come back after a power cut: the car was told nothing, and charges at once.

    So it does where the guard decides the tick of the hello, and names it 0, as it stands.
    """
    player = Player.open(tmp_path, site_text(1, 64.0))
    player.plug(0)
    player.hello(0)
    for _ in range(60):
        player.tick()
    player.snapshot = reopen_snapshot(player.snapshot, player.site.terms, instant(player.now_s + 30.0))
    player.now_s, player.decision = player.now_s + 30.0, None
    player.hello(0, highest_epoch=1)
    player.tick(*([ev.SolveSkipped()] if by_the_guard else []))
    player.tick()
    assert player.tick().ceiling[0] == approx(32.0)


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("highest_said", [True, False])
def test_a_hello_that_names_a_grant_that_we_never_sent_has_another_leader(
    two: Player, highest_said: bool, ahead: int
) -> None:
    """Of our number or a higher one: we lead with a still higher one and wait, though this controller has had grants of
    ours; also where it leaves out the highest epoch that it knows.
    """
    two.plug(0)
    two.hello(0)
    two.hello(1)
    for _ in range(3):
        two.tick()
    epoch = two.snapshot.leases.epoch
    two.hello(0, highest_epoch=epoch, ceiling=32.0, remaining_s=10.0)
    said = two.news.pop()
    assert isinstance(said, ev.HelloReceived)
    other = replace(said, epoch=np.array([epoch + ahead]), seq=np.array([5000]))
    two.news.append(replace(other, highest_epoch=epoch + ahead if highest_said else 0))
    assert two.tick().snapshot.leases.epoch == epoch + ahead + 1


def _call(player: Player, evse: int, ceiling: float) -> ev.CallReceived:
    """A single call of the process that had a grant of epoch 1 before."""
    ours, seen = np.array([evse]), ev.StampSeen(evse=np.array([evse]), incarnation=100 + evse, boottime_s=player.now_s)
    plug_s = player.snapshot.leases.plug_boottime_s[ours]
    return ev.CallReceived(
        seen=seen,
        plug=ev.PlugChanged(evse=ours, plugged=np.ones(1, np.bool_), plug_boottime_s=plug_s),
        ack=ev.Acked(evse=ours, epoch=1, seq=5, ceiling=np.array([ceiling])),
    )


def test_to_ask_anew_is_no_greeting(two: Player) -> None:
    """Each single call asks; were its post greeted by it, no unchanged reading of a stream's post would be a sample.

    And a hello greets also whom it calls unsettled, who is named nothing yet.
    """
    two.hello(0)
    two.hello(1)
    two.tick()
    asked = absorb(two.site, two.snapshot, [ev.FreshWanted(evse=np.array([0]))], instant(two.now_s))
    assert (asked.fresh.tolist(), asked.greeted.tolist()) == ([True, False], [False, False])
    two.hello(1)
    hello = two.news.pop()
    assert isinstance(hello, ev.HelloReceived)
    unsettled = replace(hello, unsettled=np.ones(1, np.bool_))
    heard = absorb(two.site, two.snapshot, [unsettled], instant(two.now_s))
    assert (heard.fresh.tolist(), heard.greeted.tolist()) == ([False, False], [False, True])


def test_a_reading_of_a_single_call_counts_for_that_call(two: Player) -> None:
    """The next one says again what is measured, or that nothing is; a stream says only what has changed."""
    reading = ev.Measured(evse=np.array([0]), drawn=np.full((1, 3), 20.0))
    two.plug(0)
    two.tick(_call(two, 0, 0.0), reading)
    assert not two.snapshot.drawn_stands[0]
    two.hello(0)
    two.tick(reading)
    assert two.snapshot.drawn_stands[0]
    two.tick(ev.StreamClosed(evse=np.array([0])))
    two.tick(replace(_call(two, 0, 0.0), seen=ev.StampSeen(evse=np.array([0]), incarnation=7, boottime_s=two.now_s)))
    assert not two.snapshot.drawn_stands[0]


def test_a_reading_of_a_stream_does_not_stand_for_calls(tmp_path: Path) -> None:
    """Who goes over to single calls says with each what is measured, or that nothing is: that is no reading of 0 A.

    The car of the first post had not begun when its stream ended. Its calls tell of no reading; it stays as wanted as
    the other, which it was taken to leave half of the feeder to.
    """
    player = Player.open(tmp_path, site_text(2, 20.0))
    player.plugged = {0, 1}
    for c in (0, 1):
        player.hello(c)
    for _ in range(8):
        player.tick(player.draw({0: 0.0, 1: 16.0}))
    player.alive.discard(0)
    player.tick(ev.StreamClosed(evse=np.array([0])))
    ack: list[ev.Event] = []
    for second in range(1, 420):
        assert player.decision is not None
        for batch in (player.decision.lowered, player.decision.raised):
            at = np.flatnonzero(batch.evse == 0)
            if at.shape[0]:
                ack = [
                    ev.Acked(evse=np.array([0]), epoch=batch.epoch, seq=batch.seq, ceiling=batch.ceiling[at]),
                ]
        stamp = ev.StampSeen(evse=np.array([0]), incarnation=100, boottime_s=player.now_s + 1.0)
        call = [stamp, *ack, ev.FreshWanted(evse=np.array([0]))] if second % 5 == 0 else []
        decision = player.tick(*call, player.draw({1: float(player.decision.ceiling[1])}))
    assert decision.ceiling == approx(10.0)
    assert decision.snapshot.usage.usable[0] == np.inf


def test_what_another_process_read_does_not_stand(two: Player) -> None:
    """A hello of the same process leaves its last reading standing; that of another one has read nothing yet."""
    reading = ev.Measured(evse=np.array([0]), drawn=np.full((1, 3), 20.0))
    two.hello(0)
    two.tick(reading)
    two.hello(0)
    two.tick()
    assert two.snapshot.drawn_stands[0]
    two.hello(0)
    hello = two.news.pop()
    assert isinstance(hello, ev.HelloReceived)
    two.tick(replace(hello, incarnation=hello.incarnation + 1))
    assert not two.snapshot.drawn_stands[0]
    two.tick(reading)
    assert two.snapshot.drawn_stands[0]


@pytest.mark.parametrize("by_call", [False, True])
def test_a_stop_opens_no_fallback(tmp_path: Path, by_call: bool) -> None:
    """A car waits beside a full feeder and is stopped; its controller says that it accepted that."""
    player = Player.open(tmp_path, site_text(2, 32.0, fallback_a=16.0))
    player.plug(1)
    player.hello(0)
    player.hello(1)
    player.tick(ev.SessionStarted(request_id="", evse=1, session_id="first", demand=ev.Demand(priority=9)))
    for _ in range(8):
        player.tick()
    player.plug(0)
    assert player.tick().ceiling == approx(np.array([0.0, 32.0]))
    if by_call:
        player.tick(ev.StreamClosed(evse=np.array([0])))
    stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke")
    player.tick(stop, ev.FreshWanted(evse=np.array([0])))
    book = player.snapshot.leases
    assert book.sent_latched[0]
    said: ev.Event = replace(_call(player, 0, 0.0), ack=None, accepted=True)
    if not by_call:
        player.hello(0, highest_epoch=1)
        hello = player.news.pop()
        assert isinstance(hello, ev.HelloReceived)
        said = replace(hello, epoch=np.ones(1, np.int64), seq=book.sent_seq[:1])
    for _ in range(5):
        decision = player.tick(said)
        assert decision.worst == approx(np.array([0.0, 32.0]))
        assert not decision.overshoots
    assert not player.snapshot.leases.granted[0]


@pytest.mark.parametrize("streams", [False, True])
def test_an_idle_post_is_told_its_idle_fallback_and_nothing_else(tmp_path: Path, streams: bool) -> None:
    """It is reserved anyway; also beside a car of the same controller that waits for its first grant."""
    player = Player.open(tmp_path, site_text(3, 36.0, fallback_a=12.0, idle_a=6.0))
    player.plug(1)
    player.hello(0)
    player.hello(1)
    for _ in range(8):
        player.tick()
    player.alive.discard(1)
    player.plug(0)
    told = set()
    for _ in range(int(TTL)):
        asks = ev.StreamClosed(evse=np.array([0, 2])), ev.FreshWanted(evse=np.array([2]))
        decision = player.tick() if streams else player.tick(*asks)
        batches = [batch for batch in (decision.lowered, decision.raised) if 2 in batch.evse]
        told |= {float(batch.ceiling[batch.evse == 2][0]) for batch in batches}
        assert decision.ceiling[2] == approx(6.0)
        assert not decision.snapshot.leases.granted[0]
    assert told == {6.0}


def test_what_was_heard_is_not_changed_by_what_is_granted_then(two: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overshoots are judged by both: a grant that looked like news would move a bound that was declared."""
    seen: list[Snapshot] = []

    def spy(*state: Any) -> tuple[Overshoot, ...]:
        seen.append(state[2])
        return ()

    kept: list[dict[str, np.ndarray]] = []

    def decide(site: object, before: object, state: Snapshot, *rest: Any) -> Decision:
        kept.append({name: column.copy() for name, column in columns_of(state).items()})
        return decided(site, before, state, *rest)  # type: ignore[arg-type]

    decided = step_module._decide
    monkeypatch.setattr(step_module, "_overshoots", spy)
    monkeypatch.setattr(step_module, "_decide", decide)
    two.plug(0)
    two.hello(0)
    two.hello(1)
    for _ in range(12):
        two.tick()
    for heard, was in zip(seen, kept, strict=True):
        for name, column in columns_of(heard).items():
            np.testing.assert_array_equal(column, was[name], err_msg=name)


def test_a_grant_whose_ack_was_of_the_epoch_before_is_named_again(tmp_path: Path) -> None:
    """A post without watchdog: what another leader may have granted it, its rating, ends with the ack of a named grant.

    The last one was named under the old epoch, so its ack says nothing; a RenewAll of the new one goes on with it.
    """
    player = Player.open(tmp_path, site_text(2, 64.0, watchdog=""))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    demand = ev.Demand(max_ceiling=20.0)
    player.tick(ev.SessionStarted(request_id="", evse=0, session_id="small", demand=demand))
    for _ in range(int(REACTION) + 4):
        player.tick()
    assert player.snapshot.leases.acked_ceiling[0] == approx(20.0)
    player.tick(ev.SessionUpdated(request_id="", session_id="small", demand=replace(demand, max_ceiling=16.0)))
    player.hello(1, highest_epoch=5)
    assert player.tick().worst[0] == approx(32.0)
    for _ in range(int(TTL / 4 + REACTION) + 4):
        decision = player.tick()
    assert decision.worst[0] == approx(16.0)


def test_a_meter_that_speaks_seldom_makes_no_car_disobedient(tmp_path: Path) -> None:
    """A reading of a time of its own says nothing of later: a car that is lowered right after it has not ignored it."""
    player = Player.open(tmp_path, site_text(3, 32.0))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    for _ in range(10):
        player.tick()
    player.tick(replace(player.draw({0: 31.8}), window_s=1.0))
    player.plug(1)
    for _ in range(90):
        decision = player.tick()
        assert not decision.snapshot.leases.defiant.any()
    assert decision.ceiling == approx(np.array([16.0, 16.0, 0.0]))
    assert decision.snapshot.leases.reaction_s[0] == REACTION


@pytest.mark.parametrize("late", [0, 1, 3])
def test_a_reading_of_a_past_window_says_nothing_of_an_empty_post(two: Player, late: int) -> None:
    """The last one of a car may come with its unplugging or after it: the other car has the feeder, and no alarm."""
    two.plug(0)
    two.hello(0)
    two.hello(1)
    two.tick()
    for _ in range(10):
        two.tick(two.draw({0: 31.0}))
    two.plug(0, False)
    two.plug(1)
    for second in range(10):
        last = [replace(two.draw({0: 31.0}), window_s=10.0)] if second == late else []
        decision = two.tick(*last)
        assert decision.worst.sum() <= 32.0 + ROW_TOLERANCE
        assert not decision.overshoots
    assert decision.ceiling[1] == approx(32.0)


def test_a_hello_that_was_long_under_way_raises_nobody(two: Player) -> None:
    """It speaks of a lease of ours that is over by now: the post is at its fallback, and another has its current."""
    two.plug(0)
    two.hello(0)
    two.hello(1)
    for _ in range(3):
        two.tick()
    seq = int(two.snapshot.leases.acked_seq[0])
    assert two.snapshot.leases.acked_ceiling[0] == approx(32.0)
    two.alive.discard(0)
    two.plug(1)
    for _ in range(2 * int(LIFE)):
        two.tick()
    assert two.snapshot.leases.sent_ceiling[1] == approx(32.0)
    two.hello(0, highest_epoch=two.snapshot.leases.epoch, ceiling=32.0, remaining_s=10.0)
    late = two.news.pop()
    assert isinstance(late, ev.HelloReceived)
    two.news.append(replace(late, seq=np.array([seq])))
    for _ in range(4):
        decision = two.tick()
        assert decision.worst.sum() <= 32.0 + ROW_TOLERANCE
        assert not decision.overshoots
        assert decision.raised.ceiling[decision.raised.evse == 0].tolist() in ([], [0.0])


def test_a_lowering_opens_no_fallback(tmp_path: Path) -> None:
    """A car that waits at its idle fallback is told nothing until its fallback, which a grant makes possible, fits."""
    player = Player.open(tmp_path, site_text(2, 22.0, fallback_a=10.0, idle_a=6.0))
    player.hello(0)
    player.hello(1)
    player.plug(1)
    for _ in range(20):
        player.tick()
    player.plug(0)
    for _ in range(20):
        decision = player.tick()
        assert decision.worst.sum() <= 22.0 + ROW_TOLERANCE
        assert not decision.overshoots
    assert decision.snapshot.leases.granted.all(), "it is served as soon as the other has made room"


def test_a_hello_that_knows_a_higher_epoch_makes_us_lead_with_a_still_higher_one(two: Player) -> None:
    """R4, and wait as without state: somebody else has granted here."""
    two.plug(0)
    two.hello(0, highest_epoch=9)
    decision = two.tick()
    assert decision.snapshot.leases.epoch == 10
    assert decision.ceiling[0] == approx(0.0)


def test_a_hello_from_a_test_bench_does_not_move_the_epoch(two: Player) -> None:
    """Trace 12: an absurd epoch is that controller's fault alone."""
    two.plug(0)
    two.plug(1)
    two.hello(0, highest_epoch=9_000_000_000_000)
    two.hello(1)
    decision = two.tick()
    assert decision.snapshot.leases.epoch == 1
    assert decision.ceiling[0] == approx(0.0)
    assert any("epoch" in alarm for alarm in decision.alarms)


def test_a_stop_is_latched_listed_until_acked_and_ends_only_by_its_release(two: Player) -> None:
    """I10: under a stop nothing is granted; the release brings the ceilings back."""
    two.plug(0)
    two.plug(1)
    two.hello(0)
    two.hello(1)
    two.tick()
    two.alive.discard(1)
    stop = ev.StopOrdered(request_id="", stop_id="s1", element="F1", evse=np.array([0, 1]), reason="smoke")
    decision = two.tick(stop)
    assert decision.outcomes[-1] == ev.Done("s1", (0, 1))
    assert decision.lowered.latched.all()
    assert not decision.lowered.ceiling.any()
    for _ in range(60):
        decision = two.tick()
        assert decision.ceiling[0] == approx(0.0)
    book = decision.snapshot.leases
    acked = book.sent_latched & (book.acked_seq >= book.explicit_seq)
    assert acked.tolist() == [True, False]
    two.alive.add(1)
    two.tick(ev.StopReleased(request_id="", stop_id="s1", reason="checked"))
    for _ in range(int(MIN_OFF_S)):  # the stop switched the cars off: they stay off for a while
        decision = two.tick()
    assert decision.ceiling == approx(np.array([16.0, 16.0]))


def test_a_stop_that_all_have_acked_stays_so_when_leases_are_named_again(tmp_path: Path) -> None:
    """A car that comes under a stop keeps its controller from RenewAlls: what is named instead is no other stop."""
    player = Player.open(tmp_path, site_text(4, 64.0))
    for k in range(2):
        player.plug(k)
    for c in range(2):
        player.hello(c)
    player.tick()
    everybody = np.arange(4)
    player.tick(ev.StopOrdered(request_id="", stop_id="s", element="F1", evse=everybody, reason="smoke"))
    player.plug(2)
    for _ in range(3):
        player.tick()
    named = 0
    for _ in range(2 * int(TTL)):
        decision = player.tick()
        named += int(decision.raised.latched.any())
        assert not leases.unacked(decision.snapshot.leases).any()
    assert named


@pytest.mark.parametrize("epoch", [9, 0])
def test_a_stop_that_a_hello_does_not_know_has_to_be_acked_anew(tmp_path: Path, epoch: int) -> None:
    """I10: acked once, then the post follows another leader (of epoch 9), or a process that keeps nothing speaks for
    it: the stop is said again, and counts as heard only when it is acked again.
    """
    player = Player.open(tmp_path, site_text(1, 63.0, controllers=1, fallback_a=8.0, idle_a=8.0))
    player.plug(0)
    player.hello(0)
    for _ in range(12):
        player.tick()
    one = np.array([0])
    player.tick(ev.StopOrdered(request_id="", stop_id="s", element="grid", evse=one, reason="smoke"))
    for _ in range(3):
        decision = player.tick()
    assert not leases.unacked(decision.snapshot.leases).any()
    player.alive.clear()
    said = ev.HelloReceived(
        evse=one,
        incarnation=700,
        boottime_s=1.0,
        highest_epoch=max(epoch, 1),
        plugged=np.array([True]),
        plug_boottime_s=np.zeros(1),
        epoch=np.array([epoch]),
        seq=np.array([3 if epoch else 0]),
        ceiling=np.array([16.0 if epoch else 8.0]),
        remaining_s=np.array([12.0 if epoch else 0.0]),
        latched=np.array([False]),
        unsettled=np.array([not epoch]),
    )
    player.tick(said)
    for k in range(3):
        news = ev.StampSeen(evse=one, incarnation=700, boottime_s=2.0 + k)
        plug = ev.PlugChanged(evse=one, plugged=np.array([True]), plug_boottime_s=np.zeros(1))
        decision = player.tick(news, *((plug,) if k == 0 else ()))
        assert leases.unacked(decision.snapshot.leases).all()
        assert any(batch.latched.any() for batch in (decision.lowered, decision.raised))


def test_a_car_that_needs_more_than_the_post_waits_rather_than_get_too_little(two: Player) -> None:
    """I8: no ceiling strictly between 0 and the car's own minimum."""
    two.plug(0)
    two.plug(1)
    two.hello(0)
    two.hello(1)
    demand = ev.Demand(min_ceiling=20.0)
    two.tick(ev.SessionStarted(request_id="", evse=0, session_id="a", demand=demand))
    for _ in range(20):
        decision = two.tick()
        assert decision.ceiling[0] == approx(0.0) or decision.ceiling[0] >= 20.0


@pytest.mark.parametrize(
    ("kind", "rating"),
    [("phases: '3', max_current_a: 32", 32.0), ("phases: '3', max_current_a: 32, pilot_step_a: 1", 32.0),
     ("current: dc, max_power_kw: 22", 22.0)],
)  # fmt: skip
def test_no_word_of_a_driver_lifts_a_post_above_its_rating(tmp_path: Path, kind: str, rating: float) -> None:
    """A car that takes more gets what the post is built for, in a session of today and in one that was kept."""
    text = site_text(1, 400.0, controllers=1).replace("phases: '3', max_current_a: 32, fallback_a: 0.0", kind)
    player = Player.open(tmp_path, text)
    player.plug(0)
    player.hello(0)
    player.tick()
    player.tick(ev.SessionStarted(request_id="", evse=0, session_id="s", demand=ev.Demand(max_ceiling=2.0 * rating)))
    kept = replace(player.snapshot.sessions, max_ceiling=np.array([2.0 * rating]))
    for snapshot in (player.snapshot, replace(player.snapshot, sessions=kept)):
        player.snapshot = snapshot
        highest = max(player.tick().worst[0] for _ in range(5))
        assert highest == approx(rating)


def test_a_higher_class_is_served_first(two: Player) -> None:
    """Strict priority: the higher class takes all it can use."""
    two.plug(0)
    two.plug(1)
    two.hello(0)
    two.hello(1)
    two.tick(ev.SessionStarted(request_id="", evse=1, session_id="vip", demand=ev.Demand(priority=5)))
    for _ in range(20):
        decision = two.tick()
    assert decision.ceiling == approx(np.array([0.0, 32.0]))


def test_unused_current_is_lent_on_and_given_back_within_ticks(two: Player) -> None:
    """A car that draws less frees the rest after settling; when it presses again its want rises in the same tick."""
    two.plug(0)
    two.plug(1)
    two.hello(0)
    two.hello(1)
    decision = two.tick()
    for _ in range(90):
        decision = two.tick(two.draw({0: 7.0, 1: float(decision.ceiling[1])}))
    assert decision.ceiling[0] == approx(9.0)
    assert decision.ceiling[1] == approx(23.0)
    decision = two.tick(two.draw({0: 9.0, 1: 23.0}))
    decision = two.tick()
    assert decision.want[0] == approx(16.0)


def test_a_full_car_gives_way_and_is_asked_again_later(tmp_path: Path) -> None:
    """A car that draws nothing is served last, gets its minimum again after an hour, and all once it draws."""
    player = Player.open(tmp_path, site_text(2, 16.0))
    for k in range(2):
        player.plug(k)
        player.hello(k)
    decision = player.tick()
    wakes_at = None
    for _ in range(450):
        awake = player.now_s > 3000
        first = float(decision.ceiling[0]) if awake else 0.0
        decision = player.tick(player.draw({0: first, 1: float(decision.ceiling[1])}), seconds=10.0)
        if 400 < player.now_s < 3000:
            assert decision.ceiling == approx(np.array([0.0, 16.0]))
        if awake and wakes_at is None and decision.ceiling[0] > 0:
            wakes_at = player.now_s
    assert wakes_at is not None
    assert wakes_at <= 3600 + 400
    assert decision.ceiling == approx(np.array([8.0, 8.0]))


def test_a_settled_site_is_left_alone(tmp_path: Path) -> None:
    """While nothing changes, nobody is granted another ceiling; leases are only renewed."""
    player = Player.open(tmp_path, site_text(7, 100.0))
    for k in range(7):
        player.plug(k)
    player.hello(0)
    player.hello(1)
    for _ in range(20):
        player.tick()
    for _ in range(60):
        decision = player.tick()
        assert decision.lowered.evse.shape == (0,)
        assert decision.raised.evse.shape == (0,)


def test_energy_is_counted_from_the_readings(two: Player) -> None:
    """10 A on three phases at 400 V for an hour are 6.93 kWh."""
    two.plug(0)
    two.hello(0)
    two.tick(two.draw({0: 10.0}))
    for _ in range(360):
        decision = two.tick(seconds=10.0)
    assert decision.snapshot.sessions.energy_kwh[0] == pytest.approx(10 * 400 * 3**0.5 / 1000, rel=1e-9)


@pytest.mark.parametrize("asleep", [False, True], ids=["its controller is silent", "the machine sleeps"])
def test_no_energy_is_counted_from_a_reading_of_before(two: Player, asleep: bool) -> None:
    """The post fell back when its lease ended; for how long the last reading went on nobody knows, so a ttl at most."""
    two.plug(0)
    two.hello(0)
    two.tick()
    two.tick(two.draw({0: 16.0}))
    if asleep:
        two.tick(seconds=36_000.0)
    else:
        two.alive.discard(0)
        for _ in range(600):
            two.tick()
    within_a_ttl_kwh = 16 * 400 * 3**0.5 / 1000 * 15.0 / 3600
    assert two.snapshot.sessions.energy_kwh[0] == pytest.approx(within_a_ttl_kwh, rel=1e-9)


def test_a_session_that_is_started_again_is_what_the_second_start_says(two: Player) -> None:
    """Nothing of the first demand is left; an update replaces only what it says, and may lower a minimum again."""
    before = two.snapshot.sessions
    two.tick(
        ev.SessionStarted(request_id="", evse=0, session_id="a", demand=ev.Demand(min_ceiling=10.0, priority=3)),
        ev.SessionUpdated(request_id="", session_id="a", demand=ev.Demand(min_ceiling=8.0)),
    )
    assert (two.snapshot.sessions.min_ceiling[0], two.snapshot.sessions.priority[0]) == (8.0, 3)
    two.tick(ev.SessionStarted(request_id="", evse=0, session_id="b", demand=ev.Demand()))
    after = two.snapshot.sessions
    assert after.session_id[0] == "b"
    assert (after.min_ceiling[0], after.priority[0]) == (before.min_ceiling[0], 0)


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (ev.Demand(max_ceiling=8.0), ev.Demand(min_ceiling=10.0), "demand.min_current_a"),
        (ev.Demand(min_ceiling=10.0), ev.Demand(max_ceiling=8.0), "demand.max_current_a"),
    ],
)
def test_a_bound_that_does_not_go_with_the_one_said_before_is_refused(
    two: Player, first: ev.Demand, second: ev.Demand, field: str
) -> None:
    """Said in two calls as in one: a car with a minimum above its maximum would never charge."""
    two.tick(ev.SessionStarted(request_id="", evse=0, session_id="a", demand=first))
    refused = two.tick(ev.SessionUpdated(request_id="", session_id="a", demand=second)).outcomes[-1]
    assert isinstance(refused, ev.Refused)
    assert refused.field == field
    both = ev.Demand(min_ceiling=10.0, max_ceiling=12.0)
    done = two.tick(ev.SessionUpdated(request_id="", session_id="a", demand=both)).outcomes[-1]
    assert done == ev.Done("a", (0,))


def test_requests_answer_what_does_not_fit_and_change_nothing(two: Player) -> None:
    """Outcomes name the field and the expectation."""
    two.plug(0)
    two.hello(0)
    two.tick(ev.SessionStarted(request_id="r", evse=0, session_id="a", demand=ev.Demand()))
    before = two.snapshot.sessions
    decision = two.tick(
        ev.SessionStarted(request_id="", evse=1, session_id="a", demand=ev.Demand()),
        ev.SessionUpdated(request_id="", session_id="nope", demand=ev.Demand()),
        ev.SessionUpdated(request_id="", session_id="a", demand=ev.Demand(max_ceiling=3.0)),
        ev.StopReleased(request_id="", stop_id="nope", reason="x"),
        ev.SessionStarted(request_id="r", evse=0, session_id="a", demand=ev.Demand()),
    )
    taken, unknown, small, no_stop, again = decision.outcomes[-5:]
    assert isinstance(taken, ev.Refused)
    assert taken.field == "session_id"
    assert isinstance(unknown, ev.NotFound)
    assert isinstance(small, ev.Refused)
    assert isinstance(no_stop, ev.NotFound)
    assert again == ev.Done("a", (0,))
    assert decision.snapshot.sessions.session_id == before.session_id


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["plug", "unplug", "silence", "hello", "tick", "tick", "tick", "wait", "demand", "stop", "free"]
        ),
        st.integers(0, 5),
        st.floats(0.2, 12.0),
    ),
    max_size=40,
)


def play(player: Player, actions: list[tuple[str, int, float]]) -> list[Decision]:
    """Runs a story; returns its decisions."""
    decisions = []
    for what, which, size in actions:
        event: list[ev.Event] = []
        if what in ("plug", "unplug"):
            player.plug(which, what == "plug")
        elif what == "silence":
            player.alive.discard(which % 2)
        elif what == "hello":
            player.hello(which % 2)
        elif what == "demand":
            demand = ev.Demand(min_ceiling=6.0 + size, priority=which % 3, weight=size)
            event = [ev.SessionStarted(request_id="", evse=which, session_id=f"s{which}", demand=demand)]
        elif what == "stop":
            event = [
                ev.StopOrdered(request_id="", stop_id=f"x{which}", element="e", evse=np.array([which]), reason="r")
            ]
        elif what == "free":
            event = [ev.StopReleased(request_id="", stop_id=f"x{which}", reason="r")]
        decisions.append(player.tick(*event, seconds=size if what == "wait" else 1.0))
    return decisions


@settings(max_examples=100, deadline=None)
@given(actions=ACTIONS, limit=st.sampled_from([10.0, 37.0, 70.0]), fallback=st.sampled_from([0.0, 6.0, 10.0]))
def test_no_story_makes_w_exceed_a_limit(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, float]], limit: float, fallback: float
) -> None:
    """With a constant limit that covers the fallbacks: sum W <= limit at every tick, so no car can break it."""
    limit = max(limit, 6 * fallback)
    player = Player.open(tmp_path_factory.mktemp("s"), site_text(6, limit, fallback_a=fallback))
    player.hello(0)
    player.hello(1)
    player.tick()
    last_seq = 0
    for decision in play(player, actions):
        assert decision.worst.sum() <= limit + ROW_TOLERANCE
        assert decision.ceiling.sum() <= limit + ROW_TOLERANCE
        minimum = decision.snapshot.sessions.min_ceiling
        between = (decision.ceiling > 0) & (decision.ceiling < np.minimum(minimum, 6.0) - ROW_TOLERANCE)
        assert not between.any()
        assert decision.renewal.seq >= last_seq
        last_seq = decision.renewal.seq


@settings(max_examples=20, deadline=None)
@given(actions=ACTIONS)
def test_a_step_leaves_the_snapshot_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, float]]
) -> None:
    """The past is never changed: every column of the old snapshot is as it was, byte for byte."""
    player = Player.open(tmp_path_factory.mktemp("s"), site_text(6, 37.0))
    player.hello(0)
    player.hello(1)
    for action in actions:
        before = player.snapshot
        kept = {path: column.tobytes() for path, column in columns_of(before).items()}
        play(player, [action])
        assert {path: column.tobytes() for path, column in columns_of(before).items()} == kept


@settings(max_examples=20, deadline=None)
@given(actions=ACTIONS)
def test_the_step_depends_on_its_arguments_alone(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, float]]
) -> None:
    """The same story twice, in two steppers, gives bit-equal decisions."""
    stories = []
    for _ in range(2):
        player = Player.open(tmp_path_factory.mktemp("s"), site_text(6, 37.0))
        player.hello(0)
        player.hello(1)
        stories.append(play(player, actions))
    for one, other in zip(*stories, strict=True):
        for own in fields(Decision):
            value, twin = getattr(one, own.name), getattr(other, own.name)
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, twin, equal_nan=True), own.name
        assert one.outcomes == other.outcomes


def test_what_a_tick_leaves_as_it_was_is_the_same_column(two: Player) -> None:
    """Not an equal one: whoever keeps snapshots, as the journal does, need not look at it.

    Except for what was told in the tick, a reading or an ack: that is written where it stands, also where it is no
    news.
    """
    told = {"drawn", *(f"leases/{name}" for name in ("lowered_at_s", "hold_until_s", "hold_ceiling", "acked_ceiling"))}
    for post in (0, 1):
        two.plug(post)
        two.hello(post)
    for _ in range(10):
        two.tick(two.draw({0: 12.0, 1: 12.0}))
    for _ in range(10):
        before = columns_of(two.snapshot)
        after = columns_of(two.tick(two.draw({0: 12.0, 1: 12.0})).snapshot)
        equal = {path for path, column in before.items() if column.tobytes() == after[path].tobytes()}
        assert equal - told <= {path for path, column in before.items() if after[path] is column}
