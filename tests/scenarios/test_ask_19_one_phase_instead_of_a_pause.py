"""Ask 19, one phase instead of a pause, and a safe split while waiting for it (evcc#24932, EVerest#1038), whole ticks.

EVerest#1038: while one car's phase switch waited out its 10 min of hysteresis, both cars were given power, and a
breaker fell. Here contactors take their time, and in every second what could flow on each phase is summed post by post.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from powerd.control import events as ev
from powerd.control.decision import Decision, GrantBatch
from powerd.control.phase_switch import PATIENCE
from powerd.control.turns import MIN_OFF_S, ROTATION_S
from powerd.limits import Bools, Floats
from powerd.state.columns import replace
from tests.control.garage import LIFE, Player, site_text
from tests.scenarios.test_ask_18_imbalance import told

SWITCH_S = 20.0
"""How long a contactor takes; its post says nothing meanwhile [s]."""


@dataclass
class Hall(Player):
    """Posts that can connect L1 alone, each hung a phase further than the one before, and slow to do it."""

    one: set[int] = field(default_factory=set)
    """Whose contactors connect L1 alone."""
    moving: dict[int, float] = field(default_factory=dict)
    """Whose contactors move, and until when [s]."""
    moves: int = 0
    stuck: bool = False
    """Contactors begin to move and never arrive."""
    loads: float | Floats = 0.0
    """What flows besides [A]; (3,) for each phase."""

    @staticmethod
    def with_cars(path: Path, posts: int, limit_a: float, loads: str = "") -> Hall:
        """A hall with a car at each post."""
        text = site_text(posts, limit_a).replace("max_current_a: 32", "max_current_a: 32, switches_phases: true")
        for k in range(posts):
            turned = ("l123", "l231", "l312")[k % 3]
            text = text.replace(f"{{id: P{k}, type: t}}", f"{{id: P{k}, type: t, rotation: {turned}}}")
        opened = Player.open(path, text + (f"loads: [{loads}]\n" if loads else ""))
        hall = Hall(opened.site, opened.snapshot, opened.stepper)
        hall.hello(0)
        hall.hello(1)
        for k in range(posts):
            hall.plug(k)
        return hall

    def hello(self, controller: int, **said: float) -> None:
        """As every controller, and its posts switch."""
        super().hello(controller)
        hello = self.news.pop()
        assert isinstance(hello, ev.HelloReceived)
        self.news.append(_able(hello))

    def takes(self, batch: GrantBatch) -> Bools:
        """Who acks: a post that has to move its contactor offers nothing, and says nothing, until it has."""
        assert self.decision is not None
        done = np.ones(batch.evse.shape, np.bool_)
        for row, (evse, one) in enumerate(zip(batch.evse.tolist(), batch.one_phase.tolist(), strict=True)):
            if self.moving.get(evse, np.inf) <= self.now_s:
                del self.moving[evse]
                self.one ^= {evse}
            if one != (evse in self.one) and evse not in self.moving:
                assert self.decision.worst[evse] == batch.ceiling[row] == 0.0, "a contactor is moved under current"
                self.moving[evse] = np.inf if self.stuck else self.now_s + SWITCH_S
                self.moves += 1
            done[row] = evse not in self.moving
        return done

    def could_flow(self) -> Floats:
        """(3,) most that the posts could let flow on each phase of the feeder [A]; a moving contactor counts as open
        to all phases.
        """
        assert self.decision is not None
        total = np.zeros(3)
        for evse, worst in enumerate(self.decision.worst):
            alone = evse in self.one and evse not in self.moving
            total += worst * (np.arange(3) == evse % 3 if alone else np.ones(3))
        return total

    def readings(self) -> ev.Measured:
        """Every car draws its ceiling, on what its post has connected."""
        count = self.site.electrical.evse_count
        drawn = np.zeros((count, 3)) if self.decision is None else np.repeat(self.decision.ceiling[:, None], 3, axis=1)
        drawn[sorted(self.one), 1:] = 0.0
        drawn[~np.isin(np.arange(count), list(self.plugged))] = 0.0
        return ev.Measured(evse=np.arange(count), drawn=drawn)

    def run(self, seconds: float) -> Decision:
        """So many ticks; a post whose contactor has arrived asks for its grant again."""
        for _ in range(int(seconds)):
            arrived = [evse for evse, until_s in self.moving.items() if self.now_s >= until_s]
            decision = self.tick(ev.FreshWanted(evse=np.array(arrived, np.int64)), self.readings())
            assert np.all(self.could_flow() + self.loads <= self.site.limits.capacity.min() + 1e-6)
            assert not decision.overshoots, "switching is no reason for an overshoot"
        return decision


def _able(hello: ev.HelloReceived) -> ev.HelloReceived:
    return replace(hello, switches=np.ones(hello.evse.shape, np.bool_))


def test_ask_19_a_car_charges_on_one_phase_instead_of_waiting(tmp_path: Path) -> None:
    """Loads leave 16 A on L1 and 5 A on L2 and L3: on three phases no car could ever charge. The post whose first phase
    is L1 connects that alone after a minute, and its car gets all 16 A; that whose first phase is L2 stays as it is.
    """
    loads = ", ".join(
        f"{{id: heater-{p}, bus: panel, typical_kw: 2, worst_kw: 2.28, power_factor: 1, phases: {p}}}"
        for p in ("l2", "l3")
    )
    hall = Hall.with_cars(tmp_path, 2, 16.0, loads)
    hall.loads = np.array([0.0, 1.0, 1.0]) * 2280.0 * 3**0.5 / (0.9 * 400.0)
    decision = hall.run(PATIENCE.waits_s - 2)
    assert not decision.ceiling.any()
    assert not decision.snapshot.contactors.one.any()
    decision = hall.run(10)
    assert told(hall, 0) == "held at 0 A until its post has connected L1 alone"
    decision = hall.run(SWITCH_S)
    assert decision.ceiling.tolist() == [pytest.approx(16.0, abs=1e-3), 0.0]
    assert hall.one == {0}
    assert told(hall, 0) == (
        "held at 16 A by phase L1 of feeder F1 (test (16 A conductor)), together with 1 other; its post has connected "
        "L1 alone, for on three phases not everybody's minimum fitted"
    )


def test_ask_19_no_power_is_split_twice_while_switches_wait(tmp_path: Path) -> None:
    """9 A suffice for one car on three phases, or for one on each phase. Two wait; their posts connect their first
    phases, and the third's follows when its turn is over: from then on all charge, and nobody pauses any more.
    """
    hall = Hall.with_cars(tmp_path, 3, 9.0)
    assert np.count_nonzero(hall.run(PATIENCE.waits_s).ceiling) == 1
    hall.run(ROTATION_S + MIN_OFF_S + PATIENCE.waits_s + 60)
    for _ in range(60):
        assert hall.run(15).ceiling == pytest.approx(np.full(3, 9.0), abs=1e-3)
    assert hall.could_flow() == pytest.approx(np.full(3, 9.0), abs=1e-3)
    assert (hall.one, hall.moves) == ({0, 1, 2}, 3)


def test_ask_19_it_goes_back_to_three_phases_when_there_is_room(tmp_path: Path) -> None:
    """The other car leaves: for ten minutes after the last change nothing moves; after one more of room the car pauses,
    its post connects all phases, and it gets the whole limit on them. With the other car back, that one's post goes.
    """
    hall = Hall.with_cars(tmp_path, 2, 9.0)
    hall.run(PATIENCE.waits_s + SWITCH_S + 10)
    (stays,) = hall.one
    hall.plug(1 - stays, False)
    decision = hall.run(PATIENCE.between_s + PATIENCE.roomy_s - SWITCH_S - 20)
    assert decision.ceiling[stays] == pytest.approx(9.0, abs=1e-3)
    assert hall.moves == 1
    decision = hall.run(15)
    assert told(hall, stays) == "held at 0 A before its post connects all its phases again"
    decision = hall.run(MIN_OFF_S)
    assert decision.ceiling[stays] == pytest.approx(9.0, abs=1e-3)
    assert (hall.one, hall.moves) == (set(), 2)
    assert told(hall, stays).startswith("held at 9 A by phase L")
    assert not told(hall, stays).endswith("fitted")
    hall.plug(1 - stays)
    hall.run(PATIENCE.waits_s + SWITCH_S + 10)
    assert (hall.one, hall.moves) == ({1 - stays}, 3)


def test_ask_19_a_contactor_that_never_arrives_costs_nobody_anything(tmp_path: Path) -> None:
    """Nothing is granted on its word: the other car keeps all, and after five minutes it is given up, with an alarm."""
    hall = Hall.with_cars(tmp_path, 2, 9.0)
    hall.stuck = True
    alarms: list[str] = []
    for _ in range(int(PATIENCE.waits_s + PATIENCE.confirm_s) + 10):
        decision = hall.run(1)
        alarms += [alarm for alarm in decision.alarms if "has not said in 300 s that it connected L1 alone" in alarm]
        assert sorted(decision.ceiling) == [0.0, pytest.approx(9.0, abs=1e-3)]
    assert len(alarms) == 1
    assert not decision.snapshot.contactors.one.any()


def test_ask_19_a_current_elsewhere_is_believed_more_than_an_ack(tmp_path: Path) -> None:
    """A contactor that sticks: with the first reading on L2 the post counts on three phases, stops, and is told to go
    back.
    """
    hall = Hall.with_cars(tmp_path, 2, 9.0)
    hall.run(PATIENCE.waits_s + SWITCH_S + 10)
    (liar,) = hall.one
    hall.plug(1 - liar, False)
    hall.run(LIFE)
    decision = hall.tick(ev.Measured(evse=np.array([liar]), drawn=np.array([[9.0, 9.0, 9.0]])))
    assert decision.ceiling[liar] == 0.0
    assert any("draws on more than L1" in alarm for alarm in decision.alarms)
    assert decision.site.limits.limit_flow(np.eye(2)[liar]).tolist() == [1.0, 1.0, 1.0]


def test_ask_19_a_controller_that_does_not_know_how_is_left_alone(tmp_path: Path) -> None:
    """Its hello says nothing of switching: its cars take turns on three phases, whatever the site file says."""
    hall = Hall.with_cars(tmp_path, 2, 9.0)
    Player.hello(hall, 0)
    Player.hello(hall, 1)
    hall.run(3 * PATIENCE.waits_s)
    assert (hall.one, hall.moves) == (set(), 0)
