"""The drawn garage has exactly the published limits."""

from __future__ import annotations

import numpy as np
import pytest

from powerd.network.electrical import Electrical
from powerd.network.load import load_site
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import normal_positions
from tests.models.acn_caltech import AV_STEPS, CC_POD, CC_STEPS, PAIRS, PRIMARY_A, published_rows
from tests.models.full_demand import MODELS

#: Published limit to the limits of the drawing that say the same; a pod's current flows on both of its phases.
SAME = {
    "CC Pod": ("phase L1 of switch cc-breaker", "phase L2 of switch cc-breaker"),
    "AV Pod": ("phase L1 of switch av-breaker", "phase L2 of switch av-breaker"),
    "Secondary A": ("phase L1 of transformer T1, low side",),
    "Secondary B": ("phase L2 of transformer T1, low side",),
    "Secondary C": ("phase L3 of transformer T1, low side",),
    "Primary A": ("phase L1 of transformer T1, high side",),
    "Primary B": ("phase L2 of transformer T1, high side",),
    "Primary C": ("phase L3 of transformer T1, high side",),
}


@pytest.fixture(scope="module")
def garage() -> tuple[Electrical, Rows]:
    """Columns and rows of the garage."""
    electrical = load_site(MODELS / "caltech_garage").must()
    return electrical, build_rows(electrical, normal_positions(electrical))


def _full_row(rows: Rows, name: str) -> np.ndarray:
    """Complex coefficients of the row of a limit that holds all its posts."""
    limit = rows.limits.name.index(name)
    mine = np.flatnonzero(rows.limits.limit_of_row == limit)
    dense = rows.limits.real[mine].toarray() + 1j * rows.limits.imag[mine].toarray()
    full: np.ndarray = dense[np.argmax((dense != 0).sum(axis=1))]
    return full


def test_site_has_no_fault() -> None:
    """The loader finds nothing to say."""
    assert load_site(MODELS / "caltech_garage").faults == ()


def test_limits_are_the_published_ones(garage: tuple[Electrical, Rows]) -> None:
    """Capacity, magnitude and mutual angle of every coefficient equal the published ones to 1e-9, none left over."""
    electrical, rows = garage
    published = published_rows(electrical.posts.ids)
    assert sorted(n for names in SAME.values() for n in names) == sorted(rows.limits.name)
    for name, (expected, limit_a) in published.items():
        for ours in SAME[name]:
            got = _full_row(rows, ours)
            assert rows.limits.capacity[rows.limits.name.index(ours)] == pytest.approx(limit_a, abs=1e-9)
            np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=1e-9)
            products = np.outer(expected.conj(), expected)
            np.testing.assert_allclose(np.outer(got.conj(), got), products, atol=1e-9, err_msg=ours)


def test_posts_are_the_published_ones(garage: tuple[Electrical, Rows]) -> None:
    """54 posts, each between its pair of phases, with its own pilot steps and fallback 0."""
    posts = garage[0].posts
    assert set(posts.ids) == {f"CA-{i}" for _, ids in PAIRS.values() for i in ids}
    assert posts.count == 54
    for index, name in enumerate(posts.ids):
        expected = CC_STEPS if name[3:] in CC_POD else AV_STEPS
        assert posts.pilot_steps[index].tolist() == list(expected)
        assert posts.min_ceiling[index] == expected[1]
        assert posts.max_ceiling[index] == 32.0
    assert not posts.fallback.any()
    np.testing.assert_allclose(posts.kw_per_unit, 0.208)


def test_full_row_alone_would_let_a_primary_reach_115_percent(garage: tuple[Electrical, Rows]) -> None:
    """Ceilings that just fill the published row of Primary A overload it by 15 % once the BC posts draw nothing.

    AB at 32 A each, BC at the b for which abs(AB + BC e^(-j120)) / 4 is the limit. Our subset rows refuse them.
    """
    electrical, rows = garage
    group = {name: np.array([i[3:] in ids for i in electrical.posts.ids]) for name, (_, ids) in PAIRS.items()}
    whole = published_rows(electrical.posts.ids)["Primary A"][0]
    a = 32.0 * group["AB"].sum()
    b = (a - np.sqrt(4 * (4 * PRIMARY_A) ** 2 - 3 * a**2)) / 2
    x = np.where(group["AB"], 32.0, np.where(group["BC"], b / group["BC"].sum(), 0.0))
    assert x.max() <= 32.0
    assert abs(whole @ x) == pytest.approx(PRIMARY_A)
    alone = abs(whole @ np.where(group["BC"], 0.0, x))
    assert alone / PRIMARY_A == pytest.approx(1.152, abs=0.001)
    limit = rows.limits.name.index("phase L1 of transformer T1, high side")
    assert rows.limits.limit_flow(x)[limit] == pytest.approx(alone)
