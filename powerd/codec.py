"""Values of the core as bytes and back: frozen dataclasses with columns in them, exactly and compactly.

A class is written by its name and those of its fields, so a new kind of event needs no code here, and bytes can name
nothing but the classes that the reader allows: unlike a pickle, a file from elsewhere cannot run anything.

Layout: 4 bytes, the length of a JSON text; the text; the columns' bytes in the order in which the text names them.
Columns shrink where that loses nothing: consecutive indices to their first, equal entries to one, integers to the
narrowest type, booleans to bits, and floats that are whole thousandths, bit by bit, to how many they are. All other
floats stay as they are. Of many dataclasses in a row each field is written as one: all their plain values, and one
column of all their columns.
"""

from __future__ import annotations

import json
import struct
import types as python_types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from powerd.compiled import kernel, read

Array = npt.NDArray[Any]
Buffer = Any
"""Bytes, or a column of which they are taken."""
Classes = Mapping[str, type[Any]]

MANY = 8
"""From so many dataclasses on each field of all of them is written as one."""
BREAKS = 8
"""Integers rise by one where they do so for this many at a time, on average."""

_TEXT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_LENGTH = struct.Struct("<I")
_PLAIN = frozenset((str, int, float, bool, type(None)))
_NARROW = tuple((np.dtype(kind), int(np.iinfo(kind).min), int(np.iinfo(kind).max)) for kind in ("<i1", "<i2", "<i4"))
_COUNTS = tuple((np.dtype(kind), float(np.iinfo(kind).max)) for kind in ("<u2", "<u4"))
_SOME = 64
"""Floats fewer than these are not tried for thousandths."""


class Unreadable(ValueError):
    """Bytes that are no value of the classes allowed."""


def classes_of(*roots: object) -> dict[str, type[Any]]:
    """Every dataclass and enum that a value of these types can hold, by name.

    Args:
        roots: dataclasses, unions of them, or any type hint over them.

    Raises:
        TypeError: two of them have one name.
    """
    found: dict[str, type[Any]] = {}
    waiting: list[object] = list(roots)
    while waiting:
        hint = waiting.pop()
        if get_origin(hint) is not None or isinstance(hint, python_types.UnionType):
            waiting.extend(get_args(hint))
        if not isinstance(hint, type) or not (is_dataclass(hint) or issubclass(hint, Enum)):
            continue
        if found.get(hint.__name__) is hint:
            continue
        if hint.__name__ in found:
            raise TypeError(f"two classes are named {hint.__name__}")
        found[hint.__name__] = hint
        if is_dataclass(hint):
            waiting.extend(get_type_hints(hint).values())
    return found


# --- to bytes ---------------------------------------------------------------------------------------------------------


class _Writer:
    """One value on its way to bytes."""

    def __init__(self) -> None:
        self.classes: dict[type[Any], tuple[int, Callable[[Any], tuple[Any, ...]]]] = {}
        self.names: list[list[str]] = []
        self.parts: list[Buffer] = []
        self.ranges: dict[int, list[Any]] = {}  # by id: the columns live as long as the value that is being written

    def form(self, value: Any) -> Any:
        """What stands for the value in the JSON text."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is np.ndarray:
            known = self.ranges.get(id(value))
            if known is None:
                known = self.array(value)
                if known[0] == "r":  # of no bytes: it may stand in many places
                    self.ranges[id(value)] = known
            return known
        if kind is tuple or kind is list:
            if len(value) >= MANY and all(is_dataclass(each) for each in set(map(type, value))):
                return self.many(value)
            return ["l", *map(self.form, value)]
        known_class = self.classes.get(kind)
        if known_class is None:
            if not is_dataclass(kind):
                return self.rare(value)
            known_class = self.known(kind)
        # Most fields are plain: a call for each would cost more than the rest.
        own = [each if type(each) in _PLAIN else self.form(each) for each in known_class[1](value)]
        return ["o", known_class[0], *own]

    def known(self, kind: Any) -> tuple[int, Callable[[Any], tuple[Any, ...]]]:
        """A class that comes for the first time."""
        names, values = _reading(kind)
        self.classes[kind] = len(self.names), values
        self.names.append([kind.__name__, *names])
        return self.classes[kind]

    def many(self, values: Sequence[Any]) -> Any:
        """Dataclasses of a few kinds in whatever order: of each kind one list or column a field."""
        groups: dict[type[Any], list[Any]] = {}
        for value in values:
            groups.setdefault(type(value), []).append(value)
        places = {kind: place for place, kind in enumerate(groups)}
        forms: list[Any] = ["m", self.array(np.array([places[type(value)] for value in values]))]
        for kind, group in groups.items():
            index, read = self.classes.get(kind) or self.known(kind)
            columns = map(self.column, zip(*map(read, group), strict=True))
            forms.append([index, len(group), *columns])
        return forms

    def column(self, values: tuple[Any, ...]) -> Any:
        """One field of many dataclasses."""
        if not _joins(values):
            return ["l", *[each if type(each) in _PLAIN else self.form(each) for each in values]]
        lengths = self.array(np.array([each.shape[0] for each in values]))
        return ["j", lengths, self.array(np.concatenate(values))]

    def rare(self, value: Any) -> Any:
        """The same for what comes seldom."""
        if isinstance(value, Enum):
            return ["e", type(value).__name__, value.value]
        if isinstance(value, datetime):
            return ["t", value.isoformat()]
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a {type(value).__name__} has no bytes: use columns, plain values and dataclasses")

    def array(self, array: Array) -> Any:
        """A column, in the smallest of the forms that keep it exactly."""
        kind, shape = array.dtype.str, array.shape
        if array.size > 1 and array.itemsize <= 8:
            row = array.reshape(-1)
            one = row[:1].tobytes()  # bit by bit: -0.0 is not 0.0, and a nan equals itself
            if row[-1:].tobytes() == one and row.tobytes() == one * array.size:
                self.parts.append(one)
                return ["c", kind, *shape]
            if array.dtype.kind == "i":
                return self.integers(array)
            if array.dtype.kind == "b":
                self.parts.append(np.packbits(array).tobytes())
                return ["b", *shape]
            if array.dtype == np.float64 and array.size >= _SOME:
                counts = _thousandths(row)
                if counts is not None:
                    self.parts.append(counts)
                    return ["k", counts.dtype.str, *shape]
        self.parts.append(np.ascontiguousarray(array))
        return ["a", kind, *shape]

    def integers(self, array: Array) -> Any:
        """Integers: those that rise by one as their first, the others each in as few bytes as the largest needs."""
        kind, shape = array.dtype.str, array.shape
        row = read(np.ascontiguousarray(array, np.int64).reshape(-1))
        low, high, breaks = _seen(row)
        if array.ndim == 1 and not breaks:
            return ["r", kind, shape[0], array.item(0)]
        if array.ndim == 1 and BREAKS * breaks < shape[0]:
            where = _breaks(row, breaks)
            return ["s", kind, shape[0], *map(self.array, (where, array[where], array[:1]))]
        for narrow, least, most in _NARROW:
            if narrow.itemsize < array.itemsize and least <= low and high <= most:
                self.parts.append(array.astype(narrow).tobytes())
                return ["n", kind, narrow.str, *shape]
        self.parts.append(np.ascontiguousarray(array))
        return ["a", kind, *shape]


@cache
def _reading(kind: type[Any]) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Names of the fields of a dataclass, and what reads them of a value."""
    names = tuple(own.name for own in fields(kind))
    if len(names) > 1:
        return names, attrgetter(*names)
    return names, lambda value: tuple(getattr(value, name) for name in names)


def _joins(values: Sequence[Any]) -> bool:
    """Whether these are columns whose rows can be those of one."""
    first = values[0]
    if type(first) is not np.ndarray or not first.ndim:
        return False
    dtype, axes, row = first.dtype, first.ndim, first.shape[1:]
    return all(
        type(own) is np.ndarray and own.dtype == dtype and own.ndim == axes and own.shape[1:] == row for own in values
    )


@kernel
def _rises(before: int, after: int) -> bool:
    """Whether it is one more; the least integer is not one more than the largest."""
    return after > before and after - before == 1


@kernel
def _seen(row: Array) -> tuple[int, int, int]:
    """The least and the largest of integers (n,), and how many do not rise by one from that before them."""
    low, high, breaks = row[0], row[0], 0
    for i in range(1, row.shape[0]):
        low, high = min(low, row[i]), max(high, row[i])
        breaks += not _rises(row[i - 1], row[i])
    return low, high, breaks


@kernel
def _breaks(row: Array, count: int) -> Array:
    """(count,) places of those."""
    where = np.empty(count, np.int64)
    k = 0
    for i in range(1, row.shape[0]):
        if not _rises(row[i - 1], row[i]):
            where[k] = i
            k += 1
    return where


def _thousandths(row: Array) -> Array | None:
    """(k,) how many thousandths each float is, bit by bit; None where one is no such number, or too large a one."""
    floats = read(row)
    for kind, most in _COUNTS:
        counts = np.empty(row.shape[0], kind)
        if _counted(floats, counts, most):
            return counts
    return None


@kernel
def _counted(floats: Array, counts: Array, most: float) -> bool:
    """Writes them; False at the first that has no count up to ``most``."""
    # One way over memory: arrays in between would cost several times as much, for the pages of theirs.
    for i in range(floats.shape[0]):
        count = np.rint(floats[i] * 1000.0)
        # Also where it is -0.0, whose count is that of 0.0.
        if not (count <= most and count / 1000.0 == floats[i] and not np.signbit(floats[i])):
            return False
        counts[i] = int(count)
    return True


def encode(value: object) -> bytes:
    """The bytes of a value.

    Raises:
        TypeError: it holds something that is no column, plain value, time, enum or dataclass of those.
    """
    writer = _Writer()
    form = writer.form(value)
    text = _TEXT.encode([writer.names, form]).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *writer.parts))


# --- and back ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Bytes on their way to a value."""

    def __init__(self, names: list[list[str]], data: memoryview, classes: Classes) -> None:
        self.names, self.data, self.classes = names, data, classes
        self.place = 0
        self.kinds: dict[str, Callable[[list[Any]], Any]] = {
            "l": lambda form: tuple(map(self.value, form)),
            "o": self.instance,
            "e": lambda form: self.known(form[0])(form[1]),
            "t": lambda form: datetime.fromisoformat(form[0]),
            "m": self.many,
            "j": self.joined,
            "r": lambda form: np.arange(form[2], form[2] + form[1], dtype=form[0]),
            "s": self.risen,
            "c": lambda form: np.full(tuple(form[1:]), self.column(form[0], 1)[0], dtype=form[0]),
            "b": self.bits,
            "n": lambda form: self.column(form[1], _size(form[2:])).astype(form[0]).reshape(form[2:]),
            "k": lambda form: (self.column(form[0], _size(form[1:])) / 1000.0).reshape(form[1:]),
            "a": lambda form: self.column(form[0], _size(form[1:])).reshape(form[1:]).copy(),
        }

    def value(self, form: Any) -> Any:
        """The value that a JSON form stands for."""
        return self.kinds[form[0]](form[1:]) if isinstance(form, list) else form

    def instance(self, form: list[Any]) -> Any:
        """A dataclass."""
        name, *own = self.names[form[0]]
        return self.known(name)(**dict(zip(own, map(self.value, form[1:]), strict=True)))

    def many(self, form: list[Any]) -> Any:
        """Dataclasses, of each kind one list or column a field."""
        order, *groups = form
        order = self.value(order)
        waiting = []
        for index, count, *columns in groups:
            name, *own = self.names[index]
            kind, fields_of_all = self.known(name), zip(*map(self.value, columns), strict=True)
            told = [kind(**dict(zip(own, each, strict=True))) for each in fields_of_all] if own else [kind()] * count
            waiting.append(iter(told))
        return tuple(next(waiting[place]) for place in order.tolist())

    def joined(self, form: list[Any]) -> Any:
        """Columns of which the rows were written as those of one."""
        lengths, whole = map(self.value, form)
        ends = np.cumsum(lengths)
        return tuple(whole[end - length : end].copy() for end, length in zip(ends, lengths, strict=True))

    def risen(self, form: list[Any]) -> Array:
        """Integers that rise by one, but at some places."""
        kind, count, *columns = form
        breaks, after, first = map(self.value, columns)
        begins = np.concatenate(([0], breaks))
        lengths = np.diff(np.concatenate((begins, [count])))
        shift = np.concatenate((first, after)) - begins
        return np.asarray(np.repeat(shift, lengths) + np.arange(count), dtype=kind)

    def known(self, name: str) -> type[Any]:
        """A class that may be made."""
        return self.classes[name]

    def column(self, kind: str, count: int) -> Array:
        """The next ``count`` entries of the data."""
        dtype = np.dtype(kind)
        if dtype.kind not in "biuf" or count < 0:
            raise Unreadable(f"a column of {kind}")
        start, self.place = self.place, self.place + count * dtype.itemsize
        return np.frombuffer(self.data[start : self.place], dtype=dtype, count=count)

    def bits(self, form: list[Any]) -> Array:
        """A column of booleans."""
        count = _size(form)
        packed = self.column("|i1", (count + 7) // 8).view(np.uint8)
        return np.unpackbits(packed, count=count).astype(np.bool_).reshape(form)


def _size(shape: list[int]) -> int:
    """Entries of a column of this shape."""
    count = 1
    for length in shape:
        count *= length
    return count


def decode(data: bytes, classes: Classes) -> Any:
    """The value again.

    Args:
        data: as ``encode`` gave it.
        classes: the dataclasses and enums it may hold, by name: ``classes_of``.

    Raises:
        Unreadable: the bytes are damaged, or of a version with other classes.
    """
    try:
        (length,) = _LENGTH.unpack_from(data)
        names, form = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        reader = _Reader(names, memoryview(data)[_LENGTH.size + length :], classes)
        value = reader.value(form)
    except (struct.error, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if reader.place != len(reader.data):
        raise Unreadable(f"{len(reader.data) - reader.place} bytes are left over")
    return value
