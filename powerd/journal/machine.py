"""Which machine and which libraries computed a decision: only the same ones owe the same bits."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("powerd", "numpy", "numba", "llvmlite", "scipy", "cvxpy", "clarabel")
"""Whose versions can change a bit of a decision."""


def fingerprint() -> str:
    """One line that differs wherever the same step may round differently."""
    parts = [platform.machine(), _processor(), platform.python_version()]
    parts += [f"{name} {_version(name)}" for name in LIBRARIES]
    return "; ".join(parts)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """Model of the processor: numba compiles for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags", "Features"))]
    return " ".join(sorted(set(named))) or platform.processor()
