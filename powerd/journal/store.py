"""The journal file: SQLite in WAL mode, ``synchronous=FULL``, one transaction a tick.

A transaction holds the cells of the state that changed and the record of every tick since the last one. The newest
state alone is what a restart needs; the record is what a replay needs, and it is the part that is cut off at its old
end when the file grows beyond its bound.

apsw brings a current SQLite; the one in many Python images is inside the range of the WAL-reset corruption fixed in
3.51.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import apsw

from powerd.control.decision import Decision
from powerd.control.events import Event
from powerd.errors import PowerdError
from powerd.journal import layout
from powerd.journal.cells import Packed, Packer, snapshot_of
from powerd.journal.log import lay_out
from powerd.journal.machine import fingerprint
from powerd.journal.record import ROOT, Kind, Record, state_record, tick_record
from powerd.journal.trouble import AWAY, told
from powerd.state.columns import replace
from powerd.state.snapshot import Snapshot
from powerd.state.switchgear import redrawn
from powerd.units import Now

BOUND_BYTES = 512 * 1024 * 1024
"""The record is cut off at its old end once the file holds more: weeks of a garage, minutes of a hub with thousands of
EVSEs.
"""
SEGMENTS_AT_ONCE = 2
"""So many go at most when a new one begins: a file far above its bound comes down to it bit by bit, no tick waits."""
SEGMENT_BYTES = 1024 * 1024
"""A replay may begin at least this often [bytes of record]; seldomer where a snapshot is large."""
SEGMENT_STATES = 4
"""A segment is at least this many times as long as the snapshot that it begins with: snapshots cost a fifth."""
PENDING_BYTES = 64 * 1024 * 1024
"""Record kept in memory while the disk refuses; beyond it a gap is recorded instead."""
LARGE_SITE = 2000
"""From this many EVSEs on a file is made with large pages: larger ones write more of what did not change beside what
did (0.1 MB a calm tick of 10 000 EVSEs with 32 kB, 48 kB with these), smaller ones take more calls.
"""
SMALL_PAGE, LARGE_PAGE = 4096, 16384
"""Page sizes of SQLite [bytes]."""
WAL_BYTES = 16 * 1024 * 1024
"""The write-ahead log is folded into the file beyond this, between two ticks."""


_VERDICTS = """SELECT verdict.* FROM sqlite_schema AS own, pragma_quick_check(own.name) AS verdict
    WHERE own.type = 'table' AND own.name <> 'records'"""
"""Of all tables but the record."""


class JournalBroken(PowerdError):
    """The file cannot be used; the message says what is wrong with it and what to do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One tick as the daemon hands it over."""

    now: Now
    """Its instant."""
    events: Sequence[Event]
    """What it absorbed, in order."""
    decision: Decision
    """What it decided, with the state after it."""


class Journal:
    """One open journal file; used by one thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        evse_ids: tuple[str, ...],
        elements: tuple[str, ...] = (),
        drawing: str = "",
        bound_bytes: int = BOUND_BYTES,
        vfs: str | None = None,
    ) -> None:
        """Opens, migrates or makes the file.

        Args:
            path: the file; its folder must exist.
            evse_ids: the site's EVSEs; a file that was written for others is refused.
            elements: ``elements_of`` the drawing; a file that was written for others, or for the same in another order,
                is refused: a fault would be held against another element. () = only those of the file are known.
            drawing: ``fingerprint_of`` the drawing; another one than before is noted, and told by ``redrawn``.
            bound_bytes: about how large the file may grow.
            vfs: SQLite's way to the disk; None = the usual one.

        Raises:
            JournalBroken: it is no journal, is damaged, is newer than this powerd, belongs to another site, or the disk
                refuses.
        """
        self._path = path
        self._drawing = drawing
        self._elements = elements
        self.redrawn = False
        """The file was last written for another drawing of the same EVSEs."""
        self._bound_bytes = bound_bytes
        self._machine = fingerprint()
        self._terms = ""
        self._packer = Packer()
        self._committed: dict[str, Packed] = {}
        self._pending: list[Record] = []
        self._gap = False
        self.logged_pages = 0
        """Pages in the write-ahead log."""
        try:
            self._db = apsw.Connection(str(path), vfs=vfs)
        except apsw.Error as error:
            raise JournalBroken(told(path, error)) from error
        try:
            self._take_over(evse_ids)
        except apsw.BusyError as busy:
            self._db.close()
            raise JournalBroken(f"{path}: {busy}: another daemon has it open; stop that one first") from busy
        except apsw.Error as error:
            self._db.close()
            raise JournalBroken(told(path, error)) from error
        except ValueError as damage:
            self._db.close()
            raise JournalBroken(f"{path} is damaged ({damage}); {AWAY}") from damage
        except JournalBroken:
            self._db.close()
            raise

    def _take_over(self, evse_ids: tuple[str, ...]) -> None:
        """Locks the file, looks whether it is sound, ours and of our version, and finds its end."""
        self._db.pragma("locking_mode", "exclusive")  # two daemons would grant the same current twice
        self._db.pragma("page_size", LARGE_PAGE if len(evse_ids) >= LARGE_SITE else SMALL_PAGE)  # of a new file
        self._db.pragma("journal_mode", "wal")
        self._db.pragma("synchronous", "full")
        self._db.set_wal_hook(self._logged)  # replaces SQLite's own checkpoints, which come inside a commit
        self.page_bytes = int(self._db.pragma("page_size"))
        """Size of a page."""
        self._refuse_damage()
        self._claim(evse_ids)
        self._find_end()
        self.redrawn = self._about().get("drawing", "") not in {"", self._drawing}

    def _logged(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        """SQLite's word after each commit of how long its log is."""
        self.logged_pages = pages
        return apsw.SQLITE_OK

    def _refuse_damage(self) -> None:
        """Looks at every page of the state; at those of the record a replay does, for every grant would wait for it."""
        for (verdict,) in self._db.execute(_VERDICTS):
            if verdict != "ok":
                raise JournalBroken(f"{self._path} is damaged ({verdict}); {AWAY}")

    def _claim(self, evse_ids: tuple[str, ...]) -> None:
        """Checks version and site, or writes them into a new file."""
        ids = "\n".join(evse_ids)
        if not _has_tables(self._db):
            with self._db:
                layout.create(self._db)
                news = [("version", str(layout.VERSION)), ("evse_ids", ids), ("drawing", self._drawing)]
                self._db.executemany("INSERT INTO about VALUES (?, ?)", news)
            self._claim_elements("")
            return
        about = self._about()
        version = _version(about.get("version", ""))
        if version > layout.VERSION:
            raise JournalBroken(
                f"{self._path} was written by a newer powerd (layout {version}, this one knows {layout.VERSION}); "
                "run that one, or move the file away to start without state"
            )
        if version < 1:
            raise JournalBroken(f"{self._path} is no journal of powerd; name another file with --journal")
        self._refuse_others(about.get("evse_ids", "").split("\n"), evse_ids)
        self._claim_elements(about.get("elements", ""))
        if version < layout.VERSION:
            layout.migrate(self._db, version)

    def _refuse_others(self, written: Sequence[str], evse_ids: Sequence[str]) -> None:
        """Checks whose state the columns are: of these EVSEs, in this order."""
        for there, here in zip(written, evse_ids, strict=False):
            if there != here and sorted(written) == sorted(evse_ids):
                raise JournalBroken(
                    f"{self._path} was written for these EVSEs in another order ({there}, where the site file now has "
                    f"{here}): write stations and EVSEs in the order of before, and nothing is lost"
                )
        if list(written) != list(evse_ids):
            raise JournalBroken(
                f"{self._path} belongs to a site with other EVSEs; name another file with --journal, or move this one "
                "away to start without state (raises then wait for old leases to end)"
            )

    def _claim_elements(self, written: str) -> None:
        """Checks whose state the rows of the switchgear are; a file that does not say it yet says it from now on."""
        if not self._elements:
            return
        if not written:
            with self._db:
                self._db.execute("INSERT INTO about VALUES ('elements', ?)", ("\n".join(self._elements),))
            return
        for there, here in zip_longest(written.split("\n"), self._elements, fillvalue="nothing"):
            if there != here:
                raise JournalBroken(
                    f"{self._path} was written for other branches, supplies or buses, or for these in another order "
                    f"({there}, where the site file now has {here}): faults and locks would be held against the wrong "
                    f"one; draw them as they were, name another file with --journal, or {AWAY}"
                )

    def _note_drawing(self) -> None:
        """Says for which drawing the record goes on from here, and since when it was another one."""
        before = self._about().get("drawing", "")
        if before == self._drawing:
            return
        notes = [("drawing", self._drawing), (f"{layout.DRAWN}{self._number + 1}", self._drawing)]
        if self._number:
            self._db.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (f"{layout.DRAWN}0", before))
        self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", notes)

    def _about(self) -> dict[str, str]:
        """What the file says of itself; nothing where it is another program's."""
        if not list(self._db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'about'")):
            return {}
        return layout.about_in(self._db)

    def _find_end(self) -> None:
        """Where the chain goes on."""
        self._number, self._head = 0, ROOT
        for number, digest in self._db.execute("SELECT number, digest FROM records ORDER BY number DESC LIMIT 1"):
            if type(digest) is not bytes:
                raise ValueError(f"record {number}, the newest, has no digest")
            self._number, self._head = number, digest
        self._segment_bytes = self._state_bytes = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def recover(self, like: Snapshot) -> Snapshot | None:
        """The newest committed state, None in a new file.

        Where the site was drawn anew since, what its meters showed is forgotten: they may be others, or elsewhere; and
        switches and supplies of which nobody has told are as ``like`` has them, which is the new drawing.

        Raises:
            JournalBroken: the state is damaged or does not fit this version.
        """
        try:
            found = read_state(self._db, like, but="meters" if self.redrawn else None)
        except apsw.Error as error:
            raise JournalBroken(told(self._path, error)) from error
        except ValueError as error:
            raise JournalBroken(f"{self._path} cannot be read ({error}); {AWAY}") from error
        if found is not None and self.redrawn:
            found = replace(found, gear=redrawn(found.gear, like.gear))
        return found

    # --- writing ------------------------------------------------------------------------------------------------------

    def start(self, snapshot: Snapshot, now: Now, terms: str = "") -> None:
        """Makes the state durable with which a daemon begins; a replay may begin here.

        Args:
            snapshot: the state.
            now: the instant of the start.
            terms: ``Stepper.terms`` of the daemon.

        Raises:
            JournalBroken: the disk refuses.
        """
        self._terms = terms
        self._pending.append(self._state_record(Kind.START, snapshot, now.utc.timestamp()))
        self._packer.take(snapshot)
        try:
            with self._db:  # the state of another drawing is taken over and noted at once, or not at all
                self._note_drawing()
                self._write(snapshot)
        except apsw.Error as error:
            raise JournalBroken(told(self._path, error)) from error
        lay_out(self._path.with_name(f"{self._path.name}-wal"), WAL_BYTES)

    def _state_record(self, kind: Kind, snapshot: Snapshot, utc_s: float) -> Record:
        return state_record(kind, snapshot, utc_s, self._machine, self._terms)

    def commit(self, entries: Sequence[Entry], *, lost: bool = False) -> int:
        """Makes ticks and the state after the last of them durable; returns how many cells had changed.

        Args:
            entries: the ticks, in order.
            lost: ticks before them were given up: the record gets a gap.

        Raises:
            JournalBroken: the disk refuses; what was there before still is, and a later commit writes what this one
                could not.
        """
        had_gap, self._gap = self._gap, True  # it has one if one of these cannot be taken in, whatever the reason
        for e in entries:
            state = self._packer.take(e.decision.snapshot)
            self._pending.append(tick_record(e.now, e.events, e.decision, state))
        self._gap = had_gap or lost or sum(len(record.content) for record in self._pending) > PENDING_BYTES
        newest = entries[-1]
        if self._gap:
            gap = self._state_record(Kind.GAP, newest.decision.snapshot, newest.now.utc.timestamp())
            self._pending = [gap]
        return self._write(newest.decision.snapshot)

    def _write(self, snapshot: Snapshot) -> int:
        """One transaction: the cells that changed, and what was not yet recorded; ``snapshot`` is packed already."""
        cells = dict(self._packer.kept)
        changed = {path: cell for path, cell in cells.items() if self._committed.get(path) is not cell}
        number, head, rows = self._chained()
        try:
            with self._db:
                self._db.executemany(
                    layout.WRITE_CELL,
                    (cell.row(path, snapshot.tick) for path, cell in changed.items()),
                )
                self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except apsw.Error as error:
            raise JournalBroken(f"{told(self._path, error)}; no ceiling is raised until it can be written") from error
        self._settle(number, head, snapshot, cells)
        return len(changed)

    def _chained(self) -> tuple[int, bytes, list[tuple[object, ...]]]:
        """The pending records as rows, with the number and the digest of the last."""
        number, head = self._number, self._head
        rows: list[tuple[object, ...]] = []
        for r in self._pending:
            number += 1
            before, head = head, r.sealed(head, number)
            rows.append((number, str(r.kind), r.tick, r.utc_s, r.boottime_s, r.content, r.decided, before, head))
        return number, head, rows

    def _settle(self, number: int, head: bytes, snapshot: Snapshot, cells: dict[str, Packed]) -> None:
        """Notes what is durable now."""
        self._number, self._head, self._committed, self._newest = number, head, cells, snapshot
        for record in self._pending:
            size = len(record.content)
            self._segment_bytes += size
            if record.kind is not Kind.TICK:
                self._segment_bytes, self._state_bytes = 0, size
            self._utc_s = record.utc_s
        self._pending, self._gap = [], False

    # --- between two ticks --------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Checkpoints, cuts off the old end and folds the log, where it is time; nobody waits for it.

        Raises:
            JournalBroken: the disk refuses; nothing is lost by it.
        """
        try:
            if self._segment_bytes > max(SEGMENT_BYTES, SEGMENT_STATES * self._state_bytes) and not self._pending:
                self._pending.append(self._state_record(Kind.CHECKPOINT, self._newest, self._utc_s))
                self._write(self._newest)
                for _ in range(SEGMENTS_AT_ONCE):
                    self._cut()
            if self.logged_pages * self.page_bytes > WAL_BYTES:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            raise JournalBroken(told(self._path, error)) from error

    def _cut(self) -> bool:
        """Cuts off the segment at the old end if the file holds more than its bound; False = there was nothing to cut.

        Whole pages are counted, and what is in them is not: of a large file that alone would take seconds.
        """
        if self._held_bytes() <= self._bound_bytes:
            return False
        second = "SELECT number FROM records WHERE kind <> 'tick' ORDER BY number LIMIT 1 OFFSET 1"
        found = list(self._db.execute(second))
        if not found:
            return False
        with self._db:
            self._db.execute("DELETE FROM records WHERE number < ?", found[0])
        return True

    def _held_bytes(self) -> int:
        """How much of the file is in use."""
        return self.page_bytes * (int(self._db.pragma("page_count")) - int(self._db.pragma("freelist_count")))

    def compact(self) -> None:
        """Gives back to the disk what a lower bound has freed: rewrites the file if more than half of it is empty.

        Raises:
            JournalBroken: the disk refuses; the file is as it was.
        """
        try:
            if self._held_bytes() > 2 * self._bound_bytes:
                while self._cut():
                    pass
            if 2 * int(self._db.pragma("freelist_count")) > int(self._db.pragma("page_count")):
                self._db.execute("VACUUM")
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            raise JournalBroken(told(self._path, error)) from error

    def close(self) -> None:
        """Folds the log and closes."""
        self._db.close()


def read_state(db: apsw.Connection, like: Snapshot, *, but: str | None = None) -> Snapshot | None:
    """The newest committed state of an open journal, None where there is none; the part ``but`` as ``like`` has it.

    Raises:
        ValueError: it is damaged, or of another site or version; the message names the cell.
    """
    found = layout.cells_in(db)
    cells = {path: cell for path, cell in found.items() if but is None or not path.startswith(f"{but}/")}
    return snapshot_of(like, cells) if found else None


def _has_tables(db: apsw.Connection) -> bool:
    return bool(list(db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")))


def _version(text: str) -> int:
    return int(text) if text.isdecimal() else 0
