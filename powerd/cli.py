"""The power manager for EV charging sites. Exit 0 = fine, 1 = faults or a promise not met, 2 = wrong usage."""

from __future__ import annotations

import os

# One thread each for the linear algebra: unpinned, small problems ran 13 to 58 times slower. Must precede numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from powerd.errors import PowerdError, SiteRefused, UnreadableInput

app = typer.Typer(
    name="powerd", help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)

SitePath = Annotated[Path, typer.Argument(metavar="SITE", help="Folder with a site.yaml, or the file itself.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Cap = Annotated[float | None, typer.Option(help="Scale the transformers to this many kW in all.")]
DEFAULT_ADDRESS = "127.0.0.1:7433"


def _fail(message: str, code: int) -> typer.Exit:
    """Says what is wrong on stderr and gives the exit to raise."""
    typer.echo(message, err=True)
    return typer.Exit(code)


@app.command()
def serve(
    site: SitePath,
    address: Annotated[str, typer.Option(help="Where to listen, host:port; port 0 = any free one.")] = DEFAULT_ADDRESS,
    tick: Annotated[float, typer.Option(min=0.05, max=60, help="Period of the control tick [s].")] = 1.0,
    first_start: Annotated[
        bool,
        typer.Option(
            "--first-start",
            help="Your word that nothing was granted on this site within the longest lease: raises need not wait for it.",
        ),
    ] = False,
    cap_kw: Cap = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen off loopback without TLS: anybody on that network may command.")
    ] = False,
    stepped_clock: Annotated[
        bool,
        typer.Option("--stepped-clock", help="For simulations: time stands still until SteppedClockService moves it."),
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
        from powerd.daemon import ServeOptions, serve_site

        options = ServeOptions(
            site=site,
            address=address,
            tick_s=tick,
            first_start=first_start,
            cap_kw=cap_kw,
            tls_cert=tls_cert,
            tls_key=tls_key,
            insecure=insecure,
            stepped_clock=stepped_clock,
        )
        asyncio.run(serve_site(options))
    except SiteRefused as refused:
        raise _fail(f"{refused}\nThe site has faults; `powerd check {site}` lists them.", 1) from None
    except PowerdError as error:
        raise _fail(str(error), 2) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def check(site: SitePath, as_json: Json = False) -> None:
    """Validate a site before it is built: every fault with its place and its mend."""
    from powerd.reports.check import check_site

    try:
        report = check_site(site)
    except UnreadableInput as error:
        raise _fail(str(error), 2) from None
    typer.echo(json.dumps(report.as_json()) if as_json else report.as_text())
    raise typer.Exit(report.exit_code)


@app.command()
def explain(
    evse: Annotated[str, typer.Argument(help="EVSE id as in the site file.")],
    address: Annotated[str, typer.Option(help="Address of the daemon.")] = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Ask a running daemon why an EVSE's ceiling is what it is."""
    from powerd.client.ask import explain_ceiling

    try:
        answer = explain_ceiling(address, evse)
    except PowerdError as error:
        raise _fail(str(error), 2) from None
    typer.echo(json.dumps(answer.as_json()) if as_json else answer.reason)


def main() -> None:
    """Entry point with a readable message for a broken pipe."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)
