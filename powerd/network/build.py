"""The drawing as a pandapower net: the electrical model of record, against which every row is held.

Never called inside a tick. Buses keep their indices. Switches become lines of 1e-5 per unit, because pandapower fuses
the buses of a closed bus-bus switch and then has no current to show for it. What no site file states (zero-sequence
impedance of transformers and supplies) is taken from pandapower's own examples, as named below.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandapower as pp

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.taken import SWITCH_PU, CannotSolve, Flow

#: Vector groups that pandapower 3.5.6 can solve unbalanced.
UNBALANCED_GROUPS = ("YNyn", "Dyn", "Yzn")


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """A pandapower net and where to find the drawing's branches in it."""

    net: pp.pandapowerNet
    """The net; its bus indices are the drawing's."""
    line: Ints
    """(E,) index in ``net.line`` of feeders and switches; -1 for transformers."""
    trafo: Ints
    """(E,) index in ``net.trafo``; -1 for others."""
    grid: Ints
    """(S,) index in ``net.ext_grid``; -1 where the supply does not feed."""
    bus: Ints
    """(K,) buses where EVSEs or loads hang."""
    star: Ints
    """(K,) index in ``net.asymmetric_load`` of each one's phase-to-neutral loads."""
    delta: Ints
    """(K,) index in ``net.asymmetric_load`` of each one's phase-to-phase loads."""
    level: Ints
    """(K,) index in ``net.load`` of each one's balanced load."""


def build_net(electrical: Electrical, closed: Bools) -> Built:
    """The wires of one switching state, with a place for what EVSEs and loads take but no power in it.

    Args:
        electrical: the compiled drawing.
        closed: (E,) switch positions; only read where ``switchable``. Open switches are out of service.

    Returns:
        The net; ``loading.solve_constant_current`` fills in what is drawn.
    """
    net = pp.create_empty_network(f_hz=electrical.frequency_hz, sn_mva=1.0)
    buses = electrical.buses
    pp.create_buses(
        net,
        buses.voltage_v.shape[0],
        vn_kv=buses.voltage_v / 1000,
        name=list(buses.ids),
        in_service=buses.in_service,
    )
    line = _create_lines(net, electrical, closed)
    trafo = _create_transformers(net, electrical)
    grid = _create_supplies(net, electrical)
    at = np.unique(np.concatenate([electrical.evse_bus, electrical.loads.bus]))
    star, delta, level = _create_loads(net, at)
    return Built(net=net, line=line, trafo=trafo, grid=grid, bus=at, star=star, delta=delta, level=level)


def _create_lines(net: pp.pandapowerNet, electrical: Electrical, closed: Bools) -> Ints:
    """Feeders with their own impedance a kilometre, switches with next to none."""
    branches, of = electrical.branches, electrical.impedances
    index = np.flatnonzero(branches.kind != BranchKind.TRANSFORMER)
    where = np.full(branches.kind.shape[0], -1, dtype=np.int64)
    if index.shape[0] == 0:
        return where
    switch = branches.switchable[index]
    contact = SWITCH_PU * (electrical.buses.voltage_v[branches.from_bus[index]] / 1000) ** 2
    length = np.where(switch, 1.0, of.length_km[index])
    ampere = np.fmin(branches.capacity_from_a[index], branches.capacity_to_a[index])
    where[index] = pp.create_lines_from_parameters(
        net,
        from_buses=branches.from_bus[index],
        to_buses=branches.to_bus[index],
        length_km=length,
        r_ohm_per_km=np.where(switch, contact, of.r_ohm[index] / length),
        x_ohm_per_km=np.where(switch, contact, of.x_ohm[index] / length),
        c_nf_per_km=of.c_nf[index] / length,
        r0_ohm_per_km=np.where(switch, contact, of.r0_ohm[index] / length),
        x0_ohm_per_km=np.where(switch, contact, of.x0_ohm[index] / length),
        c0_nf_per_km=of.c_nf[index] / length,
        g_us_per_km=0.0,
        g0_us_per_km=0.0,
        max_i_ka=np.where(np.isnan(ampere), 1e3, ampere / 1000),
        name=[branches.ids[k] for k in index],
        in_service=branches.in_service[index] & (~switch | closed[index]),
    )
    return where


def _create_transformers(net: pp.pandapowerNet, electrical: Electrical) -> Ints:
    """Transformers; the tap is part of the high winding's voltage.

    Zero sequence: vk0 = vk and 0.9 of the leakage on the high side, as in pandapower's own unbalanced example
    (``ieee_european_lv_asymmetric``); zero-sequence magnetising impedance 100 times the leakage (five limbs or shell,
    the upper end of what pandapower's documentation gives), so that YNyn passes its neutral current on.
    """
    branches, of = electrical.branches, electrical.impedances
    index = np.flatnonzero(branches.kind == BranchKind.TRANSFORMER)
    where = np.full(branches.kind.shape[0], -1, dtype=np.int64)
    if index.shape[0] == 0:
        return where
    where[index] = pp.create_transformers_from_parameters(
        net,
        hv_buses=branches.from_bus[index],
        lv_buses=branches.to_bus[index],
        sn_mva=of.rated_kva[index] / 1000,
        vn_hv_kv=branches.turns_ratio[index] * of.low_v[index] / 1000,
        vn_lv_kv=of.low_v[index] / 1000,
        vk_percent=of.vk_percent[index],
        vkr_percent=of.vkr_percent[index],
        pfe_kw=of.iron_loss_kw[index],
        i0_percent=of.no_load_current_percent[index],
        shift_degree=30.0 * branches.clock[index],
        vk0_percent=of.vk_percent[index],
        vkr0_percent=of.vkr_percent[index],
        mag0_percent=10_000.0,
        mag0_rx=0.0,
        si0_hv_partial=0.9,
        name=[branches.ids[k] for k in index],
        in_service=branches.in_service[index],
    )
    net.trafo["vector_group"] = [of.vector_group[k] for k in index]
    return where


def _create_supplies(net: pp.pandapowerNet, electrical: Electrical) -> Ints:
    """External grids of the supplies that feed; zero-sequence source impedance X0/X = 1, R0/X0 = 0.1."""
    supplies = electrical.supplies
    where = np.full(len(supplies.ids), -1, dtype=np.int64)
    for k in np.flatnonzero(supplies.in_service).tolist():
        where[k] = pp.create_ext_grid(
            net,
            int(supplies.bus[k]),
            vm_pu=float(supplies.voltage_pu[k]),
            s_sc_max_mva=float(supplies.short_circuit_mva[k]),
            rx_max=float(supplies.rx_ratio[k]),
            r0x0_max=0.1,
            x0x_max=1.0,
            name=supplies.ids[k],
        )
    return where


def _create_loads(net: pp.pandapowerNet, at: Ints) -> tuple[Ints, Ints, Ints]:
    """A star, a delta and a balanced load at each of the buses ``at`` (K,), all without power."""
    star, delta = (
        np.array([pp.create_asymmetric_load(net, bus, type=kind) for bus in at.tolist()], dtype=np.int64)
        for kind in ("wye", "delta")
    )
    level = np.array([pp.create_load(net, bus, p_mw=0.0) for bus in at.tolist()], dtype=np.int64)
    return star, delta, level


def put(
    built: Built, *, star_kw: Floats, star_kvar: Floats, delta_kw: Floats, level_kw: Floats, level_kvar: Floats
) -> None:
    """Write the power that every bus takes into the net, in place.

    Args:
        built: the net.
        star_kw: (B, 3) from l1, l2, l3 to neutral [kW].
        star_kvar: (B, 3) likewise [kvar].
        delta_kw: (B, 3) from l1 to l2, l2 to l3, l3 to l1 [kW].
        level_kw: (B,) all three phases together [kW].
        level_kvar: (B,) likewise [kvar].
    """
    table, at = built.net.asymmetric_load, built.bus
    table.loc[built.star, ["p_a_mw", "p_b_mw", "p_c_mw"]] = star_kw[at] / 1000
    table.loc[built.star, ["q_a_mvar", "q_b_mvar", "q_c_mvar"]] = star_kvar[at] / 1000
    table.loc[built.delta, ["p_a_mw", "p_b_mw", "p_c_mw"]] = delta_kw[at] / 1000
    built.net.load.loc[built.level, "p_mw"] = level_kw[at] / 1000
    built.net.load.loc[built.level, "q_mvar"] = level_kvar[at] / 1000


def solve(built: Built, *, balanced: bool) -> Flow:
    """Run the power flow: ``runpp`` where all phases are alike, else ``runpp_3ph``.

    Raises:
        CannotSolve: it does not converge, or a vector group is beyond the unbalanced power flow.
    """
    groups = set(built.net.trafo.vector_group) if len(built.net.trafo) else set()
    if not balanced and not groups <= set(UNBALANCED_GROUPS):
        odd = ", ".join(sorted(groups - set(UNBALANCED_GROUPS)))
        raise CannotSolve(f"vector group {odd}: the unbalanced power flow knows {', '.join(UNBALANCED_GROUPS)} only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandapower warns about its own pandas use, on every call
        try:
            if balanced:
                pp.runpp(built.net, calculate_voltage_angles=True, init="auto")
            else:
                pp.runpp_3ph(built.net)
        except pp.LoadflowNotConverged as fault:
            raise CannotSolve("the power flow does not converge: look for a load far above its feeder") from fault
    return _balanced_flow(built) if balanced else _unbalanced_flow(built)


def _unbalanced_flow(built: Built) -> Flow:
    """Results of ``runpp_3ph`` as columns."""
    net = built.net
    bus = net.res_bus_3ph
    size = bus[[f"vm_{k}_pu" for k in "abc"]].to_numpy()
    angle = bus[[f"va_{k}_degree" for k in "abc"]].to_numpy()
    sides = []
    for line_side, trafo_side in (("from", "hv"), ("to", "lv")):
        amps = np.full((built.line.shape[0], 3), np.nan)
        lines = net.res_line_3ph[[f"i_{k}_{line_side}_ka" for k in "abc"]].to_numpy()
        trafos = net.res_trafo_3ph[[f"i_{k}_{trafo_side}_ka" for k in "abc"]].to_numpy()
        sides.append(_scatter(amps, built, lines, trafos))
    power = net.res_ext_grid_3ph[[f"p_{k}_mw" for k in "abc"]].to_numpy().sum(axis=1)
    return Flow(
        from_a=sides[0],
        to_a=sides[1],
        voltage_pu=size * np.exp(1j * np.radians(angle)),
        import_kw=_imports(built, power),
    )


def _balanced_flow(built: Built) -> Flow:
    """Results of ``runpp`` as columns, the three phases alike."""
    net = built.net
    bus = net.res_bus
    turn = np.radians(bus.va_degree.to_numpy()[:, None] + np.array([0.0, -120.0, 120.0]))
    sides = []
    for line_side, trafo_side in (("from", "hv"), ("to", "lv")):
        amps = np.full((built.line.shape[0], 3), np.nan)
        lines = net.res_line[[f"i_{line_side}_ka"] * 3].to_numpy()
        trafos = net.res_trafo[[f"i_{trafo_side}_ka"] * 3].to_numpy()
        sides.append(_scatter(amps, built, lines, trafos))
    return Flow(
        from_a=sides[0],
        to_a=sides[1],
        voltage_pu=bus.vm_pu.to_numpy()[:, None] * np.exp(1j * turn),
        import_kw=_imports(built, net.res_ext_grid.p_mw.to_numpy()),
    )


def _scatter(amps: Floats, built: Built, lines_ka: Floats, trafos_ka: Floats) -> Floats:
    """Put pandapower's rows where the drawing's branches are [A]."""
    amps[built.line >= 0] = lines_ka[built.line[built.line >= 0]] * 1000
    amps[built.trafo >= 0] = trafos_ka[built.trafo[built.trafo >= 0]] * 1000
    return np.nan_to_num(amps)


def _imports(built: Built, power_mw: Floats) -> Floats:
    """(S,) import of each supply [kW], 0 where it does not feed."""
    feeding = built.grid >= 0
    result = np.zeros(built.grid.shape[0])
    result[feeding] = power_mw[built.grid[feeding]] * 1000
    return result
