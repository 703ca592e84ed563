"""Columns that are replaced, never changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from powerd.compiled import read
from powerd.limits import Floats
from powerd.state.columns import freeze, kept, own, put, put_news, replace

ODD = [0.0, -0.0, np.nan, np.inf, 1.0, 1.0 + 2**-52]


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


@given(
    before=hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=40), elements=st.sampled_from(ODD)),
    change=st.none() | st.tuples(st.integers(0, 1599), st.sampled_from(ODD)),
)
def test_what_is_the_same_bit_by_bit_is_kept(before: Floats, change: tuple[int, float] | None) -> None:
    """Else the new one: a nan equals itself, -0.0 is not 0.0, wherever in the column it stands."""
    after = before.copy()
    if change is not None:
        after.reshape(-1)[change[0] % after.size] = change[1]
    assert kept(before, after) is (before if after.tobytes() == before.tobytes() else after)
    flags, others = np.signbit(before), np.signbit(after)
    assert kept(flags, others) is (flags if np.array_equal(flags, others) else others)


@given(told=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=4))
def test_what_is_no_news_copies_no_column(told: list[tuple[int, int]]) -> None:
    """``put_news`` says what ``put`` says, in the column itself where it says so already."""
    column = np.array([0, 1, 2, 0, 1, 2])
    freeze([column])
    evse, value = np.array([i for i, _ in told], np.int64), np.array([v for _, v in told], np.int64)
    after = put_news(column, evse, value)
    assert np.array_equal(after, put(column, evse, value))
    assert (after is column) == bool((column[evse] == value).all())
