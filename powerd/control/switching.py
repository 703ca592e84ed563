"""The failure path: what to switch, one order at a time, each only after everything that could be drawing fits.

    IDLE --(something changed, a plan has steps)--> MAKING_ROOM --(W fits, interlocks hold)--> WAITING
      ^                                                 ^                                        |
      |                                                 +--(reported there, steps left)----------+
      +--(no steps left; refused or late: that switch is planned around; interlocked: for a while)+

The limits of the tick already hold for both positions of the switch concerned from MAKING_ROOM on, so ceilings fall
first and by themselves; an order leaves only in a tick in which the most that could be drawing fits the state after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powerd.control.absorb_switchgear import give_up
from powerd.control.compiled import CompiledSite
from powerd.control.positions import dropped
from powerd.control.question import cooled, may_now, question_of
from powerd.control.topology import feeding, surely_closed
from powerd.limits import Bools, Floats
from powerd.network.electrical import Electrical
from powerd.network.interlocks import (
    RULES,
    Move,
    break_before_make,
    findings,
    no_parallel,
    objections,
    operations_left,
)
from powerd.network.operation import By
from powerd.network.plan import Planner, Question
from powerd.network.states import seen_as
from powerd.network.supply import energise
from powerd.state.columns import put, replace
from powerd.state.switchgear import HOUR_S, Cause, Phase, Position, Switchgear, ordered
from powerd.units import ROW_TOLERANCE, Now

ORDER_S = 10.0
"""Within this a switch has moved and its position is reported, or the order has failed [s]."""
AT_ONCE = 8
"""Up to so many switches that may move, a plan that the playbook lacks is exact within the tick (256 states)."""
ROOM_S = 120.0
"""After so long without room for it, an order is given up [s]: longer than any lease with its watchdog and reaction."""
AGAIN_S = 30.0
"""A switch that an interlock kept from its order is planned around for so long [s]: reports settle meanwhile."""
NO_ROOM_AGAIN_S = 600.0
"""The same where there was no room, for each attempt lowers ceilings in vain [s]: cars and loads have changed by then.
"""
SPREAD_S = 20.0
"""EVSEs whose voltage came back are served one after another over this span [s]."""


@dataclass(frozen=True, kw_only=True)
class SwitchOrder:
    """Open or close one switch."""

    order_id: int
    """Counts up over all orders."""
    branch: int
    """Which."""
    close: bool
    """True = close."""
    valid_s: float
    """To be carried out within this, counted from the echoed stamp [s]."""
    echo_incarnation: int
    """Newest stamp of its controller: process."""
    echo_clock_s: float
    """Newest stamp of its controller: clock [s]."""
    reason: str
    """Why, for people."""


@dataclass(frozen=True, kw_only=True)
class Switching:
    """What the failure path does in one tick."""

    gear: Switchgear
    """After it."""
    order: SwitchOrder | None = None
    """What is to be sent."""
    alarms: tuple[str, ...] = ()
    """What an operator should know."""
    unanswered: Question | None = None
    """A question that only a heuristic has answered so far."""


Excess = Callable[[Switchgear], dict[str, float]]
"""By how much each limit of a state is exceeded by the most that could be drawing, by its name."""


def advance(
    electrical: Electrical, planner: Planner, gear: Switchgear, demand: Floats, excess: Excess, now: Now
) -> Switching:
    """One tick of the failure path.

    Args:
        electrical: the drawing.
        planner: of this site.
        gear: after ``absorb`` and ``observe``.
        demand: (n,) most that each car that is there could take [own unit].
        excess: what would not fit in a state of the switchgear.
        now: the tick's instant.
    """
    alarms: list[str] = []
    order = None
    if gear.phase == Phase.WAITING:
        gear = _wait(electrical, gear, now, alarms)
    if gear.phase == Phase.WAITING:
        gear, order = _once_more(electrical, gear, now)
    unanswered = None
    if gear.phase != Phase.WAITING and gear.wants_plan and (not gear.manual or gear.changed_at_s > gear.since_s):
        gear, unanswered = _plan(electrical, planner, gear, demand, now, alarms)
    if gear.phase == Phase.MAKING_ROOM:
        gear, order = _make_room(electrical, gear, excess, now, alarms)
    alarms += _left_dead(electrical, gear)
    return Switching(gear=gear, order=order, alarms=tuple(alarms), unanswered=unanswered)


def reconsidered(
    electrical: Electrical, before: Switchgear, before_s: float, after: Switchgear, now: Now
) -> Switchgear:
    """``after``, wanting a plan where one may be possible, or where a way home is, that was not at ``before_s``."""
    if after.wants_plan or (after is before and not lapses(after, before_s, now.boottime_s)):
        return after
    home = settled(electrical, after) and not settled(electrical, before)
    if not home and not may_now(electrical, before, before_s, after, now.boottime_s):
        return after
    return replace(after, wants_plan=True)


def lapses(gear: Switchgear, before_s: float, now_s: float) -> bool:
    """Between two instants time alone may have made a plan possible (mostly not).

    A switch's hour or its pause is over, or the pick-up of loads.
    """
    ends = (gear.passed_until_s > before_s) & (gear.passed_until_s <= now_s)
    return (
        bool(ends.any())
        or cooled(gear, before_s, now_s)
        or any(before_s < at_s + HOUR_S <= now_s for _, at_s in gear.operated)
    )


def _wait(electrical: Electrical, gear: Switchgear, now: Now, alarms: list[str]) -> Switchgear:
    """Has the switch arrived, or is it too late?"""
    branch, wanted = abs(gear.steps[0]) - 1, Position.CLOSED if gear.steps[0] > 0 else Position.OPEN
    if gear.confirmed(wanted)[branch]:
        left = gear.steps[1:]
        return replace(
            gear,
            steps=left,
            held_down=np.zeros_like(gear.held_down),
            phase=int(Phase.MAKING_ROOM if left else Phase.IDLE),
            since_s=now.boottime_s,
            manual=gear.manual and bool(left),
        )
    if now.boottime_s < gear.deadline_s:
        return gear
    name = electrical.branches.ids[branch]
    if gear.unheard and _where_it_was(gear):
        alarms.append(f"{name} stands where it was, for its order was lost with the stream: planned anew")
        return dropped(gear, now)
    gear = replace(gear, position=put(gear.position, branch, int(Position.UNKNOWN)))
    if gear.unheard:
        alarms.append(f"the stream for {name} ended before its order was answered: held for both until it is reported")
        return dropped(gear, now)
    alarms.append(f"{name} has not answered its order: planned around, held for both")
    return give_up(gear, now)


def _where_it_was(gear: Switchgear) -> bool:
    """A stream takes orders for the switch under way, and tells that it has not moved."""
    branch, before = abs(gear.steps[0]) - 1, Position.OPEN if gear.steps[0] > 0 else Position.CLOSED
    return bool(gear.linked[branch] and gear.confirmed(before)[branch])


def _once_more(electrical: Electrical, gear: Switchgear, now: Now) -> tuple[Switchgear, SwitchOrder | None]:
    """Gives the order again that may have been lost with its stream, where the same process has opened another one.

    It is the same order: its number, so that nobody carries it out twice, and its echo, so that it ends when it would
    have. It goes out on no older an echo than at first, and where something speaks against it by now, it does not.
    """
    step, branch = gear.steps[0], abs(gear.steps[0]) - 1
    if not (gear.unheard and _where_it_was(gear)):
        return gear, None
    age_s = float(gear.link_clock_s[branch]) - gear.order_clock_s + now.boottime_s - float(gear.silent_at_s[branch])
    rules = tuple(rule for rule in RULES if rule is not operations_left)  # it has been counted
    move = Move(branch=branch, close=step > 0)
    if age_s > ORDER_S / 4 or findings(electrical, gear, move, now.boottime_s, rules=rules):
        return gear, None
    return replace(gear, unheard=False), _under_way(gear)


# --- planning ---------------------------------------------------------------------------------------------------------


def _plan(
    electrical: Electrical, planner: Planner, gear: Switchgear, demand: Floats, now: Now, alarms: list[str]
) -> tuple[Switchgear, Question | None]:
    """Looks the state up, or plans; keeps wanting a plan while it is too early to act.

    The tick in which something changed is there to lower; nothing is planned in it. An operator's step that has not
    gone out gives way to what feeds something that has no voltage, and to nothing else.
    """
    since_s = now.boottime_s - gear.changed_at_s
    if since_s <= 0.0 or since_s < _self_moving_s(electrical, gear):
        return gear, None
    question = question_of(electrical, gear, demand, now.boottime_s)
    steps, unanswered = answer(electrical, planner, gear, question)
    if steps and _only_returns(electrical, gear, question, steps, now):
        return gear, None
    if gear.manual:
        if not steps or not _serves(electrical, planner, question, steps):
            return gear, None
        alarms.append(f"operator's order dropped: {_told(electrical, gear.steps[0])}; others have lost their voltage")
    gear = replace(gear, wants_plan=False)
    if steps == gear.steps:
        return gear, unanswered
    if steps:
        alarms.append("switching: " + ", ".join(_told(electrical, step) for step in steps))
    return (
        replace(
            gear,
            steps=steps,
            phase=int(Phase.MAKING_ROOM if steps else Phase.IDLE),
            since_s=now.boottime_s,
            held_down=np.zeros_like(gear.held_down),
            manual=False,
            reason="to feed again what can be fed" if steps else "",
        ),
        unanswered,
    )


def answer(
    electrical: Electrical, planner: Planner, gear: Switchgear, question: Question, at_once: int = AT_ONCE
) -> tuple[tuple[int, ...], Question | None]:
    """What to switch, and the question if only a heuristic could answer it: where more than ``at_once`` may move.

    Where nothing is lost the site goes back to how it is drawn, as far as it is in service and what waits for a voltage
    fits with its pick-up then, unless something would still wait there that another state feeds; nothing is ever
    switched only to gain a little.
    """
    apart = _halves_apart(electrical, planner, question) or _parted(electrical, planner, gear, question)
    if apart and not gear.steps:
        return apart, None
    home: tuple[int, ...] = ()
    unanswered = None
    if settled(electrical, gear):
        home = planner.towards(question, electrical.branches.normally_closed).steps
        if _all_in_service(electrical, gear) and not _waiting(electrical, planner, question, home):
            return home, None
    known = planner.remembered(gear.playbook, question.key)
    if known:
        steps = planner.chosen(question, known)
    elif int(question.movable.sum()) <= at_once:
        steps = planner.exact(question).steps
    else:
        steps, unanswered = planner.heuristic(question).steps, question
    steps = _worth(electrical, planner, question, steps)
    return max((home, steps), key=lambda way: planner.score(question, planner.end(question, way))), unanswered


def _halves_apart(electrical: Electrical, planner: Planner, question: Question) -> tuple[int, ...]:
    """Opens one half of a transfer switch both of which are closed, where all that has a voltage keeps it.

    They overlap for a moment only: what could not be opened after the other was closed leaves two supplies together.
    """
    partner, shut = electrical.operation.partner, question.closed & question.known
    both = (partner >= 0) & shut & shut[partner] & question.movable
    fed = planner.fed(question, question.closed)
    for half in sorted(np.flatnonzero(both).tolist(), key=lambda e: bool(electrical.branches.normally_closed[e])):
        steps = (-(half + 1),)
        if np.array_equal(planner.fed(question, planner.end(question, steps)), fed):
            return steps
    return ()


def _parted(electrical: Electrical, planner: Planner, gear: Switchgear, question: Question) -> tuple[int, ...]:
    """Opens one switch between supplies that an order of powerd has left together, where all keeps its voltage.

    They were to meet for a moment, and what was to part them did not open: the best of the others does. What is drawn
    together, or was brought together by hand, is not for this to part.
    """
    if not electrical.parallel_supplies:
        return ()

    def joined(e: int | None = None) -> set[tuple[int, ...]]:
        closed = question.closed.copy()
        if e is not None:
            closed[e] = False
        return _together(electrical, question, closed)

    amiss = joined() - _together(electrical, question, electrical.branches.normally_closed)
    ours = [e for e, _ in reversed(gear.operated) if question.closed[e] and not gear.ordered_by_hand[e]]
    if not amiss or not any(amiss - joined(e) for e in ours):
        return ()
    fed = planner.fed(question, question.closed)
    openings = [-(e + 1) for e in dict.fromkeys([*ours, *np.flatnonzero(question.movable & question.closed).tolist()])]
    ends = {(step,): planner.end(question, (step,)) for step in openings if question.movable[-step - 1]}
    good = [
        way
        for way, end in ends.items()
        if amiss - _together(electrical, question, end) and np.array_equal(planner.fed(question, end), fed)
    ]
    score = {way: planner.score(question, ends[way]) for way in good}
    return max((way for way in good if score[way].wrong >= 0), key=lambda way: score[way], default=())


def _together(electrical: Electrical, question: Question, closed: Bools) -> set[tuple[int, ...]]:
    """Pairs of supplies that are surely connected in the positions ``closed`` (E,)."""
    pairs = energise(seen_as(electrical, question.known, question.alive), closed).parallel
    return {tuple(pair) for pair in pairs.tolist()}


def _waiting(electrical: Electrical, planner: Planner, question: Question, steps: tuple[int, ...]) -> bool:
    """A load or an EVSE that may be fed has no voltage after ``steps``."""
    dead = ~question.barred & ~planner.fed(question, planner.end(question, steps))
    return bool(dead[electrical.evse_bus].any() or dead[electrical.loads.bus].any())


def _worth(electrical: Electrical, planner: Planner, question: Question, steps: tuple[int, ...]) -> tuple[int, ...]:
    """``steps``, if they feed a load or an EVSE that has no voltage; else none.

    What is alive is not interrupted only because a better state is known.
    """
    return steps if _serves(electrical, planner, question, steps) else ()


def _serves(electrical: Electrical, planner: Planner, question: Question, steps: tuple[int, ...]) -> bool:
    """A load or an EVSE that has no voltage and may have one is fed after ``steps``."""
    live = energise(seen_as(electrical, question.known, question.alive), planner.end(question, steps)).bus_is_live
    woken = live & question.dead & ~question.barred
    return bool(woken[electrical.evse_bus].any() or woken[electrical.loads.bus].any())


def settled(electrical: Electrical, gear: Switchgear) -> bool:
    """Every supply, branch and switch that the drawing has in use, and nobody has taken out of service, can be used."""
    supplies = electrical.supplies.in_service & gear.supply_in_service & ~gear.supply_alive
    branches = electrical.branches.in_service & gear.in_service
    stuck = gear.unknown | gear.refused | (gear.cause == Cause.PROTECTION) | (gear.cause == Cause.UNKNOWN)
    return not bool(supplies.any() or (branches & (gear.lost | (stuck & electrical.branches.switchable))).any())


def _all_in_service(electrical: Electrical, gear: Switchgear) -> bool:
    """Nobody has taken anything out of service."""
    branches = bool((gear.in_service >= electrical.branches.in_service).all())
    return branches and bool((gear.supply_in_service >= electrical.supplies.in_service).all())


def _self_moving_s(electrical: Electrical, gear: Switchgear) -> float:
    """Switches that transfer by themselves come first: their longest transfer time [s]."""
    own = (electrical.operation.by == By.ITSELF) & gear.in_service & np.isfinite(electrical.operation.transfer_time_s)
    return float(electrical.operation.transfer_time_s[own].max(initial=0.0))


def _only_returns(
    electrical: Electrical, gear: Switchgear, question: Question, steps: tuple[int, ...], now: Now
) -> bool:
    """It is too early to go back: a supply returned a short time ago, and the plan brings nothing dead to life.

    How long to wait says the transfer switch that goes back (``Operation``).
    """
    delay_s = float(electrical.operation.retransfer_delay_s[[abs(step) - 1 for step in steps]].max())
    back = feeding(gear) & (now.boottime_s - gear.supply_back_at_s < delay_s)
    if not back.any():
        return False
    ends = np.concatenate([electrical.branches.from_bus, electrical.branches.to_bus])
    closing = [step - 1 for step in steps if step > 0]
    touched = {int(ends[e]) for e in closing} | {int(ends[e + electrical.branches.kind.shape[0]]) for e in closing}
    served = set(electrical.evse_bus.tolist()) | set(electrical.loads.bus.tolist())
    waiting = {bus for bus in served if question.dead[bus] and not question.barred[bus]}
    return not waiting or not any(question.dead[bus] for bus in touched)


def _told(electrical: Electrical, step: int) -> str:
    return f"{'close' if step > 0 else 'open'} {electrical.branches.ids[abs(step) - 1]}"


# --- ordering ---------------------------------------------------------------------------------------------------------


def _make_room(
    electrical: Electrical, gear: Switchgear, excess: Excess, now: Now, alarms: list[str]
) -> tuple[Switchgear, SwitchOrder | None]:
    """Holds the limits of the state after the next step, and orders it once everything fits."""
    step = gear.steps[0]
    branch = abs(step) - 1
    name = electrical.branches.ids[branch]
    found = objections(electrical, gear, Move(branch=branch, close=step > 0), now.boottime_s)
    if found:
        alarms.append(f"{name} is not operated: {found[0].message} ({found[0].rule})")
        made_first = any(later < 0 for later in gear.steps[1:])
        sync = found[0].rule in (break_before_make.__name__, no_parallel.__name__)
        return _think_again(gear, now, pause_s=0.0 if made_first and sync else AGAIN_S), None
    if now.boottime_s - gear.since_s > ROOM_S:
        alarms.append(f"{name} is not operated: what could be drawing has not fitted for {ROOM_S:g} s")
        return _think_again(gear, now, pause_s=NO_ROOM_AGAIN_S), None
    held = np.zeros_like(gear.held_down)
    held[branch] = True
    before = excess(replace(gear, held_down=np.zeros_like(held)))
    gear = replace(gear, held_down=held)
    if any(over > before.get(limit, 0.0) + ROW_TOLERANCE for limit, over in excess(gear).items()):
        return gear, None
    if now.boottime_s - gear.silent_at_s[branch] > ORDER_S / 4:
        return gear, None  # most of its validity would be over: the next heartbeat is not far
    gear = replace(
        ordered(gear, branch, Position.CLOSED if step > 0 else Position.OPEN, now.boottime_s),
        phase=int(Phase.WAITING),
        order_id=gear.order_id + 1,
        order_clock_s=float(gear.link_clock_s[branch]),
        unheard=False,
        deadline_s=now.boottime_s + ORDER_S,
        since_s=now.boottime_s,
    )
    return gear, _under_way(gear)


def _under_way(gear: Switchgear) -> SwitchOrder:
    """The order that is out."""
    branch = abs(gear.steps[0]) - 1
    return SwitchOrder(
        order_id=gear.order_id,
        branch=branch,
        close=gear.steps[0] > 0,
        valid_s=ORDER_S / 2,
        echo_incarnation=int(gear.link_incarnation[branch]),
        echo_clock_s=gear.order_clock_s,
        reason=gear.reason,
    )


def _think_again(gear: Switchgear, now: Now, *, pause_s: float) -> Switchgear:
    """No order may go out now, through no fault of the switch: another way is looked for, without it meanwhile."""
    branch = abs(gear.steps[0]) - 1
    return dropped(replace(gear, passed_until_s=put(gear.passed_until_s, branch, now.boottime_s + pause_s)), now)


def exceeded(site: CompiledSite, uncontrolled: Floats, worst: Floats) -> dict[str, float]:
    """What of the limits the most that could be drawing does not leave free, by the limit's name [limit unit]."""
    over = site.limits.limit_flow(worst) + uncontrolled - site.limits.capacity
    return {site.limits.name[l]: float(over[l]) for l in np.flatnonzero(over > ROW_TOLERANCE)}


def _left_dead(electrical: Electrical, gear: Switchgear) -> list[str]:
    """Says what has no voltage, and what waits for a person."""
    dark = ~gear.bus_live[electrical.evse_bus]
    if not dark.any():
        return []
    names = ", ".join(sorted({electrical.buses.ids[b] for b in electrical.evse_bus[dark].tolist()})[:5])
    return [f"{int(dark.sum())} EVSEs have no voltage ({names})"]


def together_alarms(site: CompiledSite, gear: Switchgear) -> list[str]:
    """Says which supplies are surely connected together: in a moment's transition, and by whoever made it last."""
    if not site.live.parallel.shape[0]:
        return []  # not even where nobody knows
    here = seen_as(site.electrical, gear.in_service & ~gear.lost, feeding(gear))
    pairs = energise(here, surely_closed(site.electrical, gear)).parallel.tolist()
    ids = site.electrical.supplies.ids
    return [f"{ids[one]} and {ids[other]} are connected together" for one, other in pairs]


def picked_up(electrical: Electrical, gear: Switchgear, now: Now) -> Bools:
    """(n,) EVSEs that may be served again: after their voltage came back, one after another in ``SPREAD_S``."""
    if not (now.boottime_s - gear.back_at_s < SPREAD_S).any():
        return np.ones(electrical.evse_count, np.bool_)
    count = max(electrical.evse_count, 1)
    turn = (np.arange(electrical.evse_count) * 0.6180339887) % 1.0 if count > 1 else np.zeros(electrical.evse_count)
    served: Bools = now.boottime_s - gear.back_at_s[electrical.evse_bus] >= turn * SPREAD_S
    return served
