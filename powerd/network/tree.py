"""Those of the rows once more as a tree that form one, for the O(n) allocation kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from powerd.limits import Bools, Floats, Ints, Limits, Tree
from powerd.network.electrical import Electrical
from powerd.network.phasors import Places
from powerd.network.supply import Energised

#: Largest relative difference between a row and its product form that is rounding.
TOLERANCE = 1e-9


def make_tree(
    electrical: Electrical, live: Energised, place: Places, limits: Limits, branch: Ints, side: Ints, supply: Ints
) -> Tree | None:
    """Those of the limits that form a tree, or None where none does.

    The form is guessed from the drawing (a node for each kW limit and each rated branch side, coefficients from voltage
    ratios) and then held against the rows, one by one, so that a wrong guess costs speed and never a limit.

    Args:
        electrical: the compiled drawing.
        live: who feeds whom.
        place: voltages along the tree.
        limits: the rows to express.
        branch: (L,) branch of each limit, -1 for a kW limit.
        side: (L,) side of that branch.
        supply: (L,) supply of a kW limit, -1 for the site's.
    """
    if live.loop_count or live.parallel.shape[0]:
        return None
    nodes = _Nodes(electrical, live, branch, side, supply)
    plain = _plain_rows(limits)
    bits, gain = _bits_and_gain(electrical, place, live)
    tree = Tree(
        parent=nodes.parent,
        node=np.where(limits.energized, nodes.at_bus[electrical.evse_bus], -1),
        phase_bits=bits,
        gain=gain,
        row=nodes.rows(limits, plain),
        scale=nodes.scale(electrical, place, live, limits, plain),
    )
    tree = replace(tree, row=np.where(_matching(tree, limits), tree.row, -1))
    return tree if (tree.row >= 0).any() else None


def _plain_rows(limits: Limits) -> Ints:
    """Rows that are sums: without imaginary part, alone in their limit, and of phase currents or power."""
    alone = np.bincount(limits.limit_of_row, minlength=limits.capacity.shape[0]) == 1
    summed = np.array([kind in ("current", "power") for kind in limits.kind], np.bool_)
    real = np.diff(limits.imag.indptr) == 0
    loaded = np.diff(limits.real.indptr) > 0
    return np.flatnonzero((alone & summed)[limits.limit_of_row] & real & loaded)


class _Nodes:
    """The nodes: site, supplies, then every rated branch side, parents first."""

    def __init__(self, electrical: Electrical, live: Energised, branch: Ints, side: Ints, supply: Ints) -> None:
        """Lay out the nodes for limits given as in ``make_tree``."""
        self.branch, self.side, self.supply = branch, side, supply
        count = len(electrical.supplies.ids)
        parent, self.of_side = [-1] + [0] * count, {}
        at_bus = np.full(live.supply.shape[0], -1, dtype=np.int64)
        rated = set(zip(branch.tolist(), side.tolist(), strict=True))
        for bus in live.order.tolist():
            link = int(live.parent_branch[bus])
            if link < 0:
                at_bus[bus] = 1 + live.supply[bus]
                continue
            above = int(at_bus[live.parent_bus[bus]])
            near = int(electrical.branches.to_bus[link] == bus)
            for end in (1 - near, near):
                if (link, end) in rated:
                    self.of_side[link, end] = len(parent)
                    parent.append(above)
                    above = len(parent) - 1
            at_bus[bus] = above
        self.parent: Ints = np.array(parent, dtype=np.int64)
        self.at_bus: Ints = at_bus

    def of_limit(self, limit: int) -> int:
        """Node of a limit."""
        if self.branch[limit] < 0:
            return 1 + int(self.supply[limit])
        return self.of_side[int(self.branch[limit]), int(self.side[limit])]

    def rows(self, limits: Limits, plain: Ints) -> Ints:
        """(N, 3) row on each phase; a kW limit stands on l1 (all its posts must load all phases alike)."""
        result = np.full((self.parent.shape[0], 3), -1, dtype=np.int64)
        for row, limit in zip(plain.tolist(), limits.limit_of_row[plain].tolist(), strict=True):
            phase = int(limits.phase[limit][1:]) - 1 if limits.phase[limit] else 0
            result[self.of_limit(limit), phase] = row
        return result

    def scale(self, electrical: Electrical, place: Places, live: Energised, limits: Limits, plain: Ints) -> Floats:
        """(N,) ampere (or kW) at the node per reference ampere, by voltage ratio; kW by the first post found."""
        result = np.ones(self.parent.shape[0])
        branches = electrical.branches
        for (link, end), node in self.of_side.items():
            bus = int((branches.from_bus, branches.to_bus)[end][link])
            root = int(electrical.supplies.bus[live.supply[bus]])
            result[node] = place.volts[root] / place.volts[bus]
        _, gain = _bits_and_gain(electrical, place, live)
        for row in plain[self.branch[limits.limit_of_row[plain]] < 0].tolist():
            first = limits.real.indptr[row]
            column = limits.real.indices[first]
            result[self.of_limit(int(limits.limit_of_row[row]))] = limits.real.data[first] / gain[column]
        return result


def _bits_and_gain(electrical: Electrical, place: Places, live: Energised) -> tuple[Ints, Floats]:
    """(n,) phase bits and (n,) ampere at the supply's voltage per own unit (0 on dead buses)."""
    bus = electrical.evse_bus
    on: npt.NDArray[np.bool_] = ~np.isnan(electrical.evse_phasor_deg)
    root = electrical.supplies.bus[np.maximum(live.supply[bus], 0)] if electrical.supplies.bus.shape[0] else bus
    ratio = np.where(live.supply[bus] >= 0, place.volts[bus] / place.volts[root], 0.0)
    return on @ np.array([1, 2, 4]), electrical.evse_amps_per_unit * ratio


def _matching(tree: Tree, limits: Limits) -> Bools:
    """(N, 3) the row there equals scale * gain over exactly the posts below its node on its phase."""
    below, first, size = _posts_below(tree), *_numbered(tree.parent)
    of_post = np.where(tree.node >= 0, first[tree.node], -1)
    found = np.zeros(tree.row.shape, np.bool_)
    for node, phase in zip(*np.nonzero(tree.row >= 0), strict=True):
        row = tree.row[node, phase]
        part = slice(limits.real.indptr[row], limits.real.indptr[row + 1])
        columns, data = limits.real.indices[part], limits.real.data[part]
        even = limits.phase[limits.limit_of_row[row]] != "" or bool((tree.phase_bits[columns] == 7).all())
        same = np.allclose(data, tree.scale[node] * tree.gain[columns], rtol=TOLERANCE, atol=0.0)
        at = of_post[columns] - first[node]
        mine = (at >= 0) & (at < size[node]) & ((tree.phase_bits[columns] >> phase) & 1 == 1)
        found[node, phase] = even and same and columns.shape[0] == below[node, phase] and mine.all()
    return found


def _numbered(parent: Ints) -> tuple[Ints, Ints]:
    """(N,) number of each node, so that those at or below it follow it at once, and how many these are with it."""
    size, first = np.ones(parent.shape[0], np.int64), np.zeros(parent.shape[0], np.int64)
    for node in range(parent.shape[0] - 1, 0, -1):
        size[parent[node]] += size[node]
    free = first + 1
    for node in range(1, parent.shape[0]):  # parents come before children
        first[node] = free[parent[node]]
        free[node] = first[node] + 1
        free[parent[node]] += size[node]
    return first, size


def _posts_below(tree: Tree) -> Ints:
    """(N, 3) posts at or below each node that load each phase."""
    below = np.zeros((tree.parent.shape[0], 3), np.int64)
    live = tree.node >= 0
    np.add.at(below, tree.node[live], (tree.phase_bits[live, None] >> np.arange(3)) & 1)
    for node in range(tree.parent.shape[0] - 1, -1, -1):
        if tree.parent[node] >= 0:
            below[tree.parent[node]] += below[node]
    return below
