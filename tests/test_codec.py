"""Values as bytes and back: every kind of event, bit by bit, and nothing that was not allowed."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from powerd.codec import Unreadable, classes_of, decode, encode
from powerd.control import events as ev
from powerd.journal.record import CLASSES

SHAPES = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=7)
DTYPES = st.sampled_from([np.float64, np.int64, np.bool_])
ARRAYS = {
    np.float64: hnp.arrays(np.float64, SHAPES),
    np.int64: hnp.arrays(np.int64, SHAPES) | st.integers(0, 9).map(lambda k: np.arange(k, 2 * k)),
    np.bool_: hnp.arrays(np.bool_, SHAPES),
}


def same(one: object, other: object) -> bool:
    """Bit-equal, in every field and entry."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if is_dataclass(one):
        return type(one) is type(other) and all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime):
        return one == other  # in UTC the fold means nothing
    return type(one) is type(other) and repr(one) == repr(other)


def values(hint: object) -> st.SearchStrategy[object]:
    """Values of a type hint, of the kinds that events are made of."""
    plain: dict[object, st.SearchStrategy[object]] = {
        int: st.integers(-(2**63), 2**63),
        float: st.floats(),
        bool: st.booleans(),
        str: st.text(max_size=9),
        type(None): st.none(),
        datetime: st.datetimes(timezones=st.just(UTC)),
    }
    if hint in plain:
        return plain[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    if isinstance(hint, type) and is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{f.name: values(hints[f.name]) for f in fields(hint)})
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is np.ndarray:
        (scalar,) = typing.get_args(arguments[1])
        return ARRAYS[scalar]
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    assert origin in {typing.Union, types.UnionType}, f"no values for {hint}"
    return st.one_of([values(own) for own in arguments])


@settings(max_examples=300, deadline=None)
@given(event=st.one_of([values(kind) for kind in typing.get_args(ev.Event)]))
def test_every_event_survives(event: object) -> None:
    """Whatever kinds of events there are, with whatever numbers in them; a new kind needs no code."""
    assert same(decode(encode((event, event)), CLASSES), (event, event))


@settings(max_examples=200, deadline=None)
@given(events=st.lists(st.one_of([values(kind) for kind in typing.get_args(ev.Event)]), max_size=30))
def test_many_events_survive_in_their_order(events: list[object]) -> None:
    """Of whichever kinds, with columns of whatever lengths, and with none where others have one."""
    assert same(decode(encode(tuple(events)), CLASSES), tuple(events))


@given(
    columns=st.lists(DTYPES.flatmap(lambda kind: ARRAYS[kind]), min_size=8, max_size=12)
    | st.lists(hnp.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(3))), min_size=8, max_size=12)
    | st.lists(st.integers(0, 3).map(lambda k: np.arange(5 * k, 9 * k)), min_size=8, max_size=12)
)
def test_a_field_of_many_survives_whatever_their_columns(columns: list[np.ndarray]) -> None:
    """Of one kind and width they are joined, of several they are not; of each the same comes back."""
    many = tuple(ev.Measured(evse=column, drawn=column, window_s=None) for column in columns)
    assert same(decode(encode(many), CLASSES), many)


def test_the_events_of_a_tick_shrink() -> None:
    """Of 50 controllers with 200 posts each the stamps take next to nothing, the readings what they have."""
    posts = np.split(np.arange(10_000), 50)
    seen = [ev.StampSeen(evse=own, incarnation=c, boottime_s=1.0) for c, own in enumerate(posts[::-1])]
    rng = np.random.default_rng(1)
    read = [ev.Measured(evse=own, drawn=rng.random((200, 3)), window_s=None) for own in posts]
    both = tuple(event for pair in zip(seen, read, strict=True) for event in pair)
    assert len(encode(tuple(seen))) < 2000
    assert len(encode(both)) < 8 * 30_000 + 3000
    assert same(decode(encode(both), CLASSES), both)


@given(array=DTYPES.flatmap(lambda kind: ARRAYS[kind]))
def test_every_column_survives_in_whatever_form(array: np.ndarray) -> None:
    """Constant, consecutive, narrow, packed or as it is."""
    assert same(decode(encode(array), {}), array)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_the_least_integer_is_not_one_more_than_the_largest(kind: type[np.signedinteger]) -> None:
    """As it would be to a machine that counts round."""
    array = np.array([np.iinfo(kind).max, np.iinfo(kind).min], kind)
    assert same(decode(encode(array), {}), array)


@given(
    steps=hnp.arrays(
        np.int64, st.integers(64, 200), elements=st.integers(0, 2**17) | st.integers(2**32 - 2, 2**32 + 1)
    ),
    odd=st.none()
    | st.tuples(st.integers(0, 199), st.sampled_from([-0.0, np.nan, np.inf, -0.001, 0.3 + 2**-54, 1e300])),
)
def test_thousandths_survive_bit_by_bit(steps: np.ndarray, odd: tuple[int, float] | None) -> None:
    """However many, and with one among them that is none."""
    column = steps / 1000.0
    if odd is not None:
        column[odd[0] % column.size] = odd[1]
    assert same(decode(encode(column), {}), column)


def test_columns_shrink() -> None:
    """Of 10 000 entries: indices, stamps, flags take next to nothing, mA two bytes, other floats what they have."""
    n = 10_000
    assert len(encode(np.arange(n))) < 100
    assert len(encode(np.full(n, 41.5))) < 100
    assert len(encode(np.arange(n) % 3 == 0)) < n / 8 + 100
    assert len(encode(np.arange(n)[::-1].copy())) < 2 * n + 100
    assert len(encode(np.sqrt(np.arange(n)))) < 8 * n + 100
    assert len(encode(np.arange(n)[::-1] / 1000.0)) < 2 * n + 100
    assert len(encode(np.arange(n)[::-1] / 100.0)) < 4 * n + 100


@given(event=values(ev.HelloReceived), place=st.floats(0, 1), flip=st.integers(1, 255))
def test_damaged_bytes_are_unreadable_or_another_value(event: object, place: float, flip: int) -> None:
    """Never another exception, and never anything but the classes allowed."""
    data = bytearray(encode(event))
    data[int(place * (len(data) - 1))] ^= flip
    try:
        decode(bytes(data), CLASSES)
    except Unreadable:
        return


def test_only_allowed_classes_are_made() -> None:
    """Bytes of a class that the reader did not list are refused, and so is what has no bytes."""

    class Colour(StrEnum):
        RED = "red"

    @dataclass(frozen=True)
    class Own:
        colour: Colour
        due: datetime

    value = Own(Colour.RED, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=1))
    assert decode(encode(value), {"Own": Own, "Colour": Colour}) == value
    with pytest.raises(Unreadable, match="Own"):
        decode(encode(value), CLASSES)
    with pytest.raises(TypeError, match="a set has no bytes"):
        encode({1, 2})


def test_two_classes_of_one_name_are_refused() -> None:
    """The name alone says which class is meant."""
    other = type("Measured", (), {})
    with pytest.raises(TypeError, match="two classes are named Measured"):
        classes_of(ev.Measured, dataclass(other))
