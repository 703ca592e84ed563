"""``powerd simulate`` and ``serve --replay`` as plain functions: arguments in, exit code out; ``cli`` names options.

stdout carries the result and nothing else; the progress bar and messages go to stderr.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from powerd.errors import PowerdError, SiteRefused, UnreadableInput
from powerd.network.curves import Edge
from powerd.network.standing import ACK_S
from powerd.sim.cars import Battery
from powerd.sim.daemon import Daemon, Launch
from powerd.sim.incidents import Clocked, incidents_of, parse_incident
from powerd.sim.plant import Truth
from powerd.sim.plot import FORMATS, draw_run
from powerd.sim.policies import Ceilings, EqualShare, Policy, Uncontrolled
from powerd.sim.run import Agenda, Loop, Record
from powerd.sim.scene import Scene, set_scene
from powerd.sim.summary import Summary, Wire, as_table, summarise, violations_text
from powerd.sim.verify import AcVerdict, verify_ac
from powerd.sim.watch import watch
from powerd.site.refusal import refusal_json

OK, BROKEN, USAGE = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``powerd simulate`` was told."""

    site: Path
    """Site file or folder."""
    sessions: Path | None
    """File of recorded sessions; None = a full house around what is lost."""
    first: date | None = None
    """First day of arrival; None = the file's first."""
    days: int | None = None
    """How many days; None = to the end of the file."""
    policy: Policy = Policy.POWERD
    """Who says the ceilings."""
    cap_kw: float | None = None
    """Scales the transformers to this [kW]."""
    battery: Battery = Battery.IDEAL
    """How batteries take power near the end."""
    seed: int = 1
    """Of everything that no recording tells: reaction lags, battery sizes, phases of posts on an unknown phase."""
    verify_ac: bool = False
    """Solves every distinct settled load once more by an unbalanced power flow."""
    plot: Path | None = None
    """Where to draw the run; .png, .svg or .pdf."""
    trips: tuple[str, ...] = ()
    """What is lost when: ``T1@08:15``; breakers then open when they trip."""
    returns: tuple[str, ...] = ()
    """What comes back when."""
    edge: Edge = Edge.EARLIEST
    """When simulated breakers trip."""
    journal: Path | None = None
    """New file for the daemon's durable record."""


def simulate(options: Options, *, as_json: bool = False, quiet: bool = False) -> int:
    """Runs a simulation and prints its summary.

    Args:
        options: what to run.
        as_json: one JSON object on stdout instead of a table.
        quiet: no progress bar.

    Returns:
        0 = no rating was broken; 1 = one was, the site has faults, or the daemon failed; 2 = unreadable input or wrong
        usage.
    """
    console = Console(stderr=True)
    try:
        summary = run(options, console=None if quiet else console)
    except PowerdError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        if isinstance(error, SiteRefused):
            console.print(f"The site has faults; `powerd check {options.site}` lists them.", markup=False)
        if as_json:
            files = (options.site,) if options.sessions is None else (options.site, options.sessions)
            print(json.dumps(refusal_json(error, *files)))  # noqa: T201 - the contract
        return USAGE if isinstance(error, UnreadableInput) else BROKEN
    if as_json:
        print(json.dumps(summary.as_json()))  # noqa: T201 - the contract
    else:
        Console().print(as_table(summary))
    return OK if summary.promise_kept else BROKEN


def run(options: Options, *, console: Console | None = None) -> Summary:
    """One simulation; with a ``console`` it shows its progress there.

    Raises:
        UnreadableInput: a file cannot be read or written.
        SiteRefused: the site has faults.
        PowerdError: the site cannot be simulated, or the daemon failed.
    """
    began = time.monotonic()
    _check(options)
    clocked = [parse_incident(text, lost=True) for text in options.trips]
    clocked += [parse_incident(text, lost=False) for text in options.returns]
    scene = set_scene(
        site=options.site,
        sessions=options.sessions,
        first=options.first,
        days=options.days,
        cap_kw=options.cap_kw,
        seed=options.seed,
        clocked=clocked,
    )
    policy = _policy(options, scene)
    record, truth = _drive(options, scene, policy, clocked, console)
    verdict = _verify(scene, record, console) if options.verify_ac else None
    summary = summarise(
        site=scene.electrical.site_id,
        policy=options.policy.value,
        cap_kw=options.cap_kw,
        battery=options.battery.value,
        seed=options.seed,
        record=record,
        truth=truth,
        wire=_wire(policy),
        verdict=verdict,
        wall_s=time.monotonic() - began,
        overload_allowed_s=ACK_S + float(scene.electrical.controllers.reaction_s.max()) + 1.0,
    )
    if options.plot is not None:
        _plot(options.plot, scene, record, truth, summary)
    return summary


def watch_replay(*, site: Path, sessions: Path, address: str, speed: float, cap_kw: float | None) -> int:
    """Serves ``site`` at ``address`` and replays ``sessions`` against it, with a live table in the terminal.

    The daemon runs with a stepped clock in a child process, so that other clients (``powerd explain``, grpcurl) can ask
    it meanwhile; its clock follows ours at ``speed`` simulated seconds a second.

    Returns:
        As ``simulate``; 0 also where a person ended it with Ctrl-C.

    Raises:
        UnreadableInput, SiteRefused, PowerdError: as ``run``.
    """
    scene = set_scene(site=site, sessions=sessions, first=None, days=None, cap_kw=cap_kw, seed=1)
    plant = scene.plant()
    loop = Loop(posts=scene.electrical.posts, sessions=scene.sessions, plant=plant, battery=Battery.TAPER, seed=1)
    with tempfile.TemporaryDirectory(prefix="powerd-replay-") as folder:
        launch = Launch(site=site, cap_kw=cap_kw, address=address, journal=Path(folder) / "journal")
        with Daemon(launch, scene.electrical, seed=1) as policy:
            watch(scene, loop, policy, speed=speed, console=Console(), address=address)
    return OK if plant.close().limit_violations == 0 else BROKEN


def _check(options: Options) -> None:
    """Raises UnreadableInput for what can be said before anything runs."""
    if options.days is not None and options.days < 1:
        raise UnreadableInput(f"--days {options.days}: simulate at least one day")
    if options.cap_kw is not None and not options.cap_kw > 0.0:
        raise UnreadableInput(f"--cap-kw {options.cap_kw:g}: transformers of more than 0 kW")
    if options.journal is not None and options.policy is not Policy.POWERD:
        raise UnreadableInput(f"--journal {options.journal}: only the daemon keeps one; run with --policy powerd")
    if options.plot is not None and options.plot.suffix.lower() not in FORMATS:
        raise UnreadableInput(f"--plot {options.plot}: end the name in {', '.join(FORMATS)}")
    if options.plot is not None and not options.plot.absolute().parent.is_dir():
        raise UnreadableInput(f"--plot {options.plot}: there is no folder {options.plot.parent}; make it first")
    if options.journal is not None and options.journal.exists():
        raise UnreadableInput(f"--journal {options.journal}: it exists; a run begins with a new file")


def _policy(options: Options, scene: Scene) -> Ceilings:
    posts = scene.electrical.posts
    match options.policy:
        case Policy.POWERD:
            return Daemon(_launch(options), scene.electrical, seed=options.seed)
        case Policy.EQUAL_SHARE:
            return EqualShare(posts, scene.limits, scene.allowed)
        case Policy.UNCONTROLLED:
            return Uncontrolled(posts)


def _launch(options: Options) -> Launch:
    return Launch(site=options.site, cap_kw=options.cap_kw, journal=options.journal)


def _drive(
    options: Options, scene: Scene, policy: Ceilings, clocked: Sequence[Clocked], console: Console | None
) -> tuple[Record, Truth]:
    start = Agenda(scene.sessions, {name: i for i, name in enumerate(scene.electrical.posts.ids)}).start
    incidents = incidents_of(clocked, scene.electrical, start, scene.timezone)
    plant = scene.plant(incidents, edge=options.edge, acts=bool(clocked))
    loop = Loop(
        posts=scene.electrical.posts,
        sessions=scene.sessions,
        plant=plant,
        battery=options.battery,
        seed=options.seed,
    )
    with policy, _progress(console, f"{options.policy.value}, simulated seconds", loop.last_s) as reached:
        record = loop.run(policy, reached)
    return record, plant.close()


def _verify(scene: Scene, record: Record, console: Console | None) -> AcVerdict:
    with _progress(console, "power flows", len(record.settled)) as done:
        return verify_ac(scene.electrical, record.settled, done)


def _wire(policy: Ceilings) -> Wire:
    if not isinstance(policy, Daemon):
        return Wire()
    return Wire(rpcs=policy.rpcs, stream_messages=policy.messages, refusals=sum(policy.refusals.values()))


def _plot(path: Path, scene: Scene, record: Record, truth: Truth, summary: Summary) -> None:
    if truth.steps == 0:
        return
    delivered = f"{summary.energy_delivered_percent:.1f} % of the energy needed"
    draw_run(
        path,
        series=truth.series,
        names=scene.wires.name,
        transformer_kva=scene.transformer_kva,
        start=record.start,
        timezone=scene.timezone,
        title=f"{summary.site}, {summary.policy}: {summary.sessions} sessions, {delivered}, {violations_text(summary)}",
        marks=[(one.at_s, one.event) for one in truth.compliance],
        movements=truth.movements,
    )


@contextmanager
def _progress(console: Console | None, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on ``console``, or nothing; yields what is to be called with how far it is."""
    if console is None:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda reached: bar.update(task, completed=min(reached, total))
