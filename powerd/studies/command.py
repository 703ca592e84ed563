"""``powerd study …`` as plain functions: arguments in, exit code out. stdout carries the result and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from powerd.errors import PowerdError, SiteRefused, UnreadableInput
from powerd.network.load import LoadedSite, load_site
from powerd.site.refusal import refusal_json
from powerd.studies.outages import Outcome, Study, outages
from powerd.studies.runs import Results, played
from powerd.studies.sequences import Played, drawn, play_sequence, shrunk

OK, BROKEN, USAGE = 0, 1, 2
WIDTH = 180
"""Of the table where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is played, and how."""

    double: bool = False
    """Every pair of outages, too."""
    sample: int = 0
    """Of the pairs only so many; 0 = all."""
    people: bool = False
    """In sequences people do something, too."""
    seed: int = 1
    """Of the cars and of the sample."""
    results: Path | None = None
    """File that remembers; what it has is not played again."""
    jobs: int = 1
    """Processes."""


def study_outages(site: Path, extent: Extent, *, as_json: bool) -> int:
    """Plays outages of ``site`` and prints what became of it.

    Returns:
        0 = every promise was kept in each, 1 = not, or the site has faults or cannot be played, 2 = unreadable input.
    """

    def play(loaded: LoadedSite, console: Console) -> int:
        name = loaded.must().site_id
        found = outcomes(loaded, extent, console)
        if as_json:
            print(json.dumps(report_json(name, found)))  # noqa: T201 - the contract
        else:
            out = Console() if console.is_terminal else Console(width=WIDTH)
            out.print(as_table(found))
            out.print(total(found), soft_wrap=True)
        return OK if all(one.kept for one in found) else BROKEN

    return guarded(site, play, as_json=as_json)


def guarded(site: Path, play: Callable[[LoadedSite, Console], int], *, as_json: bool) -> int:
    """``play`` on a site that is in order; what is not goes to stderr, with its exit code; with ``as_json`` to both."""
    console = Console(stderr=True)
    try:
        loaded = load_site(site)
        loaded.must()
        return play(loaded, console)
    except PowerdError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        if isinstance(error, SiteRefused):
            console.print(f"The site has faults; `powerd check {site}` lists them.", markup=False)
        if as_json:
            print(json.dumps(refusal_json(error, site)))  # noqa: T201 - the contract
        return USAGE if isinstance(error, UnreadableInput) else BROKEN


def outcomes(loaded: LoadedSite, extent: Extent, console: Console) -> list[Outcome]:
    """Every outage that the extent asks for, those of an earlier run included.

    Raises:
        UnreadableInput: the file of results is not one of these.
        PowerdError: the site cannot be played.
    """
    house = Study(loaded, seed=extent.seed)
    results = Results(extent.results, {"outages of": house.electrical.site_id, "seed": extent.seed})
    known = {one.key: one for one in (Outcome(**row) for row in results.rows)}
    asked = outages(house.elements, double=extent.double, sample=extent.sample, seed=extent.seed)
    todo = [(outage, cause) for outage, cause in asked if (*(e.name for e in outage), cause) not in known]
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("outages", total=len(asked), completed=len(asked) - len(todo))
        for one in played(todo, lambda play: house.play(*play), jobs=extent.jobs):
            results.add(asdict(one))
            known[one.key] = one
            bar.advance(task)
    return [known[(*(e.name for e in outage), cause)] for outage, cause in asked]


def total(found: Sequence[Outcome]) -> str:
    """All of it in one line."""
    worst = max((one.overload_s for one in found), default=0.0)
    return (
        f"{sum(one.kept for one in found)} of {len(found)} outages kept every promise; longest overload {worst:.0f} s; "
        f"most of a tolerance used {100 * max((one.worn for one in found), default=0.0):.0f} %; breakers tripped: "
        f"{sum(len(one.trips) for one in found)}; forbidden movements: {sum(len(one.broken) for one in found)}"
    )


def study_sequences(site: Path, seeds: str, extent: Extent, *, as_json: bool) -> int:
    """Plays the sequences of the seeds FIRST:LAST and prints those that broke something, the first one shrunk.

    Returns:
        0 = every promise was kept in each, 1 = not, or the site has faults or cannot be played, 2 = unreadable input.
    """

    def play(loaded: LoadedSite, console: Console) -> int:
        first, colon, last = seeds.partition(":")
        if not (first.isdigit() and colon and last.isdigit() and int(first) < int(last)):
            raise UnreadableInput(f"--seeds {seeds}: write FIRST:LAST, the smaller first, e.g. 0:100")
        house = Study(loaded, seed=extent.seed)
        found = sequences(house, range(int(first), int(last)), extent, console)
        broken = [one for one in found if one.broken]
        report = {
            "site": house.electrical.site_id,
            "sequences": len(found),
            "broken": len(broken),
            "longest_overload_s": max((one.overload_s for one in found), default=0.0),
            "rows": [asdict(one) for one in broken],
        }
        if as_json:
            print(json.dumps(report))  # noqa: T201 - the contract
            return BROKEN if broken else OK
        for one in broken:
            console.print(f"seed {one.seed}: {'; '.join(one.broken)}", markup=False, soft_wrap=True)
        if broken:
            shortest = shrunk(house, drawn(house, broken[0].seed, people=extent.people))
            console.print(f"seed {broken[0].seed}, shrunk: " + "; ".join(shortest.story), markup=False, soft_wrap=True)
        print(f"{len(found) - len(broken)} of {len(found)} sequences kept every promise")  # noqa: T201
        return BROKEN if broken else OK

    return guarded(site, play, as_json=as_json)


def sequences(house: Study, seeds: range, extent: Extent, console: Console) -> list[Played]:
    """Those of the seeds, those of an earlier run included.

    Raises:
        UnreadableInput: the file of results is not one of these.
    """
    of = {"sequences of": house.electrical.site_id, "seed": extent.seed}
    results = Results(extent.results, of | {"people": True} if extent.people else of)
    known = {one.seed: one for one in (Played(**row) for row in results.rows)}
    todo = [seed for seed in seeds if seed not in known]
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sequences", total=len(seeds), completed=len(seeds) - len(todo))
        for one in played(todo, lambda seed: play_sequence(house, seed, people=extent.people), jobs=extent.jobs):
            results.add(asdict(one))
            known[one.seed] = one
            bar.advance(task)
    return [known[seed] for seed in seeds]


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
    if one.owed < 0:
        parts.append("who could have a supply was not found out")
    if one.live < one.owed:
        parts.append(f"{one.owed - one.live} EVSEs could have a supply and have none")
    return "; ".join(parts)
