"""The garage's conic answer against the robust optimum of the cvxpy statement, and against rows of magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from powerd.allocation.problem import Program
from powerd.allocation.rows import rows_of
from powerd.allocation.solve import Solver
from powerd.allocation.stage import Stage
from powerd.limits import Limits
from powerd.network.load import load_site
from powerd.network.rows import build_rows
from powerd.network.supply import normal_positions
from tests.models.full_demand import MODELS


@pytest.fixture(scope="module")
def garage() -> Limits:
    """The garage's limits, phasor rows and all."""
    electrical = load_site(MODELS / "caltech_garage").must()
    return build_rows(electrical, normal_positions(electrical)).limits


def _stage(limits: Limits, seed: int) -> Stage:
    """A random evening: 20 % to all of the posts wanted, weights within a factor of 100."""
    rng = np.random.default_rng(seed)
    rows, count = rows_of(limits), limits.real.shape[1]
    free = rng.random(count) < rng.uniform(0.4, 1.0)
    return Stage(
        rows=rows,
        free=free,
        weight=np.exp(rng.uniform(-2.3, 2.3, count)),
        lower=np.zeros(count),
        upper=rng.choice([16.0, 32.0], count),
        base_real=np.zeros(rows.row_count),
        base_imag=np.zeros(rows.row_count),
        headroom=limits.capacity[limits.limit_of_row] * rng.uniform(0.3, 0.9),
    )


def _utility(stage: Stage, x: np.ndarray) -> float:
    return float(np.sum(stage.weight[stage.free] * np.log(x[stage.free])))


def test_the_answer_is_the_robust_optimum(garage: Limits) -> None:
    """Ten seeded demands: within 0.1 % of each post's ceiling in utility, and of the amperes in all."""
    program, solver = Program(rows_of(garage)), Solver()
    for seed in range(10):
        stage = _stage(garage, seed)
        ours, certificate = solver.solve(garage, stage, np.zeros(garage.row_count))
        best = program.solve(stage)
        assert best is not None
        assert certificate.path == "conic"
        total = float(stage.weight[stage.free].sum())
        assert _utility(stage, ours.x) >= _utility(stage, best.x) - 1e-6 * total
        assert ours.x.sum() == pytest.approx(best.x.sum(), rel=1e-3)
        assert np.all(np.hypot(garage.real @ ours.x, garage.imag @ ours.x) <= stage.headroom + 1e-6)


def _linear(limits: Limits) -> Limits:
    """The same limits with the magnitudes of each limit's fullest row added up, whatever the angles."""
    size = np.hypot(limits.real.toarray(), limits.imag.toarray())
    largest = np.zeros((limits.capacity.shape[0], size.shape[1]))
    np.maximum.at(largest, limits.limit_of_row, size)
    return Limits(
        real=sp.csr_array(largest),
        imag=sp.csr_array(largest.shape),
        limit_of_row=np.arange(largest.shape[0]),
        capacity=limits.capacity,
        unit=limits.unit,
        kind=limits.kind,
        name=limits.name,
        element=limits.element,
        phase=limits.phase,
        source=limits.source,
        energized=limits.energized,
        tree=None,
    )


def test_phasor_rows_give_at_least_what_sums_of_magnitudes_give(garage: Limits) -> None:
    """ACN's "LINEAR" rows add currents without their angles: never a better optimum, and fewer amperes in the mean."""
    plain, solver = _linear(garage), Solver()
    more = []
    for seed in range(10):
        stage = _stage(garage, seed)
        ours, _ = solver.solve(garage, stage, np.zeros(garage.row_count))
        rows = rows_of(plain)
        scale = float((stage.headroom / garage.capacity[garage.limit_of_row])[0])
        nothing = np.zeros(rows.row_count)
        other = Stage(
            rows=rows,
            free=stage.free,
            weight=stage.weight,
            lower=stage.lower,
            upper=stage.upper,
            base_real=nothing,
            base_imag=nothing,
            headroom=scale * plain.capacity,
        )
        theirs, _ = solver.solve(plain, other, nothing)
        assert _utility(stage, ours.x) >= _utility(stage, theirs.x) - 1e-6
        more.append(ours.x.sum() / theirs.x.sum())
    assert min(more) >= 1.0 - 1e-6
