"""What a limit is called and where its number came from: words that reach the driver's explanation."""

from __future__ import annotations

from powerd.network.electrical import BranchKind, Electrical
from powerd.network.supply import Energised


def describe(
    electrical: Electrical, live: Energised, branch: int, side: int, phase: int, supply: int
) -> tuple[str, str, str]:
    """(name for people, element id, source of the number) of one limit."""
    branches, supplies = electrical.branches, electrical.supplies
    if branch < 0 and supply < 0:
        source = electrical.site_import_source or "grid connection"
        return "import of the site", electrical.site_id, _after_losses(source, electrical.site_import_limit_kw)
    if branch < 0:
        source = _after_losses(supplies.source[supply], float(supplies.import_limit_kw[supply]))
        return f"import from supply {supplies.ids[supply]}", supplies.ids[supply], source
    kind = BranchKind(int(branches.kind[branch]))
    name = f"phase L{phase + 1} of {kind.name.lower()} {branches.ids[branch]}"
    if kind is BranchKind.TRANSFORMER:
        name += ", high side" if side == 0 else ", low side"
    if live.loop[branch] >= 0:
        name += ", in a loop"
    return name, branches.ids[branch], branches.source[branch] or "site drawing"


def _after_losses(source: str, limit_kw: float) -> str:
    """Where a kW limit comes from; what is lost at full load is already taken off its capacity."""
    return f"{source or 'site drawing'} ({limit_kw:g} kW less losses at full load)"
