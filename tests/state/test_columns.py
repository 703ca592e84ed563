"""Columns that are replaced, never changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from powerd.limits import Floats
from powerd.state.columns import freeze, own, put, read, replace


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Record:
    one: Floats
    other: int


def test_replace_is_that_of_dataclasses() -> None:
    """The same record with other fields, the one given unchanged; a name that is no field is an error."""
    record = _Record(one=np.ones(2), other=1)
    changed = replace(record, other=2)
    assert (changed.one is record.one, changed.other, record.other) == (True, 2, 1)
    assert dataclasses.asdict(changed).keys() == dataclasses.asdict(dataclasses.replace(record, other=2)).keys()
    with pytest.raises(TypeError, match="_Record has no field"):
        replace(record, another=3)  # type: ignore[call-arg]


def test_a_frozen_column_is_copied_once() -> None:
    """What is frozen is never written; its copy, being ours, is written without another one."""
    column = np.zeros(3)
    freeze([column])
    first = put(column, 1, 5.0)
    assert (column[1], first[1], put(first, 2, 6.0) is first, own(first) is first) == (0.0, 5.0, True, True)


def test_a_view_to_read_cannot_be_written() -> None:
    """The view refuses, its column stays writable."""
    column = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        read(column)[0] = 1.0
    assert column.flags.writeable
