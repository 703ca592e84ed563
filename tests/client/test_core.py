"""The controller's half of the leases, story by story; the numbered ones broke earlier versions of the rules."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from powerd.client import ControllerCore, EvseConfig, Memory, Refusal
from powerd.v1 import controller_service_pb2 as pb
from tests.client.daemon_side import ME, beat, controller, grants, hello, renewal, take


def whys(core: ControllerCore) -> list[Refusal]:
    return [refused.why for refused in core.refused]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"evse_id": ""}, "evse_id"),
        ({"fallback": math.nan}, "e: fallback must be 0 or more"),
        ({"fallback_idle": -3.0}, "e: fallback_idle must be 0 or more"),
        ({"boot_ceiling": math.inf}, "e: boot_ceiling must be 0 or more"),
        ({"watchdog_s": -1.0}, "e: watchdog_s must be 0 or more"),
    ],
)
def test_a_mistake_in_the_description_of_a_post_is_told(wrong: dict[str, Any], told: str) -> None:
    """It would be handed to the charger at once, long before powerd could refuse it."""
    with pytest.raises(ValueError, match=told):
        EvseConfig(**({"evse_id": "e"} | wrong))


def test_a_controller_has_each_of_its_posts_once() -> None:
    """Two of one id would write to one charger by turns."""
    with pytest.raises(ValueError, match="evses: 'a' more than once"):
        ControllerCore("c", [EvseConfig(evse_id=name) for name in ("a", "b", "a")], incarnation=ME)


def test_the_lease_runs_from_the_echoed_stamp() -> None:
    """A grant that took 10 s to arrive is good for 5 s more, not for 15."""
    core = controller()
    stamp = hello(core, 100.0)
    (write,) = core.receive(grants((1, 1), {0: 16.0}, stamp), 110.0)
    assert write.valid_until_s == 115.0
    assert core.next_expiry_s() == 115.0


@pytest.mark.parametrize("stopped", [False, True])
def test_the_fallback_of_the_car_before_settles_no_unplugging(stopped: bool) -> None:
    """It was on its way to a slow post as the car left; the idle order, or the stop, is still to come.

    Were the unplugging told then, powerd would lend on what the next car may draw.
    """
    (core,) = [ControllerCore("c", [EvseConfig(evse_id="e", fallback=16.0)], incarnation=ME)]
    take(core, core.start(), 0.0)
    core.hello(1.0)
    core.plug(0, True, 1.5)
    core.report(2.0)
    take(core, core.receive(grants((1, 1), {0: 32.0}, 2.0), 2.5), 2.6)
    (fallback,) = core.expire(17.0)
    core.report(17.1)
    stop = core.receive(grants((1, 2), {0: 0.0}, 17.1, latched=(0,)), 17.15) if stopped else ()
    idle = core.plug(0, False, 17.2)
    core.applied(fallback, 17.4)
    assert not core.report(17.5).report.plugged
    assert core.hello(17.6).hello.evses[0].unsettled
    take(core, (*stop, *idle), 17.7)
    assert list(core.report(17.8).report.plugged) == [False]
    assert core.in_force == (0.0,)


def test_a_write_after_its_deadline_is_not_acked() -> None:
    """Trace 2: a process that was stopped for 60 s between check and write acks nothing, and falls back."""
    core = controller()
    stamp = hello(core, 100.0)
    (write,) = core.receive(grants((1, 1), {0: 16.0}, stamp), 101.0)
    assert not core.applied(write, 161.0)
    (end,) = core.expire(161.0)
    core.applied(end, 161.0)
    assert core.in_force == (0.0, 0.0)
    assert not core.report(161.0).report.applied


def test_a_buffered_grant_does_not_live_after_a_reboot() -> None:
    """Traces 4 and 5: a grant for the process before is refused, however live its stamp looks on the new clock."""
    before = controller(incarnation=5)
    stamp = hello(before, 30.0)
    old = grants((3, 900), {0: 32.0}, stamp, incarnation=5)
    after = controller(incarnation=6)
    hello(after, 31.0)
    assert after.receive(old, 31.0) == ()
    assert whys(after) == [Refusal.FOREIGN_INCARNATION]


def test_a_grant_in_flight_is_not_for_the_next_car() -> None:
    """Trace 6: car unplugs, next car plugs in, the first car's grant arrives; all within one instant of the clock."""
    core = controller()
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    stamp = beat(core, 100.0)
    take(core, core.plug(0, False, 100.0), 100.0)
    core.plug(0, True, 100.0)
    assert core.receive(grants((1, 1), {0: 32.0}, stamp), 100.0) == ()
    assert whys(core) == [Refusal.BEFORE_PLUG]
    (write,) = core.receive(grants((1, 2), {0: 8.0}, beat(core, 100.0)), 100.0)
    assert write.ceiling == 8.0


def test_unplugging_voids_the_lease() -> None:
    """The ceiling goes to the idle fallback at once, what is applied late is not acked, and no renewal revives it."""
    core = controller(idle=1.0)
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    stamp = beat(core, 100.0)
    (write,) = core.receive(grants((1, 1), {0: 32.0}, stamp), 100.0)
    (idle,) = core.plug(0, False, 101.0)
    assert (idle.ceiling, idle.valid_until_s) == (1.0, math.inf)
    assert not core.applied(write, 101.0)
    core.applied(idle, 101.0)
    assert core.receive(renewal((1, 2), beat(core, 102.0), 1), 102.0) == ()
    assert set(whys(core)) == {Refusal.NO_LEASE}
    assert core.in_force[0] == 1.0


def test_the_fallback_waits_for_a_grant_that_knew_of_the_car() -> None:
    """Trace 7: before powerd has reserved the fallback for this plug-in, silence means the idle fallback."""
    core = controller(count=1, fallback=6.0, idle=0.0)
    stamp = hello(core, 100.0)
    take(core, core.receive(grants((1, 1), {0: 0.0}, stamp), 100.0), 100.0)
    core.plug(0, True, 101.0)
    (end,) = core.expire(116.0)
    assert end.ceiling == 0.0
    core.applied(end, 116.0)
    take(core, core.receive(grants((1, 2), {0: 16.0}, beat(core, 117.0)), 117.0), 117.0)
    (end,) = core.expire(132.5)
    assert end.ceiling == 6.0


def test_a_renewal_does_not_extend_what_it_cannot_mean() -> None:
    """Trace 8: after a lost message a renewal extends nothing, and every EVSE asks for a fresh grant."""
    core = controller()
    stamp = hello(core, 100.0)
    take(core, core.receive(grants((1, 1), {0: 32.0, 1: 32.0}, stamp), 100.0), 100.0)
    # (1, 2) with a lower ceiling is lost on the way.
    assert core.receive(renewal((1, 3), beat(core, 104.0), 2), 104.0) == ()
    assert whys(core) == [Refusal.MISSED_MESSAGE]
    assert list(core.report(104.0).report.want_index) == [0, 1]
    assert core.next_expiry_s() == 115.0


@pytest.mark.parametrize("parses", [True, False])
def test_a_damaged_message_counts_as_a_lost_one(parses: bool) -> None:
    """A Grants message that cannot be read leaves a gap that the next renewal finds."""
    core = controller()
    stamp = hello(core, 100.0)
    take(core, core.receive(grants((1, 1), {0: 32.0, 1: 32.0}, stamp), 100.0), 100.0)
    damaged = grants((1, 2), {0: 8.0}, stamp)
    damaged.grants.ceiling.append(9.0)
    assert core.receive(damaged if parses else None, 101.0) == ()
    assert whys(core) == [Refusal.MALFORMED]
    assert core.receive(renewal((1, 3), beat(core, 104.0), 2), 104.0) == ()
    assert whys(core) == [Refusal.MISSED_MESSAGE]


def test_a_renewal_takes_only_what_the_actuator_took() -> None:
    """An EVSE whose last grant is still on its way to the actuator is not renewed but asked for."""
    core = controller()
    stamp = hello(core, 100.0)
    first, _ = core.receive(grants((1, 1), {0: 32.0, 1: 16.0}, stamp), 100.0)
    core.applied(first, 100.0)
    (renewed,) = core.receive(renewal((1, 2), beat(core, 104.0), 1), 104.0)
    assert (renewed.index, renewed.ceiling, renewed.valid_until_s) == (0, 32.0, 119.0)
    core.applied(renewed, 104.0)
    report = core.report(104.0).report
    assert [(list(a.index), a.all) for a in report.applied] == [([0], False)]
    assert list(report.want_index) == [1]


def test_a_renewal_that_everybody_took_is_acked_with_one_word() -> None:
    """`all` is said only where every EVSE of the stream took it."""
    core = controller()
    stamp = hello(core, 100.0)
    take(core, core.receive(grants((1, 1), {0: 32.0, 1: 16.0}, stamp), 100.0), 100.0)
    echo = beat(core, 104.0)
    first, second = core.receive(renewal((1, 2), echo, 1), 104.0)
    core.applied(first, 104.0)
    assert not core.report(104.0).report.applied[0].all
    core.applied(second, 104.0)
    take(core, core.receive(renewal((1, 3), beat(core, 105.0), 2), 105.0), 105.0)
    (*_, last) = core.report(105.0).report.applied
    assert (last.seq, last.all, list(last.index)) == (3, True, [])


def test_a_stop_does_not_end_by_itself() -> None:
    """Trace 10: a latched 0 outlives its lease, an unplug, a renewal's absence, and ends by a newer unlatched grant."""
    core = controller(count=1)
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    take(core, core.receive(grants((1, 1), {0: 16.0}, beat(core, 100.0)), 100.0), 100.0)
    take(core, core.receive(grants((1, 2), {0: 0.0}, beat(core, 101.0), latched=(0,)), 101.0), 101.0)
    assert core.expire(500.0) == ()
    assert core.plug(0, False, 501.0) == ()
    core.plug(0, True, 502.0)
    assert core.in_force == (0.0,)
    assert core.memory.latched == {"e0"}
    take(core, core.receive(grants((1, 3), {0: 10.0}, beat(core, 503.0)), 503.0), 503.0)
    assert core.in_force == (10.0,)
    assert core.memory.latched == frozenset()


def test_a_stop_survives_the_process() -> None:
    """What ``memory`` kept holds the post at 0, whatever its idle fallback, and says so in the hello."""
    kept = Memory(highest_epoch=4, latched=frozenset({"e0"}))
    core = controller(count=2, idle=3.0, incarnation=9, memory=kept)
    assert core.in_force == (0.0, 3.0)
    said = core.hello(10.0).hello
    assert [state.latched for state in said.evses] == [True, False]
    assert said.highest_epoch == 4


def test_a_stop_is_in_force_once_the_post_has_taken_it() -> None:
    """A post that does not answer would go from the lease before to its fallback; one that restarts does what it likes;
    a newer grant may have reached it before anybody says so. The hello says `latched` in none of these.
    """
    core = controller(count=1, fallback=16.0)

    def told() -> bool:
        return core.hello(100.0).hello.evses[0].latched

    (lease,) = core.receive(grants((1, 1), {0: 16.0}, hello(core, 100.0)), 100.0)
    (stop,) = core.receive(grants((1, 2), {0: 0.0}, hello(core, 100.0), latched=(0,)), 100.0)
    core.applied(lease, 100.0)
    assert not told()
    core.applied(stop, 100.0)
    assert told()
    assert core.restarted(0) == (stop,)
    assert not told()
    core.applied(stop, 100.0)
    assert told()
    core.receive(grants((1, 3), {0: 16.0}, hello(core, 100.0)), 100.0)
    assert not told()
    (again,) = core.receive(grants((1, 4), {0: 0.0}, hello(core, 100.0), latched=(0,)), 100.0)
    core.applied(stop, 100.0)  # the older one: the grant between them is still on its way
    assert not told()
    core.applied(again, 100.0)
    assert told()


def test_a_post_that_is_switched_under_a_stop_stands_at_a_zero_that_is_none() -> None:
    """Before its contactor moves it is told 0, which ends as the lease does: the stop is in force after that again."""
    core = controller(count=1, switches=True)
    (stop,) = core.receive(grants((1, 1), {0: 0.0}, hello(core, 100.0), latched=(0,)), 100.0)
    core.switching(0)
    core.switched(0, one_phase=False)
    core.applied(stop, 100.0)
    (other,) = core.receive(grants((1, 2), {0: 0.0}, hello(core, 100.0), latched=(0,), one_phase=(0,)), 100.0)
    core.switching(0)
    assert not core.hello(101.0).hello.evses[0].latched
    core.switched(0, one_phase=True)
    core.applied(other, 102.0)
    assert core.hello(103.0).hello.evses[0].latched


def test_a_stop_is_acked_even_if_the_car_has_left() -> None:
    """Unplugging voids leases, not stops: the operator must see that this post has obeyed."""
    core = controller(count=1)
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    (stop,) = core.receive(grants((1, 1), {0: 0.0}, beat(core, 100.0), latched=(0,)), 100.0)
    assert core.plug(0, False, 100.5) == ()
    assert core.applied(stop, 101.0)


def test_the_next_car_waits_until_the_post_has_taken_the_stop() -> None:
    """The car is swapped while the post still offers 32: nothing of that is told before it stands at 0."""
    core = controller(count=1)
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    take(core, core.receive(grants((1, 1), {0: 32.0}, beat(core, 100.0)), 100.0), 100.0)
    (stop,) = core.receive(grants((1, 2), {0: 0.0}, beat(core, 101.0), latched=(0,)), 101.0)
    core.plug(0, False, 102.0)
    core.plug(0, True, 103.0)
    assert not core.report(104.0).report.plug_index
    assert core.hello(105.0).hello.evses[0].unsettled
    assert core.receive(grants((1, 3), {0: 32.0}, beat(core, 106.0)), 106.0) == ()
    assert whys(core) == [Refusal.UNSETTLED]
    assert core.applied(stop, 107.0)
    told = core.report(108.0).report
    assert (list(told.plugged), list(told.plug_boottime_s), list(told.want_index)) == ([True], [107.0], [0])
    assert [(ack.seq, list(ack.ceiling)) for ack in told.applied] == [(2, [0.0])]


def test_a_car_that_was_found_there_is_told_as_such_also_when_its_post_has_settled() -> None:
    """Its plug has not changed since the process started: powerd goes on with its session. One that came is told with
    its time, and so is the next one.
    """
    evses = [EvseConfig(evse_id="e0"), EvseConfig(evse_id="e1")]
    core = ControllerCore("c", evses, incarnation=7, found=["e0"])
    orders = core.start()
    assert core.plug(0, True, 100.0) == ()  # it is there already
    core.plug(1, True, 100.0)
    told = core.hello(101.0).hello.evses
    assert [state.plug_boottime_s for state in told] == [0.0, 100.0]
    assert all(state.plugged and state.unsettled for state in told)
    take(core, orders, 102.0)
    settled = core.report(103.0).report
    assert (list(settled.plug_index), list(settled.plug_boottime_s)) == ([0, 1], [0.0, pytest.approx(102.0)])
    old = grants((1, 1), {0: 16.0}, 101.0, incarnation=7)  # decided before its post's first order was taken
    assert core.receive(old, 103.0) == ()
    assert whys(core) == [Refusal.BEFORE_PLUG]
    take(core, core.plug(0, False, 104.0), 104.0)
    core.plug(0, True, 105.0)
    assert list(core.report(106.0).report.plug_boottime_s) == [105.0]


def test_a_car_that_was_found_and_left_before_its_post_settled_is_no_longer_there() -> None:
    """Whoever stands there afterwards has come, also where the first hello has told of the one that was found."""
    core = ControllerCore("c", [EvseConfig(evse_id="e0")], incarnation=7, found=["e0"])
    core.start()
    hello(core, 100.0)
    (idle,) = core.plug(0, False, 101.0)
    core.plug(0, True, 102.0)
    core.applied(idle, 103.0)
    told = core.report(104.0).report
    assert (list(told.plugged), list(told.plug_boottime_s)) == ([True], [103.0])


def test_a_car_is_found_at_an_evse_of_the_controller() -> None:
    """A name that is none, or a text for a list of names, is told at once: the car's session would end."""
    for found in (["e0", "e7"], "e0"):
        with pytest.raises(ValueError, match=r"found: ('e7'|'0', 'e'):"):
            ControllerCore("c", [EvseConfig(evse_id="e0")], incarnation=7, found=found)


def test_an_old_leader_is_not_heard() -> None:
    """Once epoch 3 has granted anything to anybody, epoch 2 grants nothing to nobody."""
    core = controller()
    stamp = hello(core, 100.0)
    core.receive(grants((3, 1), {0: 8.0}, stamp), 100.0)
    assert core.receive(grants((2, 999), {1: 32.0}, stamp), 100.0) == ()
    assert whys(core) == [Refusal.OLD_EPOCH]
    assert core.hello(101.0).hello.highest_epoch == 3


def test_the_hello_says_what_is_in_force() -> None:
    """After a reconnect: last applied grant, ceiling, what is left of its lease, and the plug."""
    core = controller()
    stamp = hello(core, 100.0)
    core.plug(0, True, 99.0)  # a clock read before the stamp: told later than it
    echo = beat(core, 101.0)
    take(core, core.receive(grants((1, 7), {0: 12.0}, echo), 102.0), 102.0)
    state = core.hello(106.0).hello.evses[0]
    assert stamp < state.plug_boottime_s <= echo
    assert (state.epoch, state.seq, state.applied_ceiling, state.plugged) == (1, 7, 12.0, True)
    assert state.remaining_ttl_s == pytest.approx(10.0)
    core.expire(120.0)
    assert core.hello(120.0).hello.evses[0].remaining_ttl_s == 0.0


def test_the_hello_says_what_was_accepted_and_not_yet_taken() -> None:
    """Silence would now lead to the fallback, though the post has taken nothing: a daemon without state has to know."""
    core = controller(count=1, fallback=6.0)
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    (write,) = core.receive(grants((1, 7), {0: 16.0}, beat(core, 101.0)), 102.0)
    state = core.hello(103.0).hello.evses[0]
    assert (state.epoch, state.seq, state.applied_ceiling, state.remaining_ttl_s) == (1, 7, 0.0, 0.0)
    (end,) = core.expire(write.valid_until_s)
    assert end.ceiling == 6.0


def test_the_hello_says_nothing_of_a_grant_from_before_the_car() -> None:
    """It has opened no fallback for this car: named, powerd would have to reserve one that nobody goes to."""
    core = controller(count=1, fallback=6.0)
    stamp = hello(core, 100.0)
    take(core, core.receive(grants((1, 7), {0: 0.0}, stamp), 101.0), 101.0)
    assert core.hello(102.0).hello.evses[0].seq == 7
    core.plug(0, True, 103.0)
    state = core.hello(104.0).hello.evses[0]
    assert (state.epoch, state.seq, state.plugged) == (0, 0, True)


def test_reports_hold_news_only_once() -> None:
    """Measurements and plugs go as deltas; a new stream tells all measurements again."""
    core = controller()
    hello(core, 100.0)
    core.plug(1, True, 100.0)
    core.measure(0, (1.0, 2.0, 3.0))
    first = core.report(101.0).report
    assert (list(first.plug_index), list(first.measured_index), list(first.measured)) == ([1], [0], [1.0, 2.0, 3.0])
    core.measure(0, (1.0, 2.0, 3.0))
    second = core.report(102.0).report
    assert not second.plug_index
    assert not second.measured_index
    hello(core, 103.0)
    assert list(core.report(103.0).report.measured_index) == [0]


def test_the_reading_of_a_car_that_left_is_not_told_again() -> None:
    """Not with the news of its leaving, not after a new hello; the next car's first one is news though it is equal."""
    core = controller()
    hello(core, 100.0)
    core.plug(0, True, 100.0)
    core.measure(0, (15.8, 15.8, 15.8))
    core.report(101.0)
    core.measure(0, (15.9, 15.9, 15.9))
    core.plug(0, False, 102.0)
    assert not core.report(103.0).report.measured_index
    hello(core, 104.0)
    assert not core.report(104.0).report.measured_index
    core.plug(0, True, 105.0)
    core.measure(0, (15.9, 15.9, 15.9))
    assert list(core.report(106.0).report.measured) == [15.9] * 3


@pytest.mark.parametrize("seconds", [0, -3, 10**15])
def test_a_welcome_that_says_no_pause_between_reports_is_taken_without_one(seconds: int) -> None:
    """A pause of 0, or longer than a clock counts, is none: reports go on each second, as before the welcome."""
    core = controller()
    hello(core, 100.0)
    welcome = pb.ConnectResponse(welcome=pb.Welcome(report_within=Duration(seconds=seconds)))
    assert core.receive(welcome, 100.0) == ()
    assert core.report_due_s() == 101.0


def test_a_report_is_due_at_once_for_news_and_else_as_the_welcome_says() -> None:
    """A quarter of the lease between heartbeats; a plug, an ack or a want cannot wait."""
    core = controller()
    hello(core, 100.0)
    welcome = grants((1, 1), {}, 100.0)
    welcome.welcome.report_within.FromMilliseconds(3750)
    core.receive(welcome, 100.0)
    assert core.next_deadline_s() == 103.75
    core.plug(0, True, 101.0)
    assert core.next_deadline_s() == 0.0
    beat(core, 101.0)
    assert core.report_due_s() == 104.75


def test_an_incarnation_of_zero_is_no_incarnation() -> None:
    """0 is what silence looks like on the wire: an integrator who forgot it is told at once."""
    with pytest.raises(ValueError, match="incarnation"):
        ControllerCore("c", [EvseConfig(evse_id="a")], incarnation=0)


@pytest.mark.parametrize("ceiling", [math.nan, math.inf, -1.0])
def test_what_cannot_be_a_ceiling_is_refused(ceiling: float) -> None:
    """Not a number, unbounded and negative ceilings, whoever sent them."""
    core = controller()
    assert core.receive(grants((1, 1), {0: ceiling}, hello(core, 1.0)), 1.0) == ()
    assert whys(core) == [Refusal.MALFORMED]


def test_what_cannot_be_a_message_is_refused() -> None:
    """A stop above 0, an EVSE twice or beyond the hello, no seq, no lease length."""
    core = controller()
    stamp = hello(core, 1.0)
    twice = grants((1, 1), {0: 1.0}, stamp)
    twice.grants.index.append(0)
    twice.grants.ceiling.append(2.0)
    messages = [
        twice,
        grants((1, 1), {0: 1.0}, stamp, latched=(0,)),
        grants((1, 1), {0: 1.0}, stamp, latched=(1,)),
        grants((1, 1), {2: 1.0}, stamp),
        grants((1, 1), {-1: 1.0}, stamp),
        grants((1, 0), {0: 1.0}, stamp),
        grants((1, 1), {0: 1.0}, stamp, ttl_s=0.0),
        grants((1, 1), {0: 1.0}, stamp, ttl_s=1e15),
        renewal((1, 1), stamp, 0, ttl_s=2.0**62),
        grants((1, 1), {0: 1.0}, math.nan),
        renewal((0, 1), stamp, 0),
    ]
    for message in messages:
        assert core.receive(message, 1.0) == ()
        assert whys(core) == [Refusal.MALFORMED]


def test_a_grant_that_answers_a_stamp_not_yet_sent_is_refused() -> None:
    """Its lease would last longer than the daemon counts with."""
    core = controller()
    stamp = hello(core, 100.0)
    assert core.receive(grants((1, 1), {0: 8.0}, stamp + 3.0), 101.0) == ()
    assert whys(core) == [Refusal.FROM_THE_FUTURE]


def test_a_grant_that_everybody_took_is_acked_one_by_one() -> None:
    """`all` is for renewals: the ceilings of a Grants message are always said."""
    core = controller()
    take(core, core.receive(grants((1, 1), {0: 8.0, 1: 9.0}, hello(core, 100.0)), 100.0), 100.0)
    (applied,) = core.report(100.0).report.applied
    assert (applied.all, list(applied.index), list(applied.ceiling)) == (False, [0, 1], [8.0, 9.0])


def test_one_phase_is_connected_before_it_is_acked() -> None:
    """A grant for L1 alone: the post has to be switched first, also by a process that cannot know where it stands; the
    ack and the hello say so, a renewal repeats it, and a fallback moves nothing.
    """
    core = controller(switches=True, fallback=0.0)
    stamp = hello(core, 100.0)
    one, every = core.receive(grants((1, 1), {0: 8.0, 1: 9.0}, stamp, one_phase=(0,)), 100.0)
    assert (core.must_switch(one), core.must_switch(every)) == (True, True)
    for write, one_phase in ((one, True), (every, False)):
        core.switching(write.index)
        assert core.must_switch(write)
        core.switched(write.index, one_phase=one_phase)
        assert not core.must_switch(write)
        core.applied(write, 101.0)
    (ack,) = core.report(102.0).report.applied
    assert (list(ack.index), list(ack.one_phase_index)) == ([0, 1], [0])
    again = core.receive(renewal((1, 2), beat(core, 103.0), 1), 103.0)
    assert [(write.one_phase, core.must_switch(write)) for write in again] == [(True, False), (False, False)]
    take(core, again, 103.0)
    states = core.hello(104.0).hello.evses
    assert [(state.switches_phases, state.one_phase) for state in states] == [(True, True), (True, False)]
    assert [(write.one_phase, core.must_switch(write)) for write in core.expire(200.0)] == [(None, False)] * 2


def test_a_post_that_restarts_gets_its_order_again_and_is_switched_again() -> None:
    """Its contactor may be back on three phases: the next ceiling for L1 alone must not be offered on them."""
    core = controller(count=1, switches=True, fallback=0.0)
    (one,) = core.receive(grants((1, 1), {0: 8.0}, hello(core, 100.0), one_phase=(0,)), 100.0)
    core.switching(0)
    core.switched(0, one_phase=True)
    core.applied(one, 101.0)
    assert not core.must_switch(one)
    assert core.restarted(0) == (one,)
    assert core.must_switch(one)
    state = core.hello(102.0).hello.evses[0]
    assert (state.applied_ceiling, state.remaining_ttl_s, state.one_phase) == (0.0, 0.0, False)
    take(core, core.expire(200.0), 200.0)
    (rest,) = core.restarted(0)
    assert (rest.ceiling, rest.order, core.must_switch(rest)) == (0.0, (0, 0), False)


def test_one_phase_is_refused_where_nothing_switches() -> None:
    """A post that cannot be told to would offer the ceiling on three phases: it takes nothing, and acks nothing."""
    core = controller()
    (write,) = core.receive(grants((1, 1), {0: 8.0, 1: 9.0}, hello(core, 100.0), one_phase=(0,)), 100.0)
    assert (write.index, core.must_switch(write)) == (1, False)
    assert whys(core) == [Refusal.CANNOT_SWITCH]
    assert not core.report(101.0).report.want_index
