"""The exact kernel, judged by conditions it does not compute itself and by cvxpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from powerd.allocation.certificate import judge
from powerd.allocation.conic import Conic
from powerd.allocation.forest import Forest, grove_of, plant
from powerd.allocation.problem import Program
from powerd.allocation.rows import rows_of
from powerd.allocation.stage import Solution, Stage
from powerd.allocation.tree_kernel import solve_tree
from powerd.allocation.tree_recursion import empty_system, solve_system
from powerd.limits import Floats, Tree
from tests.allocation.kkt import Verdict, verdict
from tests.allocation.sites import delta_wye
from tests.allocation.ticks import Case, cases, stage_of

Solve = Callable[[Case, Floats], Solution | None]


def kernel(case: Case, start: Floats) -> Solution | None:
    """The kernel as it is."""
    assert case.limits.tree is not None
    return solve_tree(case.limits.tree, case.stage, start)


def judged(case: Case, solution: Solution) -> Verdict:
    """The independent judge on the free EVSEs."""
    return verdict(*case.reduced(), solution.x[case.stage.free], solution.price)


def failures(solve: Solve, seeds: range, ticks: int) -> tuple[int, list[tuple[int, Verdict | None]]]:
    """Ticks judged, and those that came out unsolved or not optimal, warm from tick to tick."""
    judged_ticks, failed = 0, []
    for seed in seeds:
        start = np.zeros(0)
        for case in cases(seed, ticks):
            warm = start if len(start) else np.zeros(case.limits.row_count)
            solution = solve(case, warm)
            judged_ticks += 1
            outcome = None if solution is None else judged(case, solution)
            if solution is None or outcome is None or not outcome.optimal():
                failed.append((seed, outcome))
                start = np.zeros(0)
            else:
                start = solution.price
    return judged_ticks, failed


def test_random_ticks_are_solved_exactly() -> None:
    """Over random trees, limits to zero and back, weights 1e-6 ... 1e6: every tick meets the KKT conditions."""
    count, failed = failures(kernel, range(150), 20)
    assert count > 2000
    assert failed == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_random_ticks() -> None:
    """The same over 100 000 ticks."""
    count, failed = failures(kernel, range(1000, 6400), 20)
    assert count > 100_000
    assert failed == []


def _flip_a_sign(case: Case, start: Floats) -> Solution | None:
    """Planted: the price of the first row that has one has the wrong sign."""
    solution = kernel(case, start)
    if solution is None or not np.any(solution.price > 0.0):
        return solution
    price = solution.price.copy()
    price[np.argmax(price > 0.0)] *= -1.0
    return replace(solution, price=price)


def _drop_a_row(case: Case, start: Floats) -> Solution | None:
    """Planted: the tightest row is missing in the kernel's tree."""
    tree = case.limits.tree
    assert tree is not None
    row = tree.row.copy()
    solution = kernel(case, start)
    if solution is None:
        return None
    row[row == np.argmax(solution.price)] = -1
    return solve_tree(replace(tree, row=row), case.stage, np.zeros_like(start))


def _stale_answer() -> Solve:
    """Planted: the answer of the tick before, where it has the same EVSEs."""
    before: dict[int, Solution] = {}

    def solve(case: Case, start: Floats) -> Solution | None:
        solution = kernel(case, start)
        stale = before.get(case.limits.row_count)
        if solution is not None:
            before[case.limits.row_count] = solution
        return solution if stale is None or len(stale.x) != case.limits.real.shape[1] else stale

    return solve


@pytest.mark.parametrize("planted", [_flip_a_sign, _drop_a_row, _stale_answer()])
def test_planted_errors_are_caught(planted: Solve) -> None:
    """A wrong sign, a dropped row or a stale start is found by the judge on most ticks."""
    count, failed = failures(planted, range(8), 10)
    assert len(failed) > 0.5 * count


def test_the_certificate_catches_planted_errors() -> None:
    """The kernel's own certificate refuses the answer without a row, and one that is 1 % too small."""
    case = next(iter(cases(3, 5)))
    start = np.zeros(case.limits.row_count)
    right = kernel(case, start)
    dropped = _drop_a_row(case, start)
    assert right is not None
    assert judge(case.stage, right, "kernel").holds
    assert dropped is None or not judge(case.stage, dropped, "kernel").holds
    assert not judge(case.stage, replace(right, x=0.99 * right.x), "kernel").holds
    assert not judge(case.stage, replace(right, x=right.x * np.nan), "kernel").holds


def _agreement(seeds: range, ticks: int) -> tuple[int, float]:
    """Sampled ticks on which cvxpy got very close, and the largest distance from it."""
    sampled, farthest = 0, 0.0
    for seed in seeds:
        program: Program | None = None
        for case in cases(seed, ticks, largest=60):
            if case.spread > 7.0:
                break
            program = Program(case.stage.rows) if program is None else program
            oracle = program.solve(case.stage, tolerance=1e-12)
            if oracle is None or abs(judge(case.stage, oracle, "conic").gap) > 1e-10:
                continue
            ours = kernel(case, np.zeros(case.limits.row_count))
            assert ours is not None
            sampled += 1
            farthest = max(farthest, float(np.max(np.abs(ours.x - oracle.x))))
    return sampled, farthest


def test_the_kernel_agrees_with_cvxpy() -> None:
    """Where Clarabel at 1e-12 solves the cvxpy statement well, ceilings agree to 1e-3 A (utility to 1e-10)."""
    sampled, farthest = _agreement(range(40), 2)
    assert sampled > 20
    assert farthest <= 1e-3


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
    system = empty_system(nodes)
    system.active[:], system.damping[:], system.wanted[:], system.fixed[:] = active, damping, wanted, fixed
    solve_system(parent, 0, nodes, curvature, system)
    delta = system.delta
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
    np.testing.assert_allclose(system.total.ravel(), spread @ delta.ravel(), atol=1e-12)


def _relabelled(case: Case, order: np.ndarray) -> tuple[Tree, Stage]:
    """The same tick with its EVSEs in another order."""
    tree, stage = case.limits.tree, case.stage
    assert tree is not None
    shuffled = replace(case.limits, real=case.limits.real[:, order], imag=case.limits.imag[:, order])
    turned = replace(tree, node=tree.node[order], phase_bits=tree.phase_bits[order], gain=tree.gain[order])
    columns: dict[str, Any] = {name: getattr(stage, name)[order] for name in ("free", "weight", "lower", "upper")}
    return turned, replace(stage, rows=rows_of(shuffled), **columns)


def test_order_and_units_do_not_matter() -> None:
    """Permuting EVSEs permutes the answer; tenfold currents and weights times a constant scale it, to 1e-6."""
    for seed in range(20):
        case = next(iter(cases(seed, 4)), None)
        if case is None:
            continue
        cold = np.zeros(case.limits.row_count)
        plain = kernel(case, cold)
        assert plain is not None
        order = np.random.default_rng(seed).permutation(len(plain.x))
        shuffled = solve_tree(*_relabelled(case, order), cold)
        assert shuffled is not None
        np.testing.assert_allclose(shuffled.x, plain.x[order], rtol=1e-6, atol=1e-9)
        stage = case.stage
        tenfold = replace(
            stage,
            weight=7.0 * stage.weight,
            lower=10.0 * stage.lower,
            upper=10.0 * stage.upper,
            base_real=10.0 * stage.base_real,
            headroom=10.0 * stage.headroom,
        )
        scaled = kernel(replace(case, stage=tenfold), cold)
        assert scaled is not None
        np.testing.assert_allclose(scaled.x, 10.0 * plain.x, rtol=1e-6, atol=1e-8)


def test_equal_cars_get_equal_ceilings() -> None:
    """Two EVSEs with the same place, phases, weight and bounds get the same, to 1e-6 A."""
    for case in cases(11, 6):
        tree, stage = case.limits.tree, case.stage
        assert tree is not None
        twins = [np.append(column, column[0]) for column in (tree.node, tree.phase_bits, tree.gain)]
        columns: dict[str, Any] = {
            name: np.append(getattr(stage, name), getattr(stage, name)[0]) for name in ("free", "weight")
        }
        columns |= {name: np.append(getattr(stage, name), getattr(stage, name)[0]) for name in ("lower", "upper")}
        doubled = replace(tree, node=twins[0], phase_bits=twins[1], gain=twins[2])
        solution = solve_tree(doubled, replace(stage, **columns), np.zeros(case.limits.row_count))
        if solution is not None:
            assert abs(solution.x[0] - solution.x[-1]) <= 1e-6


def test_more_capacity_never_lowers_the_utility() -> None:
    """Raising every limit by 10 % leaves the utility at least as high."""
    for seed in range(30):
        for case in cases(seed, 3):
            wider = stage_of(
                replace(case.limits, capacity=1.1 * case.limits.capacity),
                case.stage.weight,
                case.stage.lower,
                case.stage.upper,
            )
            tight = kernel(case, np.zeros(case.limits.row_count))
            if wider is None or tight is None or not np.array_equal(wider.free, case.stage.free):
                continue
            loose = kernel(replace(case, stage=wider), np.zeros(case.limits.row_count))
            assert loose is not None
            free = case.stage.free
            gain = np.sum(case.stage.weight[free] * np.log(loose.x[free] / tight.x[free]))
            assert gain >= -1e-8 * np.sum(case.stage.weight[free])


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
        assert np.all(np.isfinite(forest.room).any(axis=1))
        assert np.all(forest.parent < np.arange(len(forest.parent)))
        smaller += len(forest.parent) < len(tree.parent)
    assert smaller > 0
