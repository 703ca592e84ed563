"""The drawing with what is known of the cars: which phases of its three-phase posts they use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.limits import Ints
from powerd.network.electrical import Electrical


def with_phases_in_use(electrical: Electrical, used: Ints) -> Electrical:
    """The drawing with posts that load some of their phases only, and in step.

    A phase that is not used carries nothing; the used ones carry the same, so that they are one unit of the rows and
    not one a phase (``taps``). Where nobody knows how a post's conductors hang on the bus, only "all three" tells.

    Args:
        electrical: as drawn.
        used: (n,) bits of the post's own phases; 0 = not known.
    """
    rotation = electrical.evse_rotation
    known = (used > 0) & ~electrical.posts.is_dc & ~electrical.evse_unknown & ((rotation >= 0) | (used == 7))
    if not known.any():
        return electrical
    conductor = (np.arange(3)[None, :] - np.maximum(rotation, 0)[:, None]) % 3
    on = (used[:, None] >> conductor) & 1 == 1
    off = known[:, None] & ~on
    share = np.where(known, on.sum(axis=1) / 3.0, 1.0)
    return replace(
        electrical,
        evse_phasor_deg=np.where(off, np.nan, electrical.evse_phasor_deg),
        evse_in_step=electrical.evse_in_step | known,
        posts=replace(electrical.posts, kw_per_unit=electrical.posts.kw_per_unit * share),
    )
