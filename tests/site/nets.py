"""Small pandapower nets for tests, written by pandapower itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandapower as pp


def plain() -> Any:
    """Grid at 10 kV, transformer, line, car park; two more buses that share a name."""
    net = pp.create_empty_network()
    grid = pp.create_bus(net, 10.0, name="grid")
    low = pp.create_bus(net, 0.4, name="low")
    park = pp.create_bus(net, 0.4, name="car park")
    twins = [pp.create_bus(net, 0.4, name="twin") for _ in range(2)]
    pp.create_ext_grid(net, grid, vm_pu=1.02, s_sc_max_mva=250.0, rx_max=0.2)
    pp.create_transformer(net, grid, low, "0.4 MVA 10/0.4 kV")
    pp.create_line(net, low, park, 0.05, "NAYY 4x150 SE", parallel=2)
    for twin in twins:
        pp.create_switch(net, low, twin, "b", type="LBS")
    pp.create_load(net, low, p_mw=0.03, q_mvar=0.01)
    return net


def bad_value() -> Any:
    net = plain()
    net.line.loc[0, "length_km"] = -1.0
    return net


def three_winding() -> Any:
    net = plain()
    top = pp.create_bus(net, 110.0)
    mid = pp.create_bus(net, 20.0)
    pp.create_transformer3w(net, top, mid, 0, "63/25/38 MVA 110/20/10 kV")
    return net


def shunt() -> Any:
    net = plain()
    pp.create_shunt(net, 1, q_mvar=-0.05)
    return net


def generation() -> Any:
    net = plain()
    pp.create_sgen(net, 1, p_mw=0.02)
    return net


def unrated() -> Any:
    net = plain()
    net.line.loc[0, "max_i_ka"] = float("nan")
    return net


def island() -> Any:
    net = plain()
    pp.create_bus(net, 0.4)
    return net


NETS: dict[str, Callable[[], Any]] = {
    "plain": plain,
    "bad-value": bad_value,
    "three-winding": three_winding,
    "shunt": shunt,
    "generation": generation,
    "unrated": unrated,
    "island": island,
}


def write_net(name: str, folder: Path) -> None:
    """Put ``net.json`` into ``folder``."""
    pp.to_json(NETS[name](), str(folder / "net.json"))
