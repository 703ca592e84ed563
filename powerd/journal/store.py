"""The journal file: SQLite in WAL mode, ``synchronous=FULL``, one transaction a tick, columns as blobs.

apsw brings a current SQLite; the one in many Python images is inside the range of the WAL-reset corruption fixed in
3.51.3. The file always holds the newest committed state, one row a column, so its size does not grow with time.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import numpy as np

from powerd.errors import PowerdError
from powerd.journal.columns import Column, remainder_of, snapshot_of
from powerd.state.snapshot import Snapshot, columns_of

VERSION = 1
"""Layout of the file; raised with every change that an older powerd could misread."""

_LAYOUT = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS columns (
    path TEXT PRIMARY KEY, tick INTEGER NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL
);
"""


class JournalBroken(PowerdError):
    """The file cannot be used; the message says what is wrong with it and what to do."""


class Journal:
    """One open journal file; used by one thread at a time."""

    def __init__(self, path: Path, *, evse_ids: tuple[str, ...]) -> None:
        """Opens or makes the file.

        Args:
            path: the file; its folder must exist.
            evse_ids: the site's EVSEs; a file that was written for others is refused.

        Raises:
            JournalBroken: it is no journal, is damaged, is newer than this powerd, belongs to another site, or the disk
                refuses.
        """
        self._path = path
        self._committed: dict[str, Column] = {}
        try:
            self._db = apsw.Connection(str(path))
            self._db.pragma("locking_mode", "exclusive")  # two daemons would grant the same current twice
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", "full")
            self._refuse_damage()
            self._db.execute(_LAYOUT)
            self._claim(evse_ids)
        except apsw.Error as error:
            raise JournalBroken(
                f"{path}: {error}; move the file away to start without state (raises then wait for old leases to end)"
            ) from error

    def _refuse_damage(self) -> None:
        """Looks at every page once; a restart is rare and the file small."""
        verdict = self._db.pragma("quick_check")
        if verdict != "ok":
            raise JournalBroken(f"{self._path} is damaged ({verdict}); move it away to start without state")

    def _claim(self, evse_ids: tuple[str, ...]) -> None:
        """Checks version and site, or writes them into a new file."""
        about = dict(self._db.execute("SELECT key, value FROM about"))
        ids = "\n".join(evse_ids)
        if not about:
            self._db.executemany("INSERT INTO about VALUES (?, ?)", [("version", str(VERSION)), ("evse_ids", ids)])
            return
        if int(about["version"]) > VERSION:
            raise JournalBroken(
                f"{self._path} was written by a newer powerd (layout {about['version']}, this one knows {VERSION}); "
                "run that one, or move the file away to start without state"
            )
        if about["evse_ids"] != ids:
            raise JournalBroken(
                f"{self._path} belongs to a site with other EVSEs; name another file with --journal, or move this one "
                "away to start without state (raises then wait for old leases to end)"
            )

    def recover(self, like: Snapshot) -> Snapshot | None:
        """The newest committed state, None in a new file.

        Raises:
            JournalBroken: the state does not fit this version.
        """
        rows = list(self._db.execute("SELECT path, dtype, shape, data FROM columns"))
        about = dict(self._db.execute("SELECT key, value FROM about"))
        if not rows or "remainder" not in about:
            return None
        columns = {
            path: np.frombuffer(data, dtype=dtype).reshape([int(k) for k in shape.split(",")]).copy()
            for path, dtype, shape, data in rows
        }
        try:
            snapshot = snapshot_of(like, columns, about["remainder"])
        except (KeyError, ValueError) as error:
            raise JournalBroken(
                f"{self._path} does not fit this powerd ({error}); move it away to start without state"
            ) from error
        return snapshot

    def commit(self, snapshot: Snapshot) -> int:
        """Makes a state durable; returns how many columns had changed.

        Raises:
            JournalBroken: the disk refuses; the state before is still there, and a later commit writes what this one
                could not.
        """
        columns = columns_of(snapshot)
        changed = {path: column for path, column in columns.items() if self._committed.get(path) is not column}
        rows = [
            (path, snapshot.tick, column.dtype.str, ",".join(map(str, column.shape)), column.tobytes())
            for path, column in changed.items()
        ]
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO columns VALUES (?, ?, ?, ?, ?)", rows)
                self._db.executemany(
                    "INSERT OR REPLACE INTO about VALUES (?, ?)",
                    [("remainder", remainder_of(snapshot))],
                )
        except apsw.Error as error:
            raise JournalBroken(f"{self._path}: {error}; no ceiling is raised until it can be written") from error
        self._committed = columns
        return len(changed)

    def close(self) -> None:
        """Checkpoints and closes."""
        self._db.close()
