"""The drawing as columns: what ``load`` makes of a site file, and ``supply``, ``rows`` and ``build`` read.

Integer-indexed; no pandapower in here (rerouting must work when a power flow diverges, and within the tick).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from powerd.limits import Bools, Controllers, Floats, Ints, Posts
from powerd.network.operation import Operation
from powerd.network.tolerance import Overload

#: Lowest and highest voltage the limits reckon with, of nominal (EN 50160, 95 % of a week: +-10 %).
V_LOW_PU, V_HIGH_PU = 0.90, 1.10


class BranchKind(IntEnum):
    """What a branch is."""

    FEEDER = 0
    TRANSFORMER = 1
    SWITCH = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Buses:
    """(B,) buses."""

    ids: tuple[str, ...]
    """Bus ids; auxiliary ones (between a line and its line switch in an imported net) have ids that start with "~"."""
    voltage_v: Floats
    """Nominal line-to-line voltage [V]."""
    in_service: Bools
    """Commissioned."""
    max_imbalance_a: Floats
    """Most by which the currents of two phases into the bus may differ [A]; nan = no limit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """(E,) everything that joins two buses: feeders, transformers, switches, both halves of a transfer switch."""

    ids: tuple[str, ...]
    """Element ids; a transfer switch gives "<id>/preferred" and "<id>/alternate"."""
    kind: Ints
    """BranchKind."""
    from_bus: Ints
    """Index; the high side of a transformer."""
    to_bus: Ints
    """Index; the low side of a transformer."""
    capacity_from_a: Floats
    """Rating per phase at the from side after derating [A]; nan = no rating there."""
    capacity_to_a: Floats
    """Rating per phase at the to side after derating [A]; nan = no rating there."""
    neutral_a: Floats
    """Rating of the neutral conductor after derating [A]; nan = as thick as a phase, which needs no limit."""
    turns_ratio: Floats
    """High over low *line-to-line* rated voltage, taps included (1 for others)."""
    high_delta: Bools
    """Transformer: zero-sequence current does not pass (every group but YNyn), as in delta-star."""
    clock: Ints
    """Transformer clock number (0 for others)."""
    in_service: Bools
    """Commissioned."""
    switchable: Bools
    """A switch: conducts only while closed."""
    normally_closed: Bools
    """Position in the normal switching state (True for what is not a switch)."""
    source: tuple[str, ...]
    """Where the rating came from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Impedances:
    """(E,) what a power flow needs to know of each branch besides ``Branches``; only losses enter a limit (in kW)."""

    length_km: Floats
    """Feeder: length [km]; 0 for others."""
    r_ohm: Floats
    """Feeder: series resistance a phase, parallel cables together [ohm]; 0 for others."""
    x_ohm: Floats
    """Feeder: series reactance a phase, parallel cables together [ohm]; 0 for others."""
    r0_ohm: Floats
    """Feeder: zero-sequence resistance [ohm]; 0 for others."""
    x0_ohm: Floats
    """Feeder: zero-sequence reactance [ohm]; 0 for others."""
    c_nf: Floats
    """Feeder: capacitance a phase [nF]; 0 for others."""
    rated_kva: Floats
    """Transformer: nameplate power, parallel units together [kVA]; 0 for others."""
    high_v: Floats
    """Transformer: rated voltage of the high winding, line-to-line, tap not included [V]; 0 for others."""
    low_v: Floats
    """Transformer: rated voltage of the low winding, line-to-line [V]; 0 for others."""
    vk_percent: Floats
    """Transformer: short-circuit voltage [%]; 0 for others."""
    vkr_percent: Floats
    """Transformer: its resistive part [%]; 0 for others."""
    iron_loss_kw: Floats
    """Transformer: no-load loss [kW]; 0 for others."""
    no_load_current_percent: Floats
    """Transformer: no-load current [% of rated current]; 0 for others."""
    vector_group: tuple[str, ...]
    """Transformer: vector group without clock number, "Dyn"; "" for others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Supplies:
    """(S,) sources."""

    ids: tuple[str, ...]
    bus: Ints
    """Bus index."""
    import_limit_kw: Floats
    """Most that may be taken [kW]; inf = none."""
    in_service: Bools
    """Commissioned and feeding: in the normal state, or now (``states.seen_as``)."""
    standby: Bools
    """Commissioned but not feeding: a generator that may start, or what was lost and may come back."""
    voltage_pu: Floats
    """Voltage it holds at its bus, of nominal."""
    short_circuit_mva: Floats
    """Maximum short-circuit power at the connection [MVA]."""
    rx_ratio: Floats
    """R/X of the source impedance."""
    source: tuple[str, ...]
    """Where the limit came from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loads:
    """(D,) uncontrolled loads."""

    ids: tuple[str, ...]
    bus: Ints
    """Bus index."""
    typical_kw: Floats
    """Typical power, all phases [kW]."""
    worst_kw: Floats
    """Most it can be, all phases [kW]; counts wherever no trusted meter says better."""
    power_factor: Floats
    """Power factor."""
    phase_bits: Ints
    """Phases, bit k (7 = three-phase)."""
    critical: Bools
    """Must be fed first after an outage."""
    pickup_factor: Floats
    """What it takes more than usual right after an outage (docs/leases.md R8)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeterPoints:
    """(M,) meters of elements; of ``branch``, ``bus`` and ``supply`` one says where each sits, the others are -1."""

    ids: tuple[str, ...]
    branch: Ints
    """Branch index."""
    low_side: Bools
    """Of a transformer: measures the low side."""
    bus: Ints
    """Bus index: measures what flows into it."""
    supply: Ints
    """Supply index."""
    stale_after_s: Floats
    """Age from which the last value no longer counts [s]."""
    margin: Floats
    """Share of the last value that is added while it is late."""
    worst_a: Floats
    """Most that is not charging behind it [A per phase]; nan = not said."""

    @property
    def count(self) -> int:
        """M."""
        return len(self.ids)

    @staticmethod
    def none() -> MeterPoints:
        """No meters."""
        index, number = np.zeros(0, dtype=np.int64), np.zeros(0)
        return MeterPoints(
            ids=(),
            branch=index,
            low_side=np.zeros(0, dtype=np.bool_),
            bus=index,
            supply=index,
            stale_after_s=number,
            margin=number,
            worst_a=number,
        )


@dataclass(frozen=True, kw_only=True)
class Interlock:
    """At most ``at_most_closed`` of ``branches`` may be closed together."""

    branches: tuple[int, ...]
    """Branch indices."""
    at_most_closed: int
    """How many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Electrical:
    """A compiled site: everything that the tick needs to know of the drawing."""

    site_id: str
    buses: Buses
    branches: Branches
    operation: Operation
    impedances: Impedances
    overload: tuple[Overload, ...]
    """(E,) what each branch tolerates beyond its rating."""
    supplies: Supplies
    loads: Loads
    meters: MeterPoints
    posts: Posts
    controllers: Controllers
    evse_bus: Ints
    """(n,) bus index of each EVSE."""
    evse_phasor_deg: Floats
    """(n, 3) angle of the current that a unit ceiling puts on bus phase l1, l2, l3; nan = none.

    Unity power factor. One phase to neutral on l2: (nan, -120, nan). Line-to-line l12: (30, -150, nan).
    Three-phase: (0, -120, 120). Unknown phase: full current on each, three candidates: see ``evse_unknown``.
    """
    evse_unknown: Bools
    """(n,) one-phase post on an unknown phase: counts fully on each phase."""
    evse_in_step: Bools
    """(n,) its phases carry one and the same current: a rectifier, or a car that was seen to."""
    evse_detects: Bools
    """(n,) phases of this three-phase post that its car does not use may be taken as unused."""
    evse_switches: Bools
    """(n,) this three-phase post can be told to connect its L1 alone, and it is known which phase that is."""
    evse_rotation: Ints
    """(n,) bus phase (0, 1, 2) that the post's own L1 hangs on; -1 where nobody knows."""
    evse_amps_per_unit: Floats
    """(n,) ampere per phase at the bus for one own unit: 1 for AC; DC: at V_low, worst efficiency and power factor."""
    evse_ramp: Floats
    """(n,) most that a ceiling may rise [own unit/s]; inf = at will."""
    site_import_limit_kw: float
    """Contracted import over all supplies [kW]; inf = none."""
    site_import_source: str
    """Where that limit came from."""
    min_envelope_kw: float
    """Lowest dynamic envelope the site guarantees to obey (docs/leases.md R5) [kW]; nan = none promised."""
    failsafe_limit_kw: float
    """Import limit while a grid operator who promised a heartbeat is silent [kW]; nan = the lowest that he set."""
    frequency_hz: float
    """Nominal frequency [Hz]."""
    interlocks: tuple[Interlock, ...]
    """Which switches may not be closed together."""
    parallel_supplies: bool
    """May two supplies be connected together?"""
    max_min: bool
    """Cars of one class share by weighted max-min instead of proportional fairness."""
    term_files: tuple[str, ...]
    """Python files with terms of the user's own."""

    @property
    def evse_count(self) -> int:
        """n."""
        return self.posts.count


def reserve_of(electrical: Electrical) -> Floats:
    """(n,) most an EVSE can draw without a live grant: max(F, boot, idle); its rating without watchdog [own unit]."""
    posts = electrical.posts
    own = np.maximum(np.maximum(posts.fallback, posts.boot_current), posts.fallback_idle)
    never = np.isnan(electrical.controllers.watchdog_s)[posts.controller] if posts.count else np.zeros(0, dtype=bool)
    return np.where(never, posts.max_ceiling, own)


def least_import_kw(electrical: Electrical) -> float:
    """Smallest import that powerd answers for: the contract, ``min_envelope_kw`` and ``failsafe_limit_kw`` [kW]."""
    promised = (electrical.site_import_limit_kw, electrical.min_envelope_kw, electrical.failsafe_limit_kw)
    return float(np.nanmin(promised))
