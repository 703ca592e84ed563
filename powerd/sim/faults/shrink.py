"""A failing scenario made small: happenings are left out as long as it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from powerd.sim.faults.claims import Broken
from powerd.sim.faults.scenario import Scenario
from powerd.sim.faults.world import World


def failure_of(scenario: Scenario) -> str | None:
    """What breaks in a scenario; None = nothing."""
    try:
        World(scenario).run()
    except Broken as broken:
        return str(broken)
    return None


def shrunk(scenario: Scenario, fails: Callable[[Scenario], str | None] = failure_of) -> Scenario:
    """The smallest scenario found that breaks the same invariant (delta debugging, then fewer steps)."""
    told = fails(scenario)
    if told is None:
        return scenario
    word = told.split(":", maxsplit=1)[0]

    def same(smaller: Scenario) -> bool:
        found = fails(smaller)
        return found is not None and found.split(":", maxsplit=1)[0] == word

    pieces = 2
    while pieces <= 2 * len(scenario.happenings):
        smaller = _without_a_piece(scenario, pieces, same)
        if smaller is None:
            pieces *= 2
        else:
            scenario, pieces = smaller, max(2, pieces // 2)
    for steps in range(1, scenario.steps):
        if all(one.step < steps for one in scenario.happenings) and same(replace(scenario, steps=steps)):
            return replace(scenario, steps=steps)
    return scenario


def _without_a_piece(scenario: Scenario, pieces: int, same: Callable[[Scenario], bool]) -> Scenario | None:
    """The scenario without one of so many pieces, if one can go."""
    happenings = scenario.happenings
    length = max(1, -(-len(happenings) // pieces))
    for start in range(0, len(happenings), length):
        smaller = replace(scenario, happenings=happenings[:start] + happenings[start + length :])
        if same(smaller):
            return smaller
    return None
