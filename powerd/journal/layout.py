"""Layout of the journal file, its versions, and the way from each version to the next.

| version | what it brought |
|---|---|
| 1 | the newest committed state, one row a column |
| 2 | the record of every tick; a checksum on every cell of the state |
| 3 | envelopes: a powerd that does not know them would lift them at its restart |
| 4 | of readings only the largest phase: one that wants all three would refuse them |
| 5 | posts with L1 alone: a powerd that does not know them would grant their ceilings for all phases |
| 6 | terms of leases, contents of requests: else longer leases are forgotten, other requests taken for retries |
| 7 | each device's flags of a switch, where it last stood, orders that are out: else tags and faults are forgotten; |
|   | bounds of cars as they were said: else a minimum that nobody said counts as 0 A |
| 8 | columns as what differs from the row above or as whole steps: a powerd that does not know these refuses them |
| 9 | fallbacks that may be open, and since when the leader leads: else the first are forgotten |
| 10 | answers whole, so that a retry gets the very same one, and in pages: a powerd that does not know these cannot |
|    | read them |

A file of an older version is migrated when it is opened, in one transaction; one of a newer version is refused.
The record of before stays as evidence: its chain can be checked, its ticks stepped through only by the powerd of then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import apsw
import numpy as np
from zlib_ng.zlib_ng import crc32

from powerd.journal.cells import ANSWERS, Cells, Packed, cell_of, pack
from powerd.state.snapshot import Answered, Stop, pages_of

VERSION = 10
"""Raised with every change that an older powerd could misread."""

OLDER = "older_records"
"""What the file says of itself under this: the number of the last record that a powerd of an older version wrote."""

_REPORTERS_7 = 4
"""Devices of each element that version 7 keeps the words of."""

DRAWN = "drawn_from_record_"
"""Keys with the number of a record: from it on they are of the drawing of that value. Without one all are of one."""

_ABOUT = "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
_CELLS = """CREATE TABLE cells (
    path TEXT PRIMARY KEY, tick INTEGER NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    crc INTEGER NOT NULL DEFAULT 0
)"""
WRITE_CELL = """INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET
    tick = excluded.tick, dtype = excluded.dtype, shape = excluded.shape, data = excluded.data, crc = excluded.crc"""
"""A cell as ``Packed.row`` gives it; one that is there stays in its place, and so its index does."""
_CELL = (str, int, str, str, bytes, int)
"""Types of a row of ``cells``; SQLite gives another where a bit of it has flipped."""
_RECORDS = """CREATE TABLE records (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, tick INTEGER NOT NULL, utc_s REAL NOT NULL,
    boottime_s REAL NOT NULL, content BLOB NOT NULL, decided BLOB NOT NULL,
    before BLOB NOT NULL, digest BLOB NOT NULL
)"""
_STATES = "CREATE INDEX states ON records (number) WHERE kind <> 'tick'"


def about_in(db: apsw.Connection) -> dict[str, str]:
    """What a file says of itself.

    Raises:
        ValueError: it is damaged.
    """
    about = dict(db.execute("SELECT key, value FROM about"))
    if any(type(each) is not str for row in about.items() for each in row):
        raise ValueError("what it says of itself is no text")
    return about


def cells_in(db: apsw.Connection, which: str = "FROM cells", named: Sequence[str] = ()) -> Cells:
    """The newest state of a file.

    Args:
        db: the file.
        which: the rows.
        named: what is asked for there by "?".

    Raises:
        ValueError: a cell is damaged; the message names it.
    """
    rows = db.execute(f"SELECT path, tick, dtype, shape, data, crc {which}", named)
    return dict(map(_cell_in, rows))


def _cell_in(row: Any) -> tuple[str, Any]:
    _refuse_types(row)
    try:
        return cell_of(row)
    except (TypeError, LookupError, ArithmeticError) as damage:
        raise ValueError(f"{row[0]} is no cell of powerd's: {damage}") from damage


def _refuse_types(row: tuple[Any, ...]) -> None:
    """Looks whether a row of ``cells`` holds what powerd writes there."""
    if tuple(map(type, row)) != _CELL:
        raise ValueError(f"the row of the cell {row[0]!r} holds values of other types")


def create(db: apsw.Connection) -> None:
    """Makes the tables of a new file."""
    for statement in (_ABOUT, _CELLS, _RECORDS, _STATES):
        db.execute(statement)


def _to_2(db: apsw.Connection) -> None:
    """Version 1 had no record and no checksums, and kept what is no column as one JSON text."""
    db.execute("ALTER TABLE columns RENAME TO cells")
    db.execute("ALTER TABLE cells ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
    for row in list(db.execute("SELECT path, tick, dtype, shape, data FROM cells")):
        _refuse_types((*row, 0))
        path, tick, dtype, shape, data = row
        packed = Packed(dtype=dtype, shape=shape, data=data, crc=crc32(data))
        db.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", packed.row(path, tick))
    for (text,) in list(db.execute("SELECT value FROM about WHERE key = 'remainder'")):
        rows = [pack(cell).row(path, 0) for path, cell in _rest_of_1(json.loads(text)).items()]
        db.executemany("INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.execute("DELETE FROM about WHERE key = 'remainder'")
    db.execute(_RECORDS)
    db.execute(_STATES)


def _rest_of_1(rest: dict[str, Any]) -> Cells:
    """The cells that version 1 kept as JSON."""
    cells: Cells = {path: tuple(v) if isinstance(v, list) else v for path, v in rest["scalars"].items()}
    cells["stops"] = tuple(
        Stop(stop_id=s["stop_id"], element=s["element"], evse=np.array(s["evse"], np.int64), reason=s["reason"])
        for s in rest["stops"]
    )
    cells["answered"] = tuple((request, key) for request, key in rest["answered"])
    cells["boottime_s"], cells["tick"] = float(rest["boottime_s"]), int(rest["tick"])
    return cells


def _to_3(_db: apsw.Connection) -> None:
    """Version 2 had no envelopes: there is nothing to bring over."""


def _to_4(_db: apsw.Connection) -> None:
    """Readings of version 3 have three phases, and are read as such."""


def _to_5(_db: apsw.Connection) -> None:
    """Version 4 knew no post with L1 alone: there is nothing to bring over."""


def _to_6(db: apsw.Connection) -> None:
    """Version 5 kept of a request its id and key alone, and did not keep how long leases live.

    That is as long as lies between when one was sent and its end.
    """
    cells = cells_in(db, "FROM cells WHERE path IN (?, ?, ?)", ("leases/sent_at_s", "leases/sent_until_s", "answered"))
    if not cells:
        return  # nothing was ever committed
    at_s, until_s = cells["leases/sent_at_s"], cells["leases/sent_until_s"]
    life_s = np.subtract(until_s, at_s, where=np.isfinite(at_s) & (until_s > at_s), out=np.zeros_like(at_s))
    answered = tuple(Answered(request_id=request, key=key, contents="") for request, key in cells["answered"])
    rows = [pack(life_s).row("leases/life_s", 0), pack(answered).row("answered", 0)]
    db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", rows)


def _to_7(db: apsw.Connection) -> None:
    """Version 6 kept the words of two devices of each element, and the times of orders as a column.

    Who spoke of losses, and when by whose clock, is brought over, and where switches stood. What devices said of
    switches, they say again; of operations an hour version 6 forgot after a restart.
    """
    _unsay_bounds(db)
    cells = cells_in(db, "FROM cells WHERE path LIKE 'gear/%'")
    if "gear/position" not in cells:
        return  # nothing was ever committed
    found: Cells = {"gear/known_position": cells["gear/position"]}
    for path in ("gear/told_by", "gear/told_incarnation", "gear/told_clock_s"):
        if path in cells:
            found[path] = np.pad(cells[path], ((0, 0), (0, _REPORTERS_7 - cells[path].shape[1])))
    gone = ("said", "said_by", "said_at_s", "said_incarnation", "said_clock_s", "told_at_s", "operated_at_s")
    db.executemany("DELETE FROM cells WHERE path = ?", [(f"gear/{name}",) for name in gone])
    rows = [pack(cell).row(path, 0) for path, cell in found.items()]
    db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", rows)


def _unsay_bounds(db: apsw.Connection) -> None:
    """Version 6 kept the bounds of a post where nobody had said any: of a post without a session they are its own."""
    paths = [f"sessions/{name}" for name in ("served", "min_ceiling", "max_ceiling")]
    cells = cells_in(db, "FROM cells WHERE path IN (?, ?, ?)", paths)
    if len(cells) < len(paths):
        return  # nothing was ever committed
    served, least, most = (cells[path] for path in paths)
    said = {paths[1]: np.where(served, least, 0.0), paths[2]: np.where(served, most, np.inf)}
    rows = [pack(cell).row(path, 0) for path, cell in said.items()]
    db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", rows)


def _to_8(_db: apsw.Connection) -> None:
    """Columns of version 7 are read as such."""


def _to_9(_db: apsw.Connection) -> None:
    """What may be open counted as open in version 8."""


def _to_10(db: apsw.Connection) -> None:
    """Version 9 looked EVSEs up anew for each retry, by the stop or session that the first answer named.

    It kept all answers in one cell, which was written anew for each of them.
    """
    paths = ("answered", "stops", "sessions/session_id")
    cells = cells_in(db, "FROM cells WHERE path IN (?, ?, ?)", paths)
    if len(cells) < len(paths):
        return  # nothing was ever committed
    named = {key: np.array([evse]) for evse, key in enumerate(cells["sessions/session_id"]) if key}
    named |= {stop.stop_id: stop.evse for stop in cells["stops"]}
    answered = tuple(replace(one, evse=named.get(one.key, one.evse)) for one in cells["answered"])
    rows = [pack(page).row(f"{ANSWERS}/{place}", 0) for place, page in enumerate(pages_of(answered))]
    db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.execute("DELETE FROM cells WHERE path = ?", (ANSWERS,))


MIGRATIONS: dict[int, Callable[[apsw.Connection], None]] = {
    1: _to_2,
    2: _to_3,
    3: _to_4,
    4: _to_5,
    5: _to_6,
    6: _to_7,
    7: _to_8,
    8: _to_9,
    9: _to_10,
}
"""Version -> what brings a file of it to the next one."""


def migrate(db: apsw.Connection, version: int) -> None:
    """Brings a file of an older version to ours, all or nothing.

    Raises:
        ValueError: a cell is damaged.
    """
    with db:
        for step in range(version, VERSION):
            MIGRATIONS[step](db)
        db.execute("UPDATE about SET value = ? WHERE key = 'version'", (str(VERSION),))
        db.execute("INSERT OR REPLACE INTO about SELECT ?, coalesce(max(number), 0) FROM records", (OLDER,))
