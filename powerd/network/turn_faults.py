"""EVSEs that would wait for ever: what others hold without a grant leaves less than their minimum (docs/chargers.md).

A car keeps its fallback for as long as it stands there, also while powerd grants it nothing; so a car beside many such
ones has no turn until one of them leaves. The design holds (R5), and still it is seldom what its author wants.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from powerd.faults import Severity
from powerd.limits import Bools, Floats, Ints
from powerd.network.admission import TOLERANCE
from powerd.network.admission_faults import place_of
from powerd.network.drawing import Drawing, Findings
from powerd.network.electrical import Electrical, least_import_kw, reserve_of
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import normal_positions
from powerd.site.codes import Code

#: EVSEs that a sentence names.
NAMED = 3


def find_turn_faults(drawing: Drawing, electrical: Electrical, findings: Findings) -> None:
    """A warning for each element that leaves EVSEs no turn in the normal state while cars stand at all others."""
    least = replace(electrical, site_import_limit_kw=least_import_kw(electrical))
    rows = build_rows(least, normal_positions(electrical))
    limit, evse = without_turn(electrical, rows)
    seen: set[str] = set()
    for l in np.unique(limit):
        one, name = rows.limits.element[l], rows.limits.name[l]
        if one in seen:
            continue
        seen.add(one)
        waiting = evse[limit == l]
        ids = ", ".join(electrical.posts.ids[i] for i in waiting[:NAMED])
        more = f" and {waiting.shape[0] - NAMED} others" if waiting.shape[0] > NAMED else ""
        message = (
            f"{name}: while cars stand at all other EVSEs behind it, what those hold without a grant leaves less than "
            f"the minimum of {ids}{more}: a car there waits until one of them leaves"
        )
        mend = "lower fallback and boot current of the others, or raise the rating"
        findings.add(Code.NO_TURN, place_of(drawing.site, one), one, message, mend, Severity.WARNING)


def without_turn(electrical: Electrical, rows: Rows) -> tuple[Ints, Ints]:
    """Which limit (k,) keeps which EVSE (k,) from its minimum while the others hold what they may without a grant.

        |sum over the others of a_j reserve_j + a_i max(minimum_i, reserve_i)|  >  capacity - other loads

    Only where the reserves fit, some of them are others', and the minimum alone would fit: the rest are faults of R5
    and of ratings. What phases differ by is not asked: there the others help as often as they hinder.
    """
    limits, own = rows.limits, reserve_of(electrical)
    room = (limits.capacity - rows.load_share @ electrical.loads.worst_kw + TOLERANCE)[limits.limit_of_row]
    asked: Bools = np.isin(np.array(limits.kind), ("current", "power"))[limits.limit_of_row]
    each = sp.coo_array(limits.real + 1j * limits.imag)
    r, i = each.row, each.col
    held = (limits.real + 1j * limits.imag) @ own
    once_on: Floats = np.maximum(own, electrical.posts.min_ceiling)
    others = np.abs(held[r] - each.data * own[i])
    fits = (np.abs(held)[r] <= room[r]) & (np.abs(each.data) * once_on[i] <= room[r])
    kept_off = asked[r] & fits & (others > TOLERANCE) & (np.abs(held[r] + each.data * (once_on - own)[i]) > room[r])
    found = np.unique(np.column_stack((limits.limit_of_row[r[kept_off]], i[kept_off])), axis=0)
    return found[:, 0].astype(np.int64), found[:, 1].astype(np.int64)
