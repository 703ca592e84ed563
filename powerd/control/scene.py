"""Who can be granted what right now: what the instant and the news have made of every EVSE, before any decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerd.control.absorb import Absorbed
from powerd.control.compiled import CompiledSite
from powerd.control.events import Event, HelloReceived
from powerd.control.metered import uncontrolled_now
from powerd.control.switching import picked_up
from powerd.limits import Bools, Floats
from powerd.state import leases
from powerd.state.snapshot import Snapshot
from powerd.units import Now


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Who can be granted what right now; (n,) each."""

    anew: bool
    """A controller connected, or a car was seen to be slower than thought: ends may have moved."""
    stopped: Bools
    """A stop holds it."""
    reachable: Bools
    """Its controller spoke within one ttl."""
    deliverable: Bools
    """A grant decided now can reach it: a stream, or a unary request waits."""
    takes: Bools
    """It can be granted something."""
    drawn: Floats
    """Its newest reading, largest phase [own unit]."""
    in_force: Floats
    """The ceiling it follows."""
    worst: Floats
    """W before this tick's grants."""
    uncontrolled: Floats
    """(L,) load not under control [limit unit]."""

    def told(self, want: Floats) -> Floats:
        """(n,) the want as far as it can be told: what cannot be delivered can at most be lowered."""
        return np.where(self.deliverable, want, np.minimum(want, self.in_force))


def is_anew(before: Snapshot, state: Snapshot, events: Sequence[Event]) -> bool:
    """See ``Scene.anew``."""
    slower = (state.leases.reaction_s > before.leases.reaction_s).any()
    return bool(slower) or any(isinstance(event, HelloReceived) for event in events)


def scene_of(
    site: CompiledSite,
    state: Snapshot,
    absorbed: Absorbed,
    drawn: Floats,
    stands: leases.Standing,
    now: Now,
    *,
    anew: bool,
) -> Scene:
    """The scene after the events; ``drawn`` (n,) and ``stands`` as in ``Scene``."""
    stopped = np.zeros(site.electrical.evse_count, np.bool_)
    for stop in state.stops:
        stopped[stop.evse] = True
    book, plugged = state.leases, state.sessions.plugged
    fed = site.limits.energized & picked_up(site.electrical, state.gear, now)
    reachable = leases.reachable(book, site.terms, now.boottime_s)
    trusted = np.isnan(book.barred_ceiling) & ~book.unsettled
    return Scene(
        anew=anew,
        stopped=stopped,
        reachable=reachable,
        deliverable=reachable & trusted & (book.streamed | absorbed.fresh),
        takes=plugged & state.sessions.served & reachable & trusted & ~stopped & fed,
        drawn=drawn,
        in_force=stands.in_force,
        worst=stands.worst,
        uncontrolled=uncontrolled_now(site, state, now.boottime_s),
    )
