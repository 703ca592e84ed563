"""Imbalance and neutral rows in the kernels and in the statement: one answer."""

from __future__ import annotations

import numpy as np

from powerd.allocation.problem import Program
from powerd.allocation.rows import rows_of
from powerd.allocation.solve import Solver
from powerd.allocation.stage import Stage
from powerd.limits import Limits
from powerd.network.rows import build_rows
from powerd.network.supply import normal_positions
from tests.network.drawings import Drawing


def car_park(seed: int) -> Limits:
    """Twenty posts of all kinds on three panels; imbalance at the top and at one panel, two thin neutrals."""
    rng = np.random.default_rng(seed)
    drawing = Drawing()
    main = drawing.bus()
    drawing.supply(main)
    panels = [drawing.bus() for _ in range(3)]
    feeders = [drawing.feeder(main, panel, 150.0) for panel in panels]
    for _ in range(20):
        drawing.evse(int(rng.choice(panels)), str(rng.choice(["l1", "l2", "l3", "l12", "l23", "l123", "dc"])))
    drawing.imbalance = {main: 90.0, panels[0]: 20.0}
    drawing.neutral = {feeders[1]: 20.0, feeders[2]: 25.0}
    electrical = drawing.electrical()
    return build_rows(electrical, normal_positions(electrical)).limits


def stage_of(limits: Limits, seed: int) -> Stage:
    """Everybody wants everything, with weights within a factor of 10."""
    rows, count = rows_of(limits), limits.real.shape[1]
    return Stage(
        rows=rows,
        free=np.ones(count, dtype=np.bool_),
        weight=np.exp(np.random.default_rng(seed).uniform(-1.2, 1.2, count)),
        lower=np.zeros(count),
        upper=np.full(count, 32.0),
        base_real=np.zeros(rows.row_count),
        base_imag=np.zeros(rows.row_count),
        headroom=limits.capacity[limits.limit_of_row],
    )


def test_the_kernel_and_the_statement_agree_on_imbalance_and_neutral() -> None:
    """Ten car parks: each answer proved, within 1e-3 A of the statement's with its own terms for these rows, both of
    which bind. (The statement stops at a gap of 1e-10, which leaves a ceiling of 30 A uncertain by 30 A sqrt(2e-10).)
    """
    bound = set()
    for seed in range(10):
        limits = car_park(seed)
        stage, program = stage_of(limits, seed), Program(rows_of(limits))
        ours, certificate = Solver().solve(limits, stage, np.zeros(limits.row_count))
        best = program.solve(stage)
        assert best is not None
        assert certificate.holds
        assert np.abs(ours.x - best.x).max() <= 1e-3
        bound |= {limits.kind[limits.limit_of_row[r]] for r in np.flatnonzero(best.price > 1e-4)}
    assert {"imbalance", "neutral"} <= bound
