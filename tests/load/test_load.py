"""The gRPC door under load, by k6: single calls at a steady rate and many streams at once, on a hub of thousands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from ruamel.yaml import YAML

from powerd.v1 import site_service_pb2
from powerd.v1.site_service_pb2_grpc import SiteServiceStub
from tests.clients.daemon import Daemon, daemon

ROOT = Path(__file__).resolve().parents[2]
K6 = Path(sys.executable).parent / "k6"
PARTS = 5
"""Each deck of the hub has 125 stations of two posts; a fifth of them is what one controller owns here: 50 posts."""
BROKEN = 99
"""What k6 ends with when a threshold was not met."""


@dataclass(frozen=True, kw_only=True)
class Hall:
    """A daemon under load."""

    daemon: Daemon
    """It."""
    posts: Path
    """JSON file for the script: who opens which stream, and which posts ask by single calls."""


def _site(folder: Path, *, decks: int, kiosks: int) -> Path:
    """The mega hub with that many of its decks, five controllers on each, and posts for single calls."""
    yaml = YAML()
    site: dict[str, Any] = yaml.load((ROOT / "models" / "mega_hub" / "site.yaml").read_text())
    groups: list[dict[str, Any]] = [
        dict(group, count=25, first=25 * part + 1, controller=f"{group['controller']}-{part}")
        for group in site["station_groups"][:decks]
        for part in range(PARTS)
    ]
    groups.append({"count": kiosks, "id": "K{n:04}", "bus": "lv-1", "controller": "kiosks", "type": "ac11"})
    site["controllers"] = [{"id": name, "class": "deck"} for name in dict.fromkeys(g["controller"] for g in groups)]
    site["station_groups"] = groups
    with (folder / "site.yaml").open("w") as file:
        yaml.dump(site, file)
    return folder


@contextmanager
def _hall(folder: Path, *options: str, decks: int, kiosks: int) -> Iterator[Hall]:
    """Serves such a hub, and asks it what the script needs to know."""
    with daemon(_site(folder, decks=decks, kiosks=kiosks), *options) as served:
        with grpc.insecure_channel(served.address) as channel:
            site = SiteServiceStub(channel).GetSite(site_service_pb2.GetSiteRequest(), timeout=30)
        owned: dict[str, list[str]] = {}
        for evse in site.evses:
            owned.setdefault(evse.controller_id, []).append(evse.evse_id)
        calls = owned.pop("kiosks")
        streams = [{"controller_id": name, "evse_ids": evses} for name, evses in owned.items()]
        assert {len(evses) for evses in owned.values()} == {50}
        posts = folder / "posts.json"
        posts.write_text(json.dumps({"streams": streams, "calls": calls}))
        yield Hall(daemon=served, posts=posts)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What k6 found."""

    code: int
    """Its exit code."""
    output: str
    """For people."""
    metrics: dict[str, Any]
    """Its metrics by name."""

    def broken(self) -> set[str]:
        """The metrics whose thresholds were not met."""
        return {name for name, metric in self.metrics.items() if any(metric.get("thresholds", {}).values())}


def _k6(hall: Hall, **settings: float) -> Run:
    """Runs the script; nothing leaves this machine."""
    summary = hall.posts.with_name("summary.json")
    told = {"ADDRESS": hall.daemon.address, "PROTOS": ROOT / "protos", "POSTS": hall.posts, **settings}
    quiet: list[str | Path] = ["--no-usage-report", "--quiet", "--no-color", "--address", ""]
    command = [K6, "run", *quiet, "--summary-export", summary]
    command += [word for name, value in told.items() for word in ("-e", f"{name}={value}")]
    result = subprocess.run(
        [*command, Path(__file__).with_name("setpoints.js")],
        env={**os.environ, "K6_NO_USAGE_REPORT": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = result.stdout + result.stderr
    assert summary.exists(), output
    return Run(code=result.returncode, output=output, metrics=json.loads(summary.read_text())["metrics"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """Ten streams of 50 posts and a hundred posts that call."""
    with _hall(tmp_path_factory.mktemp("small"), decks=2, kiosks=100) as hall:
        yield hall


def test_a_small_load_is_served(small: Hall) -> None:
    """20 calls a second and ten streams: no failed check, each post granted every tick (0.8 s for a busy machine)."""
    run = _k6(small, SECONDS=6, RAMP=2, RATE=20, SLACK_MS=800)
    assert (run.code, run.broken()) == (0, set()), run.output
    assert run.metrics["checks"]["passes"] > 20 * 6
    assert run.metrics["checks"]["fails"] == 0


def test_a_slow_ticker_is_found_out(tmp_path: Path) -> None:
    """A daemon whose door answers but whose next tick is a minute away breaks every threshold that speaks of ticks."""
    with _hall(tmp_path, "--tick", "60", decks=2, kiosks=100) as hall:
        run = _k6(hall, SECONDS=6, RAMP=2, RATE=20, SLACK_MS=800)
    assert run.code == BROKEN, run.output
    assert {"checks", "calls_answered", "posts_granted_by_stream"} <= run.broken(), run.output


def test_a_stopped_daemon_is_found_out(small: Hall) -> None:
    """The same where nothing answers at all; last in this file, for the daemon stays stopped."""
    small.daemon.stall()
    run = _k6(small, SECONDS=6, RAMP=2, RATE=20, SLACK_MS=800)
    assert run.code == BROKEN, run.output
    assert {"calls_answered", "posts_granted_by_stream"} <= run.broken(), run.output


@pytest.mark.slow
def test_two_hundred_calls_a_second_beside_a_hundred_streams(tmp_path: Path) -> None:
    """For 30 s on 6 000 posts: no failed check, p95 of a call ≤ a tick and 0.2 s, 5 000 posts granted every tick."""
    with _hall(tmp_path, decks=20, kiosks=1000) as hall:
        run = _k6(hall, SECONDS=30, RATE=200)
    print(run.output)
    assert (run.code, run.broken()) == (0, set()), run.output
