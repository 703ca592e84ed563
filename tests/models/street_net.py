"""How ``models/street_lv/net.json`` was made from the net that pandapower ships; run it to make it again.

    python tests/models/street_net.py

pandapower's ``ieee_european_lv_asymmetric("on_peak_566")`` has 907 buses, most of them points where a cable bends. Two
lines in series with nothing between them are one line with the sum of both impedances (the net has no capacitance), so
only loads, junctions and ends are kept: the same voltages and currents at an eighth of the size.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pandapower as pp
import pandapower.networks as pn
import pandas as pd

TARGET = Path(__file__).parents[2] / "models" / "street_lv" / "net.json"
SNAPSHOT = "on_peak_566"
_LINE_COLUMNS = [
    "name", "std_type", "from_bus", "to_bus", "length_km", "r_ohm_per_km", "x_ohm_per_km", "c_nf_per_km", "g_us_per_km",
    "max_i_ka", "df", "parallel", "type", "in_service", "r0_ohm_per_km", "x0_ohm_per_km", "c0_nf_per_km",
]  # fmt: skip
#: pandapower gives every line 421 A. By conductor, in ground, after DIN VDE 0276-603 (four-core NAYY and NYY; imperial
#: sections at the next smaller metric one, judged by resistance) [A].
AMPACITY_A = {
    "2c_007": 47.0, "2c_0225": 79.0, "2c_16": 102.0, "35_SAC_XSC": 123.0, "4c_06": 157.0, "4c_1": 191.0,
    "4c_185": 313.0, "4c_35": 409.0, "4c_70": 179.0, "4c_95_SAC_XC": 215.0,
}  # fmt: skip
_PER_KM = ["r_ohm_per_km", "x_ohm_per_km", "r0_ohm_per_km", "x0_ohm_per_km"]


def shipped() -> pp.pandapowerNet:
    """The net as pandapower ships it."""
    return pn.ieee_european_lv_asymmetric(SNAPSHOT)


def reduced() -> pp.pandapowerNet:
    """The same net without the points where nothing happens."""
    net = shipped()
    kept = _kept_buses(net)
    lines = net.line[_LINE_COLUMNS].copy()
    lines["max_i_ka"] = lines.std_type.map(AMPACITY_A) / 1000
    graph = nx.Graph()
    for index, row in lines.iterrows():
        graph.add_edge(row.from_bus, row.to_bus, line=index)
    merged = [_merge(lines, graph, path) for path in _paths(graph, kept, int(net.trafo.lv_bus.iloc[0]))]
    small = pp.create_empty_network(name="IEEE European LV test feeder, series lines merged")
    number = {bus: k for k, bus in enumerate(sorted(kept))}
    for bus, k in number.items():
        pp.create_bus(small, vn_kv=float(net.bus.vn_kv[bus]), name=f"bus {bus}", index=k)
    for (start, end), row in merged:
        kind = row.pop("std_type")
        index = pp.create_line_from_parameters(small, number[start], number[end], **row)
        small.line.loc[index, "std_type"] = kind
    _copy(net, small, number)
    return small


def _kept_buses(net: pp.pandapowerNet) -> set[int]:
    """Loads, transformer and source buses, junctions and ends."""
    ends = np.concatenate([net.line.from_bus, net.line.to_bus])
    bus, count = np.unique(ends, return_counts=True)
    kept = set(bus[count != 2].tolist()) | set(net.asymmetric_load.bus.tolist())
    return kept | set(net.trafo.lv_bus) | set(net.trafo.hv_bus) | set(net.ext_grid.bus)


def _paths(graph: nx.Graph, kept: set[int], root: int) -> list[list[int]]:
    """Runs of buses from each kept bus to the next one away from the transformer."""
    found = []
    above = dict(nx.bfs_predecessors(graph, root))
    for bus in sorted(kept & set(above)):
        run = [bus, above[bus]]
        while run[-1] not in kept:
            run.append(above[run[-1]])
        found.append(run[::-1])
    return found


def _merge(lines: pd.DataFrame, graph: nx.Graph, path: list[int]) -> tuple[tuple[int, int], dict[str, object]]:
    """One line for a run: impedances add up, the weakest piece gives rating and type."""
    pieces = lines.loc[[graph.edges[a, b]["line"] for a, b in pairwise(path)]]
    weakest = pieces.loc[pieces.max_i_ka.idxmin()]
    length = float(pieces.length_km.sum())
    row: dict[str, object] = {
        "name": f"{pieces.name.iloc[0]}-{pieces.name.iloc[-1][4:]}" if len(pieces) > 1 else pieces.name.iloc[0],
        "length_km": length,
        "max_i_ka": float(weakest.max_i_ka),
        "c_nf_per_km": 0.0,
        "c0_nf_per_km": 0.0,
        "std_type": weakest.std_type,
        "type": "cs",
    }
    for column in _PER_KM:
        row[column] = float((pieces[column] * pieces.length_km).sum() / length)
    return (path[0], path[-1]), row


def _copy(net: pp.pandapowerNet, small: pp.pandapowerNet, number: dict[int, int]) -> None:
    """Transformer, source and loads, on the new bus numbers."""
    for table, ends in (("trafo", ["hv_bus", "lv_bus"]), ("ext_grid", ["bus"]), ("asymmetric_load", ["bus"])):
        frame = net[table].copy()
        for end in ends:
            frame[end] = frame[end].map(number).astype("int64")
        small[table] = frame.dropna(axis=1, how="all")


def main() -> None:
    """Write ``net.json``."""
    net = reduced()
    net["std_types"] = {kind: {} for kind in net["std_types"]}
    for name in [key for key in net if key.startswith(("res_", "_empty"))]:
        del net[name]
    pp.to_json(net, str(TARGET))


if __name__ == "__main__":
    main()
