"""The paths of one stage, best first: each answer is judged, and one that does not prove itself is not an answer."""

from __future__ import annotations

from typing import Protocol

from powerd.allocation.certificate import Certificate, judge
from powerd.allocation.conic import Conic
from powerd.allocation.shrink import shrink
from powerd.allocation.smooth_dual import PACES, solve_smoothed
from powerd.allocation.stage import Solution, Stage
from powerd.allocation.tree_kernel import solve_tree
from powerd.limits import Floats, Limits


class StageSolver(Protocol):
    """Anything that solves stages."""

    by_level: bool
    """What it is about, for the pilot steps: the lowest x / weight (max-min), or the sum of weight log x."""

    def solve(self, limits: Limits, stage: Stage, start: Floats) -> tuple[Solution, Certificate]:
        """Solve one stage; see ``Solver.solve``."""


class Solver:
    """Solves stages; keeps what the paths have set up."""

    by_level = False

    def __init__(self) -> None:
        self._conic = Conic()

    def solve(self, limits: Limits, stage: Stage, start: Floats) -> tuple[Solution, Certificate]:
        """Solve one stage by the first path whose answer proves itself; the guard's answer stands at the end.

        ``start`` (m,) are row prices to start from, all 0 = cold.
        """
        if limits.tree is not None:
            solved = solve_tree(limits.tree, stage, start)
            if solved is not None and solved[1].holds:
                return solved
        for equilibrate in (True, False):
            solution = self._conic.solve(stage, equilibrate=equilibrate)
            if solution is not None:
                certificate = judge(stage, solution, "conic")
                if certificate.holds:
                    return solution, certificate
        for pace in PACES:  # weights too far apart for the conic solver
            solution = solve_smoothed(stage, pace)
            if solution is not None:
                certificate = judge(stage, solution, "conic")
                if certificate.holds:
                    return solution, certificate
        shrunk = shrink(stage)
        return shrunk, judge(stage, shrunk, "guard")
