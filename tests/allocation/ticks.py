"""Random ticks on random trees: limits that fall to zero and come back, weights over twelve decades, turnover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from powerd.allocation.rows import rows_of
from powerd.allocation.stage import Stage
from powerd.limits import Bools, Floats, Limits
from tests.allocation.sites import random_tree


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One tick's stage, and the plain arrays it came from for an independent judge."""

    limits: Limits
    stage: Stage
    spread: float
    """Natural logarithm of the largest weight ratio."""

    def reduced(self) -> tuple[Limits, Floats, Floats, Floats, Floats]:
        """Limits, headroom, weight, lower, upper over the free EVSEs alone."""
        free = np.flatnonzero(self.stage.free)
        alone = replace(self.limits, real=sp.csr_array(self.limits.real[:, free]), imag=self.limits.imag[:, free])
        room = self.stage.headroom - self.stage.base_real
        return alone, room, self.stage.weight[free], self.stage.lower[free], self.stage.upper[free]


def _loads(limits: Limits, rows: Bools) -> Bools:
    """Which EVSEs load one of the marked rows."""
    return np.asarray((limits.real[np.flatnonzero(rows)] != 0).sum(axis=0)).ravel() > 0


def stage_of(limits: Limits, weight: Floats, lower: Floats, upper: Floats) -> Stage | None:
    """The stage with dead EVSEs (under a row with no room above the lower bounds) and uncontested ones out of it."""
    lower = lower.copy()
    dead = np.zeros(len(weight), dtype=np.bool_)
    while True:
        full = limits.real @ np.where(dead, 0.0, lower) > limits.capacity - 1e-6
        more = _loads(limits, full) & ~dead
        if not more.any():
            break
        dead |= more
    lower = np.where(dead, 0.0, lower)
    contested = _loads(limits, limits.real @ np.where(dead, 0.0, upper) > limits.capacity)
    free = ~dead & contested & (upper > lower + 1e-6)
    if not free.any():
        return None
    base = limits.real @ np.where(free | dead, 0.0, upper)
    return Stage(
        rows=rows_of(limits),
        free=free,
        weight=weight,
        lower=lower,
        upper=upper,
        base_real=base,
        base_imag=np.zeros_like(base),
        headroom=np.maximum(limits.capacity, base),
    )


def cases(seed: int, ticks: int, *, smallest: float = 2.0, largest: float = 300.0) -> Iterator[Case]:
    """Ticks of one random site; some ticks have nothing to decide and are left out."""
    rng = np.random.default_rng(seed)
    count = int(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    site = random_tree(count, seed, tightness=float(rng.choice([0.3, 0.7, 1.2])))
    spread = float(rng.choice([0.5, 3.45, 13.8]))
    weight = np.exp(rng.uniform(-spread, spread, count))
    upper = rng.uniform(1.0, 63.0, count)
    lower = np.where(rng.random(count) < 0.3, upper * rng.uniform(0.0, 0.2, count), 0.0)
    for _ in range(ticks):
        fresh = rng.random(count) < 0.05
        upper = np.where(fresh, rng.uniform(1.0, 63.0, count), upper)
        lower = np.minimum(lower, 0.5 * upper)
        weight = np.where(fresh, np.exp(rng.uniform(-spread, spread, count)), weight)
        weight = (weight * np.exp(rng.normal(0.0, 0.01, count))).clip(1e-6, 1e6)
        capacity = site.capacity * rng.uniform(0.9, 1.1, len(site.capacity))
        capacity[rng.random(len(capacity)) < 0.03] = 0.0
        if rng.random() < 0.1:
            capacity *= rng.random()
        limits = replace(site, capacity=capacity)
        stage = stage_of(limits, weight, lower, upper)
        if stage is not None:
            yield Case(limits=limits, stage=stage, spread=2.0 * spread)
