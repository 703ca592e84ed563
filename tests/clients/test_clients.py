"""Two controllers that know powerd by its README and .proto files alone, each in an environment without powerd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from powerd.v1 import site_service_pb2
from powerd.v1.site_service_pb2_grpc import SiteServiceStub
from tests.clients.daemon import daemon
from tests.setup.lock import foreign

pytestmark = pytest.mark.setup

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
RULES = json.loads((HERE / "rules.json").read_text())
Commands = dict[str, list[str | Path]]
POSTS = {"node": ("CA-319", "cc-pod"), "python": ("CA-308", "av-pod")}
"""For each client the post it asks for by single calls, and the controller for which it opens a stream."""


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs something that knows nothing of this checkout and its environment."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300)


def _done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, f"{result.args} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """How to start each client, in a folder that holds the client, the .proto files and nothing else of ours."""
    away = tmp_path_factory.mktemp("outside")
    shutil.copytree(ROOT / "protos", away / "protos", ignore=shutil.ignore_patterns("*.py", "*.binpb", "__pycache__"))
    for client in POSTS:
        shutil.copytree(HERE / client, away / client, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    npm = shutil.which("npm")
    assert npm is not None, "the Node client needs node (18 or newer) and npm: install them, for example nodejs and npm"
    _done(_run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=away / "node"))
    venv.create(away / "env", with_pip=True)
    python = away / "env" / "bin" / "python"
    _done(_run(python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt", cwd=away / "python"))
    assert _run(python, "-c", "import powerd", cwd=away).returncode != 0, "the client's environment has powerd"
    protos: list[str | Path] = ["--protos", away / "protos"]
    return {
        "node": ["node", away / "node" / "client.mjs", *protos],
        "python": [python, "-m", "charger", *protos],
    }


def _start(commands: Commands, client: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    folder = Path(commands[client][-1]).parent / client
    return _run(*commands[client], *options, cwd=folder)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one run of a client printed, and what powerd said of its posts afterwards."""

    result: subprocess.CompletedProcess[str]
    """Of the process."""
    worst: dict[str, float]
    """EVSE -> the most it could be drawing, as powerd told another client after this one had gone [A]."""

    def events(self, event: str, way: str) -> list[dict[str, Any]]:
        """The lines of one kind, in their order."""
        lines = [json.loads(line) for line in self.result.stdout.splitlines()]
        return [line for line in lines if line["event"] == event and line.get("way") == way]


@pytest.fixture(scope="module")
def told(commands: Commands) -> Iterator[dict[str, Told]]:
    """Both clients at once against one daemon that serves the garage."""
    with daemon(ROOT / "models" / "caltech_garage") as served, grpc.insecure_channel(served.address) as channel:

        def run(client: str) -> Told:
            evse, controller = POSTS[client]
            options = ("--address", served.address, "--evse", evse, "--controller", controller)
            result = _start(commands, client, *options)
            return Told(result=result, worst=_worst(SiteServiceStub(channel), [evse, _first_of(channel, controller)]))

        with ThreadPoolExecutor(len(POSTS)) as pool:
            yield dict(zip(POSTS, pool.map(run, POSTS), strict=True))


def _first_of(channel: grpc.Channel, controller: str) -> str:
    site = SiteServiceStub(channel).GetSite(site_service_pb2.GetSiteRequest(), timeout=10)
    return next(evse.evse_id for evse in site.evses if evse.controller_id == controller)


def _worst(site: SiteServiceStub, evses: Sequence[str]) -> dict[str, float]:
    requests = [site_service_pb2.ExplainCeilingRequest(evse_id=evse) for evse in evses]
    return {request.evse_id: site.ExplainCeiling(request, timeout=10).worst for request in requests}


@pytest.mark.parametrize("client", POSTS)
def test_it_starts_a_session_gets_a_setpoint_and_acks_it(told: dict[str, Told], client: str) -> None:
    """By single calls: the second request acks the first grant, and each grant is newer than the one before."""
    _done(told[client].result)
    assert len(told[client].events("session", "unary")) == 1
    grants = told[client].events("grant", "unary")
    assert [grant["acked"] for grant in grants] == [None, *(grant["seq"] for grant in grants[:-1])]
    assert all(earlier["seq"] < later["seq"] for earlier, later in pairwise(grants))
    assert {24, 16} <= {grant["ceiling"] for grant in grants}
    assert all(grant["reason"] for grant in grants)


@pytest.mark.parametrize("client", POSTS)
def test_it_keeps_a_stream(told: dict[str, Told], client: str) -> None:
    """Hello, first grants for all eight posts, a renewal within the lease, a lowering."""
    _done(told[client].result)
    first, *_, last = told[client].events("grant", "stream")
    assert first["posts"] == 8
    assert (last["posts"], last["ceiling"]) == (1, 8)
    assert told[client].events("renewal", "stream")


@pytest.mark.parametrize("client", POSTS)
@pytest.mark.parametrize(("way", "lowered"), [("unary", 16), ("stream", 8)])
def test_powerd_believes_an_ack_and_nothing_else(told: dict[str, Told], client: str, way: str, lowered: float) -> None:
    """After the lower grant it still reckons with 24 A; after the ack (not the end of the 60 s lease) with the new."""
    _done(told[client].result)
    before, after = told[client].events("worst", way)
    assert (before["acked"], before["worst"]) == (False, 24)
    assert (after["acked"], after["worst"]) == (True, lowered)
    assert told[client].worst[before["evse"]] == lowered


@pytest.mark.parametrize("client", POSTS)
def test_it_keeps_the_rules_of_leases(commands: Commands, client: str) -> None:
    """It refuses what is not meant for this process, what is too old, and what is not newer."""
    verdicts = [
        json.loads(line) for line in _done(_start(commands, client, "--rules", HERE / "rules.json")).splitlines()
    ]
    told = {rule["claim"]: verdict for rule, verdict in zip(RULES, verdicts, strict=True)}
    assert told == {rule["claim"]: rule["refusal"] for rule in RULES}


@pytest.mark.parametrize("client", POSTS)
def test_it_says_so_when_nobody_answers(commands: Commands, client: str) -> None:
    """Exit 1 and a line about it, so that the other tests can fail."""
    result = _start(commands, client, "--address", "127.0.0.1:9", "--evse", "CA-319", "--controller", "cc-pod")
    assert result.returncode == 1
    assert "UNAVAILABLE" in result.stderr or "DEADLINE" in result.stderr


def test_the_lock_names_no_server() -> None:
    """Every package by name, version and hash; whichever registry a machine has may serve it."""
    text = (HERE / "node" / "package-lock.json").read_text()
    assert foreign(text) == []
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert packages
    assert all(entry.get("integrity", "").startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())
