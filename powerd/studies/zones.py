"""A site cut at the switches that may move: zones, live or dead as one, and what each branch within them carries.

Currents are positive-sequence. Within a zone they are told in the frame of one of its buses, as if it had no
transformers; power needs no frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.sim.wires import Complex

CLOSE = 1e-6
Ports = tuple[tuple[int, float], ...]
"""(number of a switch, what one ampere through it takes out of the zone [A]; negative at its to side)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """What is asked about; B buses, E branches, S supplies."""

    electrical: Electrical
    """The drawing."""
    usable: Bools
    """(E,) conducts where it is closed."""
    closed: Bools
    """(E,) position; only a start where ``free``."""
    free: Ints
    """Switches that may be in either position."""
    alive: Bools
    """(S,) has voltage."""
    dark: Bools
    """(B,) must not be fed."""
    posts_a: Floats
    """(B,) active positive-sequence current of the reserves [A]."""
    loads_a: Complex
    """(B,) positive-sequence current of the loads, in the bus's frame [A]."""
    power_kw: Floats
    """(B,) the same as power [kW]."""
    count: Ints
    """(B,) EVSEs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """A rated branch within a zone, over which a part of it and what hangs on that part's ports is fed."""

    zone: int
    """Which."""
    posts_a: float
    """Current of the part's posts [A at the branch]."""
    loads_a: complex
    """Current of the part's loads [A at the branch]."""
    ports: Ports
    """Of the part; in amperes at the branch."""
    rated_a: float
    """What it may carry [A]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Zones:
    """Z zones and k switches between them."""

    of_bus: Ints
    """(B,) the zone of each bus."""
    switch: Ints
    """(k,) branch of each switch."""
    ends: Ints
    """(k, 2) zones at its from and to side."""
    most_a: Floats
    """(k,) what it may carry, or more than there is to carry [A]."""
    evses: Ints
    """(Z,) EVSEs."""
    posts_a: Floats
    """(Z,) current of their reserves [A]."""
    loads_a: Complex
    """(Z,) current of the loads [A]."""
    power_kw: Floats
    """(Z,) both as power [kW]."""
    ports: tuple[Ports, ...]
    """(Z,) all of each zone."""
    fed: Bools
    """(Z,) a living supply is in it."""
    may_live: Bools
    """(Z,) no dead supply, no ring, nothing that must stay dark, and no branch that its own part overloads."""
    joined: bool
    """Two living supplies hang together whatever is switched."""
    ways: tuple[Way, ...]
    """Branches that depend on what is switched."""


def zones_of(situation: Situation) -> Zones:
    """The zones of a situation."""
    electrical, buses = situation.electrical, len(situation.electrical.buses.ids)
    branches, supplies = electrical.branches, electrical.supplies
    free = np.isin(np.arange(branches.kind.shape[0]), situation.free)
    fixed = situation.usable & ~free & (~branches.switchable | situation.closed)
    switch: Ints = np.flatnonzero(situation.usable & free)
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(buses))
    graph.add_edges_from((int(branches.from_bus[e]), int(branches.to_bus[e]), int(e)) for e in np.flatnonzero(fixed))
    of_bus, parts = np.zeros(buses, np.int64), [sorted(part) for part in nx.connected_components(graph)]
    for zone, part in enumerate(parts):
        of_bus[part] = zone
    living = supplies.bus[supplies.in_service & situation.alive]
    may_live = np.array([graph.subgraph(part).number_of_edges() < len(part) for part in parts], np.bool_)
    may_live[of_bus[supplies.bus[supplies.in_service & ~situation.alive]]] = False
    may_live[of_bus[situation.dark]] = False
    root = {int(of_bus[bus]): int(bus) for bus in living}
    trees = [_Tree.of(situation, graph, root.get(zone, part[0])) for zone, part in enumerate(parts)]
    ports = _ports(electrical, switch, trees, of_bus)
    ways = [way for zone, tree in enumerate(trees) for way in _ways(situation, tree, zone, ports)]
    for way in ways:
        if not way.ports and abs(way.posts_a) + abs(way.loads_a) > way.rated_a * (1 + CLOSE):
            may_live[way.zone] = False
    return Zones(
        of_bus=of_bus,
        switch=switch,
        ends=np.column_stack([of_bus[branches.from_bus[switch]], of_bus[branches.to_bus[switch]]]),
        most_a=_most_a(situation, switch),
        evses=np.bincount(of_bus, situation.count, minlength=len(parts)).astype(np.int64),
        posts_a=np.array([tree.posts_a[tree.root] for tree in trees]),
        loads_a=np.array([tree.loads_a[tree.root] for tree in trees]),
        power_kw=np.bincount(of_bus, situation.power_kw, minlength=len(parts)).astype(np.float64),
        ports=tuple(tuple(port for bus in tree.scale for port in ports.get(bus, ())) for tree in trees),
        fed=np.isin(np.arange(len(parts)), list(root)),
        may_live=may_live,
        joined=len(root) < living.shape[0],
        ways=tuple(_tightest(way for way in ways if way.ports)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tree:
    """A zone from one of its buses down."""

    root: int
    """That bus; its frame is the zone's."""
    above: dict[int, tuple[int, int]]
    """Bus -> (the one above it, the branch there), from the root down."""
    scale: dict[int, float]
    """Bus -> current there for one ampere in the frame of the zone."""
    posts_a: dict[int, float]
    """Bus -> what its posts and those below it take, in the frame of the zone [A]."""
    loads_a: dict[int, complex]
    """The same of the loads."""

    @staticmethod
    def of(situation: Situation, graph: nx.MultiGraph, root: int) -> _Tree:
        """From ``root``; of a ring only a part, and nothing is asked of it."""
        branches = situation.electrical.branches
        above, scale = {}, {root: 1.0}
        for upper, bus in nx.bfs_edges(graph, root):
            branch = next(iter(graph[upper][bus]))
            ratio = _ratio(situation.electrical, branch)  # the current at the from side is so many times smaller
            above[bus] = (upper, branch)
            scale[bus] = scale[upper] * (ratio if branches.to_bus[branch] == bus else 1.0 / ratio)
        posts = {bus: float(situation.posts_a[bus]) / scale[bus] for bus in scale}
        loads = {bus: complex(situation.loads_a[bus]) / scale[bus] for bus in scale}
        for bus in reversed(above):
            posts[above[bus][0]] += posts[bus]
            loads[above[bus][0]] += loads[bus]
        return _Tree(root=root, above=above, scale=scale, posts_a=posts, loads_a=loads)


def _ratio(electrical: Electrical, branch: int) -> float:
    """Turns ratio; 1 for what is no transformer."""
    branches = electrical.branches
    return float(branches.turns_ratio[branch]) if branches.kind[branch] == BranchKind.TRANSFORMER else 1.0


def _ports(electrical: Electrical, switch: Ints, trees: list[_Tree], of_bus: Ints) -> dict[int, Ports]:
    """Bus -> the ports there, in the frame of its zone."""
    branches, found = electrical.branches, dict[int, Ports]()
    for k, e in enumerate(switch.tolist()):
        for bus, sign in ((int(branches.from_bus[e]), 1.0), (int(branches.to_bus[e]), -1.0)):
            found[bus] = (*found.get(bus, ()), (k, sign / trees[of_bus[bus]].scale[bus]))
    return found


def _ways(situation: Situation, tree: _Tree, zone: int, ports: dict[int, Ports]) -> Iterator[Way]:
    """Every rated branch of a zone."""
    branches, below = situation.electrical.branches, dict(ports)
    for bus, (upper, branch) in reversed(tree.above.items()):
        own = below.get(bus, ())
        if own:
            below[upper] = (*below.get(upper, ()), *own)
        rated = float(_rated_a(situation.electrical, branch))
        if np.isfinite(rated):
            scale = tree.scale[int(branches.to_bus[branch])]
            yield Way(
                zone=zone,
                posts_a=scale * tree.posts_a[bus],
                loads_a=scale * tree.loads_a[bus],
                ports=tuple((k, scale * share) for k, share in sorted(own)),
                rated_a=rated,
            )


def _rated_a(electrical: Electrical, branch: int) -> float:
    """What a branch may carry at its to side [A]; inf = anything."""
    branches = electrical.branches
    one, other = branches.capacity_to_a[branch], branches.capacity_from_a[branch] * _ratio(electrical, branch)
    return min([float(value) for value in (one, other) if np.isfinite(value)], default=np.inf)


def _tightest(ways: Iterable[Way]) -> Iterator[Way]:
    """Of branches in a row, which carry the same, the smallest."""
    found: dict[tuple[object, ...], Way] = {}
    for way in ways:
        key = (way.zone, way.ports, round(way.posts_a, 9), round(way.loads_a.real, 9), round(way.loads_a.imag, 9))
        if key not in found or way.rated_a < found[key].rated_a:
            found[key] = way
    yield from found.values()


def _most_a(situation: Situation, switch: Ints) -> Floats:
    """(k,) what each switch may carry, or more than there is to carry [A]."""
    volts = situation.electrical.buses.voltage_v
    everything = 1.5 * float(((np.abs(situation.posts_a) + np.abs(situation.loads_a)) * volts).sum())
    there = everything / volts[situation.electrical.branches.to_bus[switch]] + 1.0
    rated = np.array([_rated_a(situation.electrical, int(e)) for e in switch], np.float64)
    return np.asarray(np.minimum(there, rated))
