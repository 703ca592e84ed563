"""Wires from a pandapower net, turned into the same elements that a person would write.

Ids are the table's name and index ("line:3", "bus:12"); names become titles, for they need not be unique. A bus that
the site file maps with ``net_bus`` goes by the file's id. A switch at the end of a line or transformer gets a bus of
its own between the two, named "~switch:5".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from powerd.faults import Severity
from powerd.network.drawing import Findings
from powerd.network.netfile import NetFile, Row, number, scaled
from powerd.network.parts import vector_letters
from powerd.network.ratings import AMPERES
from powerd.site.codes import Code
from powerd.site.schema import Bus, Element, Feeder, Load, SiteFile, Supply, Switch, SwitchKind, Transformer
from powerd.site.tree import Path
from powerd.units import SQRT3

E = TypeVar("E", bound=Element)

#: Tables whose rows would change what a wire carries, and for which there is no rule here.
_UNSUPPORTED = (
    "impedance", "dcline", "shunt", "ward", "xward", "motor", "storage", "svc", "ssc", "tcsc", "vsc", "vsc_stacked",
    "vsc_bipolar", "b2b_vsc", "bi_vsc", "bus_dc", "line_dc", "load_dc", "source_dc",
)  # fmt: skip
_GENERATION = ("sgen", "asymmetric_sgen", "gen")
#: Switch type to the table of the element and the columns of its ends.
_ENDS = {"l": ("line", "from_bus", "to_bus"), "t": ("trafo", "hv_bus", "lv_bus")}
_PHASES = (("a", "l1"), ("b", "l2"), ("c", "l3"))
#: Below this power factor a load is taken as its apparent power at 1.0: the current is the same, and all that matters.
_LOW_FACTOR = 0.1
#: A place in the imported net: anything beyond the user's own.
_IN_NET: Path = ("network", 0)


@dataclass(kw_only=True)
class Wires:
    """Elements of an imported net."""

    buses: list[Bus] = field(default_factory=list)
    supplies: list[Supply] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    feeders: list[Feeder] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    auxiliary: dict[str, str] = field(default_factory=dict)
    """Buses between an element and its switch, each with the bus on the switch's other side."""


def import_wires(net: NetFile, site: SiteFile, findings: Findings) -> Wires:
    """Elements of ``net``, with its buses called as ``site`` maps them; every oddity becomes a fault."""
    names = _map_buses(net, site, findings)
    maker = _Maker(net=net, names=names, findings=findings)
    wires = Wires()
    for index, row in net.table("bus").items():
        if names[index] == f"bus:{index}":
            maker.make(wires.buses, Bus, names[index], row, {}, voltage_v=scaled(row, "vn_kv", 1000))
    _switches(maker, wires)
    _auxiliary_buses(wires, site)
    for index, row in net.table("ext_grid").items():
        _supply(maker, wires, index, row)
    for index, row in net.table("line").items():
        _line(maker, wires, index, row)
    for index, row in net.table("trafo").items():
        _trafo(maker, wires, index, row)
    for index, row in net.table("load").items():
        maker.load(wires.loads, f"load:{index}", row, row.get("p_mw"), row.get("q_mvar"), "l123")
    for index, row in net.table("asymmetric_load").items():
        _asymmetric(maker, wires, index, row)
    _leftovers(net, maker)
    return wires


def _map_buses(net: NetFile, site: SiteFile, findings: Findings) -> dict[int, str]:
    """Net bus index to the id it goes by."""
    table = net.table("bus")
    by_name: dict[str, list[int]] = {}
    for index, row in table.items():
        by_name.setdefault(str(row.get("name")), []).append(index)
    names: dict[int, str] = {}
    for position, bus in enumerate(site.buses):
        if bus.net_bus is None:
            continue
        path = ("buses", position, "net_bus")
        found = by_name.get(bus.net_bus, []) if isinstance(bus.net_bus, str) else [bus.net_bus]
        if len(found) != 1 or found[0] not in table:
            count = "several buses" if len(found) > 1 else "no bus"
            mend = "name a bus of the net by its index, or by a name that only one has"
            findings.add(Code.UNKNOWN_NET_BUS, path, bus.id, f"the net has {count} {bus.net_bus}", mend)
        elif found[0] in names:
            message = f"bus {names[found[0]]} is mapped to net bus {bus.net_bus} already"
            findings.add(Code.NET_BUS_TWICE, path, bus.id, message, "use that bus instead, or map another")
        else:
            names[found[0]] = bus.id
            _same_voltage(bus, number(table[found[0]], "vn_kv"), ("buses", position), findings)
    return {index: names.get(index, f"bus:{index}") for index in table}


def _same_voltage(bus: Bus, vn_kv: float | None, path: tuple[str, int], findings: Findings) -> None:
    if vn_kv is not None and abs(vn_kv * 1000 - bus.voltage_v) > 0.02 * bus.voltage_v:
        message = f"voltage_v is {bus.voltage_v:g} V, the net's bus has {vn_kv * 1000:g} V"
        mend = f"write voltage_v: {vn_kv * 1000:g}"
        findings.add(Code.VOLTAGE_MISMATCH, (*path, "voltage_v"), bus.id, message, mend)


@dataclass(kw_only=True)
class _Maker:
    """Makes elements of rows; a row that cannot be one becomes a fault."""

    net: NetFile
    names: dict[int, str]
    findings: Findings
    moved: dict[tuple[str, Any, Any], str] = field(default_factory=dict)
    """(table, index, bus) of an element's end to the auxiliary bus that it was moved to."""

    def end(self, table: str, index: int, value: Any) -> str:
        """Bus at one end of a line or transformer, behind its switch if it has one."""
        return self.moved.get((table, index, value), self.bus(value)) if isinstance(value, int) else self.bus(value)

    def bus(self, value: Any) -> str:
        """Id of the bus with index ``value``."""
        return self.names.get(value, f"bus:{value}") if isinstance(value, int) else f"bus:{value}"

    def make(
        self, into: list[E], of: type[E], name: str, row: Row, buses: dict[str, str], **fields: Any
    ) -> None:
        """Append an element ``of`` a kind at ``buses``, with ``fields``; what is None falls to its default."""
        stated = {key: value for key, value in fields.items() if value is not None}
        title = row.get("name")
        whole = {
            "id": name,
            "title": title if isinstance(title, str) else "",
            "in_service": row.get("in_service", True),
            **dict.fromkeys(buses, "bus"),
            **stated,
        }
        try:
            element = of.model_validate(whole)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                key = ".".join(str(step) for step in one["loc"])
                self.bad(name, f"{key}: {one['msg'].lower()}, found {_short(one['input'])}")
            return
        # Bus ids are set afterwards: an auxiliary bus has an id that no person may write.
        into.append(element.model_copy(update=buses))

    def bad(self, name: str, message: str) -> None:
        """A row that cannot be used."""
        mend = f"mend {name} in the net and save it again"
        self.findings.add(Code.NET_BAD_VALUE, _IN_NET, name, message, mend)

    def load(self, into: list[Load], name: str, row: Row, p_mw: Any, q_mvar: Any, phases: str) -> None:
        """One uncontrolled load; what the net says is also the worst it can be."""
        scaling = number(row, "scaling")
        factor = 1000.0 * (1.0 if scaling is None else scaling)
        p, q = (number({"x": value}, "x") for value in (p_mw, q_mvar))
        if p is None or q is None:
            self.bad(name, f"p_mw and q_mvar are {p_mw} and {q_mvar}, not numbers")
            return
        kw, kva = p * factor, math.hypot(p, q) * factor
        if kw < 0:
            mend = "model it as sgen, or mend its sign"
            message = f"feeds {-kw:g} kW back, which powerd does not count on"
            self.findings.add(Code.NET_IGNORED, _IN_NET, name, message, mend, Severity.WARNING)
        elif kva > 0:
            power = kw / kva
            shown = (kw, power) if power >= _LOW_FACTOR else (kva, 1.0)
            self.make(
                into,
                Load,
                name,
                row,
                {"bus": self.bus(row.get("bus"))},
                typical_kw=shown[0],
                worst_kw=shown[0],
                power_factor=shown[1],
                phases=phases,
            )


def _short(value: Any) -> str:
    return "nothing" if value is None or isinstance(value, dict) else str(value)[:40]


def _supply(maker: _Maker, wires: Wires, index: int, row: Row) -> None:
    maker.make(
        wires.supplies,
        Supply,
        f"ext_grid:{index}",
        row,
        {"bus": maker.bus(row.get("bus"))},
        voltage_percent=scaled(row, "vm_pu", 100),
        short_circuit_mva=number(row, "s_sc_max_mva"),
        rx_ratio=number(row, "rx_max"),
    )


def _line(maker: _Maker, wires: Wires, index: int, row: Row) -> None:
    """A line; a rating above 20 kA is how nets say "none"."""
    ampacity = scaled(row, "max_i_ka", 1000)
    rated = ampacity is not None and ampacity <= AMPERES[1]
    if (number(row, "r_ohm_per_km") or 0.0) + (number(row, "x_ohm_per_km") or 0.0) == 0:
        maker.bad(f"line:{index}", "r_ohm_per_km and x_ohm_per_km are both 0")
        return
    maker.make(
        wires.feeders,
        Feeder,
        f"line:{index}",
        row,
        {end: maker.end("line", index, row.get(end)) for end in ("from_bus", "to_bus")},
        length_m=scaled(row, "length_km", 1000),
        r_ohm_per_km=number(row, "r_ohm_per_km"),
        x_ohm_per_km=number(row, "x_ohm_per_km"),
        r0_ohm_per_km=number(row, "r0_ohm_per_km"),
        x0_ohm_per_km=number(row, "x0_ohm_per_km"),
        c_nf_per_km=number(row, "c_nf_per_km"),
        ampacity_a=ampacity if rated else None,
        temperature_factor=number(row, "df"),
        parallel=row.get("parallel"),
        source=f"max_i_ka of {row.get('std_type') or 'the imported net'}" if rated else "",
    )
    if not rated and row.get("in_service", True) is not False:
        mend = f"give line {index} a max_i_ka in the net"
        args = (f"line:{index}", "nothing limits its current", mend, Severity.WARNING)
        maker.findings.add(Code.MISSING_RATING, _IN_NET, *args)


def _trafo(maker: _Maker, wires: Wires, index: int, row: Row) -> None:
    name = f"trafo:{index}"
    high_v, low_v = scaled(row, "vn_hv_kv", 1000), scaled(row, "vn_lv_kv", 1000)
    rated = scaled(row, "sn_mva", 1000)
    group = _vector_group(row)
    steps = (number(row, "tap_pos") or 0.0) - (number(row, "tap_neutral") or 0.0)
    step = number(row, "tap_step_percent") or 0.0
    if steps and number(row, "tap_step_degree"):
        maker.bad(name, "a phase-shifting tap; powerd knows taps that change the voltage")
        return
    if group is None:
        maker.bad(name, f"shift_degree is {row.get('shift_degree')}, not a multiple of 30")
        return
    on_high = row.get("tap_side") != "lv"
    nominal_low = low_v
    if not on_high and low_v is not None:
        low_v *= 1 + steps * step / 100
    maker.make(
        wires.transformers,
        Transformer,
        name,
        row,
        {side: maker.end("trafo", index, row.get(f"{side[0]}v_bus")) for side in ("high_bus", "low_bus")},
        rated_power_kva=rated,
        vector_group=group,
        vk_percent=number(row, "vk_percent"),
        vkr_percent=number(row, "vkr_percent"),
        iron_loss_kw=number(row, "pfe_kw"),
        no_load_current_percent=number(row, "i0_percent"),
        high_v=high_v,
        low_v=low_v,
        rated_current_low_a=rated * 1000 / SQRT3 / nominal_low if rated and nominal_low else None,
        parallel=row.get("parallel"),
        loading_factor=number(row, "df"),
        tap_position=math.copysign(steps, steps * step) if on_high and steps and step else None,
        tap_step_percent=abs(step) if on_high else None,
        source=f"sn_mva of {row.get('std_type') or 'the imported net'}",
    )


def _vector_group(row: Row) -> str | None:
    """The letters the net states, or the usual ones, with the clock number of its phase shift."""
    shift = number(row, "shift_degree") or 0.0
    if shift % 30:
        return None
    clock = int(shift // 30) % 12
    stated = row.get("vector_group")
    usual = "Dyn" if clock % 2 else "YNyn"
    letters = stated.rstrip("0123456789") if isinstance(stated, str) else usual
    try:
        high, low, _ = vector_letters(f"{letters}0")
    except ValueError:
        return f"{usual}{clock}"
    return f"{high}{low}{clock}"


def _switches(maker: _Maker, wires: Wires) -> None:
    """All switches, before the lines and transformers whose ends they move."""
    for index, row in maker.net.table("switch").items():
        bus, element, kind = row.get("bus"), row.get("element"), row.get("et")
        if kind == "b":
            _switch(maker, wires, index, row, maker.bus(bus), maker.bus(element))
        elif kind in _ENDS:
            table, *ends = _ENDS[kind]
            target = maker.net.table(table).get(element, {}) if isinstance(element, int) else {}
            if bus not in [target.get(end, object()) for end in ends]:
                maker.bad(f"switch:{index}", f"{table} {element} has no end at bus {bus}")
                continue
            key = (table, element, bus)
            near, far = maker.moved.get(key, maker.bus(bus)), f"~switch:{index}"
            maker.moved[key] = far
            wires.auxiliary[far] = maker.bus(bus)
            _switch(maker, wires, index, row, near, far)
        else:
            maker.bad(f"switch:{index}", f"et is {kind}; powerd knows b, l and t")


def _switch(maker: _Maker, wires: Wires, index: int, row: Row, near: str, far: str) -> None:
    tie = SwitchKind.BUS_TIE if row.get("et") == "b" else SwitchKind.DISCONNECTOR
    maker.make(
        wires.switches,
        Switch,
        f"switch:{index}",
        row,
        {"from_bus": near, "to_bus": far},
        kind=SwitchKind.BREAKER if row.get("type") == "CB" else tie,
        closed=row.get("closed", True),
        rated_current_a=scaled(row, "in_ka", 1000),
    )


def _auxiliary_buses(wires: Wires, site: SiteFile) -> None:
    """The buses between elements and their switches, with the voltage of the bus behind the switch."""
    real = {bus.id: bus for bus in (*site.buses, *wires.buses)}
    for name, behind in wires.auxiliary.items():
        if behind in real:
            # Built without validation: a person may not write an id with "~".
            wires.buses.append(
                Bus.model_construct(id=name, in_service=real[behind].in_service, voltage_v=real[behind].voltage_v)
            )


def _asymmetric(maker: _Maker, wires: Wires, index: int, row: Row) -> None:
    """One load for each phase; between phases (delta) P/sqrt(3) on both, which gives each the current it carries."""
    delta = row.get("type") == "delta"
    for position, (letter, phase) in enumerate(_PHASES):
        p, q = row.get(f"p_{letter}_mw"), row.get(f"q_{letter}_mvar")
        name = f"asymmetric_load:{index}/{phase}"
        if not delta:
            maker.load(wires.loads, name, row, p, q, phase)
            continue
        share = {"p": scaled(row, f"p_{letter}_mw", 1 / SQRT3), "q": scaled(row, f"q_{letter}_mvar", 1 / SQRT3)}
        for end in (phase, _PHASES[(position + 1) % 3][1]):
            maker.load(wires.loads, f"{name}-{end}", row, share["p"], share["q"], end)


def _leftovers(net: NetFile, maker: _Maker) -> None:
    """Tables that powerd has no rules for, and generation, which it does not count on."""
    for index in net.in_service("trafo3w"):
        mend = "replace it by two two-winding transformers"
        message = "three-winding transformers have no limit rows here"
        maker.findings.add(Code.NET_THREE_WINDING, _IN_NET, f"trafo3w:{index}", message, mend)
    for table in _UNSUPPORTED:
        for index in net.in_service(table):
            message, mend = f"there are no limit rows for a {table}", "remove it, or replace it by a load or a line"
            maker.findings.add(Code.NET_UNSUPPORTED, _IN_NET, f"{table}:{index}", message, mend)
    for table in _GENERATION:
        for index in net.in_service(table):
            if net.table(table)[index].get("slack") is True:
                mend = "model it as ext_grid"
                maker.findings.add(Code.NET_UNSUPPORTED, _IN_NET, f"{table}:{index}", "a generator as slack", mend)
                continue
            message, mend = "powerd counts on no generation: it may stop", "nothing to do; this is for your knowledge"
            args = (Code.NET_IGNORED, _IN_NET, f"{table}:{index}", message, mend, Severity.WARNING)
            maker.findings.add(*args)
