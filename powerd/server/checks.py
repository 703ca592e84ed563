"""Checks of request fields. Each takes the field's path, for the answer, and the value; each raises ``BadRequest``."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence

import numpy as np

from powerd.errors import BadRequest
from powerd.limits import Bools, Floats, Ints
from powerd.state.readings import rounded_down

QUANTITY_MAX = 1e6
"""Largest current, power or energy believed [A, kW, kWh]."""
OFFSET_MAX = 1.0
"""How far below 0 a reading may be for its meter's offset [A, kW]; beyond, it is connected the wrong way round."""
TIME_MAX_S = 1e10
"""Largest clock reading or span believed [s], 300 years."""
ID_MAX = 128
"""Longest id [characters]."""
REQUEST_ID_MAX = 64
"""Longest request id [characters]."""
REASON_MAX = 1000
"""Longest reason [characters]."""


def at_least(field: str, value: int, least: int) -> int:
    """An integer that is not below ``least``."""
    if value < least:
        raise BadRequest(field, f"an integer >= {least}, got {value}")
    return value


def number(field: str, value: float, *, least: float = 0.0, most: float = QUANTITY_MAX) -> float:
    """A finite number in [least, most]."""
    if not least <= value <= most:  # also refuses nan
        raise BadRequest(field, f"a number from {least:g} to {most:g}, got {value:g}")
    return value


def positive(field: str, value: float) -> float:
    """A finite number above 0."""
    if not 0 < value <= QUANTITY_MAX:
        raise BadRequest(field, f"a number above 0, at most {QUANTITY_MAX:g}, got {value:g}")
    return value


def clock(field: str, value: float) -> float:
    """A clock reading or span [s]."""
    return number(field, value, most=TIME_MAX_S)


def text(field: str, value: str, *, most: int = ID_MAX, empty: bool = False) -> str:
    """A text of bounded length."""
    if not value and not empty:
        raise BadRequest(field, "a text that is not empty")
    if len(value) > most:
        raise BadRequest(field, f"at most {most} characters, got {len(value)}")
    return value


def request_id(value: str) -> str:
    """A request id; may be empty."""
    return text("request_id", value, most=REQUEST_ID_MAX, empty=True)


def made_id(request_id: str) -> str:
    """An id for what came without one; for a retry the same."""
    return uuid.uuid5(uuid.NAMESPACE_OID, request_id).hex if request_id else uuid.uuid4().hex


def indices(field: str, values: Sequence[int], count: int) -> Ints:
    """A column of EVSE places on a stream of ``count`` EVSEs, each at most once -> (k,)."""
    if len(values) > count:
        raise BadRequest(field, f"at most {count} entries, as many as the hello has EVSEs, got {len(values)}")
    column = np.asarray(values, np.int64)
    outside = (column < 0) | (column >= count)
    if outside.any():
        place = int(np.argmax(outside))
        raise BadRequest(f"{field}[{place}]", f"an index from 0 to {count - 1}, got {int(column[place])}")
    if np.unique(column).shape[0] != column.shape[0]:
        raise BadRequest(field, "each index at most once")
    return column


def same_length(field: str, length: int, other: str, wanted: int) -> None:
    """A column as long as ``other`` asks for."""
    if length != wanted:
        raise BadRequest(field, f"{wanted} entries to fit {other}, got {length}")


def numbers(field: str, values: Sequence[float], *, most: float | Floats = QUANTITY_MAX) -> Floats:
    """A column of finite numbers in [0, most] -> (k,); ``most`` for all, or (k,) for each."""
    column = np.asarray(values, np.float64)
    good: Bools = (column >= 0) & (column <= most)
    if not good.all():
        place = int(np.argmin(good))
        number(f"{field}[{place}]", float(column[place]), most=float(np.broadcast_to(most, column.shape)[place]))
    return column


def readings(field: str, values: Sequence[float]) -> Floats:
    """Readings of a post's meter -> (k,) >= 0, in whole mA (W), the next below.

    A little below 0 is the offset of a current transformer, and is 0.
    """
    column = np.asarray(values, np.float64)
    offset = (column >= -OFFSET_MAX) & (column < 0.0)
    return rounded_down(numbers(field, np.where(offset, 0.0, column).tolist()))


def is_clock_order(field: str, value: float, earlier: float, what: str) -> None:
    """``value`` is not before ``earlier``, which is ``what``."""
    if value < earlier or math.isnan(value):
        raise BadRequest(field, f"not before {what} ({earlier:.6f} s), got {value:.6f}")
