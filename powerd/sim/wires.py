"""Which current really flows where: the drawing swept from the posts to the supplies, by arithmetic of its own.

This is the simulator's truth and shares nothing with the limit rows that powerd decides by (``network/rows``): no
worst cases, no subsets, no voltage band. Everything draws at nominal voltage; losses are left out (``--verify-ac``
brings them back). Currents add as phasors and pass transformers by symmetrical components (Fortescue 1918):
with every bus's own l1 voltage at 0 degrees, the positive sequence keeps its angle, clock k turns the negative sequence
by -60k degrees, and the zero sequence passes only between two grounded stars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from powerd.errors import PowerdError
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.supply import Energised, energise, normal_positions
from powerd.sim.balance import balance_of, phases_of
from powerd.units import SQRT3

Complex = npt.NDArray[np.complex128]

_A = np.exp(2j * np.pi / 3)
_PHASES = np.array([[1, 1, 1], [1, _A**2, _A], [1, _A, _A**2]])  # sequences (0, +, -) to phases
_SEQUENCES = np.conj(_PHASES).T / 3
KEPT = 200
"""States whose wires are remembered."""
_KIND = {BranchKind.FEEDER: "feeder", BranchKind.TRANSFORMER: "transformer", BranchKind.SWITCH: "switch"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Wires:
    """Everything with a rating, as linear maps of what the cars draw; P ratings, K distinct taps, n EVSEs.

    The maps are sparse: a rating sees only the taps below it.
    """

    name: tuple[str, ...]
    """(P,) for people: "phase L2 of transformer T1, low side"."""
    element: tuple[str, ...]
    """(P,) id of the element."""
    unit: tuple[str, ...]
    """(P,) "A" or "kW"."""
    capacity: Floats
    """(P,) rating after derating [unit]."""
    is_transformer: npt.NDArray[np.bool_]
    """(P,) a transformer's rating."""
    branch: Ints
    """(P,) index of the branch; -1 for kW limits."""
    to_side: Bools
    """(P,) the rating is at the branch's to side."""
    tap: Ints
    """(n,) which tap each EVSE loads."""
    amps: Floats
    """(n,) ampere at its bus for one own unit."""
    gain: sp.csr_array
    """(P, K) complex: what one ampere (kW limits: one kW) through each tap puts on each rating."""
    load: Complex
    """(P,) what the uncontrolled loads put there."""
    less: sp.csr_array
    """(P, K) complex: the same for the phase that an imbalance is held against; 0 for all other ratings."""
    load_less: Complex
    """(P,) what the uncontrolled loads put there."""
    kw_per_unit: Floats
    """(n,) kW for one own unit."""
    load_kw: float
    """Uncontrolled loads with a supply, all together [kW]."""
    live: Bools
    """(n,) a supply reaches the EVSE."""

    def flow(self, drawn: Floats) -> Floats:
        """What flows through every rating (P,) [unit] while ``drawn`` (n,) [own unit] is taken."""
        taps = self.gain.shape[1]
        current = np.bincount(self.tap, weights=drawn * self.amps, minlength=taps)
        power = np.bincount(self.tap, weights=drawn * self.kw_per_unit, minlength=taps)
        rated = int(np.count_nonzero(self.branch >= 0))  # kW limits come next, then what phases differ by and neutrals
        kw = rated + self.unit.count("kW")
        passes: Complex = self.gain @ current
        passes[rated:kw] = self.gain[rated:kw] @ power
        flow: Floats = np.abs(passes + self.load)
        if kw < flow.shape[0]:
            flow[kw:] = np.maximum(flow[kw:] - np.abs((self.less @ current + self.load_less)[kw:]), 0.0)
        return flow

    def site_kw(self, drawn: Floats) -> float:
        """All the power taken [kW], loads included, losses not."""
        return float(drawn @ self.kw_per_unit) + self.load_kw


@dataclass(frozen=True, kw_only=True, eq=False)
class GridState:
    """What is closed, sound and alive. E branches, S supplies, D loads."""

    closed: Bools
    """(E,) contact positions; only read where there is a contact."""
    sound: Bools
    """(E,) in service and without a fault."""
    alive: Bools
    """(S,) the supply has voltage."""
    load_factor: Floats
    """(D,) what each load takes, of its typical power; more than 1 after an outage."""

    @property
    def key(self) -> bytes:
        """Equal for equal states."""
        return b"".join(part.tobytes() for part in (self.closed, self.sound, self.alive, self.load_factor))


def as_drawn(electrical: Electrical) -> GridState:
    """The normal switching state, nothing lost."""
    return GridState(
        closed=normal_positions(electrical),
        sound=electrical.branches.in_service.copy(),
        alive=electrical.supplies.in_service.copy(),
        load_factor=np.ones(len(electrical.loads.ids)),
    )


def seen_in(electrical: Electrical, state: GridState) -> Electrical:
    """The drawing with what is lost taken out of service."""
    return replace(
        electrical,
        branches=replace(electrical.branches, in_service=state.sound),
        supplies=replace(electrical.supplies, in_service=state.alive),
    )


def lay(electrical: Electrical, rng: np.random.Generator) -> Wires:
    """The truth of a drawing in its normal switching state.

    Args:
        electrical: the compiled drawing.
        rng: settles what the drawing leaves open: the phase of posts on an unknown phase.

    Raises:
        PowerdError: the normal state has a loop or two supplies in parallel; a sweep cannot tell how they share.
    """
    return Survey(electrical, rng).wires(as_drawn(electrical))


class Survey:
    """The truth of a drawing in any radial state; ratings and taps keep their places from state to state."""

    def __init__(self, electrical: Electrical, rng: np.random.Generator) -> None:
        """``rng`` as for ``lay``."""
        self.electrical = electrical
        self._taps = _taps(electrical, rng)
        self._load_patterns = _load_patterns(electrical)
        self._places = _places(electrical)
        self._kept: dict[bytes, Wires] = {}

    def wires(self, state: GridState) -> Wires:
        """What flows where in ``state``; states that were asked for before are remembered.

        Raises:
            PowerdError: the state has a loop or two supplies in parallel.
        """
        found = self._kept.get(state.key)
        if found is None:
            found = self._kept[state.key] = self._lay(state)
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def positive_sequence(self, drawn: Floats, load_factor: Floats) -> tuple[Complex, Complex]:
        """(B,) what a bus's EVSEs take at ``drawn`` (n,), its loads at ``load_factor`` (D,) [A], in its own frame."""
        bus, pattern, tap = self._taps
        amps = np.bincount(tap, weights=drawn * self.electrical.evse_amps_per_unit, minlength=bus.shape[0])
        posts = np.zeros(len(self.electrical.buses.ids), np.complex128)
        loads = posts.copy()
        np.add.at(posts, bus, amps * (pattern @ _SEQUENCES[1]))
        np.add.at(loads, self.electrical.loads.bus, load_factor * (self._load_patterns @ _SEQUENCES[1]))
        return posts, loads

    def _lay(self, state: GridState) -> Wires:
        electrical = seen_in(self.electrical, state)
        live = energise(electrical, state.closed)
        if live.loop_count or live.parallel.shape[0]:
            raise PowerdError(
                f"site {electrical.site_id} has a loop or supplies in parallel in this state; the simulator sweeps "
                "radial states: open a tie in the site file (closed: false)"
            )
        bus, pattern, tap = self._taps
        through = _climb(electrical, live, bus, pattern)
        patterns = self._load_patterns * state.load_factor[:, None]
        load_through = _climb(electrical, live, electrical.loads.bus, patterns).sum(axis=2, keepdims=True)
        sides = [_side(electrical, live, branch, rated_to, phase) for branch, rated_to, phase in self._places]
        limits = _power_limits(electrical, live)
        fed = [np.isin(live.supply[bus], members) for _, _, _, members in limits]
        power = electrical.loads.typical_kw * state.load_factor
        loads = [power[np.isin(live.supply[electrical.loads.bus], m)].sum() for *_, m in limits]
        rated = len(sides)
        balance = balance_of(electrical, live)
        high, less = phases_of(balance, through, bus.shape[0])
        load_high, load_less = phases_of(balance, load_through, 1)
        others = len(limits) + len(balance)
        before = rated + len(limits)
        return Wires(
            name=tuple([s.name for s in sides] + [name for name, *_ in limits] + [b.name for b in balance]),
            element=tuple(
                [s.element for s in sides] + [element for _, element, *_ in limits] + [b.element for b in balance]
            ),
            unit=("A",) * rated + ("kW",) * len(limits) + ("A",) * len(balance),
            capacity=np.array(
                [s.capacity for s in sides] + [most for _, _, most, _ in limits] + [b.most for b in balance]
            ),
            is_transformer=np.array([s.is_transformer for s in sides] + [False] * others, dtype=np.bool_),
            branch=np.array([b for b, _, _ in self._places] + [-1] * others, dtype=np.int64),
            to_side=np.array([t for _, t, _ in self._places] + [False] * others, dtype=np.bool_),
            tap=tap,
            amps=electrical.evse_amps_per_unit,
            gain=sp.csr_array(np.concatenate([_gather(sides, fed, through, bus.shape[0]), high])),
            load=np.concatenate(
                [_gather(sides, [], load_through, 1)[:, 0], np.array(loads, dtype=np.complex128), load_high[:, 0]]
            ),
            less=sp.csr_array(np.concatenate([np.zeros((before, bus.shape[0])), less])),
            load_less=np.concatenate([np.zeros(before), load_less[:, 0]]),
            kw_per_unit=electrical.posts.kw_per_unit,
            load_kw=float(power[live.bus_is_live[electrical.loads.bus]].sum()),
            live=live.bus_is_live[electrical.evse_bus],
        )


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One phase of one rated end of a branch."""

    name: str
    element: str
    capacity: float
    is_transformer: bool
    below: int
    """Bus at the lower end of the branch; -1 = it carries nothing."""
    phase: int
    transform: Complex | None
    """(3, 3) from the lower to the upper end where the upper end is rated; None = the lower end is."""


def _gather(sides: list[_Side], fed: list[npt.NDArray[np.bool_]], through: Complex, taps: int) -> Complex:
    """(P, K) gains: rated sides from what passes their lower bus, then power limits from who feeds the tap."""
    nothing = np.zeros(taps, dtype=np.complex128)
    rows = [
        nothing
        if s.below < 0
        else through[s.below, s.phase]
        if s.transform is None
        else s.transform[s.phase] @ through[s.below]
        for s in sides
    ]
    rows += [f.astype(np.complex128) for f in fed]
    return np.array(rows, dtype=np.complex128).reshape(len(rows), taps)


def _taps(electrical: Electrical, rng: np.random.Generator) -> tuple[Ints, Complex, Ints]:
    """EVSEs that hang alike on one bus share a tap: (bus (K,), phasors (K, 3) of 1 A, tap of each EVSE (n,))."""
    deg = electrical.evse_phasor_deg.copy()
    for evse in np.flatnonzero(electrical.evse_unknown).tolist():
        phase = int(rng.integers(3))
        deg[evse] = np.where(np.arange(3) == phase, -120.0 * phase, np.nan)
    key = np.column_stack([electrical.evse_bus, np.where(np.isnan(deg), 999.0, np.round(deg, 9))])
    kinds, tap = np.unique(key, axis=0, return_inverse=True)
    angle = kinds[:, 1:]
    pattern = np.where(angle == 999.0, 0.0, np.exp(1j * np.deg2rad(angle)))
    return kinds[:, 0].astype(np.int64), pattern, tap.reshape(-1).astype(np.int64)


def _load_patterns(electrical: Electrical) -> Complex:
    """(D, 3) current phasors of the uncontrolled loads at typical power and nominal voltage [A]."""
    loads = electrical.loads
    on = (loads.phase_bits[:, None] >> np.arange(3)) & 1
    phases = np.maximum(on.sum(axis=1), 1)
    volts = electrical.buses.voltage_v[loads.bus] / SQRT3
    amps = loads.typical_kw * 1000.0 / (phases * volts * loads.power_factor)
    angle = np.deg2rad(np.array([0.0, -120.0, 120.0]))[None, :] - np.arccos(loads.power_factor)[:, None]
    return np.asarray(on * amps[:, None] * np.exp(1j * angle), dtype=np.complex128)


def _climb(electrical: Electrical, live: Energised, bus: Ints, pattern: Complex) -> Complex:
    """(B, 3, K) current at and below every bus due to each of K patterns; in the bus's own frame."""
    through = np.zeros((live.supply.shape[0], 3, bus.shape[0]), dtype=np.complex128)
    through[bus, :, np.arange(bus.shape[0])] = pattern
    for below in live.order[::-1].tolist():
        if live.parent_bus[below] >= 0:
            through[live.parent_bus[below]] += _upwards(electrical, live, below) @ through[below]
    return through


def _upwards(electrical: Electrical, live: Energised, below: int) -> Complex:
    """(3, 3) from currents at the lower end of the branch above ``below`` to those at its upper end."""
    branches, branch = electrical.branches, int(live.parent_branch[below])
    if branches.kind[branch] != BranchKind.TRANSFORMER:
        return np.eye(3, dtype=np.complex128)
    clock, ratio = int(branches.clock[branch]), float(branches.turns_ratio[branch])
    passes = not branches.high_delta[branch] and clock % 2 == 0
    if branches.to_bus[branch] != below:  # fed from its low side
        clock, ratio = -clock, 1.0 / ratio
    zero = (-1.0) ** (clock // 2) * np.exp(-1j * np.deg2rad(30.0 * clock)) if passes else 0.0
    sequence = np.diag([zero, 1.0, np.exp(-1j * np.deg2rad(60.0 * clock))])
    return np.asarray(_PHASES @ sequence @ _SEQUENCES / ratio, dtype=np.complex128)


def _places(electrical: Electrical) -> list[tuple[int, bool, int]]:
    """(branch, whether at its to side, phase) of every rating in A: from the supplies outwards, then what is dead."""
    live = energise(electrical, normal_positions(electrical))
    fed = [int(live.parent_branch[bus]) for bus in live.order.tolist() if live.parent_branch[bus] >= 0]
    branches = [*dict.fromkeys([*fed, *range(len(electrical.branches.ids))])]
    return [
        (branch, bool(rated_to), phase)
        for branch in branches
        for rated_to, capacity in enumerate(_capacities(electrical, branch))
        if np.isfinite(capacity)
        for phase in range(3)
    ]


def _side(electrical: Electrical, live: Energised, branch: int, rated_to: bool, phase: int) -> _Side:
    """One phase of one rated end in a state."""
    branches = electrical.branches
    below = -1
    for end in (int(branches.to_bus[branch]), int(branches.from_bus[branch])):
        if live.parent_branch[end] == branch:
            below = end
    lower_is_to = branches.to_bus[branch] == below
    is_transformer = bool(branches.kind[branch] == BranchKind.TRANSFORMER)
    end_name = f", {'low' if rated_to else 'high'} side" if is_transformer else ""
    what = f"{_KIND[BranchKind(int(branches.kind[branch]))]} {branches.ids[branch]}{end_name}"
    at_upper = below >= 0 and rated_to != lower_is_to
    return _Side(
        name=f"phase L{phase + 1} of {what}",
        element=branches.ids[branch],
        capacity=float(_capacities(electrical, branch)[int(rated_to)]),
        is_transformer=is_transformer,
        below=below,
        phase=phase,
        transform=_upwards(electrical, live, below) if at_upper else None,
    )


def _capacities(electrical: Electrical, branch: int) -> tuple[float, float]:
    """Ratings at the from and to side [A], nan = none; what has one current has one rating, the smaller."""
    branches = electrical.branches
    high, low = float(branches.capacity_from_a[branch]), float(branches.capacity_to_a[branch])
    if branches.kind[branch] == BranchKind.TRANSFORMER:
        return high, low
    return float(np.fmin(high, low)), np.nan


def _power_limits(electrical: Electrical, live: Energised) -> list[tuple[str, str, float, list[int]]]:
    """(name, element, limit [kW], supplies it spans) of every import limit; a supply that feeds nothing spans none."""
    supplies = electrical.supplies
    feeding = sorted({int(s) for s in live.supply if s >= 0})
    limits = [
        (f"import from supply {name}", name, float(supplies.import_limit_kw[s]), [s] if s in feeding else [])
        for s, name in enumerate(supplies.ids)
        if np.isfinite(supplies.import_limit_kw[s])
    ]
    if np.isfinite(electrical.site_import_limit_kw):
        limits.append(("import of the site", electrical.site_id, electrical.site_import_limit_kw, feeding))
    return limits
