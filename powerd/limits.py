"""The seam: what ``network`` makes and ``allocation`` reads; plain arrays, neither room knows the other.

Every EVSE is a column ``i`` (0 <= i < n). Its variable ``x_i`` is its ceiling in its own unit: ampere per connected
phase for AC, kW for DC. Every physical bound (one side of one element on one phase) is a *limit* ``l``; it is imposed
by one or more *rows* ``r``:

    hypot(real[r] @ x, imag[r] @ x) + uncontrolled[limit_of_row[r]] <= capacity[limit_of_row[r]]

A linear row has ``imag[r] = 0`` and ``real[r] >= 0``. A phasor limit (line-to-line posts, delta-wye transformers) needs
several rows, one for each undominated subset of its angle groups, because cars may draw less than their ceilings and
norm(A x) <= c does not imply norm(A d) <= c for 0 <= d <= x. With all subsets imposed, the set of admitted ``x`` is
closed downward: lowering any ceiling never violates a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from powerd.compiled import kernel, read
from powerd.units import ROW_TOLERANCE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Kind = Literal["current", "power", "imbalance", "neutral"]
"""What a limit bounds: the current of one phase, power, what phases differ by, the current of a neutral."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Posts:
    """The EVSEs as columns, length n. Units: A for AC, kW for DC ("own unit")."""

    ids: tuple[str, ...]
    """EVSE ids, unique over the site."""
    is_dc: Bools
    """True where the ceiling is in kW."""
    min_ceiling: Floats
    """Smallest ceiling above 0 that may be granted (IEC 61851-1: 6 A for AC) [own unit]."""
    max_ceiling: Floats
    """Rating [own unit]."""
    pilot_steps: tuple[Floats, ...]
    """Per EVSE the ceilings it can take, ascending, starting with 0; an empty array = continuous above the minimum."""
    fallback: Floats
    """F: ceiling on silence with a car plugged in [own unit]."""
    fallback_idle: Floats
    """Ceiling on silence without a car [own unit]."""
    boot_current: Floats
    """What the post does after its own restart [own unit]."""
    phase_count: Ints
    """Conductors a full connection loads: 1 (line-to-neutral), 2 (line-to-line), 3; for DC 3."""
    kw_per_unit: Floats
    """kW at nominal voltage and unity power factor for one own unit (DC: 1)."""
    controller: Ints
    """Index of the owning controller in ``Controllers``."""

    @property
    def count(self) -> int:
        """n."""
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class Controllers:
    """The charger controllers as columns."""

    ids: tuple[str, ...]
    """Controller ids, unique over the site."""
    ttl_s: Floats
    """Lease length, counted by the controller from the echoed stamp [s]."""
    reaction_s: Floats
    """From an applied lower ceiling until the car has followed [s] (IEC 61851-1: 5)."""
    watchdog_s: Floats
    """Time the EVSE needs to fall back after the process died [s]; 0 = it enforces the validity itself; nan = none."""
    drift: Floats
    """rho: largest relative clock drift between controller and daemon."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """Linear rows once more as a tree, for the O(n) kernel: those that form one, which in most sites are all.

    Where others hold nobody back the answer under these is the answer under all.

    With ``y_i = gain[i] * x_i`` the row at node v, phase k (where ``row[v, k] >= 0``) reads
    ``scale[v] * sum(y_i for i below v on phase k) <= capacity``. Parents come before children (parent[v] < v).
    """

    parent: Ints
    """(N,) parent node, -1 at a root."""
    node: Ints
    """(n,) node each EVSE hangs on; -1 where it is not energised (its ceiling must be 0)."""
    phase_bits: Ints
    """(n,) bit k set = loads phase k (1, 2, 4; 7 = three-phase)."""
    gain: Floats
    """(n,) reference ampere per own unit; 1 for an AC post at the reference voltage."""
    row: Ints
    """(N, 3) row index, -1 where the node has no rating on that phase."""
    scale: Floats
    """(N,) ampere at the node per reference ampere (voltage ratio)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Limits:
    """All bounds on sums of ceilings for one switching state. n EVSEs, L limits, m >= L rows."""

    real: sp.csr_array
    """(m, n) real parts [limit unit per own unit]."""
    imag: sp.csr_array
    """(m, n) imaginary parts; a zero row is linear."""
    limit_of_row: Ints
    """(m,) which limit each row imposes."""
    capacity: Floats
    """(L,) rating after derating, >= 0 [unit[l]]."""
    unit: tuple[str, ...]
    """(L,) "A" or "kW"."""
    kind: tuple[Kind, ...]
    """(L,) what it bounds."""
    name: tuple[str, ...]
    """(L,) for people: "phase L2 of transformer T1, low side"."""
    element: tuple[str, ...]
    """(L,) id of the element protected."""
    phase: tuple[str, ...]
    """(L,) "l1", "l2", "l3" or "" where all phases together."""
    source: tuple[str, ...]
    """(L,) where the number came from: "150 kVA nameplate"."""
    energized: Bools
    """(n,) False where no supply reaches the EVSE in this switching state: its ceiling must be 0."""
    tree: Tree | None
    """The rows that form a tree; None where none do."""

    @property
    def row_count(self) -> int:
        """m."""
        return int(self.limit_of_row.shape[0])

    @cached_property
    def trace(self) -> Floats:
        """(L,) flow that is no overshoot: each ceiling is followed to ``ROW_TOLERANCE``, and all may be so high."""
        return ROW_TOLERANCE + self.limit_flow(np.full(self.real.shape[1], ROW_TOLERANCE))

    def entries(self) -> tuple[Ints, Ints, Floats]:
        """Who is under which limit: (k,) limits, (k,) EVSEs, (k,) what one own unit of it is there [limit unit]."""
        found = (self.real + 1j * self.imag).tocoo()
        return self.limit_of_row[found.row], found.col, np.abs(found.data)

    def flow(self, x: Floats) -> Floats:
        """Row flows hypot(real x, imag x) for ceilings or currents ``x`` (n,) [own unit] -> (m,) [limit unit]."""
        return _flows(*self._packed, read(x))

    def limit_flow(self, x: Floats) -> Floats:
        """Largest row flow of each limit for ``x`` (n,) -> (L,) [limit unit]."""
        return _limit_flows(*self._packed, read(self.limit_of_row), self.capacity.shape[0], read(x))

    @cached_property
    def _packed(self) -> tuple[_Packed, _Packed]:
        """The matrices as the loops take them."""
        return _pack(self.real), _pack(self.imag)


_Places = npt.NDArray[np.uint32]
_Packed = tuple[_Places, _Places, Floats]
"""Where each row begins (m + 1,), the EVSE of each entry and its value (nnz,), read-only."""


def _pack(matrix: sp.csr_array) -> _Packed:
    """Indices without a sign: with one, each look-up would first ask whether it counts from the end."""
    begin, evse = matrix.indptr.astype(np.uint32), matrix.indices.astype(np.uint32)
    return read(begin), read(evse), read(matrix.data.astype(np.float64, copy=False))


@kernel
def _row_sum(begin: _Places, evse: _Places, value: Floats, r: int, x: Floats) -> float:
    """Row ``r`` of a matrix times ``x`` (n,)."""
    total = 0.0
    for k in range(begin[r], begin[r + 1]):
        total += value[k] * x[evse[k]]
    return total


@kernel
def _flows(real: _Packed, imag: _Packed, x: Floats) -> Floats:
    """See ``Limits.flow``; a loop, since the library's product costs ten times as much on a small site."""
    (begin, evse, value), (begin_imag, evse_imag, value_imag) = real, imag
    flow = np.empty(begin.shape[0] - 1)
    for r in range(flow.shape[0]):
        along = _row_sum(begin, evse, value, r, x)
        if begin_imag[r] == begin_imag[r + 1]:
            flow[r] = abs(along)
        else:
            flow[r] = np.hypot(along, _row_sum(begin_imag, evse_imag, value_imag, r, x))
    return flow


@kernel
def _limit_flows(real: _Packed, imag: _Packed, limit_of_row: Ints, count: int, x: Floats) -> Floats:
    """See ``Limits.limit_flow``, of ``count`` limits; 0 where one has no row. A nan stays one."""
    flow, largest = _flows(real, imag, x), np.zeros(count)
    for r in range(flow.shape[0]):
        largest[limit_of_row[r]] = np.maximum(largest[limit_of_row[r]], flow[r])
    return largest
