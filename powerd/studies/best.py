"""What could be energised at all at an instant of a play; the judge of plans.

Everything that can be has a supply when no permitted state gives one to more EVSEs without taking it from somebody, and
none that gives it to more in exchange delivers more: power comes before the number of those who are fed.

Up to ``MOST_SWITCHES`` switches by trying every position; above, by the program of ``statement``, whose answers are
judged here like any other state and cut off where a single phase would carry too much. Shares nothing with
``network/supply`` and the planner: connections are networkx's, flows are the simulator's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
from scipy.optimize import linprog

from powerd.errors import PowerdError
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import V_HIGH_PU, V_LOW_PU, Electrical, reserve_of
from powerd.sim.relays import operated
from powerd.sim.wires import GridState
from powerd.sim.world import World
from powerd.studies.statement import SIDES, Statement
from powerd.studies.zones import Situation

MOST_SWITCHES = 12
"""More than 2^12 states are not tried."""
MOST_CUTS = 40
"""So many answers of the program that do not hold phase by phase are cut off before it is given up."""
FEW_SIDES = 12
"""Tangents of the first, quicker program: about a third of the time on mv_oberrhein."""
WORTH = 1.01
"""Nobody loses a voltage for another one's unless the state delivers so much more: nothing is switched for a little."""
TOLERANCE = 1e-6


def owed(world: World) -> int:
    """EVSEs that must have a supply now that nothing moves any more; -1 = it was not found out.

    As many as any permitted state gives one, unless that takes it from somebody who has one and delivers no more.

    Permitted: no fault and no dead or second supply in a live island, interlocks kept, reserves and loads at their
    pick-up within every rating as R8 counts them: loads at the lowest voltage, posts at the highest where power counts,
    magnitudes added; a bus that went dead by protection stays dead (I9 a).
    """
    free, live = _free(world), _kept(world)
    kept = int(live.sum())
    if kept >= _within_reach(world, free):
        return kept
    if free.shape[0] > MOST_SWITCHES and world.electrical.parallel_supplies:
        return -1
    judge = most_tried if free.shape[0] <= MOST_SWITCHES else most_stated
    most = judge(world, free, known=kept)
    given = most if most is None or most.count == kept else judge(world, free, known=kept, keeping=live)
    if most is None or given is None:
        return -1
    if most.count > given.count:
        now_kw, then_kw = (deliverable_kw(world, closed) for closed in (world.gear.closed, most.closed))
        return most.count if then_kw > WORTH * now_kw else given.count
    return given.count


@dataclass(frozen=True, kw_only=True, eq=False)
class Fed:
    """A permitted state."""

    count: int
    """EVSEs with a supply."""
    closed: Bools
    """(E,) positions."""


def _free(world: World) -> Ints:
    """Switches that powerd may order and that obey."""
    gear = world.gear
    own = [b for b in operated(world.electrical) if b not in gear.refuses | gear.stuck]
    return np.array([b for b in own if gear.sound[b] and not gear.faulted[b]], np.int64)


def _kept(world: World) -> Bools:
    """(n,) who has a supply if nothing is switched; nobody where that is not permitted."""
    fed = _fed(world, world.gear.closed)
    return fed if fed.any() and _fits(world, world.gear.closed) else np.zeros_like(fed)


def _within_reach(world: World, free: Ints) -> int:
    """EVSEs that hang together with a living supply when all that can be closed is: no state feeds more."""
    electrical, gear = world.electrical, world.gear
    closed = gear.closed.copy()
    closed[free] = True
    dark = [*gear.exposed, *gear.barred.tolist()]
    graph = _graph(world, closed)
    graph.remove_nodes_from(dark)
    near = _reached(world, graph)
    return sum(int(bus) in near for bus in electrical.evse_bus)


def _reached(world: World, graph: nx.MultiGraph) -> set[int]:
    """Buses that hang together with a living supply."""
    supplies = world.electrical.supplies
    roots = supplies.bus[np.flatnonzero(supplies.in_service & world.gear.alive)].tolist()
    return set().union(*(nx.node_connected_component(graph, root) for root in roots if root in graph), set())


def most_tried(world: World, free: Ints, *, known: int = 0, keeping: Bools | None = None) -> Fed:
    """The state that feeds most, by trying every position of the switches ``free``; the present one if none beats it.

    Args:
        world: the instant.
        free: switches that may be in either position.
        known: EVSEs that the present state feeds.
        keeping: (n,) who must not lose the supply; None = anybody may.
    """
    best = Fed(count=known, closed=world.gear.closed)
    for positions in itertools.product((False, True), repeat=free.shape[0]):
        closed = world.gear.closed.copy()
        closed[free] = positions
        fed = _fed(world, closed)
        count = int(fed.sum())
        if count > best.count and (keeping is None or not (keeping & ~fed).any()) and _fits(world, closed):
            best = Fed(count=count, closed=closed)
    return best


def most_stated(world: World, free: Ints, *, known: int = 0, keeping: Bools | None = None) -> Fed | None:
    """The same by the program; None = too many answers did not hold phase by phase.

    With few tangents first: what even these do not permit is not possible, and an answer of theirs that holds is the
    best.
    """
    situation = _situation(world, free)
    for sides, cuts in ((FEW_SIDES, 1), (SIDES, MOST_CUTS)):
        statement = Statement(situation, sides)
        statement.more_than(known)
        if keeping is not None:
            statement.keeping(world.electrical.evse_bus[keeping])
        for _ in range(cuts):
            found = statement.best()
            if found is None:
                return Fed(count=known, closed=world.gear.closed)
            count, closed = found
            if int(_fed(world, closed).sum()) != count:
                raise PowerdError("the program and networkx do not agree on what is permitted")
            if _fits(world, closed):
                return Fed(count=count, closed=closed)
            statement.without(closed)
    return None


def deliverable_kw(world: World, closed: Bools) -> float:
    """Most that loads, at their worst as plans count them, and cars take in a state [kW].

    What loads leave of each rating goes to the cars by a linear program, magnitudes added.
    """
    posts = world.electrical.posts
    wires = world.survey.wires(_grid(world, closed, _of_typical(world, world.electrical.loads.worst_kw)))
    is_kw = np.array([unit == "kW" for unit in wires.unit], np.bool_)
    rows = abs(wires.gain)[:, wires.tap].toarray() * np.where(is_kw[:, None], wires.kw_per_unit, wires.amps)
    found = linprog(
        -wires.kw_per_unit,
        A_ub=rows,
        b_ub=np.maximum(wires.capacity - np.abs(wires.load), 0.0),
        bounds=np.column_stack([np.zeros(posts.count), posts.max_ceiling * wires.live]),
    )
    return wires.load_kw - float(found.fun)


def _situation(world: World, free: Ints) -> Situation:
    """The world as the program is asked about it."""
    electrical, gear, loads = world.electrical, world.gear, world.electrical.loads
    buses = len(electrical.buses.ids)
    dark = np.zeros(buses, np.bool_)
    dark[[*gear.exposed, *gear.barred.tolist()]] = True
    factor, reserve = _returning(world, gear.closed), reserve_of(electrical)
    posts_a, loads_a = world.survey.positive_sequence(reserve, factor)
    power = np.zeros(buses)
    np.add.at(power, electrical.evse_bus, _at_high_voltage(electrical, reserve) * electrical.posts.kw_per_unit)
    np.add.at(power, loads.bus, factor * loads.typical_kw)
    return Situation(
        electrical=electrical,
        usable=gear.sound & ~gear.faulted,
        closed=gear.closed.copy(),
        free=free,
        alive=gear.alive.copy(),
        dark=dark,
        posts_a=posts_a.real,
        loads_a=loads_a / V_LOW_PU,
        power_kw=power,
        count=np.bincount(electrical.evse_bus, minlength=buses),
    )


def _fed(world: World, closed: Bools) -> Bools:
    """(n,) who has a supply in a state; nobody where it is forbidden."""
    live, bus = _live_buses(world, closed), world.electrical.evse_bus
    return np.zeros(bus.shape[0], np.bool_) if live is None else live[bus]


def _returning(world: World, closed: Bools) -> Floats:
    """(D,) what R8 counts for each load, of its typical power, on the way to a state: openings come before closings.

    Its worst; at its pick-up where it is, was a short time ago, or is meanwhile without a voltage.
    """
    loads, before = world.electrical.loads, world.gear.closed
    cold = world.gear.cold(world.now_s)
    if (closed < before).any() and (closed > before).any():
        kept = _reached(world, _graph(world, closed & before))
        cold = cold | np.array([int(bus) not in kept for bus in loads.bus], np.bool_)
    return _of_typical(world, loads.worst_kw * np.where(cold, loads.pickup_factor, 1.0))


def _of_typical(world: World, load_kw: Floats) -> Floats:
    """(D,) the loads ``load_kw`` as factors of what they typically take; 1 where that is nothing."""
    typical_kw = world.electrical.loads.typical_kw
    return np.divide(load_kw, typical_kw, out=np.ones_like(load_kw), where=typical_kw > 0)


def _live_buses(world: World, closed: Bools) -> Bools | None:
    """(B,) which buses have a supply; None = the state is forbidden."""
    electrical, gear = world.electrical, world.gear
    supplies = electrical.supplies
    graph = _graph(world, closed)
    live = np.zeros(len(electrical.buses.ids), np.bool_)
    for island in nx.connected_components(graph):
        sources = [s for s in np.flatnonzero(supplies.in_service) if int(supplies.bus[s]) in island]
        alive = [s for s in sources if gear.alive[s]]
        if not alive:
            continue
        tree = graph.subgraph(island)
        if len(alive) < len(sources) or (len(alive) > 1 and not electrical.parallel_supplies):
            return None
        if tree.number_of_edges() >= len(island) or island & {*gear.exposed, *gear.barred.tolist()}:
            return None
        live[list(island)] = True
    for lock in electrical.interlocks:
        if int(closed[list(lock.branches)].sum()) > lock.at_most_closed:
            return None
    return live


def _graph(world: World, closed: Bools) -> nx.MultiGraph:
    """Buses, and what conducts between them."""
    branches, gear = world.electrical.branches, world.gear
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(len(world.electrical.buses.ids)))
    usable = gear.sound & ~gear.faulted & (~branches.switchable | closed)
    graph.add_edges_from((int(branches.from_bus[e]), int(branches.to_bus[e])) for e in np.flatnonzero(usable))
    return graph


def _fits(world: World, closed: Bools) -> bool:
    """Reserves and returning loads within every rating."""
    try:
        wires = world.survey.wires(_grid(world, closed, _returning(world, closed)))
    except PowerdError:
        return False
    reserve = reserve_of(world.electrical) * wires.live
    posts = replace(wires, load=np.zeros_like(wires.load))
    is_kw = wires.branch < 0
    count = np.where(is_kw, posts.flow(_at_high_voltage(world.electrical, reserve)), posts.flow(reserve))
    count += np.abs(wires.load) / np.where(is_kw, 1.0, V_LOW_PU)
    return bool((count <= wires.capacity * (1 + TOLERANCE)).all())


def _grid(world: World, closed: Bools, load_factor: Floats) -> GridState:
    """A state, with what is sound and alive now."""
    gear = world.gear
    return GridState(closed=closed, sound=gear.sound & ~gear.faulted, alive=gear.alive, load_factor=load_factor)


def _at_high_voltage(electrical: Electrical, drawn: Floats) -> Floats:
    """(n,) as a car that draws a constant current counts in kW; DC posts draw a constant power."""
    return drawn * np.where(electrical.posts.is_dc, 1.0, V_HIGH_PU)
