"""What is believed of switches: whose word counts, why a contact opened, what a silence or a restart leaves of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control import switch_events as sw
from powerd.control.compiled import CompiledSite
from powerd.control.switching import ORDER_S, SwitchOrder, settled
from powerd.state.impaired import Trigger
from powerd.state.snapshot import reopen_snapshot
from powerd.state.switchgear import Cause, Flag, Phase, Position, operations, ordered
from tests.control.garage import instant
from tests.control.substation import Substation, model

TRIPPED = int(Flag.PROTECTION | Flag.LOCK_OUT)
UPSTREAM = int(Flag.UPSTREAM_LOST)


@pytest.fixture
def depot() -> Substation:
    """The bus depot, every charger busy, all switches reported."""
    station = Substation.open(model("two_feeder_depot"))
    station.run(15)
    return station


def _says(
    station: Substation,
    name: str,
    position: Position,
    flags: int = 0,
    *,
    reporter: int = 5,
    incarnation: int = 3,
    clock_s: float | None = None,
) -> sw.SwitchesSeen:
    """One device about one switch; 1 of process 7 is the controller."""
    return sw.SwitchesSeen(
        reporter=reporter,
        reporter_id=f"device {reporter}",
        incarnation=incarnation,
        clock_s=station.player.now_s + 0.5 if clock_s is None else clock_s,
        branch=np.array([station.branch(name)]),
        position=np.array([int(position)]),
        flags=np.array([flags]),
    )


def _own(station: Substation, name: str, position: Position, flags: int = 0) -> sw.SwitchesSeen:
    return _says(station, name, position, flags, reporter=1, incarnation=7)


def _heartbeat(station: Substation, incarnation: int = 7) -> sw.GearHeard:
    return sw.GearHeard(branch=station.switches, incarnation=incarnation, clock_s=station.player.now_s)


def _beats(station: Substation, seconds: int, *events: ev.Event) -> None:
    """The controller says that it is there, and of its switches nothing."""
    for k in range(seconds):
        station.tick(_heartbeat(station), *(events if k == 0 else ()), report=False)


def _cause(station: Substation, name: str) -> Cause:
    return Cause(int(station.player.snapshot.gear.cause[station.branch(name)]))


def _position(station: Substation, name: str) -> Position:
    return Position(int(station.player.snapshot.gear.position[station.branch(name)]))


def _restart(station: Substation) -> None:
    """Powerd starts anew with what it had journalled."""
    player = station.player
    player.snapshot, player.decision = reopen_snapshot(player.snapshot, player.site.terms, instant(player.now_s)), None
    for controller in range(len(player.site.electrical.controllers.ids)):
        player.hello(controller)


def _over_the_tie(station: Substation) -> None:
    """utility-a is lost, and lv-a fed over the tie."""
    station.supply("utility-a", lost=True)
    station.run(40)
    assert station.orders == [("main-a", False), ("tie", True)]
    station.orders.clear()


# --- why a contact opened ---------------------------------------------------------------------------------------------


def test_what_trips_while_its_opening_is_ordered_has_tripped(depot: Substation) -> None:
    """A fault in the second of the order: the relay's word counts, the steps are dropped, nothing closes onto it."""
    depot.stuck = {depot.branch("main-a")}
    depot.supply("utility-a", lost=True)
    while not depot.orders:
        depot.tick()
    depot.moves("main-a", closed=False, flags=TRIPPED)
    depot.run(40)
    assert _cause(depot, "main-a") == Cause.PROTECTION
    assert depot.orders == [("main-a", False)]


def _between_its_positions(station: Substation) -> None:
    station.tick(_own(station, "tie", Position.UNKNOWN), report=False)


def _relay_tells_first(station: Substation) -> None:
    station.tick(_says(station, "tie", Position.OPEN, TRIPPED), report=False)


def _silence_after(station: Substation) -> None:
    station.moves("tie", closed=False, flags=TRIPPED)
    station.run(2)
    for _ in range(17):
        station.tick(report=False)


def _restart_after(station: Substation) -> None:
    station.moves("tie", closed=False, flags=TRIPPED)
    station.run(2)
    _restart(station)


@pytest.mark.parametrize("how", [_between_its_positions, _relay_tells_first, _silence_after, _restart_after])
def test_a_tie_that_tripped_stays_tripped_however_it_is_told(
    depot: Substation, how: Callable[[Substation], None]
) -> None:
    """Drawn open, it needs no cause to be open; a known one is not forgotten, though nobody knew its position since."""
    _over_the_tie(depot)
    how(depot)
    depot.moves("tie", closed=False, flags=TRIPPED)
    depot.run(40)
    assert _cause(depot, "tie") == Cause.PROTECTION
    assert depot.orders == []


@pytest.mark.parametrize("lost", ["T1", "utility-a"])
def test_a_fault_is_not_unlearnt_by_a_word_without_one(depot: Substation, lost: str) -> None:
    """Another relay tells of a voltage upstream: nothing is fed again until a person has released it."""
    electrical = depot.player.site.electrical
    kind = sw.ElementKind.BRANCH if lost == "T1" else sw.ElementKind.SUPPLY
    index = (electrical.branches.ids if lost == "T1" else electrical.supplies.ids).index(lost)
    depot.outage(kind, index, lost=True, flags=TRIPPED)
    depot.tick()
    depot.outage(kind, index, lost=True, flags=UPSTREAM, reporter=8)
    depot.run(30)
    assert depot.orders == []
    depot.tick(sw.ServiceChanged(request_id="", kind=kind, indices=(index,), in_service=True, reason="looked"))
    depot.outage(kind, index, lost=True, flags=UPSTREAM, reporter=8)
    depot.run(30)
    assert depot.orders == [("main-a", False), ("tie", True)]


@pytest.mark.parametrize("flag", [Flag.TAGGED, Flag.LOCAL, Flag.EARTHED, Flag.SYNC, Flag.UPSTREAM_LOST])
def test_marks_that_come_and_go_are_no_cause(depot: Substation, flag: Flag) -> None:
    """A tie that somebody worked at is as it was: the next loss is answered over it."""
    depot.flags[depot.branch("tie")] = int(flag)
    depot.run(2)
    depot.flags[depot.branch("tie")] = 0
    depot.run(2)
    assert _cause(depot, "tie") == Cause.NONE
    assert settled(depot.player.site.electrical, depot.player.snapshot.gear)


@pytest.mark.parametrize("order", [("ats/alternate", "ats/preferred"), ("ats/preferred", "ats/alternate")])
def test_a_transfer_switch_that_goes_back_leaves_no_cause(depot: Substation, order: tuple[str, str]) -> None:
    """One half opened because the other closed, whichever is told first and whether a relay says why."""
    depot.moves("ats/preferred", closed=False, flags=UPSTREAM)
    depot.moves("ats/alternate", closed=True)
    depot.run(5)
    for half in order:
        depot.moves(half, closed=half == "ats/preferred")
        depot.tick()
    assert (_cause(depot, "ats/preferred"), _cause(depot, "ats/alternate")) == (Cause.NONE, Cause.NONE)


def test_a_switch_that_tripped_itself_is_not_closed(depot: Substation) -> None:
    """main-a tripped and is locked out, its board is fed from elsewhere since: no order closes it without a release."""
    depot.moves("main-a", closed=False, flags=TRIPPED)
    depot.run(5)
    depot.moves("tie", closed=True)
    depot.run(5)
    depot.supply("utility-b", lost=True)
    depot.moves("main-b", closed=False, flags=UPSTREAM)
    depot.run(5)
    order = sw.SwitchOrdered(request_id="", branch=depot.branch("main-a"), close=True, reason="try")
    decision = depot.tick(order)
    assert isinstance(decision.outcomes[-1], ev.Refused)
    depot.flags[depot.branch("main-a")] = 0  # the relay was reset, and nobody has looked
    depot.run(3)
    assert isinstance(depot.tick(order).outcomes[-1], ev.Refused)
    assert depot.orders == []


# --- by order, though late --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_an_opening_that_arrives_late_is_still_the_one_ordered(depot: Substation, restart: bool) -> None:
    """After the time-out, and where powerd restarted while its order was out: the transfer is finished."""
    main_a = depot.branch("main-a")
    depot.stuck = {main_a}
    depot.supply("utility-a", lost=True)
    while not depot.orders:
        depot.tick()
    depot.stuck = set()
    if restart:
        _restart(depot)
    else:
        _beats(depot, 11)
        assert _position(depot, "main-a") == Position.UNKNOWN
    depot.closed[main_a] = False
    depot.run(40)
    assert _cause(depot, "main-a") == Cause.ORDERED
    assert depot.orders == [("main-a", False), ("tie", True)]


def test_long_after_its_order_an_opening_is_its_own(depot: Substation) -> None:
    """An order that was swallowed excuses no trip of an hour later."""
    main_a = depot.branch("main-a")
    depot.stuck = {main_a}
    depot.supply("utility-a", lost=True)
    depot.run(90)
    depot.orders.clear()
    depot.moves("main-a", closed=False)
    depot.run(20)
    assert _cause(depot, "main-a") == Cause.UNKNOWN
    assert depot.orders == []


def test_an_order_leaves_only_on_a_fresh_echo(depot: Substation) -> None:
    """Its validity counts from the echo: with heartbeats every five seconds at least half of it is always left."""
    depot.supply("utility-a", lost=True)
    for k in range(30):
        echo_s = depot.player.now_s
        beat = [_heartbeat(depot)] if k % 5 == 0 else []
        order = depot.tick(*beat, report=False).order
        assert order is None or order.echo_clock_s + order.valid_s - depot.player.now_s >= 1.5, echo_s
    assert depot.orders


def test_a_controller_that_starts_anew_has_dropped_its_order(depot: Substation) -> None:
    """Its hello shows the switch where it was: no blame, and the order is given again."""
    depot.stuck = {depot.branch("main-a")}
    depot.supply("utility-a", lost=True)
    while not depot.orders:
        depot.tick()
    depot.stuck = set()
    depot.tick(sw.GearClosed(branch=depot.switches), report=False)
    at = depot.switches
    hello = sw.SwitchesSeen(
        reporter=1,
        reporter_id="device 1",
        incarnation=8,
        clock_s=0.0,
        branch=at,
        position=np.where(depot.closed[at], int(Position.CLOSED), int(Position.OPEN)),
        flags=np.zeros(at.shape[0], np.int64),
    )
    depot.tick(hello, _heartbeat(depot, 8), report=False)
    assert not depot.player.snapshot.gear.refused.any()
    for _ in range(8):
        depot.tick(_heartbeat(depot, 8), report=False)
    assert depot.orders == [("main-a", False), ("main-a", False)]


# --- swallowed by a broken stream -------------------------------------------------------------------------------------


def _swallowed(station: Substation) -> SwitchOrder:
    """utility-a is lost, and the stream breaks with the order to open main-a on it."""
    station.stuck = {station.branch("main-a")}
    station.supply("utility-a", lost=True)
    order = None
    while order is None:
        order = station.tick().order
    station.stuck = set()
    station.tick(sw.GearClosed(branch=station.switches), report=False)
    return order


def test_an_order_that_the_stream_swallowed_is_given_again(depot: Substation) -> None:
    """The same process is back a second later, main-a where it was: the same order, no blame, counted once."""
    first = _swallowed(depot)
    assert depot.tick().order == first
    depot.run(40)
    assert depot.orders == [("main-a", False), ("main-a", False), ("tie", True)]
    assert not depot.player.snapshot.gear.refused.any()
    assert operations(depot.player.snapshot.gear, depot.player.now_s)[first.branch] == 1


def test_where_the_order_once_more_is_not_answered_the_switch_is_to_blame(depot: Substation) -> None:
    """It came on a stream that stands: planned around, held for both, ten seconds after the first."""
    order = _swallowed(depot)
    depot.stuck = {order.branch}
    _beats(depot, 12, *depot.report())
    assert depot.player.snapshot.gear.refused[order.branch]
    assert _position(depot, "main-a") == Position.UNKNOWN
    assert depot.player.decision is not None
    assert depot.player.decision.modes == (Trigger.METER_STALE, Trigger.SWITCHGEAR_SILENT)  # nobody plays its meters


@pytest.mark.parametrize("away", [4, 15])
def test_an_order_whose_time_is_over_is_planned_anew_without_blame(depot: Substation, away: int) -> None:
    """The process is back when the order was nearly void, or given up: a new one goes out, not before ten seconds."""
    first = _swallowed(depot)
    for _ in range(away):
        assert depot.tick(report=False).order is None
    second = next(order for order in (depot.tick().order for _ in range(30)) if order is not None)
    assert second.echo_clock_s - first.echo_clock_s >= ORDER_S
    assert (second.order_id, second.branch, second.close) == (first.order_id + 1, first.branch, False)
    depot.run(40)
    assert not depot.player.snapshot.gear.refused.any()
    assert depot.orders == [("main-a", False), ("main-a", False), ("tie", True)]


def test_a_closing_that_tripped_while_the_stream_was_away_is_not_repeated(depot: Substation) -> None:
    """The tie closed by its order and tripped at once: its hello shows it open, as before, with the relay's word."""
    depot.supply("utility-a", lost=True)
    depot.stuck = {depot.branch("tie")}
    while ("tie", True) not in depot.orders:
        depot.tick()
    depot.stuck = set()
    depot.tick(sw.GearClosed(branch=depot.switches), report=False)
    depot.moves("tie", closed=False, flags=TRIPPED)
    depot.run(60)
    assert depot.orders.count(("tie", True)) == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=6, deadline=None)
@example(breaks=[(0, 1)], swallows=True)
@example(breaks=[(0, 4)], swallows=True)
def test_no_order_is_carried_out_twice_or_late_however_the_stream_breaks(
    breaks: list[tuple[int, int]], swallows: bool
) -> None:
    """So long after each order the stream is away for so long, of the same process: whatever comes down is new, or what
    came before to the letter, on an echo no older than at first.
    """
    station = Substation.open(model("two_feeder_depot"))
    station.run(3)
    station.stuck = set(station.switches.tolist()) if swallows else set()
    station.supply("utility-a", lost=True)
    given_before: dict[int, SwitchOrder] = {}

    def second(*closed: sw.GearClosed, away: bool = False) -> bool:
        now_s, order = station.player.now_s, station.tick(*closed, report=not away).order
        if order is None:
            return False
        assert not away
        assert now_s - order.echo_clock_s <= ORDER_S / 4
        assert given_before.setdefault(order.order_id, order) == order
        return True

    for after_s, away_s in breaks:
        any(second() for _ in range(15))
        for _ in range(after_s):
            second()
        second(sw.GearClosed(branch=station.switches), away=True)
        for _ in range(away_s - 1):
            second(away=True)
    for _ in range(15):
        second()
    assert given_before
    assert sorted(given_before) == list(range(1, len(given_before) + 1))


# --- whose word counts ------------------------------------------------------------------------------------------------


def test_a_silence_is_over_when_the_controller_is_heard(depot: Substation) -> None:
    """It reports what moves and a stream loses nothing: after 17 s without a word the first heartbeat is enough."""
    for _ in range(17):
        depot.tick(report=False)
    assert (depot.player.snapshot.gear.position[depot.switches] == Position.UNKNOWN).all()
    _beats(depot, 1)
    assert (depot.player.snapshot.gear.position[depot.switches] != Position.UNKNOWN).all()


def test_a_heartbeat_ends_no_doubt_of_its_own(depot: Substation) -> None:
    """What the controller itself calls unknown, and what an order may still be moving, stays unknown."""
    depot.stuck = {depot.branch("main-a")}
    depot.supply("utility-a", lost=True)
    while not depot.orders:
        _beats(depot, 1)
    _beats(depot, 40, _own(depot, "tie", Position.UNKNOWN))
    assert _position(depot, "tie") == _position(depot, "main-a") == Position.UNKNOWN
    _beats(depot, 40)
    assert (_position(depot, "main-a"), _position(depot, "tie")) == (Position.CLOSED, Position.UNKNOWN)


def test_what_an_operator_opened_stays_open_over_a_silence_and_a_restart(depot: Substation) -> None:
    """Nothing has moved by the time positions are known again."""
    depot.tick(sw.SwitchOrdered(request_id="", branch=depot.branch("main-a"), close=False, reason="work at T1"))
    depot.run(15)
    depot.tick(sw.SwitchOrdered(request_id="", branch=depot.branch("tie"), close=True, reason="work at T1"))
    depot.run(60)
    assert depot.orders == [("main-a", False), ("tie", True)]
    for _ in range(17):
        depot.tick(report=False)
    depot.run(30)
    _restart(depot)
    depot.run(30)
    assert _cause(depot, "main-a") == Cause.HAND
    assert depot.orders == [("main-a", False), ("tie", True)]


@pytest.mark.parametrize("flag", [Flag.TAGGED, Flag.LOCAL, Flag.EARTHED])
def test_nobody_lifts_the_mark_of_another(depot: Substation, flag: Flag) -> None:
    """A relay that knows of no tag tells of the contact: it is tagged until the one who said so says otherwise."""

    def free() -> bool:
        return not depot.player.snapshot.gear.has(flag)[depot.branch("tie")]

    _beats(depot, 1, _own(depot, "tie", Position.OPEN, int(flag)))
    _beats(depot, 2, _says(depot, "tie", Position.OPEN), _says(depot, "tie", Position.OPEN, reporter=6))
    assert not free()
    _restart(depot)
    _beats(depot, 2, _says(depot, "tie", Position.OPEN))
    assert not free()
    _beats(depot, 1, _own(depot, "tie", Position.OPEN))
    assert free()


def test_a_sync_check_is_believed_of_the_switchs_own_controller(depot: Substation) -> None:
    """Not of another device, and not when its stream has ended."""

    def permitted() -> bool:
        return bool(depot.player.snapshot.gear.has(Flag.SYNC)[depot.branch("tie")])

    _beats(depot, 1, _says(depot, "tie", Position.OPEN, int(Flag.SYNC)))
    assert not permitted()
    _beats(depot, 1, _own(depot, "tie", Position.OPEN, int(Flag.SYNC)))
    assert permitted()
    depot.tick(sw.GearClosed(branch=depot.switches), report=False)
    assert not permitted()


def test_no_number_of_relays_outvotes_a_controller_that_is_heard(depot: Substation) -> None:
    """Six of them call main-a open, its controller does not: unknown, and nothing is closed towards it."""
    depot.supply("utility-a", lost=True)
    depot.stuck = set(depot.switches.tolist())
    for k in range(6):
        _beats(depot, 1, _says(depot, "main-a", Position.OPEN, UPSTREAM, reporter=20 + k, incarnation=20 + k))
        assert _position(depot, "main-a") == Position.UNKNOWN
    _beats(depot, 20)
    assert ("tie", True) not in depot.orders


def test_one_stamp_from_the_future_silences_nobody(depot: Substation) -> None:
    """That report counts as unknown; the next one of the process is believed, whichever of the clocks it goes by."""
    _beats(depot, 1, _says(depot, "main-a", Position.CLOSED, reporter=1, incarnation=7, clock_s=1e9))
    assert _position(depot, "main-a") == Position.UNKNOWN
    assert any("future" in alarm for alarm in depot.alarms)
    _beats(depot, 1, _own(depot, "main-a", Position.OPEN))
    assert _position(depot, "main-a") == Position.OPEN
    supply = depot.player.site.electrical.supplies.ids.index("utility-b")

    def alive() -> bool:
        return bool(depot.player.snapshot.gear.supply_alive[supply])

    depot.outage(sw.ElementKind.SUPPLY, supply, lost=True)
    depot.tick()
    depot.outage(sw.ElementKind.SUPPLY, supply, lost=False, clock_s=1e9)
    depot.tick()
    assert not alive()
    depot.outage(sw.ElementKind.SUPPLY, supply, lost=False)
    depot.tick()
    assert alive()


def test_a_breaker_that_tells_its_way_is_locked_like_any_other(depot: Substation) -> None:
    """Movements count between positions that are known."""
    for k in range(6):
        depot.tick(_own(depot, "main-a", Position.UNKNOWN), report=False)
        depot.moves("main-a", closed=bool(k % 2), flags=0 if k % 2 else UPSTREAM)
        depot.run(2)
    assert depot.player.snapshot.gear.locked[depot.branch("main-a")]


# --- what a restart keeps ---------------------------------------------------------------------------------------------


def test_a_pick_up_lasts_over_a_restart(depot: Substation) -> None:
    """Loads that have been back for a minute count at their pick-up after it too, for no less than was left."""
    _over_the_tie(depot)
    depot.run(30)
    before = depot.tick().site.load_factor
    assert (before > 1.0).any()
    _restart(depot)
    assert depot.run(3).site.load_factor.tolist() == before.tolist()


def test_every_operation_of_an_hour_counts_also_over_a_restart() -> None:
    """As many as a site file may allow, each for an hour."""
    gear = Substation.open(model("two_feeder_depot")).player.snapshot.gear
    for k in range(1000):
        gear = ordered(gear, 2, Position.OPEN, float(k))
    assert operations(gear, 1000.0).tolist() == [1000 if e == 2 else 0 for e in range(gear.position.shape[0])]
    assert operations(gear, 3600.0 + 499.5)[2] == 500
    assert len(ordered(gear, 2, Position.OPEN, 3600.0 + 499.5).operated) == 501


def test_a_restart_forgets_no_operation() -> None:
    """Two an hour are two an hour."""
    site = model("two_feeder_depot")
    operation = site.electrical.operation
    few = changed(operation, max_operations=np.full_like(operation.max_operations, 2))
    station = Substation.open(CompiledSite.of(changed(site.electrical, operation=few)))
    station.run(5)
    for k in range(4):
        if k == 2:
            _restart(station)
            station.run(3)
        station.tick(sw.SwitchOrdered(request_id="", branch=station.branch("main-b"), close=bool(k % 2), reason="try"))
        station.run(12)
    assert station.orders == [("main-b", False), ("main-b", True)]
    assert station.player.snapshot.gear.phase == Phase.IDLE
