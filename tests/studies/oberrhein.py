"""pandapower's ``mv_oberrhein`` as a site: its wires, switches and loads, and charging stations of ours.

    python -m tests.studies.oberrhein FOLDER && powerd study outages FOLDER --results FILE

179 buses, 322 switches, two transformers of 25 MVA at supplies of their own. Ours: behind every sixth load bus a
630 kVA transformer with ten posts of 22 kW; who may operate what: powerd the four breakers, the six open load-break
switches and, in the middle of each feeder, one closed one; a person the rest. Loads are the net's (``p_mw * scaling``)
as the worst, half of it as the usual. Tap positions are left out.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import networkx as nx

EVERY = 6
"""A station at every sixth load."""
POSTS = 10
"""Of each station."""


def site() -> dict[str, Any]:
    """The site file as plain values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pandapower import networks

        net = networks.mv_oberrhein()
    buses = [{"id": f"b{b}", "voltage_v": 1000 * row.vn_kv} for b, row in net.bus.iterrows()]
    ends = {(e, side): f"b{net.line.at[e, side]}" for e in net.line.index for side in ("from_bus", "to_bus")}
    remote, switches = _remote(net), []
    for s, row in net.switch.iterrows():
        side = "from_bus" if net.line.at[row.element, "from_bus"] == row.bus else "to_bus"
        buses.append({"id": f"x{s}", "voltage_v": 20_000})
        ends[row.element, side] = f"x{s}"
        switches.append(
            {
                "id": f"s{s}",
                "kind": "breaker" if row.type == "CB" else "disconnector",
                "from_bus": f"b{row.bus}",
                "to_bus": f"x{s}",
                "closed": bool(row.closed),
                "operated_by": "powerd" if s in remote else "hand",
            }
        )
    stations = [int(b) for b in net.load.bus[::EVERY]]
    buses += [{"id": f"lv{b}", "voltage_v": 400} for b in stations]
    return {
        "site": "mv-oberrhein",
        "title": "pandapower's mv_oberrhein with charging stations",
        "supplies": [{"id": f"grid{g}", "bus": f"b{row.bus}"} for g, row in net.ext_grid.iterrows()],
        "buses": buses,
        "transformers": [*(_transformer(f"t{t}", row) for t, row in net.trafo.iterrows()), *map(_station, stations)],
        "feeders": [_line(e, row, ends) for e, row in net.line.iterrows()],
        "switches": switches,
        "loads": [_load(i, row) for i, row in net.load.iterrows()],
        "controller_classes": [{"id": "station", "ttl_s": 15, "reaction_s": 5, "watchdog_s": 20}],
        "controllers": [{"id": f"ctl{b}", "class": "station"} for b in stations],
        "evse_types": [
            {"id": "ac22", "phases": 3, "min_current_a": 6, "max_current_a": 32, "pilot_step_a": 0.1, "fallback_a": 6,
             "connectors": ["type2"]}
        ],
        "station_groups": [
            {"count": POSTS, "id": f"P{b}-{{n:02}}", "bus": f"lv{b}", "controller": f"ctl{b}", "type": "ac22"}
            for b in stations
        ],
    }  # fmt: skip


def _remote(net: Any) -> set[int]:
    """Breakers, open switches, and of each feeder the closed one behind which the half of its load is, nearly."""
    found = {int(s) for s, row in net.switch.iterrows() if row.type == "CB" or not row.closed}
    open_lines = set(net.switch.element[~net.switch.closed])
    graph = nx.Graph()
    for e, row in net.line.iterrows():
        if e not in open_lines:
            graph.add_edge(int(row.from_bus), int(row.to_bus), line=e)
    load = (net.load.p_mw * net.load.scaling).groupby(net.load.bus).sum().to_dict()
    for _, breaker in net.switch[net.switch.type == "CB"].iterrows():
        tree = nx.bfs_tree(graph, int(breaker.bus))
        line = net.line.loc[breaker.element]
        head = int(line.to_bus if line.from_bus == breaker.bus else line.from_bus)
        behind = {b: sum(load.get(x, 0.0) for x in (nx.descendants(tree, b) | {b})) for b in nx.descendants(tree, head)}
        middle = min(behind, key=lambda b: abs(behind[b] - 0.5 * sum(load.get(x, 0.0) for x in [head, *behind])))
        (above,) = tree.predecessors(middle)
        own = net.switch[(net.switch.element == graph.edges[above, middle]["line"]) & (net.switch.type == "LBS")]
        found.add(int(own.index[0]))
    return found


def _transformer(name: str, row: Any) -> dict[str, Any]:
    return {
        "id": name,
        "high_bus": f"b{row.hv_bus}",
        "low_bus": f"b{row.lv_bus}",
        "rated_power_kva": 1000 * row.sn_mva,
        "vector_group": "Dyn5",
        "vk_percent": row.vk_percent,
        "vkr_percent": row.vkr_percent,
        "iron_loss_kw": row.pfe_kw,
        "no_load_current_percent": row.i0_percent,
        "insulation": "oil",
    }


def _station(bus: int) -> dict[str, Any]:
    own = {"id": f"station{bus}", "high_bus": f"b{bus}", "low_bus": f"lv{bus}", "rated_power_kva": 630}
    return own | {"vector_group": "Dyn5", "vk_percent": 6.0, "vkr_percent": 1.206, "insulation": "oil"}


def _line(index: int, row: Any, ends: dict[tuple[int, str], str]) -> dict[str, Any]:
    return {
        "id": f"l{index}",
        "from_bus": ends[index, "from_bus"],
        "to_bus": ends[index, "to_bus"],
        "length_m": 1000 * row.length_km,
        "r_ohm_per_km": row.r_ohm_per_km,
        "x_ohm_per_km": row.x_ohm_per_km,
        "ampacity_a": 1000 * row.max_i_ka,
    }


def _load(index: int, row: Any) -> dict[str, Any]:
    kw, kvar = 1000 * row.p_mw * row.scaling, 1000 * row.q_mvar * row.scaling
    factor = round(kw / (kw**2 + kvar**2) ** 0.5, 4)
    return {"id": f"d{index}", "bus": f"b{row.bus}", "typical_kw": 0.5 * kw, "worst_kw": kw, "power_factor": factor}


def write(folder: Path) -> Path:
    """Puts the site file into ``folder`` (made if missing); JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(site(), indent=1, default=float)
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
