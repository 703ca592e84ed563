"""What the daemon says on stderr: when it was, and whose controller it is about."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from powerd.daemon import _tell_silent
from tests.control.garage import TTL, Player, site_text

SAYS = """
import json, logging
from powerd.cli import _log_to_stderr
_log_to_stderr(reasons={reasons})
logging.getLogger("powerd.server.streams").info("controller c0 connected")
logging.getLogger("asyncio").warning("from a library")
logging.getLogger("powerd.reasons").info(json.dumps({{"event": "ceiling"}}))
"""


@pytest.mark.parametrize("reasons", [False, True])
def test_every_line_begins_with_its_instant(reasons: bool) -> None:
    """ISO 8601 with its offset, whoever writes; reasons, which are JSON with a time of their own, only if asked for."""
    command = [sys.executable, "-c", SAYS.format(reasons=reasons)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    told = [line.split(" ", 2) for line in lines[:2]]
    assert [rest for _, *rest in told] == [["INFO", "controller c0 connected"], ["WARNING", "from a library"]]
    assert all(datetime.fromisoformat(instant).tzinfo is not None for instant, *_ in told)
    assert [json.loads(line) for line in lines[2:]] == [{"event": "ceiling"}] * reasons


def test_a_controller_that_falls_silent_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each by its id, when it falls silent beside another, and when it speaks again."""
    caplog.set_level(logging.INFO, "powerd")
    player = Player.open(tmp_path, site_text(2, 32.0))
    for k in range(2):
        player.plug(k)
        player.hello(k)
    silent: frozenset[str] = frozenset()
    for gone in (1, 0):
        player.alive.discard(gone)
        for _ in range(int(TTL) + 2):
            silent = _tell_silent(silent, player.tick())
    player.alive.add(1)
    silent = _tell_silent(silent, player.tick())
    assert silent == {"c0"}
    assert [record.getMessage() for record in caplog.records] == [
        "controller c1 is silent",
        "controller c0 is silent",
        "controller c1: heard again, or its cars have left",
    ]
