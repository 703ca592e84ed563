"""A faultless drawing as columns: capacities after derating, turns ratios, phasor angles, post columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from powerd.limits import Bools, Controllers, Floats, Ints, Posts
from powerd.network.drawing import Drawing
from powerd.network.electrical import (
    V_LOW_PU,
    Branches,
    BranchKind,
    Buses,
    Electrical,
    Impedances,
    Interlock,
    Loads,
    MeterPoints,
    Supplies,
)
from powerd.network.operation import By, Operation
from powerd.network.parts import BranchPart, feeder_part, switch_part, transfer_parts, transformer_part
from powerd.site.expand import DrawnEvse, pilot_steps
from powerd.site.schema import EvseType, Fairness, Operator, SiteFile, Switch, TransferSwitch
from powerd.units import SQRT3

NAN = math.nan
#: Angles (l1, l2, l3) of the bus currents of a unit ceiling at unity power factor [deg]; IEC rotation l1, l2, l3.
_ANGLES: dict[str, tuple[float, float, float]] = {
    "l1": (0.0, NAN, NAN),
    "l2": (NAN, -120.0, NAN),
    "l3": (NAN, NAN, 120.0),
    "l12": (30.0, -150.0, NAN),
    "l23": (NAN, -90.0, 90.0),
    "l31": (-30.0, NAN, 150.0),
    "l123": (0.0, -120.0, 120.0),
    "unknown_1p": (0.0, -120.0, 120.0),
}
_PHASE_BITS = {"l1": 1, "l2": 2, "l3": 4, "l123": 7}
_PHASE_COUNT = {"1": 1, "line_to_line": 2, "3": 3}
_BY = {Operator.NOBODY: By.NOBODY, Operator.HAND: By.HAND, Operator.POWERD: By.POWERD, Operator.ITSELF: By.ITSELF}
_ROTATION = {"l123": 0, "l231": 1, "l312": 2, "unknown": -1}


def compile_drawing(drawing: Drawing) -> Electrical:
    """Columns of a drawing whose references and ratings are known to be in order (``load`` sees to that)."""
    site = drawing.site
    bus = {b.id: index for index, b in enumerate(site.buses)}
    parts = list(_parts(drawing))
    branch = {part.id: index for index, part in enumerate(parts)}
    evses = [evse for evse in drawing.evses if evse.in_service]
    number = {kind.id: index for index, kind in enumerate(site.evse_types)}
    kind_of = _ints(number[evse.type] for evse in evses)
    kinds = [site.evse_types[index] for index in kind_of.tolist()]
    volts = np.array([b.voltage_v for b in site.buses], dtype=np.float64)
    evse_bus = _ints(bus[evse.bus] for evse in evses)
    return Electrical(
        site_id=site.site,
        buses=Buses(
            ids=tuple(b.id for b in site.buses),
            voltage_v=volts,
            in_service=_bools(b.in_service for b in site.buses),
            max_imbalance_a=_floats(_or(b.max_imbalance_kva, NAN) * 1000 * SQRT3 / b.voltage_v for b in site.buses),
        ),
        branches=_branches(parts, bus),
        operation=_operation(site, branch),
        impedances=_impedances(parts),
        overload=tuple(part.overload for part in parts),
        supplies=_supplies(site, bus),
        loads=_loads(site, bus, evses, kinds),
        meters=_meters(site, bus, branch),
        posts=_posts(site, evses, kind_of, volts[evse_bus]),
        controllers=_controllers(site),
        evse_bus=evse_bus,
        evse_phasor_deg=_angles(evses, kinds),
        evse_unknown=_bools(evse.connection == "unknown_1p" for evse in evses),
        evse_in_step=_bools(kind.current == "dc" for kind in kinds),
        evse_detects=_bools(kind.detects_phases for kind in kinds),
        evse_switches=_bools(
            kind.switches_phases and evse.rotation != "unknown" for evse, kind in zip(evses, kinds, strict=True)
        ),
        evse_rotation=_ints(_rotation(evse, kind) for evse, kind in zip(evses, kinds, strict=True)),
        evse_amps_per_unit=_amps_per_unit(site.evse_types, kind_of, volts[evse_bus]),
        evse_ramp=_floats(_ramp(kind) for kind in site.evse_types)[kind_of],
        site_import_limit_kw=_or(site.grid_connection.import_limit_kw, math.inf),
        site_import_source=site.grid_connection.source or "grid connection",
        min_envelope_kw=_or(site.grid_connection.min_envelope_kw, NAN),
        failsafe_limit_kw=_or(site.grid_connection.failsafe_limit_kw, NAN),
        frequency_hz=site.frequency_hz,
        interlocks=_interlocks(site, branch),
        parallel_supplies=site.permissions.parallel_supplies,
        max_min=site.fairness is Fairness.MAX_MIN,
        term_files=tuple(site.terms),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _floats(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def _bools(values: Iterable[bool]) -> Bools:
    return np.array(list(values), dtype=np.bool_)


def _parts(drawing: Drawing) -> Iterable[BranchPart]:
    """Every branch, in the order transformers, feeders, switches, transfer switches."""
    site = drawing.site
    volts = {b.id: b.voltage_v for b in site.buses}
    for transformer in site.transformers:
        yield transformer_part(transformer, volts)
    for feeder in site.feeders:
        cable = drawing.cable(feeder.cable) if feeder.cable is not None else None
        yield feeder_part(feeder, cable, site.continuous_factor)
    for switch in site.switches:
        yield switch_part(switch, site.continuous_factor)
    for transfer in site.transfer_switches:
        yield from transfer_parts(transfer, site.continuous_factor)


def _branches(parts: list[BranchPart], bus: dict[str, int]) -> Branches:
    def column(value: Callable[[BranchPart], float]) -> Floats:
        return _floats(value(part) for part in parts)

    return Branches(
        ids=tuple(part.id for part in parts),
        kind=_ints(part.kind for part in parts),
        from_bus=_ints(bus[part.from_bus] for part in parts),
        to_bus=_ints(bus[part.to_bus] for part in parts),
        capacity_from_a=column(lambda part: part.capacity_from_a),
        capacity_to_a=column(lambda part: part.capacity_to_a),
        neutral_a=column(lambda part: part.neutral_a),
        turns_ratio=column(lambda part: part.turns_ratio),
        high_delta=_bools(part.kind == BranchKind.TRANSFORMER and part.vector_group != "YNyn" for part in parts),
        clock=_ints(part.clock for part in parts),
        in_service=_bools(part.in_service for part in parts),
        switchable=_bools(part.kind == BranchKind.SWITCH for part in parts),
        normally_closed=_bools(part.closed for part in parts),
        source=tuple(part.source for part in parts),
    )


def _impedances(parts: list[BranchPart]) -> Impedances:
    def column(name: str) -> Floats:
        return _floats(getattr(part, name) for part in parts)

    return Impedances(
        length_km=column("length_km"),
        r_ohm=column("r_ohm"),
        x_ohm=column("x_ohm"),
        r0_ohm=column("r0_ohm"),
        x0_ohm=column("x0_ohm"),
        c_nf=column("c_nf"),
        rated_kva=column("rated_kva"),
        high_v=column("high_v"),
        low_v=column("low_v"),
        vk_percent=column("vk_percent"),
        vkr_percent=column("vkr_percent"),
        iron_loss_kw=column("iron_loss_kw"),
        no_load_current_percent=column("no_load_current_percent"),
        vector_group=tuple(part.vector_group for part in parts),
    )


def _operation(site: SiteFile, branch: dict[str, int]) -> Operation:
    """Who operates each branch; ``branch`` gives its index by id."""
    columns = Operation.none(len(branch))
    for switch in site.switches:
        _enter(columns, branch[switch.id], switch)
    for transfer in site.transfer_switches:
        pair = branch[f"{transfer.id}/preferred"], branch[f"{transfer.id}/alternate"]
        for own, other in (pair, pair[::-1]):
            _enter(columns, own, transfer)
            columns.partner[own] = other
            columns.closed_transition[own] = transfer.closed_transition
            columns.transfer_time_s[own] = transfer.transfer_time_s
            columns.retransfer_delay_s[own] = transfer.retransfer_delay_s
    return columns


def _enter(columns: Operation, at: int, switch: Switch | TransferSwitch) -> None:
    columns.by[at] = _BY[switch.operated_by]
    columns.reported[at] = switch.reported
    if switch.max_operations_per_hour is not None:
        columns.max_operations[at] = switch.max_operations_per_hour


def _supplies(site: SiteFile, bus: dict[str, int]) -> Supplies:
    rows = site.supplies
    return Supplies(
        ids=tuple(s.id for s in rows),
        bus=_ints(bus[s.bus] for s in rows),
        import_limit_kw=_floats(_or(s.import_limit_kw, math.inf) for s in rows),
        in_service=_bools(s.in_service and s.normally_feeding for s in rows),
        standby=_bools(s.in_service and not s.normally_feeding for s in rows),
        voltage_pu=_floats(s.voltage_percent / 100 for s in rows),
        short_circuit_mva=_floats(s.short_circuit_mva for s in rows),
        rx_ratio=_floats(s.rx_ratio for s in rows),
        source=tuple(s.source for s in rows),
    )


def _loads(site: SiteFile, bus: dict[str, int], evses: list[DrawnEvse], kinds: list[EvseType]) -> Loads:
    """Uncontrolled loads, and what DC posts take while idle, gathered by bus and type ("~idle/<bus>/<type>")."""
    rows = [load for load in site.loads if load.in_service]
    idle: dict[tuple[str, str], float] = {}
    for evse, kind in zip(evses, kinds, strict=True):
        if kind.auxiliary_kw > 0:
            idle[evse.bus, kind.id] = idle.get((evse.bus, kind.id), 0.0) + kind.auxiliary_kw
    factor = {kind.id: kind.power_factor for kind in kinds}
    return Loads(
        ids=(*(load.id for load in rows), *(f"~idle/{at}/{kind}" for at, kind in idle)),
        bus=_ints([*(bus[load.bus] for load in rows), *(bus[at] for at, _ in idle)]),
        typical_kw=_floats([*(load.typical_kw for load in rows), *idle.values()]),
        worst_kw=_floats([*(load.worst_kw for load in rows), *idle.values()]),
        power_factor=_floats([*(load.power_factor for load in rows), *(factor[kind] for _, kind in idle)]),
        phase_bits=_ints([*(_PHASE_BITS[load.phases] for load in rows), *(7 for _ in idle)]),
        critical=_bools([*(load.critical for load in rows), *(False for _ in idle)]),
        pickup_factor=_floats([*(load.pickup_factor for load in rows), *(1.0 for _ in idle)]),
    )


def _meters(site: SiteFile, bus: dict[str, int], branch: dict[str, int]) -> MeterPoints:
    """Meters of elements; one at a transfer switch measures what flows into the switch's load bus."""
    rows = [meter for meter in site.meters if meter.in_service]
    load_bus = {switch.id: bus[switch.load_bus] for switch in site.transfer_switches}
    supply = {s.id: index for index, s in enumerate(site.supplies)}
    return MeterPoints(
        ids=tuple(meter.id for meter in rows),
        branch=_ints(branch.get(meter.at, -1) for meter in rows),
        low_side=_bools(meter.side == "low" for meter in rows),
        bus=_ints(bus.get(meter.at, load_bus.get(meter.at, -1)) for meter in rows),
        supply=_ints(supply.get(meter.at, -1) for meter in rows),
        stale_after_s=_floats(meter.stale_after_s for meter in rows),
        margin=_floats(meter.margin_percent / 100 for meter in rows),
        worst_a=_floats(_or(meter.worst_a, NAN) for meter in rows),
    )


def _posts(site: SiteFile, evses: list[DrawnEvse], kind_of: Ints, volts: Floats) -> Posts:
    """Post columns; ``kind_of`` (n,) index of each EVSE's type, ``volts`` (n,) nominal voltage of its bus."""
    kinds = site.evse_types
    controller = {c.id: index for index, c in enumerate(site.controllers)}
    steps = [np.array(pilot_steps(kind), dtype=np.float64) for kind in kinds]
    dc = _bools(kind.current == "dc" for kind in kinds)[kind_of]
    per_unit = _floats(_kv_factor(kind) for kind in kinds)[kind_of] * volts / 1000

    def column(ac: str, dc_name: str) -> Floats:
        return _floats(_or(getattr(k, dc_name if k.current == "dc" else ac), 0.0) for k in kinds)[kind_of]

    return Posts(
        ids=tuple(evse.id for evse in evses),
        is_dc=dc,
        min_ceiling=column("min_current_a", "min_power_kw"),
        max_ceiling=column("max_current_a", "max_power_kw"),
        pilot_steps=tuple(steps[index] for index in kind_of.tolist()),
        fallback=column("fallback_a", "fallback_kw"),
        fallback_idle=column("fallback_idle_a", "fallback_idle_kw"),
        boot_current=column("boot_current_a", "boot_power_kw"),
        phase_count=_ints(3 if kind.current == "dc" else _PHASE_COUNT[kind.phases] for kind in kinds)[kind_of],
        kw_per_unit=np.where(dc, 1.0, per_unit),
        controller=_ints(controller[evse.controller] for evse in evses),
    )


def _kv_factor(kind: EvseType) -> float:
    """kW per ampere and kilovolt line-to-line at unity power factor."""
    return {"1": 1 / SQRT3, "line_to_line": 1.0, "3": SQRT3}[kind.phases]


def _amps_per_unit(kinds: list[EvseType], kind_of: Ints, volts: Floats) -> Floats:
    """(n,) A per own unit at the bus; DC: I = P / (sqrt(3) V_low eta pf), all three at their worst."""
    worst = _floats(kind.efficiency * kind.power_factor for kind in kinds)[kind_of]
    dc = _bools(kind.current == "dc" for kind in kinds)[kind_of]
    return np.where(dc, 1000.0 / (SQRT3 * V_LOW_PU * volts * worst), 1.0)


def _ramp(kind: EvseType) -> float:
    """Own units a second."""
    return _or(kind.ramp_kw_per_s if kind.current == "dc" else kind.ramp_a_per_s, math.inf)


def _angles(evses: list[DrawnEvse], kinds: list[EvseType]) -> Floats:
    """(n, 3) angle of each bus phase current [deg]."""
    rows = [_ANGLES[_connection(evse, kind)] for evse, kind in zip(evses, kinds, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _connection(evse: DrawnEvse, kind: EvseType) -> str:
    """Phases of the bus; a DC post's rectifier and a three-phase post load all three."""
    return "l123" if kind.current == "dc" or evse.connection is None else evse.connection.value


def _rotation(evse: DrawnEvse, kind: EvseType) -> int:
    """Bus phase that the post's own L1 hangs on; for one phase and line-to-line the first phase named."""
    connection = _connection(evse, kind)
    if connection == "l123":
        return _ROTATION[evse.rotation]
    return -1 if connection == "unknown_1p" else int(connection[1]) - 1


def _controllers(site: SiteFile) -> Controllers:
    classes = {c.id: c for c in site.controller_classes}
    rows = [classes[c.class_] for c in site.controllers]
    return Controllers(
        ids=tuple(c.id for c in site.controllers),
        ttl_s=_floats(c.ttl_s for c in rows),
        reaction_s=_floats(c.reaction_s for c in rows),
        watchdog_s=_floats(_or(c.watchdog_s, NAN) for c in rows),
        drift=_floats(c.drift for c in rows),
    )


def _interlocks(site: SiteFile, branch: dict[str, int]) -> tuple[Interlock, ...]:
    """The file's interlocks; a break-before-make transfer switch is one over its own two halves."""
    stated = [
        Interlock(branches=tuple(branch[s] for s in dict.fromkeys(lock.switches)), at_most_closed=lock.at_most_closed)
        for lock in site.interlocks
    ]
    halves = [
        Interlock(branches=(branch[f"{t.id}/preferred"], branch[f"{t.id}/alternate"]), at_most_closed=1)
        for t in site.transfer_switches
        if not t.closed_transition
    ]
    return (*stated, *halves)
