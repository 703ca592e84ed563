"""The rows once more as a tree, for the O(n) allocation kernel, wherever they are one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from powerd.limits import Floats, Ints, Limits, Tree
from powerd.network.electrical import Electrical
from powerd.network.phasors import Places
from powerd.network.supply import Energised

#: Largest relative difference between a row and its product form that is rounding.
TOLERANCE = 1e-9


def make_tree(
    electrical: Electrical, live: Energised, place: Places, limits: Limits, branch: Ints, side: Ints, supply: Ints
) -> Tree | None:
    """The limits as a tree, or None where some row is not of that form.

    The form is guessed from the drawing (a node for each kW limit and each rated branch side, coefficients from voltage
    ratios) and then held against the rows, so that a wrong guess costs speed and never a limit.

    Args:
        electrical: the compiled drawing.
        live: who feeds whom.
        place: voltages along the tree.
        limits: the rows to express.
        branch: (L,) branch of each limit, -1 for a kW limit.
        side: (L,) side of that branch.
        supply: (L,) supply of a kW limit, -1 for the site's.
    """
    if live.loop_count or live.parallel.shape[0] or not _is_linear(limits):
        return None
    nodes = _Nodes(electrical, live, branch, side, supply)
    node = np.where(limits.energized, nodes.at_bus[electrical.evse_bus], -1)
    bits, gain = _bits_and_gain(electrical, place, live)
    tree = Tree(
        parent=nodes.parent,
        node=node,
        phase_bits=bits,
        gain=gain,
        row=nodes.rows(limits),
        scale=nodes.scale(electrical, place, live, limits),
    )
    return tree if _matches(tree, limits) else None


def _is_linear(limits: Limits) -> bool:
    """True if every limit is one row without imaginary part that bounds phase currents or power."""
    return (
        all(kind in ("current", "power") for kind in limits.kind)
        and int(limits.imag.nnz) == 0
        and limits.row_count == limits.capacity.shape[0]
    )


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

    def rows(self, limits: Limits) -> Ints:
        """(N, 3) row on each phase; a kW limit stands on l1 (all its posts must load all phases alike)."""
        result = np.full((self.parent.shape[0], 3), -1, dtype=np.int64)
        for row, limit in enumerate(limits.limit_of_row.tolist()):
            phase = int(limits.phase[limit][1:]) - 1 if limits.phase[limit] else 0
            result[self.of_limit(limit), phase] = row
        return result

    def scale(self, electrical: Electrical, place: Places, live: Energised, limits: Limits) -> Floats:
        """(N,) ampere (or kW) at the node per reference ampere, by voltage ratio; kW by the first post found."""
        result = np.ones(self.parent.shape[0])
        branches = electrical.branches
        for (link, end), node in self.of_side.items():
            bus = int((branches.from_bus, branches.to_bus)[end][link])
            root = int(electrical.supplies.bus[live.supply[bus]])
            result[node] = place.volts[root] / place.volts[bus]
        _, gain = _bits_and_gain(electrical, place, live)
        for row in np.flatnonzero(self.branch[limits.limit_of_row] < 0).tolist():
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


def _matches(tree: Tree, limits: Limits) -> bool:
    """True if every row equals scale * gain over exactly the posts below its node on its phase."""
    found = 0
    for node, phase in zip(*np.nonzero(tree.row >= 0), strict=True):
        row = tree.row[node, phase]
        part = slice(limits.real.indptr[row], limits.real.indptr[row + 1])
        columns, data = limits.real.indices[part], limits.real.data[part]
        if not np.allclose(data, tree.scale[node] * tree.gain[columns], rtol=TOLERANCE, atol=0.0):
            return False
        if limits.phase[limits.limit_of_row[row]] == "" and (tree.phase_bits[columns] != 7).any():
            return False
        found += columns.shape[0]
    return found == _covered(tree)


def _covered(tree: Tree) -> int:
    """How many coefficients the tree stands for: rated ancestors over all posts and phases."""
    live = tree.node >= 0
    rated = (tree.row >= 0).astype(np.int64)
    for node in range(tree.parent.shape[0]):
        if tree.parent[node] >= 0:
            rated[node] += rated[tree.parent[node]]
    on = (tree.phase_bits[live, None] >> np.arange(3)) & 1
    return int((rated[tree.node[live]] * on).sum())
