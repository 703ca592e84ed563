"""R6 and R9 of docs/leases.md before the site is built: does every element stand what flows until EVSEs have followed?

For every switching state that comes about without powerd, the worst current of each element: EVSEs at the most that the
limits of the state before let them draw, loads at their worst, what was without supply at its pick-up. That must be
stood for as long as leases need to end: ``bound_s``. Where it is not, powerd keeps that much back in advance
(``moves``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from powerd.faults import Severity
from powerd.limits import Floats, Ints
from powerd.network.admission_faults import place_of
from powerd.network.drawing import Drawing, Findings
from powerd.network.electrical import Electrical
from powerd.network.moves import (
    CLOSE,
    admitted_a,
    bound_s,
    evses_of,
    left_free,
    moved_loads,
    possible_moves,
    returning_kw,
    silent_s,
    stood_s,
)
from powerd.network.operation import By
from powerd.network.rows import Rows, build_rows
from powerd.network.supply import normal_positions
from powerd.network.tolerance import tolerated_a
from powerd.site.codes import Code

ACK_S = 1.0
"""From the event to the ack where a controller answers [s]: one tick and a network that works."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One element in one state that comes about by itself."""

    state: str
    """What moved: "ats at alternate"."""
    name: str
    """The limit, for people."""
    element: str
    """The element."""
    unit: str
    """A or kW."""
    capacity: float
    """Its rating [unit]."""
    worst: float
    """Most that can flow right after the move [unit]."""
    tolerated_s: float
    """How long it stands that, hot, at the earliest edge [s]; inf = for ever, or a contract without a curve."""
    bound_s: float
    """When it is over at the latest, controllers silent: the longest E of the EVSEs above it [s]; inf = never."""
    answering_s: float
    """When it is over where controllers answer: ack + reaction [s]."""
    admitted: float
    """What it stands for ``bound_s`` [unit]: with no more than this in the state after, R9 holds."""

    @property
    def fits(self) -> bool:
        """Whether it stands the worst for as long as it may last."""
        return self.worst <= self.capacity + CLOSE or self.tolerated_s >= self.bound_s


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What one controller asks of the elements above its EVSEs."""

    controller: str
    """Id of the controller."""
    answering_s: float
    """ack + reaction [s]."""
    silent_s: float
    """E: ttl (1 + drift) + watchdog + reaction [s]; inf without watchdog."""
    element: str
    """The branch above its EVSEs, in the normal state, that gives in first; "" = none has a curve."""
    stands_percent: float
    """What that branch stands for ``silent_s``, of its rating [%]."""


def standings(electrical: Electrical) -> Iterator[Standing]:
    """Every limit of every state that comes about by itself, beyond its rating or not."""
    normal = normal_positions(electrical)
    before = build_rows(electrical, normal)
    for move in possible_moves(electrical, normal, By.ITSELF):
        after = build_rows(move.electrical, move.closed)
        loads = returning_kw(electrical, moved_loads(electrical, normal, move))
        uncontrolled = after.load_share @ loads
        flow = _worst_flows(electrical, before, after)
        for l in range(after.limits.capacity.shape[0]):
            yield _standing(electrical, after, l, move.name, float(flow[l] + uncontrolled[l]))


def patience(electrical: Electrical) -> Iterator[Patience]:
    """Every controller with EVSEs: how long it may take, and the tightest element above its EVSEs."""
    controllers, posts = electrical.controllers, electrical.posts
    rows = build_rows(electrical, electrical.branches.normally_closed)
    end = silent_s(controllers)
    for c, name in enumerate(controllers.ids):
        mine = np.flatnonzero(posts.controller == c)
        if mine.shape[0]:
            share, element = _tightest(rows, mine, float(end[c]))
            answering = ACK_S + float(controllers.reaction_s[c])
            yield Patience(
                controller=name,
                answering_s=answering,
                silent_s=float(end[c]),
                element=element,
                stands_percent=100.0 * share,
            )


def find_tolerance_faults(drawing: Drawing, electrical: Electrical, findings: Findings) -> None:
    """One warning, its worst case, for each element that does not stand what a switch moving by itself may bring."""
    worst: dict[str, Standing] = {}
    for one in standings(electrical):
        held = worst.get(one.element)
        if not one.fits and (held is None or one.tolerated_s < held.tolerated_s):
            worst[one.element] = one
    for element, one in worst.items():
        message = (
            f"{one.name} with {one.state}: up to {one.worst:.4g} {one.unit} may flow for {_seconds(one.bound_s)} until "
            f"leases have ended; with all that is in series it stands {_seconds(one.tolerated_s)}, and "
            f"{one.admitted:.4g} {one.unit} that long: powerd grants no more than that in advance"
        )
        mend = "for more, write protection: of a slower device, shorten ttl_s or watchdog_s, or raise the rating"
        findings.add(
            Code.TOLERANCE_TOO_SHORT, place_of(drawing.site, element), element, message, mend, Severity.WARNING
        )


def _seconds(value: float) -> str:
    return "ever" if math.isinf(value) else f"{value:.3g} s"


def _standing(electrical: Electrical, rows: Rows, l: int, state: str, worst: float) -> Standing:
    limits, capacity = rows.limits, float(rows.limits.capacity[l])
    owner = np.unique(electrical.posts.controller[evses_of(limits, l)])
    return Standing(
        state=state,
        name=limits.name[l],
        element=limits.element[l],
        unit=limits.unit[l],
        capacity=capacity,
        worst=worst,
        tolerated_s=math.inf if worst <= capacity + CLOSE else stood_s(rows, l, worst),
        bound_s=bound_s(electrical, limits, l),
        answering_s=ACK_S + float(electrical.controllers.reaction_s[owner].max(initial=0.0)),
        admitted=admitted_a(electrical, rows, l),
    )


def _tightest(rows: Rows, evse: Ints, seconds: float) -> tuple[float, str]:
    """(share of its rating that it stands for ``seconds``, id) of the branch above ``evse`` that gives in first."""
    found, limits = (math.inf, ""), rows.limits
    for l in np.flatnonzero((rows.branch >= 0) & (limits.capacity > 0.0) & (rows.phase == 0)).tolist():
        if np.isin(evse, evses_of(limits, l)).any():
            capacity = float(limits.capacity[l])
            amps = tolerated_a(rows.overload[l], seconds, rated_a=capacity, to_side=bool(rows.side[l] == 1))
            found = min(found, (amps / capacity, limits.element[l]))
    return found


def _worst_flows(electrical: Electrical, before: Rows, after: Rows) -> Floats:
    """(L,) most that EVSEs can put on each limit of the state after, within the limits of the state before [unit].

    Meters may show before the move that the loads behind them draw nothing, and leave their share to EVSEs.

    A linear program for each limit that could be exceeded, over groups of EVSEs that all rows treat alike. Phasor rows
    only tighten by their real and imaginary part, and count in full as objective: more than can flow, never less.
    """
    rating, limits = electrical.posts.max_ceiling, after.limits
    total = limits.limit_flow(rating)
    flow = np.minimum(total, np.inf)
    over = np.flatnonzero(total > limits.capacity)
    if over.shape[0] == 0:
        return flow
    cuts = sp.vstack([before.limits.real, before.limits.imag]).tocsc()
    room = left_free(electrical, electrical.branches.normally_closed, before)
    bound = np.tile(room[before.limits.limit_of_row], 2)
    size = sp.csr_array(np.hypot(limits.real.toarray(), limits.imag.toarray()))
    group, count, first = _groups(sp.vstack([cuts, size, sp.csr_array(rating[None, :])]).tocsc())
    most = np.bincount(group, weights=rating, minlength=count)
    for l in over.tolist():
        rows = np.flatnonzero(limits.limit_of_row == l)
        best = 0.0
        for r in rows.tolist():
            weight = np.asarray(size[[r]].todense()).ravel()[first]
            answer = linprog(-weight, A_ub=cuts[:, first], b_ub=bound, bounds=np.c_[np.zeros(count), most])
            best = max(best, -float(answer.fun) if answer.success else float(weight @ most))
        flow[l] = min(best, total[l]) if limits.imag[rows].nnz == 0 else best
    return flow


def _groups(columns: sp.csc_array) -> tuple[Ints, int, Ints]:
    """(group of each column, how many, first column of each): columns that are equal are one."""
    keys: dict[bytes, int] = {}
    group = np.zeros(columns.shape[1], dtype=np.int64)
    first: list[int] = []
    for i in range(columns.shape[1]):
        part = slice(columns.indptr[i], columns.indptr[i + 1])
        key = columns.indices[part].tobytes() + np.round(columns.data[part], 9).tobytes()
        if key not in keys:
            keys[key] = len(keys)
            first.append(i)
        group[i] = keys[key]
    return group, len(keys), np.array(first, dtype=np.int64)
