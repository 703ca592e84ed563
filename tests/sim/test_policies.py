"""The baselines do what they are compared as."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.limits import Floats
from powerd.sim.policies import EqualShare, Moment, Uncontrolled
from powerd.sim.scene import Scene, set_scene
from tests.sim.scenes import GARAGE, START, WEEK


@cache
def _tight() -> Scene:
    """The garage with 20 kW: not all minima fit."""
    return set_scene(site=GARAGE, sessions=WEEK, first=None, days=1, cap_kw=20.0, seed=1)


def _moment(count: int, plugged: Sequence[int] = (), unplugged: Sequence[int] = ()) -> Moment:
    return Moment(
        utc=START,
        elapsed_s=0,
        unplugged=tuple(unplugged),
        plugged=tuple(plugged),
        started=(),
        drawn=np.zeros(count),
    )


def _fits(scene: Scene, ceilings: Floats) -> bool:
    return bool((scene.limits.limit_flow(ceilings) <= scene.allowed * (1 + 1e-9)).all())


def test_uncontrolled_gives_every_plugged_car_its_rating() -> None:
    """Whatever the wires say; and nothing to a post without a car."""
    tight = _tight()
    posts = tight.electrical.posts
    with Uncontrolled(posts) as policy:
        assert policy.decide(_moment(posts.count, plugged=range(10))).ceilings.sum() == 320.0
        assert not _fits(tight, policy.decide(_moment(posts.count)).ceilings)
        assert policy.decide(_moment(posts.count, unplugged=range(9))).ceilings.sum() == 32.0


@settings(max_examples=40)
@given(st.permutations(range(54)), st.integers(1, 54))
def test_the_equal_share_is_equal_fits_and_cannot_be_raised(order: list[int], count: int) -> None:
    """All served cars get one value as far as their pilots allow, and no larger one fits every row."""
    tight = _tight()
    posts = tight.electrical.posts
    with EqualShare(posts, tight.limits, tight.allowed) as policy:
        ceilings = policy.decide(_moment(posts.count, plugged=order[:count])).ceilings
    served = np.flatnonzero(ceilings)
    assert set(served.tolist()) <= set(order[:count])
    assert _fits(tight, ceilings)
    for evse in served.tolist():
        assert ceilings[evse] in posts.pilot_steps[evse]

    def at(value: float) -> Floats:
        """Everybody served at ``value``, rounded down to its pilots."""
        below = [posts.pilot_steps[i][posts.pilot_steps[i] <= max(value, posts.min_ceiling[i])].max() for i in served]
        raised = np.zeros(posts.count)
        raised[served] = below
        return raised

    level = max(v for v in range(6, 33) if (ceilings == at(v)).all())
    assert not any(_fits(tight, at(v)) for v in range(level + 1, 33))


def test_who_does_not_fit_waits_and_moves_up() -> None:
    """With all 54 cars minima do not fit 20 kW: the last ones wait, and one is served when an early one leaves."""
    tight = _tight()
    posts = tight.electrical.posts
    order = [posts.ids.index(e) for e in sorted(posts.ids)]
    with EqualShare(posts, tight.limits, tight.allowed) as policy:
        before = policy.decide(_moment(posts.count, plugged=order)).ceilings
        served = {i for i in order if before[i] > 0}
        assert order[0] in served
        assert order[-1] not in served
        after = policy.decide(_moment(posts.count, unplugged=order[:3])).ceilings
        assert {i for i in order if after[i] > 0} - served
