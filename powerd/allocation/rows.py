"""The limit rows in the layout the kernels want: for each EVSE, the rows it loads (compressed columns).

Compiled once per switching state and kept: ``Limits`` changes its right-hand side every tick, its matrices only when a
switch moves.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints, Limits

#: A row holds if its flow is at most ``capacity + SLACK * (1 + capacity)``: rounding of a sum of many terms, far below
#: ``units.ROW_TOLERANCE``.
SLACK = 1e-9

#: How many switching states stay compiled.
KEPT_STATES = 16


class Columns(NamedTuple):
    """Coefficients of all rows by EVSE: those of EVSE i are at ``start[i]:start[i + 1]``."""

    start: Ints
    """(n + 1,)"""
    row: Ints
    """(nnz,) row index."""
    real: Floats
    """(nnz,) real part [limit unit per own unit]."""
    imag: Floats
    """(nnz,) imaginary part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Compiled rows of one switching state: m rows, n EVSEs, L limits."""

    columns: Columns
    """Coefficients by EVSE."""
    limit_of_row: Ints
    """(m,) which limit each row imposes."""
    is_cone: Bools
    """(m,) True where the row is a phasor (second-order cone) row."""

    @property
    def row_count(self) -> int:
        """m."""
        return int(self.limit_of_row.shape[0])


def _turn_single_angles(coefficients: sp.csc_array) -> None:
    """Turn rows whose coefficients all point one way onto the real axis: the norm is then a plain sum, no cone."""
    row, value = coefficients.indices, coefficients.data
    size = np.abs(value)
    total = np.zeros(coefficients.shape[0], dtype=np.complex128)
    total_size = np.zeros(coefficients.shape[0])
    np.add.at(total, row, value)
    np.add.at(total_size, row, size)
    one_way = np.abs(total) >= total_size * (1.0 - 1e-14)
    coefficients.data[one_way[row]] = size[one_way[row]]


def _compile(limits: Limits) -> Rows:
    """Merge the patterns of ``real`` and ``imag`` and transpose them."""
    coefficients = (sp.csc_array(limits.real) + 1j * sp.csc_array(limits.imag)).tocsc()
    _turn_single_angles(coefficients)
    coefficients.sort_indices()
    columns = Columns(
        start=coefficients.indptr.astype(np.int64),
        row=coefficients.indices.astype(np.int64),
        real=np.ascontiguousarray(coefficients.data.real),
        imag=np.ascontiguousarray(coefficients.data.imag),
    )
    is_cone = np.zeros(limits.row_count, dtype=np.bool_)
    is_cone[columns.row[columns.imag != 0.0]] = True
    return Rows(columns=columns, limit_of_row=limits.limit_of_row.astype(np.int64), is_cone=is_cone)


_compiled: OrderedDict[tuple[int, int, int], tuple[Limits, Rows]] = OrderedDict()
_compiled_lock = Lock()


def rows_of(limits: Limits) -> Rows:
    """The compiled rows of ``limits``; kept for the last few switching states (same matrix objects = same state)."""
    key = (id(limits.real), id(limits.imag), id(limits.limit_of_row))
    with _compiled_lock:
        kept = _compiled.get(key)
        if kept is not None:
            _compiled.move_to_end(key)
            return kept[1]
    rows = _compile(limits)
    with _compiled_lock:
        _compiled[key] = (limits, rows)  # holding ``limits`` keeps the ids from being reused
        while len(_compiled) > KEPT_STATES:
            _compiled.popitem(last=False)
    return rows


@kernel
def add_flow(columns: Columns, x: Floats, real: Floats, imag: Floats) -> None:
    """Add the complex row flows of ``x`` (n,) to ``real`` and ``imag`` (m,) in place; zeros of ``x`` touch nothing."""
    for i in range(x.shape[0]):
        if x[i] != 0.0:
            for k in range(columns.start[i], columns.start[i + 1]):
                real[columns.row[k]] += columns.real[k] * x[i]
                imag[columns.row[k]] += columns.imag[k] * x[i]


@kernel
def fits(real: float, imag: float, headroom: float) -> bool:
    """|real + j imag| <= headroom, up to rounding; False where anything is NaN."""
    bound = headroom + SLACK * (1.0 + headroom)
    return bool(abs(real) <= bound) if imag == 0.0 else bool(np.hypot(real, imag) <= bound)


def trusted(values: Floats) -> Floats:
    """A fresh float copy with NaN, infinities and negatives as 0: what may be trusted of an untrusted column."""
    copy = np.array(values, dtype=np.float64)
    copy[~(np.isfinite(copy) & (copy > 0.0))] = 0.0
    return copy


def headroom_of(limits: Limits, uncontrolled: Floats) -> Floats:
    """What EVSEs may use on each row: max(0, capacity - uncontrolled) (m,) [limit unit].

    A capacity that is not finite counts as 0, a negative load (export) makes no headroom, and a load that is not finite
    leaves none.
    """
    load = np.where(np.isfinite(uncontrolled), np.maximum(uncontrolled, 0.0), np.inf)
    headroom: Floats = np.maximum(trusted(limits.capacity) - load, 0.0)[limits.limit_of_row]
    return headroom
