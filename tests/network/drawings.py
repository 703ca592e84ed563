"""Small drawings as columns, for tests that must not depend on the loader."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from powerd.limits import Controllers, Posts
from powerd.network.electrical import (
    Branches,
    BranchKind,
    Buses,
    Electrical,
    Impedances,
    Loads,
    MeterPoints,
    Supplies,
)
from powerd.network.operation import Operation
from powerd.network.tolerance import Overload

NAN = float("nan")
CONNECTIONS: dict[str, tuple[float, float, float]] = {
    "l1": (0.0, NAN, NAN),
    "l2": (NAN, -120.0, NAN),
    "l3": (NAN, NAN, 120.0),
    "l12": (30.0, -150.0, NAN),
    "l23": (NAN, -90.0, 90.0),
    "l31": (-30.0, NAN, 150.0),
    "l123": (0.0, -120.0, 120.0),
    "unknown": (0.0, -120.0, 120.0),
    "dc": (0.0, -120.0, 120.0),
}
KW_PER_VOLT = {"l1": 1 / 3**0.5, "l2": 1 / 3**0.5, "l3": 1 / 3**0.5, "unknown": 1 / 3**0.5, "l123": 3**0.5}


@dataclass
class Drawing:
    """A drawing in the making; every ``add`` method appends one element."""

    buses: list[tuple[str, float]] = field(default_factory=list)
    branches: list[tuple[str, BranchKind, int, int, float, float, float, str, int, bool, bool]] = field(
        default_factory=list
    )
    supplies: list[tuple[str, int, float, bool]] = field(default_factory=list)
    loads: list[tuple[str, int, float, int]] = field(default_factory=list)
    evses: list[tuple[str, int, str]] = field(default_factory=list)
    site_import_limit_kw: float = float("inf")
    imbalance: dict[int, float] = field(default_factory=dict)
    """Bus index -> most by which two phases may differ [A]."""
    neutral: dict[int, float] = field(default_factory=dict)
    """Branch index -> rating of its neutral [A]."""

    def bus(self, volts: float = 400.0) -> int:
        """A bus; returns its index."""
        self.buses.append((f"b{len(self.buses)}", volts))
        return len(self.buses) - 1

    def feeder(self, a: int, b: int, amps: float = NAN) -> int:
        """A feeder."""
        return self._branch(BranchKind.FEEDER, a, b, amps, amps, 1.0, "", 0, False, True)

    def switch(self, a: int, b: int, amps: float = NAN, *, closed: bool = True) -> int:
        """A switch."""
        return self._branch(BranchKind.SWITCH, a, b, amps, amps, 1.0, "", 0, True, closed)

    def transformer(self, a: int, b: int, high: float = NAN, low: float = NAN, group: str = "Dyn11") -> int:
        """A transformer whose ratio is that of its buses."""
        ratio = self.buses[a][1] / self.buses[b][1]
        clock = int(group.lstrip("DYZNdyzn"))
        letters = group.rstrip("0123456789")
        return self._branch(BranchKind.TRANSFORMER, a, b, high, low, ratio, letters, clock, False, True)

    def _branch(
        self, kind: BranchKind, a: int, b: int, cap_a: float, cap_b: float, ratio: float, group: str, clock: int,
        switchable: bool, closed: bool,
    ) -> int:  # fmt: skip
        name = f"{kind.name.lower()}{len(self.branches)}"
        self.branches.append((name, kind, a, b, cap_a, cap_b, ratio, group, clock, switchable, closed))
        return len(self.branches) - 1

    def supply(self, bus: int, limit_kw: float = float("inf"), *, in_service: bool = True) -> int:
        """A supply."""
        self.supplies.append((f"s{len(self.supplies)}", bus, limit_kw, in_service))
        return len(self.supplies) - 1

    def load(self, bus: int, worst_kw: float, phases: int = 7) -> int:
        """An uncontrolled load."""
        self.loads.append((f"d{len(self.loads)}", bus, worst_kw, phases))
        return len(self.loads) - 1

    def evse(self, bus: int, connection: str) -> int:
        """An EVSE; ``dc`` is a rectifier of efficiency and power factor 1."""
        self.evses.append((f"e{len(self.evses)}", bus, connection))
        return len(self.evses) - 1

    def electrical(self) -> Electrical:
        """The drawing compiled."""
        volts = np.array([b[1] for b in self.buses])
        bus = np.array([e[1] for e in self.evses], dtype=np.int64)
        dc = np.array([e[2] == "dc" for e in self.evses], dtype=bool)
        amps = np.where(dc, 1000.0 / (np.sqrt(3) * 0.9 * volts[bus]), 1.0) if self.evses else np.zeros(0)
        deg = np.array([CONNECTIONS[e[2]] for e in self.evses]).reshape(-1, 3)
        return Electrical(
            site_id="site",
            buses=Buses(
                ids=tuple(b[0] for b in self.buses),
                voltage_v=volts,
                in_service=np.ones(len(volts), bool),
                max_imbalance_a=np.array([self.imbalance.get(k, NAN) for k in range(len(volts))]),
            ),
            branches=self._branches(),
            operation=Operation.none(len(self.branches)),
            impedances=self._impedances(),
            overload=(Overload(devices=()),) * len(self.branches),
            supplies=Supplies(
                ids=tuple(s[0] for s in self.supplies),
                bus=np.array([s[1] for s in self.supplies], dtype=np.int64),
                import_limit_kw=np.array([s[2] for s in self.supplies], dtype=float),
                in_service=np.array([s[3] for s in self.supplies], dtype=bool),
                standby=np.array([not s[3] for s in self.supplies], dtype=bool),
                voltage_pu=np.ones(len(self.supplies)),
                short_circuit_mva=np.full(len(self.supplies), 1000.0),
                rx_ratio=np.full(len(self.supplies), 0.1),
                source=("test",) * len(self.supplies),
            ),
            loads=Loads(
                ids=tuple(d[0] for d in self.loads),
                bus=np.array([d[1] for d in self.loads], dtype=np.int64),
                typical_kw=np.array([d[2] / 2 for d in self.loads], dtype=float),
                worst_kw=np.array([d[2] for d in self.loads], dtype=float),
                power_factor=np.ones(len(self.loads)),
                phase_bits=np.array([d[3] for d in self.loads], dtype=np.int64),
                critical=np.zeros(len(self.loads), dtype=bool),
                pickup_factor=np.ones(len(self.loads)),
            ),
            meters=MeterPoints.none(),
            posts=self._posts(volts, bus, dc),
            controllers=Controllers(
                ids=("c",),
                ttl_s=np.array([15.0]),
                reaction_s=np.array([5.0]),
                watchdog_s=np.zeros(1),
                drift=np.array([1e-3]),
            ),
            evse_bus=bus,
            evse_phasor_deg=deg,
            evse_unknown=np.array([e[2] == "unknown" for e in self.evses], dtype=bool),
            evse_in_step=dc,
            evse_detects=np.zeros(len(self.evses), dtype=bool),
            evse_switches=np.zeros(len(self.evses), dtype=bool),
            evse_rotation=np.zeros(len(self.evses), dtype=np.int64),
            evse_amps_per_unit=amps,
            evse_ramp=np.full(len(self.evses), np.inf),
            site_import_limit_kw=self.site_import_limit_kw,
            site_import_source="test",
            min_envelope_kw=NAN,
            failsafe_limit_kw=NAN,
            frequency_hz=50.0,
            interlocks=(),
            parallel_supplies=False,
            max_min=False,
            term_files=(),
        )

    def _branches(self) -> Branches:
        columns = list(zip(*self.branches, strict=True)) if self.branches else [()] * 11
        return Branches(
            ids=tuple(columns[0]),
            kind=np.array(columns[1], dtype=np.int64),
            from_bus=np.array(columns[2], dtype=np.int64),
            to_bus=np.array(columns[3], dtype=np.int64),
            capacity_from_a=np.array(columns[4], dtype=float),
            capacity_to_a=np.array(columns[5], dtype=float),
            neutral_a=np.array([self.neutral.get(k, NAN) for k in range(len(columns[0]))], dtype=float),
            turns_ratio=np.array(columns[6], dtype=float),
            high_delta=np.array([g.startswith("D") for g in columns[7]], dtype=bool),
            clock=np.array(columns[8], dtype=np.int64),
            in_service=np.ones(len(columns[0]), dtype=bool),
            switchable=np.array(columns[9], dtype=bool),
            normally_closed=np.array(columns[10], dtype=bool),
            source=("test",) * len(columns[0]),
        )

    def _impedances(self) -> Impedances:
        """Feeders of 0.02 ohm (zero sequence four times that); transformers of 1 MVA and 4 % without iron loss."""
        wound = np.array([b[1] is BranchKind.TRANSFORMER for b in self.branches], dtype=bool)
        line = np.array([b[1] is BranchKind.FEEDER for b in self.branches], dtype=float)
        zero = np.zeros(len(self.branches))
        return Impedances(
            length_km=line * 0.1,
            r_ohm=line * 0.02,
            x_ohm=line * 0.01,
            r0_ohm=line * 0.08,
            x0_ohm=line * 0.04,
            c_nf=zero,
            rated_kva=np.where(wound, 1000.0, 0.0),
            high_v=np.array([self.buses[b[2]][1] for b in self.branches]) * wound,
            low_v=np.array([self.buses[b[3]][1] for b in self.branches]) * wound,
            vk_percent=np.where(wound, 4.0, 0.0),
            vkr_percent=np.where(wound, 1.0, 0.0),
            iron_loss_kw=zero,
            no_load_current_percent=zero,
            vector_group=tuple(b[7] for b in self.branches),
        )

    def _posts(self, volts: np.ndarray, bus: np.ndarray, dc: np.ndarray) -> Posts:
        n = len(self.evses)
        kw = np.array([1.0 if e[2] == "dc" else KW_PER_VOLT.get(e[2], 1.0) * volts[e[1]] / 1000 for e in self.evses])
        return Posts(
            ids=tuple(e[0] for e in self.evses),
            is_dc=dc,
            min_ceiling=np.where(dc, 0.0, 6.0),
            max_ceiling=np.where(dc, 150.0, 32.0),
            pilot_steps=(np.zeros(0),) * n,
            fallback=np.zeros(n),
            fallback_idle=np.zeros(n),
            boot_current=np.zeros(n),
            phase_count=np.full(n, 3, dtype=np.int64),
            kw_per_unit=kw,
            controller=np.zeros(n, dtype=np.int64),
        )
