"""Streams of allocation ticks for the benchmarks and the long tests: a tree four levels deep, drifting demands.

Per 20 EVSEs a panel, per 200 a feeder, per 10 feeders a transformer, one root; 40 % of the EVSEs are three-phase. Each
tick about 2 % of the sessions turn over, weights drift by 1 %, limits move with the building's load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from powerd.allocation.demands import Demands
from powerd.allocation.rows import rows_of
from powerd.allocation.stage import Stage
from powerd.limits import Floats, Ints, Limits, Posts, Tree

#: Share of the load below that each level is rated for (low, high), root first; a panel's own EVSEs are the tightest.
RATED_SHARE = ((0.85, 0.95), (0.8, 1.0), (0.7, 1.0), (0.4, 0.8))


@dataclass(frozen=True, kw_only=True, eq=False)
class Tick:
    """Data of one tick; n EVSEs, m rows (one limit each)."""

    limits: Limits
    """Rows with this tick's capacities."""
    weight: Floats
    """(n,)"""
    upper: Floats
    """(n,) [A]"""
    target: Floats
    """(n,) <= upper [A]"""


def _levels(count: int) -> tuple[Ints, Ints, Ints]:
    """Parents (N,), level of each node (N,), and the panel of each EVSE (n,)."""
    panels = max(2, -(-count // 20))
    feeders = max(2, -(-count // 200)) if count > 50 else 1
    transformers = max(1, -(-feeders // 10)) if feeders > 2 else feeders
    parent, level = [-1], [0]
    above = [0]
    for depth, wanted in enumerate((transformers, feeders, panels), start=1):
        first = len(parent)
        parent += [above[j * len(above) // wanted] for j in range(wanted)]
        level += [depth] * wanted
        above = list(range(first, first + wanted))
    node = np.array(above, dtype=np.int64)[np.arange(count) * panels // count]
    return np.array(parent, dtype=np.int64), np.array(level, dtype=np.int64), node


def _matrix(parent: Ints, node: Ints, phase_bits: Ints) -> sp.csr_array:
    """(3 N, n): row 3 v + k sums the EVSEs below node v that load phase k."""
    row, column = [], []
    at = node.copy()
    evse = np.arange(len(node))
    while len(evse):
        for k in range(3):
            loads = (phase_bits[evse] >> k) & 1 == 1
            row.append(3 * at[evse][loads] + k)
            column.append(evse[loads])
        at[evse] = parent[at[evse]]
        evse = evse[at[evse] >= 0]
    rows, columns = np.concatenate(row), np.concatenate(column)
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(3 * len(parent), len(node)))


def _capacities(real: sp.csr_array, parent: Ints, level: Ints, upper: Floats, rng: np.random.Generator) -> Floats:
    """(3 N,) ratings, equal on the three phases: each node's from the sum of its children's."""
    demand = (real @ upper).reshape(-1, 3)
    rating = np.zeros((len(parent), 3))
    below = np.zeros((len(parent), 3))
    for v in np.argsort(-level, kind="stable"):
        base = demand[v] if level[v] == 3 else below[v]
        low, high = RATED_SHARE[level[v]]
        rating[v] = max(float(base.mean()), 20.0) * rng.uniform(low, high)
        if parent[v] >= 0:
            below[parent[v]] += rating[v]
    return rating.ravel()


def _limits(real: sp.csr_array, tree: Tree, capacity: Floats) -> Limits:
    """Plain names around the arrays."""
    rows = len(capacity)
    return Limits(
        real=real,
        imag=sp.csr_array(real.shape),
        limit_of_row=np.arange(rows),
        capacity=capacity,
        unit=("A",) * rows,
        kind=tuple("current" for _ in range(rows)),
        name=tuple(f"row {r}" for r in range(rows)),
        element=tuple(f"node {r // 3}" for r in range(rows)),
        phase=tuple(f"l{r % 3 + 1}" for r in range(rows)),
        source=("bench",) * rows,
        energized=np.ones(real.shape[1], dtype=np.bool_),
        tree=tree,
    )


def stream(count: int, seed: int = 0) -> Iterator[Tick]:
    """Endless ticks of one site with ``count`` EVSEs."""
    rng = np.random.default_rng(seed)
    parent, level, node = _levels(count)
    three = rng.random(count) < 0.4
    phase_bits = np.where(three, 7, 1 << rng.integers(0, 3, count)).astype(np.int64)
    rating = np.where(three, rng.choice([16.0, 32.0, 63.0], count), rng.choice([16.0, 32.0, 32.0, 40.0], count))
    weight = np.exp(rng.normal(0.0, 0.5, count))
    upper, target = rating.copy(), rating * rng.uniform(0.5, 1.0, count)
    real = _matrix(parent, node, phase_bits)
    capacity = _capacities(real, parent, level, rating, rng)
    row = np.arange(3 * len(parent)).reshape(-1, 3)
    tree = Tree(
        parent=parent,
        node=node,
        phase_bits=phase_bits,
        gain=np.ones(count),
        row=row,
        scale=np.ones(len(parent)),
    )
    limits = _limits(real, tree, capacity)
    while True:
        yield Tick(limits=limits, weight=weight, upper=upper, target=target)
        fresh = rng.choice(count, max(1, count // 50), replace=False)
        upper, weight, target = upper.copy(), weight.copy(), target.copy()
        upper[fresh] = np.minimum(rng.choice([6.0, 10.0, 16.0, 25.0, 32.0], len(fresh)), rating[fresh])
        weight[fresh] = np.exp(rng.normal(0.0, 0.5, len(fresh)))
        target[fresh] = upper[fresh] * rng.uniform(0.5, 1.0, len(fresh))
        weight *= np.exp(rng.normal(0.0, 0.01, count))
        target = np.minimum(target, upper)
        limits = replace(limits, capacity=capacity * (1.0 + 0.01 * rng.normal(size=len(capacity))).clip(0.95, 1.05))


def posts(count: int) -> Posts:
    """``count`` continuous AC posts with a minimum of 6 A."""
    return Posts(
        ids=tuple(f"evse{i}" for i in range(count)),
        is_dc=np.zeros(count, dtype=np.bool_),
        min_ceiling=np.full(count, 6.0),
        max_ceiling=np.full(count, 63.0),
        pilot_steps=(np.zeros(0),) * count,
        fallback=np.zeros(count),
        fallback_idle=np.zeros(count),
        boot_current=np.zeros(count),
        phase_count=np.full(count, 3, dtype=np.int64),
        kw_per_unit=np.full(count, 0.69),
        controller=np.zeros(count, dtype=np.int64),
    )


def plain_stage(tick: Tick) -> Stage:
    """One stage with every EVSE free between 0 and its upper bound."""
    count, rows = len(tick.weight), tick.limits.row_count
    nothing = np.zeros(rows)
    return Stage(
        rows=rows_of(tick.limits),
        free=np.ones(count, dtype=np.bool_),
        weight=tick.weight,
        lower=np.zeros(count),
        upper=tick.upper,
        base_real=nothing,
        base_imag=nothing,
        headroom=tick.limits.capacity,
    )


def priorities(count: int) -> Ints:
    """(n,) three classes."""
    return np.random.default_rng(1).integers(0, 3, count)


def full_demands(tick: Tick, priority: Ints) -> tuple[Limits, Demands]:
    """Three classes with targets; 5 % of the limits fall by 10 to 50 %."""
    count, rows = len(tick.weight), tick.limits.row_count
    rng = np.random.default_rng(int(tick.limits.capacity.sum()))
    fallen = np.where(rng.random(rows) < 0.05, rng.uniform(0.5, 0.9, rows), 1.0)
    demands = Demands(
        weight=tick.weight,
        upper=tick.upper,
        minimum=np.full(count, 6.0),
        floor=np.zeros(count),
        silent=np.zeros(count),
        opens=np.zeros(count),
        priority=priority,
        least_served=np.zeros(count),
        overdue=np.zeros(count, dtype=np.bool_),
        target=tick.target,
        uncontrolled=np.zeros(rows),
    )
    return replace(tick.limits, capacity=tick.limits.capacity * fallen), demands
