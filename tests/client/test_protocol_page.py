"""docs/protocol.md tells the truth: its worked example is played against the library, its client is run."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from powerd.client import ControllerCore, EvseConfig, Write
from powerd.control.events import Acked
from powerd.v1 import controller_service_pb2 as pb
from tests.server.dialogue import serving
from tests.server.fake import SITE, FakeCore

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
STEP = re.compile(
    r"<!-- (?P<what>up|down|applied|plug|measured|expire) (?P<rest>[^>]*?) -->\n(?:```json\n(?P<json>.*?)```)?",
    re.DOTALL,
)


class Example:
    """The controller of the worked example and its two posts, which take an order when the page says so."""

    def __init__(self) -> None:
        evses = [EvseConfig(evse_id=name, fallback=6.0) for name in ("P1", "P2")]
        self.core = ControllerCore("cabinet-1", evses, incarnation=4711)
        self.pending: list[Write] = list(self.core.start())
        self.take(0.0)

    def take(self, now_s: float) -> dict[str, float]:
        """The posts take everything; returns the ceilings."""
        for write in self.pending:
            self.core.applied(write, now_s)
        taken = {write.evse_id: write.ceiling for write in self.pending}
        self.pending = []
        return taken

    def play(self, what: str, rest: list[str], text: str | None) -> None:
        """One step of the page."""
        now_s = float(rest[0])
        if what == "up":
            said = self.core.hello(now_s) if rest[1] == "hello" else self.core.report(now_s)
            assert said == json_format.Parse(text or "", pb.ConnectRequest())
        elif what == "down":
            self.pending += self.core.receive(json_format.Parse(text or "", pb.ConnectResponse()), now_s)
        elif what == "plug":
            self.core.plug(("P1", "P2").index(rest[1]), True, now_s)
        elif what == "measured":
            l1, l2, l3 = map(float, rest[2:])
            self.core.measure(("P1", "P2").index(rest[1]), (l1, l2, l3))
        else:
            if what == "expire":
                assert self.core.next_expiry_s() == pytest.approx(now_s)
                self.pending += self.core.expire(now_s + 1e-9)
            assert self.take(now_s + 1e-9) == {k: float(v) for k, _, v in (word.partition("=") for word in rest[1:])}


def _steps() -> Iterator[tuple[str, list[str], str | None]]:
    for match in STEP.finditer(PAGE):
        yield match["what"], match["rest"].split(), match["json"]


def test_the_worked_example_is_what_the_library_does() -> None:
    """Every message up equals the library's, every order to a post is as told, and nothing is left over."""
    example, steps = Example(), list(_steps())
    assert len(steps) == len(re.findall(r"```json|<!-- (?:applied|plug|measured|expire) ", PAGE)) >= 18
    for what, rest, text in steps:
        example.play(what, rest, text)
    assert example.pending == []


def test_the_client_of_the_page_gets_and_acks_a_ceiling(tmp_path: Path) -> None:
    """Run as it stands, but for the address; it prints a ceiling above 0 and the daemon sees the ack."""
    (code,) = re.findall(r"<!-- client -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    types = "evse_types: [{id: ac, phases: '3', max_current_a: 32, fallback_a: 6}]"
    posts = "[{id: P1, type: ac}, {id: P2, type: ac}]"
    head = SITE.split("controllers:", maxsplit=1)[0]
    site = f"{head}controllers: [{{id: cabinet-1, class: c}}]\n{types}\nstations:\n"
    site += f"  - {{id: P, bus: panel, controller: cabinet-1, evses: {posts}}}\n"

    async def scene() -> str:
        core = FakeCore(site)
        async with serving(core) as (server, _):
            script = tmp_path / "client.py"
            script.write_text(code.replace("127.0.0.1:7433", server.address), encoding="utf-8")
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-u", str(script)), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
            )
            try:
                await asyncio.wait_for(core.until(lambda: bool(core.snapshot.leases.acked_ceiling[0] == 8.0)), 60)
            finally:
                child.terminate()
                out, _ = await child.communicate()
        assert core.of(Acked)
        return out.decode()

    assert "P1: 8 A for 1" in asyncio.run(scene())
