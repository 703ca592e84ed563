"""The AC check of the tick: ceilings whose power flow would leave a bound are decided once more, then shed.

want -> power flow -> tightened rows -> want' -> grant -> power flow -> shed. Ceilings only ever fall by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.guard import shed
from powerd.allocation.steps import PilotSteps
from powerd.limits import Floats, Limits
from powerd.network.flow_check import AcCheck, Verdict
from powerd.state.columns import replace

#: Rounds of shedding by sensitivities; in the last one, all that can be shed below the rows concerned goes.
ROUNDS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """What is left after the check."""

    ceiling: Floats
    """(n,) ceilings, each <= the one given [own unit]."""
    alarms: tuple[str, ...]
    """Bounds that stay broken because nothing more can be shed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tightened:
    """Limits after a first look at what is wanted."""

    limits: Limits
    """The limits to decide under."""
    alarms: tuple[str, ...]
    """What made them tighter; empty = they are those given."""


def tighten(check: AcCheck, limits: Limits, demands: Demands, x: Floats) -> Tightened:
    """The ``limits`` under which ceilings like ``x`` (n,) break no bound of the power flow, to first order."""
    taken = np.maximum(x, demands.floor)
    verdict = check.judge(taken)
    if verdict.count == 0:
        return Tightened(limits=limits, alarms=())
    capacity = check.tightened(limits, demands.uncontrolled, taken, verdict)
    alarm = f"voltage or losses hold ceilings down: at what was wanted, {check.worst(verdict)}"
    return Tightened(limits=replace(limits, capacity=capacity), alarms=(alarm,))


def hold(check: AcCheck, limits: Limits, demands: Demands, x: Floats, steps: PilotSteps) -> Held:
    """Shed ceilings ``x`` (n,) until the power flow at them breaks no bound, or nothing is left to shed."""
    verdict = check.judge(np.maximum(x, demands.floor))
    for left in range(ROUNDS, 0, -1):
        if verdict.count == 0:
            return Held(ceiling=x, alarms=())
        limits, x = _shed_once(check, limits, demands, x, steps, verdict, everything=left == 1)
        verdict = check.judge(np.maximum(x, demands.floor))
    if verdict.count == 0:
        return Held(ceiling=x, alarms=())
    return Held(ceiling=x, alarms=(f"nothing is left to shed, and still {check.worst(verdict)}",))


def _shed_once(
    check: AcCheck,
    limits: Limits,
    demands: Demands,
    x: Floats,
    steps: PilotSteps,
    verdict: Verdict,
    *,
    everything: bool,
) -> tuple[Limits, Floats]:
    """Tighten the rows concerned and shed; ``everything`` below them in the last round."""
    taken = np.maximum(x, demands.floor)
    capacity = check.tightened(limits, demands.uncontrolled, taken, verdict)
    if everything:
        capacity = np.where(capacity < limits.capacity, demands.uncontrolled, capacity)
    tighter = replace(limits, capacity=capacity)
    left = shed(
        tighter,
        demands.uncontrolled,
        x,
        demands.minimum,
        demands.floor,
        demands.order,
        steps=steps,
    )
    return tighter, left
