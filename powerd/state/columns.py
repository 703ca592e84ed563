"""Columns that are replaced, never changed: and yet one tick with a thousand events copies each column only once.

At the start of a tick every column of the snapshot is frozen (read-only). The first ``put`` of the tick copies a frozen
column; the later ones find a copy that is theirs alone and write into it. Nobody outside the tick can see that, and a
forgotten copy is an error instead of a corrupted past.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from powerd.compiled import kernel, read
from powerd.limits import Ints

Column = TypeVar("Column", bound=npt.NDArray[Any])
Record = TypeVar("Record")

BLOCK = 256
"""So many words are compared together: the processor takes several at a time, and most are equal."""

SMALL = 4096
"""Up to so many bytes a comparison takes less time than the call of a kernel."""

if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414 exported; the type checker knows every field of it
else:

    def replace(record: Record, **changes: object) -> Record:
        """``dataclasses.replace`` without calling ``__init__``: a sixth of the time on a record of forty columns.

        For records whose fields are all that they hold: nothing cached, no ``__post_init__``, no slots.

        Raises:
            TypeError: a name is no field.
        """
        changed = object.__new__(type(record))
        fields = changed.__dict__
        fields.update(record.__dict__)
        count = len(fields)
        fields.update(changes)
        if len(fields) != count:
            raise TypeError(f"{type(record).__name__} has no field of one of these names: {', '.join(changes)}")
        return changed


def own(column: Column) -> Column:
    """The column if this tick owns it, else a copy: for loops that write into it."""
    return column if column.flags.writeable else column.copy()


def put(column: Column, evse: Ints | int | tuple[int, int], value: object) -> Column:
    """The column with ``value`` at ``evse``: the same array if this tick owns it, else a copy."""
    changed = own(column)
    changed[evse] = value
    return changed


def put_news(column: Column, evse: Ints, value: object) -> Column:
    """``put``; the column itself where it says so already. For integers and booleans, whose equals are the same."""
    return put(column, evse, value) if np.count_nonzero(column[evse] != value) else column


def kept(before: Column, after: Column) -> Column:
    """The column of before where the one after it says the same, bit by bit: what did not change stays one object.

    Whoever keeps a snapshot, as the journal does, need not look at such a column. Both are of one shape; words of 8
    bytes or of one.
    """
    if before.nbytes <= SMALL:
        return before if before.tobytes() == after.tobytes() else after
    kind = np.int64 if before.itemsize == np.dtype(np.int64).itemsize else np.int8
    return before if same(words(before, kind), words(after, kind)) else after


def words(column: npt.NDArray[Any], kind: Any = np.int64) -> npt.NDArray[Any]:
    """A column's bits as integers in one row, read-only: a nan equals itself, and -0.0 is not 0.0."""
    return read(column.reshape(-1).view(kind))


@kernel
def same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Two columns (k,) of words are equal."""
    for first in range(0, one.shape[0], BLOCK):
        differs = 0
        for i in range(first, min(first + BLOCK, one.shape[0])):
            differs |= one[i] ^ other[i]
        if differs != 0:
            return False
    return True


def freeze(columns: Iterable[object], frozen: Iterable[object] = ()) -> None:
    """Makes columns read-only, and leaves alone what is none; what is frozen stays so.

    ``frozen`` columns, in the same order, need not be asked again.
    """
    for column, already in zip_longest(columns, frozen):
        if column is not already and type(column) is np.ndarray:
            column.setflags(write=False)
