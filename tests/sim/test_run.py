"""The loop is lock-step: changes are seen at 1 s, quiet spans are long, and the same seed gives the same run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from powerd.sim.cars import Battery
from powerd.sim.plant import Truth
from powerd.sim.policies import Answer, EqualShare, Moment, Pace, Uncontrolled
from powerd.sim.run import LEAD_S, STATES_AFTER_S, Agenda, Loop, Record, needed_kwh
from powerd.sim.scene import Scene, set_scene
from powerd.sim.sessions import RecordedSession, read_sessions
from tests.sim.scenes import GARAGE, WEEK, busy_morning, session


@pytest.fixture(scope="module", name="garage")
def _garage() -> Scene:
    return set_scene(site=GARAGE, sessions=WEEK, first=None, days=1, cap_kw=None, seed=1)


@dataclass
class Spy(Uncontrolled):
    """An uncontrolled garage that notes what it was told."""

    scene: Scene
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.scene.electrical.posts)

    def decide(self, moment: Moment) -> Answer:
        self.moments.append(moment)
        return super().decide(moment)


def _run(scene: Scene, sessions: tuple[RecordedSession, ...], battery: Battery = Battery.IDEAL) -> tuple[Spy, Record]:
    loop = Loop(posts=scene.electrical.posts, sessions=sessions, plant=scene.plant(), battery=battery, seed=1)
    with Spy(scene) as spy:
        return spy, loop.run(spy)


def test_every_event_is_told_at_its_second(garage: Scene) -> None:
    """Plug, statement one second later, unplug; the statement only where the driver said something."""
    told = session("CA-314", 0, 600, 0.5, said_kwh=9.0)
    silent = session("CA-315", 100, 300, 0.5)
    spy, record = _run(garage, (told, silent))
    ids = garage.electrical.posts.ids
    plugs = {ids[m.plugged[0]]: m.elapsed_s for m in spy.moments if m.plugged}
    leaves = {ids[m.unplugged[0]]: m.elapsed_s for m in spy.moments if m.unplugged}
    stated = [(ids[m.started[0][0]], m.elapsed_s) for m in spy.moments if m.started]
    assert plugs == {"CA-314": LEAD_S, "CA-315": LEAD_S + 100}
    assert leaves == {"CA-314": LEAD_S + 600, "CA-315": LEAD_S + 400}
    assert stated == [("CA-314", LEAD_S + STATES_AFTER_S)]
    assert [s.session.session_id for s in record.served] == [silent.session_id, told.session_id]


def test_steps_are_short_around_changes_long_when_quiet_and_jump_over_nights(garage: Scene) -> None:
    """1 s for the quiet time after each change, then the longest step; no instant while nobody is there."""
    first, second = session("CA-314", 0, 1800, 100.0), session("CA-314", 40_000, 60, 0.1)
    spy, _ = _run(garage, (first, second))
    at = np.array([m.elapsed_s for m in spy.moments])
    steps = dict(zip(at.tolist(), np.diff(at, append=at[-1]).tolist(), strict=True))
    assert all(steps[s] == 1 for s in range(LEAD_S, LEAD_S + Uncontrolled.pace.quiet_s))
    assert max(v for s, v in steps.items() if LEAD_S <= s < 1800) == Uncontrolled.pace.longest_s
    assert max(steps.values()) > 30_000
    assert LEAD_S + 40_000 in steps


def test_a_swap_of_cars_takes_a_second() -> None:
    """Two recorded stays that touch are still one car out, then the other in."""
    agenda = Agenda((session("CA-314", 0, 60, 1.0), session("CA-314", 60, 60, 1.0)), {"CA-314": 0})
    leaving, coming, _ = agenda.due(LEAD_S + 60)
    assert (leaving, coming) == ([(0, 0)], [(0, 0)])
    leaving, coming, _ = agenda.due(LEAD_S + 61)
    assert (leaving, coming) == ([], [(0, 1)])


def test_the_need_is_what_the_car_took_but_no_more_than_the_post_can_give() -> None:
    """32 A at 208 V in half an hour are 3.328 kWh."""
    scene = set_scene(site=GARAGE, sessions=WEEK, first=None, days=1, cap_kw=None, seed=1)
    posts = scene.electrical.posts
    evse = posts.ids.index("CA-314")
    assert needed_kwh(session("CA-314", 0, 1800, 50.0), posts, evse) == pytest.approx(3.328)
    assert needed_kwh(session("CA-314", 0, 1800, 2.0), posts, evse) == 2.0


@pytest.mark.parametrize("battery", list(Battery))
def test_energy_in_the_cars_is_energy_through_the_meter(garage: Scene, battery: Battery) -> None:
    """What all cars got equals the site's power integrated over the steps, to the last fraction of a full car."""
    recorded = read_sessions(WEEK)[:12]
    loop = Loop(posts=garage.electrical.posts, sessions=recorded, plant=garage.plant(), battery=battery, seed=3)
    plant = loop._plant
    with Uncontrolled(garage.electrical.posts) as policy:
        record = loop.run(policy)
    series = plant.close().series
    metered = float(series.site_kw @ series.seconds) / 3600.0
    got = sum(s.delivered_kwh for s in record.served)
    assert got == pytest.approx(metered, rel=2e-3)
    assert all(s.delivered_kwh <= s.needed_kwh + 1e-9 for s in record.served)


def _morning(tmp_path: Path, seed: int) -> tuple[Record, Truth]:
    scene = set_scene(site=GARAGE, sessions=busy_morning(tmp_path), first=None, days=None, cap_kw=40.0, seed=seed)
    loop = Loop(
        posts=scene.electrical.posts, sessions=scene.sessions, plant=scene.plant(), battery=Battery.TAPER, seed=seed
    )
    plant = loop._plant
    with EqualShare(scene.electrical.posts, scene.limits, scene.allowed) as policy:
        return loop.run(policy), plant.close()


def test_the_same_seed_gives_the_same_run_and_another_one_another(tmp_path: Path) -> None:
    """All randomness comes from the seed."""
    (one, truth), (same, again), (other, _) = _morning(tmp_path, 1), _morning(tmp_path, 1), _morning(tmp_path, 2)
    assert one.served == same.served
    assert truth.series.loading_percent.tobytes() == again.series.loading_percent.tobytes()
    assert one.served != other.served


def test_settled_loads_are_distinct_and_stood(garage: Scene) -> None:
    """One entry for each load that lasted, in order of appearance; none while a car still follows."""
    _, record = _run(garage, (session("CA-314", 0, 600, 100.0), session("CA-303", 200, 200, 100.0)))
    loads = [tuple(np.flatnonzero(s.drawn)) for s in record.settled]
    a, b = garage.electrical.posts.ids.index("CA-314"), garage.electrical.posts.ids.index("CA-303")
    assert loads == [(a,), tuple(sorted((a, b)))]
    assert all(set(s.drawn[s.drawn > 0]) == {32.0} for s in record.settled)


def test_a_policy_sets_the_pace(garage: Scene) -> None:
    """Short leases make short steps."""

    class Hasty(Uncontrolled):
        pace = Pace(longest_s=3, quiet_s=4)

    loop = Loop(
        posts=garage.electrical.posts,
        sessions=(session("CA-314", 0, 300, 100.0),),
        plant=garage.plant(),
        battery=Battery.IDEAL,
        seed=1,
    )
    plant = loop._plant
    with Hasty(garage.electrical.posts) as policy:
        loop.run(policy)
    series = plant.close().series
    assert series.seconds[series.plugged > 0].max() == 3
