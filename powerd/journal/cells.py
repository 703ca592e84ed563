"""A snapshot as named cells, and back: one cell a column, and one for everything else that is no column.

Columns of a snapshot are replaced, never changed in place: a cell that is still the same object need not be written
again. That is what makes one transaction a tick cheap.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from powerd.codec import classes_of, decode, encode
from powerd.state.snapshot import Snapshot, largest_phase

FORGOTTEN = ("warm_stage", "warm_price")
"""Fields that a restart does not need: where a solve starts is no part of what is going on."""
READINGS = "drawn"
"""Kept by their largest phase: W asks for no more, and every reading stands in the record with all its phases."""
AFRESH = frozenset({"usage/slack_since_s", "usage/dry_since_s", "usage/usable"})
"""What readings have told of the cars' use begins anew with a restart (``reopen_usage``), so nothing of it is kept."""
CLASSES = classes_of(Snapshot)
"""What a cell may hold."""
ENCODED = "value"
"""In place of a dtype: the cell is no column."""

SPARSE = "sparse "
"""Before a dtype: only the entries that differ from the last one are kept."""
SPARSE_FROM = 4096
"""Shorter columns are written as they are."""
_WORD = 8

Cells = dict[str, Any]
Row = tuple[str, int, str, str, bytes, int]
"""path, tick, dtype, shape, data, checksum over all of these."""


def cells_of(snapshot: Snapshot) -> Cells:
    """Every field of the snapshot and of its parts by its path, e.g. "leases/sent_ceiling"."""
    found: Cells = {}
    for name, inner in _places().items():
        value = getattr(snapshot, name)
        if inner:
            found |= {path: getattr(value, own) for path, own in inner}
        else:
            found[name] = value
    return found


@cache
def _places() -> dict[str, tuple[tuple[str, str], ...]]:
    """(path, name) of every field of each part of a snapshot; none where it is a cell itself."""
    kinds = get_type_hints(Snapshot)
    return {
        name: tuple((f"{name}/{own.name}", own.name) for own in fields(kind)) if is_dataclass(kind) else ()
        for name, kind in kinds.items()
        if name not in FORGOTTEN
    }


def kept_of(path: str, cell: Any) -> Any:
    """What of a cell is kept for a restart; of what was kept before, the same."""
    if path in AFRESH:
        return np.full_like(cell, np.inf)
    return largest_phase(cell) if path == READINGS and cell.ndim == 2 else cell


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

    def row(self, path: str, tick: int) -> Row:
        """The row of the file."""
        return path, tick, self.dtype, self.shape, self.data, _checksum(path, tick, self.dtype, self.shape, self.crc)


def pack(cell: Any) -> Packed:
    """The bytes of a cell; a column that mostly repeats one value is packed to the others."""
    if isinstance(cell, np.ndarray):
        dtype, shape = cell.dtype.str, ",".join(map(str, cell.shape))
        sparse = _sparse(cell) if cell.itemsize == _WORD and cell.size >= SPARSE_FROM else None
        dtype, data = (dtype, cell.tobytes()) if sparse is None else (SPARSE + dtype, sparse)
    else:
        dtype, shape, data = ENCODED, "", encode(cell)
    return Packed(dtype=dtype, shape=shape, data=data, crc=zlib.crc32(data))


class Packer:
    """Packs one snapshot after the other; what did not change since the one before is not packed again."""

    def __init__(self) -> None:
        self.kept: dict[str, Packed] = {}
        """What is kept of the cells of the newest snapshot."""
        self._packed: dict[str, Packed] = {}
        self._cells: Cells = {}
        self._lines: dict[str, bytes] = {}  # of each cell what the digest covers; in the order of their paths

    def take(self, snapshot: Snapshot) -> bytes:
        """Packs a snapshot and returns the digest of it all; a column replaced by an equal one did not change."""
        cells = cells_of(snapshot)
        if not self._lines:
            self._lines = dict.fromkeys(sorted(cells), b"")
        for path, cell in cells.items():
            if path not in self._cells or not _same_bits(self._cells[path], cell):
                self._repack(path, cell)
        self._cells = cells
        return hashlib.sha256(b"".join(self._lines.values())).digest()

    def _repack(self, path: str, cell: Any) -> None:
        """Packs a cell that may have changed."""
        own, kept = pack(cell), kept_of(path, cell)
        if own == self._packed.get(path):
            return
        self._packed[path] = own
        rest = own if kept is cell else pack(kept)
        if rest != self.kept.get(path):
            self.kept[path] = rest
        self._lines[path] = f"{path}|{own.dtype}|{own.shape}|{own.crc}\n".encode()


def _same_bits(one: Any, other: Any) -> bool:
    """A column of words replaced by an equal one did not change; bit by bit: nan equals itself, -0.0 is not 0.0."""
    if one is other or not isinstance(one, np.ndarray) or one.itemsize != _WORD:
        return one is other  # all others are small, and compared when they are packed
    fits = one.shape == other.shape and one.dtype == other.dtype
    return fits and bool((one.view(np.int64) == other.view(np.int64)).all())


def cell_of(row: Row) -> tuple[str, Any]:
    """Path and cell of a row.

    Raises:
        ValueError: the row is damaged.
    """
    path, tick, dtype, shape, data, crc = row
    if _checksum(path, tick, dtype, shape, zlib.crc32(data)) != crc:
        raise ValueError(f"{path} does not match its checksum")
    if dtype == ENCODED:
        return path, decode(data, CLASSES)
    lengths = [int(k) for k in shape.split(",")]
    if dtype.startswith(SPARSE):
        return path, _dense(data, int(np.prod(lengths))).view(dtype.removeprefix(SPARSE)).reshape(lengths)
    return path, np.frombuffer(data, dtype=dtype).reshape(lengths).copy()


def _sparse(column: npt.NDArray[Any]) -> bytes | None:
    """The value at the end of the column, where it is another one (bits), and those; None where that is no shorter."""
    words = np.ascontiguousarray(column).reshape(-1).view(np.int64)  # bit by bit: -0.0 is not 0.0
    other = words != words[-1]
    if 2 * int(np.count_nonzero(other)) > words.shape[0]:
        return None
    return b"".join((words[-1:].tobytes(), np.packbits(other).tobytes(), words[other].tobytes()))


def _dense(data: bytes, count: int) -> npt.NDArray[np.int64]:
    """(count,) words again."""
    bits = (count + 7) // 8
    words = np.full(count, np.frombuffer(data[:_WORD], np.int64)[0])
    other = np.unpackbits(np.frombuffer(data[_WORD : _WORD + bits], np.uint8), count=count).astype(np.bool_)
    words[other] = np.frombuffer(data[_WORD + bits :], np.int64)
    return words


def _checksum(path: str, tick: int, dtype: str, shape: str, crc: int) -> int:
    """CRC-32 over a whole row, ``crc`` being that of its data: against a disk that errs, not against people."""
    return zlib.crc32(f"{path}|{tick}|{dtype}|{shape}".encode(), crc)
