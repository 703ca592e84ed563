"""The degraded modes: what is granted when something fails, and how it ends. One table; ``docs/failsafe.md`` prints it.

Whatever fails, decreases and stops go out at once and R1 and the guard hold: a mode only ever takes raises away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerd.allocation.allocate import Allocation, Warm
from powerd.allocation.certificate import Certificate
from powerd.allocation.demands import Demands
from powerd.allocation.steps import PilotSteps, all_down
from powerd.control.events import Event, SolveSkipped
from powerd.limits import Bools, Floats
from powerd.state.impaired import Impaired, Trigger
from powerd.state.snapshot import Snapshot
from powerd.units import Now

STEPPED_S = 2.0
"""Wall and boottime clock may drift apart by this much between two ticks: more is a step (NTP slews below it)."""


@dataclass(frozen=True, kw_only=True)
class DegradedMode:
    """One row of the table."""

    trigger: Trigger
    """What went wrong."""
    noticed: str
    """How the daemon sees it."""
    mode: str
    """What it is called."""
    granted: str
    """What is granted meanwhile."""
    ends: str
    """How it ends; always without a person, unless it says so."""
    raises: bool
    """Ceilings may rise meanwhile, as far as R1 admits."""
    serving: bool
    """Health says SERVING."""


TABLE = (
    DegradedMode(
        trigger=Trigger.SOLVER_LATE,
        noticed="a solve is not done after half a period",
        mode="guard only",
        granted="every ceiling stays or falls, each tick, by the guard alone; leases are renewed",
        ends="the late answer is granted as far as R1 admits in the tick after it; the next tick solves again",
        raises=False,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.SOLVER_FAILED,
        noticed="neither the kernel nor the interior point proves its answer",
        mode="guard's shares",
        granted="what the guard shares out within every limit, without a proof that it is the best",
        ends="the first tick whose answer is proved",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.AC_CHECK_FAILED,
        noticed="the power flow of the wanted ceilings breaks a bound or has no solution",
        mode="decided again, then shed",
        granted="one more allocation under tighter limits; what still breaks a bound is shed",
        ends="the first tick whose power flow keeps every bound",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.METER_STALE,
        noticed="no reading for `stale_after_s`",
        mode="worst case behind the meter",
        granted="what is left when the load behind the meter draws its configured worst case",
        ends="the next reading",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.CONTROLLER_SILENT,
        noticed="no stamp for one ttl while a car is plugged in",
        mode="counted at the most it could draw",
        granted="nothing new to its EVSEs; the others get what is left beside W, later beside its reserve",
        ends="its next stamp or hello",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.SWITCHGEAR_SILENT,
        noticed="no position reported for longer than the switchgear may be silent",
        mode="both positions hold",
        granted="what fits in every position that the switches may be in; no switch is ordered",
        ends="the next report of its positions",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.OPERATOR_SILENT,
        noticed="an envelope is not said again within the heartbeat that its source promised",
        mode="failsafe import limit",
        granted="what fits in the lower one of that envelope and `failsafe_limit_kw`, also outside of its window",
        ends="its source sets the envelope again or withdraws it",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.CLOCK_STEPPED,
        noticed=f"wall and boottime clock moved apart by more than {STEPPED_S:g} s between two ticks",
        mode="new wall clock",
        granted="the same: leases and time-outs count boottime alone; an envelope's window begins by the first of both "
        "clocks and ends by the last",
        ends="with the tick that saw it",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.SUSPENDED,
        noticed="no tick for longer than the shortest ttl",
        mode="after a sleep",
        granted="nothing to a controller until it has spoken again: what it sent before is older than its ttl",
        ends="for each controller with its next stamp",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.OVERLOAD,
        noticed="a call found the inbox full",
        mode="calls turned away",
        granted="what follows from what got in; what did not counts as lost (`RESOURCE_EXHAUSTED`). Stops and trips "
        "have room of their own",
        ends="the first tick that finds the inbox less than half full",
        raises=True,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.DISK_SLOW,
        noticed="a tick has waited for the disk for more than two ticks",
        mode="no raise",
        granted="every ceiling stays or falls, and none is above what a restart would cover; leases are renewed",
        ends="no tick has waited for the disk for more than two ticks any more",
        raises=False,
        serving=True,
    ),
    DegradedMode(
        trigger=Trigger.DISK_FAILED,
        noticed="the disk refuses the journal (full, read-only, damaged, gone), or does not answer until 64 MB wait",
        mode="no raise, nothing acknowledged",
        granted="every ceiling stays or falls, and none is above what a restart would cover; leases are renewed; calls "
        "that change something are answered `UNAVAILABLE`",
        ends="the first tick that the disk takes; it is tried again each tick",
        raises=False,
        serving=False,
    ),
)
"""Every way in which the daemon goes on when something fails."""
BY_TRIGGER = {row.trigger: row for row in TABLE}


# --- what a mode does to a tick ---------------------------------------------------------------------------------------


def skipped(events: Sequence[Event]) -> SolveSkipped | None:
    """The order to decide without a solve, if there is one."""
    return next((event for event in events if isinstance(event, SolveSkipped)), None)


def unsolved(
    order: SolveSkipped,
    state: Snapshot,
    takes: Bools,
    in_force: Floats,
    demands: Demands,
    steps: PilotSteps,
    rows: int,
) -> Allocation:
    """The wants of a tick that must not wait for a solve: who takes keeps what he has, or gets the late answer.

    Neither is more than the car takes *now*: since the answer was asked for another car may have come, a driver have
    said less, a pause have begun.

    Args:
        order: why, with the late answer if there is one.
        state: of this tick; its warm start is kept for the next solve.
        takes: (n,) EVSEs that can be granted something.
        in_force: (n,) ceilings that they follow [own unit].
        demands: of this tick.
        steps: pilot steps of the posts.
        rows: limit rows of the site.
    """
    wanted = _capped(in_force if order.want is None else order.want, demands.upper, demands.minimum, steps)
    unproved = Certificate(primal_residual=0.0, dual_residual=np.inf, gap=np.inf, iterations=0, path="guard")
    return Allocation(
        want=np.where(takes, wanted, 0.0),
        certificate=unproved,
        price=np.zeros(rows),
        binding_limit=np.full(in_force.shape, -1),
        warm=Warm(stage=state.warm_stage, price=state.warm_price),
    )


def held(impaired: Impaired, want: Floats, in_force: Floats, minimum: Floats, steps: PilotSteps) -> Floats:
    """(n,) the wants without what the active modes take away: raises, and what a restart would not cover.

    want' <= want; where the cap cuts below the car's minimum: 0.
    """
    if all(BY_TRIGGER[trigger].raises for trigger in impaired.triggers):
        return want
    return _capped(np.minimum(want, in_force), impaired.cap, minimum, steps)


def _capped(ceiling: Floats, cap: Floats, minimum: Floats, steps: PilotSteps) -> Floats:
    """(n,) as it is within ``cap``, else the largest step within it, 0 where that is below the minimum [own unit]."""
    below = all_down(steps, np.minimum(ceiling, cap))
    found: Floats = np.where(ceiling > cap, np.where(below < minimum, 0.0, below), ceiling)
    return found


def clock_modes(snapshot: Snapshot, now: Now, shortest_ttl_s: float) -> tuple[Trigger, ...]:
    """What the time since the last step tells; nothing at the first."""
    before, ahead_s = snapshot.impaired.utc_ahead_s, utc_ahead_s(now)
    if np.isnan(before):
        return ()
    found = []
    if abs(ahead_s - before) > STEPPED_S:
        found.append(Trigger.CLOCK_STEPPED)
    if now.boottime_s - snapshot.boottime_s > shortest_ttl_s:
        found.append(Trigger.SUSPENDED)
    return tuple(found)


def modes(
    impaired: Impaired,
    clock: Sequence[Trigger],
    *,
    solved: bool,
    path: str,
    warned: bool,
    stale: bool,
    unseen: bool,
    silent: bool,
    unheard: bool,
) -> tuple[Trigger, ...]:
    """The rows of the table that hold in a tick, in the table's order.

    Args:
        impaired: what the daemon noticed.
        clock: ``clock_modes`` of the tick.
        solved: a solve was asked for.
        path: how its answer was found.
        warned: the power flow of what was wanted breaks a bound.
        stale: a meter is silent.
        unseen: the position of a switch is not known.
        silent: a controller with cars is silent.
        unheard: a grid operator has not kept his heartbeat.
    """
    found = {*impaired.triggers, *clock}
    if solved and path == "guard":
        found.add(Trigger.SOLVER_FAILED)
    others = (
        (warned, Trigger.AC_CHECK_FAILED),
        (stale, Trigger.METER_STALE),
        (unseen, Trigger.SWITCHGEAR_SILENT),
        (silent, Trigger.CONTROLLER_SILENT),
        (unheard, Trigger.OPERATOR_SILENT),
    )
    found |= {trigger for holds, trigger in others if holds}
    return tuple(row.trigger for row in TABLE if row.trigger in found)


def utc_ahead_s(now: Now) -> float:
    """By how much the wall clock is ahead of the boottime clock [s]."""
    return now.utc.timestamp() - now.boottime_s


def sentences(active: Sequence[Trigger]) -> tuple[str, ...]:
    """What an operator is told of the active modes, but for those that have sentences of their own, with names."""
    told = [BY_TRIGGER[trigger] for trigger in active if trigger is not Trigger.CONTROLLER_SILENT]
    return tuple(f"{row.trigger}: {row.mode}; {row.granted}; ends: {row.ends}" for row in told)


def serving(active: Sequence[Trigger]) -> bool:
    """Whether health may say SERVING."""
    return all(BY_TRIGGER[trigger].serving for trigger in active)
