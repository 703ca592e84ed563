"""The journal's thread: takes ticks, never makes them wait.

While a commit is under way newer ticks queue up; one commit makes all of them durable together. Of a disk that does not
answer at all they are given up before they fill the memory.
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

HELD_BYTES = 64 * 1024 * 1024
"""Ticks that wait for a commit are given up beyond this, about as much as is kept of what the disk refuses."""
TICK_BYTES, EVSE_BYTES, EVENT_BYTES = 40_000, 400, 250
"""What a tick that waits takes at most, with its state: by itself, for each EVSE and for each event (CPython 3.11)."""


@dataclass
class _Job:
    """Ticks that wait, and everybody who waits for them."""

    entries: list[Entry] = field(default_factory=list)
    waiting: list[Future[None]] = field(default_factory=list)
    lost: bool = False
    """Ticks right before them were given up; so is each of them once a newer one comes."""

    @property
    def held_bytes(self) -> int:
        """About how much memory they take."""
        return sum(
            TICK_BYTES + EVSE_BYTES * one.decision.ceiling.shape[0] + EVENT_BYTES * len(one.events)
            for one in self.entries
        )


class JournalWriter:
    """Runs the commits of one journal in a thread of its own, which outlives every error of theirs."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open = _Job()
        self._under_way = _Job()
        self._untidy = False
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="powerd-journal")

    def commit(self, entry: Entry) -> asyncio.Future[None]:
        """Hands over a tick; the future ends when it is durable.

        The future fails with ``JournalBroken`` where the disk refused, where too much waits for it, or where powerd
        made a mistake: the tick may be durable all the same, and the state after it is written with the next one.
        """
        done: Future[None] = Future()
        with self._lock:
            job, first = self._open, not self._open.entries
            job.entries.append(entry)
            job.waiting.append(done)
            given_up = self._given_up()
        if first:
            self._thread.submit(self._write, job).add_done_callback(partial(self._tell, job))
            self._thread.submit(self._journal.tidy).add_done_callback(self._tidied)
        told = asyncio.wrap_future(done)
        for one in given_up:
            if one.set_running_or_notify_cancel():
                one.set_exception(
                    JournalBroken("the disk of the journal does not answer; no ceiling is raised until it does")
                )
        return told

    def _given_up(self) -> list[Future[None]]:
        """Who waits for ticks that are given up, the oldest first: all where too many wait; the newest is kept."""
        fits = self._open.held_bytes + self._under_way.held_bytes <= HELD_BYTES
        if fits and not self._open.lost:
            return []
        waiting = [*self._under_way.waiting, *self._open.waiting]
        self._under_way.waiting, self._open.waiting = [], []
        self._open.lost = self._open.lost or len(self._open.entries) > 1
        del self._open.entries[:-1]
        return waiting

    def _write(self, job: _Job) -> None:
        """One commit of all that has come until now."""
        with self._lock:
            self._under_way, self._open = job, _Job()
        self._journal.commit(job.entries, lost=job.lost)

    def _tell(self, job: _Job, outcome: Future[None]) -> None:
        """Word of a commit to all who still wait for it."""
        error = outcome.exception()
        if error is not None and not isinstance(error, JournalBroken):
            _log.error("a mistake in the journal, please report it", exc_info=error)
            error = JournalBroken(f"a mistake in the journal, please report it: {error!r}")
        with self._lock:
            waiting, self._under_way = job.waiting, _Job()
        for done in waiting:
            if not done.set_running_or_notify_cancel():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def close(self) -> None:
        """Commits what waits, then closes the file."""
        self._thread.submit(self._journal.close).add_done_callback(self._tidied)
        self._thread.shutdown()

    def _tidied(self, outcome: Future[None]) -> None:
        """Nobody waits for it; a disk that refuses it will refuse a commit, too, which counts. Told as it begins."""
        error = outcome.exception()
        if isinstance(error, JournalBroken):
            if not self._untidy:
                _log.warning("%s", error)
        elif error is not None:
            _log.error("a mistake in the journal, please report it", exc_info=error)
        self._untidy = isinstance(error, JournalBroken)
