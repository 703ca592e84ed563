"""Wires from a pandapower net, turned into the same elements that a person would write.

Ids are the table's name and index ("line:3", "bus:12"); names become titles, for they need not be unique. A bus that
the site file maps with ``net_bus`` goes by the file's id. A switch at the end of a line or transformer gets a bus of
its own between the two, named "~switch:5".
"""

from __future__ import annotations

from powerd.faults import Severity
from powerd.network.drawing import Findings
from powerd.network.netfile import NetFile, Row, number, scaled
from powerd.network.netrows import import_asymmetric, import_line, import_supply, import_trafo
from powerd.network.wires import IN_NET, Maker, Wires
from powerd.site.codes import Code
from powerd.site.schema import Bus, SiteFile, Switch, SwitchKind

#: Tables whose rows would change what a wire carries, and for which there is no rule here.
_UNSUPPORTED = (
    "impedance", "dcline", "shunt", "ward", "xward", "motor", "storage", "svc", "ssc", "tcsc", "vsc", "vsc_stacked",
    "vsc_bipolar", "b2b_vsc", "bi_vsc", "bus_dc", "line_dc", "load_dc", "source_dc",
)  # fmt: skip
_GENERATION = ("sgen", "asymmetric_sgen", "gen")
#: Switch type to the table of the element and the columns of its ends.
_ENDS = {"l": ("line", "from_bus", "to_bus"), "t": ("trafo", "hv_bus", "lv_bus")}


def import_wires(net: NetFile, site: SiteFile, findings: Findings) -> Wires:
    """Elements of ``net``, with its buses called as ``site`` maps them; every oddity becomes a fault."""
    names = _map_buses(net, site, findings)
    maker = Maker(net=net, names=names, findings=findings)
    wires = Wires()
    for index, row in net.table("bus").items():
        if names[index] == f"bus:{index}":
            maker.make(wires.buses, Bus, names[index], row, {}, voltage_v=scaled(row, "vn_kv", 1000))
    _switches(maker, wires)
    _auxiliary_buses(wires, site)
    for index, row in net.table("ext_grid").items():
        import_supply(maker, wires, index, row)
    for index, row in net.table("line").items():
        import_line(maker, wires, index, row)
    for index, row in net.table("trafo").items():
        import_trafo(maker, wires, index, row)
    for index, row in net.table("load").items():
        maker.load(wires.loads, f"load:{index}", row, row.get("p_mw"), row.get("q_mvar"), "l123")
    for index, row in net.table("asymmetric_load").items():
        import_asymmetric(maker, wires, index, row)
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


def _switches(maker: Maker, wires: Wires) -> None:
    """All switches, before the lines and transformers whose ends they move."""
    for index, row in maker.net.table("switch").items():
        bus, element, kind = row.get("bus"), row.get("element"), row.get("et")
        if kind == "b":
            _switch(maker, wires, index, row, maker.bus(bus), maker.bus(element))
        elif isinstance(kind, str) and kind in _ENDS:
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


def _switch(maker: Maker, wires: Wires, index: int, row: Row, near: str, far: str) -> None:
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


def _leftovers(net: NetFile, maker: Maker) -> None:
    """Tables that powerd has no rules for, and generation, which it does not count on."""
    for index in net.in_service("trafo3w"):
        mend = "replace it by two two-winding transformers"
        message = "three-winding transformers have no limit rows here"
        maker.findings.add(Code.NET_THREE_WINDING, IN_NET, f"trafo3w:{index}", message, mend)
    for table in _UNSUPPORTED:
        for index in net.in_service(table):
            message, mend = f"there are no limit rows for a {table}", "remove it, or replace it by a load or a line"
            maker.findings.add(Code.NET_UNSUPPORTED, IN_NET, f"{table}:{index}", message, mend)
    for table in _GENERATION:
        for index in net.in_service(table):
            if net.table(table)[index].get("slack") is True:
                mend = "model it as ext_grid"
                maker.findings.add(Code.NET_UNSUPPORTED, IN_NET, f"{table}:{index}", "a generator as slack", mend)
                continue
            message, mend = "powerd counts on no generation: it may stop", "nothing to do; this is for your knowledge"
            args = (Code.NET_IGNORED, IN_NET, f"{table}:{index}", message, mend, Severity.WARNING)
            maker.findings.add(*args)
