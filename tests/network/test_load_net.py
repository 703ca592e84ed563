"""Wires from a pandapower file: the same net as pandapower has, in ratings, in connection and in the power flow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as nw
import pandapower.topology as top
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.errors import UnreadableInput
from powerd.faults import Severity
from powerd.network.build import build_net, put, solve
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.load import LoadedSite, load_site
from powerd.network.netfile import read_net
from powerd.network.supply import energise, normal_positions

SITE = """site: imported
network: net.json
controller_classes: [{id: box, watchdog_s: 0}]
controllers: [{id: c1, class: box}]
evse_types: [{id: wallbox, phases: 3, max_current_a: 32}]
stations: [{id: S, bus: "bus:1", controller: c1, evses: [{id: S, type: wallbox}]}]
"""


def load(net: Any, folder: Path, site: str = SITE) -> LoadedSite:
    pp.to_json(net, str(folder / "net.json"))
    (folder / "site.yaml").write_text(site, encoding="utf-8")
    return load_site(folder)


def in_service_loads(net: Any) -> float:
    """All uncontrolled load of a net [kW]."""
    three = net.load[net.load.in_service]
    single = net.asymmetric_load[net.asymmetric_load.in_service] if len(net.asymmetric_load) else None
    total = float((three.p_mw * three.scaling).sum())
    if single is not None:
        total += float((single[["p_a_mw", "p_b_mw", "p_c_mw"]].sum(axis=1) * single.scaling).sum())
    return 1000 * total


def solved(electrical: Electrical, *, balanced: bool) -> Any:
    """Power flow of the columns with every uncontrolled load as the net has it."""
    count = len(electrical.buses.ids)
    kw, level = np.zeros((count, 3)), np.zeros((count, 2))
    kvar = np.zeros((count, 3))
    loads = electrical.loads
    reactive = loads.typical_kw * np.tan(np.arccos(loads.power_factor))
    for d in range(len(loads.ids)):
        bits, bus = int(loads.phase_bits[d]), int(loads.bus[d])
        if bits == 7:
            level[bus] += (loads.typical_kw[d], reactive[d])
        else:
            kw[bus, bits.bit_length() - 1] += loads.typical_kw[d]
            kvar[bus, bits.bit_length() - 1] += reactive[d]
    built = build_net(electrical, normal_positions(electrical))
    zero = np.zeros((count, 3))
    put(built, star_kw=kw, star_kvar=kvar, delta_kw=zero, level_kw=level[:, 0], level_kvar=level[:, 1])
    return solve(built, balanced=balanced)


def at_net_buses(electrical: Electrical, net: Any) -> list[int]:
    return [electrical.buses.ids.index(f"bus:{index}") for index in net.bus.index]


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Electrical]:
    """The CIGRE MV net that pandapower ships, loaded."""
    net = nw.create_cigre_network_mv()
    loaded = load(net, tmp_path_factory.mktemp("ring"))
    assert {fault.severity for fault in loaded.faults} <= {Severity.WARNING}
    return net, loaded.must()


def test_voltages_are_those_of_the_original_net(tmp_path: Path) -> None:
    """A power flow of the columns gives every bus the voltage that pandapower gives the net it came from.

    Without the transformers' breakers, which carry 25 MVA: a switch has a contact resistance here, and none there.
    """
    net = nw.create_cigre_network_mv()
    net.switch = net.switch[net.switch.et == "l"]
    electrical = load(net, tmp_path).must()
    pp.runpp(net)
    flow = solved(electrical, balanced=True)
    found = np.abs(flow.voltage_pu[at_net_buses(electrical, net), 0])
    assert found == pytest.approx(net.res_bus.vm_pu.to_numpy(), abs=5e-5)


def test_unbalanced_voltages_are_those_of_the_original_net(tmp_path: Path) -> None:
    """The IEEE European LV feeder with its one-phase loads, phase by phase.

    To 0.15 %: the zero-sequence magnetising impedance of its transformer is not part of a site file.
    """
    net = nw.ieee_european_lv_asymmetric("on_peak_566")
    electrical = load(net, tmp_path).must()
    pp.runpp_3ph(net)
    flow = solved(electrical, balanced=False)
    found = np.abs(flow.voltage_pu[at_net_buses(electrical, net)])
    assert found == pytest.approx(net.res_bus_3ph[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy(), abs=1.5e-3)
    assert electrical.loads.typical_kw.sum() == pytest.approx(in_service_loads(net))


def test_ratings_are_those_of_the_net(ring: tuple[Any, Electrical]) -> None:
    """max_i_ka x df x parallel of each line, sn_mva / (sqrt(3) vn_kv) on both sides of each transformer."""
    net, electrical = ring
    branches = electrical.branches
    at = {name: index for index, name in enumerate(branches.ids)}
    for index, line in net.line.iterrows():
        expected = 1000 * line.max_i_ka * line.df * line.parallel
        assert branches.capacity_from_a[at[f"line:{index}"]] == pytest.approx(expected)
    for index, trafo in net.trafo.iterrows():
        k = at[f"trafo:{index}"]
        sides = (branches.capacity_from_a[k] * trafo.vn_hv_kv, branches.capacity_to_a[k] * trafo.vn_lv_kv)
        assert sides == pytest.approx([1000 * trafo.sn_mva / np.sqrt(3)] * 2)
        assert branches.turns_ratio[k] == pytest.approx(trafo.vn_hv_kv / trafo.vn_lv_kv)
        assert branches.clock[k] * 30 == trafo.shift_degree
    assert electrical.loads.worst_kw.sum() == pytest.approx(in_service_loads(net))
    assert electrical.supplies.voltage_pu.tolist() == net.ext_grid.vm_pu.tolist()


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_switches_feed_the_same_buses_as_in_pandapower(ring: tuple[Any, Electrical], closed: list[bool]) -> None:
    """Line, transformer and bus switches in any position: dead buses are those that pandapower calls unsupplied."""
    net, electrical = ring
    net.switch.closed = closed
    positions = normal_positions(electrical)
    for index, position in enumerate(closed):
        positions[electrical.branches.ids.index(f"switch:{index}")] = position
    live = energise(electrical, positions).bus_is_live[at_net_buses(electrical, net)]
    dead = set(top.unsupplied_buses(net))
    assert {index for index, on in zip(net.bus.index, live, strict=True) if not on} == dead


@given(st.sampled_from(["hv", "lv"]), st.integers(-2, 2), st.floats(-2.5, 2.5))
@settings(max_examples=20)
def test_taps_set_the_same_voltage_as_in_pandapower(
    tmp_path_factory: pytest.TempPathFactory, side: str, tap: int, step: float
) -> None:
    """A tap on either side, in either direction: the secondary's no-load voltage is pandapower's."""
    net = pp.create_empty_network()
    high, low = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, high)
    trafo = pp.create_transformer(net, high, low, "0.4 MVA 10/0.4 kV")
    net.trafo.loc[trafo, ["tap_side", "tap_pos", "tap_neutral", "tap_step_percent"]] = [side, tap, 0, step]
    pp.runpp(net)
    electrical = load(net, tmp_path_factory.mktemp("tap")).must()
    expected = 25 / electrical.branches.turns_ratio[0]
    # No-load current through the short-circuit impedance moves the voltage by a little.
    assert net.res_bus.vm_pu[low] == pytest.approx(expected, abs=3e-4)
    assert electrical.branches.kind[0] == BranchKind.TRANSFORMER


def test_delta_loads_give_each_phase_the_current_they_draw(tmp_path: Path) -> None:
    """10 kW between l1 and l2 is P / U on both: as much as P / sqrt(3) to neutral on each."""
    net = nw.ieee_european_lv_asymmetric("off_peak_1")
    net.asymmetric_load = net.asymmetric_load.iloc[:0]
    pp.create_asymmetric_load(net, 5, p_a_mw=0.01, type="delta")
    loads = load(net, tmp_path).must().loads
    assert sorted(loads.phase_bits.tolist()) == [1, 2]
    assert loads.worst_kw == pytest.approx([10 / np.sqrt(3)] * 2)


def test_a_user_s_bus_stands_in_for_the_net_s(tmp_path: Path) -> None:
    """``net_bus`` by index or by name: the file's id and voltage, the net's wires."""
    net = nw.create_cigre_network_mv()
    named = SITE.replace('"bus:1"', "garage") + (
        "buses: [{id: garage, voltage_v: 20000, net_bus: Bus 5}, {id: club, voltage_v: 20000, net_bus: 6}]\n"
    )
    electrical = load(net, tmp_path, named).must()
    assert {"garage", "club", "bus:4"} <= set(electrical.buses.ids)
    assert not {"bus:5", "bus:6"} & set(electrical.buses.ids)
    ends = [electrical.buses.ids[k] for k in (electrical.branches.from_bus[k] for k in range(20))]
    assert "garage" in ends


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"_class": "pandapowerNet"}',
        '{"_class": "pandapowerNet", "_object": {"bus": 5}}',
        '{"_class": "pandapowerNet", "_object": {"bus": {"_class": "DataFrame", "_object": "{"}}}',
        '{"_class": "pandapowerNet", "_object": {"bus": {"_class": "DataFrame", "_object": "{\\"columns\\": 1}"}}}',
        "[" * 100_000,
        '{"a": 1' + "0" * 5000 + "}",
    ],
)
def test_what_is_no_net_is_refused_with_its_place(tmp_path: Path, content: str) -> None:
    """Broken JSON, another class, damaged tables: UnreadableInput that names the file."""
    path = tmp_path / "net.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableInput, match=r"net\.json"):
        read_net(path, str(path))


PLAIN = nw.create_cigre_network_mv()
TABLES = ("bus", "line", "trafo", "switch", "ext_grid", "load")


@settings(max_examples=60)
@given(st.data())
def test_any_cell_may_hold_anything(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Nonsense in any cell of an imported net gives faults, or a net that loads; never a traceback."""
    folder = tmp_path_factory.mktemp("cells")
    (folder / "site.yaml").write_text(SITE, encoding="utf-8")
    content = json.loads(pp.to_json(PLAIN))
    table = data.draw(st.sampled_from(TABLES))
    split = json.loads(content["_object"][table]["_object"])
    column = data.draw(st.sampled_from(split["columns"]))
    row = data.draw(st.integers(0, len(split["data"]) - 1))
    junk = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([1]) | st.just({"a": 1})
    )
    split["data"][row][split["columns"].index(column)] = data.draw(junk)
    content["_object"][table]["_object"] = json.dumps(split)
    (folder / "net.json").write_text(json.dumps(content), encoding="utf-8")
    loaded = load_site(folder)
    assert loaded.electrical is not None or loaded.errors
    assert all(fault.line >= 1 and fault.mend for fault in loaded.faults)
