"""Supplies in parallel and rings: what joins them is named, and the mend is one that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerd.faults import Fault
from powerd.network.load import load_site

SITE = """site: yard
supplies: [{id: grid, bus: main}, {id: genset, bus: SECOND}]
buses: [{id: main, voltage_v: 400}, {id: panel, voltage_v: 400}, {id: gen, voltage_v: 400}]
feeders:
  - {id: F1, from_bus: main, to_bus: panel, length_m: 40, cable: NAYY 4x150 SE}
switches:
  - {id: Q1, kind: breaker, from_bus: gen, to_bus: panel}
  - {id: Q2, kind: bus_tie, from_bus: main, to_bus: gen, closed: false}
controller_classes: [{id: box, watchdog_s: 30}]
controllers: [{id: c1, class: box}]
evse_types: [{id: post, max_current_a: 32}]
station_groups: [{count: 2, id: "P{n}", bus: panel, controller: c1, type: post}]
"""


def faults(folder: Path, text: str, code: str) -> list[Fault]:
    """Those of this code."""
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    return [fault for fault in load_site(folder).faults if fault.code == code]


def test_what_connects_two_supplies_is_named_with_the_switch_to_open(tmp_path: Path) -> None:
    """By the way between them; the mends make it load."""
    text = SITE.replace("SECOND", "gen")
    (fault,) = faults(tmp_path, text, "parallel-supplies")
    assert (fault.element, fault.line) == ("genset", 2)
    assert fault.message == "is connected with supply grid by F1, Q1"
    assert fault.mend.startswith("write closed: false at Q1; or normally_feeding: false at genset if it stands by; or ")
    mends = (("to_bus: panel}", "to_bus: panel, closed: false}"), ("bus: gen}]", "bus: gen, normally_feeding: false}]"))
    assert not faults(tmp_path, text.replace("gen, to_bus: panel}", f"gen, {mends[0][1]}"), "parallel-supplies")
    assert not faults(tmp_path, text.replace(*mends[1]), "parallel-supplies")


@pytest.mark.parametrize(("second", "by"), [("main", "at bus main"), ("panel", "by F1")])
def test_two_supplies_without_a_switch_between(tmp_path: Path, second: str, by: str) -> None:
    """Nothing is there that could be opened: one is to be put there."""
    (fault,) = faults(tmp_path, SITE.replace("SECOND", second), "parallel-supplies")
    assert fault.message == f"is connected with supply grid {by}"
    assert fault.mend.startswith("put an open switch between them; or normally_feeding: false at genset")


def test_a_ring_is_named_with_the_switch_to_open(tmp_path: Path) -> None:
    """All of its branches."""
    text = SITE.replace(", {id: genset, bus: SECOND}", "").replace(", closed: false", "")
    (fault,) = faults(tmp_path, text, "closed-loop")
    assert fault.message == "closes a ring between main and gen: Q2, F1, Q1"
    assert fault.mend.startswith("write closed: false at Q2 or Q1; as drawn")
