"""``powerd study …`` as plain functions: arguments in, exit code out. stdout carries the result and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from powerd.errors import PowerdError, SiteRefused, UnreadableInput
from powerd.network.load import load_site
from powerd.studies.outages import Outcome, study

OK, BROKEN, USAGE = 0, 1, 2


def study_outages(site: Path, *, double: bool, seed: int, as_json: bool) -> int:
    """Plays every outage of ``site`` and prints what became of it.

    Args:
        site: site file or folder.
        double: every pair of outages, too.
        seed: of the cars.
        as_json: one JSON object on stdout instead of a table.

    Returns:
        0 = every promise was kept in each, 1 = not, or the site has faults or cannot be played, 2 = unreadable input.
    """
    console = Console(stderr=True)
    try:
        loaded = load_site(site)
        loaded.must()
        with Progress(console=console, disable=as_json, transient=True) as bar:
            task = bar.add_task("outages")
            found = study(
                loaded,
                double=double,
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except SiteRefused as refused:
        console.print(f"{refused}\nThe site has faults; `powerd check {site}` lists them.", markup=False)
        return BROKEN
    except UnreadableInput as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return USAGE
    except PowerdError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return BROKEN
    if as_json:
        name = loaded.site.site if loaded.site is not None else str(site)
        print(json.dumps(report_json(name, found)))  # noqa: T201 - the contract
    else:
        Console().print(as_table(found))
    return OK if all(one.kept for one in found) else BROKEN


def report_json(site: str, found: Sequence[Outcome]) -> dict[str, Any]:
    """The study as plain values."""
    return {
        "site": site,
        "outages": len(found),
        "kept": sum(one.kept for one in found),
        "breaker_trips": sum(len(one.trips) for one in found),
        "forbidden_movements": sum(len(one.broken) for one in found),
        "longest_overload_s": max((one.overload_s for one in found), default=0.0),
        "most_worn": max((one.worn for one in found), default=0.0),
        "rows": [asdict(one) | {"kept": one.kept} for one in found],
    }


def as_table(found: Sequence[Outcome]) -> Table:
    """One line an outage."""
    table = Table(box=None, pad_edge=False, title_justify="left")
    for heading in ("lost", "cause"):
        table.add_column(heading)
    for heading in ("EVSEs dark", "back", "after", "power", "overload", "allowed", "of tolerance"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for one in found:
        table.add_row(
            " and ".join(one.outage),
            one.cause,
            f"{one.lost}",
            f"{one.restored}",
            f"{one.seconds:.0f} s" if one.restored else "",
            f"{one.before_kw:.0f} to {one.remaining_kw:.0f} kW",
            f"{one.overload_s:.0f} s at {100 * one.share:.0f} %" if one.overload_s else "none",
            f"{one.bound_s:.0f} s",
            f"{100 * one.worn:.0f} %",
            remark(one),
        )
    return table


def remark(one: Outcome) -> str:
    """What was not kept; "" where all was."""
    parts = [f"{name} tripped" for name in one.trips] + list(one.broken)
    if one.overload_s > one.bound_s:
        parts.append(f"{one.overloaded} over for too long")
    if one.worn >= 1.0 and not one.trips:
        parts.append("an element has stood more than it can")
    if 0 <= one.live < one.possible:
        parts.append(f"{one.possible - one.live} EVSEs could have a supply and have none")
    return "; ".join(parts)
