"""Each row of the table of degraded modes, triggered on the real step: what is granted, what is told, how it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.allocation.certificate import NOTHING_TO_DECIDE
from powerd.allocation.steps import no_steps, pack_steps
from powerd.allocation.user_program import UserProgram
from powerd.control import events as ev
from powerd.control import failsafe
from powerd.control.absorb import is_put_off
from powerd.control.failsafe import TABLE
from powerd.state.impaired import Trigger, unimpaired
from tests.control.garage import TTL, Player, site_text
from tests.control.test_step import approx


@pytest.fixture
def two(tmp_path: Path) -> Player:
    """Two posts of 32 A under 32 A, a car at the first."""
    player = Player.open(tmp_path, site_text(2, 32.0))
    player.plug(0)
    player.hello(0)
    player.hello(1)
    player.tick()
    player.tick()
    return player


def free_16_a(player: Player) -> None:
    """A second car takes half, and leaves again: the first could now rise from 16 A."""
    player.plug(1)
    for _ in range(12):
        player.tick()
    player.plug(1, plugged=False)


def test_every_trigger_has_one_row_and_only_the_failed_disk_stops_serving() -> None:
    """The table is complete."""
    assert [row.trigger for row in TABLE] == list(Trigger)
    assert [row.trigger for row in TABLE if not row.serving] == [Trigger.DISK_FAILED]


def test_the_guard_asks_nobody_to_report_what_it_was_called_for(tmp_path: Path) -> None:
    """An operator's envelope is obeyed at once, by the guard alone: that it lowers ceilings is no defect of ours."""
    player = Player.open(tmp_path, site_text(3, 100.0) + "grid_connection: {import_limit_kw: 60}\n")
    player.plugged = {0, 1, 2}
    for c in (0, 1):
        player.hello(c)
    for _ in range(10):
        before = player.tick()
    envelope = ev.EnvelopeSet(
        request_id="", envelope_id="e", source="dso", reason="", import_limit_kw=30.0, start_time=None, end_time=None,
        heartbeat_s=np.inf,
    )  # fmt: skip
    decision = player.tick(ev.SolveSkipped(), envelope, seconds=0.3)
    assert (decision.ceiling < before.ceiling - 10.0).all()
    assert not any("report" in alarm for alarm in decision.alarms)


def test_a_late_solver_holds_every_ceiling_and_its_answer_counts_later(two: Player) -> None:
    """Guard only: nothing rises, leases are renewed, a stop goes through; the late want is granted when it comes."""
    free_16_a(two)
    held = two.tick(ev.TroubleBegan(trigger=Trigger.SOLVER_LATE), ev.SolveSkipped())
    assert held.modes == (Trigger.SOLVER_LATE,)
    assert held.ceiling[0] == approx(16.0)
    assert any("solver late: guard only" in alarm for alarm in held.alarms)
    renewed = [two.tick(ev.SolveSkipped()).renewal.controller.size for _ in range(8)]
    assert sum(renewed) >= 2
    late = two.tick(ev.SolveSkipped(want=np.array([24.0, 8.0])), ev.TroubleEnded(trigger=Trigger.SOLVER_LATE))
    assert late.ceiling == approx(np.array([24.0, 0.0]))  # nobody takes at the second post
    assert late.modes == ()
    assert two.tick().ceiling[0] == approx(32.0)


def test_a_late_answer_gives_nobody_more_than_he_takes_by_now(two: Player) -> None:
    """It was found for a car that has left; the one that came says 10 A, and gets 10 A."""
    late = two.decision.want.copy() if two.decision else np.zeros(2)
    two.plug(0, plugged=False)
    two.tick(ev.TroubleBegan(trigger=Trigger.SOLVER_LATE), ev.SolveSkipped())
    two.plug(0)
    said = ev.SessionStarted(request_id="", evse=0, session_id="new", demand=ev.Demand(max_ceiling=10.0))
    two.tick(said, ev.SolveSkipped())
    granted = two.tick(ev.SolveSkipped(want=late), ev.TroubleEnded(trigger=Trigger.SOLVER_LATE))
    assert late[0] == approx(32.0)
    assert granted.ceiling[0] == approx(10.0)


def test_a_late_answer_ends_no_pause(two: Player) -> None:
    """A car that was switched off since it was asked for stays off for its time."""
    late = two.decision.want.copy() if two.decision else np.zeros(2)
    two.tick(ev.TroubleBegan(trigger=Trigger.SOLVER_LATE), ev.SolveSkipped(want=np.zeros(2)))
    two.tick(ev.SolveSkipped())
    two.tick(ev.SolveSkipped())
    assert late[0] == approx(32.0)
    granted = two.tick(ev.SolveSkipped(want=late), ev.TroubleEnded(trigger=Trigger.SOLVER_LATE))
    assert granted.ceiling[0] == 0.0


def test_the_guard_alone_hears_a_driver_who_takes_less(two: Player) -> None:
    """His word lowers at once, also while a solve is late."""
    session_id = two.snapshot.sessions.session_id[0]
    less = ev.SessionUpdated(request_id="", session_id=session_id, demand=ev.Demand(max_ceiling=10.0))
    assert two.tick(less, ev.SolveSkipped()).ceiling[0] == approx(10.0)


def test_the_guard_alone_obeys_stops_and_limits(two: Player) -> None:
    """A skipped solve is no reason to grant what a stop or a limit forbids."""
    stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke")
    stopped = two.tick(stop, ev.SolveSkipped())
    assert stopped.lowered.ceiling.tolist() == [0.0]
    assert stopped.lowered.latched.tolist() == [True]


def test_the_guard_alone_asks_no_term_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop does not wait for a program of cvxpy, which may be running in the solve that is late."""
    (tmp_path / "mine.py").write_text("def terms(site):\n    return [site.ceiling[0] <= 20]\n", encoding="utf-8")
    player = Player.open(tmp_path, site_text(2, 32.0) + "terms: [mine.py]\n")
    asked, enter = [0], UserProgram.enter

    def counted(*arguments: Any) -> Any:
        asked[0] += 1
        return enter(*arguments)

    monkeypatch.setattr(UserProgram, "enter", counted)
    for k in (0, 1):
        player.plug(k)
        player.hello(k)
    player.tick()
    assert asked != [0]
    asked[0] = 0
    stop = ev.StopOrdered(request_id="", stop_id="s", element="P0", evse=np.array([0]), reason="smoke")
    assert player.tick(stop, ev.SolveSkipped()).lowered.latched.tolist() == [True]
    assert asked == [0]


def test_a_solver_that_proves_nothing_leaves_the_guards_shares(two: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out unproved is told, and kept within every limit; the next proof ends it."""
    allocate = two.stepper._allocator.allocate
    unproved = replace(NOTHING_TO_DECIDE, path="guard")

    def failing(*arguments: object) -> object:
        return replace(allocate(*arguments), certificate=unproved)  # type: ignore[arg-type]

    monkeypatch.setattr(two.stepper._allocator, "allocate", failing)
    decision = two.tick()
    assert decision.modes == (Trigger.SOLVER_FAILED,)
    assert decision.worst.sum() <= 32.0 + 1e-6
    monkeypatch.undo()
    assert two.tick().modes == ()


def test_a_silent_controller_is_counted_and_told(two: Player) -> None:
    """Nothing new to its EVSEs until it speaks again."""
    two.alive.discard(0)
    told = [two.tick() for _ in range(int(TTL) + 2)][-1]
    assert told.modes == (Trigger.CONTROLLER_SILENT,)
    assert 0 not in told.raised.evse
    two.alive.add(0)
    assert two.tick().modes == ()


def test_a_stepped_wall_clock_changes_no_lease(two: Player) -> None:
    """NTP moves the wall clock by an hour: the ceilings stay, the mode lasts one tick, in both directions."""
    for hours in (1, -1):
        now = replace(two.tick().now)
        stepped = replace(now, utc=now.utc + timedelta(hours=hours), boottime_s=now.boottime_s + 1.0)
        decision = two.stepper.step(two.snapshot, [], stepped)
        assert decision.modes == (Trigger.CLOCK_STEPPED,)
        assert decision.ceiling[0] == approx(32.0)
        two.snapshot, two.now_s = decision.snapshot, stepped.boottime_s
        after = replace(stepped, utc=stepped.utc + timedelta(seconds=1), boottime_s=stepped.boottime_s + 1.0)
        calm = two.stepper.step(two.snapshot, [], after)
        assert calm.modes == ()
        back = two.stepper.step(calm.snapshot, [], replace(now, boottime_s=after.boottime_s + 1.0))
        two.snapshot, two.now_s = back.snapshot, after.boottime_s + 1.0


def test_after_a_sleep_nobody_is_granted_before_he_spoke(two: Player) -> None:
    """The machine slept through a whole lease: what was said before is too old to be echoed; then all is as before."""
    two.alive.clear()
    slept = two.tick(seconds=TTL + 1.0)
    assert Trigger.SUSPENDED in slept.modes
    assert (slept.lowered.evse.size, slept.raised.evse.size, slept.renewal.controller.size) == (0, 0, 0)
    two.alive.update({0, 1})
    awake = two.tick()
    assert awake.modes == ()
    assert awake.ceiling[0] == approx(32.0)


def test_a_full_inbox_is_told_and_changes_nothing_else(two: Player) -> None:
    """What got in is decided as ever."""
    free_16_a(two)
    full = two.tick(ev.TroubleBegan(trigger=Trigger.OVERLOAD))
    assert full.modes == (Trigger.OVERLOAD,)
    assert full.ceiling[0] == approx(32.0)
    assert two.tick(ev.TroubleEnded(trigger=Trigger.OVERLOAD)).modes == ()


@pytest.mark.parametrize("trigger", [Trigger.DISK_SLOW, Trigger.DISK_FAILED])
def test_without_the_disk_nothing_rises_and_nothing_is_beyond_a_restart(two: Player, trigger: Trigger) -> None:
    """What the book holds above the durable W goes down to it; a stop goes through; the disk back, raises go on."""
    free_16_a(two)
    cap = np.array([10.0, 0.0])
    held = two.tick(ev.TroubleBegan(trigger=trigger, cap=cap))
    assert held.modes == (trigger,)
    assert held.ceiling == approx(cap)
    for _ in range(20):
        held = two.tick()
        assert held.ceiling == approx(cap)
    assert held.worst == approx(cap)
    back = two.tick(ev.TroubleEnded(trigger=trigger))
    assert back.modes == ()
    assert back.ceiling[0] == approx(32.0)


def test_the_cap_ends_with_the_last_trouble_of_the_disk(two: Player) -> None:
    """Slow and failed may overlap."""
    cap = np.array([10.0, 0.0])
    two.tick(ev.TroubleBegan(trigger=Trigger.DISK_SLOW, cap=cap), ev.TroubleBegan(trigger=Trigger.DISK_FAILED, cap=cap))
    assert two.tick(ev.TroubleEnded(trigger=Trigger.DISK_FAILED)).ceiling[0] == approx(10.0)
    assert two.tick(ev.TroubleEnded(trigger=Trigger.DISK_SLOW)).ceiling[0] == approx(32.0)


@settings(max_examples=200, deadline=None)
@given(
    triggers=st.lists(st.sampled_from(list(Trigger)), max_size=4, unique=True),
    numbers=st.lists(st.tuples(*[st.floats(0, 64)] * 3), min_size=1, max_size=6),
)
def test_a_mode_only_takes_away(triggers: list[Trigger], numbers: list[tuple[float, float, float]]) -> None:
    """held <= want always; where raises are held: <= what is in force and <= the cap, and nothing below the minimum."""
    want, in_force, cap = np.array(numbers).T
    impaired = replace(unimpaired(len(numbers)), triggers=tuple(triggers), cap=cap)
    minimum = np.full(len(numbers), 6.0)
    held = failsafe.held(impaired, want, in_force, minimum, no_steps(len(numbers)))
    assert np.all(held <= want)
    if any(not failsafe.BY_TRIGGER[t].raises for t in triggers):
        assert np.all(held <= in_force)
        assert np.all(held <= cap)
        changed = held < np.minimum(want, in_force)
        assert np.all((held[changed] == 0) | (held[changed] >= 6.0))


def test_a_capped_ceiling_is_a_step_of_the_post(two: Player) -> None:
    """W is any number; a pilot is not."""
    posts = replace(two.site.electrical.posts, pilot_steps=(np.array([0.0, 6.0, 10.0]), np.array([])))
    impaired = replace(unimpaired(2), triggers=(Trigger.DISK_FAILED,), cap=np.array([9.5, 9.5]))
    full = np.array([10.0, 10.0])
    held = failsafe.held(impaired, full, full, np.array([6.0, 6.0]), pack_steps(posts))
    assert held.tolist() == [6.0, 9.5]


def _stop(player: Player, evse: int) -> bool:
    """A latched 0 for it leaves with this tick, in our first epoch."""
    order = ev.StopOrdered(request_id="", stop_id="s", element="", evse=np.array([evse]), reason="smoke")
    lowered = player.tick(order).lowered
    return (lowered.epoch, lowered.evse.tolist(), lowered.latched.tolist()) == (1, [evse], [True])


@pytest.mark.parametrize("trigger", [Trigger.DISK_SLOW, Trigger.DISK_FAILED])
def test_a_higher_epoch_waits_for_the_disk_and_nobody_else_waits_for_it(two: Player, trigger: Trigger) -> None:
    """R4: under an epoch that the disk cannot take nothing could leave, not even a stop. So ours stays; who named
    the higher one gets no grants, nothing rises beside what another leader may have granted, and its next hello is
    followed once the disk is well.
    """
    two.plug(1)
    for _ in range(12):
        two.tick()
    two.tick(ev.TroubleBegan(trigger=trigger, cap=np.full(2, 16.0)))
    two.hello(1, highest_epoch=7)
    put_off = two.tick()
    assert put_off.snapshot.leases.epoch == 1
    assert put_off.worst.tolist() == [32.0, 32.0]
    assert any("c1 claims an epoch" in alarm for alarm in put_off.alarms)
    assert {c for _ in range(int(TTL / 2)) for c in two.tick().renewal.controller.tolist()} == {0}
    assert _stop(two, 0)
    well = two.tick(ev.TroubleEnded(trigger=trigger))
    assert well.snapshot.leases.epoch == 1
    assert 1 not in (*well.raised.evse, *well.renewal.controller)
    assert is_put_off(well.snapshot, np.array([1]), 7)
    two.hello(1, highest_epoch=7)
    followed = two.tick()
    assert followed.snapshot.leases.epoch == 8
    assert 1 in followed.raised.evse
    assert not is_put_off(followed.snapshot, np.array([1]), 7)


def test_a_call_that_names_a_higher_epoch_waits_for_the_disk_as_a_hello_does(two: Player) -> None:
    """The same for single calls: the next one after the disk is followed."""
    two.alive.discard(1)
    two.tick(ev.TroubleBegan(trigger=Trigger.DISK_FAILED, cap=np.array([32.0, 0.0])))
    put_off = two.tick(_asks(two, 7))
    assert put_off.snapshot.leases.epoch == 1
    assert put_off.worst.tolist() == [32.0, 32.0]
    assert 1 not in (*put_off.lowered.evse, *put_off.raised.evse)
    assert _stop(two, 0)
    followed = two.tick(ev.TroubleEnded(trigger=Trigger.DISK_FAILED), _asks(two, 7))
    assert followed.snapshot.leases.epoch == 8


def _asks(player: Player, highest_epoch: int) -> ev.CallReceived:
    """EVSE 1 asks without a stream."""
    one = np.array([1])
    return ev.CallReceived(
        seen=ev.StampSeen(evse=one, incarnation=9, boottime_s=player.now_s + 1.0),
        plug=ev.PlugChanged(evse=one, plugged=np.array([True]), plug_boottime_s=np.zeros(1)),
        ack=None,
        highest_epoch=highest_epoch,
    )
