"""Each interlock fires where it alone speaks against a move; limits with an unknown position hold for both."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import Electrical, Interlock
from powerd.network.interlocks import RULES, Move, findings, objections
from powerd.network.load import load_site
from powerd.network.operation import By, Operation
from powerd.network.rows import Rows, build_rows
from powerd.network.states import Uncertain, build_state
from powerd.network.supply import energise
from powerd.state.switchgear import HOUR_S, Cause, Flag, Position, Switchgear, open_switchgear
from tests.network.drawings import Drawing

NOW_S = 10_000.0
DEPOT = Path(__file__).parents[2] / "models" / "two_feeder_depot"

# Supply 0 - IN_A - board a - TIE - board b - IN_B - supply 1; a dead part behind STUB with a cable and one more switch
# in it; and a transfer switch of which both sides hang on board b.
IN_A, IN_B, TIE, STUB, CABLE, INNER, LEFT, RIGHT = range(8)
MAIN_A, MAIN_B, BOARD_A, BOARD_B, DEAD, FAR, INNERMOST, FED = range(8)

Scene = tuple[Electrical, Switchgear]
Flaw = Callable[[Electrical, Switchgear], Scene]


def _electrical() -> Electrical:
    drawing = Drawing()
    for _ in range(8):
        drawing.bus()
    for bus in (MAIN_A, MAIN_B):
        drawing.supply(bus)
    drawing.switch(MAIN_A, BOARD_A)
    drawing.switch(MAIN_B, BOARD_B)
    drawing.switch(BOARD_A, BOARD_B, closed=False)
    drawing.switch(BOARD_B, DEAD, closed=False)
    drawing.feeder(DEAD, FAR)
    drawing.switch(DEAD, INNERMOST)
    drawing.switch(BOARD_B, FED)
    drawing.switch(BOARD_B, FED, closed=False)
    operation = Operation.none(8)
    operation.by[:] = int(By.POWERD)
    operation.partner[[LEFT, RIGHT]] = RIGHT, LEFT
    operation.max_operations[IN_B] = 2
    return replace(drawing.electrical(), operation=operation)


def _scene() -> Scene:
    """Everything reported and well; supply 0 lost with the voltage upstream, IN_A open: board a waits for the tie."""
    electrical = _electrical()
    closed = electrical.branches.normally_closed.copy()
    closed[IN_A] = False
    gear = open_switchgear(
        normally_closed=closed,
        in_service=electrical.branches.in_service,
        reported=np.zeros(8, np.bool_),
        supply_alive=np.array([False, True]),
        bus_live=energise(electrical, closed).bus_is_live,
    )
    gear.bus_live[MAIN_A] = False
    gear.culprit[[MAIN_A, BOARD_A]] = 8  # supply 0
    gear.supply_cause[0] = int(Cause.UPSTREAM)
    gear.reported_at_s[:] = NOW_S
    return electrical, gear


def _at(column: str, place: int, value: object) -> Flaw:
    """One value of the switchgear, changed."""

    def flaw(electrical: Electrical, gear: Switchgear) -> Scene:
        changed = getattr(gear, column).copy()
        changed[place] = value
        return electrical, replace(gear, **{column: changed})

    return flaw


def _operated_twice(electrical: Electrical, gear: Switchgear) -> Scene:
    """IN_B has had its two operations, the first almost an hour ago."""
    return electrical, replace(gear, operated=((IN_B, NOW_S - HOUR_S + 1.0), (IN_B, NOW_S - 5.0)))


def _locked_against(electrical: Electrical, gear: Switchgear) -> Scene:
    """STUB and IN_B must not be closed together."""
    return replace(electrical, interlocks=(Interlock(branches=(IN_B, STUB), at_most_closed=1),)), gear


def _by_hand(electrical: Electrical, gear: Switchgear) -> Scene:
    operation = replace(electrical.operation, by=np.full(8, int(By.HAND)))
    return replace(electrical, operation=operation), gear


def _both_fed(electrical: Electrical, gear: Switchgear) -> Scene:
    """Supply 0 is there and IN_A closed."""
    position, live = gear.position.copy(), gear.bus_live.copy()
    position[IN_A], live[[MAIN_A, BOARD_A]] = int(Position.CLOSED), True
    return electrical, replace(gear, position=position, bus_live=live, supply_alive=np.array([True, True]))


def _both_dead(electrical: Electrical, gear: Switchgear) -> Scene:
    """Both supplies are lost, with IN_A and IN_B closed; none of it for a fault."""
    position, live, culprit = gear.position.copy(), np.zeros_like(gear.bus_live), gear.culprit.copy()
    position[IN_A], culprit[:] = int(Position.CLOSED), 8
    cause = np.full_like(gear.supply_cause, int(Cause.UPSTREAM))
    return electrical, replace(
        gear, position=position, bus_live=live, culprit=culprit, supply_cause=cause, supply_alive=np.zeros(2, np.bool_)
    )


def _half_open(electrical: Electrical, gear: Switchgear) -> Scene:
    """LEFT is confirmed open before RIGHT closes."""
    live = gear.bus_live.copy()
    live[FED] = False
    return _at("position", LEFT, int(Position.OPEN))(electrical, replace(gear, bus_live=live))


def _still_closed(electrical: Electrical, gear: Switchgear) -> Scene:
    """LEFT stands as it is drawn: closed."""
    return electrical, gear


CASES: tuple[tuple[str, str, Move, Flaw], ...] = (
    ("may_operate", "only an operator moves it", Move(branch=IN_B, close=False), _by_hand),
    ("known_position", "unknown", Move(branch=IN_B, close=False), _at("position", IN_B, int(Position.UNKNOWN))),
    ("known_position", "never reported", Move(branch=IN_B, close=False), _at("reported_at_s", IN_B, -np.inf)),
    ("available", "tagged out", Move(branch=IN_B, close=False), _at("flags", IN_B, int(Flag.TAGGED))),
    ("available", "in local", Move(branch=IN_B, close=False), _at("flags", IN_B, int(Flag.LOCAL))),
    ("available", "taken out", Move(branch=IN_B, close=False), _at("in_service", IN_B, False)),
    ("available", "flapped", Move(branch=IN_B, close=False), _at("locked", IN_B, True)),
    ("operations_left", "two this hour", Move(branch=IN_B, close=False), _operated_twice),
    ("interlock_group", "one of two", Move(branch=STUB, close=True), _locked_against),
    ("break_before_make", "other half closed", Move(branch=RIGHT, close=True), _still_closed),
    (
        "break_before_make",
        "other half unknown",
        Move(branch=RIGHT, close=True),
        _at("position", LEFT, int(Position.UNKNOWN)),
    ),
    ("no_parallel", "both fed", Move(branch=TIE, close=True), _both_fed),
    ("no_close_after_trip", "cable tripped", Move(branch=STUB, close=True), _at("cause", CABLE, int(Cause.PROTECTION))),
    (
        "no_close_after_trip",
        "opened unexplained",
        Move(branch=STUB, close=True),
        _at("cause", INNER, int(Cause.UNKNOWN)),
    ),
    ("no_close_after_trip", "dead unexplained", Move(branch=STUB, close=True), _at("culprit", FAR, -2)),
    (
        "no_close_after_trip",
        "supply faulty",
        Move(branch=TIE, close=True),
        _at("supply_cause", 0, int(Cause.PROTECTION)),
    ),
    (
        "no_back_feed",
        "dead supply closed on",
        Move(branch=TIE, close=True),
        _at("position", IN_A, int(Position.CLOSED)),
    ),
    ("no_back_feed", "both dead and closed on", Move(branch=TIE, close=True), _both_dead),
    ("no_back_feed", "perhaps closed on", Move(branch=TIE, close=True), _at("position", IN_A, int(Position.UNKNOWN))),
    ("no_back_feed", "only drawn open", Move(branch=TIE, close=True), _at("reported_at_s", IN_A, -np.inf)),
    ("no_earthed_part", "earthed itself", Move(branch=STUB, close=True), _at("flags", STUB, int(Flag.EARTHED))),
    ("no_earthed_part", "earthed behind", Move(branch=STUB, close=True), _at("flags", INNER, int(Flag.EARTHED))),
    ("no_earthed_part", "somebody works behind", Move(branch=STUB, close=True), _at("flags", INNER, int(Flag.TAGGED))),
    ("no_earthed_part", "cable taken out", Move(branch=STUB, close=True), _at("in_service", CABLE, False)),
)


def _names(scene: Scene, move: Move, *, without: str = "") -> list[str]:
    """Rules that speak against a move."""
    rules = tuple(rule for rule in RULES if rule.__name__ != without)
    return [found.rule for found in findings(*scene, move, NOW_S, rules=rules)]


@pytest.mark.parametrize(("rule", "what", "move", "flaw"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_exactly_this_rule_forbids_the_move(rule: str, what: str, move: Move, flaw: Flaw) -> None:
    """With the flaw this rule alone is found, without this rule nothing is, and without the flaw neither."""
    scene = flaw(*_scene())
    assert _names(scene, move) == [rule], what
    assert _names(scene, move, without=rule) == []
    sound = _half_open(*_scene()) if move.branch == RIGHT else _scene()
    assert _names(sound, move) == []


def test_every_rule_has_its_case() -> None:
    """A new rule needs a situation here."""
    assert {case[0] for case in CASES} == {rule.__name__ for rule in RULES}


def test_what_is_found_names_switch_and_reason() -> None:
    """Every message is a sentence with an id of the site in it."""
    for rule, _, move, flaw in CASES:
        electrical, gear = flaw(*_scene())
        (found,) = findings(electrical, gear, move, NOW_S)
        ids = (*electrical.branches.ids, *electrical.buses.ids, *electrical.supplies.ids)
        assert found.element in ids, rule
        assert any(name in found.message for name in ids), rule


def test_supplies_meet_only_where_the_site_allows_it_and_the_sync_check_permits_it() -> None:
    """no_parallel: neither alone is enough; the sync check must be that of the switch itself."""
    electrical, gear = _both_fed(*_scene())
    move, sync = Move(branch=TIE, close=True), _at("flags", TIE, int(Flag.SYNC))
    allowed = replace(electrical, parallel_supplies=True)
    assert _names((allowed, gear), move) == ["no_parallel"]
    assert _names(sync(electrical, gear), move) == ["no_parallel"]
    assert _names(_at("flags", IN_B, int(Flag.SYNC))(allowed, gear), move) == ["no_parallel"]
    assert _names(sync(allowed, gear), move) == []


def test_a_transfer_switch_makes_before_it_breaks_only_by_leave_of_its_sync_check() -> None:
    """break_before_make and the pair's own interlock both give way to a permitted closed transition, to no other."""
    electrical, gear = _scene()
    move, sync = Move(branch=RIGHT, close=True), _at("flags", RIGHT, int(Flag.SYNC))
    pair = replace(electrical, interlocks=(Interlock(branches=(LEFT, RIGHT), at_most_closed=1),))
    both = ["interlock_group", "break_before_make"]
    closed = electrical.operation.closed_transition.copy()
    closed[[LEFT, RIGHT]] = True
    made = replace(pair, operation=replace(pair.operation, closed_transition=closed))
    assert _names((pair, gear), move) == both
    assert _names(sync(pair, gear), move) == both
    assert _names((made, gear), move) == both
    assert _names(sync(made, gear), move) == []


def test_a_fault_bars_what_died_with_it_and_not_what_kept_its_voltage_beside_it() -> None:
    """no_close_after_trip: CABLE is lost on protection. What has shown that the fault is not at its end may be fed,
    the far end may not; where nobody has shown it neither may; and TIE's own trip is not excused by sound ends.
    """
    electrical, gear = _scene()
    gear = _at("lost", CABLE, True)(electrical, _at("cause", CABLE, int(Cause.PROTECTION))(electrical, gear)[1])[1]
    gear = _at("culprit", FAR, CABLE)(electrical, gear)[1]
    move = Move(branch=STUB, close=True)
    assert _names((electrical, gear), move) == ["no_close_after_trip"]
    shown = _at("cleared", CABLE, [True, False])(electrical, gear)
    assert _names(shown, move) == []
    other = _at("cleared", CABLE, [False, True])(electrical, gear)
    assert _names(other, move) == ["no_close_after_trip"]
    own = _at("cleared", STUB, [True, True])(*_at("cause", STUB, int(Cause.PROTECTION))(*shown))
    assert _names(own, move) == ["no_close_after_trip"]


def test_nobody_hears_an_order_without_a_stream() -> None:
    """objections: besides the rules, the stream of the switch's controller must be open."""
    electrical, gear = _scene()
    move = Move(branch=TIE, close=True)
    assert [found.rule for found in objections(electrical, gear, move, NOW_S)] == ["linked"]
    assert objections(*_at("linked", TIE, True)(electrical, gear), move, NOW_S) == ()


def test_an_operation_of_an_hour_ago_no_longer_counts() -> None:
    """operations_left: two within the hour are too many, of which one is an hour old by now."""
    scene = _operated_twice(*_scene())
    move = Move(branch=IN_B, close=False)
    assert [found.rule for found in findings(*scene, move, NOW_S + 0.9)] == ["operations_left"]
    assert findings(*scene, move, NOW_S + 1.1) == ()


# --- limits with an unknown position ----------------------------------------------------------------------------------


@cache
def _depot() -> Electrical:
    return load_site(DEPOT).must()


@cache
def _known(closed: bytes) -> Rows:
    return build_rows(_depot(), np.frombuffer(closed, np.bool_))


def _branches(*names: str) -> Ints:
    return np.array([_depot().branches.ids.index(name) for name in names], np.int64)


def _state(closed: Bools, held: Ints, *, believed: bool) -> tuple[Rows, ...]:
    """Rows of all combinations when the switches ``held`` are unknown, whatever is believed of them."""
    electrical = _depot()
    unknown = np.zeros(closed.shape, np.bool_)
    unknown[held] = True
    state = Uncertain(
        closed=np.where(unknown, believed, closed),
        held=unknown,
        in_service=electrical.branches.in_service,
        supply_alive=electrical.supplies.in_service,
        dark=np.zeros(electrical.buses.voltage_v.shape, np.bool_),
    )
    return tuple(rows for _, rows in build_state(electrical, state).parts)


def _free(rows: Rows, ceilings: Floats) -> Floats:
    """(L,) share of each limit that the ceilings and the worst of all other loads take; feasible = none above 1."""
    other = rows.load_share @ _depot().loads.worst_kw
    taken: Floats = (rows.limits.limit_flow(ceilings) + other) / rows.limits.capacity
    return taken


def _largest(parts: tuple[Rows, ...], direction: Floats) -> Floats:
    """The largest multiple of ``direction`` (n,) that satisfies the rows of all parts."""
    reach = []
    for rows in parts:
        room = rows.limits.capacity - rows.load_share @ _depot().loads.worst_kw
        flow = rows.limits.limit_flow(direction)
        reach.append(float((room[flow > 0] / flow[flow > 0]).min()))
    return direction * min(reach)


def _directions(count: int) -> list[Floats]:
    """Seeded: everybody, a few, or one half of the depot, in random proportions."""
    rng, n = np.random.default_rng(7), _depot().evse_count
    most = _depot().posts.max_ceiling
    some = [
        rng.uniform(0.0, 1.0, n) * most * (rng.uniform(0.0, 1.0, n) < share) for share in rng.uniform(0.05, 1, count)
    ]
    return [most.copy(), *some]


@pytest.mark.parametrize("believed", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        ("main-a",),
        ("main-b",),
        ("tie",),
        ("ats/preferred",),
        ("ats/alternate",),
        ("ats/preferred", "ats/alternate"),
        ("main-a", "tie"),
        ("tie", "ats/preferred", "ats/alternate"),
    ],
)
def test_limits_of_an_unknown_position_hold_for_both(names: tuple[str, ...], believed: bool) -> None:
    """Ceilings as large as the rows of the unknown state admit satisfy the rows of each known state."""
    electrical, held = _depot(), _branches(*names)
    normal = electrical.branches.normally_closed
    parts = _state(normal, held, believed=believed)
    halves = _branches("ats/preferred", "ats/alternate")
    states = 0
    for choice in itertools.product((False, True), repeat=len(names)):
        known = normal.copy()
        known[held] = choice
        if known[halves].all():
            continue  # the transfer switch's mechanical interlock forbids it
        states += 1
        for direction in _directions(20):
            ceilings = _largest(parts, direction)
            assert ceilings.max() > 0.0
            assert _free(_known(known.tobytes()), ceilings).max() <= 1.0 + 1e-9
    assert states >= 2 or names == ("ats/alternate",)


def test_what_only_both_halves_of_a_transfer_switch_would_feed_is_not_fed() -> None:
    """T2 lost, no side of the transfer switch certain: switchboard B hangs on neither side, no limit holds for it."""
    electrical, in_service = _depot(), _depot().branches.in_service.copy()
    in_service[_branches("T2")] = False
    halves = _branches("ats/preferred", "ats/alternate")
    closed, held = electrical.branches.normally_closed.copy(), np.zeros_like(in_service)
    closed[halves], held[halves] = True, True
    state = Uncertain(
        closed=closed,
        held=held,
        in_service=in_service,
        supply_alive=electrical.supplies.in_service.copy(),
        dark=np.zeros(len(electrical.buses.ids), np.bool_),
    )
    limits = build_state(electrical, state).limits
    on_board_b = np.isin(
        [electrical.buses.ids[b] for b in electrical.evse_bus], ["dc-5", "dc-6", "dc-7", "dc-8", "staff"]
    )
    assert (limits.energized == ~on_board_b).all()
    counted = limits.limit_flow(np.where(limits.energized, electrical.posts.max_ceiling, 0.0))
    assert counted.max() > 0.0


def test_the_limits_of_one_position_would_not_hold_for_the_other() -> None:
    """Why both are asked for: what the open tie admits overloads the closed one by tens of per cent."""
    normal, tie = _depot().branches.normally_closed, _branches("tie")
    closed = normal.copy()
    closed[tie] = True
    ceilings = _largest((_known(normal.tobytes()),), _depot().posts.max_ceiling)
    assert _free(_known(normal.tobytes()), ceilings).max() <= 1.0 + 1e-9
    assert _free(_known(closed.tobytes()), ceilings).max() > 1.1
