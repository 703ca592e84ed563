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
import numpy.typing as npt
import scipy.sparse as sp

from powerd.compiled import kernel, read
from powerd.limits import Bools, Floats, Ints, Kind, Limits

#: A row holds if its flow is at most ``capacity + SLACK * (1 + capacity)``: rounding of a sum of many terms, far below
#: ``units.ROW_TOLERANCE``.
SLACK = 1e-9

#: How many switching states stay compiled.
KEPT_STATES = 96


class Columns(NamedTuple):
    """Coefficients of all rows by EVSE: those of EVSE i are at ``start[i]:start[i + 1]``."""

    start: Ints
    """(n + 1,)"""
    row: npt.NDArray[np.int32]
    """(nnz,) row index, short: it is half of what a pass over the rows reads."""
    real: Floats
    """(nnz,) real part [limit unit per own unit]."""
    imag: Floats
    """(nnz,) imaginary part."""
    is_linear: bool
    """Whether all imaginary parts are 0: half the work for most passes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Compiled rows of one switching state: m rows, n EVSEs, L limits."""

    columns: Columns
    """Coefficients by EVSE."""
    limit_of_row: Ints
    """(m,) which limit each row imposes."""
    is_cone: Bools
    """(m,) True where the row is a phasor (second-order cone) row."""
    kind: tuple[Kind, ...]
    """(m,) what its limit bounds."""

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
    along, across = coefficients.data.real, coefficients.data.imag
    is_linear = not np.any(across)
    columns = Columns(
        start=coefficients.indptr.astype(np.int64),
        row=coefficients.indices.astype(np.int32),
        real=np.ascontiguousarray(along),
        imag=np.zeros(across.shape[0]) if is_linear else np.ascontiguousarray(across),  # zeros take no memory
        is_linear=is_linear,
    )
    is_cone = np.zeros(limits.row_count, dtype=np.bool_)
    is_cone[columns.row[columns.imag != 0.0]] = True
    kind = tuple(limits.kind[l] for l in limits.limit_of_row.tolist())
    return Rows(columns=columns, limit_of_row=limits.limit_of_row.astype(np.int64), is_cone=is_cone, kind=kind)


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
    if columns.is_linear:
        start, row, value = columns.start, columns.row, columns.real
        for i in range(x.shape[0]):
            for k in range(start[i], start[i + 1] if x[i] != 0.0 else start[i]):
                real[row[k]] += value[k] * x[i]
        return
    for i in range(x.shape[0]):
        if x[i] != 0.0:
            for k in range(columns.start[i], columns.start[i + 1]):
                real[columns.row[k]] += columns.real[k] * x[i]
                imag[columns.row[k]] += columns.imag[k] * x[i]


@kernel
def size_of(real: float, imag: float) -> float:
    """|real + j imag|; most rows are linear, and a root costs as much as all the rest."""
    return float(abs(real) if imag == 0.0 else np.hypot(real, imag))


@kernel
def fits(real: float, imag: float, headroom: float) -> bool:
    """|real + j imag| <= headroom, up to rounding; False where anything is NaN."""
    return bool(size_of(real, imag) <= headroom + SLACK * (1.0 + headroom))


@kernel
def trust(value: float) -> float:
    """The value, or 0 if it is NaN, infinite or negative: what may be trusted of an untrusted number."""
    return value if 0.0 < value < np.inf else 0.0


def readable(column: Floats) -> Floats:
    """Contiguous floats, read-only, in place where they are that: numba compiles anew for each other kind of array."""
    return read(np.ascontiguousarray(column, dtype=np.float64))


@kernel
def headroom_of(limit_of_row: Ints, capacity: Floats, uncontrolled: Floats) -> Floats:
    """What EVSEs may use on each row: max(0, capacity - uncontrolled) (m,) [limit unit].

    A capacity that is not finite counts as 0, a negative load (export) makes no headroom, and a load that is not finite
    leaves none.
    """
    headroom = np.empty(limit_of_row.shape[0])
    for r in range(headroom.shape[0]):
        limit = limit_of_row[r]
        load = uncontrolled[limit]
        known = load < np.inf and load > -np.inf
        headroom[r] = max(trust(capacity[limit]) - max(load, 0.0), 0.0) if known else 0.0
    return headroom
