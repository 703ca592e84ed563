"""From the phasors that reach a limit to the rows that impose it: one cone for each subset that can be worst."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from powerd.limits import Floats, Ints
from powerd.network.phasors import SAME_ANGLE_DEG, Complex, worst_subsets

#: Coefficients below this share of the largest one of their row are rounding (double precision leaves 1e-16).
ROUNDING = 1e-12


def cones(limit: Ints, tap: Ints, value: Complex, shape: tuple[int, int]) -> tuple[sp.csr_array, Ints]:
    """Rows over taps for every limit and worst subset of its angle groups.

    Args:
        limit: (K,) limit each entry belongs to.
        tap: (K,) tap.
        value: (K,) phasor of the tap there [A per unit current], none of them 0.
        shape: (limits, taps).

    Returns:
        Complex coefficients (m, taps) and limit_of_row (m,), rows in the order of their limits, largest subset first.
    """
    order = np.argsort(limit, kind="stable")
    limit, tap, value = limit[order], tap[order], value[order]
    angle = np.round(np.degrees(np.angle(value)) / SAME_ANGLE_DEG).astype(np.int64) % round(360 / SAME_ANGLE_DEG)
    start = np.searchsorted(limit, np.arange(shape[0] + 1))
    chosen: list[Ints] = []
    limit_of_row: list[int] = []
    for index in range(shape[0]):
        mine = slice(start[index], start[index + 1])
        groups, group = np.unique(angle[mine], return_inverse=True)
        for subset in worst_subsets(tuple((groups * SAME_ANGLE_DEG).tolist())):
            if len(subset) == groups.shape[0]:
                chosen.append(np.arange(mine.start, mine.stop))
            else:
                chosen.append(mine.start + np.flatnonzero(np.isin(group, subset)))
            limit_of_row.append(index)
    row = np.repeat(np.arange(len(chosen)), [c.shape[0] for c in chosen])
    entry = np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    matrix = sp.csr_array((value[entry], (row, tap[entry])), shape=(len(chosen), shape[1]))
    return matrix, np.array(limit_of_row, dtype=np.int64)


def without_dominated(rows: sp.csr_array, limit_of_row: Ints) -> tuple[sp.csr_array, Ints]:
    """Drop every row that another row of its limit exceeds for *all* ceilings.

    Groups are not free of one another once they belong to the same post: three-phase posts behind two delta windings
    give three angles, but in a fixed proportion. With columns c of one row and d of another, norm(d x) <= norm(c x) for
    all x >= 0 if no entry of Re(conj(c_i) c_j) - Re(conj(d_i) d_j) is negative.

    Args:
        rows: (m, n) complex coefficients.
        limit_of_row: (m,) ascending.
    """
    keep = np.ones(rows.shape[0], dtype=np.bool_)
    start = np.searchsorted(limit_of_row, np.unique(limit_of_row))
    for first, last in zip(start.tolist(), np.append(start[1:], rows.shape[0]).tolist(), strict=False):
        if last - first < 2:
            continue
        columns = _directions(rows[first:last].toarray())
        products = np.real(columns.conj()[:, :, None] * columns[:, None, :])
        for small in range(last - first - 1, -1, -1):
            larger = [k for k in range(last - first) if k != small and keep[first + k]]
            keep[first + small] = all((products[k] < products[small] - 1e-9).any() for k in larger)
    return rows[keep], limit_of_row[keep]


def _directions(dense: Complex) -> Complex:
    """The distinct columns (rows of one limit, k) up to a common scale."""
    size = np.abs(dense).max(axis=0)
    scaled = np.round(dense[:, size > 0] / size[size > 0], 9)
    both = np.unique(np.concatenate([scaled.real, scaled.imag]), axis=1)
    return both[: dense.shape[0]] + 1j * both[dense.shape[0] :]


def real_and_imaginary(rows: sp.csr_array) -> tuple[sp.csr_array, sp.csr_array]:
    """Split complex rows (m, n); where all phasors point one way, magnitudes and no imaginary part."""
    rows = rows.tocsr()
    rows.sort_indices()
    lengths = np.diff(rows.indptr)
    row = np.repeat(np.arange(rows.shape[0]), lengths)
    largest = _largest(np.abs(rows.data), rows.indptr)
    first = np.zeros(rows.shape[0], dtype=np.complex128)
    first[lengths > 0] = rows.data[rows.indptr[:-1][lengths > 0]]
    turned = rows.data * np.conj(first / np.where(first == 0, 1, np.abs(first)))[row]
    off = np.where(turned.real > 0, np.abs(turned.imag), np.abs(turned))
    linear = (_largest(off, rows.indptr) <= np.radians(SAME_ANGLE_DEG) * largest)[row]
    real = np.where(linear, np.abs(rows.data), rows.data.real)
    imag = np.where(linear, 0.0, rows.data.imag)
    return _pruned(real, rows, largest[row]), _pruned(imag, rows, largest[row])


def _largest(data: Floats, indptr: Ints) -> Floats:
    """(m,) largest entry of each row, 0 for an empty one."""
    result = np.zeros(indptr.shape[0] - 1)
    np.maximum.at(result, np.repeat(np.arange(result.shape[0]), np.diff(indptr)), data)
    return result


def _pruned(data: Floats, rows: sp.csr_array, largest: Floats) -> sp.csr_array:
    """The same pattern with other data and without what is only rounding."""
    kept = np.where(np.abs(data) > ROUNDING * largest, data, 0.0)
    matrix = sp.csr_array((kept, rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)
    matrix.eliminate_zeros()
    return matrix
