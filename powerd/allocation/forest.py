"""A stage on a tree, in the layout of the kernel: only the nodes whose rows can bind, only the EVSEs that are free.

In reference amperes, y_i = gain_i x_i, every coefficient of a tree row is 1:

    sum of y_i over the free EVSEs below node v that load phase k  <=  room[v, k] = (headroom - base) / scale[v].

Nodes stand in depth-first order, so that a subtree is a slice of the nodes, and the trees of the forest, which do not
touch each other, are solved one after the other. EVSEs with the same node and the same phases stand in a *run*: they
see the same price, so that a pass over the EVSEs is one division a run and a product, a minimum and a maximum each.
All that the search keeps of a node lies together in one record.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Tree

#: How many trees stay compiled (one for each switching state).
KEPT_TREES = 16

Records = npt.NDArray[Any]
"""Structured arrays, of the layouts below."""

#: A node of a tree of limits: parent (-1 at a root), end of its subtree, rows (-1 = no rating on that phase), and
#: ampere at the node per reference ampere.
SPOT = np.dtype([("parent", np.int64), ("end", np.int64), ("row", np.int64, (3,)), ("scale", np.float64)])

#: EVSEs first ... last - 1, which hang on one node and load the same phases (bit p = phase p). In a forest also what
#: they weigh and could take at most together, and the price that they see.
RUN = np.dtype(
    [
        ("node", np.int64),
        ("bits", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("weight", np.float64),
        ("most", np.float64),
        ("cost", np.float64),
    ]
)

#: A node of a forest. Three numbers are one a phase, six a symmetric block (00, 01, 02, 11, 12, 22).
NODE = np.dtype(
    [
        # the stage
        ("parent", np.int64),  # counted from the root of its tree; -1 at the root
        ("end", np.int64),  # the subtree is the nodes up to here
        ("first", np.int64),  # and its runs are first ... last - 1
        ("last", np.int64),
        ("row", np.int64, (3,)),  # of the limits; -1 where the node does not limit that phase
        ("scale", np.float64),  # row price = node price / scale
        ("room", np.float64, (3,)),  # [reference A]; infinite where unlimited
        ("weight", np.float64, (3,)),  # sum of the weights below
        ("kappa", np.float64, (3,)),  # room^2 / weight, the curvature as if it alone bound; 0 where unlimited or empty
        # where the search is
        ("price", np.float64, (3,)),  # >= 0
        ("arrived", np.float64, (3,)),  # the price that the search began with
        ("path", np.float64, (3,)),  # sum of the prices from the root to here
        ("slack", np.float64, (3,)),  # room - flow
        ("loose", np.float64, (3,)),  # flow of the node's own EVSEs between their bounds
        ("block", np.float64, (6,)),  # sum of -dy/dprice over the node's own EVSEs
        # a Newton step
        ("active", np.int64, (3,)),  # 1 = a row that is to be filled
        ("damping", np.float64, (3,)),
        ("wanted", np.float64, (3,)),  # flow change that active rows ask for
        ("fixed", np.float64, (3,)),  # price step of the others
        ("inverse", np.float64, (6,)),  # S, 0 outside the active rows
        ("offset", np.float64, (3,)),  # g
        ("filled", np.float64, (3,)),  # what active rows below ask for
        ("filled_slack", np.float64, (3,)),  # and their slack
        ("step", np.float64, (3,)),  # of the price
        ("total", np.float64, (3,)),  # sum of the steps from the root to here
        ("old_price", np.float64, (3,)),
        ("old_slack", np.float64, (3,)),
    ],
    align=True,
)


class Grove(NamedTuple):
    """A ``limits.Tree`` in depth-first order: N nodes, R runs, k EVSEs on them."""

    spots: Records
    """(N,) of ``SPOT``."""
    runs: Records
    """(R,) of ``RUN``."""
    evse: Ints
    """(k,) index of each EVSE, run by run."""
    gain: Floats
    """(k,) reference ampere per own unit."""


#: Limits that are no tree.
NO_GROVE = Grove(
    spots=np.zeros(0, dtype=SPOT), runs=np.zeros(0, dtype=RUN), evse=np.zeros(0, dtype=np.int64), gain=np.zeros(0)
)


class Forest(NamedTuple):
    """N nodes in depth-first order; R runs of free EVSEs below them, in the same order."""

    nodes: Records
    """(N,) of ``NODE``."""
    runs: Records
    """(R,) of ``RUN``; ``node`` counts from the root of the tree."""
    evse: Ints
    """(k,) index of each free EVSE."""
    gain: Floats
    """(k,) reference ampere per own unit."""
    weight: Floats
    """(k,) > 0."""
    lower: Floats
    """(k,) [reference A]."""
    upper: Floats
    """(k,) [reference A], above ``lower``."""


class Grown(NamedTuple):
    """One tree of a forest: views of what belongs to it, its root first."""

    nodes: Records
    """(N,) of ``NODE``."""
    runs: Records
    """(R,) of ``RUN``."""
    weight: Floats
    """(k,) of all EVSEs of the forest, likewise the others."""
    lower: Floats
    """(k,)"""
    upper: Floats
    """(k,)"""


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


@kernel
def _ends(parent: Ints) -> Ints:
    """(N,) end of each node's subtree, in depth-first order."""
    end = np.arange(1, parent.shape[0] + 1)
    for v in range(parent.shape[0] - 1, -1, -1):
        if parent[v] >= 0:
            end[parent[v]] = max(end[parent[v]], end[v])
    return end


def _lay_out(tree: Tree) -> Grove:
    """Sort nodes and EVSEs depth-first, the EVSEs of a node by their phases."""
    place = _depth_first(tree.parent)
    node_order = np.argsort(place)
    parent = tree.parent[node_order]
    spots = np.zeros(len(parent), dtype=SPOT)
    spots["parent"] = np.where(parent >= 0, place[parent], -1)
    spots["row"], spots["scale"] = tree.row[node_order], tree.scale[node_order]
    spots["end"] = _ends(spots["parent"].copy())
    hanging = np.flatnonzero(tree.node >= 0)
    kind = 8 * place[tree.node[hanging]] + tree.phase_bits[hanging]
    order = np.argsort(kind, kind="stable")
    kinds, first = np.unique(kind[order], return_index=True)
    runs = np.zeros(len(kinds), dtype=RUN)
    runs["node"], runs["bits"] = kinds // 8, kinds % 8
    runs["first"], runs["last"] = first, np.append(first[1:], len(order))
    evse = hanging[order]
    return Grove(spots=spots, runs=runs, evse=evse, gain=tree.gain[evse].astype(np.float64))


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
def _gather(grove: Grove, free: Bools, weight: Floats, lower: Floats, upper: Floats) -> Forest:
    """The free EVSEs side by side, and the runs that are left of them; no nodes yet."""
    evses = np.count_nonzero(free)
    runs = grove.runs.copy()
    evse, gain = np.empty(evses, np.int64), np.empty(evses)
    some_weight, some_lower, some_upper = np.empty(evses), np.empty(evses), np.empty(evses)
    kept = 0
    count = 0
    for q in range(runs.shape[0]):
        first = count
        heft = 0.0
        most = 0.0
        for j in range(grove.runs[q]["first"], grove.runs[q]["last"]):
            i = grove.evse[j]
            if not free[i]:
                continue
            evse[count] = i
            gain[count] = grove.gain[j]
            some_weight[count] = weight[i]
            some_lower[count] = grove.gain[j] * lower[i]
            some_upper[count] = grove.gain[j] * upper[i]
            heft += weight[i]
            most += some_upper[count]
            count += 1
        if count > first:
            run = runs[kept]
            run["node"] = grove.runs[q]["node"]
            run["bits"] = grove.runs[q]["bits"]
            run["first"] = first
            run["last"] = count
            run["weight"] = heft
            run["most"] = most
            kept += 1
    return Forest(np.empty(0, NODE), runs[:kept], evse, gain, some_weight, some_lower, some_upper)


@kernel
def _sums(grove: Grove, runs: Records) -> Floats:
    """(N, 2, 3) weight and most of all runs at or below each node, by phase."""
    spots = grove.spots
    sums = np.zeros((spots.shape[0], 2, 3))
    for q in range(runs.shape[0]):
        run = runs[q]
        for k in range(3):
            if run["bits"] >> k & 1:
                sums[run["node"], 0, k] += run["weight"]
                sums[run["node"], 1, k] += run["most"]
    for v in range(spots.shape[0] - 1, -1, -1):
        up = spots[v]["parent"]
        if up >= 0:
            for k in range(3):
                sums[up, 0, k] += sums[v, 0, k]
                sums[up, 1, k] += sums[v, 1, k]
    return sums


@kernel
def _binds(spot: Any, k: int, most: float, room: Floats) -> bool:
    """Whether the row of phase k would not hold with everybody below at the upper bound."""
    r = spot["row"][k]
    return bool(r >= 0 and most * spot["scale"] > max(room[r], 0.0))


@kernel
def _contract(grove: Grove, sums: Floats, room: Floats) -> tuple[Ints, Ints]:
    """The nodes of which some row binds (they are kept).

    Returns:
        Which ones, and for each node of the grove the number of the nearest kept node at or above it (-1: none).
    """
    spots = grove.spots
    kept = np.empty(spots.shape[0], dtype=np.int64)
    anchor = np.empty(spots.shape[0], dtype=np.int64)
    count = 0
    for v in range(spots.shape[0]):
        spot = spots[v]
        binds = False
        for k in range(3):
            binds = binds or _binds(spot, k, sums[v, 1, k], room)
        if binds:
            anchor[v] = count
            kept[count] = v
            count += 1
        else:
            anchor[v] = anchor[spot["parent"]] if spot["parent"] >= 0 else -1
    return kept[:count], anchor


@kernel
def _limit_node(node: Any, spot: Any, sums: Floats, room: Floats) -> None:
    """Write the rows of a kept node that bind."""
    node["scale"] = spot["scale"]
    for k in range(3):
        node["row"][k] = -1
        node["room"][k] = np.inf
        node["kappa"][k] = 0.0
        node["price"][k] = 0.0
        node["arrived"][k] = 0.0
        node["weight"][k] = sums[0, k]
        if _binds(spot, k, sums[1, k], room):
            r = spot["row"][k]
            node["row"][k] = r
            node["room"][k] = room[r] / spot["scale"]
            node["kappa"][k] = node["room"][k] ** 2 / sums[0, k]


@kernel
def _hang_runs(grove: Grove, kept: Ints, anchor: Ints, nodes: Records, runs: Records) -> Records:
    """The runs with a kept node above them, each on the nearest; says in the nodes which runs are below."""
    before = np.zeros(anchor.shape[0] + 1, dtype=np.int64)  # how many runs stand before each node of the grove
    count = 0
    next_node = 0
    root = np.empty(kept.shape[0], dtype=np.int64)
    for a in range(kept.shape[0]):
        root[a] = a if nodes[a]["parent"] < 0 else root[nodes[a]["parent"]]
    for q in range(runs.shape[0]):
        v = runs[q]["node"]
        if anchor[v] < 0:
            continue
        while next_node <= v:
            before[next_node] = count
            next_node += 1
        runs[count] = runs[q]
        runs[count]["node"] = anchor[v] - root[anchor[v]]
        count += 1
    before[next_node:] = count
    for a in range(kept.shape[0]):
        node = nodes[a]
        node["first"] = before[kept[a]]
        node["last"] = before[grove.spots[kept[a]]["end"]]
        node["parent"] -= root[a] if node["parent"] >= 0 else 0
    return runs[:count]


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
        The forest; free EVSEs with no such node above them are in no run, they get their upper bound.
    """
    found = _gather(grove, free, weight, lower, upper)
    sums = _sums(grove, found.runs)
    kept, anchor = _contract(grove, sums, room)
    nodes = np.empty(kept.shape[0], NODE)
    for a in range(kept.shape[0]):
        v = kept[a]
        up = grove.spots[v]["parent"]
        nodes[a]["parent"] = anchor[up] if up >= 0 else -1
        nodes[a]["end"] = a + 1
        _limit_node(nodes[a], grove.spots[v], sums[v], room)
    for a in range(kept.shape[0] - 1, -1, -1):
        up = nodes[a]["parent"]
        if up >= 0:
            nodes[up]["end"] = max(nodes[up]["end"], nodes[a]["end"])
    runs = _hang_runs(grove, kept, anchor, nodes, found.runs)
    return Forest(nodes, runs, found.evse, found.gain, found.weight, found.lower, found.upper)


@kernel
def harvest(forest: Forest, y: Floats, free: Bools, lower: Floats, upper: Floats) -> Floats:
    """Ceilings (n,) of the free EVSEs from what they take, y (k,) [reference A]: inside their bounds, 0 elsewhere."""
    x = np.where(free, upper, 0.0)
    for q in range(forest.runs.shape[0]):
        for j in range(forest.runs[q]["first"], forest.runs[q]["last"]):
            i = forest.evse[j]
            x[i] = min(max(y[j] / forest.gain[j], lower[i]), upper[i])
    return x


@kernel
def tree_at(forest: Forest, root: int) -> Grown:
    """The tree of ``root``."""
    node = forest.nodes[root]
    nodes, runs = forest.nodes[root : node["end"]], forest.runs[node["first"] : node["last"]]
    return Grown(nodes, runs, forest.weight, forest.lower, forest.upper)
