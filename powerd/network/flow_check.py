"""The AC check of ceilings: does the power flow keep what the rows promise, and every voltage in its band?

The rows bound currents at nominal angles. What they do not know is voltage, and a little current: what a star-star
transformer leaks between phases, what constant-power posts take below V_LOW_PU. Where that breaks a bound, the rows on
the way to the supply are tightened by as much as the power flow says it needs. ``docs/flow.md`` has the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from powerd.limits import Bools, Floats, Ints, Limits
from powerd.network.electrical import V_HIGH_PU, V_LOW_PU, BranchKind, Electrical
from powerd.network.flow import RadialFlow, Solution, phases
from powerd.network.judge import DELTA, POWER, WYE, gather, judge_currents, judge_voltages
from powerd.network.models import BASE_KVA
from powerd.network.phasors import Complex
from powerd.network.rows import Rows
from powerd.network.taken import CannotSolve, drawn_at_buses
from powerd.units import SQRT3

#: What a current may be above its rating before it counts, of the rating: nobody sets a breaker finer.
CURRENT_TOLERANCE = 1e-3
#: Where the uncontrolled loads alone leave the voltage band, cars may add this much more, of nominal, ...
BESIDE_PU = 0.01
#: ... but not beyond what EN 50160 allows at any time (4.2.2.2: -15 % +10 %).
V_NEVER_BELOW_PU = 0.85
#: Share of a voltage drop that the rows to be tightened cause; the least of them stay as they are, because others would
#: pay for them with little effect.
MAJOR_SHARE = 0.9
#: Tightened by so much more than the linear estimate: drops grow faster than currents.
MARGIN = 1.02
#: Most bounds that are looked at one by one; the worst come first.
MOST_LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What the power flow at given ceilings breaks."""

    solution: Solution
    short: Floats
    """(K, 3) by how much the phases of the loaded buses are too low (> 0) or too high (< 0) [pu of the frame]."""
    over: Floats
    """(N, 2, 3) by how much the upper and lower end of each branch carries too much [A]."""
    count: int
    """Bounds broken."""

    @property
    def settled(self) -> bool:
        """The power flow has a solution."""
        return self.solution.sweeps >= 0


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """One bound of the check that is broken, for people."""

    name: str
    """What it bounds."""
    element: str
    """Whose."""
    phase: str
    """"l1", "l2" or "l3"."""
    source: str
    """To what."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shares:
    """What each limit is to carry less, and for the sake of which bound."""

    share: Floats
    """(L,) of the flow of the ceilings."""
    bound: dict[int, _Bound] = field(default_factory=dict)
    """Limit -> the bound that asks for its share."""

    def ask(self, row: int, share: float, bound: _Bound) -> None:
        """The most that any bound asks for counts."""
        if share > self.share[row]:
            self.share[row], self.bound[row] = share, bound


class AcCheck:
    """The check of one radial switching state, compiled once."""

    def __init__(self, electrical: Electrical, closed: Bools, rows: Rows) -> None:
        """Compile the check.

        Args:
            electrical: the compiled drawing.
            closed: (E,) switch positions.
            rows: the limits of that state.

        Raises:
            CannotSolve: the state is not radial.
        """
        self._electrical = electrical
        self.flow = RadialFlow(electrical, closed)
        ladder = self.flow.ladder
        at = np.full(electrical.buses.voltage_v.shape[0], -1, dtype=np.int64)
        at[ladder.bus] = np.arange(ladder.bus.shape[0])
        here = at[np.concatenate([electrical.evse_bus, electrical.loads.bus])]
        self.loaded: Ints = np.unique(here[here >= 0])
        self._row, self._mode, self._which, self._gain = _evse_columns(electrical, self.flow, at, self.loaded)
        self._loads = _loads(electrical, self.flow, self.loaded)
        self._row_at = _row_above(ladder.branch, ladder.parent, rows)
        self._limit_at = _limit_of_end(electrical, self.flow, rows)
        self._drawn = rows.limits
        self._alone = self._solve(np.zeros(electrical.evse_count))
        self._low, self._high = self._bands()
        parent = np.where(ladder.branch >= 0, ladder.parent, 0)
        self._base_a = np.stack([self.flow.base_a[parent], self.flow.base_a], axis=1)[:, :, None]
        self._allowed = self._ratings()
        self._allowed_pu = self._allowed / self._base_a
        self._newest: tuple[bytes, bytes, Verdict] | None = None

    def judge(self, x: Floats, spare: Floats | None = None) -> Verdict:
        """What breaks when every car takes its ceiling on all its phases.

        Args:
            x: (n,) the ceilings [own unit].
            spare: (L,) by how much less than their worst, which the power flow is solved with, the uncontrolled loads
                count under each limit [limit unit]; a current may be so much larger. Default nothing.
        """
        # In most ticks what is wanted is granted, and the same as in the tick before.
        question = x.tobytes(), b"" if spare is None else spare.tobytes()
        newest = self._newest
        if newest is None or newest[:2] != question:
            newest = self._newest = (*question, self._judged(x, spare))
        return newest[2]

    def _judged(self, x: Floats, spare: Floats | None) -> Verdict:
        """See ``judge``."""
        found, ladder = self._solve(x), self.flow.ladder
        short = np.zeros(self._low.shape)
        over = np.zeros(self._allowed.shape)
        if found.sweeps < 0:
            return Verdict(solution=found, short=short, over=over, count=1)
        count = judge_voltages(self.loaded, ladder.turn, found.v, self._low, self._high, short)
        judge_currents(
            ladder.parent, ladder.zero_parent, ladder.y_above, ladder.y_below, ladder.turn, self._allowed_pu,
            found.v, found.j, over,
        )  # fmt: skip
        over *= self._base_a
        if spare is not None:
            over = np.maximum(over - np.where(self._limit_at >= 0, spare[self._limit_at], 0.0), 0.0)
        return Verdict(solution=found, short=short, over=over, count=count + int(np.count_nonzero(over)))

    def tightened(self, limits: Limits, uncontrolled: Floats, x: Floats, verdict: Verdict) -> Limits:
        """Limits at which, to first order, nothing of the ``verdict`` on ``x`` (n,) is broken any more.

        The fewest rows that together cause ``MAJOR_SHARE`` of a bus's drop each carry the share s less, where s times
        the drop they cause is what is missing. A row whose own current is too large loses that much. A limit that is
        tighter bears the name of the bound that it is tightened for; its source says whose capacity it is.

        Args:
            limits: what is in force, maybe tightened before.
            uncontrolled: (L,) load not under control [limit unit].
            x: (n,) the ceilings judged.
            verdict: what ``judge`` said about them.
        """
        if not self._alone.sweeps >= 0:
            return limits
        flow = limits.limit_flow(x)
        shares = _Shares(share=np.zeros(flow.shape[0]))
        if not verdict.settled:
            self._by_collapse(shares)
        self._by_current(flow, verdict, shares)
        self._by_voltage(verdict, shares)
        lower = uncontrolled + flow * (1.0 - np.minimum(shares.share, 1.0))
        tighter = (shares.share > 0) & (lower < limits.capacity)
        name, element, phase, source = (
            list(column) for column in (limits.name, limits.element, limits.phase, limits.source)
        )
        for row in np.flatnonzero(tighter).tolist():
            bound = shares.bound[row]
            name[row], element[row], phase[row] = bound.name, bound.element, bound.phase
            source[row] = f"{bound.source}, so less through {self._drawn.name[row]}"
        return replace(
            limits,
            capacity=np.where(tighter, lower, limits.capacity),
            name=tuple(name),
            element=tuple(element),
            phase=tuple(phase),
            source=tuple(source),
        )

    def worst(self, verdict: Verdict) -> str:
        """The bound that is broken most, for people."""
        if not verdict.settled:
            return "the voltages collapse"
        if verdict.short.any():
            m, phase = divmod(int(np.argmax(np.abs(verdict.short))), 3)
            k, wrong = self.loaded[m], verdict.short[m, phase]
            bus, scale = self.flow.ladder.bus[k], self._scale[k]
            bound = (self._low if wrong > 0 else self._high)[m, phase]
            percent = 100 * (bound - wrong) * scale
            return f"bus {self._electrical.buses.ids[bus]} l{phase + 1} would be at {percent:.1f} % of nominal voltage"
        place, _, line = np.unravel_index(int(np.argmax(verdict.over)), verdict.over.shape)
        name = self._electrical.branches.ids[self.flow.ladder.branch[place]]
        return f"{name} l{int(line) + 1} would carry {verdict.over.max():.1f} A too much"

    @property
    def _scale(self) -> Floats:
        """(N,) frame to per unit of the bus's nominal voltage."""
        ladder = self.flow.ladder
        scale: Floats = ladder.volts / self._electrical.buses.voltage_v[ladder.bus]
        return scale

    def _solve(self, x: Floats) -> Solution:
        """Power flow with the uncontrolled loads at their worst and the cars at ``x``."""
        wye = self._loads.copy()
        wye_c, delta_c = np.zeros(wye.shape), np.zeros(wye.shape)
        gather(x, self._row, self._mode, self._which, self._gain, wye, wye_c, delta_c)
        return self.flow.sweep(self.loaded, wye, wye_c, delta_c)

    def _bands(self) -> tuple[Floats, Floats]:
        """Lowest and highest voltage (K, 3) of the loaded buses, in the frame."""
        scale = self._scale[self.loaded, None]
        low, high, never = V_LOW_PU / scale, V_HIGH_PU / scale, V_NEVER_BELOW_PU / scale
        alone = np.abs(phases(self._alone.v * self.flow.ladder.turn))[self.loaded]
        return (
            np.where(alone >= low, low, np.minimum(alone, np.maximum(alone - BESIDE_PU, never))),
            np.where(alone <= high, high, alone + BESIDE_PU),
        )

    def _ratings(self) -> Floats:
        """(N, 2, 3) most current of each end; inf where there is no rating or the loads alone exceed it."""
        branches, ladder = self._electrical.branches, self.flow.ladder
        linked = ladder.branch >= 0
        wound = branches.kind[ladder.branch] == BranchKind.TRANSFORMER
        ends = [branches.capacity_from_a, np.where(wound, 1, 0)], [branches.capacity_to_a, np.where(wound, 1, 0)]
        high, low = ends[0][0][ladder.branch], ends[1][0][ladder.branch]
        both = np.fmin(high, low)
        high, low = np.where(wound, high, both), np.where(wound, low, both)
        rated = np.stack([np.where(ladder.down, high, low), np.where(ladder.down, low, high)], axis=1)
        rated = np.where(linked[:, None] & np.isfinite(rated), rated * (1 + CURRENT_TOLERANCE), np.inf)
        alone = np.stack([np.abs(end) for end in self.flow.ends_a(self._alone)], axis=1)
        per_end: Floats = np.where(alone > rated[:, :, None], np.inf, rated[:, :, None])
        return per_end

    def _by_collapse(self, shares: _Shares) -> None:
        """All rows, by half: there is no voltage to reckon with."""
        for row, (element, phase) in enumerate(zip(self._drawn.element, self._drawn.phase, strict=True)):
            shares.ask(row, 0.5, _Bound(name="power flow", element=element, phase=phase, source="no voltages hold"))

    def _by_current(self, flow: Floats, verdict: Verdict, shares: _Shares) -> None:
        """Rows whose own current is too large, into ``shares``."""
        broken = np.argwhere(verdict.over > 0)
        worst = np.argsort(-verdict.over[tuple(broken.T)])[:MOST_LOOKED_AT]
        for k, end, phase in broken[worst].tolist():
            row = self._limit_at[k, end, phase]
            row = row if row >= 0 else self._row_at[k, phase]
            if row >= 0 and flow[row] > 0:
                shares.ask(row, MARGIN * verdict.over[k, end, phase] / flow[row], self._current(k, end, phase))

    def _by_voltage(self, verdict: Verdict, shares: _Shares) -> None:
        """Rows on the way to buses whose voltage is off, into ``shares``."""
        broken = np.argwhere(verdict.short != 0)
        if broken.shape[0] == 0:
            return
        turn = self.flow.ladder.turn
        drop = np.abs(phases(self._alone.v * turn)) - np.abs(phases(verdict.solution.v * turn))
        worst = np.argsort(-np.abs(verdict.short[tuple(broken.T)]))[:MOST_LOOKED_AT]
        for m, phase in broken[worst].tolist():
            wrong, bound = verdict.short[m, phase], self._voltage(m, phase, low=verdict.short[m, phase] > 0)
            if wrong > 0:
                self._charge(int(self.loaded[m]), phase, drop[:, phase], wrong, bound, shares)
            else:
                # A voltage rises only by what the two other phases carry.
                for other in {0, 1, 2} - {phase}:
                    self._charge(int(self.loaded[m]), other, -drop[:, phase], -wrong, bound, shares)

    def _charge(self, k: int, phase: int, drop: Floats, missing: float, bound: _Bound, shares: _Shares) -> None:
        """Share the ``missing`` voltage at position ``k`` out over the rows above that cause its ``drop`` (N,)."""
        parent = self.flow.ladder.parent
        caused: dict[int, float] = {}
        while k >= 0:
            row, above = int(self._row_at[k, phase]), int(parent[k])
            if row >= 0:
                caused[row] = caused.get(row, 0.0) + drop[k] - (drop[above] if above >= 0 else 0.0)
            k = above
        total = sum(part for part in caused.values() if part > 0)
        chosen, together = [], 0.0
        for row in sorted(caused, key=lambda row: -caused[row]):
            if together < MAJOR_SHARE * total:
                chosen.append(row)
                together += caused[row]
        for row in chosen:
            shares.ask(row, min(1.0, MARGIN * missing / together), bound)

    def _voltage(self, m: int, phase: int, *, low: bool) -> _Bound:
        """The lowest or the highest voltage of a phase of a loaded bus."""
        k = int(self.loaded[m])
        bus = self._electrical.buses.ids[self.flow.ladder.bus[k]]
        percent = 100 * (self._low if low else self._high)[m, phase] * self._scale[k]
        return _Bound(
            name=f"voltage of phase L{phase + 1} at {bus}",
            element=bus,
            phase=f"l{phase + 1}",
            source=f"at {'least' if low else 'most'} {percent:.4g} % of nominal",
        )

    def _current(self, k: int, end: int, phase: int) -> _Bound:
        """The rating of the upper (0) or lower (1) end of the branch above a bus."""
        ladder, branches = self.flow.ladder, self._electrical.branches
        branch = int(ladder.branch[k])
        kind = BranchKind(int(branches.kind[branch])).name.lower()
        rating = self._allowed[k, end, phase] / (1 + CURRENT_TOLERANCE)
        return _Bound(
            name=f"current in phase L{phase + 1} of {kind} {branches.ids[branch]}",
            element=branches.ids[branch],
            phase=f"l{phase + 1}",
            source=f"at most {rating:.4g} A by the power flow",
        )


def check_of(electrical: Electrical, closed: Bools, rows: Rows) -> AcCheck | None:
    """The check of a switching state; None where it has loops, or where nothing that powerd grants has a supply."""
    if not rows.limits.energized.any():
        return None
    try:
        return AcCheck(electrical, closed, rows)
    except CannotSolve:
        return None


def _evse_columns(electrical: Electrical, flow: RadialFlow, at: Ints, loaded: Ints) -> tuple[Ints, Ints, Ints, Floats]:
    """Load row, mode, phases and gain of each EVSE; an unknown phase counts as every phase, as in the rows."""
    place = at[electrical.evse_bus]
    row = np.where(place >= 0, np.searchsorted(loaded, place), -1)
    on: Bools = ~np.isnan(electrical.evse_phasor_deg)
    dc = electrical.posts.is_dc
    pair = (on.sum(axis=1) == 2) & ~electrical.evse_in_step
    mode = np.where(dc, POWER, np.where(pair, DELTA, WYE))
    spare = np.argmin(on, axis=1)
    which = np.where(pair, (spare + 1) % 3, on @ np.array([1, 2, 4]))
    volts = electrical.buses.voltage_v[electrical.evse_bus]
    base = flow.base_a[np.maximum(place, 0)]
    kw = electrical.evse_amps_per_unit * SQRT3 * volts * V_LOW_PU / 1000
    return row, mode.astype(np.int64), which.astype(np.int64), np.where(dc, kw / BASE_KVA, 1.0 / base)


def _loads(electrical: Electrical, flow: RadialFlow, loaded: Ints) -> Complex:
    """(K, 3) the uncontrolled loads at their worst."""
    taken = drawn_at_buses(electrical, np.zeros(electrical.evse_count), loads_kw=electrical.loads.worst_kw)
    bus, per_phase = flow.ladder.bus[loaded], 3 / BASE_KVA
    loads: Complex = taken.load_kw[bus] * per_phase + 1j * (taken.load_kvar[bus] * per_phase)
    return loads


def _limit_of_end(electrical: Electrical, flow: RadialFlow, rows: Rows) -> Ints:
    """(N, 2, 3) limit of the upper and the lower end of the branch above each bus; -1 where there is none."""
    ladder = flow.ladder
    of = np.full((electrical.branches.kind.shape[0], 2, 3), -1, dtype=np.int64)
    amps = np.flatnonzero(rows.branch >= 0)
    of[rows.branch[amps], rows.side[amps], rows.phase[amps]] = amps
    plain = electrical.branches.kind != BranchKind.TRANSFORMER
    of[plain, 1] = of[plain, 0]
    mine = np.where((ladder.branch >= 0)[:, None, None], of[ladder.branch], -1)
    return np.where(ladder.down[:, None, None], mine, mine[:, ::-1])


def _row_above(branch: Ints, parent: Ints, rows: Rows) -> Ints:
    """(N, 3) the limit in A at the branch above each bus, or else the nearest one further up; -1 = none."""
    own: dict[tuple[int, int], int] = {}
    for limit in np.flatnonzero(rows.branch >= 0).tolist():
        own[int(rows.branch[limit]), int(rows.phase[limit])] = limit
    result = np.full((branch.shape[0], 3), -1, dtype=np.int64)
    for k in range(branch.shape[0]):
        for phase in range(3):
            above = result[parent[k], phase] if parent[k] >= 0 else -1
            result[k, phase] = own.get((int(branch[k]), phase), above)
    return result
