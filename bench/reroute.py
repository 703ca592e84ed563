"""``python -m bench reroute``: plans and playbooks on random networks of 5 to 40 switches, exact and by search.

Each network is a ring of sections between two supplies with chords, every joint a switch that may move, one of them
open; what is planned around is the loss of one supply. ``gap_percent`` is what the search delivers less than the exact
plan. ``lookup`` is one question's way through a playbook of N-1 plans.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import perf_counter

import numpy as np

from powerd.network.plan import EXACT_SWITCHES, Grid, Plan, Planner, Question, without

PACKAGES = ("numpy", "numba", "scipy")

#: Switches that may move.
SIZES = (5, 10, 14, 16, 20, 30, 40)
#: Networks a size.
NETWORKS = 5

Row = dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--max-switches", type=int, default=max(SIZES), help="largest network (default %(default)s)")


def run(arguments: argparse.Namespace) -> list[Row]:
    """One row for each size and engine."""
    rows: list[Row] = []
    for size in SIZES:
        if size <= arguments.max_switches:
            print(f"{size} switches", file=sys.stderr)
            rows += _size(size)
    return rows


def _size(switches: int) -> list[Row]:
    """All engines on the same networks."""
    times: dict[str, list[float]] = {"exact": [], "search": [], "playbook": [], "lookup": []}
    gaps: list[float] = []
    for seed in range(NETWORKS):
        planner, question = _network(switches, seed)
        asked = without(question, supply=0)
        found = _timed(times["search"], planner.heuristic, asked)
        if switches <= EXACT_SWITCHES:
            best = _timed(times["exact"], planner.exact, asked)
            gaps.append(100.0 * (1.0 - found.score.deliverable / max(best.score.deliverable, 1e-9)))
        _playbook(times, planner, question)
    rows = []
    for engine, spent in times.items():
        if spent:
            row: Row = {"case": "two supplies", "engine": f"powerd {engine}", "n": switches}
            row |= {"median_ms": round(1e3 * float(np.median(spent)), 4)}
            row |= {"p99_ms": round(1e3 * float(np.percentile(spent, 99)), 4)}
            rows.append(row | ({"gap_percent": round(max(gaps), 3)} if engine == "search" and gaps else {}))
    return rows


def _timed(times: list[float], plan: Callable[[Question], Plan], question: Question) -> Plan:
    """One plan, the second time: the first compiles."""
    plan(question)
    started = perf_counter()
    found = plan(question)
    times.append(perf_counter() - started)
    return found


def _playbook(times: dict[str, list[float]], planner: Planner, question: Question) -> None:
    """Plans for the loss of each branch and supply, by what the daemon would use, and one look-up."""
    losses = [without(question, supply=s) for s in range(2)]
    losses += [without(question, branch=e) for e in range(question.closed.shape[0])]
    plan = planner.plan if question.movable.sum() <= 10 else planner.heuristic
    started = perf_counter()
    book = {loss.key: plan(loss).steps for loss in losses}
    times["playbook"].append(perf_counter() - started)
    keys = [loss.key for loss in losses]
    started = perf_counter()
    for key in keys:
        book.get(key)
    times["lookup"].append((perf_counter() - started) / len(keys))


def _network(switches: int, seed: int) -> tuple[Planner, Question]:
    """A ring with chords: sections with demand and load, a supply at either end."""
    rng = np.random.default_rng(seed)
    sections = switches - switches // 4 - 1
    ring = [(k, k + 1) for k in range(sections)]
    chords = [tuple(sorted(rng.choice(sections + 1, 2, replace=False).tolist())) for _ in range(switches - sections)]
    edges = np.array(ring + chords)
    buses = sections + 1
    demand = np.repeat(rng.uniform(0, 40, (buses, 1)), 3, axis=1)
    load = np.repeat(rng.uniform(0, 5, (buses, 1)), 3, axis=1)
    ends = np.concatenate([edges[:, 0], edges[:, 1]])
    grid = Grid(
        from_bus=edges[:, 0],
        to_bus=edges[:, 1],
        start=np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=buses))]).astype(np.int64),
        links=(np.argsort(ends, kind="stable") % len(edges)).astype(np.int64),
        capacity=np.repeat(rng.uniform(100, 300, (len(edges), 1)), 3, axis=1),
        demand=demand,
        reserve=0.1 * demand,
        load=load,
        pickup=1.5 * load,
        worth=np.column_stack([load.sum(axis=1) * (rng.random(buses) < 0.2), demand.sum(axis=1)]),
        supply_bus=np.array([0, buses - 1]),
        import_kva=np.full(2, 40.0 * buses),
        site_kva=np.inf,
        locks=(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)),
    )
    closed = np.arange(len(edges)) < sections
    closed[sections // 2] = False
    none = np.zeros(buses, np.bool_)
    question = Question(
        closed=closed,
        known=np.ones(len(edges), np.bool_),
        shadow=np.zeros(len(edges), np.bool_),
        movable=np.ones(len(edges), np.bool_),
        alive=np.ones(2, np.bool_),
        barred=none,
        dead=none,
    )
    return Planner(grid), question
