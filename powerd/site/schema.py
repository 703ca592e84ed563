"""The shape of a site file (``models/<site>/site.yaml``): what is BUILT, as an electrical engineer reads it aloud.

Shape only: types, units, ranges of single values. What needs two elements at once (unknown bus, island, parallel
supplies) or a cable catalogue is ``network/load.py``'s. The published JSON-Schema is generated from these classes.
Every element may say where its rating came from (``source``); that sentence reaches the driver's explanation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from powerd.units import TTL_MAX_S

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$", max_length=64)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=0.1, le=1)]
Ohms = Annotated[float, Field(ge=0, le=1000)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
GroupPattern = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*\{n(:0?[1-9])?\}[A-Za-z0-9_.:/-]*$", max_length=48)
]
Rotation = Literal["l123", "l231", "l312", "unknown"]


def _count_as_word(value: Any) -> Any:
    """``phases: 3`` is what an engineer writes; YAML makes a number of it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Part(BaseModel):
    """Base of everything in a site file: frozen, and an unknown key is a fault, not a silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True)


class Named(Part):
    """Something with an id."""

    id: Id
    """Unique over the whole site."""
    title: str = ""
    """What people call it."""


class Element(Named):
    """Something on the drawing."""

    in_service: bool = True
    """Commissioned; False = drawn, but not there yet or taken away."""


class Bus(Element):
    """A busbar: all points at one potential."""

    voltage_v: Positive
    """Nominal line-to-line voltage [V]."""
    max_imbalance_kva: Positive | None = None
    """Most by which what two phases take here may differ, for each pair, at nominal voltage [kVA] (VDE-AR-N 4100:
    4.6); None = no limit."""
    net_bus: Annotated[int, Field(ge=0)] | str | None = None
    """Index or name of the bus of the imported network that this is (only with ``network:``)."""


class Supply(Element):
    """A source able to energise a bus: a utility service, a generator."""

    bus: Id
    """Bus it feeds."""
    import_limit_kw: NotNegative | None = None
    """Most that may be taken from it [kW]; None = only the elements below limit it."""
    short_circuit_mva: Annotated[float, Field(ge=0.1, le=100_000)] = 500.0
    """Maximum short-circuit power at the connection [MVA]."""
    rx_ratio: Annotated[float, Field(ge=0, le=10)] = 0.1
    """R/X of the source impedance."""
    voltage_percent: Annotated[float, Field(ge=80, le=120)] = 100.0
    """Voltage it holds at its bus, of the bus's nominal voltage [%]."""
    normally_feeding: bool = True
    """False = a standby source (generator), not connected in the normal switching state."""
    source: str = ""
    """Where the limit came from."""


class GridConnection(Part):
    """The site's edge to the public network: limits on the sum of all utility supplies."""

    import_limit_kw: Positive | None = None
    """Contracted import [kW]."""
    min_envelope_kw: NotNegative | None = None
    """Lowest dynamic envelope the site guarantees to obey (docs/leases.md R5) [kW]; default: the lower one of its other
    two limits."""
    failsafe_limit_kw: NotNegative | None = None
    """Import limit while a grid operator who promised a heartbeat is silent [kW]; default: the lowest that he set."""
    source: str = ""
    """Where the limit came from."""


class Insulation(StrEnum):
    """What cools the transformer: decides which thermal standard bounds its overload."""

    OIL = "oil"
    """IEC 60076-7."""
    DRY = "dry"
    """IEC 60076-12."""


class Transformer(Element):
    """A two-winding transformer."""

    high_bus: Id
    """Bus on the high-voltage side."""
    low_bus: Id
    """Bus on the low-voltage side."""
    rated_power_kva: Positive
    """Nameplate power [kVA]."""
    vector_group: Annotated[str, Field(pattern=r"^(YN|Y|D|Z|ZN)(yn|y|d|zn|z)(\d{1,2})$")] = "Dyn5"
    """Vector group with clock number, e.g. Dyn11."""
    vk_percent: Annotated[float, Field(ge=0.1, le=30)] = 6.0
    """Short-circuit voltage [%]."""
    vkr_percent: Annotated[float, Field(ge=0, le=20)] = 1.0
    """Its resistive part [%]."""
    iron_loss_kw: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """No-load loss [kW]."""
    no_load_current_percent: Annotated[float, Field(ge=0, le=50)] = 0.0
    """No-load current [%]."""
    insulation: Insulation = Insulation.OIL
    """Oil or dry."""
    high_v: Positive | None = None
    """Rated voltage of the high winding, line-to-line [V]; default: the bus's."""
    low_v: Positive | None = None
    """Rated voltage of the low winding, line-to-line [V]; default: the bus's."""
    rated_current_high_a: Positive | None = None
    """Stated line current limit on the high side [A]; default: rated_power / (sqrt(3) * high_v)."""
    rated_current_low_a: Positive | None = None
    """Stated line current limit on the low side [A]; default: rated_power / (sqrt(3) * low_v)."""
    parallel: Annotated[int, Field(ge=1, le=20)] = 1
    """Equal units side by side under this id; the ratings above and the losses are those of one."""
    loading_factor: Annotated[float, Field(ge=0.1, le=1.5)] = 1.0
    """Share of the nameplate that may flow continuously (temperature, harmonics)."""
    losses_inside_rating: bool = True
    """True: the rating is what flows into the high side, own losses included; False: what the low side gives."""
    tap_position: Annotated[int, Field(ge=-30, le=30)] = 0
    """Present tap; 0 = rated voltages, each step up raises the high winding's voltage."""
    tap_step_percent: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Voltage change a step on the high side [%]."""
    source: str = ""
    """Where the rating came from, e.g. "150 kVA nameplate"."""


class Release(StrEnum):
    """What makes an overcurrent device open."""

    B = "b"
    """Miniature breaker, IEC 60898-1 type B."""
    C = "c"
    """Type C."""
    D = "d"
    """Type D."""
    TRIP_UNIT = "trip_unit"
    """Electronic trip unit, IEC 60947-2."""
    GG = "gg"
    """Fuse link, IEC 60269 class gG."""
    UNKNOWN = "unknown"
    """Nobody knows: the fastest of all of these counts."""
    NONE = "none"
    """Nothing opens it on overload."""


class Protection(Part):
    """How an overcurrent device trips, so how long an overload may last; what is not said counts as the fastest."""

    release: Release = Release.UNKNOWN
    """What makes it open."""
    rated_a: Positive | None = None
    """In [A]; default: rated_current_a of the switch, breaker_a of the feeder."""
    ir_a: Positive | None = None
    """Trip unit: long-time setting Ir [A]; default In."""
    tr_s: Annotated[float, Field(ge=0.1, le=1000)] | None = None
    """Trip unit: long-time delay tr [s]; its curve is I2t."""
    tr_multiple: Annotated[float, Field(ge=1.2, le=10)] = 6.0
    """Trip unit: multiple of Ir at which tr is stated; 6 is usual, some makers state 3 or 1.5."""
    isd_a: Positive | None = None
    """Trip unit: short-time setting Isd [A]; absent = off."""
    tsd_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Trip unit: short-time delay [s]."""
    ii_a: Positive | None = None
    """Trip unit: instantaneous setting Ii [A]; absent = off."""


class Feeder(Element):
    """A cable or line from one bus to the next, away from the source."""

    from_bus: Id
    """Bus towards the supply."""
    to_bus: Id
    """Bus away from the supply."""
    length_m: Annotated[float, Field(ge=0.001, allow_inf_nan=False)]
    """Length [m]."""
    cable: str | None = None
    """pandapower standard line type, e.g. "NAYY 4x150 SE"; instead of r, x and ampacity."""
    r_ohm_per_km: Ohms | None = None
    """Resistance [ohm/km] where no ``cable`` is named."""
    x_ohm_per_km: Ohms | None = None
    """Reactance [ohm/km] where no ``cable`` is named."""
    r0_ohm_per_km: Ohms | None = None
    """Zero-sequence resistance [ohm/km]; default 4 r, a four-core cable's (IEC TR 60909-2: R0/R = 4)."""
    x0_ohm_per_km: Ohms | None = None
    """Zero-sequence reactance [ohm/km]; default 4 x."""
    c_nf_per_km: Annotated[float, Field(ge=0, le=10_000)] | None = None
    """Capacitance a phase [nF/km]; default the cable type's, else 0."""
    ampacity_a: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Current-carrying capacity of one conductor set [A]; overrides the cable type's."""
    neutral_ampacity_a: Positive | None = None
    """The same for its neutral conductor, where that is thinner than a phase [A]; None = it is as thick."""
    parallel: Annotated[int, Field(ge=1, le=20)] = 1
    """Parallel cables."""
    breaker_a: Positive | None = None
    """Rated current of the overcurrent device at its head [A]; the smaller of both counts."""
    continuous_factor: Factor | None = None
    """Share of the overcurrent device that may flow for hours; default: the site's (NEC 625.42: 0.8)."""
    temperature_factor: Annotated[float, Field(ge=0.1, le=1.5)] = 1.0
    """Factor on the ampacity for ambient temperature and grouping (IEC 60364-5-52)."""
    protection: Protection | None = None
    """How the overcurrent device at its head trips; absent = as fast as any."""
    time_constant_s: Annotated[float, Field(ge=10, le=100_000)] = 120.0
    """Thermal time constant of the conductor [s]; the default is the thinnest cable's in air, IEC 60853 has others."""
    source: str = ""
    """Where the rating came from."""


class SwitchKind(StrEnum):
    """What the switch is."""

    BREAKER = "breaker"
    """Circuit breaker."""
    BUS_TIE = "bus_tie"
    """Joins two buses."""
    FUSE = "fuse"
    """Fuse link or fused isolator."""
    DISCONNECTOR = "disconnector"
    """Isolator or load-break switch."""


class Operator(StrEnum):
    """Who may operate a switch."""

    NOBODY = "nobody"
    """Locked; only its position is observed."""
    HAND = "hand"
    """A person on site."""
    POWERD = "powerd"
    """powerd, through the switchgear controller, and persons."""
    ITSELF = "itself"
    """Moves on its own (protection, automatic transfer)."""


class Switch(Element):
    """A bus-to-bus switch: breaker, tie, fuse, disconnector."""

    kind: SwitchKind
    """What it is."""
    from_bus: Id
    """One side."""
    to_bus: Id
    """Other side."""
    closed: bool = True
    """Normal position."""
    rated_current_a: Positive | None = None
    """Rating [A]; None = not limiting."""
    continuous_factor: Factor | None = None
    """Share of the rating that may flow for hours; default: the site's."""
    operated_by: Operator = Operator.HAND
    """Who may operate it."""
    protection: Protection | None = None
    """How it trips; absent = as fast as any breaker (a fuse: gG, a disconnector: nothing opens it on overload)."""
    reported: bool = False
    """A switchgear controller reports its position: until it has, limits hold for both positions."""
    max_operations_per_hour: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most operations an hour that powerd may order; absent = no maximum."""
    source: str = ""
    """Where the rating came from."""


class TransferKind(StrEnum):
    """Who moves a transfer switch (IEC 60947-6-1)."""

    MANUAL = "manual"
    """MTSE: a person."""
    REMOTE = "remote"
    """RTSE: an order."""
    AUTOMATIC = "automatic"
    """ATSE: itself."""


class TransferSwitch(Element):
    """Moves a load bus between two supplies."""

    kind: TransferKind
    """Who moves it."""
    preferred_bus: Id
    """Bus it is normally closed to."""
    alternate_bus: Id
    """Bus it moves to when the preferred one is dead."""
    load_bus: Id
    """Bus it feeds."""
    position: Literal["preferred", "alternate", "open"] = "preferred"
    """Normal position."""
    closed_transition: bool = False
    """True = may parallel both supplies for a moment (only with the switchgear's sync-check permissive)."""
    transfer_time_s: Seconds = 0.5
    """Longest time from loss to transfer [s]."""
    retransfer_delay_s: Seconds = 300.0
    """Wait before it returns to the preferred side [s]."""
    rated_current_a: Positive | None = None
    """Rating [A]."""
    continuous_factor: Factor | None = None
    """Share of the rating that may flow for hours; default: the site's."""
    operated_by: Operator = Operator.ITSELF
    """Who may operate it."""
    reported: bool = False
    """A switchgear controller reports its position: until it has, limits hold for both positions."""
    max_operations_per_hour: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most operations an hour that powerd may order; absent = no maximum."""
    source: str = ""
    """Where the rating came from."""


class Interlock(Part):
    """At most ``at_most_closed`` of the switches may be closed together."""

    switches: list[Id]
    """Switch ids."""
    at_most_closed: Annotated[int, Field(ge=1)]
    """How many may be closed at once."""


class Meter(Element):
    """Measures what flows through an element or into a bus, charging and all else together."""

    at: Id
    """Element it measures: transformer, feeder, switch, transfer switch, bus or supply."""
    side: Literal["high", "low"] = "low"
    """Of a transformer: which side it measures."""
    stale_after_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Age from which its last value no longer counts [s]."""
    margin_percent: Annotated[float, Field(ge=0, le=100)] = 10.0
    """Added to the last value while it is late [%]."""
    worst_a: NotNegative | None = None
    """Most that everything but the EVSEs behind it can draw, per phase [A]: counts while the meter is silent. Default:
    the loads drawn behind it at their worst, and the whole limit where none is drawn."""


class Load(Element):
    """A load that powerd does not control."""

    bus: Id
    """Where it hangs."""
    typical_kw: NotNegative
    """Typical three-phase power [kW]."""
    worst_kw: NotNegative
    """Most it can be [kW]; counts wherever no trusted meter says better."""
    power_factor: Factor = 0.95
    """Power factor."""
    phases: Literal["l1", "l2", "l3", "l123"] = "l123"
    """Phases it hangs on."""
    critical: bool = False
    """Must be fed first after an outage."""
    meter: Id | None = None
    """Meter that sees it, if any; a meter that stands above it sees it anyway."""
    pickup_factor: Annotated[float, Field(ge=1, le=10)] = 1.5
    """Cold-load pick-up after an outage (docs/leases.md R8)."""


class ControllerClass(Part):
    """What a kind of charger controller promises."""

    id: Id
    """Name of the class."""
    ttl_s: Annotated[float, Field(ge=1, le=TTL_MAX_S)] = 15.0
    """Lease length [s]."""
    reaction_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """From an applied lower ceiling until the car has followed [s] (IEC 61851-1: 5)."""
    watchdog_s: Seconds | None = None
    """Seconds the EVSE needs to fall back by itself; 0 = enforces the validity itself; absent = no watchdog."""
    drift: Annotated[float, Field(ge=0, le=0.05)] = 1e-3
    """Largest relative clock drift."""


class Controller(Named):
    """A charger controller that asks powerd for ceilings."""

    class_: Id = Field(alias="class")
    """Id of its class."""


class Connection(StrEnum):
    """How an EVSE hangs on its bus, in the *bus's* phase names."""

    L1 = "l1"
    """Phase l1 to neutral."""
    L2 = "l2"
    """Phase l2 to neutral."""
    L3 = "l3"
    """Phase l3 to neutral."""
    L12 = "l12"
    """Between l1 and l2."""
    L23 = "l23"
    """Between l2 and l3."""
    L31 = "l31"
    """Between l3 and l1."""
    L123 = "l123"
    """Three phases."""
    UNKNOWN_1P = "unknown_1p"
    """One phase to neutral, nobody knows which: counts fully on each."""


class EvseType(Part):
    """What a kind of EVSE can do; the shared part of many posts."""

    id: Id
    """Name of the type."""
    current: Literal["ac", "dc"] = "ac"
    """AC (ceiling in A) or DC (ceiling in kW)."""
    phases: Annotated[
        Literal["1", "line_to_line", "3"],
        BeforeValidator(_count_as_word),
        WithJsonSchema({"enum": ["1", "line_to_line", "3", 1, 3]}),
    ] = "3"
    """Conductors of the connector: one phase and neutral, two phases, three phases."""
    min_current_a: NotNegative = 6.0
    """AC: smallest current above 0 [A] (IEC 61851-1: 6)."""
    max_current_a: Positive | None = None
    """AC: rating per phase [A]."""
    max_power_kw: Positive | None = None
    """DC: rating [kW] at the vehicle."""
    min_power_kw: NotNegative = 0.0
    """DC: smallest power above 0 [kW]."""
    efficiency: Annotated[float, Field(gt=0.5, le=1)] = 0.94
    """DC: worst efficiency of the converter."""
    power_factor: Annotated[float, Field(gt=0.5, le=1)] = 0.98
    """DC: worst power factor at the grid side."""
    auxiliary_kw: Annotated[float, Field(ge=0, le=100)] = 0.0
    """DC: what it takes while idle [kW]."""
    pilot_steps_a: list[NotNegative] | None = None
    """Ceilings it can take [A]; absent = continuous."""
    pilot_step_a: Annotated[float, Field(ge=0.01, le=1000)] | None = None
    """Or: multiples of this from the minimum up [A]."""
    ramp_a_per_s: Positive | None = None
    """AC: most that a ceiling may rise [A/s]; absent = at will. Decreases are never delayed."""
    ramp_kw_per_s: Positive | None = None
    """DC: most that a ceiling may rise [kW/s]; absent = at will."""
    detects_phases: bool = False
    """Three-phase AC: a phase that its car has not used for 60 s counts as unused, until it carries a current again.
    Proved only up to that moment (docs/chargers.md); False = every car counts on all three phases."""
    switches_phases: bool = False
    """Three-phase AC: it can be told to connect its L1 alone, and is where its car would have to wait for three phases
    (docs/chargers.md). Its fallback, idle fallback and boot current must be 0: contactors move without current only."""
    fallback_a: NotNegative = 0.0
    """AC: ceiling on silence with a car [A]."""
    fallback_idle_a: NotNegative = 0.0
    """AC: ceiling on silence without a car [A]."""
    boot_current_a: NotNegative = 0.0
    """AC: what it offers after its own restart [A]."""
    fallback_kw: NotNegative = 0.0
    """DC: ceiling on silence with a car [kW]."""
    fallback_idle_kw: NotNegative = 0.0
    """DC: ceiling on silence without a car [kW]."""
    boot_power_kw: NotNegative = 0.0
    """DC: what it offers after its own restart [kW]."""
    connectors: list[str] = ["type2"]
    """Connectors, numbered from 1."""


class Evse(Part):
    """One EVSE of a station that is listed in full."""

    id: Id
    """Unique over the site."""
    type: Id
    """EVSE type."""
    connection: Connection | None = None
    """Phases of the bus it hangs on; default l123 for three-phase and DC posts, required for others."""
    rotation: Rotation = "l123"
    """Which bus phases its own L1, L2, L3 hang on (three-phase posts with one-phase cars)."""


class Station(Element):
    """A charging station: a box with EVSEs, listed in full."""

    bus: Id
    """Where it hangs."""
    controller: Id
    """Who owns it."""
    evses: list[Evse]
    """Its EVSEs."""


class StationGroup(Part):
    """The compact form: "120 of these under that panel"."""

    count: Annotated[int, Field(ge=1, le=100_000)]
    """How many stations."""
    id: GroupPattern
    """Pattern with {n}, e.g. "P{n:03}" for P001, P002 …; n starts at ``first``."""
    first: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """First n."""
    bus: Id
    """Where they hang."""
    controller: Id
    """Who owns them."""
    type: Id
    """EVSE type."""
    evses_per_station: Annotated[int, Field(ge=1, le=16)] = 1
    """EVSEs a station; their ids are "<station>-1", "<station>-2" … where more than one, else the station's id."""
    connections: list[Connection] = []
    """Dealt out in turn, e.g. [l1, l2, l3]; default l123 for three-phase and DC."""
    rotations: list[Rotation] = []
    """Dealt out in turn; default l123."""


class Permissions(Part):
    """What the site allows."""

    parallel_supplies: bool = False
    """May two supplies be connected together?"""


class Fairness(StrEnum):
    """How cars of one class share what does not suffice."""

    PROPORTIONAL = "proportional"
    """Weighted proportional fairness: nobody can gain a percent without others losing more in sum."""
    MAX_MIN = "max_min"
    """Weighted max-min: the least share is as large as it can be, then the next."""


class SiteFile(Part):
    """A whole site file."""

    site: Id
    """Id of the site."""
    title: str = ""
    """What people call it."""
    timezone: str = "UTC"
    """IANA name; simulations read and draw local times in it."""
    frequency_hz: Annotated[float, Field(ge=45, le=65)] = 50.0
    """Nominal frequency [Hz]."""
    continuous_factor: Factor = 1.0
    """Share of an overcurrent device that charging may use for hours (NEC 625.42: 0.8; IEC: 1.0)."""
    fairness: Fairness = Fairness.PROPORTIONAL
    """How what does not suffice is shared by the cars of a priority class (docs/allocation.md)."""
    terms: list[str] = []
    """Python files with terms of your own, relative to this file (docs/allocation.md); powerd runs them."""
    network: str | None = None
    """pandapower JSON file with the wires, relative to this file; elements below are added to it."""
    grid_connection: GridConnection = GridConnection()
    """The edge to the public network."""
    permissions: Permissions = Permissions()
    """What is refused otherwise, and allowed here."""
    supplies: list[Supply] = []
    """Utility services and generators."""
    buses: list[Bus] = []
    """Busbars."""
    transformers: list[Transformer] = []
    """Two-winding transformers."""
    feeders: list[Feeder] = []
    """Cables and lines."""
    switches: list[Switch] = []
    """Breakers, bus ties, fuses, disconnectors."""
    transfer_switches: list[TransferSwitch] = []
    """Switches that move a load bus between two supplies."""
    interlocks: list[Interlock] = []
    """Which switches may not be closed together."""
    meters: list[Meter] = []
    """Meters that powerd may hear from."""
    loads: list[Load] = []
    """Loads that powerd does not control."""
    controller_classes: list[ControllerClass]
    """What the kinds of charger controllers promise."""
    controllers: list[Controller]
    """Charger controllers."""
    evse_types: list[EvseType]
    """Kinds of EVSEs."""
    stations: list[Station] = []
    """Charging stations, listed in full."""
    station_groups: list[StationGroup] = []
    """Charging stations, many alike."""
