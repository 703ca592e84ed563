"""What a lock must be: hashed, free of this machine, and in step with ``pyproject.toml``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: What would tie the lock to one machine or one server.
FOREIGN = {
    "a URL": re.compile(r"[a-z+]+://", re.IGNORECASE),
    "a direct reference": re.compile(r"^\S+\s*@\s|^-e\b|^--editable"),
    "a place to look for packages": re.compile(
        r"--find-links|(?:^|\s)-f\s|--(?:extra-)?index-url|(?:^|\s)-i\s|--no-index"
    ),
    "an absolute path": re.compile(r"(?:^|[\s=@])(?:/|~/|[A-Z]:\\)"),
    "a local file": re.compile(r"(?:^|[\s@])\.{1,2}/|\bfile:"),
}

PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")


def foreign(lock: str) -> list[str]:
    """``line: what`` for everything in the lock that another machine might not have."""
    return [f"{number}: {what}" for number, line in enumerate(lock.splitlines(), 1) for what in _foreign(line)]


def _foreign(line: str) -> Iterator[str]:
    return (what for what, pattern in FOREIGN.items() if pattern.search(line))


def unhashed(lock: str) -> list[str]:
    """Requirements without a hash."""
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", lock).strip())
    return [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]


def pins(lock: str) -> dict[str, set[str]]:
    """Canonical name -> the versions pinned (several where Python versions differ)."""
    found: dict[str, set[str]] = {}
    for line in lock.splitlines():
        match = PIN.match(line)
        if match:
            found.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return found


def out_of_step(lock: str, requirements: list[str]) -> list[str]:
    """Requirements of the project that the lock does not pin, or pins to a version they do not admit."""
    pinned = pins(lock)
    wanted = [Requirement(text) for text in requirements]
    return [str(need) for need in wanted if not _met(need, pinned.get(canonicalize_name(need.name), set()))]


def _met(need: Requirement, versions: set[str]) -> bool:
    return bool(versions) and all(need.specifier.contains(version, prereleases=True) for version in versions)
