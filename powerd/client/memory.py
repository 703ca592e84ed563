"""Keeps a controller's ``Memory`` in a small file, so that a stop survives a restart of the process."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from powerd.client.core import Memory
from powerd.client.threads import DaemonThreads
from powerd.errors import UnreadableInput

logger = logging.getLogger(__name__)

SLOW_SAVE_S = 5.0
"""A save that takes longer is told in the log [s]."""
LAST_SAVE_S = 1.0
"""How long the end of a controller waits for its disk [s]."""


def load_memory(path: Path, controller_id: str | None = None) -> Memory:
    """What was kept; nothing if there is no such file yet.

    Args:
        path: the file.
        controller_id: whose it has to be, where it says whose it is; None = anybody's.

    Raises:
        UnreadableInput: the file is not what ``save_memory`` wrote, or is another controller's.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        memory = Memory(highest_epoch=int(kept["highest_epoch"]), latched=frozenset(map(str, kept["latched"])))
        _refuse_foreign(path, kept, controller_id)
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise UnreadableInput(
            f"{path}: not a controller's memory ({bad}); if no stop is in force here, delete it and start again"
        ) from bad
    return memory


def save_memory(path: Path, memory: Memory, controller_id: str | None = None) -> None:
    """Replaces the file as a whole; it is on the disk under its name when this returns.

    Raises:
        OSError: it is not, or not for sure; else what was kept before still is.
        UnreadableInput: the file is another controller's, and stays as it is.
    """
    kept = {"controller_id": controller_id, "highest_epoch": memory.highest_epoch, "latched": sorted(memory.latched)}
    scratch = path.with_name(f"{path.name}.new")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(folder, fcntl.LOCK_EX)  # two that start at once see each other's file
        with suppress(FileNotFoundError, ValueError):  # a damaged one is mended
            _refuse_foreign(path, json.loads(path.read_text(encoding="utf-8")), controller_id)
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        os.fsync(folder)  # the new name too: without it a loss of power may bring the old content back
    finally:
        os.close(folder)


def _refuse_foreign(path: Path, kept: object, controller_id: str | None) -> None:
    """A file of before says nothing of whose it is: it is taken."""
    whose = kept.get("controller_id") if isinstance(kept, dict) else None
    if whose is not None and controller_id is not None and whose != controller_id:
        raise UnreadableInput(
            f"{path}: keeps the stops of controller {whose!r}, not of {controller_id!r}: give each controller a "
            f"memory_file of its own; if it is {whose!r} that now has another id, write that into the file"
        )


class MemoryKeeper:
    """Saves a memory by a thread: nobody waits for the disk. Use on one event loop.

    One save at a time, the newest memory next: a disk that hangs holds one thread and two memories.
    """

    def __init__(
        self, path: Path, controller_id: str, memory: Memory, ended: Callable[[UnreadableInput | None], None]
    ) -> None:
        """Saves nothing yet.

        Args:
            path: the file.
            controller_id: whose it is.
            memory: what it keeps.
            ended: called after each save; with an error if the file is another controller's.
        """
        self._path, self._controller_id, self._on_end = path, controller_id, ended
        self._newest = memory
        # None = a save runs or has failed, so that it is not known which one the file keeps; or whose it says it is.
        self._saved: Memory | None = None
        self._stops = memory.latched  # those that the file keeps, whatever becomes of that save
        self._save: asyncio.Future[None] | None = None
        self._begun_s = 0.0
        self._told = False  # that the disk refuses or hangs
        self._threads = DaemonThreads("powerd-memory")

    def keeps_stop(self, evse_id: str) -> bool:
        """A restart would not forget the stop of this EVSE."""
        return evse_id in self._stops

    def keep(self, memory: Memory) -> None:
        """Saves ``memory`` unless it is saved, after the save that runs; call it often: a failed one is tried again."""
        self._newest = memory
        now_s = asyncio.get_running_loop().time()
        if self._save is not None:
            if not self._told and now_s - self._begun_s > SLOW_SAVE_S:
                self._told = True
                logger.error("%s: not written for %g s, so that no stop is acked until it is", self._path, SLOW_SAVE_S)
        elif memory != self._saved:
            self._saved, self._stops, self._begun_s = None, self._stops & memory.latched, now_s
            self._save = self._threads.run(partial(save_memory, self._path, memory, self._controller_id))
            self._save.add_done_callback(partial(self._ended, memory))

    async def end(self) -> None:
        """Gives what is not saved yet a moment; a disk that hangs holds up neither this nor the program's end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SAVE_S):
                while self._save is not None:
                    await asyncio.wait({self._save})
        self._threads.end()

    def _ended(self, memory: Memory, save: asyncio.Future[None]) -> None:
        self._save = None
        refused = None
        try:
            save.result()
        except (OSError, UnreadableInput) as failed:
            refused = failed if isinstance(failed, UnreadableInput) else None
            if not self._told:
                logger.exception("%s: cannot be written, so that no stop is acked until it can", self._path)
            self._told = True
        else:
            self._saved, self._stops = memory, memory.latched
            if self._told:
                logger.warning("%s: written again", self._path)
            self._told = False
            self.keep(self._newest)
        self._on_end(refused)
