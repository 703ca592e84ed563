"""The power manager for EV charging sites. Exit 0 = fine, 1 = faults or a promise not met, 2 = wrong usage."""

from __future__ import annotations

import os

# One thread each for the linear algebra: unpinned, small problems ran 13 to 58 times slower. Must precede numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import asyncio
import gc
import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from powerd.errors import PowerdError, SiteRefused

if TYPE_CHECKING:  # the client is imported only by commands that ask
    from powerd.client.ask import Daemon

app = typer.Typer(
    name="powerd", help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)

study_app = typer.Typer(no_args_is_help=True)
app.add_typer(study_app, name="study")
envelope_app = typer.Typer(no_args_is_help=True)
app.add_typer(envelope_app, name="envelope")

INSTANT = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
"""How an instant is written, with or without an offset."""

SitePath = Annotated[Path, typer.Argument(metavar="SITE", help="Folder with a site.yaml, or the file itself.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Cap = Annotated[float | None, typer.Option(help="Scale the transformers to this many kW in all.")]
DEFAULT_ADDRESS = "127.0.0.1:7433"

# The values of enums of the simulator, which is imported only when it runs; a test holds them against those.
PolicyName = Literal["powerd", "equal-share", "uncontrolled"]
BatteryName = Literal["ideal", "taper"]
EdgeName = Literal["earliest", "nominal"]


def _fail(message: str, code: int) -> typer.Exit:
    """Says what is wrong on stderr and gives the exit to raise."""
    typer.echo(message, err=True)
    return typer.Exit(code)


class _Timed(logging.Formatter):
    """Every line begins with its instant, ISO 8601 with its offset."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """As the local clock shows it."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _log_to_stderr(*, reasons: bool) -> None:
    """What the daemon has to say goes to stderr; ``reasons``, each a JSON object with its own time, only if asked."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_Timed("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[lines], level=logging.WARNING)
    logging.getLogger("powerd").setLevel(logging.INFO)
    told = logging.getLogger("powerd.reasons")
    told.propagate = False
    told.setLevel(logging.INFO if reasons else logging.WARNING)
    if reasons:
        told.addHandler(logging.StreamHandler(sys.stderr))


def _asks(command: Callable[..., None]) -> Callable[..., None]:
    """A command that asks the ``Daemon`` it gets first: the options that say which follow the command's own.

    What the daemon refuses, or that nobody answers, is said on stderr with exit 2.
    """

    def asked(
        address: Annotated[str, typer.Option(help="Address of the daemon.")] = DEFAULT_ADDRESS,
        tls_ca: Annotated[
            Path | None,
            typer.Option(envvar="POWERD_TLS_CA", help="PEM certificate of the authority that issued the daemon's."),
        ] = None,
        tls_cert: Annotated[
            Path | None,
            typer.Option(envvar="POWERD_TLS_CERT", help="Your PEM certificate chain, where the daemon wants one."),
        ] = None,
        tls_key: Annotated[Path | None, typer.Option(envvar="POWERD_TLS_KEY", help="Its PEM private key.")] = None,
        **told: Any,
    ) -> None:
        from powerd.client.ask import Daemon

        try:
            command(Daemon(address=address, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key), **told)
        except PowerdError as error:
            raise _fail(str(error), 2) from None

    _, *own = signature(command, eval_str=True, locals={"Daemon": None}).parameters.values()
    *theirs, _ = signature(asked, eval_str=True).parameters.values()
    asked.__name__, asked.__doc__ = command.__name__, command.__doc__
    asked.__annotations__ = {one.name: one.annotation for one in (*own, *theirs)}
    asked.__dict__["__signature__"] = Signature([*own, *theirs])  # where typer looks
    return asked


@app.command()
def serve(
    site: SitePath,
    address: Annotated[str, typer.Option(help="Where to listen, host:port; port 0 = any free one.")] = DEFAULT_ADDRESS,
    tick: Annotated[float, typer.Option(min=0.05, max=60, help="Period of the control tick, seconds.")] = 1.0,
    first_start: Annotated[
        bool,
        typer.Option(
            "--first-start",
            help="Your word that nothing was granted here within the longest lease: raises need not wait for its end.",
        ),
    ] = False,
    journal_mb: Annotated[
        int, typer.Option(min=1, help="About how large the file may grow before the old end of its record is cut off.")
    ] = 512,
    journal: Annotated[
        Path | None,
        typer.Option(help="File of the durable record: sessions, leases and stops survive a restart; made if missing."),
    ] = None,
    cap_kw: Cap = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate chain of this daemon.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its PEM private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM certificate of the authority whose clients may command; no others may.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen off loopback for anybody: whoever is on that network may command."),
    ] = False,
    stepped_clock: Annotated[
        bool,
        typer.Option("--stepped-clock", help="For simulations: time stands still until SteppedClockService moves it."),
    ] = False,
    log_reasons: Annotated[
        bool, typer.Option("--log-reasons", help="Tell on stderr, one JSON line each, why ceilings changed.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Drive simulated cars from this file of recorded sessions against it.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.1, help="With --replay: simulated seconds per second.")] = 300.0,
) -> None:
    """Run the power manager of a site; it prints one JSON line with its address when it listens."""
    try:
        if replay is not None:
            from powerd.sim.command import watch_replay

            raise typer.Exit(watch_replay(site=site, sessions=replay, address=address, speed=speed, cap_kw=cap_kw))
        gc.disable()  # of all that a start makes nothing is garbage; ``serve_site`` lets it collect again
        from powerd.daemon import ServeOptions, serve_site
        from powerd.server.loop import ServingLoop

        _log_to_stderr(reasons=log_reasons)
        options = ServeOptions(
            site=site,
            address=address,
            tick_s=tick,
            first_start=first_start,
            cap_kw=cap_kw,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            insecure=insecure,
            stepped_clock=stepped_clock,
            journal=journal,
            journal_bytes=journal_mb * 1024 * 1024,
        )
        with asyncio.Runner(loop_factory=ServingLoop) as runner:
            runner.run(serve_site(options))
    except SiteRefused as refused:
        raise _fail(f"{refused}\nThe site has faults; `powerd check {site}` lists them.", 1) from None
    except PowerdError as error:
        raise _fail(str(error), 2) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def check(site: SitePath, as_json: Json = False) -> None:
    """Validate a site before it is built: every fault with its place and its mend."""
    from powerd.reports.check import run_check

    try:
        code = run_check(site, as_json=as_json, out=sys.stdout, err=sys.stderr)
    except PowerdError as error:
        raise _fail(str(error), 2) from None
    raise typer.Exit(code)


@app.command()
def simulate(
    site: SitePath,
    sessions: Annotated[
        Path | None,
        typer.Option(help="CSV (or .csv.gz) of recorded sessions; with --trip default a car at every post."),
    ] = None,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day of arrival; default the file's.")
    ] = None,
    days: Annotated[int | None, typer.Option(help="How many days; default to the end of the file.")] = None,
    policy: Annotated[PolicyName, typer.Option(help="Who says the ceilings.")] = "powerd",
    cap_kw: Cap = None,
    battery: Annotated[BatteryName, typer.Option(help="How batteries take power near the end.")] = "ideal",
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that no recording tells: lags, battery sizes, unknown phases.")
    ] = 1,
    verify_ac: Annotated[
        bool, typer.Option("--verify-ac", help="Solve every settled load once more by an unbalanced power flow.")
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Let the daemon keep its durable record in this new file, for `powerd replay`.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw load against limits here; .png, .svg or .pdf.")] = None,
    trip: Annotated[
        list[str] | None,
        typer.Option(help="Lose an element: T1@08:15, or T1@08:15:protection for a fault. Breakers then really open."),
    ] = None,
    returns: Annotated[list[str] | None, typer.Option("--return", help="It comes back: T1@10:00.")] = None,
    breakers: Annotated[EdgeName, typer.Option(help="When simulated breakers trip.")] = "earliest",
    as_json: Json = False,
) -> None:
    """Drive the real daemon with recorded sessions over real gRPC, in lock-step, and account for every limit."""
    from powerd.network.curves import Edge
    from powerd.sim.cars import Battery
    from powerd.sim.command import Options
    from powerd.sim.command import simulate as run_simulation
    from powerd.sim.policies import Policy

    options = Options(
        site=site,
        sessions=sessions,
        first=None if first is None else first.date(),
        days=days,
        policy=Policy(policy),
        cap_kw=cap_kw,
        battery=Battery(battery),
        seed=seed,
        verify_ac=verify_ac,
        plot=plot,
        journal=journal,
        trips=tuple(trip or ()),
        returns=tuple(returns or ()),
        edge=Edge(breakers),
    )
    raise typer.Exit(run_simulation(options, as_json=as_json, quiet=as_json))


@study_app.callback()
def study() -> None:
    """Play situations through, one after the other."""


Results = Annotated[Path | None, typer.Option(help="File that remembers: what it has is not played again.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes.")]


@study_app.command()
def outages(
    site: SitePath,
    double: Annotated[bool, typer.Option("--double", help="Every pair of outages, too.")] = False,
    sample: Annotated[int, typer.Option(min=0, help="Of the pairs only so many, drawn by the seed.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the cars.")] = 1,
    results: Results = None,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Lose every supply, transformer, tie and switch of a full house: who goes dark, who comes back, what is over."""
    from powerd.studies.command import Extent, study_outages

    extent = Extent(double=double or sample > 0, sample=sample, seed=seed, results=results, jobs=jobs)
    raise typer.Exit(study_outages(site, extent, as_json=as_json))


@study_app.command()
def sequences(
    site: SitePath,
    seeds: Annotated[str, typer.Option(help="FIRST:LAST, LAST not included.")] = "0:100",
    people: Annotated[
        bool, typer.Option("--people", help="With tags, earths, operators' orders and restarts of powerd in between.")
    ] = False,
    results: Results = None,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Play random sequences of losses, returns, refusals, wrong and late reports: is every promise kept in each?"""
    from powerd.studies.command import Extent, study_sequences

    extent = Extent(people=people, results=results, jobs=jobs)
    raise typer.Exit(study_sequences(site, seeds, extent, as_json=as_json))


@app.command()
def replay(
    journal: Annotated[Path, typer.Argument(help="File of the durable record: `serve --journal`.")],
    site: Annotated[Path, typer.Option(metavar="SITE", help="The site that it was written for.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every decision with the one recorded.")] = False,
    until: Annotated[
        datetime | None,
        typer.Option(formats=INSTANT, help="Stop after this instant; UTC."),
    ] = None,
    explain: Annotated[
        str | None, typer.Option(metavar="EVSE", help="Say why this EVSE had its ceiling after the last tick.")
    ] = None,
    envelopes: Annotated[
        bool, typer.Option("--envelopes", help="Say when each envelope held, since when it was kept, and how well.")
    ] = False,
    cap_kw: Cap = None,
    as_json: Json = False,
) -> None:
    """Step once more through all that a daemon took in, and see whether it decides the same.

    1 = it does not, or, with --envelopes, one that the site file guarantees was never kept.
    """
    from powerd.reports.replay import ReplayOptions, run_replay

    options = ReplayOptions(
        journal=journal, site=site, cap_kw=cap_kw, verify=verify, until=until, explain=explain, envelopes=envelopes
    )
    try:
        code = run_replay(options, as_json=as_json, out=sys.stdout)
    except PowerdError as error:
        if as_json:
            from powerd.site.refusal import refusal_json

            typer.echo(json.dumps(refusal_json(error, journal, site)))
        raise _fail(str(error), 2) from None
    raise typer.Exit(code)


@app.command()
@_asks
def explain(
    daemon: Daemon,
    evse: Annotated[str, typer.Argument(help="EVSE id as in the site file.")],
    as_json: Json = False,
) -> None:
    """Ask a running daemon why an EVSE's ceiling is what it is."""
    from powerd.client.ask import explain_ceiling

    answer = explain_ceiling(daemon, evse)
    typer.echo(json.dumps(answer.as_json()) if as_json else f"{evse}: {answer.reason}")


@app.command()
@_asks
def status(daemon: Daemon, as_json: Json = False) -> None:
    """Ask a running daemon how the site stands: cars, limits nearly used up, alarms, stops. 1 = an alarm stands."""
    from powerd.client.ask import status_of

    found = status_of(daemon)
    typer.echo(json.dumps(found.as_json()) if as_json else "\n".join(found.sentences()))
    raise typer.Exit(0 if found.in_order else 1)


Reason = Annotated[str, typer.Option(help="Why; it is kept in the record.")]


@app.command()
@_asks
def stop(
    daemon: Daemon,
    element: Annotated[str, typer.Argument(help="EVSE, bus, feeder, transformer, switch or controller; or the site.")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Let nobody charge below an element until it is released. Not an emergency stop. 1 = not acked by everybody."""
    from powerd.client.ask import message_as_json, stop_charging, stopped

    taken = stop_charging(daemon, element, reason)
    typer.echo(json.dumps(message_as_json(taken)) if as_json else f"stop {taken.stop_id}: {stopped(taken)}")
    raise typer.Exit(1 if taken.unacked_evse_ids else 0)


@app.command()
@_asks
def release(
    daemon: Daemon,
    stop_id: Annotated[str, typer.Argument(metavar="STOP", help="As `stop` and `status` tell it.")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """End a stop."""
    from powerd.client.ask import counted, message_as_json, release_stop

    free = release_stop(daemon, stop_id, reason)
    typer.echo(json.dumps(message_as_json(free)) if as_json else f"{counted(free.evse_ids)} may charge again")


@envelope_app.callback()
def envelope() -> None:
    """Tell a running daemon what the grid allows, and see that it is kept."""


@envelope_app.command("set")
@_asks
def set_envelope(
    daemon: Daemon,
    import_limit_kw: Annotated[float, typer.Argument(metavar="KW", help="Most that the site may import.")],
    source: Annotated[str, typer.Option(help="Who says so.")],
    envelope_id: Annotated[str, typer.Option("--id", help="Replaces the one of this id; default: a new one.")] = "",
    start: Annotated[datetime | None, typer.Option(formats=INSTANT, help="When it begins; default at once.")] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=INSTANT, help="When it ends; default not before it is withdrawn.")
    ] = None,
    heartbeat_s: Annotated[
        float | None,
        typer.Option(min=1, help="You say it again, with its --id, within this; silence lowers it to the failsafe."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Lower what the site may import, for a while. A time without an offset is that of this machine's time zone."""
    from powerd.client import envelopes
    from powerd.client.ask import message_as_json

    taken = envelopes.set_envelope(
        daemon,
        import_limit_kw,
        source=source,
        envelope_id=envelope_id,
        start=start,
        end=until,
        heartbeat_s=heartbeat_s,
    )
    typer.echo(json.dumps(message_as_json(taken)) if as_json else envelopes.sentence(taken))


@envelope_app.command("withdraw")
@_asks
def withdraw_envelope(
    daemon: Daemon,
    envelope_id: Annotated[str, typer.Argument(metavar="ID", help="As `set` and `list` tell it.")],
    as_json: Json = False,
) -> None:
    """Take an envelope back before its end."""
    from powerd.client import envelopes

    envelopes.withdraw_envelope(daemon, envelope_id)
    typer.echo(json.dumps({"envelope_id": envelope_id}) if as_json else f"{envelope_id} is withdrawn")


@envelope_app.command("list")
@_asks
def list_envelopes(daemon: Daemon, as_json: Json = False) -> None:
    """All envelopes, whether each is kept and since when. 1 = one that is in force is not kept."""
    from powerd.client import envelopes
    from powerd.client.ask import message_as_json

    found = envelopes.list_envelopes(daemon)
    if as_json:
        typer.echo(json.dumps(message_as_json(found)))
    else:
        for one in found.envelopes:
            typer.echo(envelopes.sentence(one))
        typer.echo(envelopes.import_sentence(found))
    broken = any(one.in_force and not one.HasField("kept_since") for one in found.envelopes)
    raise typer.Exit(1 if broken else 0)
