"""What could be energised at all where there are too many positions to try: one mixed-integer program, by HiGHS.

    maximise    Σ nᵦ uᵦ                                     EVSEs that have a voltage
    subject to  in(b) = uᵦ, 0 at a living supply            each live bus is fed over exactly one branch: no ring, and
                                                            no two supplies together
                a closed branch with a live end conducts    both its ends are live then
                u = 0                                       at dead supplies, on faults, where protection acted (I9)
                Σ closed ≤ at most                          each interlock
                |Jₑ| ≤ rating, Σ kW ≤ import limit          reserves and returning loads (R8)

with J the positive-sequence current of posts and of loads, which is linear in what is fed and never more than what the
fullest phase carries: so this only ever promises too much, and whoever asks judges the state that comes out phase by
phase. Magnitudes are held within ``SIDES`` tangents of the circle, for posts by their active part. It shares nothing
with ``network/plan``; the patterns are the simulator's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from powerd.errors import PowerdError
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.sim.wires import Complex

SIDES = 24
"""Tangents around a circle: 0.9 % outside of it at the corners."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Situation:
    """What is asked about; B buses, E branches, S supplies."""

    electrical: Electrical
    """The drawing."""
    usable: Bools
    """(E,) conducts where it is closed."""
    closed: Bools
    """(E,) position; only a start where ``free``."""
    free: Ints
    """Switches that may be in either position."""
    alive: Bools
    """(S,) has voltage."""
    dark: Bools
    """(B,) must not be fed."""
    posts_a: Floats
    """(B,) active positive-sequence current of the reserves [A]."""
    loads_a: Complex
    """(B,) positive-sequence current of the loads, in the bus's frame [A]."""
    power_kw: Floats
    """(B,) the same as power [kW]."""
    count: Ints
    """(B,) EVSEs."""


class Statement:
    """The program of one situation; ``without`` cuts a state off, ``best`` solves what is left."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        electrical = situation.electrical
        branches = electrical.branches
        self._edges: Ints = np.flatnonzero(situation.usable & (~branches.switchable | _could_close(situation)))
        self._rows = _Rows()
        buses, edges = len(electrical.buses.ids), self._edges.shape[0]
        blocks = {"live": buses, "shut": edges, "down": edges, "up": edges, "unit": edges, "power": edges}
        blocks |= {"posts": edges, "real": edges, "imag": edges}
        self._at: dict[str, Ints] = {}
        first = 0
        for name, size in blocks.items():
            self._at[name] = np.arange(first, first + size)
            first += size
        self._size = first
        self._lower, self._upper = np.full(first, -np.inf), np.full(first, np.inf)
        self._binary: Bools = np.zeros(first, np.bool_)
        self._positions()
        self._tree()
        self._flows()
        self._interlocks()

    def best(self) -> tuple[int, Bools] | None:
        """Most EVSEs with a voltage, and positions (E,) that give it to them; None = no state is permitted.

        Raises:
            PowerdError: HiGHS did not come to an end.
        """
        gain = np.zeros(self._size)
        gain[self._at["live"]] = -self._situation.count
        matrix, low, high = self._rows.built(self._size)
        found = milp(
            gain,
            constraints=LinearConstraint(matrix, low, high),
            bounds=Bounds(self._lower, self._upper),
            integrality=self._binary.astype(np.int64),
            options={"mip_rel_gap": 0.0, "time_limit": 120.0},
        )
        if found.status == 2:
            return None
        if found.status != 0:
            raise PowerdError(f"HiGHS: {found.message}")
        closed = self._situation.closed.copy()
        shut = found.x[self._at["shut"]] > 0.5
        for e in self._situation.free.tolist():
            closed[e] = bool(shut[self._edges == e].any())
        return round(-found.fun), closed

    def more_than(self, count: int) -> None:
        """From now on more than ``count`` EVSEs have a voltage: sooner answered than what is the most."""
        terms = [(int(at), float(n)) for at, n in zip(self._at["live"], self._situation.count, strict=True) if n]
        self._rows.add(terms, count + 1.0, np.inf)

    def without(self, closed: Bools) -> None:
        """From now on at least one free switch stands otherwise."""
        edge = {int(e): k for k, e in enumerate(self._edges)}
        free = [e for e in self._situation.free.tolist() if e in edge]
        terms = [(int(self._at["shut"][edge[e]]), -1.0 if closed[e] else 1.0) for e in free]
        self._rows.add(terms, 1.0 - sum(bool(closed[e]) for e in free), np.inf)

    def _positions(self) -> None:
        """Who may be live, and which branches may be shut."""
        situation = self._situation
        supplies = situation.electrical.supplies
        live, shut = self._at["live"], self._at["shut"]
        self._lower[live], self._upper[live] = 0.0, np.where(situation.dark, 0.0, 1.0)
        for s in np.flatnonzero(supplies.in_service).tolist():
            value = float(situation.alive[s])
            self._lower[live[supplies.bus[s]]] = self._upper[live[supplies.bus[s]]] = value
        free = np.isin(self._edges, situation.free)
        self._lower[shut], self._upper[shut] = np.where(free, 0.0, 1.0), 1.0
        for name in ("down", "up"):
            self._lower[self._at[name]], self._upper[self._at[name]] = 0.0, 1.0
        for name in ("live", "shut", "down", "up"):
            self._binary[self._at[name]] = True

    def _tree(self) -> None:
        """A closed branch with a live end conducts, downwards or upwards; each live bus is fed once, from a supply."""
        situation, at = self._situation, self._at
        branches, supplies = situation.electrical.branches, situation.electrical.supplies
        into: dict[int, list[tuple[int, float]]] = {b: [] for b in range(at["live"].shape[0])}
        unit: dict[int, list[tuple[int, float]]] = {b: [] for b in range(at["live"].shape[0])}
        for k, e in enumerate(self._edges.tolist()):
            one, other = int(branches.from_bus[e]), int(branches.to_bus[e])
            down, up = (int(at["down"][k]), 1.0), (int(at["up"][k]), 1.0)
            into[other].append(down)
            into[one].append(up)
            unit[other].append((int(at["unit"][k]), 1.0))
            unit[one].append((int(at["unit"][k]), -1.0))
            self._rows.add([down, up, (int(at["shut"][k]), -1.0)], -np.inf, 0.0)
            for bus in (one, other):
                self._rows.add([down, up, (int(at["live"][bus]), -1.0)], -np.inf, 0.0)
                self._rows.add([down, up, (int(at["live"][bus]), -1.0), (int(at["shut"][k]), -1.0)], -1.0, np.inf)
        roots = set(supplies.bus[np.flatnonzero(supplies.in_service & situation.alive)].tolist())
        for bus, feeders in into.items():
            live = (int(at["live"][bus]), -1.0)
            self._rows.add(feeders if bus in roots else [*feeders, live], 0.0, 0.0)
            if bus not in roots:
                self._rows.add([*unit[bus], live], 0.0, 0.0)  # one unit ends at each: no bus feeds itself in a circle
        self._gated("unit", float(at["live"].shape[0]))

    def _flows(self) -> None:
        """Currents and powers are conserved at every bus that is no supply's, and are within every rating."""
        situation, at = self._situation, self._at
        electrical = situation.electrical
        branches, supplies = electrical.branches, electrical.supplies
        ratio = np.where(branches.kind == BranchKind.TRANSFORMER, branches.turns_ratio, 1.0)
        buses = at["live"].shape[0]
        takes = {"posts": situation.posts_a, "power": situation.power_kw}
        takes |= {"real": situation.loads_a.real, "imag": situation.loads_a.imag}
        roots = set(supplies.bus[np.flatnonzero(supplies.in_service & situation.alive)].tolist())
        for name, taken in takes.items():
            balance: list[list[tuple[int, float]]] = [[] for _ in range(buses)]
            for k, e in enumerate(self._edges.tolist()):  # the current is that at the to side
                share = 1.0 if name == "power" else 1.0 / float(ratio[e])
                balance[int(branches.to_bus[e])].append((int(at[name][k]), 1.0))
                balance[int(branches.from_bus[e])].append((int(at[name][k]), -share))
            for bus, terms in enumerate(balance):
                if bus not in roots:
                    self._rows.add([*terms, (int(at["live"][bus]), -float(taken[bus]))], 0.0, 0.0)
        self._gated("power", float(np.abs(situation.power_kw).sum()) + 1.0)
        volts = electrical.buses.voltage_v
        everything = 1.5 * float(((np.abs(situation.posts_a) + np.abs(situation.loads_a)) * volts).sum())
        for k, e in enumerate(self._edges.tolist()):
            most = everything / float(volts[branches.to_bus[e]]) + 1.0
            limits = [float(branches.capacity_to_a[e]), float(branches.capacity_from_a[e]) * float(ratio[e])]
            rated = min([value for value in limits if np.isfinite(value)], default=np.inf)
            self._within(k, min(most, rated))
        self._imports(roots)

    def _within(self, k: int, most: float) -> None:
        """|J of posts| + |J of loads| ≤ ``most`` [A at the to side] where the branch conducts, else 0."""
        at = self._at
        gate = [(int(at["down"][k]), -most), (int(at["up"][k]), -most)]
        for angle in 2.0 * np.pi * np.arange(SIDES) / SIDES:
            loads = [(int(at["real"][k]), float(np.cos(angle))), (int(at["imag"][k]), float(np.sin(angle)))]
            for sign in (1.0, -1.0):
                self._rows.add([(int(at["posts"][k]), sign), *loads, *gate], -np.inf, 0.0)

    def _imports(self, roots: set[int]) -> None:
        """What leaves a supply's bus, and all of it together."""
        situation, at = self._situation, self._at
        branches, supplies = situation.electrical.branches, situation.electrical.supplies
        for s in np.flatnonzero(supplies.in_service & situation.alive & np.isfinite(supplies.import_limit_kw)).tolist():
            bus = int(supplies.bus[s])
            out = [
                (int(at["power"][k]), 1.0 if branches.from_bus[e] == bus else -1.0)
                for k, e in enumerate(self._edges.tolist())
                if bus in (branches.from_bus[e], branches.to_bus[e])
            ]
            self._rows.add(out, -np.inf, float(supplies.import_limit_kw[s] - situation.power_kw[bus]))
        if np.isfinite(situation.electrical.site_import_limit_kw) and roots:
            terms = [(int(at["live"][b]), float(kw)) for b, kw in enumerate(situation.power_kw)]
            self._rows.add(terms, -np.inf, float(situation.electrical.site_import_limit_kw))

    def _gated(self, name: str, most: float) -> None:
        """Nothing runs against the direction of a branch, and nothing where it does not conduct."""
        for k in range(self._edges.shape[0]):
            value = (int(self._at[name][k]), 1.0)
            self._rows.add([value, (int(self._at["down"][k]), -most)], -np.inf, 0.0)
            self._rows.add([value, (int(self._at["up"][k]), most)], 0.0, np.inf)

    def _interlocks(self) -> None:
        """Of each group no more are closed than it says; an open switch that cannot close counts as open."""
        edge = {int(e): k for k, e in enumerate(self._edges)}
        for lock in self._situation.electrical.interlocks:
            terms = [(int(self._at["shut"][edge[b]]), 1.0) for b in lock.branches if b in edge]
            shut = sum(bool(self._situation.closed[b]) for b in lock.branches if b not in edge)
            self._rows.add(terms, -np.inf, float(lock.at_most_closed - shut))


def _could_close(situation: Situation) -> Bools:
    """(E,) closed, or free to be."""
    found: Bools = situation.closed.copy()
    found[situation.free] = True
    return found


@dataclass
class _Rows:
    """Constraints as they come; each is low <= row <= high."""

    row: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, terms: list[tuple[int, float]], low: float, high: float) -> None:
        """One more."""
        self.row += [len(self.low)] * len(terms)
        self.column += [column for column, _ in terms]
        self.value += [value for _, value in terms]
        self.low.append(low)
        self.high.append(high)

    def built(self, size: int) -> tuple[sp.csr_array, Floats, Floats]:
        """The matrix and its bounds."""
        shape = (len(self.low), size)
        matrix = sp.coo_array((self.value, (self.row, self.column)), shape=shape).tocsr()
        return matrix, np.array(self.low), np.array(self.high)
