"""The real daemon, killed without warning and started again on the same journal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from powerd.v1 import common_pb2, controller_service_pb2, session_service_pb2
from powerd.v1.controller_service_pb2_grpc import ControllerServiceStub
from powerd.v1.session_service_pb2_grpc import SessionServiceStub
from tests.control.garage import site_text

TTL_S, REACTION_S = 6.0, 1.0
"""Longer than a restart takes, so that what may not be lent yet is asked for."""
INCARNATION = 77
PATIENCE_S = 60.0
"""So long a busy machine may keep answering that no tick took a call in time."""

Answer = TypeVar("Answer")


@contextmanager
def daemon(site: Path, journal: Path) -> Iterator[tuple[grpc.Channel, subprocess.Popen[str]]]:
    """A serving daemon and a channel to it; killed at the end without being asked."""
    command = [sys.executable, "-m", "powerd", "serve", str(site), "--address", "127.0.0.1:0"]
    command += ["--journal", str(journal), "--first-start", "--tick", "0.25"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            with grpc.insecure_channel(address) as channel:
                yield channel, process
        finally:
            process.kill()


def told(call: Callable[[], Answer]) -> Answer:
    """The answer to a call that may be repeated: UNAVAILABLE says that no tick took it in time, and to come again."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except grpc.RpcError as refused:
            if refused.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until_s:
                raise


def start_session(channel: grpc.Channel) -> None:
    """A session that was acknowledged."""
    start = session_service_pb2.StartSessionRequest(evse_id="P0", session_id="mine", request_id="once")
    told(lambda: SessionServiceStub(channel).StartSession(start, timeout=30, wait_for_ready=True))


def session_ids(channel: grpc.Channel) -> list[str]:
    """Of all sessions that the daemon knows."""
    request = session_service_pb2.ListSessionsRequest()
    listed = told(lambda: SessionServiceStub(channel).ListSessions(request, timeout=30))
    return [own.session_id for own in listed.sessions]


def ask(channel: grpc.Channel, evse_id: str, ack: common_pb2.Ack | None = None) -> common_pb2.Grant:
    """One unary request of a plugged-in EVSE, with the ack of the grant before."""

    def call() -> common_pb2.Grant:
        stamp = common_pb2.Stamp(incarnation=INCARNATION, boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME))
        request = controller_service_pb2.RequestSetpointRequest(evse_id=evse_id, stamp=stamp, plugged=True, ack=ack)
        return ControllerServiceStub(channel).RequestSetpoint(request, timeout=30, wait_for_ready=True).grant

    return told(call)


def acked(grant: common_pb2.Grant) -> common_pb2.Ack:
    """The word that the actuator took it."""
    return common_pb2.Ack(epoch=grant.epoch, seq=grant.seq, applied_ceiling=grant.ceiling_a)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two posts of 32 A under 32 A, short leases."""
    file = tmp_path / "site.yaml"
    text = site_text(2, 32.0).replace("ttl_s: 15.0, reaction_s: 5.0", f"ttl_s: {TTL_S}, reaction_s: {REACTION_S}")
    assert f"ttl_s: {TTL_S}" in text
    file.write_text(text, encoding="utf-8")
    return file


def test_a_killed_daemon_comes_back_with_sessions_and_lends_nothing_twice(site: Path, tmp_path: Path) -> None:
    """kill -9 right after an answer: the session is there again, the epoch is higher, and the other post gets nothing
    of what the first may still be drawing until that lease is over.
    """
    journal = tmp_path / "journal"
    with daemon(site, journal) as (channel, process):
        start_session(channel)
        grant = ask(channel, "P0")
        assert grant.ceiling_a == pytest.approx(32.0, abs=1e-3)
        process.kill()
        process.wait()
    killed_at = time.monotonic()
    with daemon(site, journal) as (channel, process):
        assert session_ids(channel) == ["mine"]
        other = ask(channel, "P1")
        assert other.epoch > grant.epoch
        until = time.monotonic() + PATIENCE_S
        while other.ceiling_a == 0 and time.monotonic() < until:
            other = ask(channel, "P1", acked(other))
        raised_at = time.monotonic()
        assert other.ceiling_a > 0
        assert raised_at - killed_at >= TTL_S + REACTION_S


def test_a_second_daemon_on_the_same_journal_is_refused(site: Path, tmp_path: Path) -> None:
    """Two leaders on one journal would grant the same current twice."""
    journal = tmp_path / "journal"
    with daemon(site, journal) as (channel, _):
        ask(channel, "P0")
        command = [sys.executable, "-m", "powerd", "serve", str(site), "--address", "127.0.0.1:0"]
        second = subprocess.run(
            [*command, "--journal", str(journal)], capture_output=True, text=True, timeout=120, check=False
        )
        assert second.returncode == 2
        assert str(journal) in second.stderr
        assert "locked" in second.stderr


def test_sigterm_ends_in_order_and_folds_the_log(site: Path, tmp_path: Path) -> None:
    """What a service manager sends: exit 0, no write-ahead log is left beside the file, and the session is in it."""
    journal = tmp_path / "journal"
    with daemon(site, journal) as (channel, process):
        start_session(channel)
        assert Path(f"{journal}-wal").exists()
        process.terminate()
        assert process.wait(30) == 0
    assert not Path(f"{journal}-wal").exists()
    with daemon(site, journal) as (channel, _):
        assert session_ids(channel) == ["mine"]


HANGING = """
import sys, threading
from powerd import daemon
from powerd.allocation.allocate import Allocator
from powerd.cli import app
from powerd.journal.store import Journal
daemon.END_S = 2.0
kind, name = {"solve": (Allocator, "allocate"), "disk": (Journal, "commit")}[sys.argv.pop(1)]
honest, armed, run = getattr(kind, name), threading.Event(), daemon.Ticker.run
def hangs(*rest, **more):
    if armed.is_set():
        threading.Event().wait()
    return honest(*rest, **more)
async def begins(self, clock):
    armed.set()
    await run(self, clock)
setattr(kind, name, hangs)
daemon.Ticker.run = begins
app()
"""


@pytest.mark.parametrize("what", ["solve", "disk"])
def test_sigterm_ends_also_what_hangs(site: Path, tmp_path: Path, what: str) -> None:
    """After a bounded time, with exit code 1 and a word of why; the next start has what was acknowledged."""
    journal = tmp_path / "journal"
    with daemon(site, journal) as (channel, process):
        start_session(channel)
        process.terminate()
        assert process.wait(30) == 0
    command = [sys.executable, "-c", HANGING, what, "serve", str(site), "--address", "127.0.0.1:0"]
    command += ["--journal", str(journal), "--tick", "0.25"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(1.0)
            process.terminate()
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 1
        assert "has not answered for 2 s" in told
    with daemon(site, journal) as (channel, _):
        assert session_ids(channel) == ["mine"]
