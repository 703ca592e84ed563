"""The best switch state as a mixed-integer program, for more switches than can be tried one by one; solved by HiGHS.

With z_e closed or open, y_b fed or not, w_b hanging together with something fed (also through what nobody is sure of),
and arcs a along closed branches away from the supplies:

    every bus with w has one arc into it, a supply's none; every closed branch within w is an arc     no ring, parallel
    a unit of flow reaches every bus with w                                                           no ring apart
    w = 0 at every source that does not feed, y = 0 where nothing may be fed                          no back-feed
    closed branches hand y and w on; only arcs through what is certain hand y on
    loads and reserves of every bus with w, charging of those with y, are flows along arcs:
    pick-ups + reserves, loads + charging <= ratings                                                  R5, max flow
    a bus with w reached over branches that are closed now keeps its voltage: no pick-up there        R8

The levels of ``Score`` are maximised one after another, each held for the next. What the present state already breaks
makes the program infeasible; then there is no answer from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
import scipy.sparse as sp

from powerd.limits import Bools, Floats, Ints
from powerd.network.plan_kernels import Case, Grid, judge, shut_in

#: How far a level may fall short while the next one is maximised, of its value.
HOLD = 1e-6
#: Terms of a row: (column, coefficient).
Terms = Iterable[tuple[int, float]]


@dataclass
class _Model:
    """Columns and rows in the making."""

    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def columns(self, upper: Sequence[float] | Floats, *, whole: bool = False) -> Ints:
        """New variables between 0 and ``upper``."""
        first = len(self.upper)
        self.upper += [float(u) for u in upper]
        self.whole += [whole] * len(upper)
        return np.arange(first, len(self.upper))

    def row(self, terms: Terms, low: float = -np.inf, high: float = np.inf) -> None:
        """``low`` <= sum of the terms <= ``high``."""
        self.entries += [(len(self.low), int(column), float(value)) for column, value in terms if value]
        self.low.append(low)
        self.high.append(high)

    def solver(self, seconds: float) -> highspy.Highs:
        """HiGHS with this program; nothing is printed."""
        rows, columns, values = zip(*self.entries, strict=True)
        matrix = sp.csc_array((values, (rows, columns)), shape=(len(self.low), len(self.upper)))
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.upper), len(self.low)
        lp.col_cost_, lp.sense_ = np.zeros(lp.num_col_), highspy.ObjSense.kMaximize
        lp.col_lower_, lp.col_upper_ = np.zeros(lp.num_col_), np.array(self.upper)
        lp.row_lower_, lp.row_upper_ = np.array(self.low), np.array(self.high)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        kinds = highspy.HighsVarType
        lp.integrality_ = [kinds.kInteger if whole else kinds.kContinuous for whole in self.whole]
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, value in (("output_flag", False), ("threads", 1), ("time_limit", seconds), ("mip_rel_gap", 1e-7)):
            solver.setOptionValue(name, value)
        solver.passModel(lp)
        return solver


@dataclass(frozen=True, kw_only=True, eq=False)
class _Wires:
    """The branches of the program: m of them."""

    one: Ints
    """(m,) an end of each."""
    other: Ints
    """(m,) the other end."""
    sure: Bools
    """(m,) feeds; else it only could conduct."""
    switch: Ints
    """(m,) column of its position; -1 = it conducts whatever is ordered."""
    branch: Ints
    """(m,) branch index."""
    out: Ints
    """(m,) column of the arc from ``one`` to ``other``."""
    back: Ints
    """(m,) column of the arc the other way."""

    def arcs(self) -> Iterable[tuple[int, int, int, int]]:
        """(column, from bus, to bus, wire) of every arc."""
        for m in range(self.one.shape[0]):
            yield int(self.out[m]), int(self.one[m]), int(self.other[m]), m
            yield int(self.back[m]), int(self.other[m]), int(self.one[m]), m


def best_state(grid: Grid, case: Case, seconds: float) -> Bools | None:
    """Positions (E,) of the best state; None where HiGHS finds none within ``seconds`` a level.

    Args:
        grid: what is built.
        case: what is asked.
        seconds: most time for each of the four levels [s].
    """
    model = _Model()
    position = model.columns(np.ones(case.which.shape[0]), whole=True)
    wires = _wires(model, grid, case, position)
    buses = grid.rating.shape[0]
    fed, near = model.columns(np.ones(buses)), model.columns(np.ones(buses), whole=True)
    _connected(model, grid, case, wires, near)
    _fed(model, case, wires, fed, near)
    _locked(model, grid, case, position)
    kept = _kept(model, case, wires, near)
    charging = _carried(model, grid, case, wires, fed, near, kept)
    moved = [(int(c), -1.0 if case.present[e] else 1.0) for c, e in zip(position, case.which, strict=True)]
    levels: list[list[tuple[int, float]]] = [
        _of_fed(fed, case.worth[:, 0]),
        [*charging, *_of_fed(fed, grid.load.sum(axis=1))],
        _of_fed(fed, case.worth[:, 1]),
        [(column, -sign) for column, sign in moved],
    ]
    answer = _maximised(model.solver(seconds), levels, len(model.upper))
    if answer is None:
        return None
    closed = case.present.copy()
    closed[case.which] = answer[position] > 0.5
    return closed


def _maximised(solver: highspy.Highs, levels: list[list[tuple[int, float]]], columns: int) -> Floats | None:
    """Each level in turn, held for the next."""
    answer: Floats | None = None
    for level in levels:
        cost = np.zeros(columns)
        for column, value in level:
            cost[column] += value
        if not cost.any():
            continue
        solver.changeColsCost(columns, np.arange(columns, dtype=np.int32), cost)
        solver.run()
        if not np.isfinite(solver.getInfo().mip_gap) or solver.getInfo().primal_solution_status != 2:
            return answer
        answer = np.array(solver.getSolution().col_value)
        used = np.flatnonzero(cost).astype(np.int32)
        value = float(cost @ answer)
        solver.addRow(value - HOLD * max(1.0, abs(value)), highspy.kHighsInf, used.shape[0], used, cost[used])
    return answer


def _wires(model: _Model, grid: Grid, case: Case, position: Ints) -> _Wires:
    """Branches that conduct, may be made to, or could; two arcs each."""
    switch = np.full(grid.from_bus.shape[0], -1, np.int64)
    switch[case.which] = position
    movable = switch >= 0
    sure = case.known & (case.present | movable)
    unsure = case.shadow & ~sure
    branch = np.concatenate([np.flatnonzero(sure), np.flatnonzero(unsure)])
    count = branch.shape[0]
    return _Wires(
        one=grid.from_bus[branch],
        other=grid.to_bus[branch],
        sure=np.arange(count) < int(sure.sum()),
        switch=np.where(sure[branch], switch[branch], -1),
        branch=branch,
        out=model.columns(np.ones(count), whole=True),
        back=model.columns(np.ones(count), whole=True),
    )


def _closed(wires: _Wires, m: int, value: float) -> tuple[list[tuple[int, float]], float]:
    """``value`` times the position of a wire, as terms and a constant."""
    return ([(int(wires.switch[m]), value)], 0.0) if wires.switch[m] >= 0 else ([], value)


def _connected(model: _Model, grid: Grid, case: Case, wires: _Wires, near: Ints) -> None:
    """What hangs together with a supply is a tree from it, and hangs together with no other source."""
    buses, roots = near.shape[0], set(case.roots.tolist())
    inward: list[list[int]] = [[] for _ in range(buses)]
    for m in range(wires.one.shape[0]):
        one, other = int(near[wires.one[m]]), int(near[wires.other[m]])
        arcs = [(int(wires.out[m]), 1.0), (int(wires.back[m]), 1.0)]
        shut, constant = _closed(wires, m, 1.0)
        less = [(column, -value) for column, value in shut]
        model.row([*arcs, *less], high=constant)
        for a, b in ((one, other), (other, one)):
            model.row([(a, 1.0), (b, -1.0), *shut], high=1.0 - constant)
        model.row([*arcs, *less, (one, -1.0)], low=constant - 1.0)
        if wires.switch[m] >= 0 and not case.present[wires.branch[m]]:
            model.row([*shut, (one, -1.0)], high=0.0)  # nothing is closed for nothing
    unit = model.columns(np.full(2 * wires.one.shape[0], float(buses)))
    flow: list[list[tuple[int, float]]] = [[] for _ in range(buses)]
    for k, (arc, above, below, _) in enumerate(wires.arcs()):
        inward[below].append(arc)
        model.row([(int(unit[k]), 1.0), (arc, -float(buses))], high=0.0)
        flow[below].append((int(unit[k]), 1.0))
        flow[above].append((int(unit[k]), -1.0))
    apart = {int(bus) for bus in grid.supply_bus} - roots
    for bus in range(buses):
        into = [(arc, 1.0) for arc in inward[bus]]
        if bus in roots:
            model.row(into, 0.0, 0.0)
            model.row([(int(near[bus]), 1.0)], 1.0, 1.0)
            continue
        model.row([*into, (int(near[bus]), -1.0)], 0.0, 0.0)
        model.row([*flow[bus], (int(near[bus]), -1.0)], 0.0, 0.0)
        if bus in apart:
            model.row([(int(near[bus]), 1.0)], 0.0, 0.0)


def _fed(model: _Model, case: Case, wires: _Wires, fed: Ints, near: Ints) -> None:
    """Voltage comes along arcs through what is certain, and goes through everything that is closed."""
    for bus in range(fed.shape[0]):
        model.row([(int(fed[bus]), 1.0), (int(near[bus]), -1.0)], high=0.0)
        if case.barred[bus]:
            model.row([(int(fed[bus]), 1.0)], 0.0, 0.0)
    for root in set(case.roots.tolist()):
        model.row([(int(fed[root]), 1.0)], 1.0, 1.0)
    for arc, above, below, m in wires.arcs():
        if wires.sure[m]:
            shut, constant = _closed(wires, m, 1.0)
            model.row([(int(fed[above]), 1.0), (int(fed[below]), -1.0), *shut], high=1.0 - constant)
            model.row([(int(fed[below]), 1.0), (int(fed[above]), -1.0), (arc, 1.0)], high=1.0)
        else:
            model.row([(int(fed[below]), 1.0), (arc, 1.0)], high=1.0)


def _kept(model: _Model, case: Case, wires: _Wires, near: Ints) -> Ints:
    """Columns (B,): 1 = it hangs together with a supply also between the openings and the closings.

    That is over branches that are closed now. 0 = it may not, and comes back with its pick-up.
    """
    kept = model.columns(np.ones(near.shape[0]))
    for bus in range(near.shape[0]):
        model.row([(int(kept[bus]), 1.0), (int(near[bus]), -1.0)], high=0.0)
    for arc, above, below, m in wires.arcs():
        stays = wires.switch[m] < 0 or bool(case.present[wires.branch[m]])
        over = [(int(kept[above]), -1.0)] if stays else []
        model.row([(int(kept[below]), 1.0), *over, (arc, 1.0)], high=1.0)
    return kept


def _locked(model: _Model, grid: Grid, case: Case, position: Ints) -> None:
    """Of each interlock no more closed than it says, or than are closed already."""
    column = dict(zip(case.which.tolist(), position.tolist(), strict=True))
    for lock in range(grid.lock_most.shape[0]):
        inside = grid.lock_branch[grid.lock_start[lock] : grid.lock_start[lock + 1]].tolist()
        fixed = sum(bool(case.present[e]) for e in inside if e not in column)
        most = max(int(grid.lock_most[lock]), shut_in(grid, case.present, lock))
        model.row([(column[e], 1.0) for e in inside if e in column], high=float(most - fixed))


def _carried(
    model: _Model, grid: Grid, case: Case, wires: _Wires, fed: Ints, near: Ints, kept: Ints
) -> list[tuple[int, float]]:
    """Flows within every rating -> what is charged, as terms of the objective [kVA]."""
    slack = np.maximum(judge(grid, case, case.present)[1], 0.0)  # of each branch, each root, least and most import
    at_supply = slack[grid.from_bus.shape[0] :]
    # What every bus with w takes, and how much less where it keeps its voltage on the way.
    least, least_kw = grid.reserve + grid.pickup, grid.reserve_kw + grid.pickup_kw
    less, less_kw = grid.pickup - case.load, grid.pickup_kw - case.load_kw
    three = (grid.capacity, least, less, grid.load, case.demand)
    same = all((table == table[:, :1]).all() for table in three)
    phases, weight = ([0], 3.0) if same else ([0, 1, 2], 1.0)
    held_kw = _Commodity.of(model, wires, near, case, least_kw, kept=(kept, less_kw))
    usual_kw = _Commodity.of(model, wires, near, case, grid.load_kw)
    charged: list[tuple[int, float]] = []
    at_root: dict[int, list[tuple[int, float]]] = {int(root): [] for root in case.roots}
    for p in phases:
        held = _Commodity.of(model, wires, near, case, least[:, p], kept=(kept, less[:, p]))
        usual = _Commodity.of(model, wires, near, case, grid.load[:, p])
        charge = _Commodity.of(model, wires, fed, case, case.demand[:, p], whole=False)
        for k, (arc, _, _, m) in enumerate(wires.arcs()):
            rating = float(grid.capacity[wires.branch[m], p] + slack[wires.branch[m]])
            for together in ((held,), (usual, charge)) if np.isfinite(rating) else ():
                model.row([*((int(one.flow[k]), 1.0) for one in together), (arc, -rating)], high=0.0)
        charged += [(int(column), weight) for column in charge.taken]
        for root, terms in at_root.items():
            terms += [(column, weight * value) for column, value in charge.given[root]]
    first: dict[int, float] = {}
    allowed = case.import_kw + at_supply[:-2]
    for root, most in zip(case.roots.tolist(), allowed.tolist(), strict=True):
        first.setdefault(root, most)
    for root, most in first.items():
        if np.isfinite(most):
            model.row(held_kw.given[root], high=most)
            model.row([*at_root[root], *usual_kw.given[root]], high=most)
    if np.isfinite(grid.least_kw):
        model.row(_of_fed(near, grid.load_kw + grid.reserve_kw), high=grid.least_kw + float(at_supply[-2]))
    if np.isfinite(grid.site_kw):
        most_kw = grid.site_kw + float(at_supply[-1])
        model.row([*_of_fed(near, least_kw), *_of_fed(kept, -less_kw)], high=most_kw)
        model.row([*charged, *_of_fed(near, grid.load_kw)], high=most_kw)
    return charged


def _of_fed(fed: Ints, value: Floats) -> list[tuple[int, float]]:
    """``value`` (B,) of every bus that is fed, as terms."""
    return [(int(column), float(one)) for column, one in zip(fed, value, strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Commodity:
    """Something that flows from the supplies to the buses."""

    flow: Ints
    """(2m,) column of the flow along each arc, in the order of ``_Wires.arcs``."""
    taken: Ints
    """(B,) column of what each bus takes; only where it may take less than its need."""
    given: dict[int, list[tuple[int, float]]]
    """What leaves each supply's bus, its own need included, as terms."""

    @staticmethod
    def of(
        model: _Model,
        wires: _Wires,
        fed: Ints,
        case: Case,
        need: Floats,
        *,
        whole: bool = True,
        kept: tuple[Ints, Floats] | None = None,
    ) -> _Commodity:
        """Every bus of ``fed`` takes its ``need`` (B,), where not ``whole`` up to it, through what is sure.

        ``kept``: columns (B,), and how much less each takes where they are 1.
        """
        buses, total = need.shape[0], float(need.sum())
        taken = model.columns(np.zeros(0) if whole else need)
        flow = model.columns(np.full(2 * wires.one.shape[0], total))
        balance: list[list[tuple[int, float]]] = [[] for _ in range(buses)]
        for k, (arc, above, below, m) in enumerate(wires.arcs()):
            model.row([(int(flow[k]), 1.0), (arc, -total if whole or wires.sure[m] else 0.0)], high=0.0)
            balance[below].append((int(flow[k]), 1.0))
            balance[above].append((int(flow[k]), -1.0))
        roots = set(case.roots.tolist())
        given: dict[int, list[tuple[int, float]]] = {}
        for bus in range(buses):
            own = [(int(fed[bus]), float(need[bus])) if whole else (int(taken[bus]), 1.0)]
            if kept is not None:
                own.append((int(kept[0][bus]), -float(kept[1][bus])))
            if not whole:
                model.row([(int(taken[bus]), 1.0), (int(fed[bus]), -float(need[bus]))], high=0.0)
            if bus in roots:
                given[bus] = [*own, *((column, -value) for column, value in balance[bus])]
            else:
                model.row([*balance[bus], *((column, -value) for column, value in own)], 0.0, 0.0)
        return _Commodity(flow=flow, taken=taken, given=given)
