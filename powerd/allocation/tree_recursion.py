"""The Newton system of a tree, solved exactly in O(N): one pass up, one pass down, 3 x 3 blocks (one row per phase).

Unknown are the price steps delta[v] (3 phases). A group of EVSEs at node v answers to the sum of the steps on its path,
total[v] = total[parent] + delta[v], with d y = offset - curvature * (sum of total[v] over its phases). So the flow
through v changes by

    df_v = g_v - M_v total_v,   M_v = own curvature + sum over children H_c,   g_v = own offset + sum over children h_c,

and the *active* rows of v ask for df_v = wanted_v + damping_v * delta_v; the others have their delta given ("fixed").
With A the active rows, S = inverse of (M_AA + damping_A) and g' = g - M fixed, elimination gives

    delta_A = S (g' - wanted - M total_parent)_A
    df_v    = h_v - H_v total_parent,   H = M - M_:A S M_A:,   h = g' - M_:A S (g' - wanted)_A.

Inside A both differences would cancel to rounding noise; there they equal damping * S M and wanted + damping * S (g' -
wanted), which is what is computed. Symmetric 3 x 3 blocks are kept as (00, 01, 02, 11, 12, 22).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.forest import sum_by_phase
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints

#: Pivots are kept above this share of the block's trace: blocks of three-phase EVSEs alone have rank one.
PIVOT_FLOOR = 1e-14


class System(NamedTuple):
    """The Newton system of a forest of N nodes, and work space for its solution."""

    active: Bools
    """(N, 3) rows that are to be filled."""
    damping: Floats
    """(N, 3) >= 0 on active rows."""
    wanted: Floats
    """(N, 3) flow change that active rows ask for."""
    fixed: Floats
    """(N, 3) price step of the rows that are not active."""
    block: Floats
    """(N, 6) M of each node."""
    inverse: Floats
    """(N, 6) S of each node, 0 outside the active rows."""
    offset: Floats
    """(N, 3) g' of each node."""
    delta: Floats
    """(N, 3) price steps: the answer."""
    total: Floats
    """(N, 3) their sums along the path from the root."""


@kernel
def empty_system(nodes: int) -> System:
    """A system to be written into."""
    return System(
        np.empty((nodes, 3), dtype=np.bool_),
        np.empty((nodes, 3)),
        np.empty((nodes, 3)),
        np.empty((nodes, 3)),
        np.empty((nodes, 6)),
        np.empty((nodes, 6)),
        np.empty((nodes, 3)),
        np.empty((nodes, 3)),
        np.empty((nodes, 3)),
    )


@kernel
def _inverse(
    m00: float, m01: float, m02: float, m11: float, m12: float, m22: float
) -> tuple[float, float, float, float, float, float]:
    """Inverse of a symmetric positive semi-definite 3 x 3 block by L D L', pivots floored."""
    floor = PIVOT_FLOOR * (m00 + m11 + m22) + 1e-300
    d0 = max(m00, floor)
    l10 = m01 / d0
    l20 = m02 / d0
    d1 = max(m11 - m01 * l10, floor)
    l21 = (m12 - m02 * l10) / d1
    d2 = max(m22 - m02 * l20 - l21 * l21 * d1, floor)
    k20 = l10 * l21 - l20
    p0 = 1.0 / d0
    p1 = 1.0 / d1
    p2 = 1.0 / d2
    return (
        p0 + l10 * l10 * p1 + k20 * k20 * p2,
        -l10 * p1 - k20 * l21 * p2,
        k20 * p2,
        p1 + l21 * l21 * p2,
        -l21 * p2,
        p2,
    )


@kernel
def _product(a: Floats, v: int, x0: float, x1: float, x2: float) -> tuple[float, float, float]:
    """Symmetric block ``a[v]`` times a vector."""
    return (
        a[v, 0] * x0 + a[v, 1] * x1 + a[v, 2] * x2,
        a[v, 1] * x0 + a[v, 3] * x1 + a[v, 4] * x2,
        a[v, 2] * x0 + a[v, 4] * x1 + a[v, 5] * x2,
    )


@kernel
def block_of_groups(groups: Floats, v: int, block: Floats) -> None:
    """Write the 3 x 3 block of node v's own groups (N, 8) into ``block[v]``."""
    block[v, 0] = sum_by_phase(groups, v, 0)
    block[v, 1] = groups[v, 3] + groups[v, 7]
    block[v, 2] = groups[v, 5] + groups[v, 7]
    block[v, 3] = sum_by_phase(groups, v, 1)
    block[v, 4] = groups[v, 6] + groups[v, 7]
    block[v, 5] = sum_by_phase(groups, v, 2)


@kernel
def _invert_active(block: Floats, v: int, active: Bools, damping: Floats, inverse: Floats) -> None:
    """Write S of node v, zero outside the active rows, into ``inverse[v]``."""
    a0 = active[v, 0]
    a1 = active[v, 1]
    a2 = active[v, 2]
    s00, s01, s02, s11, s12, s22 = _inverse(
        block[v, 0] + damping[v, 0] if a0 else 1.0,
        block[v, 1] if a0 and a1 else 0.0,
        block[v, 2] if a0 and a2 else 0.0,
        block[v, 3] + damping[v, 1] if a1 else 1.0,
        block[v, 4] if a1 and a2 else 0.0,
        block[v, 5] + damping[v, 2] if a2 else 1.0,
    )
    inverse[v, 0] = s00 if a0 else 0.0
    inverse[v, 1] = s01
    inverse[v, 2] = s02
    inverse[v, 3] = s11 if a1 else 0.0
    inverse[v, 4] = s12
    inverse[v, 5] = s22 if a2 else 0.0


@kernel
def _pass_up_block(block: Floats, v: int, up: int, active: Bools, damping: Floats, inverse: Floats) -> None:
    """Add H of node v to its parent's block."""
    c0 = _product(inverse, v, block[v, 0], block[v, 1], block[v, 2])  # columns of S M
    c1 = _product(inverse, v, block[v, 1], block[v, 3], block[v, 4])
    c2 = _product(inverse, v, block[v, 2], block[v, 4], block[v, 5])
    if active[v, 0]:
        block[up, 0] += damping[v, 0] * c0[0]
        block[up, 1] += damping[v, 0] * c1[0]
        block[up, 2] += damping[v, 0] * c2[0]
    else:
        block[up, 0] += block[v, 0] - (block[v, 0] * c0[0] + block[v, 1] * c0[1] + block[v, 2] * c0[2])
        if active[v, 1]:
            block[up, 1] += damping[v, 1] * c0[1]
        else:
            block[up, 1] += block[v, 1] - (block[v, 0] * c1[0] + block[v, 1] * c1[1] + block[v, 2] * c1[2])
        if active[v, 2]:
            block[up, 2] += damping[v, 2] * c0[2]
        else:
            block[up, 2] += block[v, 2] - (block[v, 0] * c2[0] + block[v, 1] * c2[1] + block[v, 2] * c2[2])
    if active[v, 1]:
        block[up, 3] += damping[v, 1] * c1[1]
        block[up, 4] += damping[v, 1] * c2[1]
    else:
        block[up, 3] += block[v, 3] - (block[v, 1] * c1[0] + block[v, 3] * c1[1] + block[v, 4] * c1[2])
        if active[v, 2]:
            block[up, 4] += damping[v, 2] * c1[2]
        else:
            block[up, 4] += block[v, 4] - (block[v, 1] * c2[0] + block[v, 3] * c2[1] + block[v, 4] * c2[2])
    if active[v, 2]:
        block[up, 5] += damping[v, 2] * c2[2]
    else:
        block[up, 5] += block[v, 5] - (block[v, 2] * c2[0] + block[v, 4] * c2[1] + block[v, 5] * c2[2])


@kernel
def _factorise(parent: Ints, root: int, end: int, curvature: Floats, system: System) -> None:
    """Eliminate upwards: write M (``block``) and S (``inverse``) for every node of a tree."""
    for v in range(root, end):
        block_of_groups(curvature, v, system.block)
    for v in range(end - 1, root - 1, -1):
        _invert_active(system.block, v, system.active, system.damping, system.inverse)
        if v > root:
            _pass_up_block(system.block, v, parent[v], system.active, system.damping, system.inverse)


@kernel
def _pass_up_offsets(parent: Ints, root: int, end: int, system: System) -> None:
    """Write g' of every node into ``offset``, its part of h added to its parent's; no offset but from fixed steps."""
    active, wanted, offset = system.active, system.wanted, system.offset
    offset[root:end] = 0.0
    for v in range(end - 1, root - 1, -1):
        f = _product(
            system.block,
            v,
            0.0 if active[v, 0] else system.fixed[v, 0],
            0.0 if active[v, 1] else system.fixed[v, 1],
            0.0 if active[v, 2] else system.fixed[v, 2],
        )
        for k in range(3):
            offset[v, k] -= f[k]
        if v == root:
            continue
        q = _product(
            system.inverse, v, offset[v, 0] - wanted[v, 0], offset[v, 1] - wanted[v, 1], offset[v, 2] - wanted[v, 2]
        )
        moved = _product(system.block, v, q[0], q[1], q[2])
        for k in range(3):
            filled = wanted[v, k] + system.damping[v, k] * q[k]
            offset[parent[v], k] += filled if active[v, k] else offset[v, k] - moved[k]


@kernel
def _pass_down_steps(parent: Ints, root: int, end: int, system: System) -> None:
    """Write the price steps of every node, parents first."""
    offset, wanted, total = system.offset, system.wanted, system.total
    for v in range(root, end):
        up = parent[v]
        t0 = total[up, 0] if v > root else 0.0
        t1 = total[up, 1] if v > root else 0.0
        t2 = total[up, 2] if v > root else 0.0
        met = _product(system.block, v, t0, t1, t2)
        q = _product(
            system.inverse,
            v,
            offset[v, 0] - wanted[v, 0] - met[0],
            offset[v, 1] - wanted[v, 1] - met[1],
            offset[v, 2] - wanted[v, 2] - met[2],
        )
        for k in range(3):
            system.delta[v, k] = q[k] if system.active[v, k] else system.fixed[v, k]
        total[v, 0] = t0 + system.delta[v, 0]
        total[v, 1] = t1 + system.delta[v, 1]
        total[v, 2] = t2 + system.delta[v, 2]


@kernel
def solve_system(parent: Ints, root: int, end: int, curvature: Floats, system: System) -> None:
    """Solve the Newton system of one tree: ``system.delta`` and ``system.total`` are written.

    Args:
        parent: (N,)
        root: the tree's first node.
        end: behind its last node.
        curvature: (N, 8) sum over each group of -dy/dprice.
        system: active, damping, wanted and fixed are given.
    """
    _factorise(parent, root, end, curvature, system)
    _pass_up_offsets(parent, root, end, system)
    _pass_down_steps(parent, root, end, system)
