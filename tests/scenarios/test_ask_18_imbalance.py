"""Ask 18, imbalance (Schieflast) supervision (evcc#14261, #150, openWB/core#1121, EVerest#2631), on the whole tick.

A car park behind one house connection: VDE-AR-N 4100 lets two phases differ by 4.6 kVA there, 20 A.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from powerd.limits import Floats
from powerd.server.core import Drawn
from powerd.server.explain import reason
from tests.control.garage import Player
from tests.scenarios.test_field_asks import full_house, one_phase_text

MOST_A = 4600.0 * 3**0.5 / 400.0


def connection_text(connections: list[str], loads: str = "") -> str:
    """One-phase and three-phase 32 A posts behind a house connection with the limit of VDE-AR-N 4100."""
    text = one_phase_text(connections, 200.0, loads)
    text = text.replace("{id: main, voltage_v: 400}", "{id: main, voltage_v: 400, max_imbalance_kva: 4.6}")
    for k, connection in enumerate(connections):
        if connection == "l123":
            text = text.replace(f"id: P{k}, type: t, connection: l123", f"id: P{k}, type: three")
    kinds = "evse_types: [{id: t, phases: '1', max_current_a: 32}, {id: three, phases: '3', max_current_a: 32}]"
    return text.replace("evse_types: [{id: t, phases: '1', max_current_a: 32}]", kinds)


def differences(drawn: Floats) -> float:
    """Most by which two phases differ [A], of ``drawn`` (n, 3)."""
    phase = drawn.sum(axis=0)
    return float(phase.max() - phase.min())


def worst_difference(player: Player, connections: list[str]) -> float:
    """The worst that cars can make of their W: each takes all or nothing, on any phases its post has."""
    assert player.decision is not None
    choices = []
    for k, connection in enumerate(connections):
        on = [i for i in range(3) if connection in (f"l{i + 1}", "l123")]
        subsets = [[i for i, yes in zip(on, taken, strict=True) if yes] for taken in product((0, 1), repeat=len(on))]
        choices.append([np.isin(np.arange(3), s) * float(player.decision.worst[k]) for s in subsets])
    return max(differences(np.array(one)) for one in product(*choices))


def told(player: Player, evse: int) -> str:
    """What a driver reads."""
    assert player.decision is not None
    return reason(cast(Drawn, SimpleNamespace(electrical=player.site.electrical)), player.decision, evse)


def test_ask_18_phases_never_differ_by_more_than_the_connection_allows(tmp_path: Path) -> None:
    """Three cars on L1, one on L2: L1's share 20 A, L2's car is not held back by them, and whatever subset of the cars
    draws, in every tick, no two phases differ by more than 4.6 kVA.
    """
    connections = ["l1", "l1", "l1", "l2"]
    player = Player.open(tmp_path, connection_text(connections))
    player.hello(0)
    for k in range(4):
        player.plug(k)
        for _ in range(8):
            player.tick()
            assert worst_difference(player, connections) <= MOST_A + 1e-6
    decision = player.tick()
    assert decision.ceiling == pytest.approx(np.array([MOST_A / 3] * 3 + [MOST_A]), abs=1e-3)
    assert told(player, 0) == (
        "held at 6.64 A by the imbalance of L1 over the other phases at bus main (4.6 kVA between phases), together "
        "with 2 others"
    )


def test_ask_18_a_three_phase_post_counts_until_its_car_is_known(tmp_path: Path) -> None:
    """A car at a three-phase post may charge on one phase only: with a car on L1 beside it the two share that limit."""
    connections = ["l1", "l123"]
    player = full_house(tmp_path, connection_text(connections), 2)
    assert player.tick().ceiling == pytest.approx(MOST_A / 2, abs=1e-3)
    assert worst_difference(player, connections) == pytest.approx(MOST_A, abs=1e-3)


def test_ask_18_loads_on_one_phase_take_their_part_of_the_imbalance(tmp_path: Path) -> None:
    """A 2.07 kW heater on L1 (10 A at the lowest voltage) leaves L1's car 10 A, and L2's car all of its 20 A."""
    load = "{id: heater, bus: panel, typical_kw: 2, worst_kw: 2.07, power_factor: 1, phases: l1}"
    player = full_house(tmp_path, connection_text(["l1", "l2"], load), 2)
    heater = 2070.0 * 3**0.5 / (0.9 * 400.0)
    assert player.tick().ceiling == pytest.approx(np.array([MOST_A - heater, MOST_A]), abs=1e-3)


def test_ask_18_cars_leave_and_the_others_rise(tmp_path: Path) -> None:
    """When two of three cars on L1 leave, the third gets the whole 20 A."""
    player = full_house(tmp_path, connection_text(["l1", "l1", "l1"]), 3)
    player.plug(1, False)
    player.plug(2, False)
    for _ in range(8):
        decision = player.tick()
    assert decision.ceiling[0] == pytest.approx(MOST_A, abs=1e-3)
