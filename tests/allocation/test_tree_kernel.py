"""The kernel's parts: the recursion, the contraction, and the path for limits that are no tree."""

from __future__ import annotations

import numpy as np
import pytest

from powerd.allocation.certificate import judge
from powerd.allocation.conic import Conic
from powerd.allocation.forest import NODE, Forest, grove_of, plant
from powerd.allocation.problem import Program
from powerd.allocation.rows import rows_of
from powerd.allocation.stage import Stage
from powerd.allocation.tree_recursion import solve_system
from tests.allocation.sites import delta_wye
from tests.allocation.ticks import cases


@pytest.mark.parametrize("cones", [False, True])
def test_the_conic_path_agrees_with_cvxpy(cones: bool) -> None:
    """The direct solver and the cvxpy statement give the same ceilings on trees and on phasor rows."""
    for seed in range(6):
        if cones:
            rng = np.random.default_rng(seed)
            limits = delta_wye(12, seed, 90.0)
            rows = rows_of(limits)
            nothing = np.zeros(limits.row_count)
            stage: Stage = Stage(
                rows=rows,
                free=np.ones(12, dtype=np.bool_),
                weight=np.exp(rng.normal(0.0, 1.0, 12)),
                lower=np.full(12, 6.0),
                upper=np.full(12, 32.0),
                base_real=nothing,
                base_imag=nothing,
                headroom=limits.capacity[limits.limit_of_row],
            )
        else:
            stage = next(case.stage for case in cases(seed, 9, largest=40) if case.spread < 7.0 or seed)
        ours, oracle = Conic().solve(stage), Program(stage.rows).solve(stage)
        assert ours is not None
        assert oracle is not None
        if abs(judge(stage, oracle, "conic").gap) <= 1e-9:
            np.testing.assert_allclose(ours.x, oracle.x, atol=3e-3)
        if cones:
            assert judge(stage, ours, "conic").holds


def test_the_recursion_solves_the_newton_system() -> None:
    """One pass up and down equals a dense solve of the same system, for active and fixed rows."""
    rng = np.random.default_rng(5)
    nodes = 9
    parent = np.array([-1] + [int(rng.integers(0, v)) for v in range(1, nodes)])
    curvature = np.zeros((nodes, 8))
    curvature[:, [1, 2, 4, 7]] = rng.uniform(0.1, 2.0, (nodes, 4))
    active, damping = rng.random((nodes, 3)) < 0.6, rng.uniform(0.01, 0.1, (nodes, 3))
    wanted = np.where(active, rng.normal(size=(nodes, 3)), 0.0)
    fixed = np.where(active, 0.0, rng.normal(size=(nodes, 3)))
    system = np.zeros(nodes, dtype=NODE)
    system["parent"], system["active"], system["damping"] = parent, active, damping
    system["wanted"], system["fixed"] = wanted, fixed
    one, two, four, all_three = curvature[:, [1, 2, 4, 7]].T
    system["block"] = np.array([one + all_three, all_three, all_three, two + all_three, all_three, four + all_three]).T
    solve_system(system)
    delta = system["step"]
    path = np.zeros((nodes, nodes))
    for v in range(nodes):
        up = v
        while up >= 0:
            path[v, up] = 1.0  # v lies below up
            up = int(parent[up])
    own = np.zeros((3 * nodes, 3 * nodes))
    for v in range(nodes):
        for bits in (1, 2, 4, 7):
            loads = np.array([bits & 1, bits >> 1 & 1, bits >> 2 & 1], dtype=float)
            own[3 * v : 3 * v + 3, 3 * v : 3 * v + 3] += curvature[v, bits] * np.outer(loads, loads)
    spread = np.kron(path, np.eye(3))
    change = -spread.T @ (own @ (spread @ delta.ravel()))
    asked = wanted + damping * delta
    np.testing.assert_allclose(change.reshape(-1, 3)[active], asked[active], atol=1e-10)
    np.testing.assert_allclose(delta[~active], fixed[~active])
    np.testing.assert_allclose(system["total"].ravel(), spread @ delta.ravel(), atol=1e-12)


def test_contraction_keeps_only_nodes_that_can_bind() -> None:
    """The planted forest has fewer nodes than the tree, and every one of them can bind."""
    smaller = 0
    for case in (case for seed in range(6) for case in cases(seed, 4)):
        tree, stage = case.limits.tree, case.stage
        assert tree is not None
        forest: Forest = plant(
            grove_of(tree),
            stage.headroom - stage.base_real,
            stage.free,
            stage.weight,
            stage.lower,
            stage.upper,
        )
        assert np.all(np.isfinite(forest.nodes["room"]).any(axis=1))
        assert np.all(forest.nodes["parent"] < np.arange(len(forest.nodes)))
        smaller += len(forest.nodes) < len(tree.parent)
    assert smaller > 0
