"""Numbers that cannot be meant: unit slips, ratings that are missing, voltages that do not fit together.

The bounds of a unit slip are wide on purpose: what they refuse is a factor of 1000, not an unusual site.
"""

from __future__ import annotations

import math

from powerd.faults import Severity
from powerd.network.drawing import Drawing, Findings
from powerd.network.parts import vector_letters
from powerd.site.codes import Code
from powerd.site.schema import Feeder, GridConnection, Load, SiteFile, Transformer
from powerd.site.tree import Path
from powerd.units import SQRT3

#: Below the lowest voltage that feeds an EVSE, above the highest that a site is connected to [V].
VOLTS = (50.0, 150_000.0)
#: Below this a bus is low voltage [V] (IEC 60050-601: 1 kV).
LOW_VOLTAGE_V = 1000.0
#: Transformers: none is smaller or, below 1 kV on one side, larger [kVA]; 6.3 MVA at 400 V would be 9 kA.
KVA_LOW_VOLTAGE = (1.0, 6_300.0)
KVA = (1.0, 150_000.0)
#: By how much two phases may differ [kVA]; VDE-AR-N 4100 says 4.6.
KVA_IMBALANCE = (0.5, 500.0)
#: Loads and supplies [kW].
KW = 1_000_000.0
#: An import limit of so many times all that is drawn behind it is no limit: W where kW belongs.
TIMES_MOST = 100.0
#: Cable lengths [m]; half a metre is no cable, 3 km at low voltage carries nothing.
METRES_LOW_VOLTAGE = (0.5, 3_000.0)
METRES = (0.5, 60_000.0)
#: Currents of devices and conductors [A]; busbar trunking ends at 6.3 kA.
AMPERES = (1.0, 20_000.0)
#: Less than a thousandth of the thickest busbar's: nobody's cable [ohm/km].
MIN_OHM_PER_KM = 1e-6
#: How far two buses joined by a conductor may differ, and a winding from its bus.
SAME_VOLTAGE = 0.02
WINDING = 0.15


def find_rating_faults(drawing: Drawing, findings: Findings, clouded: frozenset[str]) -> None:
    """Faults of single numbers and of neighbours; ``clouded`` elements have faults of shape: they miss nothing."""
    site = drawing.site
    volts = {  # of a bus whose voltage is a slip nothing else is said: it would be mended in the wrong place
        bus.id: bus.voltage_v
        for index, bus in enumerate(site.buses)
        if not _voltage_slip(findings, ("buses", index, "voltage_v"), bus.id, bus.voltage_v)
    }
    for index, transformer in enumerate(site.transformers):
        _transformer(transformer, index, volts, findings)
    for index, feeder in enumerate(site.feeders):
        _feeder(feeder, index, volts, drawing, findings, clouded)
    _switches(site, volts, findings)
    _balance(site, findings)
    for index, load in enumerate(site.loads):
        _load(load, index, findings)
    _edge(site, _most_kw(drawing), findings)


def _voltage_slip(findings: Findings, path: Path, element: str, volts: float) -> bool:
    low, high = VOLTS
    if low <= volts <= high:
        return False
    meant = f"write {volts * 1000:g} if {volts:g} kV is meant" if volts < low else f"write {volts / 1000:g} if meant"
    findings.add(Code.UNIT_SLIP_VOLTAGE, path, element, f"{path[-1]} is {volts:g} V", f"volts, line-to-line: {meant}")
    return True


Bounds = tuple[float, float]


def _slip(
    findings: Findings, code: Code, path: Path, element: str, value: float | None, bounds: Bounds, unit: str
) -> None:
    """A value outside ``bounds``, with the factor of 1000 that would bring it back."""
    low, high = bounds
    if value is None or low <= value <= high:
        return
    meant = value * 1000 if value < low else value / 1000
    mend = f"write it in {unit}: {meant:g} if the unit slipped by a factor of 1000"
    findings.add(code, path, element, f"{path[-1]} is {value:g} {unit}", mend)


def _transformer(t: Transformer, index: int, volts: dict[str, float], findings: Findings) -> None:
    path: Path = ("transformers", index)
    high, low = volts.get(t.high_bus), volts.get(t.low_bus)
    bounds = KVA_LOW_VOLTAGE if min(high or low or 0.0, low or high or 0.0) < LOW_VOLTAGE_V else KVA
    _slip(findings, Code.UNIT_SLIP_POWER, (*path, "rated_power_kva"), t.id, t.rated_power_kva, bounds, "kVA")
    for side in ("rated_current_high_a", "rated_current_low_a"):
        _slip(findings, Code.UNIT_SLIP_CURRENT, (*path, side), t.id, getattr(t, side), AMPERES, "A")
    if t.high_bus == t.low_bus:
        findings.add(Code.SAME_BUS, (*path, "low_bus"), t.id, f"both sides are on {t.high_bus}", "name two buses")
    elif high is not None and low is not None and high < low:
        message = f"high_bus {t.high_bus} has {high:g} V, low_bus {t.low_bus} has {low:g} V"
        findings.add(Code.TRANSFORMER_UPSIDE_DOWN, (*path, "high_bus"), t.id, message, "swap high_bus and low_bus")
    for key, rated, bus, actual in (("high_v", t.high_v, t.high_bus, high), ("low_v", t.low_v, t.low_bus, low)):
        if rated is not None and actual is not None and abs(rated - actual) > WINDING * actual:
            message = f"{key} is {rated:g} V, but its bus {bus} has {actual:g} V"
            mend = f"write a {key} within {WINDING:.0%} of the bus's voltage, or leave it out"
            findings.add(Code.WINDING_VOLTAGE, (*path, key), t.id, message, mend)
    _short_circuit(t, path, findings)


def _short_circuit(t: Transformer, path: Path, findings: Findings) -> None:
    if t.vkr_percent > t.vk_percent:
        message = f"vkr_percent {t.vkr_percent:g} is above vk_percent {t.vk_percent:g}"
        mend = "vkr is the resistive part of vk; 1 is usual beside 6"
        findings.add(Code.RESISTANCE_ABOVE_IMPEDANCE, (*path, "vkr_percent"), t.id, message, mend)
    high, low, clock = vector_letters(t.vector_group)
    odd = (high.startswith("D") != low.startswith("d")) != (low.startswith("z") or high.startswith("Z"))
    if clock > 11 or odd != (clock % 2 == 1):
        message = f"there is no vector group {t.vector_group}"
        mend = f"{high}{low} goes with {'1, 5, 7 or 11' if odd else '0 or 6'}, e.g. {high}{low}{11 if odd else 0}"
        findings.add(Code.VECTOR_GROUP, (*path, "vector_group"), t.id, message, mend)


def _feeder(
    f: Feeder, index: int, volts: dict[str, float], drawing: Drawing, findings: Findings, clouded: frozenset[str]
) -> None:
    path: Path = ("feeders", index)
    cable = drawing.cable(f.cable) if f.cable is not None else None
    if f.cable is not None and cable is None:
        mend = "name a pandapower line type, e.g. NAYY 4x150 SE, or give r_ohm_per_km, x_ohm_per_km and ampacity_a"
        findings.add(Code.UNKNOWN_CABLE, (*path, "cable"), f.id, f"there is no cable type {f.cable}", mend)
    _same_voltage(findings, path, f.id, f.from_bus, f.to_bus, volts)
    if f.ampacity_a is not None and f.ampacity_a <= 0:
        message, mend = f"ampacity_a is {f.ampacity_a:g} A", "write a positive current, or leave it out"
        findings.add(Code.NEGATIVE_AMPACITY, (*path, "ampacity_a"), f.id, message, mend)
    else:
        _slip(findings, Code.UNIT_SLIP_CURRENT, (*path, "ampacity_a"), f.id, f.ampacity_a, AMPERES, "A")
    _slip(findings, Code.UNIT_SLIP_CURRENT, (*path, "breaker_a"), f.id, f.breaker_a, AMPERES, "A")
    if index < drawing.own.get("feeders", index + 1):
        voltage = volts.get(f.from_bus, volts.get(f.to_bus, VOLTS[1]))
        bounds = METRES_LOW_VOLTAGE if voltage < LOW_VOLTAGE_V else METRES
        _slip(findings, Code.UNIT_SLIP_LENGTH, (*path, "length_m"), f.id, f.length_m, bounds, "m")
        if f.cable is None and f.id not in clouded:
            _complete(f, path, findings)


def _balance(site: SiteFile, findings: Findings) -> None:
    """Imbalance and neutral limits: unit slips, and limits below the smallest current that any car charges with."""
    least = min((kind.min_current_a for kind in site.evse_types if kind.current == "ac"), default=0.0)
    for index, bus in enumerate(site.buses):
        if bus.max_imbalance_kva is not None:
            path: Path = ("buses", index, "max_imbalance_kva")
            _slip(findings, Code.UNIT_SLIP_POWER, path, bus.id, bus.max_imbalance_kva, KVA_IMBALANCE, "kVA")
            amps = bus.max_imbalance_kva * 1000 * SQRT3 / bus.voltage_v
            mend = f"write {least * bus.voltage_v / SQRT3 / 1000:.2g} or more, or leave it out"
            _too_tight(findings, path, bus.id, amps, least, mend)
    for index, feeder in enumerate(site.feeders):
        if feeder.neutral_ampacity_a is not None:
            path = ("feeders", index, "neutral_ampacity_a")
            _slip(findings, Code.UNIT_SLIP_CURRENT, path, feeder.id, feeder.neutral_ampacity_a, AMPERES, "A")
            amps = feeder.neutral_ampacity_a * feeder.parallel * feeder.temperature_factor
            _too_tight(findings, path, feeder.id, amps, least, f"write {least:g} or more, or leave it out")


def _too_tight(findings: Findings, path: Path, element: str, amps: float, least: float, mend: str) -> None:
    if amps < least:
        message = f"{path[-1]} leaves {amps:.3g} A; a one-phase car needs at least {least:g} A, so none can charge"
        findings.add(Code.BALANCE_BELOW_MINIMUM, path, element, message, mend, Severity.WARNING)


def _complete(f: Feeder, path: Path, findings: Findings) -> None:
    """A feeder without cable type has to bring impedance and rating itself."""
    if f.r_ohm_per_km is None or f.x_ohm_per_km is None or f.r_ohm_per_km + f.x_ohm_per_km < MIN_OHM_PER_KM:
        mend = "name a cable, or give r_ohm_per_km and x_ohm_per_km (0.2 and 0.08 for 150 mm2 aluminium)"
        findings.add(Code.MISSING_IMPEDANCE, path, f.id, "neither cable nor impedance is given", mend)
    if f.ampacity_a is None and f.breaker_a is None:
        mend = "name a cable, or give ampacity_a or breaker_a"
        findings.add(Code.MISSING_RATING, path, f.id, "nothing limits its current", mend)


def _same_voltage(findings: Findings, path: Path, element: str, a: str, b: str, volts: dict[str, float]) -> None:
    if a == b:
        findings.add(Code.SAME_BUS, path, element, f"both ends are on {a}", "name two buses")
        return
    one, other = volts.get(a), volts.get(b)
    if one is not None and other is not None and abs(one - other) > SAME_VOLTAGE * max(one, other):
        message = f"joins {a} ({one:g} V) and {b} ({other:g} V)"
        findings.add(Code.VOLTAGE_MISMATCH, path, element, message, "put a transformer between them, or mend a voltage")


def _switches(site: SiteFile, volts: dict[str, float], findings: Findings) -> None:
    for index, switch in enumerate(site.switches):
        path: Path = ("switches", index)
        _same_voltage(findings, path, switch.id, switch.from_bus, switch.to_bus, volts)
        rated = (*path, "rated_current_a")
        _slip(findings, Code.UNIT_SLIP_CURRENT, rated, switch.id, switch.rated_current_a, AMPERES, "A")
    for index, transfer in enumerate(site.transfer_switches):
        path = ("transfer_switches", index)
        ends = (transfer.preferred_bus, transfer.alternate_bus, transfer.load_bus)
        if len(set(ends)) < len(ends):
            mend = "name three different buses: preferred, alternate, load"
            findings.add(Code.SAME_BUS, path, transfer.id, "two of its sides are on one bus", mend)
        else:
            for end in ends[:2]:
                _same_voltage(findings, path, transfer.id, end, transfer.load_bus, volts)
        rated = (*path, "rated_current_a")
        _slip(findings, Code.UNIT_SLIP_CURRENT, rated, transfer.id, transfer.rated_current_a, AMPERES, "A")


def _load(load: Load, index: int, findings: Findings) -> None:
    path: Path = ("loads", index)
    for key in ("typical_kw", "worst_kw"):
        _slip(findings, Code.UNIT_SLIP_POWER, (*path, key), load.id, getattr(load, key), (0.0, 100_000.0), "kW")
    if load.worst_kw < load.typical_kw:
        message = f"worst_kw {load.worst_kw:g} is below typical_kw {load.typical_kw:g}"
        mend = f"write worst_kw: {load.typical_kw:g} or more"
        findings.add(Code.WORST_BELOW_TYPICAL, (*path, "worst_kw"), load.id, message, mend)


def _most_kw(drawing: Drawing) -> float:
    """What all that is drawn could take, or its transformers could pass: whichever is more [kW]; inf = unknown."""
    if not (drawing.removed.whole and drawing.net_is_read):
        return math.inf
    volts, types = {bus.id: bus.voltage_v for bus in drawing.site.buses}, {t.id: t for t in drawing.site.evse_types}
    taken = sum(load.worst_kw for load in drawing.site.loads)
    for evse in drawing.evses:
        kind = types.get(evse.type)
        if kind is not None:
            amps_kw = (kind.max_current_a or 0.0) * volts.get(evse.bus, VOLTS[1]) * SQRT3 / 1000
            taken += kind.max_power_kw or amps_kw
    return max(taken, sum(t.rated_power_kva * t.parallel for t in drawing.site.transformers))


def _edge(site: SiteFile, most_kw: float, findings: Findings) -> None:
    """Supplies and the grid connection; everything behind them could take ``most_kw``."""
    edges: list[tuple[Path, str, float | None]] = [
        (("supplies", k, "import_limit_kw"), one.id, one.import_limit_kw) for k, one in enumerate(site.supplies)
    ]
    grid = site.grid_connection
    edges.append((("grid_connection", "import_limit_kw"), "grid_connection", grid.import_limit_kw))
    for path, element, limit_kw in edges:
        if limit_kw and most_kw > 0.0 and limit_kw > TIMES_MOST * most_kw:
            message = (
                f"import_limit_kw is {limit_kw:g} kW, and all that is drawn behind it takes {most_kw:.4g} kW at most"
            )
            mend = f"write it in kW: {limit_kw / 1000:g} if W are meant; leave it out if there is no such limit"
            findings.add(Code.UNIT_SLIP_POWER, path, element, message, mend)
        elif limit_kw:
            _slip(findings, Code.UNIT_SLIP_POWER, path, element, limit_kw, (1.0, KW), "kW")
    _envelope_edge(grid, findings)


def _envelope_edge(grid: GridConnection, findings: Findings) -> None:
    """What the site promises to a grid operator, against what it may import anyway."""
    limit = grid.import_limit_kw
    for field, value in (("min_envelope_kw", grid.min_envelope_kw), ("failsafe_limit_kw", grid.failsafe_limit_kw)):
        if value is None:
            continue
        if limit is None:
            message = f"{field} {value:g} without import_limit_kw: there is no limit that an envelope could lower"
            mend = f"write import_limit_kw of the connection agreement beside it, or leave {field} out"
            findings.add(Code.ENVELOPE_WITHOUT_IMPORT, ("grid_connection", field), "grid_connection", message, mend)
        elif value > limit:
            message = f"{field} {value:g} is above import_limit_kw {limit:g}"
            mend = f"write {limit:g} or less"
            findings.add(Code.ENVELOPE_ABOVE_IMPORT, ("grid_connection", field), "grid_connection", message, mend)
