"""Metered headroom: never more than there truly is, however late and out of step the meters are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control.headroom import HOLD_S, LATE_S, uncontrolled
from powerd.control.metered import SETTLE_S, uncontrolled_now
from powerd.state.impaired import Trigger
from powerd.state.meters import KEPT_S
from powerd.state.snapshot import reopen_snapshot
from tests.control.garage import Player, instant
from tests.control.metered import Plant, behind_a_thinner_feeder, metered_text, open_plant

#: What the shop of ``metered_text`` counts on the feeder when nobody measures it: 20 kW at 0.9 Un, power factor 1 [A].
WORST_A = 20_000 / (np.sqrt(3) * 0.9 * 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metered")


def _total(
    amps: float, *, now_s: float, age_s: float = 0.0, window_s: float = 1.0, power_kw: float = np.nan
) -> ev.MeterRead:
    return ev.MeterRead(
        meter=np.array([0]),
        incarnation=1,
        boottime_s=now_s,
        current=np.full((1, 3), amps),
        power_kw=np.array([power_kw]),
        start_age_s=np.array([age_s + window_s]),
        end_age_s=np.array([age_s]),
    )


def _modulated(folder: Path, text: str, seed: int, load: float, every_s: int, **settings_: Any) -> Plant:
    """A steady load beside cars that come, go and modulate: each draws another current every so many seconds."""
    wishes = np.random.default_rng(seed).choice([0.0, 10.0, 20.0, 32.0], (4, 12))

    def demand(evse: int, now_s: float) -> float:
        return float(wishes[evse, int(now_s // every_s) % 12])

    return open_plant(folder, text, load=lambda _: load, demand=demand, **settings_)


def _counted(player: Player) -> float:
    return float(uncontrolled(player.site, player.snapshot.meters, player.now_s)[0])


@settings(max_examples=6, deadline=None)
@given(
    load=st.floats(0, 60),
    meter_s=st.sampled_from([1.0, 2.0, 5.0]),
    post_s=st.sampled_from([1.0, 2.0, 3.0]),
    delay_s=st.floats(0, 2),
    lag_s=st.floats(0.2, 20),
    seed=st.integers(0, 2**31),
)
def test_a_steady_load_is_never_counted_too_low(
    load: float, meter_s: float, post_s: float, delay_s: float, lag_s: float, seed: int, folder: Path
) -> None:
    """While cars come, go and modulate, out of step with the meter, what counts is at least what the load draws."""
    text = metered_text(4, 100.0)
    plant = _modulated(folder, text, seed, load, 7, meter_s=meter_s, post_s=post_s, delay_s=delay_s, lag_s=lag_s)
    for _ in range(70):
        counted = plant.second()
        assert counted >= min(load, WORST_A) - 1e-6
        if plant.player.now_s > 3 + meter_s + delay_s:
            assert counted >= load - 1e-6


@settings(max_examples=4, deadline=None)
@given(
    load=st.floats(0, 60),
    meter_s=st.sampled_from([1.0, 10.0, 20.0]),
    post_s=st.sampled_from([15.0, 30.0, 60.0]),
    lag_s=st.floats(0.2, 20),
    seed=st.integers(0, 2**31),
)
def test_nor_where_posts_and_meters_are_read_slowly(
    load: float, meter_s: float, post_s: float, lag_s: float, seed: int, folder: Path
) -> None:
    """The same with posts that say once in a minute what they drew in it, or a meter that does in 20 s."""
    text = metered_text(4, 100.0, stale_after_s=60.0)
    plant = _modulated(folder, text, seed, load, 37, meter_s=meter_s, post_s=post_s, lag_s=lag_s, own_windows=True)
    for _ in range(240):
        counted = plant.second()
        if plant.player.now_s > 3 + meter_s:
            assert counted >= load - 1e-6


@settings(max_examples=4, deadline=None)
@given(
    meter_s=st.sampled_from([1.0, 2.0]),
    post_s=st.sampled_from([1.0, 3.0]),
    lag_s=st.floats(0.2, 12),
    seed=st.integers(0, 2**31),
)
def test_a_feeder_is_over_its_limit_only_while_a_rise_is_new(
    meter_s: float, post_s: float, lag_s: float, seed: int, folder: Path
) -> None:
    """The load jumps at random; what truly flows is above the limit only for the bounded time after a rise."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0, 70, 8)
    plant = open_plant(
        folder,
        metered_text(4, 100.0),
        load=lambda now_s: float(levels[int(now_s // 40) % 8]),
        meter_s=meter_s,
        post_s=post_s,
        lag_s=lag_s,
    )
    bound_s = meter_s + 1 + 5 + 1.5 * lag_s + 3  # seen, decided, reacted, followed
    for _ in range(200):
        plant.second()
        now_s, load, cars = plant.history[-1]
        if now_s % 40 > bound_s:
            assert load + cars.sum() <= 100.0 + 1e-6


def test_a_restart_switches_nobody_off_for_a_meter_that_has_just_spoken(folder: Path) -> None:
    """R7: its last value with the margin counts over the restart, not the whole limit; never less than truly flows."""
    plant = open_plant(folder, metered_text(4, 100.0, worst_kw=None), load=lambda _: 20.0)
    player = plant.player
    player.snapshot = replace(player.snapshot, boot="first")
    for _ in range(90):
        plant.second()
    restart(plant, down_s=4.0, boot="first")
    for _ in range(60):
        assert plant.second() >= 20.0 - 1e-6
        assert player.decision is not None
        assert player.decision.ceiling.min() >= 6.0
    assert plant.drawn.sum() == pytest.approx(80.0, abs=3.0)


@pytest.mark.parametrize("down_s", [3.0, 13.0])
def test_a_rise_that_was_read_before_a_restart_counts_after_it(folder: Path, down_s: float) -> None:
    """The load rises to 70 A, powerd reads that and is killed, and the meter dies: what the posts told is still known.

    All that the meter showed would be 94 A: the cars' 24 A are none of the load's, though they want more by then.
    """
    wants_s = [np.inf]
    plant = open_plant(
        folder,
        metered_text(4, 110.0, stale_after_s=60.0),
        load=lambda now_s: 20.0 if now_s < wants_s[0] else 70.0,
        demand=lambda _, now_s: 6.0 if now_s < wants_s[0] + down_s + 2.0 else 32.0,
        lag_s=0.5,
    )
    plant.player.snapshot = replace(plant.player.snapshot, boot="first")
    for _ in range(90):
        plant.second()
    wants_s[0] = plant.player.now_s + 0.01
    assert plant.second() < 21.0  # read, and not judged yet
    plant.silent_from_s = -np.inf
    restart(plant, down_s=down_s, boot="first")
    for _ in range(30):
        counted = plant.second()
        if plant.player.now_s > wants_s[0] + down_s + KEPT_S:
            assert 70.0 - 1e-6 <= counted <= 70.0 + 0.1 * 94.0 + 1e-6
            assert plant.history[-1][1] + plant.history[-1][2].sum() <= 110.0 + 1e-6


def test_a_meter_that_fell_silent_before_a_restart_is_silent_after_it(folder: Path) -> None:
    """A restart is no reading: the age of the last one goes on, with the time that powerd was down."""
    plant = open_plant(folder, metered_text(4, 100.0, stale_after_s=30.0), load=lambda _: 20.0)
    plant.player.snapshot = replace(plant.player.snapshot, boot="first")
    for _ in range(60):
        plant.second()
    plant.silent_from_s = -np.inf
    for _ in range(10):
        plant.second()
    restart(plant, down_s=15.0, boot="first")
    counted = [plant.second() for _ in range(8)]
    assert counted[0] == pytest.approx(20.0 + 0.1 * 100.0, abs=1.5)  # the last value, and 10 % of the reading
    assert counted[-1] == pytest.approx(WORST_A)


@pytest.mark.parametrize("boot", ["second", ""])
def test_after_a_restart_of_the_machine_no_reading_is_known(folder: Path, boot: str) -> None:
    """Nobody can say for sure how long it was off, whatever the wall clock shows: the configured worst counts."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda _: 20.0)
    plant.player.snapshot = replace(plant.player.snapshot, boot="first")
    for _ in range(60):
        plant.second()
    plant.silent_from_s = -np.inf
    restart(plant, down_s=4.0, boot=boot)
    assert plant.second() == pytest.approx(WORST_A)


def restart(plant: Plant, *, down_s: float, boot: str) -> None:
    """The daemon was down for so long; its machine went on, if this is the same boot."""
    player = plant.player
    player.now_s += down_s
    plant.history = [(now_s + down_s, load, cars) for now_s, load, cars in plant.history]
    player.snapshot = reopen_snapshot(player.snapshot, player.site.terms, instant(player.now_s), boot)
    before, player.decision = player.decision, None
    assert before is not None
    for controller in sorted(player.alive):
        evse = player.members(controller)
        player.hello(controller, highest_epoch=1)
        said = player.news.pop()
        assert isinstance(said, ev.HelloReceived)
        held = np.full(evse.shape[0], 10.0)
        player.news.append(replace(said, ceiling=before.ceiling[evse], remaining_s=held))


def test_a_hello_after_a_silence_lets_no_reading_of_before_it_speak_for_the_silence(folder: Path) -> None:
    """A controller is silent for 30 s, its cars stop at once, and what else is at the feeder takes what they took.

    The total has not changed, so only the posts could tell. Their controller says hello, and has no reading yet: what
    counts is never less than what flows.
    """
    plant = open_plant(folder, metered_text(4, 100.0, worst_kw=None), load=lambda _: 20.0)
    player = plant.player
    for _ in range(90):
        plant.second()
    mine = player.members(0)
    taken = float(plant.drawn[mine].sum())
    player.alive.discard(0)
    silent_s, plant.demand = player.now_s, lambda evse, _now_s: 0.0 if evse in mine else 32.0
    plant.load, plant.unheard = lambda now_s: 20.0 + taken * min(1.0, (now_s - silent_s) / 3.0), set(mine.tolist())
    for _ in range(30):
        plant.second()
    player.hello(0, highest_epoch=1)
    for _ in range(6):
        counted = plant.second()
        assert counted >= 20.0 + taken - 1.0


def test_when_all_is_still_the_whole_headroom_is_used(folder: Path) -> None:
    """The load draws 20 A steadily: cars get the other 80 A, not what the configured worst would leave."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda _: 20.0)
    for _ in range(240):
        plant.second()
    assert plant.drawn.sum() == pytest.approx(80.0, abs=1.0)


def test_slow_cars_do_not_swing(folder: Path) -> None:
    """openWB/core#1605, minceheid/openeo#13: cars that take 30 s to follow; once they settle, ceilings stand still."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda _: 30.0, lag_s=10.0, meter_s=2.0)
    seen = []
    for _ in range(400):
        plant.second()
        assert plant.player.decision is not None
        seen.append(plant.player.decision.ceiling.copy())
    late = np.array(seen[250:])
    assert np.ptp(late, axis=0).max() <= 0.5
    assert plant.drawn.sum() == pytest.approx(70.0, abs=1.5)


def test_posts_that_are_read_once_in_a_minute_share_the_headroom_all_the_same(folder: Path) -> None:
    """Their readings tell of the minute before: totals wait for them, or all that cars draw would look like a load."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda _: 30.0, post_s=60.0, own_windows=True)
    seen = []
    for _ in range(560):
        plant.second()
        assert plant.player.decision is not None
        seen.append(plant.player.decision.ceiling.sum())
    assert min(seen[380:]) > 60.0
    assert seen[-1] == pytest.approx(70.0, abs=1.0)


@pytest.mark.parametrize("offset_s", [5.0, 35.0])
def test_what_comes_and_goes_between_two_readings_of_the_posts_is_counted(folder: Path, offset_s: float) -> None:
    """60 A for a third of each minute: what the meter shows beyond W needs no reading of a post to be a load."""
    plant = open_plant(
        folder,
        behind_a_thinner_feeder(metered_text(4, 200.0, worst_kw=None), 100.0),
        load=lambda now_s: 60.0 if (now_s - offset_s) % 60.0 < 20.0 else 10.0,
        post_s=60.0,
        own_windows=True,
        lag_s=1.0,
    )
    over = []
    for _ in range(420):
        plant.second()
        _, load, cars = plant.history[-1]
        over.append(load + cars.sum() > 100.5)
    assert sum(over[180:]) <= 4 * 8
    assert plant.drawn.sum() > 20.0


def test_a_reading_of_another_switching_state_tells_nothing_of_this_one(folder: Path) -> None:
    """Posts that are read once in a minute tell of it late: until they have, the configured worst counts."""
    plant = open_plant(folder, metered_text(4, 200.0), load=lambda _: 5.0, post_s=60.0, own_windows=True)
    player = plant.player
    for _ in range(245):
        plant.second()
    moved_s = player.now_s
    player.snapshot = replace(player.snapshot, gear=replace(player.snapshot.gear, changed_at_s=moved_s))
    seen: list[tuple[float, float]] = []
    while not seen or seen[-1][1] < moved_s + SETTLE_S:
        plant.second()
        seen.append(
            (
                float(uncontrolled_now(player.site, player.snapshot, player.now_s).max()),
                float(player.snapshot.meters.settled_end_s[0]),
            )
        )
    assert len(seen) > 2 * SETTLE_S
    assert min(counted for counted, _ in seen[:-1]) >= WORST_A - 1e-6
    assert seen[-1][0] < 10.0


@pytest.mark.parametrize(("before_its_end_s", "believed"), [(12.0, False), (21.0, True)])
def test_a_window_that_began_in_another_switching_state_tells_nothing_of_this_one(
    folder: Path, before_its_end_s: float, believed: bool
) -> None:
    """Of a mean over 20 s a switch that moved 12 s before its end is less than two thirds."""
    plant = open_plant(folder, metered_text(4, 200.0), load=lambda _: 5.0, meter_s=20.0)
    player = plant.player
    for _ in range(130):
        plant.second()
    meters = player.snapshot.meters
    assert meters.newest_end_s[0] - meters.newest_start_s[0] == pytest.approx(20.0)
    moved_s = min(float(meters.settled_end_s[0]), float(meters.newest_end_s[0])) - before_its_end_s
    moved = replace(player.snapshot, gear=replace(player.snapshot.gear, changed_at_s=moved_s))
    counted = float(uncontrolled_now(player.site, moved, player.now_s).max())
    assert counted < 15.0 if believed else counted >= WORST_A - 1e-6


def test_a_meter_that_is_read_every_ten_seconds_is_not_late_between_two_readings(folder: Path) -> None:
    """Its margin would come and go with each of them, and all ceilings with it."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda _: 30.0, meter_s=10.0)
    seen = []
    for _ in range(320):
        plant.second()
        assert plant.player.decision is not None
        seen.append(plant.player.decision.ceiling.sum())
    assert np.ptp(seen[260:]) < 0.5
    assert seen[-1] == pytest.approx(70.0, abs=0.5)


def test_only_the_smallest_overlapping_reading_is_taken_off(folder: Path) -> None:
    """Total 60 A; the post showed 20 A, then 30 A while the total was sampled: 40 A are not charging, not 30."""
    player = Player.open(folder, metered_text(1, 100.0))
    player.plug(0)
    player.hello(0)
    player.tick()
    for _ in range(8):
        player.tick(player.draw({0: 20.0}))
    player.tick(player.draw({0: 30.0}), _total(60.0, now_s=player.now_s + 1))
    for _ in range(4):
        player.tick(player.draw({0: 30.0}))
    assert _counted(player) == pytest.approx(40.0)


def test_each_phase_counts_what_its_own_load_draws(folder: Path) -> None:
    """A meter shows 70, 20 and 0 A while the car draws 10 A on each of its phases: 60, 10 and 0 A are the load's.

    The first phase bounds a three-phase car; as the load moves over to the third, that one does.
    """
    player = Player.open(folder, metered_text(4, 100.0))
    for k in range(4):
        player.plug(k)
    for k in range(len(player.site.electrical.controllers.ids)):
        player.hello(k)
    player.tick()
    phase = {name: [l for l, own in enumerate(player.site.limits.phase) if own == name] for name in ("l1", "l2", "l3")}

    def shows(*amps: float) -> list[float]:
        drawn = player.draw({0: 10.0, 1: 0.0, 2: 0.0, 3: 0.0})
        total = replace(_total(0.0, now_s=player.now_s + 1), current=np.array([amps]))
        decision = player.tick(drawn, total)
        counted = uncontrolled_now(player.site, player.snapshot, player.now_s)
        assert np.all(player.site.limits.limit_flow(decision.ceiling) <= player.site.limits.capacity - counted + 1e-6)
        return [float(counted[own].max()) for own in phase.values()]

    for _ in range(120):
        counts = shows(70.0, 20.0, 0.0)
    assert counts == pytest.approx([60.0, 10.0, 0.0], abs=0.5)
    assert player.decision is not None
    assert player.decision.ceiling.sum() == pytest.approx(40.0, abs=0.5)
    for _ in range(120):
        counts = shows(10.0, 20.0, 90.0)
    assert counts[0] < 2.0  # it falls off slowly
    assert counts[1:] == pytest.approx([10.0, 80.0], abs=0.5)
    assert player.decision.ceiling.sum() <= 20.0 + 1e-6


def test_a_post_without_readings_counts_as_nothing(folder: Path) -> None:
    """An unmetered post may draw or not: all that the meter shows counts as the load's."""
    player = Player.open(folder, metered_text(1, 100.0))
    player.plug(0)
    player.hello(0)
    for _ in range(3):
        player.tick()
    for _ in range(20):
        player.tick(_total(60.0, now_s=player.now_s + 1))
    assert _counted(player) == pytest.approx(60.0)


def test_posts_where_no_car_is_hold_no_rise_back(folder: Path) -> None:
    """Nobody tells of six empty posts; a load that rises by 90 A is no less a load for what they could draw with cars.

    The meter's element stands it, and the feeder above, which has no meter, does not: nothing is over at once.
    """
    begins_s = [np.inf]
    player = Player.open(folder, behind_a_thinner_feeder(metered_text(10, 400.0, worst_kw=None), 200.0))
    for evse in range(4):
        player.plug(evse)
    for controller in range(len(player.site.electrical.controllers.ids)):
        player.hello(controller)
    plant = Plant(player, load=lambda now_s: 20.0 if now_s < begins_s[0] else 110.0, lag_s=1.0)
    plant.unheard = set(range(4, 10))
    for _ in range(120):
        plant.second()
    assert plant.drawn.sum() == pytest.approx(4 * 32.0, abs=1.0)
    begins_s[0] = player.now_s + 0.01
    counted = [plant.second() for _ in range(6)][-1]
    assert counted == pytest.approx(110.0, abs=0.5)


def test_a_reading_of_a_time_of_its_own_is_taken_off_for_that_time_alone(folder: Path) -> None:
    """Said once, of one second: then no window covers the post, and all that the meter shows counts as the load's."""
    player = Player.open(folder, metered_text(1, 100.0))
    player.plug(0)
    player.hello(0)
    for _ in range(120):
        player.tick(_total(0.0, now_s=player.now_s + 1))
    player.tick(replace(player.draw({0: 30.0}), window_s=1.0), _total(30.0, now_s=player.now_s + 1))
    assert _counted(player) < 2.0
    for _ in range(int(HOLD_S + 2 * KEPT_S)):
        player.tick(_total(30.0, now_s=player.now_s + 1))
    assert _counted(player) == pytest.approx(30.0)


def test_a_generator_makes_no_headroom(folder: Path) -> None:
    """50 A flow back to the grid: nothing counts as load, and cars get the rating and not 50 A more."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda _: -50.0)
    for _ in range(200):
        assert plant.second() >= 0.0
    assert plant.player.decision is not None
    assert plant.player.decision.ceiling.sum() <= 100.0 + 1e-6
    assert plant.drawn.sum() > 90.0


def test_a_rise_counts_at_once_where_the_meter_is_over_its_limit(folder: Path) -> None:
    """The load jumps from 10 to 70 A under full use: the very tick that hears of it lowers."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda now_s: 10.0 if now_s < 150 else 70.0, lag_s=0.5)
    for _ in range(150):
        plant.second()
    assert plant.player.decision is not None
    before = plant.player.decision.ceiling.sum()
    plant.second()
    assert before > 80.0
    assert plant.player.decision.ceiling.sum() < 50.0


def test_a_fall_is_lent_on_slowly(folder: Path) -> None:
    """The load drops from 70 to 0 A: the headroom comes back over a minute, not in one tick."""
    plant = open_plant(folder, metered_text(4, 100.0), load=lambda now_s: 70.0 if now_s < 60 else 0.0)
    for _ in range(60):
        plant.second()
    quick = [plant.second() for _ in range(15)][-1]
    assert quick > 35.0
    slow = [plant.second() for _ in range(120)][-1]
    assert slow < 5.0


def test_a_silent_meter(folder: Path) -> None:
    """evcc#14248: first the last value, then with the margin, then the configured worst; never more headroom."""
    plant = open_plant(folder, metered_text(4, 200.0), load=lambda _: 20.0, silent_from_s=100.0)
    counted = [plant.second() for _ in range(160)]
    total = plant.drawn.sum() + 20.0
    assert counted[98] == pytest.approx(20.0, abs=0.5)
    late = counted[int(100 + LATE_S + 2)]
    assert late == pytest.approx(20.0 + 0.1 * total, abs=1.0)
    assert counted[135] == pytest.approx(max(WORST_A, late), abs=1e-6)
    assert plant.player.decision is not None
    assert any("meter M is silent" in alarm for alarm in plant.player.decision.alarms)
    assert plant.player.decision.modes == (Trigger.METER_STALE,)


def test_a_meter_that_never_spoke_leaves_the_configured_worst(folder: Path) -> None:
    """From the first tick on, as if there were no meter."""
    player = Player.open(folder, metered_text(2, 100.0))
    player.tick()
    assert _counted(player) == pytest.approx(WORST_A)


def test_a_silent_meter_without_a_configured_worst_takes_the_whole_limit(folder: Path) -> None:
    """OpenEMS counts a missing grid meter as 0 W and goes on; here nothing is granted until it speaks."""
    plant = open_plant(folder, metered_text(4, 100.0, worst_kw=None), load=lambda _: 20.0, silent_from_s=100.0)
    plant.player.tick()
    assert plant.player.decision is not None
    assert plant.player.decision.ceiling.sum() == 0.0
    for _ in range(98):
        plant.second()
    assert plant.player.decision.ceiling.sum() > 70.0
    for _ in range(50):
        plant.second()
    assert plant.player.decision.ceiling.sum() == 0.0


def test_a_meter_of_power_alone_is_told_where_amperes_are_limited(folder: Path) -> None:
    """It speaks, and yet the whole limit counts as taken: nobody would know why all cars stand."""
    player = Player.open(folder, metered_text(2, 100.0, worst_kw=None))
    player.plug(0)
    player.hello(0)
    window = {"start_age_s": np.array([1.0]), "end_age_s": np.array([0.0])}
    for _ in range(5):
        power, current = np.array([1.0]), np.full((1, 3), np.nan)
        read = ev.MeterRead(
            meter=np.array([0]),
            incarnation=1,
            boottime_s=player.now_s + 1.0,
            current=current,
            power_kw=power,
            **window,
        )
        decision = player.tick(read)
    assert decision.ceiling.sum() == 0.0
    told = "meter M does not tell three currents: under limits in A the whole limit counts as taken"
    assert told in decision.alarms


def test_what_a_meter_leaves_out_makes_no_room(folder: Path) -> None:
    """It told of 70 A, then of its power alone: its currents are as silent as a meter that says nothing."""
    player = Player.open(folder, metered_text(1, 100.0))
    player.plug(0)
    player.hello(0)
    for _ in range(30):
        player.tick(_total(70.0, now_s=player.now_s + 1))
    assert _counted(player) == pytest.approx(70.0)
    for _ in range(20):
        player.tick(_total(np.nan, now_s=player.now_s + 1, power_kw=40.0))
        assert _counted(player) >= 70.0
    for _ in range(5):
        player.tick(_total(60.0, now_s=player.now_s + 1))
    assert 60.0 <= _counted(player) <= 70.0


def test_a_silent_meter_with_a_stated_worst(folder: Path) -> None:
    """``worst_a`` counts where no load is drawn behind the meter."""
    player = Player.open(folder, metered_text(2, 100.0, worst_kw=None, worst_a=37.0))
    player.tick()
    assert _counted(player) == pytest.approx(37.0)


def test_old_and_repeated_readings_change_nothing(folder: Path) -> None:
    """A reading that comes a second time, or late from a buffer, is not news: the meter still goes stale."""
    player = Player.open(folder, metered_text(1, 100.0, worst_kw=None))
    player.tick(_total(10.0, now_s=5.0))
    for _ in range(40):
        player.tick(_total(10.0, now_s=5.0))
    assert _counted(player) == pytest.approx(100.0)
    assert KEPT_S < 40
