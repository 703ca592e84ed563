"""pandapower's mv_oberrhein with charging stations, as a site that studies can play."""

from __future__ import annotations

import pytest

from powerd.network.load import load_site
from powerd.sim.outage import Cause
from powerd.studies.best import owed
from powerd.studies.command import remark
from powerd.studies.outages import Study
from tests.studies.oberrhein import write


@pytest.fixture(scope="module")
def oberrhein(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A full house on it, steady."""
    return Study(load_site(write(tmp_path_factory.mktemp("oberrhein"))))


def test_it_is_the_net_that_ships_with_pandapower(oberrhein: Study) -> None:
    """322 switches, two transformers and two supplies of its own; 25 stations of ten posts are ours."""
    names = [element.name for element in oberrhein.elements]
    assert sum(name.startswith("s") and not name.startswith("station") for name in names) == 322
    assert {"t114", "t142", "grid0", "grid1"} <= set(names)
    assert oberrhein.electrical.posts.count == 250


@pytest.mark.parametrize(("lost", "live"), [("grid1", 140), ("t142", 140)])
def test_what_has_a_voltage_is_not_dropped_for_what_has_none(oberrhein: Study, lost: str, live: int) -> None:
    """Half of the net dark, the other half full: forty EVSEs lost their voltage so that twenty others got one, whose
    loads were worth half as much again with their pick-up.
    """
    found = oberrhein.play((oberrhein.element(lost),), Cause.UPSTREAM)
    assert found.kept, remark(found)
    assert found.live == live


def test_on_the_way_to_feed_all_it_does_not_turn_back(oberrhein: Study) -> None:
    """s1 opened for want of a voltage: s149, s107, s144 feed all; after two of them "as drawn" was no worse than to
    stay, so it went back there and left twenty EVSEs dark.
    """
    found = oberrhein.play((oberrhein.element("s1"),), Cause.UPSTREAM)
    assert found.kept, remark(found)
    assert (found.lost, found.restored, found.live) == (20, 20, 250)


def test_power_comes_before_the_number_of_those_who_are_fed(oberrhein: Study) -> None:
    """s277 lost: a voltage for 220 instead of 210 EVSEs would take it from ten others and from more load. With a tenth
    less load they can have it from a state that delivers more.
    """
    world, loads = oberrhein.house.fork(), oberrhein.electrical.loads
    world.strike(oberrhein.element("s277"), Cause.UPSTREAM)
    world.run(30)
    assert (int(world.live.sum()), owed(world)) == (210, 210)
    before = loads.worst_kw.copy()
    try:
        loads.worst_kw[:] = 0.9 * before
        assert owed(world) == 220
    finally:
        loads.worst_kw[:] = before


@pytest.mark.parametrize(
    ("lost", "live"),
    [
        (("s0", "s80"), 210),  # s95 opened, and its loads' pick-up left no room to close anything again
        (("station52", "s294"), 210),  # loads that had just come back still took theirs
        (("t142", "s236"), 140),  # what t142 was said to carry too much hid what the plan broke
    ],
)
def test_nobody_is_interrupted_for_a_closing_that_will_not_fit(
    oberrhein: Study, lost: tuple[str, str], live: int
) -> None:
    """Thirty EVSEs and more lost their voltage to a plan whose next step waited two minutes for room in vain."""
    found = oberrhein.play((oberrhein.element(lost[0]), oberrhein.element(lost[1])), Cause.UPSTREAM)
    assert found.kept, remark(found)
    assert found.live == live
