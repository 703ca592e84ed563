"""The journal's thread: takes ticks, never makes them wait.

While a commit is under way newer ticks queue up; one commit makes all of them durable together.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from powerd.journal.store import Entry, Journal, JournalBroken

_log = logging.getLogger("powerd")


@dataclass
class _Job:
    """Ticks that wait, and everybody who waits for them."""

    entries: list[Entry] = field(default_factory=list)
    waiting: list[Future[None]] = field(default_factory=list)


class JournalWriter:
    """Runs the commits of one journal in a thread of its own, which outlives every error of theirs."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = _Job()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="powerd-journal")

    def commit(self, entry: Entry) -> asyncio.Future[None]:
        """Hands over a tick; the future ends when it is durable.

        The future fails with ``JournalBroken`` where the disk refused, or powerd made a mistake; the state after it
        will be written with the next tick.
        """
        done: Future[None] = Future()
        with self._lock:
            job, first = self._open, not self._open.entries
            job.entries.append(entry)
            job.waiting.append(done)
        if first:
            self._thread.submit(self._write, job).add_done_callback(partial(_tell, job))
            self._thread.submit(self._journal.tidy).add_done_callback(_tidied)
        return asyncio.wrap_future(done)

    def _write(self, job: _Job) -> None:
        """One commit of all that has come until now."""
        with self._lock:
            self._open = _Job()
        self._journal.commit(job.entries)

    def close(self) -> None:
        """Commits what waits, then closes the file."""
        self._thread.submit(self._journal.close).add_done_callback(_tidied)
        self._thread.shutdown()


def _tell(job: _Job, outcome: Future[None]) -> None:
    """Word of a commit to all who wait for it."""
    error = outcome.exception()
    if error is not None and not isinstance(error, JournalBroken):
        _log.error("a mistake in the journal, please report it", exc_info=error)
        error = JournalBroken(f"a mistake in the journal, please report it: {error!r}")
    for done in job.waiting:
        if not done.set_running_or_notify_cancel():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _tidied(outcome: Future[None]) -> None:
    """Nobody waits for it; a disk that refuses it will refuse the next commit too, and that counts."""
    error = outcome.exception()
    if isinstance(error, JournalBroken):
        _log.warning("%s", error)
    elif error is not None:
        _log.error("a mistake in the journal, please report it", exc_info=error)
