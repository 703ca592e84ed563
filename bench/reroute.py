"""``python -m bench reroute``: plans and playbooks on random networks of 5 to 40 switches, exact and by search.

Each network is a ring of sections between two supplies with chords, every joint a switch that may move, one of them
open; what is planned around is the loss of one supply. ``exact`` tries every state, ``HiGHS`` solves the statement of
``network/plan_milp`` (all four levels) beside the search. ``gap_percent`` is what is delivered less than by the exact
plan, beyond 16 switches than by the better of the two. ``playbook`` is the plan for a single loss, ``together_s`` those
for all of them, ``lookup`` one question's key and its way through them.

An engine is asked nothing more of a size once it has used ``SECONDS`` there, and HiGHS has ``LEVEL_S`` for a level;
where that stopped one, ``stopped`` says how many questions were left.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np

from powerd.network.plan import EXACT_SWITCHES, Plan, Planner, Question
from powerd.network.plan_kernels import Grid
from powerd.state.switchgear import PlanEntry

PACKAGES = ("numpy", "numba", "highspy")

#: Switches that may move.
SIZES = (5, 10, 14, 16, 20, 30, 40)
#: Networks a size.
NETWORKS = 3
#: An engine that has used this much on one size is asked no more there [s].
SECONDS = 15.0
#: Most time for a level of the mixed-integer program [s]; the daemon gives it more.
LEVEL_S = 5.0

Row = dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--max-switches", type=int, default=max(SIZES), help="largest network (default %(default)s)")


def run(arguments: argparse.Namespace) -> list[Row]:
    """One row for each size and engine."""
    rows: list[Row] = []
    _size(min(SIZES))  # compiles
    for size in SIZES:
        if size <= arguments.max_switches:
            print(f"{size} switches", file=sys.stderr)
            rows += _size(size)
    return rows


def _size(switches: int) -> list[Row]:
    """All engines on the same networks; one that has used its time is asked no more, and its row says so."""
    spent: dict[str, list[float]] = {"exact": [], "search": [], "HiGHS": []}
    short: dict[str, list[float]] = {engine: [] for engine in spent}
    cases = [_network(switches, seed) for seed in range(NETWORKS)]
    for planner, question in cases:
        engines = {"search": planner.heuristic, "HiGHS": planner.program}
        if switches <= EXACT_SWITCHES:
            engines["exact"] = planner.exact
        asked = _without_supply(question)
        found = {
            name: _timed(spent[name], engine, asked) for name, engine in engines.items() if sum(spent[name]) < SECONDS
        }
        best = found["exact"].score if "exact" in found else max(plan.score for plan in found.values())
        for name, plan in found.items():
            short[name].append(100.0 * (1.0 - plan.score.deliverable / max(best.deliverable, 1e-9)))
    rows = [
        _row(name, switches, times, NETWORKS) | {"gap_percent": round(max(short[name]), 3)}
        for name, times in spent.items()
        if times
    ]
    return [*rows, *_playbook(switches, *cases[0])]


def _row(engine: str, switches: int, times: list[float], wanted: int) -> Row:
    """The JSON row of an engine that was asked ``wanted`` questions and answered each in ``times`` [s]."""
    return {
        "case": "two supplies",
        "engine": f"powerd {engine}",
        "n": switches,
        "median_ms": round(1e3 * float(np.median(times)), 4),
        "p99_ms": round(1e3 * float(np.percentile(times, 99)), 4),
        "answered": len(times),
        "stopped": f"after {SECONDS:g} s: {wanted - len(times)} left" if len(times) < wanted else "",
    }


def _without_supply(question: Question) -> Question:
    """The loss of the first supply, upstream of everything it fed."""
    alive = question.alive.copy()
    alive[0] = False
    return replace(question, alive=alive)


def _without_branch(question: Question, branch: int) -> Question:
    """The loss of one branch, without a fault there."""
    known, shadow = question.known.copy(), question.shadow.copy()
    known[branch], shadow[branch] = False, True
    return replace(question, known=known, shadow=shadow)


def _timed(times: list[float], plan: Callable[[Question], Plan], question: Question) -> Plan:
    """One plan."""
    started = perf_counter()
    found = plan(question)
    times.append(perf_counter() - started)
    return found


def _playbook(switches: int, planner: Planner, question: Question) -> list[Row]:
    """Plans for the loss of each branch and of a supply, as the daemon makes them, and look-ups as the tick does."""
    losses = [_without_supply(question)]
    losses += [_without_branch(question, e) for e in range(question.closed.shape[0])]
    plans: list[float] = []
    book: tuple[PlanEntry, ...] = ()
    for loss in losses:
        if sum(plans) < SECONDS:
            book += (PlanEntry(key=loss.key, steps=_timed(plans, planner.plan, loss).steps),)
    planner.remembered(book, "")
    lookups: list[float] = []
    for loss in losses:
        asked = replace(loss)  # its key is not known yet
        started = perf_counter()
        planner.remembered(book, asked.key)
        lookups.append(perf_counter() - started)
    playbook = _row("playbook", switches, plans, len(losses))
    return [playbook | {"together_s": round(sum(plans), 3)}, _row("lookup", switches, lookups, len(losses))]


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
        rating=demand,
        reserve=0.1 * demand,
        reserve_kw=0.1 * demand.sum(axis=1),
        load=load,
        load_kw=load.sum(axis=1),
        pickup=1.5 * load,
        pickup_kw=1.5 * load.sum(axis=1),
        worth=np.column_stack([load.sum(axis=1) * (rng.random(buses) < 0.2), demand.sum(axis=1)]),
        supply_bus=np.array([0, buses - 1]),
        import_kw=np.full(2, 40.0 * buses),
        site_kw=np.inf,
        least_kw=np.inf,
        lock_start=np.zeros(1, np.int64),
        lock_branch=np.zeros(0, np.int64),
        lock_most=np.zeros(0, np.int64),
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
        fresh=none,
        sync=np.zeros(len(edges), np.bool_),
        demand=demand,
    )
    return Planner(grid, seconds=LEVEL_S), question
