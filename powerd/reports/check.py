"""``powerd check SITE``: every fault of a site file, and what a faultless site holds ready."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from powerd.allocation.user_terms import Source, UserTerms, installed_sources, refuse_max_min, source_in
from powerd.errors import NotDpp, UnreadableInput
from powerd.limits import Limits
from powerd.network.admission import Reserved, reserved
from powerd.network.drawing import Findings
from powerd.network.electrical import Electrical
from powerd.network.load import LoadedSite, load_site
from powerd.network.planned import Planned, find_planned_faults, planned
from powerd.network.rows import build_limits
from powerd.network.standing import Patience, Standing, patience, standings
from powerd.network.supply import normal_positions
from powerd.reports.overloads import moves_text, patience_text
from powerd.reports.planned import limit_json, planned_json, planned_text
from powerd.site.codes import Code
from powerd.site.read import read_site
from powerd.site.refusal import refusal_json
from powerd.site.schema import SiteFile

#: How many of the fullest limits the summary shows.
SHOWN = 8

#: What ``report_json`` has beside the faults, for a file that cannot be read.
_NOTHING: dict[str, Any] = {
    "evses": None,
    "limits": 0,
    "rows": 0,
    "reserved": [],
    "after_moves": [],
    "patience": [],
    "planned": [],
}


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The outcome of a check."""

    loaded: LoadedSite
    """The site with its faults."""
    limit_count: int
    """Limits in the normal switching state; 0 where the site has errors."""
    row_count: int
    """Rows that impose them."""
    reserved: tuple[Reserved, ...]
    """What every limit of every reachable state has to hold ready; empty where the site has errors."""
    standings: tuple[Standing, ...]
    """R9: every limit of every state that comes about by itself, with what it stands; empty where there are errors."""
    patience: tuple[Patience, ...]
    """R6: every controller with the tightest element above its EVSEs; empty where the site has errors."""
    planned: tuple[Planned, ...]
    """R5 in the state that powerd makes after each single loss; empty where it moves no switch or there are errors."""

    @property
    def exit_code(self) -> int:
        """0 = it can be run, 1 = errors."""
        return 1 if self.loaded.errors else 0


def check_site(path: Path) -> CheckReport:
    """Load ``path`` and reckon what it has to hold ready.

    Raises:
        UnreadableInput: the file cannot be read at all.
    """
    loaded = load_site(path)
    if loaded.electrical is None or loaded.site is None:
        return CheckReport(
            loaded=loaded, limit_count=0, row_count=0, reserved=(), standings=(), patience=(), planned=()
        )
    limits = build_limits(loaded.electrical, normal_positions(loaded.electrical))
    plans = tuple(planned(loaded.electrical))
    read = read_site(path)
    findings = Findings(name=read.name, place=read.place, faults=list(loaded.faults))
    find_planned_faults(plans, loaded.site, loaded.electrical, findings)
    _find_term_faults(loaded.electrical, limits, loaded.site, findings)
    return CheckReport(
        loaded=replace(loaded, faults=tuple(sorted(set(findings.faults)))),
        limit_count=len(limits.name),
        row_count=limits.row_count,
        reserved=tuple(reserved(loaded.electrical)),
        standings=tuple(standings(loaded.electrical)),
        patience=tuple(patience(loaded.electrical)),
        planned=plans,
    )


def _find_term_faults(electrical: Electrical, limits: Limits, site: SiteFile, findings: Findings) -> None:
    """Everybody's terms, compiled and solved once as the daemon does it when it starts."""
    for index, name in enumerate(electrical.term_files):
        try:
            _try_terms(electrical, limits, (source_in(Path(name)),))
        except (NotDpp, UnreadableInput) as error:
            mend = "mend the file (docs/allocation.md), or take it out of terms:"
            findings.add(Code.USER_TERMS, ("terms", index), site.site, str(error), mend)
    try:
        _try_terms(electrical, limits, installed_sources())
    except (NotDpp, UnreadableInput) as error:
        mend = "mend or uninstall the package that has it"
        findings.add(Code.USER_TERMS, ("site",), site.site, str(error), mend)


def _try_terms(electrical: Electrical, limits: Limits, sources: tuple[Source, ...]) -> None:
    """What the daemon does with them at its start.

    Raises:
        NotDpp: a term is not convex, or there is no answer to the terms.
        UnreadableInput: a function fails, or the site shares by max-min.
    """
    if electrical.max_min:
        refuse_max_min(sources)
    UserTerms(electrical.posts, sources).compile(limits)


def run_check(path: Path, *, as_json: bool, out: TextIO, err: TextIO) -> int:
    """What the command does: print to ``out`` and return the exit code.

    Returns:
        0 = fine, 1 = errors found, 2 = the file cannot be read (told on ``err``, and as the only fault of the JSON).
    """
    try:
        report = check_site(path)
    except UnreadableInput as error:
        err.write(f"{error}\n")
        if as_json:
            out.write(json.dumps(_NOTHING | refusal_json(error, path)) + "\n")
        return 2
    out.write(json.dumps(report_json(report)) + "\n" if as_json else report_text(report))
    return report.exit_code


def report_json(report: CheckReport) -> dict[str, Any]:
    """The report as one JSON object."""
    loaded = report.loaded
    return {
        "site": loaded.site.site if loaded.site is not None else None,
        "file": str(loaded.path),
        "evses": loaded.electrical.evse_count if loaded.electrical is not None else None,
        "limits": report.limit_count,
        "rows": report.row_count,
        "faults": [fault.as_json() for fault in loaded.faults],
        "reserved": [{"state": one.state, **limit_json(one), "boot_share": one.boot_share} for one in report.reserved],
        "after_moves": [_standing_json(one) for one in report.standings],
        "patience": [
            {
                "controller": one.controller,
                "answering_s": one.answering_s,
                "silent_s": _finite(one.silent_s),
                "element": one.element or None,
                "stands_percent": _finite(one.stands_percent),
            }
            for one in report.patience
        ],
        "planned": [planned_json(one) for one in report.planned],
    }


def _standing_json(one: Standing) -> dict[str, Any]:
    """One row of R9's table; null = for ever (tolerated_s), never (bound_s), no bound (admitted)."""
    return {
        "state": one.state,
        "name": one.name,
        "element": one.element,
        "unit": one.unit,
        "capacity": one.capacity,
        "worst": one.worst,
        "tolerated_s": _finite(one.tolerated_s),
        "bound_s": _finite(one.bound_s),
        "answering_s": one.answering_s,
        "admitted": _finite(one.admitted),
        "fits": one.fits,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def report_text(report: CheckReport) -> str:
    """The report for people: faults as compilers print them, then a summary."""
    lines = []
    for fault in report.loaded.faults:
        where = f"{fault.file}:{fault.line}: {fault.severity}: {fault.element}"
        lines += [f"{where}: {fault.message} [{fault.code}]", f"    mend: {fault.mend}"]
    lines += _summary(report)
    return "\n".join(lines) + "\n"


def _summary(report: CheckReport) -> list[str]:
    errors = len(report.loaded.errors)
    warnings = len(report.loaded.faults) - errors
    count = f"{errors} {_plural(errors, 'error')}, {warnings} {_plural(warnings, 'warning')}"
    electrical, site = report.loaded.electrical, report.loaded.site
    if electrical is None or site is None or errors:
        return [f"{report.loaded.path}: {count}"]
    sizes = [
        f"{electrical.evse_count} {_plural(electrical.evse_count, 'EVSE')}",
        f"{len(electrical.supplies.ids)} {_plural(len(electrical.supplies.ids), 'supply', 'supplies')}",
        f"{len(electrical.buses.ids)} {_plural(len(electrical.buses.ids), 'bus', 'buses')}",
        f"{report.limit_count} limits in {report.row_count} rows",
    ]
    return [
        f"{report.loaded.path}: in order ({count})",
        f"{site.title or site.site}: {', '.join(sizes)}",
        *_held(report.reserved),
        *moves_text(report.standings),
        *patience_text(report.patience),
        *planned_text(report.planned),
    ]


def _plural(count: int, noun: str, many: str = "") -> str:
    return noun if count == 1 else many or noun + "s"


def _held(found: tuple[Reserved, ...]) -> list[str]:
    """The fullest limits: what is taken before powerd grants anything."""
    fullest: dict[str, Reserved] = {}
    for one in sorted(found, key=_percent):
        fullest[one.element] = one
    taken = [one for one in reversed(fullest.values()) if one.reserve + one.uncontrolled > 0]
    if not taken:
        return ["Nothing is held ready: no EVSE draws without a grant, and there are no other loads."]
    taken.sort(key=_percent, reverse=True)
    lines = ["Held ready before anything is granted, fullest limits first:"]
    for one in taken[:SHOWN]:
        boot = f", {one.boot_share:.4g} of it for posts that restart above their fallback" if one.boot_share else ""
        state = f" [{one.state}]" if one.state else ""
        lines.append(
            f"  {_percent(one):5.1f} % of {one.capacity:.4g} {one.unit}  {one.name}{state}: "
            f"other loads {one.uncontrolled:.4g} {one.unit}, EVSEs without a grant {one.reserve:.4g} {one.unit}{boot}"
        )
    return lines


def _percent(one: Reserved) -> float:
    return 100 * (one.reserve + one.uncontrolled) / one.capacity if one.capacity > 0 else float("inf")
