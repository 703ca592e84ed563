"""The end of a controller's program: what hangs holds nothing up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HANGS = """
import os, sys, threading
from pathlib import Path
from powerd.client import EvseConfig
from powerd.client.sync import BlockingController

what, file = sys.argv[1:]
called = threading.Event()

def hang(*_):
    called.set()
    threading.Event().wait()

def apply(*_):
    pass

if what == "disk":
    os.fsync = hang
else:
    apply = hang
with BlockingController("127.0.0.1:1", "c0", [EvseConfig(evse_id="A1")], apply, memory_file=Path(file)) as controller:
    if what == "disk":
        controller._inner.core.highest_epoch = 7
    assert called.wait(30)
print("ended")
"""


@pytest.mark.parametrize("what", ["post", "disk"])
def test_a_program_ends_while_something_hangs(what: str, tmp_path: Path) -> None:
    """Python waits neither for a thread in which ``apply`` has not returned nor for one that saves the memory."""
    program = [sys.executable, "-c", HANGS, what, str(tmp_path / "memory.json")]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "ended\n"
