"""One row of an imported net at a time: external grids, lines, transformers, loads."""

from __future__ import annotations

import math

from powerd.faults import Severity
from powerd.network.netfile import Row, number, scaled
from powerd.network.parts import vector_letters
from powerd.network.ratings import AMPERES, MIN_OHM_PER_KM
from powerd.network.wires import IN_NET, Maker, Wires
from powerd.site.codes import Code
from powerd.site.schema import Feeder, Supply, Transformer
from powerd.units import SQRT3

_PHASES = (("a", "l1"), ("b", "l2"), ("c", "l3"))


def import_supply(maker: Maker, wires: Wires, index: int, row: Row) -> None:
    """An external grid."""
    maker.make(
        wires.supplies,
        Supply,
        f"ext_grid:{index}",
        row,
        {"bus": maker.bus(row.get("bus"))},
        voltage_percent=scaled(row, "vm_pu", 100),
        short_circuit_mva=number(row, "s_sc_max_mva"),
        rx_ratio=number(row, "rx_max"),
    )


def import_line(maker: Maker, wires: Wires, index: int, row: Row) -> None:
    """A line; a rating above 20 kA is how nets say "none"."""
    ampacity = scaled(row, "max_i_ka", 1000)
    rated = ampacity is not None and ampacity <= AMPERES[1]
    if (number(row, "r_ohm_per_km") or 0.0) + (number(row, "x_ohm_per_km") or 0.0) < MIN_OHM_PER_KM:
        maker.bad(f"line:{index}", "r_ohm_per_km and x_ohm_per_km are both 0")
        return
    maker.make(
        wires.feeders,
        Feeder,
        f"line:{index}",
        row,
        {end: maker.end("line", index, row.get(end)) for end in ("from_bus", "to_bus")},
        length_m=scaled(row, "length_km", 1000),
        r_ohm_per_km=number(row, "r_ohm_per_km"),
        x_ohm_per_km=number(row, "x_ohm_per_km"),
        r0_ohm_per_km=number(row, "r0_ohm_per_km"),
        x0_ohm_per_km=number(row, "x0_ohm_per_km"),
        c_nf_per_km=number(row, "c_nf_per_km"),
        ampacity_a=ampacity if rated else None,
        temperature_factor=number(row, "df"),
        parallel=row.get("parallel"),
        source=f"max_i_ka of {row.get('std_type') or 'the imported net'}" if rated else "",
    )
    if not rated and row.get("in_service", True) is not False:
        mend = f"give line {index} a max_i_ka in the net"
        args = (f"line:{index}", "nothing limits its current", mend, Severity.WARNING)
        maker.findings.add(Code.MISSING_RATING, IN_NET, *args)


def import_trafo(maker: Maker, wires: Wires, index: int, row: Row) -> None:
    """A two-winding transformer, with the tap it stands on."""
    name = f"trafo:{index}"
    high_v, low_v = scaled(row, "vn_hv_kv", 1000), scaled(row, "vn_lv_kv", 1000)
    rated = scaled(row, "sn_mva", 1000)
    group = _vector_group(row)
    steps = (number(row, "tap_pos") or 0.0) - (number(row, "tap_neutral") or 0.0)
    step = number(row, "tap_step_percent") or 0.0
    if steps and number(row, "tap_step_degree"):
        maker.bad(name, "a phase-shifting tap; powerd knows taps that change the voltage")
        return
    if group is None:
        maker.bad(name, f"shift_degree is {row.get('shift_degree')}, not a multiple of 30")
        return
    on_high = row.get("tap_side") != "lv"
    nominal_low = low_v
    if not on_high and low_v is not None:
        low_v *= 1 + steps * step / 100
    maker.make(
        wires.transformers,
        Transformer,
        name,
        row,
        {side: maker.end("trafo", index, row.get(f"{side[0]}v_bus")) for side in ("high_bus", "low_bus")},
        rated_power_kva=rated,
        vector_group=group,
        vk_percent=number(row, "vk_percent"),
        vkr_percent=number(row, "vkr_percent"),
        iron_loss_kw=number(row, "pfe_kw"),
        no_load_current_percent=number(row, "i0_percent"),
        high_v=high_v,
        low_v=low_v,
        rated_current_low_a=rated * 1000 / SQRT3 / nominal_low if rated and nominal_low else None,
        parallel=row.get("parallel"),
        loading_factor=number(row, "df"),
        tap_position=math.copysign(steps, steps * step) if on_high and steps and step else None,
        tap_step_percent=abs(step) if on_high else None,
        source=f"sn_mva of {row.get('std_type') or 'the imported net'}",
    )


def _vector_group(row: Row) -> str | None:
    """The letters the net states, or the usual ones, with the clock number of its phase shift."""
    shift = number(row, "shift_degree") or 0.0
    if shift % 30:
        return None
    clock = int(shift // 30) % 12
    stated = row.get("vector_group")
    usual = "Dyn" if clock % 2 else "YNyn"
    letters = stated.rstrip("0123456789") if isinstance(stated, str) else usual
    try:
        high, low, _ = vector_letters(f"{letters}0")
    except ValueError:
        return f"{usual}{clock}"
    return f"{high}{low}{clock}"


def import_asymmetric(maker: Maker, wires: Wires, index: int, row: Row) -> None:
    """One load for each phase; between phases (delta) P/sqrt(3) on both, which gives each the current it carries."""
    delta = row.get("type") == "delta"
    for position, (letter, phase) in enumerate(_PHASES):
        p, q = row.get(f"p_{letter}_mw"), row.get(f"q_{letter}_mvar")
        name = f"asymmetric_load:{index}/{phase}"
        if not delta:
            maker.load(wires.loads, name, row, p, q, phase)
            continue
        share = {"p": scaled(row, f"p_{letter}_mw", 1 / SQRT3), "q": scaled(row, f"q_{letter}_mvar", 1 / SQRT3)}
        for end in (phase, _PHASES[(position + 1) % 3][1]):
            maker.load(wires.loads, f"{name}-{end}", row, share["p"], share["q"], end)
