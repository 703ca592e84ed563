"""Limits of one sort before they are joined: rows, right-hand sides, names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from powerd.limits import Floats, Ints, Kind
from powerd.network.tolerance import Overload

Name = tuple[str, str, str]
"""What a limit is called for people, the element it protects, where its number came from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """The fields of ``rows.Rows``, and the rows' parts; L limits, m rows, n EVSEs, D loads."""

    kind: Kind
    """What the limits bound."""
    rows: sp.csr_array
    """(m, n) complex coefficients."""
    limit_of_row: Ints
    """(m,) limit within this block."""
    loads: sp.csr_array
    """(L, D) most that one kW of each uncontrolled load can put on each limit."""
    capacity: Floats
    """(L,) rating."""
    names: list[Name]
    """(L,) names."""
    branch: Ints
    """(L,) branch; -1 = it belongs to none."""
    side: Ints
    """(L,) side of it."""
    phase: Ints
    """(L,) phase."""
    supply: Ints
    """(L,) supply of a kW limit."""
    losses: Floats
    """(L,) what is already off its capacity [kW]."""
    overload: tuple[Overload, ...]
    """(L,) all that its current heats; a contract has nothing."""
    pickup_losses: Floats
    """(L,) what loads at their pick-up add to that [kW]."""


def block(
    kind: Kind,
    *,
    rows: sp.csr_array,
    loads: sp.csr_array,
    limit_of_row: Ints,
    capacity: Floats,
    names: list[Name],
    supply: Ints | None = None,
    losses: Floats | None = None,
    overload: tuple[Overload, ...] | None = None,
    pickup_losses: Floats | None = None,
) -> Block:
    """Limits that belong to no branch side and phase."""
    none = np.full(capacity.shape[0], -1, dtype=np.int64)
    return Block(
        kind=kind,
        rows=rows,
        limit_of_row=limit_of_row,
        loads=loads,
        capacity=capacity,
        names=names,
        branch=none,
        side=none,
        phase=none,
        supply=none if supply is None else supply,
        losses=np.zeros(capacity.shape[0]) if losses is None else losses,
        overload=(Overload(devices=()),) * capacity.shape[0] if overload is None else overload,
        pickup_losses=np.zeros(capacity.shape[0]) if pickup_losses is None else pickup_losses,
    )
