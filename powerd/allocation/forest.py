"""A stage on a tree, in the layout of the kernel: only the nodes whose rows can bind, only the EVSEs that are free.

In reference amperes, y_i = gain_i x_i, every coefficient of a tree row is 1:

    sum of y_i over the free EVSEs below node v that load phase k  <=  room[v, k] = (headroom - base) / scale[v].

EVSEs with the same node and the same set of phases see the same price; such a *group* has index 8 v + phase bits, so
that loops over EVSEs are one table look-up each and everything else is per node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints


class Forest(NamedTuple):
    """N nodes, parents first; k free EVSEs."""

    parent: Ints
    """(N,) parent node; -1 at a root."""
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
def sum_by_phase(groups: Floats, v: int, k: int) -> float:
    """Sum over the groups of node v that load phase k of a table (N, 8)."""
    if k == 0:
        return float(groups[v, 1] + groups[v, 3] + groups[v, 5] + groups[v, 7])
    if k == 1:
        return float(groups[v, 2] + groups[v, 3] + groups[v, 6] + groups[v, 7])
    return float(groups[v, 4] + groups[v, 5] + groups[v, 6] + groups[v, 7])


@kernel
def sum_below(parent: Ints, groups: Floats) -> Floats:
    """(N, 3) sums over each node's whole subtree of a table (N, 8) of group sums."""
    below = np.empty((parent.shape[0], 3))
    for v in range(parent.shape[0]):
        for k in range(3):
            below[v, k] = sum_by_phase(groups, v, k)
    for v in range(parent.shape[0] - 1, -1, -1):
        if parent[v] >= 0:
            for k in range(3):
                below[parent[v], k] += below[v, k]
    return below


@kernel
def _binding_nodes(parent: Ints, row: Ints, most: Floats, room: Floats, scale: Floats) -> Bools:
    """(N,) True where some row of the node would not hold with everybody at the upper bound (``most`` (N, 3))."""
    binding = np.zeros(parent.shape[0], dtype=np.bool_)
    for v in range(parent.shape[0]):
        for k in range(3):
            if row[v, k] >= 0 and most[v, k] * scale[v] > room[row[v, k]]:
                binding[v] = True
    return binding


@kernel
def plant(
    parent: Ints,
    node: Ints,
    phase_bits: Ints,
    gain: Floats,
    row: Ints,
    scale: Floats,
    room: Floats,
    free: Bools,
    weight: Floats,
    lower: Floats,
    upper: Floats,
) -> Forest:  # one pass over the arrays of the stage; splitting it would pass all of them on
    """Contract the tree of the limits to the nodes that can bind in this stage.

    Args:
        parent: (N0,) as in ``limits.Tree``, like ``node``, ``phase_bits``, ``gain``, ``row`` and ``scale``.
        node: (n,)
        phase_bits: (n,)
        gain: (n,)
        row: (N0, 3)
        scale: (N0,)
        room: (m,) headroom - base of each row [limit unit].
        free: (n,) which EVSEs are variables.
        weight: (n,)
        lower: (n,) [own unit].
        upper: (n,) [own unit].

    Returns:
        The forest; nodes keep their order, so parents stay first.
    """
    evse = np.flatnonzero(free)
    count = evse.shape[0]
    most_by_group = np.zeros((parent.shape[0], 8))
    for j in range(count):
        i = evse[j]
        most_by_group[node[i], phase_bits[i]] += gain[i] * upper[i]
    most = sum_below(parent, most_by_group)
    binding = _binding_nodes(parent, row, most, room, scale)
    kept = np.flatnonzero(binding)
    anchor = np.full(parent.shape[0], -1, dtype=np.int64)
    new_parent = np.full(kept.shape[0], -1, dtype=np.int64)
    new_row = np.full((kept.shape[0], 3), -1, dtype=np.int64)
    new_room = np.full((kept.shape[0], 3), np.inf)
    price_scale = np.ones((kept.shape[0], 3))
    position = 0
    for v in range(parent.shape[0]):
        above = anchor[parent[v]] if parent[v] >= 0 else -1
        if not binding[v]:
            anchor[v] = above
            continue
        anchor[v] = position
        new_parent[position] = above
        for k in range(3):
            r = row[v, k]
            if r >= 0 and most[v, k] * scale[v] > room[r]:
                new_row[position, k] = r
                new_room[position, k] = room[r] / scale[v]
                price_scale[position, k] = 1.0 / scale[v]
        position += 1
    group = np.empty(count, dtype=np.int64)
    some_gain = np.empty(count)
    some_weight = np.empty(count)
    some_lower = np.empty(count)
    some_upper = np.empty(count)
    weight_scale = 0.0
    for j in range(count):
        i = evse[j]
        group[j] = 8 * anchor[node[i]] + phase_bits[i] if anchor[node[i]] >= 0 else -1
        some_gain[j] = gain[i]
        some_lower[j] = gain[i] * lower[i]
        some_upper[j] = gain[i] * upper[i]
        some_weight[j] = weight[i]
        weight_scale = max(weight_scale, weight[i])
    for j in range(count):
        some_weight[j] /= weight_scale
    return Forest(
        new_parent,
        new_row,
        new_room,
        price_scale,
        evse,
        group,
        some_gain,
        some_weight,
        some_lower,
        some_upper,
        weight_scale,
    )
