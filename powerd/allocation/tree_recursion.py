"""The Newton system of a tree, solved exactly in O(N): one pass up, one pass down, 3 x 3 blocks (one row per phase).

Unknown are the price steps delta[v] (3 phases). A run of EVSEs at node v answers to the sum of the steps on its path,
total[v] = total[parent] + delta[v], with d y = -curvature * (sum of total[v] over its phases). So the flow through v
changes by

    df_v = g_v - M_v total_v,   M_v = own curvature + sum over children H_c,   g_v = sum over children h_c,

and the *active* rows of v ask for df_v = wanted_v + damping_v * delta_v; the others have their delta given ("fixed").
With A the active rows, S = inverse of (M_AA + damping_A) and g' = g - M fixed, elimination gives

    delta_A = S (g' - wanted - M total_parent)_A
    df_v    = h_v - H_v total_parent,   H = M - M_:A S M_A:,   h = g' - M_:A S (g' - wanted)_A.

Inside A both differences would cancel to rounding noise; there they equal damping * S M and wanted + damping * S (g' -
wanted), which is what is computed. Symmetric 3 x 3 blocks are kept as (00, 01, 02, 11, 12, 22).
"""

from __future__ import annotations

from typing import Any

from powerd.allocation.forest import Records
from powerd.compiled import kernel

#: Pivots are kept above this share of the block's trace: blocks of three-phase EVSEs alone have rank one.
PIVOT_FLOOR = 1e-14


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
def _product(a: Any, x0: float, x1: float, x2: float) -> tuple[float, float, float]:
    """Symmetric block ``a`` (6,) times a vector."""
    return a[0] * x0 + a[1] * x1 + a[2] * x2, a[1] * x0 + a[3] * x1 + a[4] * x2, a[2] * x0 + a[4] * x1 + a[5] * x2


@kernel
def _invert_active(node: Any) -> None:
    """Write S of the node, zero outside the active rows."""
    block, damping, active, inverse = node["block"], node["damping"], node["active"], node["inverse"]
    a0, a1, a2 = active[0], active[1], active[2]
    s00, s01, s02, s11, s12, s22 = _inverse(
        block[0] + damping[0] if a0 else 1.0,
        block[1] if a0 and a1 else 0.0,
        block[2] if a0 and a2 else 0.0,
        block[3] + damping[1] if a1 else 1.0,
        block[4] if a1 and a2 else 0.0,
        block[5] + damping[2] if a2 else 1.0,
    )
    inverse[0] = s00 if a0 else 0.0
    inverse[1] = s01
    inverse[2] = s02
    inverse[3] = s11 if a1 else 0.0
    inverse[4] = s12
    inverse[5] = s22 if a2 else 0.0


@kernel
def _pass_block_up(node: Any, above: Any) -> None:
    """Add H of a node with active rows to the block above it."""
    b, inverse, active, d = node["block"], node["inverse"], node["active"], node["damping"]
    c00, c10, c20 = _product(inverse, b[0], b[1], b[2])  # columns of S M
    c01, c11, c21 = _product(inverse, b[1], b[3], b[4])
    c02, c12, c22 = _product(inverse, b[2], b[4], b[5])
    a0, a1, a2 = active[0], active[1], active[2]
    h01, h02, h12 = d[0] * c01, d[0] * c02, d[1] * c12
    if not a0:
        h01 = d[1] * c10 if a1 else b[1] - (b[0] * c01 + b[1] * c11 + b[2] * c21)
        h02 = d[2] * c20 if a2 else b[2] - (b[0] * c02 + b[1] * c12 + b[2] * c22)
    if not a1:
        h12 = d[2] * c21 if a2 else b[4] - (b[1] * c02 + b[3] * c12 + b[4] * c22)
    above[0] += d[0] * c00 if a0 else b[0] - (b[0] * c00 + b[1] * c10 + b[2] * c20)
    above[1] += h01
    above[2] += h02
    above[3] += d[1] * c11 if a1 else b[3] - (b[1] * c01 + b[3] * c11 + b[4] * c21)
    above[4] += h12
    above[5] += d[2] * c22 if a2 else b[5] - (b[2] * c02 + b[4] * c12 + b[5] * c22)


@kernel
def _eliminate(node: Any) -> None:
    """Turn g into g', and write S where rows are active."""
    block, fixed, offset, active = node["block"], node["fixed"], node["offset"], node["active"]
    if fixed[0] != 0.0 or fixed[1] != 0.0 or fixed[2] != 0.0:
        f0, f1, f2 = _product(block, fixed[0], fixed[1], fixed[2])
        offset[0] -= f0
        offset[1] -= f1
        offset[2] -= f2
    if active[0] or active[1] or active[2]:
        _invert_active(node)


@kernel
def _pass_up(node: Any, above: Any) -> None:
    """Add H and h of a node to what stands above it."""
    block, offset, active = node["block"], node["offset"], node["active"]
    above_block, above_offset = above["block"], above["offset"]
    if not (active[0] or active[1] or active[2]):
        for k in range(6):
            above_block[k] += block[k]
        for k in range(3):
            above_offset[k] += offset[k]
        return
    _pass_block_up(node, above_block)
    wanted, damping = node["wanted"], node["damping"]
    q0, q1, q2 = _product(node["inverse"], offset[0] - wanted[0], offset[1] - wanted[1], offset[2] - wanted[2])
    m0, m1, m2 = _product(block, q0, q1, q2)
    above_offset[0] += wanted[0] + damping[0] * q0 if active[0] else offset[0] - m0
    above_offset[1] += wanted[1] + damping[1] * q1 if active[1] else offset[1] - m1
    above_offset[2] += wanted[2] + damping[2] * q2 if active[2] else offset[2] - m2


@kernel
def _step_down(node: Any, t0: float, t1: float, t2: float) -> None:
    """Write the price steps of a node, where those above it sum up to (t0, t1, t2)."""
    active, step, total, fixed = node["active"], node["step"], node["total"], node["fixed"]
    step[0], step[1], step[2] = fixed[0], fixed[1], fixed[2]
    if active[0] or active[1] or active[2]:
        offset, wanted = node["offset"], node["wanted"]
        m0, m1, m2 = _product(node["block"], t0, t1, t2)
        q0, q1, q2 = _product(
            node["inverse"], offset[0] - wanted[0] - m0, offset[1] - wanted[1] - m1, offset[2] - wanted[2] - m2
        )
        step[0] = q0 if active[0] else fixed[0]
        step[1] = q1 if active[1] else fixed[1]
        step[2] = q2 if active[2] else fixed[2]
    total[0] = t0 + step[0]
    total[1] = t1 + step[1]
    total[2] = t2 + step[2]


@kernel
def solve_system(nodes: Records) -> None:
    """Solve the Newton system of one tree: ``step`` and ``total`` of every node are written.

    Args:
        nodes: (N,) of ``forest.NODE``, root first; ``block`` as each node's own EVSEs answer, ``active``, ``damping``,
            ``wanted`` and ``fixed`` are given, ``offset`` is 0. Blocks and offsets are used up.
    """
    for v in range(nodes.shape[0] - 1, -1, -1):
        _eliminate(nodes[v])
        if v > 0:
            _pass_up(nodes[v], nodes[nodes[v]["parent"]])
    _step_down(nodes[0], 0.0, 0.0, 0.0)
    for v in range(1, nodes.shape[0]):
        above = nodes[nodes[v]["parent"]]["total"]
        _step_down(nodes[v], above[0], above[1], above[2])
