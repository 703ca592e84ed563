"""``python -m bench allocate``: the allocation against general solvers, on the same statement, interleaved.

``plain``: weighted proportional fairness, one stage, all EVSEs free, warm from tick to tick. ``full``: three classes,
target then surplus, minima, 5 % of the limits fallen, and the grant step; the rival rebuilds each stage in cvxpy.

``relative_gap`` is the utility that an answer misses against Clarabel at 1e-11, over ``gap_ticks`` ticks; what powerd's
own certificate proves is ``certificate_gap``.

Between two ticks the rivals leave little of powerd's code and data in the caches, as a second without a tick would. The
cases ``…, back to back`` are powerd alone, tick after tick: what its work costs by itself. There ``max-min`` is the
stage of ``plain`` by the other fairness.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from time import perf_counter

import numpy as np

from bench.instances import Tick, full_demands, plain_stage, posts, priorities, stream
from bench.rivals import ClarabelDirect, CvxpyDpp, Engine, Osqp, Piqp, cvxpy_rebuilt
from powerd.allocation.allocate import COLD, Allocator
from powerd.allocation.certificate import NOTHING_TO_DECIDE, Certificate, judge, worst_of
from powerd.allocation.demands import Demands
from powerd.allocation.guard import admit_raises
from powerd.allocation.max_min import MaxMinSolver
from powerd.allocation.rows import rows_of
from powerd.allocation.solve import Solver
from powerd.allocation.stage import Solution, Stage
from powerd.limits import Floats, Ints, Limits
from powerd.units import ROW_TOLERANCE

PACKAGES = ("numpy", "numba", "cvxpy", "clarabel", "piqp", "osqp")

#: Ticks per size: enough for a p99 where ticks are cheap.
TICKS = {50: 300, 500: 200, 5000: 60, 50000: 12}

#: A rival that has used this many seconds on one case runs no further ticks (at least three).
RIVAL_SECONDS = 40.0

#: Engines that are left out above this size, and why: compiling the parametrised statement wants n x rows entries each
#: way (161 GiB at 50 000).
LARGEST = {"cvxpy dpp, clarabel": 10_000}

#: Tolerance of the reference that all answers are measured against: Clarabel still reaches it at 5 000 EVSEs.
REFERENCE = 1e-11

Row = dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--sizes", default="50,500,5000", help="EVSE counts, comma-separated")
    parser.add_argument("--cases", default="plain,full", help="plain, full or both")
    parser.add_argument("--ticks", type=int, default=0, help="ticks per size; 0 = as many as fit the size")


class Clock:
    """Times of one engine on one case."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.violation = 0.0
        self.gap = 0.0
        self.compared = 0
        self.certified = 0.0
        self.fallbacks = 0

    def open(self, engine: str) -> bool:
        """Whether the engine may run another tick."""
        return engine == "powerd" or len(self.seconds) < 3 or sum(self.seconds) < RIVAL_SECONDS

    def compare(self, stage: Stage, x: Floats, best: Solution | None) -> None:
        """What ``x`` misses against the reference, where there is one."""
        if best is not None:
            self.compared += 1
            self.gap = max(self.gap, abs(_missed(stage, x, best.x)))

    def row(self, case: str, engine: str, count: int) -> Row:
        """The JSON row. The first tick, which compiles and sets up, does not count."""
        times = np.array(self.seconds[1:] or self.seconds) * 1e3
        return {
            "case": case,
            "engine": engine,
            "n": count,
            "median_ms": round(float(np.median(times)), 4),
            "p99_ms": round(float(np.percentile(times, 99)), 4),
            "ticks": len(times),
            "worst_violation_a": float(f"{self.violation:.2g}"),
            "relative_gap": float(f"{self.gap:.2g}") if self.compared else None,
            "gap_ticks": self.compared,
            "certificate_gap": float(f"{self.certified:.2g}") if engine == "powerd" else None,
            "fallbacks": self.fallbacks,
        }


def _missed(stage: Stage, x: Floats, best: Floats) -> float:
    """Utility that x misses against another answer, relative to the weights; negative where it has more."""
    return float(np.sum(stage.weight * np.log(best / np.maximum(x, 1e-300))) / np.sum(stage.weight))


def _violation(stage: Stage, limits: Limits, x: Floats) -> float:
    """Largest overshoot of a row or bound [A]."""
    return float(max(np.max(limits.flow(x) - stage.headroom), np.max(x - stage.upper), np.max(stage.lower - x), 0.0))


def _ticks(count: int, wanted: int) -> Iterator[Tick]:
    """The stream, as many ticks as fit the size."""
    most = wanted or TICKS[min(TICKS, key=lambda size: abs(np.log(size / count)))]
    return islice(stream(count), most + 1)


class Reference:
    """An independent answer to ``REFERENCE``, outside of every clock, for as many ticks as fit ``RIVAL_SECONDS``."""

    def __init__(self) -> None:
        self._solve, self._clock = ClarabelDirect(REFERENCE), Clock()

    def __call__(self, stage: Stage) -> Solution | None:
        """None where there was no time, or Clarabel does not reach it."""
        if not self._clock.open("reference"):
            return None
        before = perf_counter()
        answer = self._solve(stage)
        self._clock.seconds.append(perf_counter() - before)
        return answer


def plain(count: int, ticks: int) -> list[Row]:
    """Every engine on every tick, one after the other in one process."""
    rivals: dict[str, Engine] = {
        "cvxpy rebuilt, clarabel": cvxpy_rebuilt,
        "cvxpy dpp, clarabel": CvxpyDpp(),
        "clarabel direct": ClarabelDirect(),
        "piqp, sequential": Piqp(),
        "osqp, sequential": Osqp(),
    }
    rivals = {engine: solve for engine, solve in rivals.items() if count <= LARGEST.get(engine, count)}
    clocks = {engine: Clock() for engine in ("powerd", *rivals)}
    solver, start, reference = Solver(), np.zeros(0), Reference()
    for tick in _ticks(count, ticks):
        stage = plain_stage(tick)
        warm = start if len(start) else np.zeros(tick.limits.row_count)
        before = perf_counter()
        best, certificate = solver.solve(tick.limits, stage, warm)
        clocks["powerd"].seconds.append(perf_counter() - before)
        start = best.price
        clocks["powerd"].fallbacks += certificate.path != "kernel"
        exact = reference(stage)
        clocks["powerd"].compare(stage, best.x, exact)
        clocks["powerd"].certified = max(clocks["powerd"].certified, abs(certificate.gap))
        clocks["powerd"].violation = max(clocks["powerd"].violation, _violation(stage, tick.limits, best.x))
        for engine, solve in rivals.items():
            clock = clocks[engine]
            if clock.open(engine):
                before = perf_counter()
                answer = solve(stage)
                clock.seconds.append(perf_counter() - before)
                if answer is None:
                    clock.fallbacks += 1
                else:
                    clock.compare(stage, answer.x, exact)
                    clock.violation = max(clock.violation, _violation(stage, tick.limits, answer.x))
    return [clock.row("plain", engine, count) for engine, clock in clocks.items()]


def back_to_back(count: int, ticks: int) -> list[Row]:
    """powerd alone on the same stages, by both fairnesses."""
    stages = [(tick.limits, plain_stage(tick)) for tick in _ticks(count, ticks)]
    rows = []
    for case, solver in (("plain", Solver()), ("max-min", MaxMinSolver())):
        clock, start = Clock(), np.zeros(stages[0][0].row_count)
        for limits, stage in stages:
            before = perf_counter()
            best, certificate = solver.solve(limits, stage, start)
            clock.seconds.append(perf_counter() - before)
            start = best.price
            clock.fallbacks += certificate.path != "kernel"
            clock.certified = max(clock.certified, abs(certificate.gap))
            clock.violation = max(clock.violation, _violation(stage, limits, best.x))
        rows.append(clock.row(f"{case}, back to back", "powerd", count))
    return rows


def _on(limits: Limits, demands: Demands, members: Ints, x: Floats) -> Ints:
    """Members whose minimum fits beside what is decided, one after the other."""
    fits = []
    matrix = limits.real.tocsc()
    flow = matrix @ x
    for i in members:
        rows = slice(matrix.indptr[i], matrix.indptr[i + 1])
        touched, more = matrix.indices[rows], matrix.data[rows] * demands.minimum[i]
        if np.all(flow[touched] + more <= limits.capacity[touched] + 1e-9):
            flow[touched] += more
            fits.append(i)
    return np.array(fits, dtype=np.int64)


def cvxpy_lexicographic(limits: Limits, demands: Demands) -> tuple[Floats, Certificate]:
    """The same classes, levels and minima, every stage rebuilt in cvxpy over all its EVSEs."""
    x, certificate = np.zeros(len(demands.weight)), NOTHING_TO_DECIDE
    for priority in np.unique(demands.priority)[::-1]:
        members = np.flatnonzero((demands.priority == priority) & (demands.upper >= demands.minimum))
        on = _on(limits, demands, members, x)
        x[on] = demands.minimum[on]
        for ceiling in (np.clip(demands.target, demands.minimum, demands.upper), demands.upper):
            full = np.flatnonzero(limits.real @ x >= limits.capacity - ROW_TOLERANCE)
            free = np.zeros(len(x), dtype=np.bool_)
            free[on] = ceiling[on] > x[on] + ROW_TOLERANCE
            free[limits.real[full].tocsr().indices] = False
            if not free.any():
                continue
            base = limits.real @ np.where(free, 0.0, x)
            stage = Stage(
                rows=rows_of(limits),
                free=free,
                weight=demands.weight,
                lower=x.copy(),
                upper=ceiling,
                base_real=base,
                base_imag=np.zeros_like(base),
                headroom=np.maximum(limits.capacity, base),
            )
            answer = cvxpy_rebuilt(stage)
            if answer is None:  # everybody stays where he is
                certificate = worst_of(certificate, replace(NOTHING_TO_DECIDE, path="guard"))
                continue
            certificate = worst_of(certificate, judge(stage, answer, "conic"))
            x = np.where(free, np.clip(answer.x, x, ceiling), x)
    return x, certificate


Want = Callable[[Limits, Demands], tuple[Floats, Certificate]]


def _warm_want(allocator: Allocator) -> Want:
    """powerd's want, its prices carried from tick to tick."""
    warm = COLD

    def want(limits: Limits, demands: Demands) -> tuple[Floats, Certificate]:
        nonlocal warm
        answer = allocator.allocate(limits, demands, warm)
        warm = answer.warm
        return answer.want, answer.certificate

    return want


def _with_grant(want: Want) -> Want:
    """Want, then the grant step on the ceilings of the tick before."""
    ceiling = np.zeros(0)

    def step(limits: Limits, demands: Demands) -> tuple[Floats, Certificate]:
        nonlocal ceiling
        wanted, certificate = want(limits, demands)
        current = ceiling if len(ceiling) else np.zeros(len(wanted))
        ceiling = admit_raises(limits, demands.uncontrolled, current, current, wanted, demands.minimum)
        return wanted, certificate

    return step


def full(count: int, ticks: int) -> list[Row]:
    """The whole room: classes, target and surplus, minima, guard and grant step."""
    engines = {
        "powerd": _with_grant(_warm_want(Allocator(posts(count)))),
        "cvxpy rebuilt, clarabel": _with_grant(cvxpy_lexicographic),
    }
    clocks = {engine: Clock() for engine in engines}
    priority = priorities(count)
    for tick in _ticks(count, ticks):
        limits, demands = full_demands(tick, priority)
        for engine, step in engines.items():
            clock = clocks[engine]
            if clock.open(engine):
                before = perf_counter()
                want, certificate = step(limits, demands)
                clock.seconds.append(perf_counter() - before)
                clock.fallbacks += certificate.path == "guard"
                clock.certified = max(clock.certified, abs(certificate.gap))
                clock.violation = max(clock.violation, float(np.max(limits.flow(want) - limits.capacity)), 0.0)
    return [clock.row("full", engine, count) for engine, clock in clocks.items()]


def _peak_mb(case: str, count: int) -> float:
    """Peak memory of a fresh process that allocates for ``count`` EVSEs; 0 = that only imports the room [MB]."""
    command = [sys.executable, "-m", "bench.memory", case, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 our own program
    return float(done.stdout.split()[0])


def run(arguments: argparse.Namespace) -> list[Row]:
    """All sizes and cases."""
    rows: list[Row] = []
    for count in (int(size) for size in arguments.sizes.split(",")):
        for case in arguments.cases.split(","):
            print(f"{case}, {count} EVSEs ...", file=sys.stderr)
            rows += {"plain": plain, "full": full}[case](count, arguments.ticks)
            added_mb = round(_peak_mb(case, count) - _peak_mb(case, 0), 1)
            rows.append({"case": f"memory, {case}", "engine": "powerd", "n": count, "added_mb": added_mb})
        if "plain" in arguments.cases:
            rows += back_to_back(count, arguments.ticks)
    return rows + _exponents(rows)


def _exponents(rows: list[Row]) -> list[Row]:
    """b of ``median = a n^b``, fitted over powerd's sizes from 500 up: below, what a call costs hides it."""
    found: list[Row] = []
    for case in ("plain", "full"):
        own = [row for row in rows if (row["case"], row["engine"]) == (case, "powerd") and float(str(row["n"])) >= 500]
        if len(own) > 1:
            n, median = (np.log([float(str(row[key])) for row in own]) for key in ("n", "median_ms"))
            found.append(
                {"case": f"{case} cost exponent", "engine": "powerd", "value": round(np.polyfit(n, median, 1)[0], 3)}
            )
    return found
