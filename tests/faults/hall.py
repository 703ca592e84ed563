"""A hall of posts under one limit, the daemon that serves it, and a fleet of real controllers against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from powerd.client.aio import PowerdController
from powerd.client.core import ControllerCore
from powerd.client.lease import EvseConfig
from powerd.v1 import controller_service_pb2 as pb
from tests.control.garage import site_text
from tests.faults.lean import LeanController
from tests.faults.truth import Truth

TTL_S, REACTION_S, DRIFT = 3.0, 1.0, 1e-3
LIFE_S = TTL_S * (1 + DRIFT) + REACTION_S
"""E (docs/leases.md) of a grant here [s]."""
TICK_S = 0.5
READY_WITHIN_S = 300.0
"""A first start with an empty cache compiles every kernel."""


def boottime_s() -> float:
    """The clock that daemon and controllers share on this machine [s]."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Hall:
    """Posts of 32 A under one feeder, dealt out to controllers."""

    posts: int
    controllers: int
    limit_a: float
    ttl_s: float = TTL_S

    def write(self, folder: Path) -> Path:
        """The site file."""
        text = site_text(self.posts, self.limit_a, controllers=self.controllers)
        for before, after in (
            ("ttl_s: 15.0, reaction_s: 5.0", f"ttl_s: {self.ttl_s}, reaction_s: {REACTION_S}"),
            ("r_ohm_per_km: 0.2, x_ohm_per_km: 0.08", "r_ohm_per_km: 0.0001, x_ohm_per_km: 0.0001"),  # a busbar
        ):
            assert before in text
            text = text.replace(before, after)
        file = folder / "site.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    def of(self, controller: int) -> list[int]:
        """Posts of a controller."""
        return list(range(controller, self.posts, self.controllers))

    def truth(self) -> Truth:
        """Fresh books."""
        return Truth(count=self.posts, limit=self.limit_a, reaction_s=REACTION_S)


class Served:
    """One life of a daemon."""

    def __init__(self, site: Path, journal: Path | None, port: int, *, tick_s: float = TICK_S) -> None:
        command = [sys.executable, "-m", "powerd", "serve", str(site), "--address", f"127.0.0.1:{port}"]
        command += ["--first-start", "--tick", str(tick_s)]
        command += [] if journal is None else ["--journal", str(journal)]
        self.launched_s = boottime_s()
        env = {name: own for name, own in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.ready = threading.Event()
        self.said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._note, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line and "address" in json.loads(line):
            self.ready.set()

    def _note(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def cpu_s(self) -> float:
        """CPU time that it has used [s]."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """SIGSTOP."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def serving(site: Path, port: int, *, journal: Path | None = None) -> Iterator[Served]:
    """A daemon that listens; killed at the end."""
    served = Served(site, journal, port)
    try:
        assert served.ready.wait(READY_WITHIN_S), served.said
        yield served
    finally:
        served.kill()


@dataclass
class Fleet:
    """All controllers of a hall in this process, each a ``PowerdController`` as an integrator has it."""

    hall: Hall
    target: str
    truth: Truth
    members: tuple[int, ...] = ()
    """Controllers that this fleet is; empty = all."""
    lean: bool = False
    """Controllers are ``LeanController``: for loads that must leave the daemon its core."""
    controllers: dict[int, PowerdController | LeanController] = field(default_factory=dict)
    first_grant_s: float | None = None
    """Boottime of the first grants received since ``listen``."""
    raised_s: float | None = None
    """Boottime of the first write since ``listen`` above what that post had then."""
    lowered_s: float | None = None
    """Boottime of the newest write of a lower ceiling."""
    plugged: set[int] = field(default_factory=set)
    _had: list[float] = field(default_factory=list)
    _open: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def __aenter__(self) -> Self:
        self.listen()
        for c in self.members or range(self.hall.controllers):
            evses = [EvseConfig(evse_id=f"P{i}", fallback=0.0) for i in self.hall.of(c)]
            controller: PowerdController | LeanController
            if self.lean:
                controller = LeanController(self.target, f"c{c}", evses, self._taken)
            else:
                controller = PowerdController(self.target, f"c{c}", evses, self._apply)
            self._hear(controller.core)
            self.controllers[c] = controller
            await self._open.enter_async_context(controller)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    def _hear(self, core: ControllerCore) -> None:
        """Notes the first grants."""
        receive = core.receive

        def noted(message: pb.ConnectResponse, now_s: float) -> object:
            if self.first_grant_s is None and message.WhichOneof("message") == "grants":
                self.first_grant_s = now_s
            return receive(message, now_s)

        core.receive = noted  # type: ignore[method-assign, assignment]

    async def _apply(self, evse_id: str, ceiling: float, valid_for_s: float) -> None:
        self._taken(evse_id, ceiling, valid_for_s)

    def _taken(self, evse_id: str, ceiling: float, valid_for_s: float) -> None:
        evse, now_s = int(evse_id[1:]), boottime_s()
        if self.raised_s is None and ceiling > self._had[evse] + 0.5:
            self.raised_s = now_s
        if ceiling < self.truth.ceiling[evse] - 1e-6:
            self.lowered_s = now_s
        self.truth.write(evse, ceiling, now_s + valid_for_s, now_s)

    def listen(self) -> None:
        """Forgets what was noted; what the posts have now counts as what they had."""
        self.first_grant_s = self.raised_s = self.lowered_s = None
        self._had = self.truth.ceiling.tolist()

    def plug(self, evse: int, plugged: bool) -> None:
        """A car comes or leaves."""
        (self.plugged.add if plugged else self.plugged.discard)(evse)
        self.controllers[evse % self.hall.controllers].plug(f"P{evse}", plugged)

    async def until(self, total_a: float, timeout_s: float = 30.0) -> None:
        """Ends when the ceilings in force together reach ``total_a``."""
        async with asyncio.timeout(timeout_s):
            while self.truth.ceiling.sum() < total_a:
                await asyncio.sleep(0.02)
                self.truth.lapse(boottime_s())
