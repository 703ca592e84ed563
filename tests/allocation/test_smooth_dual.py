"""Phasor stages with weights over twelve decades: every one is solved and proves itself."""

from __future__ import annotations

import numpy as np
import pytest

from powerd.allocation.certificate import judge
from powerd.allocation.rows import rows_of
from powerd.allocation.smooth_dual import PACES, solve_smoothed
from powerd.allocation.solve import Solver
from powerd.allocation.stage import Stage
from powerd.limits import Limits
from tests.allocation.sites import delta_wye


def _stage(seed: int, spread: float) -> tuple[Limits, Stage]:
    """Line-to-line posts under a delta winding, weights exp(-spread) to exp(spread)."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 60))
    limits = delta_wye(count, seed, float(rng.uniform(20, count * 12)))
    rows = rows_of(limits)
    return limits, Stage(
        rows=rows,
        free=np.ones(count, dtype=np.bool_),
        weight=np.exp(rng.uniform(-spread, spread, count)),
        lower=np.where(rng.random(count) < 0.3, rng.uniform(0.0, 0.3, count), 0.0),
        upper=rng.uniform(6.0, 32.0, count),
        base_real=np.zeros(rows.row_count),
        base_imag=np.zeros(rows.row_count),
        headroom=limits.capacity[limits.limit_of_row],
    )


@pytest.mark.parametrize("first", range(0, 60, 15))
def test_no_stage_falls_to_the_guard(first: int) -> None:
    """Sixty stages with weights over 1e12: gap and rows within the certificate's tolerances, path "conic"."""
    for seed in range(first, first + 15):
        limits, stage = _stage(seed, 13.8)
        _, certificate = Solver().solve(limits, stage, np.zeros(limits.row_count))
        assert certificate.path == "conic", seed
        assert certificate.holds, (seed, certificate)


@pytest.mark.parametrize("seed", range(12))
def test_it_agrees_with_the_conic_solver_where_both_answer(seed: int) -> None:
    """Two methods that share no code, weights within a factor of 1000."""
    limits, stage = _stage(seed, 3.45)
    conic, certificate = Solver().solve(limits, stage, np.zeros(limits.row_count))
    assert certificate.holds
    answers = [found for pace in PACES if (found := solve_smoothed(stage, pace)) is not None]
    proved = [found for found in answers if judge(stage, found, "conic").holds]
    assert proved
    np.testing.assert_allclose(proved[0].x, conic.x, atol=2e-3)
