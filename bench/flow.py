"""``python -m bench flow``: the sweep against pandapower, power-grid-model and lightsim2grid on one radial network.

A 20 kV random tree with 8 MW of constant-power load. Every engine has its network laid out and takes new loads each
round, one after the other in one process, from a flat start unless its name says otherwise. What is timed is from loads
to voltages in the engine's own form; writing them as phasors by bus, which only the comparison needs, is not. ``dv_pu``
is the largest difference of a voltage phasor from power-grid-model's Newton at 1e-12.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandapower as pp
from lightsim2grid.network import init_from_pandapower  # type: ignore[import-untyped]
from power_grid_model import CalculationMethod, ComponentType, PowerGridModel, initialize_array

from bench.sites import tree
from powerd.limits import Floats
from powerd.network.build import build_net, put
from powerd.network.electrical import Electrical
from powerd.network.flow import RadialFlow
from powerd.network.meshed import MeshedFlow
from powerd.network.supply import normal_positions
from powerd.network.taken import drawn_at_buses

PACKAGES = ("numpy", "numba", "pandapower", "power-grid-model", "lightsim2grid")

#: Rounds per size.
ROUNDS = {100: 300, 1000: 200, 10000: 40}
#: An engine that has used this many seconds on one size solves no more (at least three times).
SECONDS = 15.0
#: In each round an engine solves these shares of the round's loads in a row, as a tick and a study do: the first finds
#: the processor's caches full of the engine before it. Each counts by itself.
IN_A_ROW = (0.97, 1.03, 1.0)
#: What every engine may leave [pu].
TOLERANCE_PU = 1e-8

Row = dict[str, object]
Phasors = npt.NDArray[np.complex128]


class Engine(Protocol):
    """A power flow of one network."""

    def solve(self, loads_kw: Floats) -> None:
        """Find the voltages for loads (D,)."""

    def voltages(self) -> Phasors:
        """(B,) the voltages last found, by bus [pu]."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--sizes", default="100,1000,10000", help="bus counts, comma-separated")
    parser.add_argument("--rounds", type=int, default=0, help="rounds per size; 0 = as many as fit the size")


class Powerd:
    """Our sweep of one sequence, the columns gathered anew."""

    def __init__(self, electrical: Electrical) -> None:
        self._electrical = electrical
        self._flow = RadialFlow(electrical, normal_positions(electrical))
        self._nothing = np.zeros(electrical.evse_count)

    def solve(self, loads_kw: Floats) -> None:
        """Gather and sweep."""
        drawn = drawn_at_buses(self._electrical, self._nothing, loads_kw=loads_kw)
        self._v, *_ = self._flow.single(self._flow.columns(drawn))

    def voltages(self) -> Phasors:
        """From the order of the sweep to that of the drawing."""
        voltage = np.empty(self._v.shape[1], dtype=np.complex128)
        voltage[self._flow.ladder.bus] = self._v[0] + 1j * self._v[1]
        return voltage


class Sweep(Powerd):
    """The kernel alone, its columns gathered once: what a tick that keeps its columns pays."""

    def __init__(self, electrical: Electrical) -> None:
        super().__init__(electrical)
        drawn = drawn_at_buses(electrical, self._nothing, loads_kw=electrical.loads.worst_kw)
        self._columns = self._flow.columns(drawn)
        self._scaled = np.empty_like(self._columns)
        self._worst = electrical.loads.worst_kw[0]

    def solve(self, loads_kw: Floats) -> None:
        """All loads move together in this bench, so that the columns only need a factor."""
        np.multiply(self._columns, loads_kw[0] / self._worst, out=self._scaled)
        self._v, *_ = self._flow.single(self._scaled)


class GridModel:
    """power-grid-model: the model is kept, its loads updated."""

    def __init__(self, electrical: Electrical, method: CalculationMethod, tolerance: float = TOLERANCE_PU) -> None:
        self._q = np.tan(np.arccos(electrical.loads.power_factor))
        self._method, self._tolerance = method, tolerance
        data = MeshedFlow(electrical, normal_positions(electrical)).network(balanced=True)
        load = initialize_array("input", ComponentType.sym_load, len(electrical.loads.ids))
        load["id"], load["node"] = 40_000_000 + np.arange(load.shape[0]), electrical.loads.bus
        load["status"], load["type"], load["p_specified"], load["q_specified"] = 1, 0, 0.0, 0.0
        self._model = PowerGridModel({**data, ComponentType.sym_load: load})
        self._update = initialize_array("update", ComponentType.sym_load, load.shape[0])
        self._update["id"] = load["id"]

    def solve(self, loads_kw: Floats) -> None:
        """Update and calculate."""
        self._update["p_specified"], self._update["q_specified"] = loads_kw * 1000, loads_kw * 1000 * self._q
        self._model.update(update_data={ComponentType.sym_load: self._update})
        self._found = self._model.calculate_power_flow(
            symmetric=True, error_tolerance=self._tolerance, max_iterations=100, calculation_method=self._method,
            output_component_types=[ComponentType.node],
        )  # fmt: skip

    def voltages(self) -> Phasors:
        """Its nodes are our buses."""
        node = self._found[ComponentType.node]
        voltage: Phasors = node["u_pu"] * np.exp(1j * node["u_angle"])
        return voltage


class Pandapower:
    """``runpp``, from a flat start or from its last result."""

    def __init__(self, electrical: Electrical, init: str) -> None:
        self._init = init
        self._at = electrical.loads.bus
        self._q = np.tan(np.arccos(electrical.loads.power_factor))
        self.built = build_net(electrical, normal_positions(electrical))
        self._none = np.zeros((electrical.buses.voltage_v.shape[0], 3))

    def solve(self, loads_kw: Floats) -> None:
        """Write the loads into its tables and run."""
        kw, kvar = self._none[:, 0].copy(), self._none[:, 0].copy()
        kw[self._at], kvar[self._at] = loads_kw, loads_kw * self._q
        none = self._none
        put(self.built, star_kw=none, star_kvar=none, delta_kw=none, level_kw=kw, level_kvar=kvar)
        init = self._init if len(self.built.net.res_bus) else "flat"
        pp.runpp(self.built.net, calculate_voltage_angles=True, init=init)

    def voltages(self) -> Phasors:
        """From its table of results."""
        found = self.built.net.res_bus
        voltage: Phasors = found.vm_pu.to_numpy() * np.exp(1j * np.radians(found.va_degree.to_numpy()))
        return voltage


class LightSim:
    """lightsim2grid's own Newton on the grid it reads from pandapower."""

    def __init__(self, electrical: Electrical) -> None:
        source = Pandapower(electrical, "flat")
        source.solve(electrical.loads.worst_kw)
        self._q = np.tan(np.arccos(electrical.loads.power_factor))
        net = source.built.net
        net.asymmetric_load.drop(net.asymmetric_load.index, inplace=True)
        self._grid = init_from_pandapower(net)
        position = {int(bus): k for k, bus in enumerate(net.load.bus)}
        self._load = np.array([position[int(bus)] for bus in electrical.loads.bus])
        self._start = np.ones(electrical.buses.voltage_v.shape[0], dtype=np.complex128)

    def solve(self, loads_kw: Floats) -> None:
        """Change each load and solve."""
        for k, p, q in zip(self._load.tolist(), (loads_kw / 1000).tolist(), (loads_kw * self._q / 1000).tolist(),
                           strict=True):  # fmt: skip
            self._grid.change_p_load(k, p)
            self._grid.change_q_load(k, q)
        self._found: Phasors = self._grid.ac_pf(self._start.copy(), 20, TOLERANCE_PU)

    def voltages(self) -> Phasors:
        """As it gives them."""
        return self._found


def measure(count: int, rounds: int) -> list[Row]:
    """All engines on one size."""
    electrical = tree(count)
    judge = GridModel(electrical, CalculationMethod.newton_raphson, 1e-12)
    engines: dict[str, Engine] = {
        "powerd": Sweep(electrical),
        "powerd, from loads": Powerd(electrical),
        "power-grid-model, newton": GridModel(electrical, CalculationMethod.newton_raphson),
        "power-grid-model, iterative current": GridModel(electrical, CalculationMethod.iterative_current),
        "pandapower runpp": Pandapower(electrical, "flat"),
        "pandapower runpp, init results": Pandapower(electrical, "results"),
        "lightsim2grid": LightSim(electrical),
    }
    for engine in engines.values():
        engine.solve(electrical.loads.worst_kw)  # compiles, and sets up what is kept
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    apart = dict.fromkeys(engines, 0.0)
    rng = np.random.default_rng(0)
    for _ in range(rounds or ROUNDS.get(count, 40)):
        loads = electrical.loads.worst_kw * rng.uniform(0.5, 1.0)
        judge.solve(loads)
        truth = judge.voltages()
        for name, engine in engines.items():
            if len(seconds[name]) < 3 or sum(seconds[name]) < SECONDS:
                for own in [share * loads for share in IN_A_ROW]:
                    before = perf_counter()
                    engine.solve(own)
                    seconds[name].append(perf_counter() - before)
                apart[name] = max(apart[name], float(np.abs(engine.voltages() - truth).max()))
    return [_row(count, name, np.array(seconds[name]) * 1e3, apart[name]) for name in engines]


def _row(count: int, engine: str, times_ms: Floats, apart: float) -> Row:
    """The JSON row."""
    return {
        "case": "radial, balanced",
        "engine": engine,
        "n": count,
        "median_ms": round(float(np.median(times_ms)), 4),
        "p99_ms": round(float(np.percentile(times_ms, 99)), 4),
        "solutions": times_ms.shape[0],
        "dv_pu": float(f"{apart:.2g}"),
    }


def run(arguments: argparse.Namespace) -> list[Row]:
    """All sizes."""
    warnings.simplefilter("ignore")  # pandapower warns about its own pandas use, on every call
    rows: list[Row] = []
    for count in (int(size) for size in arguments.sizes.split(",")):
        print(f"{count} buses ...", file=sys.stderr)
        rows += measure(count, arguments.rounds)
    return rows
