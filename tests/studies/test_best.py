"""The two judges of what could be energised: trying every position, and the program, which shares no line with it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from powerd.network.load import load_site
from powerd.sim.outage import Cause
from powerd.sim.relays import operated
from powerd.sim.world import World
from powerd.studies.best import most_stated, most_tried, owed
from powerd.studies.outages import Study

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def depot() -> Study:
    """A full depot, steady."""
    return Study(load_site(MODELS / "two_feeder_depot"))


def struck(study: Study, *names: str, cause: Cause = Cause.UPSTREAM) -> World:
    """The world right after these were lost."""
    world = study.house.fork()
    for name in names:
        world.strike(study.element(name), cause)
    world.gear.advance(world.now_s + 1.0)
    return world


def stated(world: World, free: np.ndarray, known: int = 0) -> int:
    """What the program says."""
    found = most_stated(world, free, known=known)
    assert found is not None
    return found.count


def test_both_judges_agree_on_every_pair(depot: Study) -> None:
    """Every single and double loss of the depot, both causes; also where the program is told what is known already."""
    found = []
    for k, cause in itertools.product((1, 2), Cause):
        for some in itertools.combinations([element.name for element in depot.elements], k):
            world = struck(depot, *some, cause=cause)
            free = np.array([b for b in operated(depot.electrical) if b not in world.gear.refuses], np.int64)
            free = free[~world.gear.faulted[free]]
            tried = most_tried(world, free).count
            assert stated(world, free) == tried, (some, cause)
            assert stated(world, free, known=max(0, tried - 1)) == tried
            assert stated(world, free, known=tried) == tried
            assert owed(world) == tried  # though no tick has told yet what has a voltage
            found.append(tried)
    assert {0, 20, 40, 60} <= set(found)


def test_ratings_bind_in_both(depot: Study) -> None:
    """With cars that keep more and more without a grant fewer and fewer can be fed together: the same in both."""
    posts = depot.electrical.posts
    before, found = posts.fallback.copy(), []
    try:
        for factor in (1.0, 2.0, 4.0, 6.0):
            posts.fallback[:] = np.minimum(before * factor, posts.max_ceiling)
            world = struck(depot, "utility-a")
            free = np.array(operated(depot.electrical), np.int64)
            found.append(most_tried(world, free).count)
            assert stated(world, free) == found[-1]
    finally:
        posts.fallback[:] = before
    assert found[0] == 60
    assert found[-1] < 60


def test_the_ring_is_judged_by_the_program() -> None:
    """Fifteen switches are too many to try; S1 lost: all ten car parks can have a voltage, S2 lost: all but one."""
    campus = Study(load_site(MODELS / "campus_ring"))
    for supply, cause, most in (
        ("S1", Cause.UPSTREAM, 500),
        ("S2", Cause.UPSTREAM, 450),
        ("S1", Cause.PROTECTION, 100),
    ):
        world = struck(campus, supply, cause=cause)
        gear = world.gear
        free = [b for b in operated(campus.electrical) if gear.sound[b] and not gear.faulted[b]]
        assert stated(world, np.array(free, np.int64)) == most
