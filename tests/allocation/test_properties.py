"""Properties of the continuous answer: what more capacity, other names, other units and equal cars may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from powerd.allocation.allocate import Allocator
from powerd.allocation.rows import rows_of
from powerd.allocation.solve import Solver
from powerd.allocation.stage import Stage
from powerd.allocation.tree_kernel import solve_tree
from powerd.limits import Floats, Limits, Tree
from tests.allocation.kkt import kernel
from tests.allocation.sites import demands, posts, random_tree
from tests.allocation.ticks import Case, cases, stage_of


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
        np.testing.assert_allclose(shuffled[0].x, plain.x[order], rtol=1e-6, atol=1e-9)
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
        real, imag = (sp.csr_array(sp.hstack([part, part[:, [0]]])) for part in (case.limits.real, case.limits.imag))
        rows = rows_of(replace(case.limits, real=real, imag=imag))
        solved = solve_tree(doubled, replace(stage, rows=rows, **columns), np.zeros(case.limits.row_count))
        if solved is not None:
            assert abs(solved[0].x[0] - solved[0].x[-1]) <= 1e-6


def _whole(site: Limits, weight: Floats, upper: Floats) -> Floats:
    """Everybody's ceiling: the stage's, the upper bound where nothing contests it, 0 where nothing fits."""
    stage = stage_of(site, weight, np.zeros_like(upper), upper)
    dead = site.real[np.flatnonzero(site.capacity <= 1e-6)].sum(axis=0) > 0.0
    x = np.where(dead, 0.0, upper)
    if stage is None:
        return x
    assert site.tree is not None
    solved = solve_tree(site.tree, stage, np.zeros(site.row_count))
    assert solved is not None
    return np.where(stage.free, solved[0].x, x)


def test_more_capacity_never_lowers_the_utility() -> None:
    """Raising any one limit leaves the utility of all at least as high, also of whom it frees from the contest."""
    gained = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 60))
        site = random_tree(count, seed)
        weight, upper = np.exp(rng.uniform(-3.0, 3.0, count)), rng.uniform(6.0, 32.0, count)
        raised = site.capacity.copy()
        raised[rng.integers(0, len(raised))] *= rng.uniform(1.0, 2.0)
        before, after = (_whole(replace(site, capacity=most), weight, upper) for most in (site.capacity, raised))
        gain = float(weight @ np.log(after / before))
        assert gain >= -1e-8 * weight.sum()
        gained += gain > 1e-3 * weight.sum()
    assert gained > 5


def test_more_capacity_never_lowers_the_total_of_one_phase_cars() -> None:
    """All on one phase each, on a tree: raising any one limit never lowers the sum of the currents."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 60))
        site = random_tree(count, seed, one_phase=True)
        assert site.tree is not None
        weight, upper = np.exp(rng.uniform(-3.0, 3.0, count)), rng.uniform(6.0, 32.0, count)
        before = site.tree.gain @ _whole(site, weight, upper)
        raised = site.capacity.copy()
        raised[rng.integers(0, len(raised))] *= rng.uniform(1.0, 2.0)
        after = site.tree.gain @ _whole(replace(site, capacity=raised), weight, upper)
        assert after >= before - 1e-6


def test_nobody_gets_more_than_a_limit_allows() -> None:
    """Continuous posts in three classes on random sites: every row holds to 1e-6 A, and the proof does."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 80))
        site = random_tree(count, seed)
        wish = demands(
            count,
            len(site.capacity),
            weight=np.exp(rng.uniform(-13.8, 13.8, count)),
            upper=rng.uniform(0.0, 32.0, count),
            priority=rng.integers(0, 3, count),
            target=rng.uniform(0.0, 32.0, count),
        )
        answer = Allocator(posts(count)).allocate(site, wish)
        assert np.max(site.limit_flow(answer.want) - site.capacity) <= 1e-6
        assert answer.certificate.holds


def test_one_compiled_pass_and_stage_by_stage_agree() -> None:
    """Given the solver explicitly every stage is handed to it one by one: the same ceilings, prices and limits."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 80))
        site = random_tree(count, seed)
        wish = demands(
            count,
            len(site.capacity),
            weight=np.exp(rng.normal(0.0, 1.0, count)),
            priority=rng.integers(0, 3, count),
            target=rng.uniform(0.0, 32.0, count),
            floor=np.where(rng.random(count) < 0.2, 2.0, 0.0),
        )
        together = Allocator(posts(count)).allocate(site, wish)
        one_by_one = Allocator(posts(count), Solver()).allocate(site, wish)
        np.testing.assert_array_equal(together.want, one_by_one.want)
        np.testing.assert_array_equal(together.price, one_by_one.price)
        np.testing.assert_array_equal(together.binding_limit, one_by_one.binding_limit)
        assert together.warm.stage == one_by_one.warm.stage
