"""Plans on whole sites: what the playbook knows, what R5 refuses, what the cars of the moment choose, and what is made
before it is broken.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from powerd.control import switch_events as sw
from powerd.control.compiled import CompiledSite
from powerd.control.dry_run import forecast, planned
from powerd.control.events import Refused
from powerd.control.plans_ahead import PlanWork, plans_wanted
from powerd.control.question import asked_for, question_of
from powerd.control.switching import advance, answer
from powerd.network.interlocks import Move
from powerd.network.load import load_site
from powerd.network.plan import Planner, Question
from powerd.network.playbook import Loss, as_designed, contingencies, lose
from powerd.state.columns import put
from powerd.state.switchgear import Flag, Phase, PlanEntry, Position, ordered
from tests.control.substation import Substation, model

UPSTREAM, SYNC = int(Flag.UPSTREAM_LOST), int(Flag.SYNC)

TWO_HALVES = """
site: halves
title: Two boards and a tie
timezone: Europe/Berlin
supplies: [{id: a, bus: in-a}, {id: b, bus: in-b}]
buses:
  - {id: in-a, voltage_v: 400}
  - {id: in-b, voltage_v: 400}
  - {id: board-a, voltage_v: 400}
  - {id: board-b, voltage_v: 400}
switches:
  - {id: main-a, kind: breaker, from_bus: in-a, to_bus: board-a, rated_current_a: 63, operated_by: powerd}
  - {id: main-b, kind: breaker, from_bus: in-b, to_bus: board-b, rated_current_a: 63, operated_by: powerd}
  - {id: tie, kind: bus_tie, from_bus: board-a, to_bus: board-b, closed: false, rated_current_a: 63,
     operated_by: powerd}
controller_classes: [{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 5}]
controllers: [{id: c0, class: c}]
evse_types: [{id: one, phases: 1, max_current_a: 16, fallback_a: FALLBACK}]
station_groups:
  - {count: 4, id: "A{n}", bus: board-a, controller: c0, type: one, connections: [unknown_1p]}
  - {count: 4, id: "B{n}", bus: board-b, controller: c0, type: one, connections: [unknown_1p]}
"""

TRANSFER = """
site: panel
title: A panel on two services
timezone: Europe/Berlin
supplies: [{id: a, bus: in-a}, {id: b, bus: in-b}]
buses:
  - {id: in-a, voltage_v: 400}
  - {id: in-b, voltage_v: 400}
  - {id: panel, voltage_v: 400}
transfer_switches:
  - {id: t, kind: remote, preferred_bus: in-a, alternate_bus: in-b, load_bus: panel, rated_current_a: 100,
     operated_by: powerd, closed_transition: true, retransfer_delay_s: 60}
controller_classes: [{id: c, ttl_s: 15, reaction_s: 5, watchdog_s: 5}]
controllers: [{id: c0, class: c}]
evse_types: [{id: three, phases: 3, max_current_a: 32, fallback_a: 6}]
station_groups: [{count: 3, id: "P{n}", bus: panel, controller: c0, type: three}]
"""


def site_of(folder: Path, text: str) -> CompiledSite:
    """A site file, compiled."""
    (folder / "site.yaml").write_text(text, "utf-8")
    return CompiledSite.of(load_site(folder).must())


def background(station: Substation) -> PlanWork | None:
    """What the daemon's thread would be given after the last tick; its answer goes into the next one."""
    assert station.player.decision is not None
    work = plans_wanted(station.player.decision)
    if work is not None:
        station.news.append(work.run(station.player.stepper.planner))
    return work


@pytest.fixture
def depot() -> Substation:
    """The bus depot with every switch reported and its playbook made."""
    station = Substation.open(model("two_feeder_depot"))
    station.run(15)
    assert background(station) is not None
    station.run(2)
    return station


@pytest.mark.parametrize("lost", ["utility-a", "utility-b", "T1", "main-b"])
def test_a_loss_that_the_playbook_knows_is_answered_by_it_alone(
    depot: Substation, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the transfer switch moves by itself first: the tick asks nothing but the playbook."""

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Planner, "exact", never)
    monkeypatch.setattr(Planner, "heuristic", never)
    if lost.startswith("utility"):
        depot.supply(lost, lost=True)
    elif lost == "T1":
        depot.branch_lost(lost, flags=UPSTREAM)
    else:
        depot.moves(lost, closed=False, flags=UPSTREAM)
    if lost in ("utility-a", "T1"):
        depot.moves("ats/preferred", closed=False, flags=UPSTREAM)
        depot.moves("ats/alternate", closed=True)
    depot.run(40)
    assert depot.orders[-1] == (("main-b" if lost == "main-b" else "tie"), True)


def test_the_playbook_is_made_anew_for_what_is_left_in_service(depot: Substation) -> None:
    """T1 out for maintenance: once the depot is fed by B, the losses from there are planned, and never T1 itself."""
    out = sw.ServiceChanged(
        request_id="m", kind=sw.ElementKind.BRANCH, indices=(depot.branch("T1"),), in_service=False, reason="oil"
    )
    depot.tick(out)
    depot.run(60)
    assert ("tie", True) in depot.orders
    work = background(depot)
    assert work is not None
    assert work.ahead
    assert not work.question.known[depot.branch("T1")]
    lost = {loss.name for losses, _ in contingencies(work.electrical, work.question) for loss in losses}
    assert "T1" not in lost
    assert {"utility-b", "T2", "main-b"} <= lost
    before = list(depot.orders)
    depot.run(30)
    assert depot.orders == before


def test_pairs_are_planned_where_affordable() -> None:
    """N-2: every pair of the depot's losses has its question; on a ring of fifteen switches only single ones."""
    for name, pairs in (("two_feeder_depot", True), ("campus_ring", False)):
        electrical = model(name).electrical
        start = as_designed(electrical, Planner.of(electrical))
        asked = [losses for losses, _ in contingencies(electrical, start)]
        singles = [losses for losses in asked if len(losses) == 1]
        count = len(singles)
        assert len(asked) - count == (count * (count - 1) // 2 if pairs else 0)


def test_a_state_that_breaks_r5_is_refused(tmp_path: Path) -> None:
    """Eight posts of unknown phase fall back to 10 A: 80 A could meet on one phase of a 63 A main, which the planner's
    own bound does not see; with 7 A they fit and the tie is closed.
    """
    for fallback, fits in ((7, True), (10, False)):
        electrical = site_of(tmp_path, TWO_HALVES.replace("FALLBACK", str(fallback))).electrical
        planner = Planner.of(electrical)
        asked = lose(electrical, as_designed(electrical, planner), Loss(kind="supply", index=0, name="a"))
        assert Planner(planner.grid).exact(asked).steps == (-1, 3)
        for plan in (planner.exact(asked), planner.heuristic(asked), planner.program(asked)):
            assert plan.steps == ((-1, 3) if fits else ())


def test_a_state_that_breaks_r5_is_told_when_it_is_seen(tmp_path: Path) -> None:
    """Somebody closed the tie by hand after a was lost: an alarm names the main that cannot hold the fallbacks."""
    station = Substation.open(site_of(tmp_path, TWO_HALVES.replace("FALLBACK", "10")))
    station.run(10)
    assert not any("without a grant" in alarm for alarm in station.alarms)
    station.supply("a", lost=True)
    station.moves("main-a", closed=False, flags=UPSTREAM)
    station.moves("tie", closed=True)
    station.run(5)
    told = [alarm for alarm in station.alarms if "without a grant in this switching state" in alarm]
    assert told
    assert all("main-b" in alarm or "tie" in alarm for alarm in told)


def back(station: Substation, seconds: int) -> None:
    """a is lost, the panel goes to b; a returns, and so much time passes."""
    station.run(10)
    station.supply("a", lost=True)
    station.run(30)
    assert station.orders == [("t/preferred", False), ("t/alternate", True)]
    station.orders.clear()
    station.supply("a", lost=False)
    station.run(seconds)


def test_with_a_sync_check_nobody_is_interrupted_on_the_way_back(tmp_path: Path) -> None:
    """Make before break where the switchgear's own sync check permits it; the panel never loses its voltage."""
    station = Substation.open(site_of(tmp_path, TRANSFER))
    back(station, 10)
    for _ in range(90):
        station.flags[station.branch("t/preferred")] = SYNC
        station.tick()
        assert "panel" in station.live()
    assert station.orders == [("t/preferred", True), ("t/alternate", False)]


def test_without_a_sync_check_it_breaks_before_it_makes(tmp_path: Path) -> None:
    """No permissive reported: opened first."""
    station = Substation.open(site_of(tmp_path, TRANSFER))
    back(station, 80)
    assert station.orders == [("t/alternate", False), ("t/preferred", True)]


def test_two_halves_that_stay_closed_are_parted(tmp_path: Path) -> None:
    """Made first, and then the other half refuses to open: the one that was closed last opens again, and while both
    are closed an alarm says which supplies are together.
    """
    station = Substation.open(site_of(tmp_path, TRANSFER))
    back(station, 10)
    station.refusing = {station.branch("t/alternate")}
    for _ in range(120):
        station.flags[station.branch("t/preferred")] = SYNC
        station.tick()
        assert "panel" in station.live()
    assert station.orders == [("t/preferred", True), ("t/alternate", False), ("t/preferred", False)]
    assert "a and b are connected together" in station.alarms
    assert "a and b are connected together" not in station.player.decision.alarms  # type: ignore[union-attr]


TOGETHER = TWO_HALVES.replace("FALLBACK", "7") + "permissions: {parallel_supplies: true}\n"


def home_with_sync(station: Substation, refusing: set[str], seconds: int) -> None:
    """Service a is lost and back; every sync check permits a closing, and some switches will not open again."""
    station.run(10)
    station.supply("a", lost=True)
    station.run(30)
    assert station.orders == [("main-a", False), ("tie", True)]
    station.orders.clear()
    station.supply("a", lost=False)
    for _ in range(seconds):
        station.flags[:] = SYNC
        station.refusing = {station.branch(name) for name in refusing if station.closed[station.branch(name)]}
        station.tick()


@pytest.mark.parametrize(("refusing", "opens"), [({"tie"}, ["main-a"]), ({"tie", "main-a"}, ["main-a", "main-b"])])
def test_supplies_that_an_opening_in_vain_left_together_are_parted(
    tmp_path: Path, refusing: set[str], opens: list[str]
) -> None:
    """On the way back main-a is closed first, and the tie refuses to open: what was closed opens again, and where that
    refuses too another one that parts them; nobody loses a voltage, and then it is left at that.
    """
    station = Substation.open(site_of(tmp_path, TOGETHER))
    home_with_sync(station, refusing, 600)
    assert station.orders == [("main-a", True), ("tie", False), *((name, False) for name in opens)]
    assert station.live() >= {"board-a", "board-b"}
    assert "a and b are connected together" in station.alarms
    assert "a and b are connected together" not in station.player.decision.alarms  # type: ignore[union-attr]


def test_supplies_that_an_operator_brings_together_are_not_parted(tmp_path: Path) -> None:
    """As the site and the sync check permit: a plan that is asked for parts what powerd closed, and nothing else."""
    station = Substation.open(site_of(tmp_path, TOGETHER))
    station.flags[:] = SYNC
    station.run(10)
    station.tick(sw.SwitchOrdered(request_id="", branch=station.branch("tie"), close=True, reason="load test"))
    station.run(20)
    assert station.orders == [("tie", True)]
    electrical, planner, tie = station.player.site.electrical, station.player.stepper.planner, station.branch("tie")
    gear = station.player.snapshot.gear
    gear = replace(gear, refused=put(gear.refused, station.branch("main-b"), True))  # so there is no way home
    own = replace(gear, ordered_by_hand=np.zeros_like(gear.ordered_by_hand))
    asked = asked_for(electrical, station.player.snapshot.sessions)
    told = [
        answer(electrical, planner, one, question_of(electrical, one, asked, station.player.now_s))[0]
        for one in (gear, own)
    ]
    assert told == [(), (-(tie + 1),)]


def test_supplies_that_are_drawn_together_stay_so(tmp_path: Path) -> None:
    """The tie is drawn closed: powerd closed main-a again, something else has refused, and nothing is parted."""
    station = Substation.open(site_of(tmp_path, TOGETHER.replace("closed: false", "closed: true")))
    station.run(10)
    electrical, gear, now_s = station.player.site.electrical, station.player.snapshot.gear, station.player.now_s
    gear = ordered(gear, station.branch("main-a"), Position.CLOSED, now_s)
    gear = replace(gear, refused=put(gear.refused, station.branch("main-b"), True))
    question = question_of(electrical, gear, asked_for(electrical, station.player.snapshot.sessions), now_s)
    assert answer(electrical, station.player.stepper.planner, gear, question)[0] == ()


@pytest.mark.parametrize("delay_s", [0, 20, 400])
def test_a_transfer_switch_goes_back_after_its_own_delay(tmp_path: Path, delay_s: int) -> None:
    """``retransfer_delay_s`` of the switch that powerd operates, and no other."""
    text = TRANSFER.replace("retransfer_delay_s: 60", f"retransfer_delay_s: {delay_s}")
    station = Substation.open(site_of(tmp_path, text))
    back(station, max(1, delay_s - 2))
    assert station.orders == []
    station.run(4)
    assert station.orders[:1] == [("t/alternate", False)]


def test_what_is_told_of_plans_is_what_would_be_done() -> None:
    """The ring could deliver more by another state; nothing is dark, so nothing would be switched, and that is told."""
    campus = Substation.open(model("campus_ring"))
    campus.run(3)
    assert campus.player.decision is not None
    nothing = np.zeros(0, np.int64)
    plan, question, _ = planned(campus.player.decision, campus.player.stepper.planner, nothing, nothing)
    assert plan.steps == ()
    assert campus.player.stepper.planner.heuristic(question).steps != ()
    lost = np.array([campus.branch("S1")])
    plan, _, _ = planned(campus.player.decision, campus.player.stepper.planner, lost, nothing)
    assert [campus.player.site.electrical.branches.ids[abs(step) - 1] for step in plan.steps] == [
        "breaker-1",
        "sw1-open",
    ]


@pytest.mark.parametrize("local", [False, True])
def test_a_plan_is_told_after_what_moves_by_itself(depot: Substation, local: bool) -> None:
    """utility-a lost: the critical half goes over to lv-b before powerd plans, also where that can do nothing."""
    depot.flags[depot.branch("main-a")] = int(Flag.LOCAL) if local else 0
    decision, planner = depot.run(3), depot.player.stepper.planner
    told, question, _ = planned(decision, planner, np.zeros(0, np.int64), np.zeros(1, np.int64))
    depot.moves("ats/preferred", closed=False, flags=UPSTREAM)
    depot.moves("ats/alternate", closed=True)
    depot.supply("utility-a", lost=True)
    depot.run(40)
    names = depot.player.site.electrical.branches.ids
    assert [(names[abs(step) - 1], step > 0) for step in told.steps] == depot.orders
    assert bool(depot.orders) is not local
    fed, live = planner.fed(question, told.closed), depot.player.snapshot.gear.bus_live
    np.testing.assert_array_equal(fed, live)


def test_an_operators_order_into_a_state_that_breaks_r5_is_refused(tmp_path: Path) -> None:
    """Both boards on one main: with fallbacks of 10 A dry run and order name the limit, with 7 A they find nothing."""
    for fallback, rules in ((7, []), (10, ["keeps_reserve"])):
        station = Substation.open(site_of(tmp_path, TWO_HALVES.replace("FALLBACK", str(fallback))))
        station.run(5)
        station.tick(sw.SwitchOrdered(request_id="", branch=station.branch("main-a"), close=False, reason="work"))
        decision = station.run(10)
        close = Move(branch=station.branch("tie"), close=True)
        told = forecast(decision, station.player.stepper.planner, close)
        assert [found.rule for found in told.findings] == rules
        asked = sw.SwitchOrdered(request_id="", branch=close.branch, close=True, reason="x")
        outcome = station.tick(asked).outcomes[-1]
        assert isinstance(outcome, Refused) == bool(rules)


def test_a_permissive_that_goes_away_before_the_order_is_not_relied_on(tmp_path: Path) -> None:
    """Planned to make first, and the sync check is gone when there is room: no order, nothing is held against the
    switch, and another way is asked for.
    """
    station = Substation.open(site_of(tmp_path, TRANSFER))
    back(station, 10)
    electrical, planner = station.player.site.electrical, station.player.stepper.planner
    one, other = station.branch("t/preferred"), station.branch("t/alternate")
    waiting = replace(
        station.player.snapshot.gear, phase=int(Phase.MAKING_ROOM), steps=(one + 1, -(other + 1)), wants_plan=False
    )
    assert station.player.decision is not None
    full = electrical.posts.max_ceiling
    found = advance(electrical, planner, waiting, full, lambda _: {}, station.player.decision.now)
    assert found.order is None
    assert found.gear.wants_plan
    assert not found.gear.refused.any()
    assert found.gear.steps == ()


def test_a_better_plan_that_wakes_nobody_is_not_carried_out(depot: Substation) -> None:
    """The background finds a state with more to deliver: what is alive is not interrupted for it."""
    assert depot.player.decision is not None
    gear = depot.player.snapshot.gear
    depot.moves("ats/preferred", closed=False, flags=UPSTREAM)
    depot.moves("ats/alternate", closed=True)
    depot.run(10)
    work = PlanWork(electrical=depot.player.site.electrical, question=depot_question(depot), ahead=False)
    entry = PlanEntry(key=work.question.key, steps=(-(depot.branch("main-a") + 1), depot.branch("tie") + 1))
    depot.tick(sw.PlansReady(base="", entries=(entry,)))
    depot.run(20)
    assert gear.phase == 0
    assert depot.orders == []


def depot_question(station: Substation) -> Question:
    """What the tick would ask now."""
    state = station.player.snapshot
    electrical = station.player.site.electrical
    return question_of(electrical, state.gear, asked_for(electrical, state.sessions), station.player.now_s)
