"""Most that wires and transformers can lose: what an import limit has to leave for them.

A kW limit is metered at the supply, so it pays for the losses too. Each branch is reckoned at the largest current that
its rating, or everything below it at full draw, allows; in a star network the neutral carries at most the largest phase
current and its resistance is (r0 - r) / 3.
"""

from __future__ import annotations

import numpy as np

from powerd.limits import Floats
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.taps import Crossings, Taps


def worst_losses_kw(electrical: Electrical, parts: list[tuple[Taps, Crossings, Floats]]) -> Floats:
    """Largest loss of each branch (E,) [kW].

    Args:
        electrical: the compiled drawing.
        parts: taps, their crossings of *all* branches and the largest draw of each owner [own unit], once for the EVSEs
            and once for the loads.
    """
    branches, of = electrical.branches, electrical.impedances
    count = branches.kind.shape[0]
    amps = np.zeros((count, 3))
    for taps, crossings, most in parts:
        at_high = crossings.side == 0
        through = np.abs(crossings.current[at_high]) * (taps.share @ most)[crossings.tap[at_high], None]
        np.add.at(amps, crossings.branch[at_high], through)
    rating = np.where(np.isfinite(branches.capacity_from_a), branches.capacity_from_a, np.inf)
    amps = np.minimum(amps, rating[:, None])
    square, largest = (amps**2).sum(axis=1), amps.max(axis=1)
    neutral_ohm = np.maximum(of.r0_ohm - of.r_ohm, 0.0) / 3
    feeders = (of.r_ohm * square + neutral_ohm * largest**2) / 1000
    wound = branches.kind == BranchKind.TRANSFORMER
    safe_kva, safe_v = np.where(wound, of.rated_kva, 1.0), np.where(wound, of.high_v, 1.0)
    rated_a = safe_kva * 1000 / (np.sqrt(3.0) * safe_v)
    transformers = of.vkr_percent / 100 * safe_kva / 3 * square / rated_a**2 + of.iron_loss_kw
    losses: Floats = np.where(wound, transformers, feeders)
    return losses
