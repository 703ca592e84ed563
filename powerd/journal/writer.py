"""The journal's thread: takes ticks, never makes them wait.

While a commit is under way newer ticks queue up; one commit makes all of them durable together.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from powerd.journal.store import Entry, Journal, JournalBroken

_log = logging.getLogger("powerd")


@dataclass
class _Job:
    """Ticks that wait, and everybody who waits for them."""

    entries: list[Entry] = field(default_factory=list)
    waiting: list[Future[None]] = field(default_factory=list)


class JournalWriter:
    """Runs the commits of one journal in a thread of its own."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._job = _Job()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="powerd-journal", daemon=True)
        self._thread.start()

    def commit(self, entry: Entry) -> asyncio.Future[None]:
        """Hands over a tick; the future ends when it is durable.

        The future fails with ``JournalBroken`` where the disk refused; the tick will be written with the next one.
        """
        done: Future[None] = Future()
        with self._wake:
            self._job.entries.append(entry)
            self._job.waiting.append(done)
            self._wake.notify()
        return asyncio.wrap_future(done)

    def _run(self) -> None:
        """Commits until closed."""
        while True:
            with self._wake:
                while not self._job.entries and not self._closing:
                    self._wake.wait()
                job, self._job = self._job, _Job()
            if not job.entries:
                self._journal.close()
                return
            self._write(job)
            self._tidy()

    def _write(self, job: _Job) -> None:
        """One commit, and word of it to all who wait."""
        broken: JournalBroken | None = None
        try:
            self._journal.commit(job.entries)
        except JournalBroken as error:
            broken = error
        for done in job.waiting:
            if not done.set_running_or_notify_cancel():
                continue
            if broken is None:
                done.set_result(None)
            else:
                done.set_exception(broken)

    def _tidy(self) -> None:
        """What can wait until nobody does; a disk that refuses it will refuse the next commit too, and that counts."""
        try:
            self._journal.tidy()
        except JournalBroken as error:
            _log.warning("%s", error)

    def close(self) -> None:
        """Commits what waits, then closes the file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
