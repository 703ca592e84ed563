"""Phasor arithmetic of the rows: through transformers, and which subsets of angles can be worst.

Every bus has its own frame: its nominal l1 voltage stands at 0 degrees, l2 at -120, l3 at +120. A bus's *place* says
how its frame lies to the supply's: rated volts, clock sum of the transformers above it, and the zone within which
zero-sequence current can flow. Between two places a current transforms by symmetrical components (Fortescue 1918):
clock k turns the positive sequence by 30k degrees one way and the negative one by 30k the other way, and a winding
without neutral stops the zero sequence. In delta-star 11 this is I_A = (I_a - I_c) / (sqrt(3) * ratio).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from powerd.limits import Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.supply import Energised, joined

Complex = npt.NDArray[np.complex128]

#: Nominal phase angles of l1, l2, l3 in a bus's own frame [deg].
PHASE_DEG = np.array([0.0, -120.0, 120.0])
#: Two currents whose angles differ by less are parallel [deg]; rounding of double precision is 1e-13.
SAME_ANGLE_DEG = 1e-6

_A = np.exp(2j * np.pi / 3)
_TO_PHASES = np.array([[1, 1, 1], [1, _A**2, _A], [1, _A, _A**2]])
_FROM_PHASES = np.array([[1, 1, 1], [1, _A, _A**2], [1, _A**2, _A]]) / 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """How the frame of each bus lies to its supply's; B buses."""

    volts: Floats
    """(B,) rated line-to-line voltage, from the supply's bus down by turns ratios [V]; nan on dead buses."""
    clock: Ints
    """(B,) sum of clock numbers from the supply down, modulo 12."""
    zone: Ints
    """(B,) label of the region without a winding that stops zero-sequence current."""


def places(electrical: Electrical, live: Energised) -> Places:
    """Place of every bus, by going down the tree one depth at a time."""
    branches = electrical.branches
    volts = np.full(live.supply.shape[0], np.nan)
    clock = np.zeros(live.supply.shape[0], dtype=np.int64)
    roots = np.flatnonzero(live.depth == 0)
    volts[roots] = electrical.buses.voltage_v[roots]
    for depth in range(1, int(live.depth.max(initial=0)) + 1):
        bus = np.flatnonzero(live.depth == depth)
        branch, above = live.parent_branch[bus], live.parent_bus[bus]
        down = branches.to_bus[branch] == bus
        volts[bus] = volts[above] * np.where(down, 1 / branches.turns_ratio[branch], branches.turns_ratio[branch])
        clock[bus] = (clock[above] + np.where(down, 1, -1) * branches.clock[branch]) % 12
    return Places(volts=volts, clock=clock, zone=_zones(electrical, live))


def _zones(electrical: Electrical, live: Energised) -> Ints:
    """(B,) label of the buses that conducting branches join without a winding that stops the zero sequence."""
    branches = electrical.branches
    blocks = (branches.kind == BranchKind.TRANSFORMER) & (branches.high_delta | (branches.clock % 2 == 1))
    return joined(electrical, live.conducting & ~blocks)


def carry(currents: Complex, place: Places, here: Ints, there: Ints) -> Complex:
    """Currents (K, 3) at buses ``here`` (K,) as they are seen at buses ``there`` (K,), in the frame there.

    Both buses must be in one island. The result is in ampere at the voltage there.
    """
    turn = (place.clock[here] - place.clock[there]) % 12
    passes = place.zone[here] == place.zone[there]
    matrix = _matrices()[turn, passes.astype(np.int64)]
    ratio = place.volts[here] / place.volts[there]
    result: Complex = np.einsum("kij,kj->ki", matrix, currents) * ratio[:, None]
    return result


@lru_cache(maxsize=1)
def _matrices() -> Complex:
    """(12, 2, 3, 3) low frame to high frame for each clock difference, zero sequence stopped [0] or passed [1]."""
    result = np.empty((12, 2, 3, 3), dtype=np.complex128)
    for clock in range(12):
        turn = np.exp(-1j * np.pi * clock / 6)
        zero = turn if clock % 4 == 0 else -turn
        for passes in (0, 1):
            result[clock, passes] = _TO_PHASES @ np.diag([passes * zero, 1.0, turn**2]) @ _FROM_PHASES
    result[0, 1] = np.eye(3)  # exactly, so that what crosses no transformer keeps its digits
    result.setflags(write=False)
    return result


@lru_cache(maxsize=4096)
def worst_subsets(angles_deg: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
    """Which groups of a limit, taken alone, can carry the largest current; one cone for each answer.

    Each group g contributes x_g >= 0 at its own angle, and the cars may draw any 0 <= d <= x. The largest norm is
    reached where every group is either full or absent (a convex function over a box), and there a group is present
    exactly if it points along the resultant: so only the sets that a half circle cuts out can be worst, at most 2m of
    them for m groups, not 2^m. Of these a set is dominated, and dropped, if another one adds only groups that point
    within 90 degrees of one another and of all its members.

    Args:
        angles_deg: m distinct angles [deg].

    Returns:
        Sets of indices into ``angles_deg``, the largest first.
    """
    theta = np.radians(np.array(angles_deg))
    edges = np.sort(np.concatenate([theta + np.pi / 2, theta - np.pi / 2]) % (2 * np.pi))
    between = (edges + np.append(edges[1:], edges[0] + 2 * np.pi)) / 2
    found = {tuple(np.flatnonzero(np.cos(theta - direction) > 0).tolist()) for direction in between}
    along = np.cos(theta[:, None] - theta[None, :]) > -1e-9
    kept = [s for s in found if s and not any(_dominates(t, s, along) for t in found)]
    return tuple(sorted(kept, key=lambda s: (-len(s), s)))


def _dominates(larger: tuple[int, ...], smaller: tuple[int, ...], along: npt.NDArray[np.bool_]) -> bool:
    """True if every group that ``larger`` adds to ``smaller`` can only add to the norm."""
    added = set(larger) - set(smaller)
    if not added or not set(smaller) < set(larger):
        return False
    fits = all(along[g, h] for g in added for h in smaller)
    return fits and all(along[g, h] for g, h in combinations(sorted(added), 2))
