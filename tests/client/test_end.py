"""The end of a controller's program: what hangs holds nothing up."""

from __future__ import annotations

import subprocess
import sys

HANGING_POST = """
import threading
from powerd.client import EvseConfig
from powerd.client.sync import BlockingController

called = threading.Event()

def apply(*_):
    called.set()
    threading.Event().wait()

with BlockingController("127.0.0.1:1", "c0", [EvseConfig(evse_id="A1")], apply):
    assert called.wait(30)
print("ended")
"""


def test_a_program_ends_while_a_post_hangs() -> None:
    """Python does not wait for the thread in which ``apply`` has not returned."""
    ended = subprocess.run([sys.executable, "-c", HANGING_POST], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "ended\n"
