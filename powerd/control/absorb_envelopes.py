"""What grid operators say, into the snapshot; and what it makes of the limits of a tick."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.control import events as ev
from powerd.control.compiled import CompiledSite
from powerd.limits import Floats
from powerd.network.electrical import least_import_kw
from powerd.state import envelopes
from powerd.state.snapshot import Snapshot
from powerd.units import Now


def envelope_set(
    site: CompiledSite, snapshot: Snapshot, event: ev.EnvelopeSet, now: Now
) -> tuple[Snapshot, ev.Outcome]:
    """A new envelope, or one said again."""
    if not np.isfinite(site.electrical.site_import_limit_kw):
        wanted = "a site whose file has grid_connection.import_limit_kw: an envelope lowers that limit"
        return snapshot, ev.Refused("import_limit_kw", wanted)
    others = [one for one in snapshot.envelopes if one.envelope_id == event.envelope_id and one.source != event.source]
    if others:
        return snapshot, ev.Refused("envelope_id", f"an id of your own: this one is the envelope of {others[0].source}")
    utc_s = now.utc.timestamp()
    start_utc_s = utc_s if event.start_time is None else event.start_time.timestamp()
    end_utc_s = np.inf if event.end_time is None else event.end_time.timestamp()
    if end_utc_s <= max(utc_s, start_utc_s):
        return snapshot, ev.Refused("end_time", "after start_time and after now")
    said = envelopes.Envelope(
        envelope_id=event.envelope_id,
        source=event.source,
        reason=event.reason,
        import_limit_kw=event.import_limit_kw,
        start_utc_s=start_utc_s,
        end_utc_s=end_utc_s,
        heartbeat_s=event.heartbeat_s,
        heard_s=now.boottime_s,
        starts_s=now.boottime_s + start_utc_s - utc_s,
        ends_s=now.boottime_s + end_utc_s - utc_s,
    )
    if event.start_time is None:
        said = envelopes.going_on(snapshot.envelopes, said)
    after = envelopes.put(snapshot.envelopes, said)
    if after is None:
        return snapshot, ev.Refused("envelope_id", f"at most {envelopes.ENVELOPES_MAX} envelopes; withdraw some")
    return replace(snapshot, envelopes=after), ev.Done(event.envelope_id, start_utc_s=said.start_utc_s)


def envelope_withdrawn(snapshot: Snapshot, event: ev.EnvelopeWithdrawn) -> tuple[Snapshot, ev.Outcome]:
    """The operator's word that it no longer counts."""
    after = envelopes.without(snapshot.envelopes, event.envelope_id)
    if after is None:
        return snapshot, ev.NotFound(f"envelope {event.envelope_id!r}")
    return replace(snapshot, envelopes=after), ev.Done(event.envelope_id)


def watch_envelopes(site: CompiledSite, snapshot: Snapshot, worst: Floats, uncontrolled: Floats, now: Now) -> Snapshot:
    """Notes which envelopes are kept, by the most that could be drawn after this tick.

    Args:
        site: in the tick's switching state.
        snapshot: after the tick.
        worst: (n,) W [own unit].
        uncontrolled: (L,) load not under control under each limit [limit unit].
        now: the tick's instant.
    """
    if not snapshot.envelopes:
        return snapshot
    imported_kw = site.imported_kw(site.limits.limit_flow(worst) + uncontrolled)
    failsafe_kw = site.electrical.failsafe_limit_kw
    return replace(snapshot, envelopes=envelopes.watch(snapshot.envelopes, failsafe_kw, imported_kw, now))


def envelope_alarms(site: CompiledSite, snapshot: Snapshot, now: Now) -> tuple[str, ...]:
    """Operators that are silent, and envelopes below what the site promised to keep."""
    if not snapshot.envelopes:
        return ()
    failsafe_kw, least_kw = site.electrical.failsafe_limit_kw, least_import_kw(site.electrical)
    found = []
    for one in snapshot.envelopes:
        if not envelopes.holds(one, now):
            continue
        allowed_kw = envelopes.limit_kw(one, failsafe_kw, now)
        name = f"envelope {one.envelope_id} of {one.source}"
        if envelopes.is_silent(one, now):
            found.append(
                f"{name}: not heard within {one.heartbeat_s:g} s, {allowed_kw:g} kW holds until it speaks again"
            )
        if allowed_kw < least_kw:
            found.append(f"below_fallback: {name}: {allowed_kw:g} kW is less than the site guarantees to keep")
    return tuple(found)
