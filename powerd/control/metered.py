"""Which meters can be believed about which switching state: what a meter shows belongs to the state it was read in."""

from __future__ import annotations

import numpy as np

from powerd.control.compiled import CompiledSite
from powerd.control.headroom import uncontrolled
from powerd.limits import Floats
from powerd.state.columns import replace
from powerd.state.meters import Meters, windows_of
from powerd.state.snapshot import Snapshot

SETTLE_S = 10.0
"""Readings that end within this after the switching state changed still tell of the one before [s]: meters average. So
do those that began before it, however long their windows are."""


def uncontrolled_now(site: CompiledSite, state: Snapshot, boottime_s: float) -> Floats:
    """(L,) load not under control that each limit of the present state must reckon with [limit unit].

    While a switch is held for both positions, and until a meter's reading is of the present state alone, the meter
    counts as silent: what is behind it is not what it shows.
    """
    meters = _believable(state, state.meters)
    if not site.parts:
        return uncontrolled(site, meters, boottime_s)
    return np.concatenate([uncontrolled(part, meters, boottime_s) for part in site.parts])


def _believable(state: Snapshot, meters: Meters) -> Meters:
    """The meters, silent where they tell of another state."""
    if not meters.stamp_s.shape[0]:
        return meters
    gear = state.gear
    judged_s = np.minimum(meters.newest_end_s, meters.settled_end_s)  # its posts may tell of that later still
    began_s = judged_s - windows_of(meters)
    old = (judged_s < gear.changed_at_s + SETTLE_S) | (began_s < gear.changed_at_s)
    if (gear.unknown | gear.held_down).any():
        old = np.ones_like(old)
    if not old.any():
        return meters
    return replace(meters, newest_end_s=np.where(old, -np.inf, meters.newest_end_s))
