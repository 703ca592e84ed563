"""What meters of elements tell about the limits of one switching state.

A meter measures charging and everything else together. Two questions are answered here, once per switching state: how
much of a post's own reading the meter must have seen at least (that is taken off), and how much of what is then left
can flow on each limit at or above the meter. The tick multiplies (``control/headroom.py``).

Let m be a meter, k a phase there, I_mk the current it shows and d_j the reading of a post's conductor j. For an
uncontrolled load in phase with its voltage, U_mk <= |I_mk| - sum_j ev[mk, j] d_j, where ev is the projection of each
post's current on the phase's voltage: |U + E| >= Re(U + E) = U + Re(E).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import V_HIGH_PU, V_LOW_PU, BranchKind, Electrical
from powerd.network.phasors import PHASE_DEG, Places, carry, places
from powerd.network.rows import Rows, fed_by
from powerd.network.supply import Energised, energise
from powerd.network.taps import Taps, cross, evse_taps
from powerd.units import SQRT3


@dataclass(frozen=True, kw_only=True, eq=False)
class Metering:
    """M meters, n EVSEs, L limits, D loads; readings of posts as columns 3 i + k, see ``by_bus_phase``."""

    works: Bools
    """(M,) the meter's element is energised and in no loop: what it shows can be read."""
    ev_current: sp.csr_array
    """(3 M, 3 n) least current each reading puts on each phase of the meter [A per A; DC: A per kW]."""
    ev_against: Floats
    """(3 M,) most that posts can *take off* a phase of the meter, wound so that their currents oppose it [A]."""
    ev_power: sp.csr_array
    """(M, 3 n) least power of each reading [kW per A; DC: kW per kW]."""
    behind: Bools
    """(M, n) EVSEs behind the meter."""
    rating_a: Floats
    """(M,) rating of the metered element itself [A per phase]; inf = none."""
    rating_kw: Floats
    """(M,) least import limit that what flows at the meter counts under, of a metered supply its own [kW]; inf = none.
    """
    on_limit: sp.csr_array
    """(L, 3 M) most that one ampere on each phase of the meter puts on each limit at or above it [limit unit per A]."""
    reaches: Bools
    """(M, L) limits at or above the meter."""
    in_kw: Bools
    """(L,) limits in kW: a reading of power is worth more there than one of currents."""
    above: Bools
    """(M, M) [a, b]: meter b stands above meter a."""
    seen: Bools
    """(M, D) loads behind the meter."""


def metering_of(electrical: Electrical, closed: Bools, rows: Rows) -> Metering:
    """Works out what each meter tells in one switching state.

    Args:
        electrical: the compiled drawing.
        closed: (E,) switch positions.
        rows: the limits of the same positions.
    """
    live = energise(electrical, closed)
    place = places(electrical, live)
    cover, frame, works = _points(electrical, live)
    masks = _meters_above(live, cover, works)
    behind, seen = _members(masks, electrical.evse_bus, cover), _members(masks, electrical.loads.bus, cover)
    ev_current, against = _ev_current(electrical, place, frame, behind)
    in_kw = np.array([kind == "power" for kind in rows.limits.kind], dtype=np.bool_)
    on_limit = _on_limits(electrical, live, place, rows, frame, works)
    reaches = np.zeros((cover.shape[0], in_kw.shape[0]), dtype=np.bool_)
    entry = on_limit.tocoo()
    reaches[entry.col // 3, entry.row] = True
    above = _members(masks, cover, cover).T
    np.fill_diagonal(above, False)
    return Metering(
        works=works,
        ev_current=ev_current,
        ev_against=against,
        ev_power=_ev_power(electrical, behind),
        behind=behind,
        rating_a=_own_rating(electrical, frame),
        rating_kw=np.minimum(_supply_rating(electrical), _import_above(electrical, rows, reaches & in_kw)),
        on_limit=on_limit,
        reaches=reaches,
        in_kw=in_kw,
        above=above & ~(above & above.T & (np.arange(len(cover))[:, None] < np.arange(len(cover)))),
        seen=seen,
    )


def by_bus_phase(electrical: Electrical, reading: Floats) -> Floats:
    """(n, 3) post readings L1, L2, L3 -> what certainly flows on bus phases l1, l2, l3 (line-to-line and DC: first).

    Where nobody knows how the conductors hang on the phases, each phase counts the smallest of them.
    """
    phases, rotation = electrical.posts.phase_count, electrical.evse_rotation
    three = (phases == 3) & ~electrical.posts.is_dc
    column = (np.arange(3)[None, :] - np.maximum(rotation, 0)[:, None]) % 3
    turned = np.take_along_axis(reading, column, axis=1)
    unknown = np.repeat(reading.min(axis=1)[:, None], 3, axis=1)
    result = np.where((rotation < 0)[:, None], unknown, turned)
    largest = reading.max(axis=1)
    one = (phases == 1) & (rotation >= 0)
    single = np.where(one, np.maximum(rotation, 0), 0)
    alone = np.where(np.arange(3)[None, :] == single[:, None], largest[:, None], 0.0)
    whole: Floats = np.where(three[:, None], result, alone)
    whole[electrical.evse_unknown] = 0.0
    return whole


def _points(electrical: Electrical, live: Energised) -> tuple[Ints, Ints, Bools]:
    """Of each meter the topmost bus behind it, the bus in whose frame it measures, and whether it can be read."""
    points, branches = electrical.meters, electrical.branches
    count = points.count
    cover, frame = np.full(count, -1), np.full(count, -1)
    works = np.zeros(count, dtype=np.bool_)
    for m in range(count):
        e, bus, supply = int(points.branch[m]), int(points.bus[m]), int(points.supply[m])
        if supply >= 0:
            cover[m] = frame[m] = electrical.supplies.bus[supply]
            works[m] = live.supply[cover[m]] == supply and live.supply_loop[supply] < 0
            continue
        if e >= 0:
            ends = int(branches.from_bus[e]), int(branches.to_bus[e])
            bus = next((b for b in ends if live.parent_branch[b] == e), -1)
        if bus < 0 or live.supply[bus] < 0:
            continue
        link = int(live.parent_branch[bus])
        works[m] = link >= 0 and live.loop[link] < 0
        cover[m] = frame[m] = bus
        if e >= 0 and branches.kind[e] == BranchKind.TRANSFORMER:
            frame[m] = branches.to_bus[e] if points.low_side[m] else branches.from_bus[e]
    return cover, frame, works


def _meters_above(live: Energised, cover: Ints, works: Bools) -> list[int]:
    """Of each bus the set of meters it lies behind, as bits of one number."""
    masks = [0] * live.supply.shape[0]
    for m in np.flatnonzero(works):
        masks[int(cover[m])] |= 1 << int(m)
    for bus in live.order.tolist():  # parents come before children
        if live.parent_bus[bus] >= 0:
            masks[bus] |= masks[int(live.parent_bus[bus])]
    return masks


def _members(masks: list[int], buses: Ints, cover: Ints) -> Bools:
    """(M, k) which meters the k buses lie behind."""
    found = np.zeros((cover.shape[0], buses.shape[0]), dtype=np.bool_)
    for column, bus in enumerate(buses.tolist()):
        mask = masks[bus] if bus >= 0 else 0
        while mask:
            low = mask & -mask
            found[low.bit_length() - 1, column] = True
            mask ^= low
    return found


def _ev_current(electrical: Electrical, place: Places, frame: Ints, behind: Bools) -> tuple[sp.csr_array, Floats]:
    """The projections of ``Metering.ev_current`` and the worst of those that are negative."""
    taps = evse_taps(electrical)
    count, n = frame.shape[0], electrical.evse_count
    share = taps.share.tocoo()
    tap, owner = share.row, share.col
    loaded = np.abs(taps.current) > 0
    phase = np.where(loaded.sum(axis=1) == 1, loaded.argmax(axis=1), 0)
    column = 3 * owner + phase[tap]
    volts = electrical.buses.voltage_v[electrical.evse_bus[owner]]
    least = np.where(electrical.posts.is_dc[owner], 1000.0 / (SQRT3 * V_HIGH_PU * volts), 1.0)
    axes = np.exp(-1j * np.radians(PHASE_DEG))
    matrix = sp.csr_array((3 * count, 3 * n))
    against = np.zeros(3 * count)
    for m in range(count):
        inside = np.flatnonzero(behind[m][owner])
        if not inside.shape[0]:
            continue
        there = np.full(inside.shape[0], frame[m])
        part = (carry(taps.current[tap[inside]], place, taps.bus[tap[inside]], there) * axes).real
        part *= least[inside, None]
        against[3 * m : 3 * m + 3] = np.maximum(-part, 0.0).T @ electrical.posts.max_ceiling[owner[inside]]
        block = sp.csr_array(
            (
                np.maximum(part, 0.0).T.ravel(),
                (3 * m + np.repeat(np.arange(3), inside.shape[0]), np.tile(column[inside], 3)),
            ),
            shape=matrix.shape,
        )
        matrix = sp.csr_array(matrix + block)
    return matrix, against


def _ev_power(electrical: Electrical, behind: Bools) -> sp.csr_array:
    """Constant currents at the lowest voltage; a DC post takes at least what it gives."""
    posts = electrical.posts
    volts = electrical.buses.voltage_v[electrical.evse_bus] * V_LOW_PU / 1000.0
    ac = np.where(posts.phase_count == 2, volts, volts / SQRT3)
    per_reading = np.repeat(np.where(posts.is_dc, 1.0, ac), 3)
    return sp.csr_array(np.repeat(behind, 3, axis=1) * per_reading[None, :])


def _own_rating(electrical: Electrical, frame: Ints) -> Floats:
    """(M,) rating of the side that is measured."""
    branches = electrical.branches
    rating = np.full(frame.shape[0], np.inf)
    for m in np.flatnonzero(electrical.meters.branch >= 0):
        e = int(electrical.meters.branch[m])
        sides = branches.capacity_from_a[e], branches.capacity_to_a[e]
        if branches.kind[e] == BranchKind.TRANSFORMER:
            own = sides[1] if frame[m] == branches.to_bus[e] else sides[0]
        else:
            own = np.fmin(*sides)
        rating[m] = own if np.isfinite(own) else np.inf
    return rating


def _supply_rating(electrical: Electrical) -> Floats:
    """(M,) import limit of the supply that is measured [kW]; of the site where there is but one supply."""
    supply = electrical.meters.supply
    limit = np.full(supply.shape[0], np.inf)
    limit[supply >= 0] = electrical.supplies.import_limit_kw[supply[supply >= 0]]
    if electrical.supplies.bus.shape[0] == 1:
        limit[supply >= 0] = np.minimum(limit[supply >= 0], electrical.site_import_limit_kw)
    return limit


def _import_above(electrical: Electrical, rows: Rows, reaches: Bools) -> Floats:
    """(M,) of a meter that measures no supply, the least limit of those in kW that it ``reaches`` (M, L) [kW]."""
    least: Floats = np.where(reaches, rows.limits.capacity, np.inf).min(axis=1, initial=np.inf)
    return np.where(electrical.meters.supply >= 0, np.inf, least)


def _on_limits(
    electrical: Electrical, live: Energised, place: Places, rows: Rows, frame: Ints, works: Bools
) -> sp.csr_array:
    """``Metering.on_limit``: the metered element's own limit, those above it, and the kW limits that it feeds."""
    read = np.flatnonzero(works)
    count, limits = frame.shape[0], rows.branch.shape[0]
    start = np.array([_chain_end(electrical, live, int(frame[m])) for m in read], dtype=np.int64)
    unit = np.diag(np.exp(1j * np.radians(PHASE_DEG)))
    taps = Taps(
        bus=np.repeat(start, 3),
        current=np.tile(unit, (read.shape[0], 1)),
        whole=np.ones(3 * read.shape[0], dtype=np.bool_),
        share=sp.csr_array((3 * read.shape[0], 0)),
    )
    wanted = np.zeros(electrical.branches.kind.shape[0], dtype=np.bool_)
    wanted[rows.branch[rows.branch >= 0]] = True
    crossing = cross(electrical, live, place, taps, wanted)
    limit_at = {key: l for l, key in enumerate(zip(rows.branch, rows.side, rows.phase, strict=True))}
    found: dict[tuple[int, int], float] = {}
    for branch, side, tap, current in zip(
        crossing.branch, crossing.side, crossing.tap, np.abs(crossing.current), strict=True
    ):
        for phase in range(3):
            limit = limit_at.get((branch, side, phase))
            if limit is not None and current[phase] > 1e-9:
                found[limit, 3 * int(read[tap // 3]) + int(tap % 3)] = float(current[phase])
    for m in read.tolist():
        _own_side(electrical, limit_at, m, int(frame[m]), found)
        _kw_limits(electrical, live, rows, m, int(frame[m]), found)
    keys = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    return sp.csr_array((np.array(list(found.values())), (keys[:, 0], keys[:, 1])), shape=(limits, 3 * count))


def _chain_end(electrical: Electrical, live: Energised, bus: int) -> int:
    """The last bus that nothing but the same current can reach: the chain's weakest part may stand there."""
    taken = set(electrical.evse_bus.tolist()) | set(electrical.loads.bus.tolist())
    while bus not in taken:
        below = np.flatnonzero(live.parent_bus == bus)
        if below.shape[0] != 1:
            break
        link = int(live.parent_branch[below[0]])
        if electrical.branches.kind[link] == BranchKind.TRANSFORMER or live.loop[link] >= 0:
            break
        bus = int(below[0])
    return bus


def _own_side(
    electrical: Electrical,
    limit_at: dict[tuple[int, int, int], int],
    m: int,
    frame: int,
    found: dict[tuple[int, int], float],
) -> None:
    """A transformer's own limit on the side that is measured, where that is its supply side."""
    e = int(electrical.meters.branch[m])
    if e < 0 or electrical.branches.kind[e] != BranchKind.TRANSFORMER:
        return
    side = int(frame == electrical.branches.to_bus[e])
    for phase in range(3):
        limit = limit_at.get((e, side, phase))
        if limit is not None:
            found[limit, 3 * m + phase] = 1.0


def _kw_limits(
    electrical: Electrical, live: Energised, rows: Rows, m: int, frame: int, found: dict[tuple[int, int], float]
) -> None:
    """Import limits: a current at the highest voltage."""
    volts = float(electrical.buses.voltage_v[frame])
    for limit in [l for l, kind in enumerate(rows.limits.kind) if kind == "power"]:
        if fed_by(electrical, live, int(rows.supply[limit]), np.array([frame]))[0]:
            for phase in range(3):
                found[limit, 3 * m + phase] = V_HIGH_PU * volts / SQRT3 / 1000.0
