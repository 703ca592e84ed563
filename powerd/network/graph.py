"""What hangs together in a graph, and in what order it is reached.

``scipy.sparse.csgraph`` answers the same, label by label (a test holds that), but importing it brings in all of scipy's
linear algebra: a tenth of the CPU time that a warm start has.
"""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Ints


def components(nodes: int, one: Ints, other: Ints) -> Ints:
    """(nodes,) label of what each node hangs together with by edges ``one`` (m,) -- ``other`` (m,).

    Labels count up from 0 in the order of the first node of each.
    """
    return _labels(nodes, np.ascontiguousarray(one), np.ascontiguousarray(other))


def breadth_first(nodes: int, one: Ints, other: Ints, roots: Ints) -> tuple[Ints, Ints]:
    """Nodes reached from the roots, in order, and of each node (nodes,) the one it was reached from, -1 = none.

    Args:
        nodes: how many there are.
        one: (m,) one end of each edge.
        other: (m,) its other end.
        roots: where to begin, in this order; neighbours are visited in the order of their numbers.
    """
    ends, neighbours = np.concatenate((one, other)), np.concatenate((other, one))
    by_end = np.lexsort((neighbours, ends))
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(ends, minlength=nodes))))
    return _reached(starts, neighbours[by_end], roots)


@kernel
def _labels(nodes: int, one: Ints, other: Ints) -> Ints:
    """Union by the smaller number, paths halved: the root of each group is its first node."""
    above = np.arange(nodes)
    for edge in range(one.shape[0]):
        a, b = one[edge], other[edge]
        while above[a] != a:
            above[a] = above[above[a]]
            a = above[a]
        while above[b] != b:
            above[b] = above[above[b]]
            b = above[b]
        above[max(a, b)] = min(a, b)
    label = np.empty(nodes, np.int64)
    count = 0
    for node in range(nodes):  # what is above a node has a smaller number, so it has its label by now
        if above[node] == node:
            label[node] = count
            count += 1
        else:
            label[node] = label[above[node]]
    return label


@kernel
def _reached(starts: Ints, neighbours: Ints, roots: Ints) -> tuple[Ints, Ints]:
    """Neighbours of a node are ``neighbours[starts[node] : starts[node + 1]]``."""
    nodes = starts.shape[0] - 1
    order, parent = np.empty(nodes, np.int64), np.full(nodes, -1)
    seen = np.zeros(nodes, np.bool_)
    count = 0
    for root in roots:
        if not seen[root]:
            seen[root] = True
            order[count] = root
            count += 1
    at = 0
    while at < count:
        node = order[at]
        at += 1
        for place in range(starts[node], starts[node + 1]):
            next_node = neighbours[place]
            if not seen[next_node]:
                seen[next_node] = True
                parent[next_node] = node
                order[count] = next_node
                count += 1
    return order[:count], parent
