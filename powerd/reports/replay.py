"""``powerd replay JOURNAL``: what happened, stepped through again, and with ``--verify`` whether it was decided so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from powerd.control.compiled import CompiledSite
from powerd.errors import UnknownName
from powerd.journal.replay import Replayed, named_terms, replay
from powerd.network.capped import cap_transformers
from powerd.network.load import load_site
from powerd.reports.compliance import Compliance
from powerd.server.explain import reason


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """What ``powerd replay`` was told."""

    journal: Path
    """File of the durable record."""
    site: Path
    """Site file or folder that it was written for."""
    cap_kw: float | None = None
    """The transformers were scaled to this [kW]."""
    verify: bool = False
    """Compare every decision."""
    until: datetime | None = None
    """Stop before the first tick after this instant; without time zone: UTC."""
    explain: str | None = None
    """Say why this EVSE had the ceiling it had after the last tick replayed."""
    envelopes: bool = False
    """Say what became of each envelope."""


def run_replay(options: ReplayOptions, *, as_json: bool, out: TextIO) -> int:
    """What the command does: print to ``out`` and return the exit code.

    Returns:
        0 = fine, 1 = the record was altered, a decision is not the one recorded, or, where envelopes are asked for, one
        that the site file guarantees was never kept.

    Raises:
        UnreadableInput, SiteRefused: the site cannot be read or has faults.
        ReplayRefused: the journal cannot be replayed at all.
        UnknownName: no such EVSE.
    """
    loaded = load_site(options.site)
    electrical = loaded.must() if options.cap_kw is None else cap_transformers(loaded, options.cap_kw)
    if options.explain is not None and options.explain not in electrical.posts.ids:
        raise UnknownName(f"no EVSE {options.explain!r} at this site")
    site = CompiledSite.of(electrical)
    until = options.until
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    compliance = Compliance()
    found = replay(options.journal, site, verify=options.verify, until=until, see=compliance.see)
    why = None if options.explain is None else _why(site, found, options.explain)
    courses = list(compliance.courses()) if options.envelopes else []
    if as_json:
        told = _as_json(found, why) | {"envelopes": [one.as_json() for one in courses]}
        out.write(json.dumps(told) + "\n")
    else:
        out.write(_as_text(found, why, verify=options.verify))
        if options.explain is not None and why is None:
            out.write(f"{options.explain}: no tick was stepped through that could be explained\n")
        out.writelines(f"{one.sentence()}\n" for one in courses)
    return 1 if found.fault is not None or any(one.broken for one in courses) else 0


def _why(site: CompiledSite, found: Replayed, evse_id: str) -> dict[str, Any] | None:
    """The sentence and its numbers at the last tick replayed; None before the first tick."""
    decision = found.decision
    if decision is None:
        return None
    evse = site.electrical.posts.ids.index(evse_id)
    return {
        "evse_id": evse_id,
        "time": decision.now.utc.isoformat(),
        "tick": decision.tick,
        "ceiling": float(decision.ceiling[evse]),
        "want": float(decision.want[evse]),
        "worst": float(decision.worst[evse]),
        "drawn": float(decision.snapshot.drawn[evse].max()),
        "session_id": decision.snapshot.sessions.session_id[evse],
        "reason": reason(site, decision, evse),
    }


def _as_json(found: Replayed, why: dict[str, Any] | None) -> dict[str, Any]:
    """The one object on stdout."""
    return {
        "fault": found.fault,
        "ticks": found.ticks,
        "starts": found.starts,
        "checkpoints": found.checkpoints,
        "gaps": found.gaps,
        "bit_equal": found.exact,
        "older_records": found.older,
        "redrawn_records": found.redrawn,
        "other_terms_records": found.other_terms,
        "other_terms": list(found.terms),
        "first": None if found.first is None else found.first.isoformat(),
        "last": None if found.last is None else found.last.isoformat(),
        "explained": why,
    }


def _verified(found: Replayed) -> str:
    """What was proved, and what was not."""
    exact = f"is the one recorded, {found.exact} of them bit by bit"
    left = found.older + found.redrawn + found.other_terms
    if not left:
        return f"every decision {exact}"
    return (
        f"every decision of these ticks {exact}; of the {left} records beside them the chain alone is proved: not what "
        "was decided in them, nor the state that they left"
    )


def _as_text(found: Replayed, why: dict[str, Any] | None, *, verify: bool) -> str:
    """The same for people."""
    lines = [f"{found.ticks} ticks from {found.first} to {found.last}, {found.starts} starts, {found.gaps} gaps"]
    if found.older:
        lines.append(f"{found.older} records before these are of an older powerd: replay them with that one")
    if found.redrawn:
        told = "are of another drawing: replay them with the site file of that time"
        lines.append(f"{found.redrawn} records, their chain checked, {told}")
    if found.other_terms:
        told = f"are of other terms of users ({'; '.join(map(named_terms, found.terms))})"
        lines.append(f"{found.other_terms} records, their chain checked, {told}: replay them with those of that time")
    if verify and found.fault is None:
        lines.append(_verified(found))
    if found.fault is not None:
        lines.append(f"BROKEN: {found.fault}")
    if why is not None:
        lines.append(f"{why['time']} {why['evse_id']}: {why['reason']}")
    return "\n".join(lines) + "\n"
