"""Who feeds whom: energised buses, islands, loops and the tree, for *given* switch positions.

A graph question only, without pandapower: it has to be answered within the tick and also while a power flow diverges.
A virtual bus joined to every supply makes one search do for all supplies, and makes two supplies in parallel a loop
like any other. A switch whose position is unknown is the caller's matter: ask twice and hold both answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools, Ints
from powerd.network.electrical import Branches, Electrical
from powerd.network.graph import breadth_first, components


@dataclass(frozen=True, kw_only=True, eq=False)
class Energised:
    """Who feeds whom in one switching state. B buses, E branches, S supplies."""

    supply: Ints
    """(B,) supply that feeds the bus along the tree; -1 = dead."""
    island: Ints
    """(B,) label of the group of buses that conducting branches join, dead groups included."""
    parent_branch: Ints
    """(B,) branch towards the supply; -1 at a supply's own bus and on dead buses."""
    parent_bus: Ints
    """(B,) bus at the other end of ``parent_branch``; -1 likewise."""
    depth: Ints
    """(B,) branches between the bus and its supply; -1 = dead."""
    order: Ints
    """(<= B,) the energised buses, every parent before its children."""
    conducting: Bools
    """(E,) in service, closed, both buses in service."""
    loop: Ints
    """(E,) label of the loop the branch is part of (a path between two supplies is one too); -1 = none."""
    supply_loop: Ints
    """(S,) label of the loop that runs through the supply to another supply; -1 = none."""
    parallel: Ints
    """(p, 2) pairs of supplies that are connected together, p >= 0."""

    @property
    def bus_is_live(self) -> Bools:
        """(B,) True where a supply reaches the bus."""
        return self.supply >= 0

    @property
    def loop_count(self) -> int:
        """How many separate loops there are."""
        return int(self.loop.max(initial=-1)) + 1


def normal_positions(electrical: Electrical) -> Bools:
    """Switch positions (E,) of the normal switching state; True for what is not a switch."""
    return electrical.branches.normally_closed.copy()


def energise(electrical: Electrical, closed: Bools) -> Energised:
    """Find what every supply feeds.

    Args:
        electrical: the compiled drawing.
        closed: (E,) position of every branch; only read where ``switchable``.

    Returns:
        The tree (fewest branches to a supply; among equals the first drawn), the islands and the loops.
    """
    conducting = _conducting(electrical, closed)
    order, parent_bus = _search(electrical, conducting)
    parent_branch = _branch_to_parent(electrical.branches, conducting, parent_bus)
    supply, depth = _inherit(electrical, order, parent_bus)
    island = joined(electrical, conducting)
    loop, supply_loop = _loops(electrical, conducting, island, supply, parent_branch, parent_bus, depth)
    return Energised(
        supply=supply,
        island=island,
        parent_branch=parent_branch,
        parent_bus=parent_bus,
        depth=depth,
        order=order,
        conducting=conducting,
        loop=loop,
        supply_loop=supply_loop,
        parallel=_parallel(electrical, island),
    )


def _conducting(electrical: Electrical, closed: Bools) -> Bools:
    """(E,) branches that carry current when there is a voltage."""
    branches, live = electrical.branches, electrical.buses.in_service
    joined: Bools = branches.in_service & live[branches.from_bus] & live[branches.to_bus]
    return joined & (~branches.switchable | closed)


def joined(electrical: Electrical, branches: Bools) -> Ints:
    """(B,) label of the buses that these branches (E,) join."""
    ends = electrical.branches
    return components(electrical.buses.voltage_v.shape[0], ends.from_bus[branches], ends.to_bus[branches])


def _feeding(electrical: Electrical) -> Ints:
    """Indices of the supplies that are in service on a bus that is in service."""
    supplies = electrical.supplies
    return np.flatnonzero(supplies.in_service & electrical.buses.in_service[supplies.bus])


def _search(electrical: Electrical, conducting: Bools) -> tuple[Ints, Ints]:
    """Breadth first from the buses of all supplies: (energised buses in order, parent bus (B,))."""
    buses = electrical.buses.voltage_v.shape[0]
    roots = np.unique(electrical.supplies.bus[_feeding(electrical)])
    a, b = electrical.branches.from_bus[conducting], electrical.branches.to_bus[conducting]
    return breadth_first(buses, a, b, roots)


def _branch_to_parent(branches: Branches, conducting: Bools, parent_bus: Ints) -> Ints:
    """(B,) the first drawn conducting branch between each bus and its parent bus; -1 where it has none."""
    buses = parent_bus.shape[0]
    index = np.flatnonzero(conducting)
    a, b = branches.from_bus[index], branches.to_bus[index]
    pair, first = np.unique(np.minimum(a, b) * buses + np.maximum(a, b), return_index=True)
    result = np.full(buses, -1, dtype=np.int64)
    child = np.flatnonzero(parent_bus >= 0)
    key = np.minimum(child, parent_bus[child]) * buses + np.maximum(child, parent_bus[child])
    result[child] = index[first[np.searchsorted(pair, key)]]
    return result


def _inherit(electrical: Electrical, order: Ints, parent_bus: Ints) -> tuple[Ints, Ints]:
    """Hand supply and depth down the tree: (supply (B,), depth (B,)), -1 on dead buses."""
    supply = np.full(parent_bus.shape[0], -1, dtype=np.int64)
    depth = np.full(parent_bus.shape[0], -1, dtype=np.int64)
    feeding = _feeding(electrical)
    supply[electrical.supplies.bus[feeding[::-1]]] = feeding[::-1]
    for bus in order.tolist():
        above = parent_bus[bus]
        depth[bus] = 0 if above < 0 else depth[above] + 1
        if above >= 0:
            supply[bus] = supply[above]
    return supply, depth


def _parallel(electrical: Electrical, island: Ints) -> Ints:
    """(p, 2) neighbouring pairs of supplies of one island, in index order."""
    feeding = _feeding(electrical)
    label = island[electrical.supplies.bus[feeding]]
    by_island = np.argsort(label, kind="stable")
    same = label[by_island][1:] == label[by_island][:-1]
    ordered = feeding[by_island]
    return np.stack([ordered[:-1][same], ordered[1:][same]], axis=1).astype(np.int64)


def _loops(
    electrical: Electrical,
    conducting: Bools,
    island: Ints,
    supply: Ints,
    parent_branch: Ints,
    parent_bus: Ints,
    depth: Ints,
) -> tuple[Ints, Ints]:
    """Loop labels of branches (E,) and of supplies (S,); loops that share a branch or the virtual bus are one.

    Every conducting branch outside the tree closes one loop. The virtual bus takes part as one more "branch" for each
    island, after the real ones.
    """
    branches, count = electrical.branches, conducting.shape[0]
    label = np.full(count + electrical.buses.voltage_v.shape[0], -1, dtype=np.int64)
    alias: list[int] = []
    for chord in _chords(branches, conducting, supply, parent_branch).tolist():
        ends = (int(branches.from_bus[chord]), int(branches.to_bus[chord]))
        members = [chord, *_cycle(ends, parent_branch, parent_bus, depth)]
        if supply[ends[0]] != supply[ends[1]]:
            members.append(count + int(island[ends[0]]))
        touched = sorted({_root(alias, int(k)) for k in label[members] if k >= 0})
        target = touched[0] if touched else len(alias)
        if not touched:
            alias.append(target)
        for other in touched:
            alias[other] = target
        label[members] = target
    label = _renumber(label, alias)
    return label[:count], label[count + island[electrical.supplies.bus]]


def _chords(branches: Branches, conducting: Bools, supply: Ints, parent_branch: Ints) -> Ints:
    """Live conducting branches outside the tree."""
    spare = conducting & (supply[branches.from_bus] >= 0) & (branches.from_bus != branches.to_bus)
    spare[parent_branch[parent_branch >= 0]] = False
    return np.flatnonzero(spare)


def _cycle(ends: tuple[int, int], parent_branch: Ints, parent_bus: Ints, depth: Ints) -> list[int]:
    """Tree branches between the two ends, over the virtual bus where they belong to different supplies."""
    a, b = ends
    path: list[int] = []
    while a != b and (a >= 0 or b >= 0):
        if b < 0 or (a >= 0 and depth[a] >= depth[b]):
            a = _step(a, parent_branch, parent_bus, path)
        else:
            b = _step(b, parent_branch, parent_bus, path)
    return path


def _step(bus: int, parent_branch: Ints, parent_bus: Ints, path: list[int]) -> int:
    """Go one branch up, noting it; -1 above a supply's bus."""
    if parent_branch[bus] >= 0:
        path.append(int(parent_branch[bus]))
    return int(parent_bus[bus])


def _root(alias: list[int], label: int) -> int:
    """The loop that a label has been merged into."""
    while alias[label] != label:
        label = alias[label]
    return label


def _renumber(label: Ints, alias: list[int]) -> Ints:
    """Follow merged labels and close the gaps in the numbering."""
    merged = np.array([_root(alias, int(k)) if k >= 0 else -1 for k in label], dtype=np.int64)
    kept = {k: new for new, k in enumerate(sorted({int(k) for k in merged if k >= 0}))}
    return np.array([kept[int(k)] if k >= 0 else -1 for k in merged], dtype=np.int64)
