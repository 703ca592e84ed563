"""A snapshot as named cells, and back: one cell a column, a page of answers, and everything else that is no column.

Columns of a snapshot are replaced, never changed in place: a cell that is still the same object need not be written
again. That is what makes one transaction a tick cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
from zlib_ng.zlib_ng import crc32

from powerd.codec import classes_of, decode, encode
from powerd.compiled import read
from powerd.journal.kernels import Counts, counted, differing
from powerd.limits import Floats, Ints
from powerd.state.columns import same, words
from powerd.state.snapshot import ANSWER_PAGES, Snapshot, largest_phase

FORGOTTEN = ("warm_stage", "warm_price")
"""Fields that a restart does not need: where a solve starts is no part of what is going on."""
ANSWERS = "answered"
"""In pages, each a cell by its place: of thousands of answers only the page of a new one is packed and written anew."""
READINGS = "drawn"
"""Kept by their largest phase: W asks for no more, and every reading stands in the record with all its phases."""
ENERGY = "sessions/energy_kwh"
"""Kept to 10 Wh, as readings are kept to the next mA (or W) above: of a restart W may be larger, never smaller."""
AFRESH = frozenset({"usage/slack_since_s", "usage/dry_since_s", "usage/usable"})
"""What readings have told of the cars' use begins anew with a restart (``reopen_usage``), so nothing of it is kept."""
CLASSES = classes_of(Snapshot)
"""What a cell may hold."""
ENCODED = "value"
"""In place of a dtype: the cell is no column."""

RUNS = "runs "
"""Before a dtype: the first row, and what differs from the row above: its places, then its entries."""
STEPS = "steps "
"""Before 1/step, and the type of integers: a column of whole steps, as how many they are."""
SPARSE = "sparse "
"""Before a dtype: only the entries that differ from the last one are kept; layouts up to 7 wrote so."""
SHORT = 512
"""Columns of fewer entries are written as they are."""
CUT = AFRESH | {READINGS, ENERGY}
"""Of these less is kept than there is."""
STEP = {READINGS: 1000.0, ENERGY: 100.0}
"""Steps in one unit: a mA or W of readings, 10 Wh of energy."""
_WORD = 8
_PLACE = np.dtype("<u4")

Cells = dict[str, Any]
Row = tuple[str, int, str, str, bytes, int]
"""path, tick, dtype, shape, data, checksum over all of these."""


def cells_of(snapshot: Snapshot) -> Cells:
    """Every field of the snapshot and of its parts by its path, e.g. "leases/sent_ceiling"."""
    return {path: cell for path, _, cell in _replaced(None, snapshot)}


def _replaced(before: Snapshot | None, snapshot: Snapshot) -> Iterator[tuple[str, Any, Any]]:
    """(path, cell of before, cell) of all cells that are no longer the same object; None before the first."""
    for name, inner in _places().items():
        was, value = getattr(before, name, None), getattr(snapshot, name)
        if was is value:
            continue
        if not inner:
            yield name, was, value
            continue
        olds = _parts(was) if was is not None else {}
        for own, cell in _parts(value).items():
            old = olds.get(own)
            if old is not cell or before is None:
                yield inner[own], old, cell


def _parts(value: Any) -> dict[Any, Any]:
    """Fields of a part of a snapshot by their names, or pages by their places."""
    return dict(enumerate(value)) if isinstance(value, tuple) else vars(value)


@cache
def _places() -> dict[str, dict[Any, str]]:
    """Paths of the fields or pages of each part of a snapshot; none where it is a cell itself."""
    found: dict[str, dict[Any, str]] = {
        name: {own.name: f"{name}/{own.name}" for own in fields(kind)} if is_dataclass(kind) else {}
        for name, kind in get_type_hints(Snapshot).items()
        if name not in FORGOTTEN
    }
    return found | {ANSWERS: {place: f"{ANSWERS}/{place}" for place in range(ANSWER_PAGES)}}


def kept_of(path: str, cell: Any) -> Any:
    """What of a cell is kept for a restart; of what was kept before, the same."""
    if path in AFRESH:
        return np.full_like(cell, np.inf)
    if path not in STEP:
        return cell
    counts = _counts(path, cell)
    if counts is not None:
        return counts / STEP[path]
    return largest_phase(cell) if path == READINGS and cell.ndim == 2 else cell


def _counts(path: str, column: Floats) -> Counts | None:
    """(n,) in whole steps what is kept of each entry; None where one has no such number: below 0, infinite, nan."""
    counts, all_have_one = counted(read(column.reshape(column.shape[0], -1)), STEP[path], path == READINGS)
    return counts if all_have_one else None


def snapshot_of(like: Snapshot, cells: Cells) -> Snapshot:
    """The snapshot again.

    Args:
        like: an empty snapshot of the same site: says which cells there are and of what shape, and what holds of
            those that an older powerd did not know.
        cells: as written.

    Raises:
        ValueError: a column has another shape: the record is not of this site or version.
    """
    values: dict[str, Any] = {}
    for own in fields(like):
        before = getattr(like, own.name)
        if is_dataclass(before) and not isinstance(before, type):
            inner = {f.name: _fitting(f"{own.name}/{f.name}", cells, getattr(before, f.name)) for f in fields(before)}
            values[own.name] = replace(before, **inner)
        elif own.name == ANSWERS:
            values[own.name] = tuple(_fitting(f"{ANSWERS}/{k}", cells, page) for k, page in enumerate(before))
        elif own.name not in FORGOTTEN:
            values[own.name] = _fitting(own.name, cells, before)
    return replace(like, **values)


def _fitting(path: str, cells: Cells, like: Any) -> Any:
    """A cell of the record, if it is like the one this site has."""
    if path not in cells:
        return like
    cell = cells[path]
    if path == READINGS and cell.ndim == 1:
        cell = np.repeat(cell[:, None], 3, axis=1)
    if isinstance(like, np.ndarray) != isinstance(cell, np.ndarray):
        raise ValueError(f"{path} is a {type(cell).__name__}, this powerd needs a {type(like).__name__}")
    if isinstance(like, np.ndarray) and (cell.shape != like.shape or cell.dtype != like.dtype):
        raise ValueError(f"{path} is {cell.dtype}{cell.shape}, this site needs {like.dtype}{like.shape}")
    return cell


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A cell as bytes."""

    dtype: str
    """Of the column; ``ENCODED`` where it is none."""
    shape: str
    """Lengths of its axes, comma-separated."""
    data: bytes
    """Its bytes."""
    crc: int
    """CRC-32 of the data."""

    @property
    def mark(self) -> str:
        """What the digest covers of it."""
        return f"{self.dtype}|{self.shape}|{self.crc}"

    def row(self, path: str, tick: int) -> Row:
        """The row of the file."""
        return path, tick, self.dtype, self.shape, self.data, _checksum(path, tick, self.dtype, self.shape, self.crc)


def pack(cell: Any) -> Packed:
    """The bytes of a cell; a column of which much repeats is packed to the rest."""
    if isinstance(cell, np.ndarray):
        dtype, shape = cell.dtype.str, _lengths(cell)
        runs = _runs(cell) if cell.itemsize == _WORD and cell.size >= SHORT else None
        dtype, data = (dtype, cell.tobytes()) if runs is None else (RUNS + dtype, runs)
    else:
        dtype, shape, data = ENCODED, "", encode(cell)
    return Packed(dtype=dtype, shape=shape, data=data, crc=crc32(data))


def pack_kept(path: str, column: npt.NDArray[Any]) -> Packed:
    """The bytes of what is kept of a column."""
    counts = _counts(path, column) if path in STEP and column.size >= SHORT else None
    if counts is None or 4 * int(np.count_nonzero(counts[1:] != counts[:-1])) < counts.shape[0]:
        return pack(kept_of(path, column))
    narrow = counts.astype("<u2") if int(counts.max()) < 1 << 16 else counts
    data = narrow.tobytes()
    form = f"{STEPS}{STEP[path]:g} {narrow.dtype.str}"
    return Packed(dtype=form, shape=str(counts.shape[0]), data=data, crc=crc32(data))


class Packer:
    """Packs one snapshot after the other; what did not change since the one before is not packed again."""

    def __init__(self) -> None:
        self.kept: dict[str, Packed] = {}
        """What is kept of the cells of the newest snapshot."""
        self._before: Snapshot | None = None
        self._lines: dict[str, bytes] = {}  # of each cell what the digest covers; in the order of their paths

    def take(self, snapshot: Snapshot) -> bytes:
        """Packs a snapshot and returns the digest of it all; a column replaced by an equal one did not change."""
        if self._before is None:
            self._lines = dict.fromkeys(sorted(cells_of(snapshot)), b"")
        for path, was, cell in _replaced(self._before, snapshot):
            if not _same_bits(was, cell):
                self._repack(path, cell)
        self._before = snapshot
        return hashlib.sha256(b"".join(self._lines.values())).digest()

    def _repack(self, path: str, cell: Any) -> None:
        """Packs a cell that may have changed; the digest covers all of it, also what is not kept."""
        packed = None if path in CUT else pack(cell)
        line = f"{path}|{_whole(cell) if packed is None else packed.mark}\n".encode()
        if line == self._lines[path]:
            return
        if path not in AFRESH or path not in self.kept:  # of those nothing is kept but how long they are
            kept = pack_kept(path, cell) if packed is None else packed
            if kept != self.kept.get(path):
                self.kept[path] = kept
        self._lines[path] = line  # last: what could not be packed is packed with the next tick


def _whole(column: npt.NDArray[Any]) -> str:
    """What the digest covers of a column that is not kept as it is."""
    return f"{column.dtype.str}|{_lengths(column)}|{crc32(np.ascontiguousarray(column).data)}"


def _lengths(column: npt.NDArray[Any]) -> str:
    """Of its axes, comma-separated."""
    return ",".join(map(str, column.shape))


def _same_bits(one: Any, other: Any) -> bool:
    """What was replaced by an equal one did not change; bit by bit: nan equals itself, -0.0 is not 0.0.

    All others are small, and compared when they are packed.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, int | float):
        return repr(one) == repr(other)
    if not isinstance(one, np.ndarray) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "b":
        return bool((one == other).all())
    if one.itemsize != _WORD:
        return False
    return same(words(one), words(other))


def cell_of(row: Row) -> tuple[str, Any]:
    """Path and cell of a row.

    Raises:
        ValueError: the row is damaged.
    """
    path, tick, dtype, shape, data, crc = row
    if _checksum(path, tick, dtype, shape, crc32(data)) != crc:
        raise ValueError(f"{path} does not match its checksum")
    if dtype == ENCODED:
        return path, decode(data, CLASSES)
    lengths = [int(k) for k in shape.split(",")]
    return path, _column(dtype, data, int(np.prod(lengths)), lengths[0]).reshape(lengths)


def _column(form: str, data: bytes, count: int, rows: int) -> npt.NDArray[Any]:
    """(count,) the column again, of ``rows`` rows."""
    if form.startswith(SPARSE):
        return _dense(data, count).view(form.removeprefix(SPARSE))
    if form.startswith(RUNS):
        return _filled(data, count, count // rows).view(form.removeprefix(RUNS))
    if form.startswith(STEPS):
        step, kind = form.removeprefix(STEPS).split(" ")
        return np.frombuffer(data, dtype=kind) / float(step)
    return np.frombuffer(data, dtype=form).copy()


def _runs(column: npt.NDArray[Any]) -> bytes | None:
    """The first row, where a word differs (bits) from that above it, and those words; None where that is no shorter."""
    words = read(np.ascontiguousarray(column).reshape(-1).view(np.int64))  # bit by bit: -0.0 is not 0.0
    width = words.shape[0] // column.shape[0]
    most = (words.nbytes - _WORD * width - 1) // (_WORD + _PLACE.itemsize)
    where = differing(words, width, most)
    if where.shape[0] > most:
        return None
    return b"".join((words[:width].tobytes(), where.tobytes(), words[where].tobytes()))


def _filled(data: bytes, count: int, width: int) -> Ints:
    """(count,) words again."""
    others = (len(data) - _WORD * width) // (_WORD + _PLACE.itemsize)
    middle = _WORD * width + _PLACE.itemsize * others
    where = np.frombuffer(data[_WORD * width : middle], _PLACE)
    told = np.concatenate((np.frombuffer(data[: _WORD * width], np.int64), np.frombuffer(data[middle:], np.int64)))
    source = np.zeros(count, np.int64)
    source[:width] = np.arange(width)
    source[where] = np.arange(width, width + others)
    return told[np.maximum.accumulate(source.reshape(-1, width), axis=0).reshape(-1)]


def _dense(data: bytes, count: int) -> Ints:
    """(count,) words again, as layouts up to 7 wrote those that differ from the last one: it, where, and which."""
    bits = (count + 7) // 8
    words = np.full(count, np.frombuffer(data[:_WORD], np.int64)[0])
    other = np.unpackbits(np.frombuffer(data[_WORD : _WORD + bits], np.uint8), count=count).astype(np.bool_)
    words[other] = np.frombuffer(data[_WORD + bits :], np.int64)
    return words


def _checksum(path: str, tick: int, dtype: str, shape: str, crc: int) -> int:
    """CRC-32 over a whole row, ``crc`` being that of its data: against a disk that errs, not against people."""
    return crc32(f"{path}|{tick}|{dtype}|{shape}".encode(), crc)
