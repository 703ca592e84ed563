"""A real daemon in a process of its own, ended whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN_S = 120.0
"""Kernels are compiled before it listens; on a busy machine with an empty cache that takes most of a minute."""


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """One that listens."""

    address: str
    """host:port on loopback."""
    process: subprocess.Popen[str]
    """It."""

    def stall(self) -> None:
        """Stops its ticker, its door and everything else, as a machine without CPU time would."""
        self.process.send_signal(signal.SIGSTOP)


@contextmanager
def daemon(site: Path, *options: str) -> Iterator[Daemon]:
    """Serves ``site`` on a free port with ``--first-start``; what it says on stderr is shown with a failing test."""
    command = [
        sys.executable,
        "-m",
        "powerd",
        "serve",
        str(site),
        "--address",
        "127.0.0.1:0",
        "--first-start",
        *options,
    ]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Daemon(address=_address(process), process=process)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """From the line it prints when it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"powerd ended with {process.wait(READY_WITHIN_S)} before it listened"
    return str(json.loads(line)["address"])
