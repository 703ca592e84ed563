"""The record read again: every link of the chain checked, every tick stepped through again, every decision compared.

The same machine with the same libraries owes the same bits. Elsewhere a tick owes the same EVSEs and ceilings within
``TOLERANCE``, and each snapshot on the way and the newest state owe the same within it: orders to the switchgear, as
all that is no float, exactly.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import numpy as np

from powerd.codec import Unreadable, decode, encode
from powerd.control.compiled import CompiledSite
from powerd.control.decision import Decision
from powerd.control.step import Stepper
from powerd.errors import UnreadableInput
from powerd.journal import layout
from powerd.journal.cells import FORGOTTEN, STEP, Cells, Packer, cells_of, kept_of, snapshot_of
from powerd.journal.drawing import fingerprint_of
from powerd.journal.machine import fingerprint
from powerd.journal.record import (
    CLASSES,
    ROOT,
    Granted,
    Kind,
    Record,
    StateContent,
    TickContent,
    digest_of,
    granted_by,
    now_of,
)
from powerd.limits import Floats, Ints
from powerd.state.snapshot import Snapshot, reopen_snapshot

TOLERANCE = 1e-6
"""Floats of another machine may differ by this much [own unit]."""


_TYPES = (int, str, int, float, float, bytes, bytes, bytes, bytes)
"""Types of a row of these; SQLite gives another where a bit of it has flipped."""
_RECORDS = "SELECT number, kind, tick, utc_s, boottime_s, content, decided, before, digest FROM records ORDER BY number"


class ReplayRefused(UnreadableInput):
    """The file cannot be replayed at all: it is not there, in use, no journal, or all of another site or version."""


class _Elsewhere(StrEnum):
    """Why records cannot be stepped through here."""

    OLDER = "older"
    """An older powerd wrote them."""
    REDRAWN = "redrawn"
    """They are of another drawing."""
    TERMS = "terms"
    """They are of other terms of users."""


class _Broken(Exception):
    """The record is not what was written, or not what the step decides; the message says where."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Replayed:
    """What a replay found."""

    fault: str | None
    """The first thing that does not hold, with its tick; None = everything does."""
    ticks: int
    """Ticks stepped through."""
    starts: int
    """Daemon starts on the way."""
    checkpoints: int
    """Snapshots compared on the way."""
    gaps: int
    """Places where ticks are missing because the disk was away."""
    exact: int
    """Ticks compared bit by bit."""
    older: int
    """Records of an older powerd, which come first: their chain was checked, only that powerd can step through them."""
    redrawn: int
    """Records of another drawing of the site: their chain was checked, the file of that time steps through them."""
    other_terms: int
    """Records of other terms of users: their chain was checked, the files of that time step through them."""
    terms: tuple[str, ...]
    """Whose terms these were, and which; "" = nobody's."""
    first: datetime | None
    """Instant of the oldest record kept."""
    last: datetime | None
    """Instant of the newest record replayed."""
    decision: Decision | None
    """The last decision."""


@dataclass
class _Course:
    """Where a replay is."""

    site: CompiledSite
    stepper: Stepper
    verify: bool
    here: str
    see: Callable[[Decision], None]
    packer: Packer = field(default_factory=Packer)
    snapshot: Snapshot | None = None
    decision: Decision | None = None
    exactly: bool = False
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    exact: int = 0
    first: datetime | None = None
    last: datetime | None = None
    left: dict[_Elsewhere, int] = field(default_factory=lambda: dict.fromkeys(_Elsewhere, 0))
    """Records that this powerd, with this drawing and these terms, cannot step through."""
    left_ticks: int = 0
    terms: str | None = None
    """Of the newest state; None = there was none of ours."""
    other_terms: dict[str, None] = field(default_factory=dict)
    place: str = "the beginning"

    def through(self, db: apsw.Connection, parts: _Parts, until: datetime | None) -> None:
        """All records, and the newest state where it comes to the end.

        Raises:
            _Broken, _Unlinked: something does not hold.
            ReplayRefused: there was nothing to step through.
        """
        newest = 0
        for newest, record in _chain(db):
            self.place = f"{record.kind} {record.tick} at record {newest}"
            parts.hold(newest, record.kind)
            if newest <= parts.older or not parts.covers(newest):
                self.terms = None
                self.leave(record, _Elsewhere.OLDER if newest <= parts.older else _Elsewhere.REDRAWN)
                continue
            instant = _instant(record)
            over = until is not None and instant > until
            if over and self.first is not None:
                return
            self.place = f"{record.kind} {record.tick} at {instant.isoformat()}"
            content = self.read(record)
            if self.terms not in (None, self.stepper.terms):
                self.leave(record, _Elsewhere.TERMS)
                continue
            if over:
                raise ReplayRefused(
                    f"what can be stepped through begins at {instant.isoformat()}: name that or a later instant with "
                    "--until"
                )
            self.follow(record, content)
        parts.end(newest)
        self.place = f"the state after tick {self.snapshot.tick if self.snapshot else 0}"
        if self.verify:
            _same_state(db, self.snapshot, exactly=self.exactly)
        self.refuse_nothing()

    def refuse_nothing(self) -> None:
        """Of nothing every decision would be the one recorded.

        Raises:
            ReplayRefused: there is something, and it has stepped through no tick.
        """
        if self.first is None or (self.left_ticks and not self.counts[Kind.TICK]):
            raise ReplayRefused(
                f"none of its {self.left_ticks} ticks can be stepped through: {self.left[_Elsewhere.OLDER]} records "
                f"are said to be of older versions, {self.left[_Elsewhere.REDRAWN]} of another drawing and "
                f"{self.left[_Elsewhere.TERMS]} of other terms of users{self._which_terms()}"
            )

    def _which_terms(self) -> str:
        """Those of the record beside those of here."""
        if not self.other_terms:
            return ""
        theirs = "; ".join(map(named_terms, self.other_terms))
        return f" ({theirs}, where the site now has {named_terms(self.stepper.terms)})"

    def leave(self, record: Record, why: _Elsewhere) -> None:
        """This one was decided elsewhere: its chain was checked, and the next state to follow is taken as it is."""
        self.snapshot, self.exactly = None, False
        self.left[why] += 1
        self.left_ticks += record.kind is Kind.TICK

    def read(self, record: Record) -> object:
        """What it holds, with the terms that it may name.

        Raises:
            _Broken: nothing that can be read, or other terms where no daemon started.
        """
        try:
            content = decode(record.content, CLASSES)
        except Unreadable as damage:
            raise _Broken(f"its content cannot be read: {damage}") from damage
        if isinstance(content, StateContent):
            self.enter_terms(record, content.terms)
        return content

    def follow(self, record: Record, content: object) -> None:
        """One record further.

        Raises:
            _Broken: it does not hold.
        """
        instant = _instant(record)
        self.first, self.last = self.first or instant, instant
        self.counts[record.kind] += 1
        match content:
            case TickContent():
                self.tick(record, content)
            case StateContent():
                self.state(record, content)
            case _:
                raise _Broken("it holds neither a tick nor a state")

    def enter_terms(self, record: Record, terms: str) -> None:
        """What follows was bound by these; only a daemon that starts has others than the one before.

        Raises:
            _Broken: others begin here, and none has started.
        """
        if self.terms not in (None, terms) and record.kind is not Kind.START:
            raise _Broken("other terms are said to begin here, where no daemon started")
        self.terms = terms
        if terms != self.stepper.terms:
            self.other_terms[terms] = None

    def tick(self, record: Record, content: TickContent) -> None:
        """Steps through a tick and compares."""
        if self.snapshot is None:
            raise _Broken("no snapshot comes before it")
        decision = self.stepper.step(self.snapshot, content.events, now_of(record))
        self.snapshot, self.decision = decision.snapshot, decision
        if decision.tick != record.tick:
            raise _Broken(f"it would be tick {decision.tick}")
        self.see(decision)
        if not self.verify:
            return
        if digest_of(decision, self.packer.take(decision.snapshot)) == record.decided:
            if encode(content.granted) != encode(granted_by(decision)):
                raise _Broken("what it says that was granted is not what was decided")
            self.exact += 1
            return
        apart = _apart(content.granted, granted_by(decision))
        if self.exactly or apart is not None:
            raise _Broken(f"the step decides otherwise: {apart or 'the same within rounding, but not the same bits'}")

    def state(self, record: Record, content: StateContent) -> None:
        """Goes on from a snapshot, which must be the one that the replay has come to."""
        _fits(content.snapshot, self.site)
        expected = self.snapshot
        if expected is not None and record.kind is Kind.START:
            expected = snapshot_of(expected, _kept(expected))
            expected = reopen_snapshot(expected, self.site.terms, now_of(record), content.snapshot.boot)
            expected = replace(expected, warm_stage=content.snapshot.warm_stage, warm_price=content.snapshot.warm_price)
        self.exactly = content.machine == self.here
        if self.verify and expected is not None and record.kind is not Kind.GAP:
            _same_cells(cells_of(expected), cells_of(content.snapshot), exactly=self.exactly)
        self.snapshot = content.snapshot


def named_terms(terms: str) -> str:
    """Whose, and which, in words."""
    return terms or "no terms"


def replay(
    path: Path,
    site: CompiledSite,
    *,
    verify: bool,
    until: datetime | None = None,
    see: Callable[[Decision], None] = lambda _: None,
) -> Replayed:
    """Replays a journal.

    Args:
        path: the file, with its ``-wal`` if there is one; no daemon may have it open. Neither is changed.
        site: the compiled site it was written for.
        verify: compare every decision and every snapshot; otherwise only the chain is checked.
        until: stop before the first record after this instant (aware); None = to the end, and then the newest state
            is compared, too.
        see: is shown every decision, in order.

    Raises:
        ReplayRefused: the file cannot be replayed at all, or what can be stepped through begins after ``until``.
    """
    course = _Course(site=site, stepper=Stepper(site), verify=verify, here=fingerprint(), see=see)
    fault: str | None = None
    try:
        with _opened(path) as db:
            course.through(db, _parts(db, path, site), until)
    except _Broken as broken:
        fault = f"{course.place}: {broken}"
    except _Unlinked as unlinked:
        fault = str(unlinked)
    except (apsw.Error, UnicodeDecodeError) as error:
        fault = f"after {course.place}: {error}"
    return Replayed(
        fault=fault,
        ticks=course.counts[Kind.TICK],
        starts=course.counts[Kind.START],
        checkpoints=course.counts[Kind.CHECKPOINT],
        gaps=course.counts[Kind.GAP],
        exact=course.exact,
        older=course.left[_Elsewhere.OLDER],
        redrawn=course.left[_Elsewhere.REDRAWN],
        other_terms=course.left[_Elsewhere.TERMS],
        terms=tuple(course.other_terms),
        first=course.first,
        last=course.last,
        decision=course.decision,
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a file says of its records in no chain: which are of an older powerd, which of which drawing."""

    wanted: str
    """Fingerprint of the drawing that is replayed."""
    drawing: str
    """Fingerprint of the newest; "" = nobody said."""
    since: tuple[tuple[int, str], ...]
    """(number of the first record, fingerprint), ascending."""
    older: int
    """Number of the last record that an older powerd wrote."""

    @staticmethod
    def of(about: dict[str, str], wanted: str) -> _Parts:
        """As the file says of itself.

        Raises:
            _Broken: what should be a number is none.
        """
        drawing = about.get("drawing", "")
        keys = [key for key in about if key.startswith(layout.DRAWN)]
        since = sorted((_number(key.removeprefix(layout.DRAWN)), about[key]) for key in keys)
        older = _number(about.get(layout.OLDER, "0"))
        return _Parts(wanted=wanted, drawing=drawing, since=tuple(since) or ((0, drawing),), older=older)

    @property
    def knows(self) -> bool:
        """Some of it was, or may have been, written for the drawing that is replayed."""
        return any(drawing in ("", self.wanted) for _, drawing in self.since)

    def covers(self, number: int) -> bool:
        """This record was, or may have been."""
        known = [drawing for first, drawing in self.since if first <= number]
        return not known or known[-1] in ("", self.wanted)

    def hold(self, number: int, kind: Kind) -> None:
        """Only a daemon that starts has another version, or another drawing, than the one before.

        Raises:
            _Broken: another part begins here, and none has started.
        """
        if kind is not Kind.START and number in {self.older + 1, *(first for first, _ in self.since)}:
            raise _Broken("another version or drawing is said to begin here, where no daemon started")

    def end(self, newest: int) -> None:
        """The last part ends with the record, and is of the drawing of the state.

        Raises:
            _Broken: it does not, or is not.
        """
        if max(self.older, self.since[-1][0]) > newest or self.since[-1][1] != self.drawing:
            raise _Broken(f"what it says of records of other drawings or versions does not fit its {newest} records")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise _Broken(f"it counts its records with {text!r}")
    return int(text)


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    """The file to be read, while no daemon can open it.

    Nothing in its folder is changed, for it is evidence: SQLite would fold the log in.

    Raises:
        ReplayRefused: it is not there, in use, or no database, or there is no room for a copy.
    """
    if not path.is_file():
        raise ReplayRefused(f"{path}: there is no such file")
    log = path.with_name(f"{path.name}-wal")
    with _locked(path), TemporaryDirectory(prefix="powerd-") as folder:
        place, way = f"{path.absolute().as_uri()}?immutable=1", apsw.SQLITE_OPEN_READONLY
        try:
            if log.exists() and log.stat().st_size:
                place, way = str(Path(folder) / "journal"), apsw.SQLITE_OPEN_READWRITE
                shutil.copyfile(path, place)
                shutil.copyfile(log, f"{place}-wal")
            db = apsw.Connection(place, flags=way | apsw.SQLITE_OPEN_URI)
        except (OSError, apsw.Error) as error:
            raise ReplayRefused(f"{path} and its log cannot be copied to {folder}: {error}") from error
        with closing(db):
            _refuse_strangers(db, path)
            yield db


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """As SQLite locks what it reads, without SQLite's files beside it.

    Raises:
        ReplayRefused: a daemon has it, or it cannot be read.
    """
    try:
        file = apsw.VFSFile("", str(path.absolute()), [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    except apsw.Error as error:
        raise ReplayRefused(f"{path}: {error}") from error
    try:
        _lock(file, path)
        yield
    finally:
        file.xClose()


def _lock(file: apsw.VFSFile, path: Path) -> None:
    try:
        file.xLock(apsw.SQLITE_LOCK_SHARED)
    except apsw.BusyError as busy:
        raise ReplayRefused(
            f"{path} is in use by a daemon: stop it, or take a snapshot of its file system and replay the file there, "
            f"with its {path.name}-wal"
        ) from busy
    except apsw.Error as error:
        raise ReplayRefused(f"{path} cannot be locked: {error}") from error


def _refuse_strangers(db: apsw.Connection, path: Path) -> None:
    """Looks whether it is a database at all.

    Raises:
        ReplayRefused: it is none.
    """
    try:
        db.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except apsw.CorruptError:
        return  # a fault, that will come again where it is told
    except apsw.Error as error:
        raise ReplayRefused(f"{path}: {error}") from error


def _parts(db: apsw.Connection, path: Path, site: CompiledSite) -> _Parts:
    """What a journal of this site says of itself.

    Raises:
        ReplayRefused: it is none, or none of this site.
        _Broken: it is damaged.
    """
    try:
        about = layout.about_in(db)
    except apsw.SQLError as error:
        raise ReplayRefused(f"{path} is no journal of powerd: {error}") from error
    except ValueError as damage:
        raise _Broken(str(damage)) from damage
    if about.get("version") != str(layout.VERSION):
        raise ReplayRefused(
            f"{path} has layout {about.get('version')}, this powerd replays {layout.VERSION}; use the powerd that "
            "wrote it"
        )
    if about.get("evse_ids") != "\n".join(site.electrical.posts.ids):
        raise ReplayRefused(f"{path} belongs to a site with other EVSEs; name that one with --site")
    parts = _Parts.of(about, fingerprint_of(site.electrical))
    if not parts.knows:
        raise ReplayRefused(
            f"{path} was written for another drawing of these EVSEs; name the site file of that time with --site"
        )
    return parts


def _instant(record: Record) -> datetime:
    """When it was.

    Raises:
        _Broken: at no time that there is.
    """
    try:
        return now_of(record).utc
    except (ValueError, OverflowError, OSError) as odd:
        raise _Broken(f"{record.utc_s} is no time") from odd


class _Unlinked(Exception):
    """The chain is broken; the message says where."""


def _chain(db: apsw.Connection) -> Iterator[tuple[int, Record]]:
    """The records in order, with their numbers, each checked against the one before.

    Raises:
        _Unlinked: one was altered, dropped or put in.
    """
    newest: tuple[int, bytes] | None = None
    for row in db.execute(_RECORDS):
        number, kind, tick, utc_s, boottime_s, content, decided, before, digest = row
        place = f"record {number} (tick {tick})"
        if tuple(map(type, row)) != _TYPES:
            raise _Unlinked(f"{place}: it was altered, it holds values of other types")
        if kind not in list(Kind):
            raise _Unlinked(f"{place}: there is no kind of record {kind!r}")
        record = Record(
            kind=Kind(kind), tick=tick, utc_s=utc_s, boottime_s=boottime_s, content=content, decided=decided
        )
        if record.sealed(before, number) != digest:
            raise _Unlinked(f"{place}: it was altered, its digest does not match")
        if newest is None and (record.kind is Kind.TICK or (number == 1 and before != ROOT)):
            raise _Unlinked(f"{place}: the record does not begin with a snapshot")
        if newest is not None and newest != (number - 1, before):
            raise _Unlinked(f"{place}: it does not follow on record {newest[0]}, which comes before it here")
        newest = (number, digest)
        yield number, record
    if newest is None:
        raise _Unlinked("the journal holds no record")


def _fits(snapshot: Snapshot, site: CompiledSite) -> None:
    if snapshot.drawn.shape[0] != site.electrical.evse_count:
        raise _Broken(f"it holds {snapshot.drawn.shape[0]} EVSEs, the site has {site.electrical.evse_count}")


def _same_state(db: apsw.Connection, snapshot: Snapshot | None, *, exactly: bool) -> None:
    """The newest state of the file is the one that the replay has come to."""
    try:
        found = layout.cells_in(db)
    except ValueError as damage:
        raise _Broken(str(damage)) from damage
    found = {path: kept_of(path, cell) for path, cell in found.items()}
    if snapshot is not None:
        _same_cells(_kept(snapshot), found, exactly=exactly)


def _kept(snapshot: Snapshot) -> Cells:
    """What a restart finds of it."""
    return {path: kept_of(path, cell) for path, cell in cells_of(snapshot).items()}


def _same_cells(ours: Cells, theirs: Cells, *, exactly: bool) -> None:
    """Bit by bit; elsewhere within ``TOLERANCE``, or one step of what is kept in steps, but for where solves begin.

    Raises:
        _Broken: names the first cell that differs.
    """
    for path in sorted(ours.keys() | theirs.keys()):
        if path not in ours or path not in theirs:
            raise _Broken(f"{path} is in one of the two alone")
        if encode(ours[path]) == encode(theirs[path]) or (not exactly and path in FORGOTTEN):
            continue
        if exactly or not _alike(ours[path], theirs[path], TOLERANCE + (1.0 / STEP[path] if path in STEP else 0.0)):
            raise _Broken(f"{path} is not what the replay has come to")


def _alike(mine: object, theirs: object, within: float) -> bool:
    """The same but for floats, which may differ by so much, or by the billionth part of what they are."""
    if type(mine) is not type(theirs):
        return False
    if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
        if mine.dtype.kind != "f" or mine.shape != theirs.shape:
            return np.array_equal(mine, theirs)
        return bool(np.isclose(mine, theirs, rtol=1e-9, atol=within, equal_nan=True).all())
    if isinstance(mine, float) and isinstance(theirs, float):
        return bool(np.isclose(mine, theirs, rtol=1e-9, atol=within, equal_nan=True))
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(_alike(m, t, within) for m, t in zip(mine, theirs, strict=True))
    if is_dataclass(mine):
        return all(_alike(getattr(mine, own.name), getattr(theirs, own.name), within) for own in fields(mine))
    return mine == theirs


def _apart(recorded: Granted, ours: Granted) -> str | None:
    """What differs by more than rounding between two decisions of one tick; None = nothing."""
    pairs: tuple[tuple[str, Ints, Ints, Floats, Floats], ...] = (
        ("lowered", recorded.lowered, ours.lowered, recorded.lowered_to, ours.lowered_to),
        ("raised", recorded.raised, ours.raised, recorded.raised_to, ours.raised_to),
    )
    for what, theirs_evse, ours_evse, theirs, mine in pairs:
        if not np.array_equal(theirs_evse, ours_evse):
            odd = np.setxor1d(theirs_evse, ours_evse)[:5].tolist()
            return f"EVSEs {odd} are {what} in one of the two"
        if theirs.shape != mine.shape:
            return f"{theirs.shape[0]} EVSEs are {what} in the record, {mine.shape[0]} here"
        if theirs.size and not float(np.abs(theirs - mine).max()) <= TOLERANCE:  # nan is not
            worst = int(np.abs(theirs - mine).argmax())
            return f"EVSE {int(ours_evse[worst])} is {what} to {mine[worst]:g}, the record says {theirs[worst]:g}"
    if not np.array_equal(recorded.renewed, ours.renewed):
        return "other leases are renewed"
    return None
