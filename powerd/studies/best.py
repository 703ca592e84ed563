"""What could be energised at all: every position of every switch that powerd may order, tried; the judge of plans.

Shares nothing with ``network/supply`` and the planner: connections are networkx's, flows are the simulator's.
"""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np

from powerd.errors import PowerdError
from powerd.limits import Bools, Floats
from powerd.network.electrical import reserve_of
from powerd.sim.relays import operated
from powerd.sim.wires import GridState
from powerd.sim.world import World

MOST_SWITCHES = 12
"""More than 2^12 states are not tried."""
TOLERANCE = 1e-6


def most_energised(world: World) -> int:
    """Most EVSEs that any permitted state gives a supply; -1 = too many switches to try.

    Permitted: no fault and no dead or second supply in a live island, interlocks kept, reserves and loads at their
    pick-up within every rating (R8); a bus that went dead by protection stays dead (I9 a).
    """
    gear = world.gear
    free = [b for b in operated(world.electrical) if b not in gear.refuses | gear.stuck and not gear.faulted[b]]
    free = [b for b in free if gear.sound[b]]
    if len(free) > MOST_SWITCHES:
        return -1
    best = 0
    for positions in itertools.product((False, True), repeat=len(free)):
        closed = gear.closed.copy()
        closed[free] = positions
        live = _live_buses(world, closed)
        if live is None:
            continue
        count = int(live[world.electrical.evse_bus].sum())
        if count > best and _fits(world, closed):
            best = count
    return best


def _live_buses(world: World, closed: Bools) -> Bools | None:
    """(B,) which buses have a supply; None = the state is forbidden."""
    electrical, gear = world.electrical, world.gear
    branches, supplies = electrical.branches, electrical.supplies
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(len(electrical.buses.ids)))
    usable = gear.sound & ~gear.faulted & (~branches.switchable | closed)
    graph.add_edges_from((int(branches.from_bus[e]), int(branches.to_bus[e])) for e in np.flatnonzero(usable))
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


def _fits(world: World, closed: Bools) -> bool:
    """Reserves and returning loads within every rating."""
    electrical, gear = world.electrical, world.gear
    loads = electrical.loads
    most = np.maximum(loads.worst_kw, loads.pickup_factor * loads.typical_kw)
    factor: Floats = np.divide(most, loads.typical_kw, out=np.ones_like(most), where=loads.typical_kw > 0)
    state = GridState(closed=closed, sound=gear.sound & ~gear.faulted, alive=gear.alive, load_factor=factor)
    try:
        wires = world.survey.wires(state)
    except PowerdError:
        return False
    flow = wires.flow(reserve_of(electrical) * wires.live)
    return bool((flow <= wires.capacity * (1 + TOLERANCE)).all())
