"""The failure path on whole sites: shed at once, switch only what fits, restore, return, and never against a rule."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from powerd.control import switch_events as sw
from powerd.control.compiled import CompiledSite, SwitchingStates, as_drawn
from powerd.control.events import Refused
from powerd.control.question import question_of
from powerd.control.switching import ROOM_S, advance
from powerd.control.topology import PICKUP_S, observe
from powerd.network.loading import ac_loading
from powerd.state.columns import put, replace
from powerd.state.snapshot import reopen_snapshot
from powerd.state.switchgear import Cause, Flag, Phase, Position
from powerd.units import Now
from tests.control.garage import compiled, instant
from tests.control.substation import Substation, model

UPSTREAM, PROTECTION = int(Flag.UPSTREAM_LOST), int(Flag.PROTECTION)
NIGHT = datetime(2026, 1, 1, tzinfo=UTC)
CRITICAL_BUSES = {"lv-a", "critical", "dc-1", "dc-2", "dc-3", "dc-4"}


@pytest.fixture
def depot() -> Substation:
    """The bus depot, every charger busy, all switches reported."""
    station = Substation.open(model("two_feeder_depot"))
    station.run(15)
    return station


def _dead(station: Substation) -> np.ndarray:
    electrical = station.player.site.electrical
    return np.isin([electrical.buses.ids[b] for b in electrical.evse_bus], sorted(CRITICAL_BUSES))


def test_a_lost_feeder_is_shed_at_once_isolated_and_fed_from_the_other(depot: Substation) -> None:
    """Grants of the dead half fall in the very tick; main-a opens, then the tie closes; nothing else is ordered."""
    depot.supply("utility-a", lost=True)
    first = depot.tick()
    assert first.path == "guard"
    assert first.ceiling[_dead(depot)].max() == 0.0
    assert first.order is None
    depot.run(30)
    assert depot.orders == [("main-a", False), ("tie", True)]
    assert depot.live() >= CRITICAL_BUSES
    last = depot.run(30)
    assert (last.ceiling[_dead(depot)] >= 5.0).all()
    assert last.snapshot.gear.phase == Phase.IDLE


def test_a_lost_transformer_is_taken_off_before_its_part_is_fed_from_the_ring() -> None:
    """S1 may come back at any moment: first its breaker opens, then the ring closes; eight car parks have a voltage."""
    campus = Substation.open(model("campus_ring"))
    campus.run(15)
    campus.branch_lost("S1", flags=UPSTREAM)
    campus.run(40)
    assert campus.orders == [("breaker-1", False), ("sw1-open", True)]
    assert campus.live() >= {f"lv-{n}" for n in (3, 5, 6, 7, 8, 9, 10, 11, 13, 14)}


def test_what_has_a_voltage_keeps_it_where_all_together_does_not_fit() -> None:
    """S2 lost: with loads at the lowest voltage one car park too many hangs on line-1-2; it is one of the dark ones."""
    campus = Substation.open(model("campus_ring"))
    campus.run(15)
    campus.branch_lost("S2", flags=UPSTREAM)
    campus.run(60)
    assert campus.orders[0] == ("breaker-2", False)
    assert campus.orders[1] in [("feed-13", False), ("feed-14", False)]
    assert campus.orders[2:] == [("sw1-open", True)]
    assert not any("not fitted" in alarm for alarm in campus.alarms)


def test_what_does_not_fit_where_it_is_drawn_is_fed_from_the_ring() -> None:
    """breaker-1 opened for want of a voltage: with the loads' pick-up line-1-2 is too small, the ring is not."""
    campus = Substation.open(model("campus_ring"))
    campus.run(15)
    campus.moves("breaker-1", closed=False, flags=UPSTREAM)
    campus.run(40)
    assert campus.orders == [("sw1-open", True)]


def test_an_order_leaves_only_when_everything_that_could_be_drawing_fits(depot: Substation) -> None:
    """R8: in the tick of the closing, W and the loads that come back fit every limit of the state after it."""
    depot.supply("utility-a", lost=True)
    for _ in range(60):
        decision = depot.tick()
        if decision.order is not None and decision.order.close:
            break
    assert decision.order is not None
    site = decision.site  # its limits hold for the tie open and closed
    assert site.state.held[depot.branch("tie")]
    flow = site.limits.limit_flow(decision.worst) + decision.uncontrolled
    assert (flow <= site.limits.capacity + 1e-6).all()
    workshop = site.electrical.loads.ids.index("workshop")
    assert site.load_factor[workshop] == 1.5


def test_a_trip_on_protection_waits_for_an_operator(depot: Substation) -> None:
    """Nothing is closed onto it for a quarter of an hour; after the release it is fed again."""
    depot.moves("main-a", closed=False, flags=PROTECTION)
    depot.run(200)
    assert depot.orders == []
    assert not depot.live() & CRITICAL_BUSES
    released = sw.ServiceChanged(
        request_id="r", kind=sw.ElementKind.BRANCH, indices=(depot.branch("main-a"),), in_service=True, reason="looked"
    )
    depot.flags[:] = 0
    depot.tick(released)
    depot.run(60)
    assert depot.orders == [("main-a", True)]
    assert depot.live() >= CRITICAL_BUSES


def test_an_unexplained_opening_waits_and_a_late_word_of_upstream_loss_frees_it(depot: Substation) -> None:
    """The relay's reason may come after the contact's position."""
    depot.moves("main-a", closed=False)
    depot.run(5)
    assert depot.orders == []
    depot.supply("utility-a", lost=True)
    depot.flags[depot.branch("main-a")] = UPSTREAM
    depot.run(60)
    assert depot.orders == [("tie", True)]


def test_a_board_that_kept_its_voltage_beside_a_fault_is_fed_from_elsewhere(depot: Substation) -> None:
    """cable-staff fails and is cleared; a minute later utility-b is lost: the board is transferred, staff stays off."""
    depot.branch_lost("cable-staff", flags=PROTECTION)
    depot.run(60)
    depot.supply("utility-b", lost=True)
    depot.run(60)
    assert depot.orders == [("main-b", False), ("tie", True)]
    assert depot.live() >= {"lv-b", "dc-5", "dc-6", "dc-7", "dc-8"}
    assert "staff" not in depot.live()


@pytest.mark.parametrize("first", ["cable-staff", "utility-b"])
def test_a_board_that_died_with_a_fault_beside_it_waits(depot: Substation, first: str) -> None:
    """The same within one incident, in either order: nobody knows where the fault is, nothing is closed onto it."""
    for name in (first, "cable-staff" if first == "utility-b" else "utility-b"):
        if name == "utility-b":
            depot.supply("utility-b", lost=True)
        else:
            depot.branch_lost("cable-staff", flags=PROTECTION)
        depot.run(3)
    depot.run(120)
    assert not any(close for _, close in depot.orders)


def test_what_is_opened_by_hand_bars_itself_alone() -> None:
    """Work in car park 3: when S1 is lost the eight others that can be are fed from the ring, and 3 stays dead."""
    campus = Substation.open(model("campus_ring"))
    campus.run(15)
    campus.tick(sw.SwitchOrdered(request_id="", branch=campus.branch("feed-3"), close=False, reason="work"))
    campus.run(20)
    campus.orders.clear()
    campus.branch_lost("S1", flags=UPSTREAM)
    campus.run(40)
    assert campus.orders == [("breaker-1", False), ("sw1-open", True)]
    assert "lv-3" not in campus.live()


def test_zero_volts_lowers_grants_and_never_switches(depot: Substation) -> None:
    """One meter that reads zero at a board: its chargers go to 0, nobody is ordered, and back."""
    bus = depot.player.site.electrical.buses.ids.index("lv-a")
    depot.outage(sw.ElementKind.BUS, bus, lost=True)
    assert depot.tick().ceiling[_dead(depot)].max() == 0.0
    depot.run(60)
    assert depot.orders == []
    depot.outage(sw.ElementKind.BUS, bus, lost=False)
    assert depot.run(215).ceiling[_dead(depot)].min() > 0.0  # after the pause that cars switched off are owed


def test_a_refusing_switch_is_planned_around(depot: Substation) -> None:
    """main-a refuses to open: the tie stays open, for utility-a is not apart; an alarm says so."""
    depot.refusing = {depot.branch("main-a")}
    depot.supply("utility-a", lost=True)
    depot.run(60)
    assert depot.orders == [("main-a", False)]
    assert any("refused" in alarm for alarm in depot.alarms)
    assert not depot.live() & CRITICAL_BUSES


def heard(station: Substation) -> sw.GearHeard:
    """The controller's heartbeat."""
    return sw.GearHeard(branch=station.switches, incarnation=7, clock_s=station.player.now_s)


def seen(station: Substation, name: str, position: Position) -> sw.SwitchesSeen:
    """A report of one switch alone by the controller."""
    return sw.SwitchesSeen(
        reporter=1,
        reporter_id="device 1",
        incarnation=7,
        clock_s=station.player.now_s,
        branch=np.array([station.branch(name)]),
        position=np.array([int(position)]),
        flags=np.zeros(1, np.int64),
    )


def test_a_plan_is_made_when_the_stream_is_back(depot: Substation) -> None:
    """The controller was away when the feeder was lost: its hello, six seconds later, lets powerd switch."""
    depot.tick(sw.GearClosed(branch=depot.switches), report=False)
    depot.supply("utility-a", lost=True)
    for _ in range(5):
        depot.tick(report=False)
    assert depot.orders == []
    depot.run(40)
    assert depot.orders == [("main-a", False), ("tie", True)]


def test_a_plan_is_made_when_a_switch_is_free_again(depot: Substation) -> None:
    """main-a was in local when the feeder was lost: remote again half a minute later, the part is fed."""
    depot.flags[depot.branch("main-a")] = int(Flag.LOCAL)
    depot.run(3)
    depot.supply("utility-a", lost=True)
    depot.run(30)
    assert depot.orders == []
    depot.flags[depot.branch("main-a")] = 0
    depot.run(40)
    assert depot.orders == [("main-a", False), ("tie", True)]


def test_a_plan_is_made_when_the_relay_says_that_it_was_no_fault(depot: Substation) -> None:
    """The contact speaks first, the relay's reason comes five seconds later and nothing else happens then."""
    depot.moves("main-a", closed=False)
    depot.run(5)
    assert depot.orders == []
    depot.flags[depot.branch("main-a")] = UPSTREAM
    depot.run(40)
    assert depot.orders == [("main-a", True)]


def test_a_plan_is_made_when_the_hour_of_operations_is_over() -> None:
    """The tie had its one operation: an hour after it the tie closes for the part that waits."""
    electrical = model("two_feeder_depot").electrical
    once = replace(electrical.operation, max_operations=np.ones_like(electrical.operation.max_operations))
    station = Substation.open(CompiledSite.of(replace(electrical, operation=once)))
    station.run(15)
    station.tick(sw.SwitchOrdered(request_id="", branch=station.branch("tie"), close=False, reason="exercise"))
    station.run(5)
    station.supply("utility-a", lost=True)
    station.run(30)
    assert ("tie", True) not in station.orders
    station.player.now_s += 3600.0
    station.run(60)
    assert station.orders[-1] == ("tie", True)
    assert station.live() >= CRITICAL_BUSES


def test_what_another_switch_forbade_for_a_moment_is_done_a_little_later(depot: Substation) -> None:
    """main-a reports an intermediate position while the tie waits for room: the tie is not to blame, and closes."""
    depot.supply("utility-a", lost=True)
    while ("main-a", False) not in depot.orders:
        depot.run(1)
    depot.tick(heard(depot), seen(depot, "main-a", Position.OPEN), report=False)
    depot.tick(heard(depot), seen(depot, "main-a", Position.UNKNOWN), report=False)
    assert any("tie is not operated" in alarm for alarm in depot.alarms)
    depot.tick(heard(depot), seen(depot, "main-a", Position.OPEN), report=False)
    depot.run(60)
    assert depot.orders == [("main-a", False), ("tie", True)]
    assert depot.live() >= CRITICAL_BUSES


def test_what_found_no_room_is_tried_again_later(depot: Substation) -> None:
    """After two minutes without room ceilings are no longer held down for the order; in ten minutes it may be asked
    again, and the switch is not to blame.
    """
    electrical, planner, tie = depot.player.site.electrical, depot.player.stepper.planner, depot.branch("tie")
    assert depot.player.decision is not None
    now = depot.player.decision.now
    since_s = now.boottime_s - ROOM_S - 1.0
    apart = put(depot.player.snapshot.gear.position, depot.branch("main-a"), int(Position.OPEN))
    gear = replace(
        depot.player.snapshot.gear, phase=int(Phase.MAKING_ROOM), steps=(tie + 1,), since_s=since_s, position=apart
    )
    gear = replace(gear, bus_live=gear.bus_live & ~np.isin(electrical.buses.ids, sorted(CRITICAL_BUSES)))
    demand = np.zeros(electrical.evse_count)
    after = advance(electrical, planner, gear, demand, lambda _: {}, now).gear
    assert after.steps == ()
    assert not after.refused.any()
    assert not after.held_down.any()
    tries = [question_of(electrical, after, demand, now.boottime_s + s).movable[tie] for s in (0.0, 599.0, 601.0)]
    assert tries == [False, False, True]


def test_a_switch_that_does_not_answer_is_held_for_both_positions(depot: Substation) -> None:
    """After the time-out its position is unknown until it is reported again."""
    depot.stuck = {depot.branch("main-a")}
    depot.supply("utility-a", lost=True)
    for _ in range(30):
        depot.tick(report=not depot.orders)
    assert depot.orders == [("main-a", False)]
    assert any("has not answered" in alarm for alarm in depot.alarms)
    assert depot.player.snapshot.gear.position[depot.branch("main-a")] == Position.UNKNOWN


def test_the_feeder_that_returns_is_used_after_its_delay(depot: Substation) -> None:
    """Five minutes of voltage first, then tie open, main-a closed; failing again meanwhile changes nothing."""
    depot.supply("utility-a", lost=True)
    depot.run(60)
    depot.orders.clear()
    depot.supply("utility-a", lost=False)
    depot.run(200)
    depot.supply("utility-a", lost=True)
    depot.run(20)
    depot.supply("utility-a", lost=False)
    depot.run(290)
    assert depot.orders == []
    depot.run(60)
    assert depot.orders == [("tie", False), ("main-a", True)]
    assert depot.live() >= CRITICAL_BUSES


def test_a_flapping_breaker_is_locked(depot: Substation) -> None:
    """Four movements in a minute: held for both positions, an alarm, no orders, until an operator releases it."""
    for k in range(6):
        depot.moves("main-a", closed=bool(k % 2), flags=UPSTREAM)
        depot.run(3)
    gear = depot.player.snapshot.gear
    assert gear.locked[depot.branch("main-a")]
    assert depot.player.decision is not None
    assert depot.player.decision.site.state.held[depot.branch("main-a")]
    before = list(depot.orders)
    depot.run(60)
    assert depot.orders == before


def test_two_devices_that_disagree_make_a_position_unknown(depot: Substation) -> None:
    """Limits hold for both positions, an alarm stands, nothing is ordered; agreement ends it."""
    tie = depot.branch("tie")
    other = sw.SwitchesSeen(
        reporter=2,
        reporter_id="relay",
        incarnation=1,
        clock_s=1.0,
        branch=np.array([tie]),
        position=np.array([int(Position.CLOSED)]),
        flags=np.array([0]),
    )
    depot.tick(other)
    decision = depot.tick()
    assert decision.site.state.held[tie]
    assert any("two devices" in alarm for alarm in depot.alarms)
    assert depot.orders == []
    agreed = sw.SwitchesSeen(
        reporter=2,
        reporter_id="relay",
        incarnation=1,
        clock_s=2.0,
        branch=np.array([tie]),
        position=np.array([int(Position.OPEN)]),
        flags=np.array([0]),
    )
    depot.tick(agreed)
    assert not depot.tick().site.state.held[tie]


def test_a_controller_that_is_heard_stands_by_what_it_said(depot: Substation) -> None:
    """A minute after main-a was last reported another device calls it open: disputed, not believed, nothing closes."""
    main_a, switches = depot.branch("main-a"), depot.switches
    for _ in range(60):
        depot.tick(sw.GearHeard(branch=switches, incarnation=7, clock_s=depot.player.now_s), report=False)
    other = sw.SwitchesSeen(
        reporter=2,
        reporter_id="relay",
        incarnation=3,
        clock_s=1.0,
        branch=np.array([main_a]),
        position=np.array([int(Position.OPEN)]),
        flags=np.array([UPSTREAM]),
    )
    heard = sw.GearHeard(branch=switches, incarnation=7, clock_s=depot.player.now_s)
    decision = depot.tick(other, heard, report=False)
    assert decision.snapshot.gear.position[main_a] == Position.UNKNOWN
    for _ in range(20):
        depot.tick(sw.GearHeard(branch=switches, incarnation=7, clock_s=depot.player.now_s), report=False)
    assert depot.orders == []


def test_a_late_report_is_dropped(depot: Substation) -> None:
    """An older stamp of the same process changes nothing."""
    depot.closed[depot.branch("tie")] = True
    depot.tick(*depot.report(clock_s=1.0), report=False)
    assert depot.player.snapshot.gear.position[depot.branch("tie")] == Position.OPEN
    assert any("late report" in alarm for alarm in depot.alarms)


@pytest.mark.parametrize("late_lost", [True, False])
@pytest.mark.parametrize("kind", list(sw.ElementKind))
def test_a_late_word_of_a_loss_is_dropped(depot: Substation, kind: sw.ElementKind, late_lost: bool) -> None:
    """An older stamp of the same process neither loses an element nor brings it back, whoever spoke in between and
    whether powerd restarted meanwhile, and an alarm says so; its next process is believed.
    """
    electrical = depot.player.site.electrical
    feeder = int(np.flatnonzero(~electrical.branches.switchable)[0])

    def is_lost() -> bool:
        gear = depot.player.snapshot.gear
        columns = {"supply": ~gear.supply_alive, "bus": gear.bus_dark, "branch": gear.lost}
        return bool(columns[kind][index])

    index = feeder if kind == sw.ElementKind.BRANCH else 0
    depot.outage(kind, index, lost=True, clock_s=90.0)
    depot.outage(kind, index, lost=not late_lost, clock_s=100.0)
    depot.outage(kind, index, lost=not late_lost, reporter=10, clock_s=5.0)
    depot.tick()
    assert is_lost() is not late_lost
    for restarts in range(2):
        depot.alarms.clear()
        depot.outage(kind, index, lost=late_lost, clock_s=99.0)
        depot.tick()
        assert is_lost() is not late_lost
        name = {"supply": "utility-a", "branch": electrical.branches.ids[feeder], "bus": electrical.buses.ids[0]}[kind]
        assert [alarm for alarm in depot.alarms if "late report" in alarm] == [
            f"late report of {name} by relay 9 dropped"
        ]
        if restarts == 0:
            depot.player.snapshot = reopen_snapshot(depot.player.snapshot, depot.player.site.terms, instant(500.0))
            depot.player.now_s, depot.player.decision = 500.0, None
    depot.outage(kind, index, lost=late_lost, incarnation=11, clock_s=1.0)
    depot.tick()
    assert is_lost() is late_lost


@pytest.mark.parametrize("kind", list(sw.ElementKind))
def test_two_devices_that_disagree_about_a_loss_make_nothing_swing(depot: Substation, kind: sw.ElementKind) -> None:
    """One says lost every five seconds, the other the contrary: it counts as lost all the time, nothing is ordered, an
    alarm names it; half a minute after the one that said lost has fallen silent the other is believed.
    """
    electrical = depot.player.site.electrical
    name, ids = {
        sw.ElementKind.SUPPLY: ("utility-a", electrical.supplies.ids),
        sw.ElementKind.BRANCH: ("trunk-5", electrical.branches.ids),
        sw.ElementKind.BUS: ("lv-b", electrical.buses.ids),
    }[kind]
    sums: list[float] = []
    for k in range(60):
        if k % 5 == 0:
            depot.outage(kind, ids.index(name), lost=False, reporter=22, incarnation=22)
        if k % 5 == 2:
            depot.outage(kind, ids.index(name), lost=True, reporter=21, incarnation=21)
        sums.append(float(depot.tick().ceiling.sum()))
    assert max(sums[5:]) - min(sums[5:]) < 100.0
    assert depot.orders == []
    assert any(alarm.startswith(f"{name} is reported lost by one device and not by") for alarm in depot.alarms)
    for k in range(330):
        if k % 5 == 0:
            depot.outage(kind, ids.index(name), lost=False, reporter=22, incarnation=22)
        depot.tick()
    gear, index = depot.player.snapshot.gear, ids.index(name)
    assert not {"supply": ~gear.supply_alive, "bus": gear.bus_dark, "branch": gear.lost}[kind][index]
    assert depot.orders == []


def test_a_loss_on_which_two_devices_agree_at_last_is_answered(depot: Substation) -> None:
    """The second device follows a few seconds later: then the dark half is fed."""
    depot.outage(sw.ElementKind.SUPPLY, 0, lost=False, reporter=22, incarnation=22)
    depot.run(2)
    depot.supply("utility-a", lost=True)
    depot.run(8)
    assert depot.orders == []
    depot.outage(sw.ElementKind.SUPPLY, 0, lost=True, reporter=22, incarnation=22)
    depot.run(30)
    assert depot.orders == [("main-a", False), ("tie", True)]


def test_a_supply_that_comes_and_goes_is_used_again_when_it_has_been_steady(depot: Substation) -> None:
    """A word every four seconds for two minutes: it counts as lost, its half is fed from the other once and for all;
    back to how it is drawn only after five minutes without a change and five of voltage.
    """
    for k in range(120):
        if k % 4 == 0:
            depot.supply("utility-a", lost=k % 8 == 0)
        depot.tick()
    depot.run(280)
    assert depot.orders[-2:] == [("main-a", False), ("tie", True)]
    assert len(depot.orders) <= 5
    assert any(alarm.startswith("utility-a came and went 4 times in 60 s") for alarm in depot.alarms)
    assert not depot.player.snapshot.gear.supply_alive[0]
    depot.orders.clear()
    depot.run(30)
    assert depot.player.snapshot.gear.supply_alive[0]
    depot.run(310)
    assert depot.orders == [("tie", False), ("main-a", True)]


def test_a_meter_that_flickers_keeps_nobody_from_planning(depot: Substation) -> None:
    """It says dark and not dark each second while utility-a is lost: the dark half is fed all the same."""
    staff = depot.player.site.electrical.buses.ids.index("staff")
    depot.supply("utility-a", lost=True)
    paths = []
    for k in range(60):
        depot.outage(sw.ElementKind.BUS, staff, lost=bool(k % 2), reporter=77, incarnation=77)
        paths.append(depot.tick().path)
    assert depot.orders == [("main-a", False), ("tie", True)]
    assert paths[-10:].count("guard") == 0


def test_an_order_to_nobody_is_not_taken_up(depot: Substation) -> None:
    """The controller's stream is down: an operator's order is refused, and what is known of the switch stays known."""
    depot.tick(sw.GearClosed(branch=depot.switches), depot.report()[1], report=False)
    ordered = sw.SwitchOrdered(request_id="", branch=depot.branch("main-b"), close=False, reason="try")
    decision = depot.tick(ordered, report=False)
    assert isinstance(decision.outcomes[-1], Refused)
    for _ in range(12):
        decision = depot.tick(report=False)
    assert depot.orders == []
    assert decision.snapshot.gear.position[depot.branch("main-b")] == Position.CLOSED


def test_an_outage_comes_before_an_operators_order_that_has_not_gone_out(depot: Substation) -> None:
    """It waits for room when utility-a is lost: it is dropped, an alarm says so, and the dark half is fed."""
    state = depot.player.snapshot
    gear = replace(
        state.gear,
        phase=int(Phase.MAKING_ROOM),
        steps=(-(depot.branch("main-b") + 1),),
        manual=True,
        since_s=state.boottime_s - 5.0,
        wants_plan=True,
        changed_at_s=state.boottime_s - 1.0,
        supply_alive=put(state.gear.supply_alive, 0, False),
        supply_cause=put(state.gear.supply_cause, 0, int(Cause.UPSTREAM)),
    )
    before = replace(gear, supply_alive=state.gear.supply_alive)
    electrical, now = depot.player.site.electrical, Now(utc=NIGHT, boottime_s=state.boottime_s + 20.0)
    lost = replace(observe(electrical, before, gear, now), changed_at_s=state.boottime_s - 1.0)
    found = advance(electrical, depot.player.stepper.planner, lost, electrical.posts.max_ceiling, lambda _: {}, now)
    assert found.gear.steps == (-(depot.branch("main-a") + 1), depot.branch("tie") + 1)
    assert not found.gear.manual
    assert any("operator's order dropped: open main-b" in alarm for alarm in found.alarms)


def test_what_an_operator_opened_stays_open(depot: Substation) -> None:
    """Powerd does not close main-a again, whatever happens next; the operator may."""
    depot.tick(sw.SwitchOrdered(request_id="", branch=depot.branch("tie"), close=True, reason="try"))
    assert depot.orders == []  # two supplies would be together: refused
    depot.tick(sw.SwitchOrdered(request_id="", branch=depot.branch("main-a"), close=False, reason="work on T1"))
    depot.run(20)
    depot.supply("utility-a", lost=True)
    depot.run(20)
    depot.supply("utility-a", lost=False)
    depot.run(320)
    assert depot.orders == [("main-a", False)]
    depot.tick(sw.SwitchOrdered(request_id="", branch=depot.branch("main-a"), close=True, reason="done"))
    depot.run(20)
    assert depot.orders == [("main-a", False), ("main-a", True)]
    assert depot.live() >= CRITICAL_BUSES


def test_loads_count_at_their_pick_up_for_as_long_as_it_lasts() -> None:
    """The same site object while a pick-up lasts, larger loads in it; when it is over, the loads of before."""
    site = model("two_feeder_depot")
    drawn = as_drawn(site.electrical)
    gear = replace(drawn, back_at_s=np.zeros_like(drawn.back_at_s))
    states = SwitchingStates(site)
    day = datetime(2026, 1, 5, tzinfo=UTC)
    seconds = (1.0, PICKUP_S - 1.0, PICKUP_S + 1.0)
    during, later, over = (states.at(gear, (), Now(utc=day, boottime_s=second)) for second in seconds)
    assert later is during
    assert during.loads_worst.sum() > over.loads_worst.sum()
    np.testing.assert_array_equal(over.loads_worst, site.loads_worst)


def test_what_loads_lose_while_they_come_back_is_left_for_them(tmp_path: Path) -> None:
    """30 kW that come back as 75 kW through 200 m of cable: pandapower finds no more than the 120 kW allowed."""
    text = """
site: returning
grid_connection: {import_limit_kw: 120, source: contract}
supplies: [{id: a, bus: m}]
buses: [{id: m, voltage_v: 400}, {id: p, voltage_v: 400}, {id: q, voltage_v: 400}]
feeders:
  - {id: FP, from_bus: m, to_bus: p, length_m: 10, r_ohm_per_km: 0.05, x_ohm_per_km: 0.05, ampacity_a: 400, source: t}
  - {id: FQ, from_bus: m, to_bus: q, length_m: 200, r_ohm_per_km: 0.25, x_ohm_per_km: 0.08, ampacity_a: 220, source: t}
loads: [{id: shop, bus: q, typical_kw: 20, worst_kw: 30, power_factor: 0.9, pickup_factor: 2.5}]
controller_classes: [{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 0}]
controllers: [{id: c0, class: c}]
evse_types: [{id: dc, current: dc, max_power_kw: 60, min_power_kw: 1, efficiency: 0.95, power_factor: 0.99,
              fallback_kw: 0}]
station_groups: [{count: 3, id: "D{n}", bus: p, controller: c0, type: dc}]
"""
    station = Substation.open(compiled(tmp_path, text))
    electrical = station.player.site.electrical
    before = station.run(60)
    station.supply("a", lost=True)
    station.run(30)
    station.supply("a", lost=False)
    during = station.run(120)
    assert during.site.load_factor.tolist() == [2.5]
    flow = ac_loading(electrical, during.site.state.closed, during.ceiling, loads_kw=np.array([75.0]))
    assert 115.0 < flow.import_kw.sum() <= 120.0
    after = station.run(int(PICKUP_S))
    assert after.ceiling == pytest.approx(before.ceiling, abs=1e-3)
