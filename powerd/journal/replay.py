"""The record read again: every link of the chain checked, every tick stepped through again, every decision compared.

The same machine with the same libraries owes the same bits. Elsewhere a tick owes the same EVSEs and ceilings within
``TOLERANCE``, and each snapshot on the way and the newest state owe the same within it: orders to the switchgear, as
all that is no float, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import apsw
import numpy as np

from powerd.codec import Unreadable, decode, encode
from powerd.control.compiled import CompiledSite
from powerd.control.decision import Decision
from powerd.control.step import Stepper
from powerd.errors import PowerdError
from powerd.journal import layout
from powerd.journal.cells import FORGOTTEN, STEP, Cells, Packer, cell_of, cells_of, kept_of, snapshot_of
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


_RECORDS = "SELECT number, kind, tick, utc_s, boottime_s, content, decided, before, digest FROM records ORDER BY number"


class ReplayRefused(PowerdError):
    """The file cannot be replayed at all: it is not there, in use, no journal, or of another site or version."""


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

    def leave(self) -> None:
        """What comes now was decided elsewhere: the next state to follow is taken as it is."""
        self.snapshot, self.exactly = None, False

    def follow(self, record: Record) -> None:
        """One record further.

        Raises:
            _Broken: it does not hold.
        """
        instant = now_of(record).utc
        self.first, self.last = self.first or instant, instant
        self.counts[record.kind] += 1
        try:
            content = decode(record.content, CLASSES)
        except Unreadable as damage:
            raise _Broken(f"its content cannot be read: {damage}") from damage
        match content:
            case TickContent():
                self.tick(record, content)
            case StateContent():
                self.state(record, content)
            case _:
                raise _Broken("it holds neither a tick nor a state")

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
        path: the file; no daemon may have it open (a copy of the file and its ``-wal`` will do).
        site: the compiled site it was written for.
        verify: compare every decision and every snapshot; otherwise only the chain is checked.
        until: stop before the first record after this instant (aware); None = to the end, and then the newest state
            is compared, too.
        see: is shown every decision, in order.

    Raises:
        ReplayRefused: the file cannot be replayed at all, or begins after ``until``.
    """
    db, drawn = _open(path, site)
    course = _Course(site=site, stepper=Stepper(site), verify=verify, here=fingerprint(), see=see)
    older, redrawn = _older(db), 0
    fault: str | None = None
    place = "the beginning"
    try:
        for number, record in islice(_chain(db), older, None):
            if not drawn.covers(number):
                redrawn += 1
                course.leave()
                continue
            if until is not None and now_of(record).utc > until:
                _refuse_nothing(course, redrawn, now_of(record).utc)
                break
            place = f"{record.kind} {record.tick} at {now_of(record).utc.isoformat()}"
            course.follow(record)
        else:
            place = f"the state after tick {course.snapshot.tick if course.snapshot else 0}"
            if verify:
                _same_state(db, course.snapshot, exactly=course.exactly)
    except _Broken as broken:
        fault = f"{place}: {broken}"
    except _Unlinked as unlinked:
        fault = str(unlinked)
    except apsw.Error as error:
        fault = f"after {place}: {error}"
    finally:
        db.close()
    return Replayed(
        fault=fault,
        ticks=course.counts[Kind.TICK],
        starts=course.counts[Kind.START],
        checkpoints=course.counts[Kind.CHECKPOINT],
        gaps=course.counts[Kind.GAP],
        exact=course.exact,
        older=older,
        redrawn=redrawn,
        first=course.first,
        last=course.last,
        decision=course.decision,
    )


@dataclass(frozen=True)
class _Drawn:
    """For which drawings the records of a file were written."""

    wanted: str
    """Fingerprint of the one that is replayed."""
    since: tuple[tuple[int, str], ...]
    """(number of the first record, fingerprint), ascending; "" = nobody said."""

    @staticmethod
    def of(about: dict[str, str], wanted: str) -> _Drawn:
        """As the file says of itself."""
        keys = [key for key in about if key.startswith(layout.DRAWN)]
        since = sorted((int(key.removeprefix(layout.DRAWN)), about[key]) for key in keys)
        return _Drawn(wanted, tuple(since) or ((0, about.get("drawing", "")),))

    @property
    def knows(self) -> bool:
        """Some of it was, or may have been, written for the one that is replayed."""
        return any(drawing in ("", self.wanted) for _, drawing in self.since)

    def covers(self, number: int) -> bool:
        """This record was, or may have been."""
        known = [drawing for first, drawing in self.since if first <= number]
        return not known or known[-1] in ("", self.wanted)


def _open(path: Path, site: CompiledSite) -> tuple[apsw.Connection, _Drawn]:
    """The file, opened, if it is a journal of this site, with which part of it is of this drawing.

    Raises:
        ReplayRefused: it is not.
    """
    if not path.is_file():
        raise ReplayRefused(f"{path}: there is no such file")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        db.pragma("locking_mode", "exclusive")
        about = dict(db.execute("SELECT key, value FROM about"))
    except apsw.BusyError as busy:
        raise ReplayRefused(f"{path} is in use by a daemon; copy it together with {path.name}-wal") from busy
    except (apsw.Error, UnicodeDecodeError) as error:
        raise ReplayRefused(f"{path}: {error}") from error
    if about.get("version") != str(layout.VERSION):
        raise ReplayRefused(
            f"{path} has layout {about.get('version')}, this powerd replays {layout.VERSION}; use the powerd that "
            "wrote it"
        )
    if about.get("evse_ids") != "\n".join(site.electrical.posts.ids):
        raise ReplayRefused(f"{path} belongs to a site with other EVSEs; name that one with --site")
    drawn = _Drawn.of(about, fingerprint_of(site.electrical))
    if not drawn.knows:
        raise ReplayRefused(
            f"{path} was written for another drawing of these EVSEs; name the site file of that time with --site"
        )
    return db, drawn


def _refuse_nothing(course: _Course, redrawn: int, begins: datetime) -> None:
    """Of nothing every decision would be the one recorded.

    Raises:
        ReplayRefused: nothing comes before the instant at which a replay is to end.
    """
    if course.first is None and not redrawn:
        raise ReplayRefused(
            f"the record that is kept begins at {begins.isoformat()}: name a later instant with --until"
        )


def _older(db: apsw.Connection) -> int:
    """How many records stand in the file that were there when it was migrated."""
    (newest,) = db.execute("SELECT coalesce(max(value), '0') FROM about WHERE key = ?", (layout.OLDER,))
    ((count,),) = db.execute("SELECT count(*) FROM records WHERE number <= CAST(? AS INTEGER)", newest)
    return int(count)


class _Unlinked(Exception):
    """The chain is broken; the message says where."""


def _chain(db: apsw.Connection) -> Iterator[tuple[int, Record]]:
    """The records in order, with their numbers, each checked against the one before.

    Raises:
        _Unlinked: one was altered, dropped or put in.
    """
    newest: tuple[int, bytes] | None = None
    for number, kind, tick, utc_s, boottime_s, content, decided, before, digest in db.execute(_RECORDS):
        place = f"record {number} (tick {tick})"
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
        found = dict(map(cell_of, db.execute("SELECT path, tick, dtype, shape, data, crc FROM cells")))
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
        if theirs.size and float(np.abs(theirs - mine).max()) > TOLERANCE:
            worst = int(np.abs(theirs - mine).argmax())
            return f"EVSE {int(ours_evse[worst])} is {what} to {mine[worst]:g}, the record says {theirs[worst]:g}"
    if not np.array_equal(recorded.renewed, ours.renewed):
        return "other leases are renewed"
    return None
