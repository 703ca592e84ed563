"""Small and random sites for the tests of this room: posts, limits as a tree, limits with phasor cones, demands."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import scipy.sparse as sp

from powerd.allocation.demands import Demands
from powerd.limits import Floats, Ints, Limits, Posts, Tree

WHOLE_AMPERES = np.array([0.0, *range(6, 33)])
EIGHTS = np.array([0.0, 8.0, 16.0, 24.0, 32.0])
CONTINUOUS = np.zeros(0)


def posts(count: int, steps: Floats = CONTINUOUS) -> Posts:
    """``count`` AC posts of 32 A on one controller."""
    return Posts(
        ids=tuple(f"evse{i}" for i in range(count)),
        is_dc=np.zeros(count, dtype=np.bool_),
        min_ceiling=np.full(count, 6.0),
        max_ceiling=np.full(count, 32.0),
        pilot_steps=(steps,) * count,
        fallback=np.zeros(count),
        fallback_idle=np.zeros(count),
        boot_current=np.zeros(count),
        phase_count=np.ones(count, dtype=np.int64),
        kw_per_unit=np.full(count, 0.23),
        controller=np.zeros(count, dtype=np.int64),
    )


def limits(real: Floats, imag: Floats, limit_of_row: Ints, capacity: Floats, tree: Tree | None = None) -> Limits:
    """Limits from dense parts."""
    count = len(capacity)
    return Limits(
        real=sp.csr_array(real),
        imag=sp.csr_array(imag),
        limit_of_row=limit_of_row,
        capacity=capacity,
        unit=("A",) * count,
        kind=tuple("current" for _ in range(count)),
        name=tuple(f"limit {l}" for l in range(count)),
        element=tuple(f"element {l}" for l in range(count)),
        phase=("",) * count,
        source=("test",) * count,
        energized=np.ones(real.shape[1], dtype=np.bool_),
        tree=tree,
    )


def one_limit(count: int, capacity: float) -> Limits:
    """``count`` EVSEs on one phase under one limit."""
    return linear(np.ones((1, count)), [capacity])


def linear(real: Floats | list[list[float]], capacity: list[float]) -> Limits:
    """Linear rows, one a limit."""
    dense = np.array(real, dtype=np.float64)
    return limits(dense, np.zeros_like(dense), np.arange(len(capacity)), np.array(capacity))


def random_tree(count: int, seed: int, *, tightness: float = 0.7, one_phase: bool = False) -> Limits:
    """A tree four levels deep with three phases, one- and three-phase posts, voltage ratios and gains."""
    rng = np.random.default_rng(seed)
    nodes = max(3, count // 4)
    parent = np.array([-1] + [int(rng.integers(max(0, v // 3 - 1), v)) for v in range(1, nodes)], dtype=np.int64)
    node = rng.integers(0, nodes, count)
    phase_bits = rng.choice([1, 2, 4] if one_phase else [1, 2, 4, 7], count)
    gain = rng.choice([1.0, 1.0, 0.5, 1.7], count)
    scale = np.where(rng.random(nodes) < 0.2, 0.1, 1.0)
    entries = []
    for i in range(count):
        v = int(node[i])
        while v >= 0:
            entries += [(3 * v + k, i, scale[v] * gain[i]) for k in range(3) if phase_bits[i] >> k & 1]
            v = int(parent[v])
    line, evse, size = zip(*entries, strict=True)
    load = sp.csr_array((size, (line, evse)), shape=(3 * nodes, count))
    rated = rng.random((nodes, 3)) < 0.8
    row = np.full((nodes, 3), -1, dtype=np.int64)
    row[rated] = np.arange(int(rated.sum()))
    real = sp.csr_array(load[rated.ravel()])
    capacity = np.maximum(real.sum(axis=1) * 32.0, 1.0) * rng.uniform(0.2, 1.0, real.shape[0]) * tightness
    tree = Tree(parent=parent, node=node, phase_bits=phase_bits, gain=gain, row=row, scale=scale)
    return limits(real, sp.csr_array(real.shape), np.arange(real.shape[0]), capacity, tree)


def delta_wye(count: int, seed: int, capacity: float) -> Limits:
    """Line-to-line posts under a delta-wye transformer: three wires, a cone for every subset of their groups."""
    rng = np.random.default_rng(seed)
    pair = rng.integers(0, 3, count)  # ab, bc, ca
    angle = np.exp(1j * np.deg2rad(np.array([30.0, -90.0, 150.0])))
    rows: list[np.ndarray] = []
    limit_of_row: list[int] = []
    for wire in range(3):
        groups = {wire: angle[wire], (wire + 2) % 3: -angle[(wire + 2) % 3]}
        for size in (1, 2):
            for subset in combinations(groups, size):
                rows.append(np.array([groups[p] if p in subset else 0.0 for p in pair]))
                limit_of_row.append(wire)
    matrix = np.array(rows)
    return limits(matrix.real, matrix.imag, np.array(limit_of_row), np.full(3, capacity))


def demands(count: int, limit_count: int, **columns: object) -> Demands:
    """Equal cars that take up to 32 A, with some columns replaced."""
    plain = Demands(
        weight=np.ones(count),
        upper=np.full(count, 32.0),
        minimum=np.full(count, 6.0),
        floor=np.zeros(count),
        silent=np.zeros(count),
        opens=np.zeros(count),
        priority=np.zeros(count, dtype=np.int64),
        least_served=np.zeros(count),
        overdue=np.zeros(count, dtype=np.bool_),
        target=np.full(count, 32.0),
        uncontrolled=np.zeros(limit_count),
    )
    arrays = {name: np.asarray(value) for name, value in columns.items()}
    return replace(plain, **arrays)
