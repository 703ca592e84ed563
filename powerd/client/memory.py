"""Keeps a controller's ``Memory`` in a small file, so that a stop survives a restart of the process."""

from __future__ import annotations

import json
import os
from pathlib import Path

from powerd.client.core import Memory
from powerd.errors import UnreadableInput


def load_memory(path: Path) -> Memory:
    """What was kept; nothing if there is no such file yet.

    Raises:
        UnreadableInput: the file is not what ``save_memory`` wrote.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Memory(highest_epoch=int(kept["highest_epoch"]), latched=frozenset(map(str, kept["latched"])))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise UnreadableInput(
            f"{path}: not a controller's memory ({bad}); if no stop is in force here, delete it and start again"
        ) from bad


def save_memory(path: Path, memory: Memory) -> None:
    """Replaces the file as a whole; it is on the disk under its name when this returns.

    Raises:
        OSError: it is not; what was kept before still is.
    """
    scratch = path.with_name(f"{path.name}.new")
    with scratch.open("w", encoding="utf-8") as file:
        json.dump({"highest_epoch": memory.highest_epoch, "latched": sorted(memory.latched)}, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too: without it a loss of power may bring the old content back
    finally:
        os.close(folder)
