"""The journal's thread: takes the newest state, never makes the tick wait.

While a commit is under way newer states replace each other; one commit of the newest makes all of them durable.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from powerd.journal.store import Journal, JournalBroken
from powerd.state.snapshot import Snapshot


@dataclass
class _Job:
    """The newest state that waits, and everybody who waits for it or an older one."""

    snapshot: Snapshot
    waiting: list[Future[None]] = field(default_factory=list)


class JournalWriter:
    """Runs the commits of one journal in a thread of its own."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._job: _Job | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="powerd-journal", daemon=True)
        self._thread.start()

    def commit(self, snapshot: Snapshot) -> asyncio.Future[None]:
        """Hands over a state; the future ends when it (or a newer one) is durable.

        The future fails with ``JournalBroken`` where the disk refused; the next state will be tried again.
        """
        done: Future[None] = Future()
        with self._wake:
            waiting = self._job.waiting if self._job is not None else []
            self._job = _Job(snapshot, [*waiting, done])
            self._wake.notify()
        return asyncio.wrap_future(done)

    def _run(self) -> None:
        """Commits until closed."""
        while True:
            with self._wake:
                while self._job is None and not self._closing:
                    self._wake.wait()
                job, self._job = self._job, None
            if job is None:
                self._journal.close()
                return
            self._write(job)

    def _write(self, job: _Job) -> None:
        """One commit, and word of it to all who wait."""
        broken: JournalBroken | None = None
        try:
            self._journal.commit(job.snapshot)
        except JournalBroken as error:
            broken = error
        for done in job.waiting:
            if not done.set_running_or_notify_cancel():
                continue
            if broken is None:
                done.set_result(None)
            else:
                done.set_exception(broken)

    def close(self) -> None:
        """Commits what waits, then closes the file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
