"""Runs spin over a model: exhaustively, within bounds that the model says."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MEND = "spin is not there: install it (Debian: apt-get install spin gcc), or run as root where apt can reach its mirror"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an exhaustive search found."""

    states: int
    """States stored."""
    errors: int
    """Assertions that fail in some of them."""
    complete: bool
    """The search came to its end within memory and depth."""


def need_spin() -> None:
    """Installs spin where it is missing and can be.

    Raises:
        AssertionError: it is missing and cannot be installed.
    """
    if shutil.which("spin") and shutil.which("gcc"):
        return
    if shutil.which("apt-get"):
        subprocess.run(["apt-get", "update"], check=False, capture_output=True)
        subprocess.run(["apt-get", "install", "-y", "spin", "gcc", "libc6-dev"], check=False, capture_output=True)
    assert shutil.which("spin"), MEND
    assert shutil.which("gcc"), MEND


def check(name: str, folder: Path, *defines: str) -> Verdict:
    """Searches all states of ``name``.pml with these names defined."""
    flags = [f"-D{define}" for define in defines]
    subprocess.run(["spin", *flags, "-a", str(HERE / f"{name}.pml")], cwd=folder, check=True, capture_output=True)
    compiler = ["gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=3000", "-o", "pan", "pan.c"]
    subprocess.run(compiler, cwd=folder, check=True)
    run = subprocess.run(["./pan", "-m4000000", "-w24"], cwd=folder, check=False, capture_output=True, text=True)
    states = re.search(r"([\d.e+]+) states, stored", run.stdout)
    errors = re.search(r"errors: (\d+)", run.stdout)
    assert states, run.stdout + run.stderr
    assert errors, run.stdout + run.stderr
    complete = "max search depth too small" not in run.stdout and "out of memory" not in run.stdout + run.stderr
    return Verdict(states=int(float(states[1])), errors=int(errors[1]), complete=complete)
