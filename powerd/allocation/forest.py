"""A stage on a tree, in the layout of the kernel: only the nodes whose rows can bind, only the EVSEs that are free.

In reference amperes, y_i = gain_i x_i, every coefficient of a tree row is 1:

    sum of y_i over the free EVSEs below node v that load phase k  <=  room[v, k] = (headroom - base) / scale[v].

Nodes stand in depth-first order, so that a subtree is a slice of the nodes and a slice of the EVSEs, and the trees of
the forest, which do not touch each other, are solved one after the other. EVSEs with the same node and the same set of
phases see the same price; such a *group* has index 8 v + phase bits, so that loops over EVSEs are one table look-up
each and everything else is per node.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Tree

#: How many trees stay compiled (one for each switching state).
KEPT_TREES = 16


class Grove(NamedTuple):
    """A ``limits.Tree`` in depth-first order: N nodes, k EVSEs on them."""

    parent: Ints
    """(N,) parent node; -1 at a root."""
    row: Ints
    """(N, 3) row index, -1 where the node has no rating on that phase."""
    scale: Floats
    """(N,) ampere at the node per reference ampere."""
    evse: Ints
    """(k,) index of each EVSE, in the order of its node."""
    node: Ints
    """(k,) node each hangs on."""
    phase_bits: Ints
    """(k,) bit p set = loads phase p."""
    gain: Floats
    """(k,) reference ampere per own unit."""


#: Limits that are no tree.
NO_GROVE = Grove(
    parent=np.zeros(0, dtype=np.int64),
    row=np.zeros((0, 3), dtype=np.int64),
    scale=np.zeros(0),
    evse=np.zeros(0, dtype=np.int64),
    node=np.zeros(0, dtype=np.int64),
    phase_bits=np.zeros(0, dtype=np.int64),
    gain=np.zeros(0),
)


class Forest(NamedTuple):
    """N nodes in depth-first order; k free EVSEs below them, in the same order."""

    parent: Ints
    """(N,) parent node; -1 at a root."""
    end: Ints
    """(N,) the subtree of node v is the nodes v ... end[v] - 1."""
    first: Ints
    """(N,) and its EVSEs are first[v] ... last[v] - 1."""
    last: Ints
    """(N,)"""
    row: Ints
    """(N, 3) row of the limits each room comes from; -1 where the node does not limit that phase."""
    room: Floats
    """(N, 3) [reference A]; infinite where the node does not limit that phase."""
    price_scale: Floats
    """(N, 3) row price = node price x this [limit unit -> reference A]."""
    evse: Ints
    """(k,) index of each free EVSE."""
    group: Ints
    """(k,) 8 x node + phase bits."""
    gain: Floats
    """(k,) reference ampere per own unit."""
    weight: Floats
    """(k,) > 0; the largest is 1."""
    lower: Floats
    """(k,) [reference A]."""
    upper: Floats
    """(k,) [reference A], above ``lower``."""
    weight_scale: float
    """What the weights were divided by."""


@kernel
def _depth_first(parent: Ints) -> Ints:
    """(N,) place of each node in depth-first order; parents come first in ``parent``."""
    nodes = parent.shape[0]
    size = np.ones(nodes, dtype=np.int64)
    for v in range(nodes - 1, -1, -1):
        if parent[v] >= 0:
            size[parent[v]] += size[v]
    place = np.zeros(nodes, dtype=np.int64)
    free = np.zeros(nodes, dtype=np.int64)  # where the next child of each node begins
    roots = 0
    for v in range(nodes):
        up = parent[v]
        if up < 0:
            place[v] = roots
            roots += size[v]
        else:
            place[v] = free[up]
            free[up] += size[v]
        free[v] = place[v] + 1
    return place


def _lay_out(tree: Tree) -> Grove:
    """Sort nodes and EVSEs depth-first."""
    place = _depth_first(tree.parent)
    node_order = np.argsort(place)
    parent = tree.parent[node_order]
    hanging = np.flatnonzero(tree.node >= 0)
    evse = hanging[np.argsort(place[tree.node[hanging]], kind="stable")]
    return Grove(
        parent=np.where(parent >= 0, place[parent], -1),
        row=np.ascontiguousarray(tree.row[node_order], dtype=np.int64),
        scale=tree.scale[node_order].astype(np.float64),
        evse=evse,
        node=place[tree.node[evse]],
        phase_bits=tree.phase_bits[evse].astype(np.int64),
        gain=tree.gain[evse].astype(np.float64),
    )


_laid_out: OrderedDict[int, tuple[Tree, Grove]] = OrderedDict()
_laid_out_lock = Lock()


def grove_of(tree: Tree) -> Grove:
    """The tree in depth-first order; kept for the last few trees (same object = same tree)."""
    with _laid_out_lock:
        kept = _laid_out.get(id(tree))
        if kept is not None:
            return kept[1]
    grove = _lay_out(tree)
    with _laid_out_lock:
        _laid_out[id(tree)] = (tree, grove)  # holding ``tree`` keeps its id from being reused
        while len(_laid_out) > KEPT_TREES:
            _laid_out.popitem(last=False)
    return grove


@kernel
def _most(grove: Grove, free: Bools, upper: Floats) -> Floats:
    """(N, 3) what the free EVSEs below each node would take on each phase at their upper bounds [reference A]."""
    most = np.zeros((grove.parent.shape[0], 3))
    for j in range(grove.evse.shape[0]):
        i = grove.evse[j]
        if free[i]:
            for k in range(3):
                if (grove.phase_bits[j] >> k) & 1:
                    most[grove.node[j], k] += grove.gain[j] * upper[i]
    for v in range(grove.parent.shape[0] - 1, -1, -1):
        if grove.parent[v] >= 0:
            for k in range(3):
                most[grove.parent[v], k] += most[v, k]
    return most


@kernel
def _contract(grove: Grove, most: Floats, room: Floats) -> tuple[Ints, Ints]:
    """The nodes of which some row would not hold with everybody at the upper bound (they are kept).

    Returns:
        Which ones, and for each node of the grove the number of the nearest kept node at or above it (-1: none).
    """
    nodes = grove.parent.shape[0]
    kept = np.empty(nodes, dtype=np.int64)
    anchor = np.empty(nodes, dtype=np.int64)
    count = 0
    for v in range(nodes):
        binds = False
        for k in range(3):
            r = grove.row[v, k]
            if r >= 0 and most[v, k] * grove.scale[v] > max(room[r], 0.0):
                binds = True
        if binds:
            anchor[v] = count
            kept[count] = v
            count += 1
        else:
            anchor[v] = anchor[grove.parent[v]] if grove.parent[v] >= 0 else -1
    return kept[:count].copy(), anchor


@kernel
def _slices(parent: Ints, own: Ints) -> tuple[Ints, Ints, Ints]:
    """(N,) end of each subtree, and where its EVSEs begin and end; ``own`` (N,) EVSEs hang on each node."""
    nodes = parent.shape[0]
    end = np.arange(1, nodes + 1)
    below = own.copy()
    for v in range(nodes - 1, -1, -1):
        if parent[v] >= 0:
            end[parent[v]] = max(end[parent[v]], end[v])
            below[parent[v]] += below[v]
    first = np.zeros(nodes, dtype=np.int64)
    taken = 0  # EVSEs of all nodes before v
    for v in range(nodes):
        first[v] = taken
        taken += own[v]
    return end, first, first + below


@kernel
def _rows_of_kept(grove: Grove, kept: Ints, most: Floats, room: Floats) -> tuple[Ints, Floats, Floats]:
    """(N, 3) row, room and price scale of the kept nodes."""
    row = np.full((kept.shape[0], 3), -1, dtype=np.int64)
    new_room = np.full((kept.shape[0], 3), np.inf)
    price_scale = np.ones((kept.shape[0], 3))
    for a in range(kept.shape[0]):
        v = kept[a]
        for k in range(3):
            r = grove.row[v, k]
            if r >= 0 and most[v, k] * grove.scale[v] > max(room[r], 0.0):
                row[a, k] = r
                new_room[a, k] = room[r] / grove.scale[v]
                price_scale[a, k] = 1.0 / grove.scale[v]
    return row, new_room, price_scale


@kernel
def _count_own(grove: Grove, free: Bools, weight: Floats, anchor: Ints, nodes: int) -> tuple[Ints, float]:
    """(N,) how many free EVSEs hang on each kept node, and the largest of their weights."""
    own = np.zeros(nodes, dtype=np.int64)
    largest = 0.0
    for j in range(grove.evse.shape[0]):
        a = anchor[grove.node[j]]
        if a >= 0 and free[grove.evse[j]]:
            own[a] += 1
            largest = max(largest, weight[grove.evse[j]])
    return own, largest


@kernel
def plant(grove: Grove, room: Floats, free: Bools, weight: Floats, lower: Floats, upper: Floats) -> Forest:
    """Contract the tree of the limits to the nodes that can bind in this stage.

    Args:
        grove: the tree.
        room: (m,) headroom - base of each row [limit unit].
        free: (n,) which EVSEs are variables.
        weight: (n,)
        lower: (n,) [own unit].
        upper: (n,) [own unit].

    Returns:
        The forest; free EVSEs with no such node above them are not in it, they get their upper bound.
    """
    most = _most(grove, free, upper)
    kept, anchor = _contract(grove, most, room)
    parent = np.full(kept.shape[0], -1, dtype=np.int64)
    for a in range(kept.shape[0]):
        if grove.parent[kept[a]] >= 0:
            parent[a] = anchor[grove.parent[kept[a]]]
    row, new_room, price_scale = _rows_of_kept(grove, kept, most, room)
    own, weight_scale = _count_own(grove, free, weight, anchor, kept.shape[0])
    end, first, last = _slices(parent, own)
    place = first.copy()
    evse = np.empty(own.sum(), dtype=np.int64)
    group = np.empty_like(evse)
    gain, some_weight = np.empty(evse.shape[0]), np.empty(evse.shape[0])
    some_lower, some_upper = np.empty(evse.shape[0]), np.empty(evse.shape[0])
    for j in range(grove.evse.shape[0]):
        i = grove.evse[j]
        a = anchor[grove.node[j]]
        if a < 0 or not free[i]:
            continue
        p = place[a]
        place[a] += 1
        evse[p] = i
        group[p] = 8 * a + grove.phase_bits[j]
        gain[p] = grove.gain[j]
        some_weight[p] = weight[i] / weight_scale
        some_lower[p] = grove.gain[j] * lower[i]
        some_upper[p] = grove.gain[j] * upper[i]
    return Forest(
        parent,
        end,
        first,
        last,
        row,
        new_room,
        price_scale,
        evse,
        group,
        gain,
        some_weight,
        some_lower,
        some_upper,
        weight_scale,
    )


@kernel
def sum_by_phase(groups: Floats, v: int, k: int) -> float:
    """Sum over the groups of node v that load phase k of a table (N, 8)."""
    if k == 0:
        return float(groups[v, 1] + groups[v, 3] + groups[v, 5] + groups[v, 7])
    if k == 1:
        return float(groups[v, 2] + groups[v, 3] + groups[v, 6] + groups[v, 7])
    return float(groups[v, 4] + groups[v, 5] + groups[v, 6] + groups[v, 7])


@kernel
def sum_below(forest: Forest, root: int, groups: Floats, below: Floats) -> None:
    """Sums (N, 3) over each node's whole subtree of a table (N, 8) of group sums, for the tree of ``root``; written."""
    for v in range(root, forest.end[root]):
        for k in range(3):
            below[v, k] = sum_by_phase(groups, v, k)
    for v in range(forest.end[root] - 1, root, -1):
        for k in range(3):
            below[forest.parent[v], k] += below[v, k]
