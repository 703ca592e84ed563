"""One- and two-phase cars on three-phase posts: what they leave unused is lent on, and what they take back is declared.

EVerest#2631, evcc#26037 (a load on L3 must not throttle a one-phase car on L1), WARP's phase windows; the whole tick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerd.control import events as ev
from powerd.control.decision import Decision
from powerd.limits import Floats, Ints
from powerd.state.phases import STEADY_S
from tests.control.garage import REACTION, Player, site_text
from tests.scenarios.test_ask_18_imbalance import MOST_A, told

ROTATIONS = ("l123", "l231", "l312")


def text(posts: int, limit_a: float, extra: str = "", *, rotated: bool = False) -> str:
    """Posts that find out the phases of their cars, behind one feeder."""
    found = site_text(posts, limit_a).replace("max_current_a: 32", "max_current_a: 32, detects_phases: true")
    if rotated:
        for k in range(posts):
            found = found.replace(f"id: P{k}, type: t", f"id: P{k}, type: t, rotation: {ROTATIONS[k % 3]}")
    return found.replace("{id: main, voltage_v: 400}", f"{{id: main, voltage_v: 400{extra}}}")


@dataclass
class Hall:
    """A player whose cars draw what they may, on the phases of their own that they choose; ceilings lag 2 s."""

    player: Player
    bits: Ints
    """(n,) phases of the post that each car draws on."""
    past: list[Floats] = field(default_factory=list)

    @staticmethod
    def open(path: Path, text: str, bits: list[int]) -> Hall:
        player = Player.open(path, text)
        for c in range(len(player.site.electrical.controllers.ids)):
            player.hello(c)
        for k in range(len(bits)):
            player.plug(k)
        return Hall(player, np.array(bits), [np.zeros(len(bits))] * 3)

    def drawn(self) -> Floats:
        """(n, 3) currents of the posts' own phases now [A]."""
        return self.past[-3][:, None] * ((self.bits[:, None] >> np.arange(3)) & 1)

    def on_bus(self) -> Floats:
        """(3,) currents of the bus's phases [A]."""
        rotation = self.player.site.electrical.evse_rotation
        return sum((np.roll(own, int(turn)) for own, turn in zip(self.drawn(), rotation, strict=True)), np.zeros(3))

    def tick(self, seconds: int = 1) -> Decision:
        for _ in range(seconds):
            reading = ev.Measured(evse=np.arange(len(self.bits)), drawn=self.drawn())
            decision = self.player.tick(reading)
            self.past = [*self.past[-3:], decision.ceiling.copy()]
        return decision


def test_one_phase_cars_on_rotated_posts_get_a_phase_each(tmp_path: Path) -> None:
    """Three one-phase cars on rotated three-phase posts behind 32 A: a third each until a minute has shown that each
    uses a phase of its own, then 32 A each; and the driver is told.
    """
    hall = Hall.open(tmp_path, text(3, 32.0, rotated=True), [1, 1, 1])
    assert hall.tick(int(STEADY_S)).ceiling == pytest.approx(32.0 / 3, abs=1e-3)
    assert hall.tick(30).ceiling == pytest.approx(32.0, abs=1e-3)
    assert hall.on_bus() == pytest.approx(32.0, abs=1e-3)
    assert told(hall.player, 1).endswith("; it counts on L1 alone, the phases that its car uses")


def test_a_car_that_comes_back_on_a_phase_is_a_declared_overshoot(tmp_path: Path) -> None:
    """A car begins to draw on all three phases while others use two of them: all are lowered in that tick, the
    overshoot is declared as ``phase_return``, and it is over within ack + reaction.
    """
    hall = Hall.open(tmp_path, text(3, 32.0, rotated=True), [1, 1, 1])
    hall.tick(100)
    hall.bits[0] = 7
    decision = hall.tick()
    assert decision.ceiling[0] + decision.ceiling[1] <= 32.0 + 1e-6  # L2
    assert decision.ceiling[0] + decision.ceiling[2] <= 32.0 + 1e-6  # L3
    declared = [one for one in decision.overshoots if one.lasts]
    assert {one.cause for one in declared} == {"phase_return"}
    assert {one.limit for one in declared} == {"phase L2 of feeder F1", "phase L3 of feeder F1"}
    assert any("came back on a phase" in alarm for alarm in decision.alarms)
    bound_s = max(one.until_s for one in declared) - decision.now.boottime_s
    assert bound_s <= 15.0 * 1.001 + REACTION  # E; ack + reaction where it acks
    decision = hall.tick(int(REACTION) + 2)
    assert not any(one.lasts for one in decision.overshoots)
    assert np.all(hall.on_bus() <= 32.0 + 1e-6)


def test_balanced_cars_do_not_count_as_imbalance_once_they_are_known(tmp_path: Path) -> None:
    """Two three-phase cars under VDE-AR-N 4100: 10 A each while either could be charging on one phase, 32 A each once
    a minute has shown that both draw in step; a phase that drops out counts against the limit at once, and is not told
    as one that came back.
    """
    hall = Hall.open(tmp_path, text(2, 80.0, ", max_imbalance_kva: 4.6"), [7, 7])
    assert hall.tick(50).ceiling == pytest.approx(MOST_A / 2, abs=1e-3)
    assert hall.tick(40).ceiling == pytest.approx(32.0, abs=1e-3)
    hall.bits[0] = 3
    decision = hall.tick()
    assert decision.ceiling[0] <= MOST_A + 1e-6
    declared = [one for one in decision.overshoots if "imbalance" in one.limit]
    assert {one.cause for one in declared} == {"out_of_step"}
    assert any("no longer takes the same on all of its phases" in alarm for alarm in decision.alarms)
    assert not any("came back on a phase" in alarm for alarm in decision.alarms)


def test_another_car_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    """After an unplugging nothing is known of the next car: it counts on all three phases from its first grant."""
    hall = Hall.open(tmp_path, text(2, 32.0, rotated=True), [1, 1])
    assert hall.tick(100).ceiling == pytest.approx(32.0, abs=1e-3)
    hall.player.plug(0, False)
    hall.tick(3)
    hall.player.plug(0)
    hall.bits[0] = 7
    assert hall.tick(10).ceiling.sum() <= 32.0 + 1e-6


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 3, 7]), st.integers(5, 90)), min_size=1, max_size=3)
)
def test_no_phase_is_overloaded_but_in_a_declared_window(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, int]]
) -> None:
    """Four cars on rotated posts change their phases as they like: what really flows on each phase of the feeder stays
    below its limit in every second, except from the second in which a car changed until the declared overshoots that
    its reading brings have ended, and these end within their bound.
    """
    hall = Hall.open(tmp_path_factory.mktemp("hall"), text(4, 40.0, rotated=True), [1, 1, 7, 2])
    hall.tick(80)
    for evse, bits, seconds in changes:
        hall.bits[evse] = bits
        excused = True  # the reading of this second is the first to show it
        for _ in range(seconds):
            decision = hall.tick()
            excused = any(one.lasts for one in decision.overshoots)
            assert all(one.until_s >= decision.now.boottime_s for one in decision.overshoots if one.lasts)
            assert excused or np.all(hall.on_bus() <= 40.0 + 1e-6)
            assert np.all(decision.worst >= hall.drawn().max(axis=1) - 1e-6)  # I2
