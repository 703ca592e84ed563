"""How long each kind of element stands a current, one standard a function; figures with their clause.

Two edges. *Earliest* is what powerd plans by: the lower edge of the tripping band, after the element had carried its
rated current for hours (hot). *Nominal* is the middle of the band from cold; only simulations use it. Standards fix a
few points of each curve. Between them a straight line on logarithmic axes is taken, as manufacturers draw it; the hot
start shortens it by the ratio that a thermal image gives (IEC 60255-149). Both are approximations; every other choice
here (lowest step of a setting, shortest time constant, smallest rise) is the one that tolerates less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

HOT = 1.0
"""What a hot element carried before, of its rating."""
NEVER = math.inf
MOST = 1e6
"""Multiples of a rating above which nothing changes any more."""
CYCLE_S = 0.01
"""An instantaneous release opens within half a cycle of 50 Hz [s]: nothing reacts faster, and nothing has to."""


class Edge(StrEnum):
    """Which edge of a tripping band."""

    EARLIEST = "earliest"
    """Lower edge, hot: no conforming device is taken to be faster."""
    NOMINAL = "nominal"
    """Middle of the band, cold."""


class McbType(StrEnum):
    """Instantaneous tripping ranges of IEC 60898-1, table 2."""

    B = "b"
    """Above 3 to 5 In."""
    C = "c"
    """Above 5 to 10 In."""
    D = "d"
    """Above 10 to 20 In."""


@dataclass(frozen=True, kw_only=True)
class Mcb:
    """Miniature circuit breaker (IEC 60898-1)."""

    type: McbType
    """B, C or D."""
    rated_a: float
    """In [A]."""


@dataclass(frozen=True, kw_only=True)
class TripUnit:
    """Electronic trip unit of a circuit breaker (IEC 60947-2), as it is set."""

    ir_a: float
    """Long-time setting Ir [A]."""
    tr_s: float
    """Long-time delay at ``tr_multiple`` x Ir [s]; the curve is I2t."""
    tr_multiple: float = 6.0
    """Where tr is stated; 6 Ir is usual, some makers state 3 Ir or 1.5 Ir."""
    isd_a: float = math.inf
    """Short-time setting Isd [A]; inf = off."""
    tsd_s: float = 0.0
    """Short-time delay [s]."""
    ii_a: float = math.inf
    """Instantaneous setting Ii [A]; inf = off."""


@dataclass(frozen=True, kw_only=True)
class Fuse:
    """Fuse link of class gG (IEC 60269-1 and -2)."""

    rated_a: float
    """In [A]."""


@dataclass(frozen=True, kw_only=True)
class UnknownBreaker:
    """An overcurrent device nobody described: the fastest of all kinds above counts."""

    rated_a: float
    """In [A]."""


@dataclass(frozen=True, kw_only=True)
class OilTransformer:
    """Windings in oil (IEC 60076-7); currents are those of its high side."""

    rated_a: float
    """Nameplate current, parallel units together [A]."""
    unit_kva: float
    """Nameplate power of one unit [kVA]: up to 2 500 kVA it is a distribution transformer."""


@dataclass(frozen=True, kw_only=True)
class DryTransformer:
    """Dry-type windings (IEC 60076-12); currents are those of its high side."""

    rated_a: float
    """Nameplate current, parallel units together [A]."""


@dataclass(frozen=True, kw_only=True)
class Conductor:
    """A cable, a busbar, or the contacts of a switch that no release protects."""

    ampacity_a: float
    """What it may carry for ever [A]."""
    time_constant_s: float = 120.0
    """Thermal time constant [s]; the default is that of a 1.5 mm2 cable in air, anything thicker is slower."""


Device = Mcb | TripUnit | Fuse | UnknownBreaker | OilTransformer | DryTransformer | Conductor
Opening = Mcb | TripUnit | Fuse | UnknownBreaker


@lru_cache(maxsize=65536)
def stands_s(device: Device, amps: float, edge: Edge = Edge.EARLIEST) -> float:
    """How long ``device`` stands ``amps`` [s]; inf = for ever, 0 = not at all. What only heats knows one edge."""
    match device:
        case Mcb():
            return mcb_s(device, amps, edge)
        case TripUnit():
            return trip_unit_s(device, amps, edge)
        case Fuse():
            return fuse_s(device, amps, edge)
        case UnknownBreaker():
            return min(one(device.rated_a, amps, edge) for one in (_fastest_mcb, _fastest_trip_unit, _fastest_fuse))
        case OilTransformer():
            return oil_transformer_s(device, amps)
        case DryTransformer():
            return dry_transformer_s(device, amps)
        case Conductor():
            return conductor_s(device, amps)


def hot_share(multiple: float, pickup: float, before: float = HOT) -> float:
    """Tripping time from hot over that from cold: ln((m2 - p2) / (m2 - k2)) / ln(m2 / (m2 - k2)).

    The thermal image of IEC 60255-149 with preload p = ``before`` and pickup k; 1 for m <= k, where nothing trips.
    """
    if multiple <= pickup:
        return 1.0
    left = multiple**2 - pickup**2
    return math.log((multiple**2 - before**2) / left) / math.log(multiple**2 / left)


def mcb_s(device: Mcb, amps: float, edge: Edge) -> float:
    """Miniature breaker: IEC 60898-1 (2015), table 7.

    Lower edge: 1.13 In does not trip within 1 h (2 h above 63 A), 2.55 In not within 1 s, 3 / 5 / 10 In (B / C / D)
    not within 0.1 s; above that it counts as instantaneous. Upper edge: 1.45 In within 1 h (2 h), 2.55 In within 60 s
    (120 s above 32 A), 5 / 10 / 20 In within 0.1 s. The tests c and d are from cold; hot: ``hot_share``.
    """
    m, hour = _multiple(amps, device.rated_a), _conventional_s(device.rated_a)
    low, high = {McbType.B: (3.0, 5.0), McbType.C: (5.0, 10.0), McbType.D: (10.0, 20.0)}[device.type]
    if edge is Edge.EARLIEST:
        cold = _line(m, ((1.13, hour), (2.55, 1.0), (low, 0.1)))
        return _thermal(m, 1.13, hour, cold * hot_share(m, 1.13)) if m < low else CYCLE_S
    late = 60.0 if device.rated_a <= 32.0 else 120.0
    middle = math.sqrt(low * high)
    cold = _line(m, ((math.sqrt(1.13 * 1.45), hour), (2.55, math.sqrt(late)), (middle, 0.1)))
    return _thermal(m, math.sqrt(1.13 * 1.45), hour, cold) if m < middle else CYCLE_S


def trip_unit_s(device: TripUnit, amps: float, edge: Edge) -> float:
    """Trip unit: IEC 60947-2 (2016), 7.2.1.2.4 and 8.3.3.1.

    Overload release: 1.05 Ir does not trip within 2 h (1 h up to 63 A), 1.30 Ir does; in between I2t through
    (tr_multiple Ir, tr), of which makers allow 20 % less. Short-circuit releases: +-20 % of their setting, so 0.8 Isd
    and 0.8 Ii count; of tsd 0.7 counts, the share of the non-tripping time that makers state for its shortest steps.
    """
    m, hour = _multiple(amps, device.ir_a), _conventional_s(device.ir_a)
    early = edge is Edge.EARLIEST
    band, pickup, share = (0.8, 1.05, 0.8) if early else (1.0, math.sqrt(1.05 * 1.30), 0.9)
    if amps >= band * device.ii_a:
        return CYCLE_S
    cold = share * device.tr_s * (device.tr_multiple / max(m, 1e-9)) ** 2
    slow = _thermal(m, pickup, hour, cold * (hot_share(m, pickup) if early else 1.0))
    if amps >= band * device.isd_a:
        return min(slow, max(CYCLE_S, device.tsd_s * (0.7 if early else 1.0)))
    return slow


#: Gates of gG fuse links, IEC 60269-1 (2006+A1), table 3: In, Imin(10 s), Imax(5 s), Imin(0.1 s), Imax(0.1 s) [A].
GATES: tuple[tuple[float, float, float, float, float], ...] = (
    (16, 33, 65, 85, 150),
    (20, 42, 85, 110, 200),
    (25, 52, 110, 150, 260),
    (32, 75, 150, 200, 350),
    (40, 95, 190, 260, 450),
    (50, 125, 250, 350, 610),
    (63, 160, 320, 450, 820),
    (80, 215, 425, 610, 1100),
    (100, 290, 580, 820, 1450),
    (125, 355, 715, 1100, 1910),
    (160, 460, 950, 1450, 2590),
    (200, 610, 1250, 1910, 3420),
    (250, 750, 1650, 2590, 4500),
    (315, 1050, 2200, 3420, 6000),
    (400, 1420, 2840, 4500, 8060),
    (500, 1780, 3800, 6000, 10600),
    (630, 2200, 5100, 8060, 14140),
    (800, 3060, 7000, 10600, 19000),
    (1000, 4000, 9500, 14140, 24000),
    (1250, 5000, 13000, 19000, 35000),
)


def fuse_s(device: Fuse, amps: float, edge: Edge) -> float:
    """Fuse link gG: IEC 60269-1, tables 2 and 3.

    Lower edge: 1.25 In does not melt within the conventional time (1 h up to 63 A, 2 h to 160 A, 3 h to 400 A, then
    4 h; from 16 A up, thinner links stand more), Imin(10 s) not within 10 s, Imin(0.1 s) not within 0.1 s. A rating
    between two of the table counts with the smaller multiples of both. Upper edge: 1.6 In, Imax(5 s), Imax(0.1 s).
    """
    m = _multiple(amps, device.rated_a)
    hour = next(s for most, s in ((63.0, 3600.0), (160.0, 7200.0), (400.0, 10_800.0), (NEVER, 14_400.0))
                if device.rated_a <= most)  # fmt: skip
    ten, five, tenth, tenth_late = _gate_multiples(device.rated_a)
    if edge is Edge.EARLIEST:
        cold = _line(m, ((1.25, hour), (ten, 10.0), (tenth, 0.1)))
        return _thermal(m, 1.25, hour, cold * hot_share(m, 1.25)) if m < tenth else CYCLE_S
    knee, end = math.sqrt(ten * five), math.sqrt(tenth * tenth_late)
    cold = _line(m, ((math.sqrt(1.25 * 1.6), hour), (knee, math.sqrt(50.0)), (end, 0.1)))
    return _thermal(m, math.sqrt(1.25 * 1.6), hour, cold) if m < end else CYCLE_S


AMBIENT_C = 40.0
"""Hottest cooling air that IEC 60076-2 and 60076-11 design for."""
OIL_HOTTEST_C = 140.0
"""Gas bubbles may form in oil above this (IEC 60076-7, 7.1 and table 2)."""


def oil_transformer_s(device: OilTransformer, amps: float) -> float:
    """Oil-immersed: time until the winding's hot spot reaches 140 C, IEC 60076-7 (2018), 8.2 and annex.

    Start: rated current for ever in air of 40 C. Distribution transformers (ONAN): top-oil rise 55 K, hot spot 23 K
    over it, losses ratio 5, exponents 0.8 and 1.6, time constants 180 and 4 min, k11 = 1, k21 = 1, k22 = 2; larger ones
    52 K, 26 K, 6, 0.8, 1.3, 210 and 10 min, k11 = 0.5, k21 = k22 = 2. Above the current of short-time emergency loading
    (2.0 and 1.8 of the nameplate) it stands nothing.
    """
    k = _multiple(amps, device.rated_a)
    small = device.unit_kva <= 2500.0
    if k <= 1.0:
        return NEVER
    if k > (2.0 if small else 1.8):
        return 0.0
    times = np.geomspace(1.0, 100_000.0, 4000)
    oil, gradient, losses, y = (55.0, 23.0, 5.0, 1.6) if small else (52.0, 26.0, 6.0, 1.3)
    tau_oil, tau_winding, k11, k21 = (10_800.0, 240.0, 1.0, 1.0) if small else (12_600.0, 600.0, 0.5, 2.0)
    oil_rise = oil * (((1 + losses * k**2) / (1 + losses)) ** 0.8 - 1) * -np.expm1(-times / (k11 * tau_oil))
    winding = k21 * -np.expm1(-times / (2.0 * tau_winding)) - (k21 - 1.0) * -np.expm1(-2.0 * times / tau_oil)
    hot_spot = AMBIENT_C + oil + gradient + oil_rise + gradient * (k**y - 1) * winding
    over = np.flatnonzero(hot_spot > OIL_HOTTEST_C)
    return NEVER if over.shape[0] == 0 else float(times[max(int(over[0]) - 1, 0)])


DRY_TIME_CONSTANT_S = 900.0
"""Of a dry winding [s]. IEC 60076-12 has it reckoned from masses; half an hour is usual, half of that is taken."""


def dry_transformer_s(device: DryTransformer, amps: float) -> float:
    """Dry type: time until the hot spot of a class F winding reaches 180 C, IEC 60076-12 (2008), clauses 5 and 6.

    Start: rated current for ever in air of 40 C: 40 + 1.25 * 100 K (average rise of class F, hot-spot factor 1.25) =
    165 C. Rise ~ I^1.6 (natural cooling), one time constant. Above 1.5 of the nameplate it stands nothing.
    """
    k = _multiple(amps, device.rated_a)
    if k <= 1.0:
        return NEVER
    if k > 1.5:
        return 0.0
    final = 125.0 * (k**1.6 - 1.0)
    left = 180.0 - AMBIENT_C - 125.0
    return NEVER if final <= left else -DRY_TIME_CONSTANT_S * math.log1p(-left / final)


OVER_RISE = 1.25
"""Conductor rise that passes, of the rise at ampacity: XLPE at 105 instead of 90 C over 30 C (emergency rating)."""


def conductor_s(device: Conductor, amps: float) -> float:
    """Conductor: t = tau ln((m2 - 1) / (m2 - 1.25)), one thermal time constant (IEC 60853-2, simplified), hot.

    For large m this is the adiabatic I2t = const of IEC 60364-4-43, 434.5.2 with a far smaller constant: that clause
    lets a cable reach 160 or 250 C once. m below sqrt(1.25) = 1.118 never gets there; 1 h is taken all the same, the
    conventional time of its protection (IEC 60364-4-43, 433.1).
    """
    m = _multiple(amps, device.ampacity_a)
    if m <= 1.0:
        return NEVER
    if m**2 <= OVER_RISE:
        return 3600.0
    return min(3600.0, device.time_constant_s * math.log((m**2 - 1.0) / (m**2 - OVER_RISE)))


def _multiple(amps: float, rated_a: float) -> float:
    """``amps`` over ``rated_a``, bounded so that its powers stay finite."""
    return min(amps / rated_a, MOST)


def _conventional_s(rated_a: float) -> float:
    """Conventional time of breakers: 1 h up to 63 A, 2 h above (IEC 60898-1 and 60947-2)."""
    return 3600.0 if rated_a <= 63.0 else 7200.0


def _thermal(multiple: float, pickup: float, hour: float, delay_s: float) -> float:
    """Nothing at the rating, the conventional time up to the pickup, ``delay_s`` (never more) above it."""
    if multiple <= 1.0:
        return NEVER
    return hour if multiple <= pickup else min(hour, max(CYCLE_S, delay_s))


def _line(multiple: float, points: tuple[tuple[float, float], ...]) -> float:
    """Delay [s] at ``multiple`` on straight lines between (multiple, s) points, both axes logarithmic."""
    x, y = np.log(np.array(points)).T
    return float(np.exp(np.interp(math.log(max(multiple, 1e-9)), x, y)))


def _gate_multiples(rated_a: float) -> tuple[float, ...]:
    """Gates over In; of a rating that the table lacks the smaller of its neighbours' (ends: the end's own)."""
    table = np.array(GATES)
    place = int(np.searchsorted(table[:, 0], rated_a))
    rows = {min(place, len(GATES) - 1), max(place - 1, 0)}
    if place < len(GATES) and table[place, 0] == rated_a:
        rows = {place}
    return tuple(min(float(table[r, c] / table[r, 0]) for r in rows) for c in range(1, 5))


def _fastest_mcb(rated_a: float, amps: float, edge: Edge) -> float:
    """Type B."""
    return mcb_s(Mcb(type=McbType.B, rated_a=rated_a), amps, edge)


def _fastest_trip_unit(rated_a: float, amps: float, edge: Edge) -> float:
    """The lowest steps that trip units offer: tr 0.5 s at 6 Ir, Isd 1.5 Ir without delay."""
    return trip_unit_s(TripUnit(ir_a=rated_a, tr_s=0.5, isd_a=1.5 * rated_a), amps, edge)


def _fastest_fuse(rated_a: float, amps: float, edge: Edge) -> float:
    """A gG link of that rating."""
    return fuse_s(Fuse(rated_a=rated_a), amps, edge)
