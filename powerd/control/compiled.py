"""A site made ready for the tick: columns and limits that do not change while its switches do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from powerd.limits import Floats, Limits
from powerd.network.electrical import Electrical
from powerd.network.flow_check import AcCheck, check_of
from powerd.network.metering import Metering, metering_of
from powerd.network.rows import build_rows
from powerd.state.lease_terms import LeaseTerms


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledSite:
    """What ``step`` knows of the drawing."""

    electrical: Electrical
    """The drawing as columns."""
    limits: Limits
    """Limits of the present switching state."""
    terms: LeaseTerms
    """Lease terms of each EVSE."""
    loads_worst: Floats
    """(L,) worst configured uncontrolled load under each limit [unit]."""
    load_on_limit: sp.csr_array
    """(L, D) the part of each load in it [unit]."""
    metering: Metering
    """What meters tell about the limits."""
    pilot_table: Floats
    """(n, p) pilot steps of each EVSE, ascending, padded with inf; no finite entry = continuous."""
    ac: AcCheck | None
    """The power flow of the present switching state; None where it has loops."""

    @staticmethod
    def of(electrical: Electrical) -> CompiledSite:
        """Compiles the site in its normal switching state."""
        rows = build_rows(electrical, electrical.branches.normally_closed)
        load_on_limit = sp.csr_array(rows.load_share * electrical.loads.worst_kw[None, :])
        worst: Floats = rows.load_share @ electrical.loads.worst_kw
        steps = electrical.posts.pilot_steps
        table = np.full((len(steps), max((s.shape[0] for s in steps), default=0) + 1), np.inf)
        for i, own in enumerate(steps):
            table[i, : own.shape[0]] = own
        return CompiledSite(
            electrical=electrical,
            limits=rows.limits,
            terms=LeaseTerms.of(electrical.posts, electrical.controllers),
            loads_worst=worst,
            load_on_limit=load_on_limit,
            metering=metering_of(electrical, electrical.branches.normally_closed, rows),
            pilot_table=table,
            ac=check_of(electrical, electrical.branches.normally_closed, rows),
        )

    def next_step_up(self, ceiling: Floats) -> Floats:
        """(n,) smallest pilot step >= ``ceiling``; the ceiling itself where the post has no such step."""
        above = np.where(self.pilot_table >= ceiling[:, None], self.pilot_table, np.inf).min(axis=1)
        return np.where(np.isfinite(above), above, ceiling)
