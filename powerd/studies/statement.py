"""What could be energised at all where there are too many positions to try: one mixed-integer program, by HiGHS.

    maximise    Σ n_z u_z                                   EVSEs that have a voltage
    subject to  in(z) = u_z, 0 at a living supply           each live zone is fed over exactly one switch: no ring, and
                                                            no two supplies together
                a closed switch with a live end conducts    both its ends are live then
                u = 0                                       at dead supplies, on faults, on rings, where protection
                                                            acted (I9)
                Σ closed ≤ at most                          each interlock
                |Jₑ| ≤ rating, Σ kW ≤ import limit          reserves and returning loads (R8)

over zones: what hangs together whatever the free switches do, and so is live or dead as one. J is the positive-sequence
current of posts and of loads, linear in what is fed and never more than what the fullest phase carries: so this only
ever promises too much, and whoever asks judges the state that comes out phase by phase. Magnitudes are held within
``SIDES`` tangents of the circle, for posts by their active part. It shares nothing with ``network/plan``; the patterns
are the simulator's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from powerd.errors import PowerdError
from powerd.limits import Bools, Floats, Ints
from powerd.studies.zones import Situation, zones_of

SIDES = 24
"""Tangents around a circle: 0.9 % outside of it at the corners."""
FLOWS = ("posts", "real", "imag", "power")
"""What runs through a switch: current of posts, that of loads in two parts [A], and power [kW]."""
Terms = list[tuple[int, float]]
"""(column, coefficient) each."""


class Statement:
    """The program of one situation; ``without`` cuts a state off, ``best`` solves what is left."""

    def __init__(self, situation: Situation, sides: int = SIDES) -> None:
        """``sides`` divides ``SIDES``: with fewer the program promises more and is answered sooner."""
        self._situation, self._sides = situation, sides
        self._zones = zones = zones_of(situation)
        self._rows = _Rows()
        count, switches = zones.evses.shape[0], zones.switch.shape[0]
        blocks = {"live": count, **dict.fromkeys(("shut", "down", "up", "unit", *FLOWS), switches)}
        self._at: dict[str, Ints] = {}
        first = 0
        for name, size in blocks.items():
            self._at[name] = np.arange(first, first + size)
            first += size
        self._size = first
        self._lower, self._upper = np.full(first, -np.inf), np.full(first, np.inf)
        self._binary: Bools = np.zeros(first, np.bool_)
        for name in ("live", "shut", "down", "up"):
            self._lower[self._at[name]], self._upper[self._at[name]] = 0.0, 1.0
            self._binary[self._at[name]] = True
        self._upper[self._at["live"][~zones.may_live]] = 0.0
        self._lower[self._at["live"][zones.fed]] = 1.0
        self._tree()
        self._balance()
        self._ratings()
        self._imports()
        self._interlocks()

    def best(self) -> tuple[int, Bools] | None:
        """Most EVSEs with a voltage, and positions (E,) that give it to them; None = no state is permitted.

        Raises:
            PowerdError: HiGHS did not come to an end.
        """
        if (self._lower > self._upper).any() or self._zones.joined:
            return None
        gain = np.zeros(self._size)
        gain[self._at["live"]] = -self._zones.evses
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
        closed[self._situation.free] = False
        closed[self._zones.switch] = found.x[self._at["shut"]] > 0.5
        return round(-found.fun), closed

    def more_than(self, count: int) -> None:
        """From now on more than ``count`` EVSEs have a voltage: sooner answered than what is the most."""
        self._rows.add(self._of_live(self._zones.evses), count + 1.0, np.inf)

    def keeping(self, buses: Ints) -> None:
        """From now on these buses have a voltage."""
        self._lower[self._at["live"][self._zones.of_bus[buses]]] = 1.0

    def without(self, closed: Bools) -> None:
        """From now on at least one free switch stands otherwise."""
        shut = closed[self._zones.switch]
        terms = [(int(at), -1.0 if is_shut else 1.0) for at, is_shut in zip(self._at["shut"], shut, strict=True)]
        self._rows.add(terms, 1.0 - int(shut.sum()), np.inf)

    def _of_live(self, value: Floats | Ints) -> Terms:
        """``value`` (Z,) of every live zone."""
        return [(int(at), float(one)) for at, one in zip(self._at["live"], value, strict=True) if one]

    def _tree(self) -> None:
        """A closed switch with a live end conducts, downwards or upwards; each zone is fed once, from a supply."""
        at, zones = self._at, self._zones
        into: list[Terms] = [[] for _ in zones.evses]
        unit: list[Terms] = [[] for _ in zones.evses]
        for k, (one, other) in enumerate(zones.ends.tolist()):
            down, up, shut = (int(at["down"][k]), 1.0), (int(at["up"][k]), 1.0), (int(at["shut"][k]), -1.0)
            into[other].append(down)
            into[one].append(up)
            unit[other].append((int(at["unit"][k]), 1.0))
            unit[one].append((int(at["unit"][k]), -1.0))
            self._rows.add([down, up, shut], -np.inf, 0.0)
            for zone in (one, other):
                live = (int(at["live"][zone]), -1.0)
                self._rows.add([down, up, live], -np.inf, 0.0)
                self._rows.add([down, up, live, shut], -1.0, np.inf)
        for zone, feeders in enumerate(into):
            live = (int(at["live"][zone]), -1.0)
            self._rows.add(feeders if zones.fed[zone] else [*feeders, live], 0.0, 0.0)
            if not zones.fed[zone]:  # one unit ends at each: no zone feeds itself in a circle
                self._rows.add([*unit[zone], live], 0.0, 0.0)
        self._gated("unit", float(zones.evses.shape[0]))

    def _balance(self) -> None:
        """What a zone takes comes in over its switches, but where a supply is."""
        zones = self._zones
        takes = {"posts": zones.posts_a, "power": zones.power_kw}
        takes |= {"real": zones.loads_a.real, "imag": zones.loads_a.imag}
        for name, taken in takes.items():
            for zone in np.flatnonzero(~zones.fed).tolist():
                live = (int(self._at["live"][zone]), float(taken[zone]))
                self._rows.add([live, *self._out(name, zones.ports[zone])], 0.0, 0.0)
        self._gated("power", float(np.abs(self._situation.power_kw).sum()) + 1.0)

    def _out(self, name: str, ports: tuple[tuple[int, float], ...]) -> Terms:
        """What leaves over ports, as ``Zones.ports`` has them: currents in the frame of their zone."""
        at = self._at[name]
        return [(int(at[k]), float(np.sign(share)) if name == "power" else share) for k, share in ports]

    def _ratings(self) -> None:
        """|J of posts| + |J of loads| ≤ rating at every switch and at every branch within a zone."""
        at, zones = self._at, self._zones
        for k, most in enumerate(zones.most_a.tolist()):
            gate = [(int(at["down"][k]), -most), (int(at["up"][k]), -most)]
            real, imag = ((int(at[name][k]), 1.0) for name in ("real", "imag"))
            self._within([(int(at["posts"][k]), 1.0)], [real], [imag], gate, 0.0)
        for way in zones.ways:
            live = int(at["live"][way.zone])
            self._within(
                [(live, way.posts_a), *self._out("posts", way.ports)],
                [(live, way.loads_a.real), *self._out("real", way.ports)],
                [(live, way.loads_a.imag), *self._out("imag", way.ports)],
                [],
                way.rated_a,
            )

    def _within(self, posts: Terms, real: Terms, imag: Terms, gate: Terms, most: float) -> None:
        """|posts| + |real + i imag| + gate ≤ ``most``."""
        for angle in 2.0 * np.pi * np.arange(self._sides) / self._sides:
            loads = [(column, value * float(np.cos(angle))) for column, value in real]
            loads += [(column, value * float(np.sin(angle))) for column, value in imag]
            for sign in (1.0, -1.0):
                self._rows.add([*((c, sign * v) for c, v in posts), *loads, *gate], -np.inf, most)

    def _imports(self) -> None:
        """What a supply's zone takes and hands on, and all of it together."""
        zones, electrical = self._zones, self._situation.electrical
        supplies = electrical.supplies
        for s in np.flatnonzero(supplies.in_service & self._situation.alive).tolist():
            zone, most = int(zones.of_bus[supplies.bus[s]]), float(supplies.import_limit_kw[s])
            if np.isfinite(most):
                self._rows.add(self._out("power", zones.ports[zone]), -np.inf, most - float(zones.power_kw[zone]))
        if np.isfinite(electrical.site_import_limit_kw) and zones.fed.any():
            self._rows.add(self._of_live(zones.power_kw), -np.inf, float(electrical.site_import_limit_kw))

    def _gated(self, name: str, most: float) -> None:
        """Nothing runs against the direction of a switch, and nothing where it does not conduct."""
        for k in range(self._zones.switch.shape[0]):
            value = (int(self._at[name][k]), 1.0)
            self._rows.add([value, (int(self._at["down"][k]), -most)], -np.inf, 0.0)
            self._rows.add([value, (int(self._at["up"][k]), most)], 0.0, np.inf)

    def _interlocks(self) -> None:
        """Of each group no more are closed than it says."""
        number = {int(e): k for k, e in enumerate(self._zones.switch)}
        for lock in self._situation.electrical.interlocks:
            terms = [(int(self._at["shut"][number[b]]), 1.0) for b in lock.branches if b in number]
            shut = sum(bool(self._situation.closed[b]) for b in lock.branches if b not in number)
            self._rows.add(terms, -np.inf, float(lock.at_most_closed - shut))


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
