"""The AC check of the tick: ceilings whose power flow would leave a bound are decided once more, then shed.

want -> power flow -> tightened rows -> want' -> grant -> power flow -> shed. Ceilings only ever fall by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.allocation.demands import Demands
from powerd.allocation.guard import shed
from powerd.allocation.steps import PilotSteps
from powerd.limits import Floats, Ints, Limits
from powerd.network.flow_check import AcCheck, Verdict
from powerd.state.columns import replace
from powerd.units import ROW_TOLERANCE

#: Rounds of shedding by sensitivities; in the last one, all that can be shed below the rows concerned goes.
ROUNDS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Shed:
    """What a power flow took back of ceilings that the limits allowed."""

    limits: Limits
    """The limits, with what the power flow made of them."""
    limit: Ints
    """(n,) index of the one that each EVSE was shed for; -1 = it was not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """What is left after the check."""

    ceiling: Floats
    """(n,) ceilings, each <= the one given [own unit]."""
    alarms: tuple[str, ...] = ()
    """Bounds that stay broken because nothing more can be shed."""
    shed: Shed | None = None
    """Who was shed for what; None = nobody."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tightened:
    """Limits after a first look at what is wanted."""

    limits: Limits
    """The limits to decide under."""
    alarms: tuple[str, ...]
    """What made them tighter; empty = they are those given."""


def tighten(check: AcCheck, limits: Limits, demands: Demands, x: Floats, loads_worst: Floats) -> Tightened:
    """The ``limits`` under which ceilings like ``x`` (n,) break no bound of the power flow, to first order.

    ``loads_worst`` (L,): the uncontrolled loads under each limit as the power flow takes them [limit unit].
    """
    taken = np.maximum(x, demands.floor)
    verdict = check.judge(taken, _spare(demands, loads_worst))
    if verdict.count == 0:
        return Tightened(limits=limits, alarms=())
    tighter = check.tightened(limits, demands.uncontrolled, taken, verdict)
    alarm = f"voltage or losses hold ceilings down: at what was wanted, {check.worst(verdict)}"
    return Tightened(limits=tighter, alarms=(alarm,))


def _spare(demands: Demands, loads_worst: Floats) -> Floats:
    """(L,) what the loads take less than their worst, by what is counted of them: a meter sees them [limit unit]."""
    return np.maximum(loads_worst - np.maximum(demands.uncontrolled, 0.0), 0.0)


def hold(check: AcCheck, limits: Limits, demands: Demands, x: Floats, loads_worst: Floats, steps: PilotSteps) -> Held:
    """Shed ceilings ``x`` (n,) until the power flow at them breaks no bound, or nothing is left to shed."""
    spare = _spare(demands, loads_worst)
    verdict = check.judge(np.maximum(x, demands.floor), spare)
    if verdict.count == 0:
        return Held(ceiling=x)
    tighter, below = limits, x
    for left in range(ROUNDS, 0, -1):
        tighter, below = _shed_once(check, tighter, demands, below, steps, verdict, everything=left == 1)
        verdict = check.judge(np.maximum(below, demands.floor), spare)
        if verdict.count == 0:
            break
    alarms = (f"nothing is left to shed, and still {check.worst(verdict)}",) if verdict.count else ()
    limit = np.where(below < x - ROW_TOLERANCE, _tightest(limits, tighter, demands, below), -1)
    return Held(ceiling=below, alarms=alarms, shed=Shed(limits=tighter, limit=limit))


def _tightest(limits: Limits, tighter: Limits, demands: Demands, x: Floats) -> Ints:
    """(n,) of what is tighter above each EVSE, the limit with least room at the ceilings ``x`` (n,); -1 = none is."""
    room = tighter.capacity - demands.uncontrolled - tighter.limit_flow(np.maximum(x, demands.floor))
    rows = np.flatnonzero((tighter.capacity < limits.capacity)[tighter.limit_of_row])
    rows = rows[np.argsort(-room[tighter.limit_of_row[rows]], kind="stable")]
    found = np.full(x.shape, -1)
    for row in rows.tolist():
        for part in (tighter.real, tighter.imag):
            found[part.indices[part.indptr[row] : part.indptr[row + 1]]] = tighter.limit_of_row[row]
    return found


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
    tighter = check.tightened(limits, demands.uncontrolled, taken, verdict)
    if everything:
        capacity = np.where(tighter.capacity < limits.capacity, demands.uncontrolled, tighter.capacity)
        tighter = replace(tighter, capacity=capacity)
    left = shed(
        tighter,
        demands.uncontrolled,
        x,
        demands.minimum,
        demands.floor,
        demands.order,
        silent=demands.silent,
        steps=steps,
    )
    return tighter, left
