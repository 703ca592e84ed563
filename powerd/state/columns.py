"""Columns that are replaced, never changed: and yet one tick with a thousand events copies each column only once.

At the start of a tick every column of the snapshot is frozen (read-only). The first ``put`` of the tick copies a frozen
column; the later ones find a copy that is theirs alone and write into it. Nobody outside the tick can see that, and a
forgotten copy is an error instead of a corrupted past.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from powerd.limits import Ints

Column = TypeVar("Column", bound=npt.NDArray[Any])


def put(column: Column, evse: Ints | int, value: object) -> Column:
    """The column with ``value`` at ``evse``: the same array if this tick owns it, else a copy."""
    changed = column if column.flags.writeable else column.copy()
    changed[evse] = value
    return changed


def freeze(columns: Iterable[npt.NDArray[np.generic]]) -> None:
    """Makes columns read-only; what is frozen stays so."""
    for column in columns:
        column.setflags(write=False)
