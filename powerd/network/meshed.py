"""AC power flow of switching states with loops, where a sweep has no tree: by power-grid-model, on the same columns.

What differs from the sweep is written down in ``docs/flow.md``: supplies are stiff in every sequence, and a transformer
in unbalanced use has its whole leakage, without magnetising branch, in the zero sequence.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from power_grid_model import ComponentType, LoadGenType, PowerGridModel, WindingType, initialize_array
from power_grid_model.errors import PowerGridError  # type: ignore[attr-defined] # documented, though not in __all__

from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.graph import components
from powerd.network.models import BASE_KVA, transformer_pi
from powerd.network.phasors import Complex
from powerd.network.supply import energise
from powerd.network.taken import SWITCH_PU, CannotSolve, Drawn, Flow
from powerd.units import SQRT3

#: Voltage error at which a solution counts [pu].
TOLERANCE_PU = 1e-10
#: Rounds in which currents between phases find their power; each gains two digits or more.
MOST_ROUNDS = 30
#: Movement of a voltage at which they have [pu].
SETTLED_PU = 1e-9
#: Short-circuit power that means "stiff" [VA].
STIFF_VA = 1e30

_WINDINGS = {
    "D": WindingType.delta, "d": WindingType.delta, "Y": WindingType.wye, "y": WindingType.wye,
    "YN": WindingType.wye_n, "yn": WindingType.wye_n, "Z": WindingType.zigzag, "z": WindingType.zigzag,
    "ZN": WindingType.zigzag_n, "zn": WindingType.zigzag_n,
}  # fmt: skip

Columns = npt.NDArray[Any]


class MeshedFlow:
    """The power flow of any switching state, its data laid out once."""

    def __init__(self, electrical: Electrical, closed: Bools) -> None:
        """Lay out the state.

        Args:
            electrical: the compiled drawing.
            closed: (E,) switch positions; only read where ``switchable``.
        """
        self._electrical = electrical
        live = energise(electrical, closed)
        self._live: Bools = live.bus_is_live
        self._bus: Ints = np.flatnonzero(self._live)
        self._branch: Ints = np.flatnonzero(live.conducting & self._live[electrical.branches.from_bus])
        self._supply: Ints = np.flatnonzero(electrical.supplies.in_service & self._live[electrical.supplies.bus])
        self._rated = _rated_volts(electrical, self._branch)

    def solve(self, drawn: Drawn) -> Flow:
        """Voltages, currents and imports when the buses take ``drawn``.

        Raises:
            CannotSolve: no solution was found.
        """
        try:
            return self._balanced(drawn) if drawn.is_balanced else self._unbalanced(drawn)
        except PowerGridError as fault:
            raise CannotSolve(f"the power flow has no solution: {str(fault).splitlines()[0]}") from fault

    def _balanced(self, drawn: Drawn) -> Flow:
        """One phase for all, with the very pi circuits of the sweep."""
        at = self._bus
        level = drawn.balanced_kw + drawn.load_kw.sum(axis=1) + 1j * drawn.load_kvar.sum(axis=1)
        cars = SQRT3 * drawn.wye_a[:, 0] * self._rated / 1000
        data = self.network(balanced=True)
        data[ComponentType.sym_load] = np.concatenate(
            [_loads("sym_load", at, 0, level[at], LoadGenType.const_power),
             _loads("sym_load", at, 1, cars[at].astype(np.complex128), LoadGenType.const_current)]
        )  # fmt: skip
        return self._flow(data, symmetric=True)

    def _unbalanced(self, drawn: Drawn) -> Flow:
        """Three phases; currents between phases become powers to neutral at the voltages they themselves cause."""
        at, nominal = self._bus, self._electrical.buses.voltage_v[:, None]
        power = drawn.load_kw + drawn.balanced_kw[:, None] / 3 + 1j * drawn.load_kvar
        cars = drawn.wye_a * self._rated[:, None] / SQRT3 / 1000
        data = self.network(balanced=False)
        between, before = np.zeros((2, nominal.shape[0], 3), dtype=np.complex128)
        for _ in range(MOST_ROUNDS):
            data[ComponentType.asym_load] = np.concatenate(
                [_loads("asym_load", at, 0, (power + between)[at], LoadGenType.const_power),
                 _loads("asym_load", at, 1, cars[at].astype(np.complex128), LoadGenType.const_current)]
            )  # fmt: skip
            flow = self._flow(data, symmetric=False)
            voltage = np.nan_to_num(flow.voltage_pu)
            if not drawn.delta_a.any() or np.abs(voltage - before).max() < SETTLED_PU:
                return flow
            before, between = voltage, _between(voltage * nominal / SQRT3, drawn.delta_a)
        raise CannotSolve(f"voltages still move after {MOST_ROUNDS} rounds: a load far above its feeder")

    def network(self, *, balanced: bool) -> dict[ComponentType, Columns]:
        """power-grid-model's input, all but the loads; a bus keeps its index as id."""
        wound = self._electrical.branches.kind[self._branch] == BranchKind.TRANSFORMER
        data = {
            ComponentType.node: self._nodes(),
            ComponentType.line: self._lines(self._branch[~wound]),
            ComponentType.source: self._sources(),
        }
        index = self._branch[wound]
        if balanced:
            data[ComponentType.generic_branch] = self._circuits(index)
        else:
            data[ComponentType.transformer] = self._transformers(index)
        return _numbered({kind: rows for kind, rows in data.items() if rows.shape[0]})

    def _nodes(self) -> Columns:
        node = initialize_array("input", ComponentType.node, self._bus.shape[0])
        node["id"], node["u_rated"] = self._bus, self._rated[self._bus]
        return node

    def _ends(self, rows: Columns, index: Ints) -> Columns:
        """Identity and ends of branches."""
        branches = self._electrical.branches
        rows["id"] = index
        rows["from_node"], rows["to_node"] = branches.from_bus[index], branches.to_bus[index]
        rows["from_status"], rows["to_status"] = 1, 1
        return rows

    def _lines(self, index: Ints) -> Columns:
        """Feeders, and closed switches of next to no impedance."""
        of, branches = self._electrical.impedances, self._electrical.branches
        contact = np.where(branches.switchable, SWITCH_PU, 0.0)[index]
        contact = contact * self._electrical.buses.voltage_v[branches.from_bus[index]] ** 2 / (BASE_KVA * 1000)
        line = self._ends(initialize_array("input", ComponentType.line, index.shape[0]), index)
        for name, ohm in (("r1", of.r_ohm), ("x1", of.x_ohm), ("r0", of.r0_ohm), ("x0", of.x0_ohm)):
            line[name] = ohm[index] + contact
        line["c1"], line["c0"] = of.c_nf[index] * 1e-9, of.c_nf[index] * 1e-9
        line["tan1"], line["tan0"], line["i_n"] = 0.0, 0.0, 1.0
        return line

    def _circuits(self, index: Ints) -> Columns:
        """Transformers as the pi circuits of the sweep, in ohm at the low side."""
        branches, of = self._electrical.branches, self._electrical.impedances
        rows = self._ends(initialize_array("input", ComponentType.generic_branch, index.shape[0]), index)
        for row, e in enumerate(index.tolist()):
            series, shunt = transformer_pi(self._electrical, e, float(of.low_v[e]))
            ohm = of.low_v[e] ** 2 / (BASE_KVA * 1000)
            rows["r1"][row], rows["x1"][row] = series.real * ohm, series.imag * ohm
            rows["g1"][row], rows["b1"][row] = 2 * shunt.real / ohm, 2 * shunt.imag / ohm
        ratio = branches.turns_ratio[index]
        rows["k"] = ratio * self._rated[branches.to_bus[index]] / self._rated[branches.from_bus[index]]
        rows["theta"], rows["sn"] = branches.clock[index] * np.pi / 6, of.rated_kva[index] * 1000
        return rows

    def _transformers(self, index: Ints) -> Columns:
        """Transformers with their windings."""
        branches, of = self._electrical.branches, self._electrical.impedances
        rows = self._ends(initialize_array("input", ComponentType.transformer, index.shape[0]), index)
        letters = [re.fullmatch(r"([A-Z]+)([a-z]+)", of.vector_group[e]) for e in index.tolist()]
        rows["winding_from"] = [_WINDINGS[m[1]] for m in letters if m]
        rows["winding_to"] = [_WINDINGS[m[2]] for m in letters if m]
        rows["clock"] = branches.clock[index]
        rows["u1"], rows["u2"] = branches.turns_ratio[index] * of.low_v[index], of.low_v[index]
        rows["sn"], rows["uk"] = of.rated_kva[index] * 1000, of.vk_percent[index] / 100
        rows["pk"] = of.vkr_percent[index] / 100 * of.rated_kva[index] * 1000
        rows["p0"], rows["i0"] = of.iron_loss_kw[index] * 1000, of.no_load_current_percent[index] / 100
        # The tap is part of u1.
        rows["tap_side"], rows["tap_pos"], rows["tap_nom"] = 0, 0, 0
        rows["tap_min"], rows["tap_max"], rows["tap_size"] = 0, 0, 0.0
        return rows

    def _sources(self) -> Columns:
        supplies = self._electrical.supplies
        source = initialize_array("input", ComponentType.source, self._supply.shape[0])
        source["id"], source["status"], source["sk"] = self._supply, 1, STIFF_VA
        at = supplies.bus[self._supply]
        source["node"] = at
        source["u_ref"] = supplies.voltage_pu[self._supply] * self._electrical.buses.voltage_v[at] / self._rated[at]
        return source

    def _flow(self, data: dict[ComponentType, Columns], *, symmetric: bool) -> Flow:
        """Solve and bring the results to the drawing's columns."""
        electrical = self._electrical
        model = PowerGridModel(data, system_frequency=electrical.frequency_hz)
        found = model.calculate_power_flow(symmetric=symmetric, error_tolerance=TOLERANCE_PU, max_iterations=100)
        turn = np.exp(-2j * np.pi / 3 * np.arange(3)) if symmetric else np.ones(3)
        node = found[ComponentType.node]
        size, angle = (node[name].reshape(self._bus.shape[0], -1) for name in ("u_pu", "u_angle"))
        voltage = np.full((electrical.buses.voltage_v.shape[0], 3), np.nan + 0j)
        scale = (self._rated / electrical.buses.voltage_v)[self._bus]
        voltage[self._bus] = size * np.exp(1j * angle) * turn * scale[:, None]
        ends = np.zeros((2, electrical.branches.kind.shape[0], 3))
        for kind in (ComponentType.line, ComponentType.transformer, ComponentType.generic_branch):
            if kind in data:
                index = data[kind]["id"] - _FIRST_BRANCH
                for side, name in enumerate(("i_from", "i_to")):
                    ends[side, index] = found[kind][name].reshape(index.shape[0], -1)
        power = np.zeros(len(electrical.supplies.ids))
        power[self._supply] = found[ComponentType.source]["p"].reshape(self._supply.shape[0], -1).sum(axis=1) / 1000
        return Flow(from_a=ends[0], to_a=ends[1], voltage_pu=voltage, import_kw=power)


#: Ids must be unique over all kinds: buses first, then branches, supplies and loads.
_FIRST_BRANCH, _FIRST_SUPPLY, _FIRST_LOAD = 10_000_000, 20_000_000, 30_000_000


def _numbered(data: dict[ComponentType, Columns]) -> dict[ComponentType, Columns]:
    """The same rows with ids that are unique over all kinds."""
    first = {ComponentType.node: 0, ComponentType.source: _FIRST_SUPPLY}
    for kind, rows in data.items():
        rows["id"] += first.get(kind, _FIRST_BRANCH)
    return data


def _loads(kind: str, bus: Ints, half: int, power_kva: Complex, sort: LoadGenType) -> Columns:
    """Loads at ``bus``; two sorts share the ids, ``half`` 0 and 1."""
    rows = initialize_array("input", kind, bus.shape[0])
    rows["id"], rows["node"], rows["status"], rows["type"] = _FIRST_LOAD + 2 * bus + half, bus, 1, sort
    rows["p_specified"], rows["q_specified"] = power_kva.real * 1000, power_kva.imag * 1000
    return rows


def _between(volts: Complex, amps: Floats) -> Complex:
    """(B, 3) power to neutral [kVA] of constant currents ``amps`` (B, 3) between phases, in phase with the voltage."""
    pair = volts - np.roll(volts, -1, axis=1)
    size = np.abs(pair)
    along = amps * np.divide(pair, size, out=np.zeros_like(pair), where=size > 0)
    power: Complex = volts * (along - np.roll(along, 1, axis=1)).conj() / 1000
    return power


def _rated_volts(electrical: Electrical, branch: Ints) -> Floats:
    """(B,) one nominal voltage for all buses that lines join: the first one's; power-grid-model asks for equal ones."""
    branches, count = electrical.branches, electrical.buses.voltage_v.shape[0]
    plain = branch[branches.kind[branch] != BranchKind.TRANSFORMER]
    label = components(count, branches.from_bus[plain], branches.to_bus[plain])
    first = np.unique(label, return_index=True)[1]
    rated: Floats = electrical.buses.voltage_v[first][label]
    return rated
