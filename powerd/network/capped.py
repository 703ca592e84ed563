"""The same drawing with smaller (or larger) transformers: what if this garage had 50 kVA?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.errors import PowerdError
from powerd.network.electrical import BranchKind, Electrical
from powerd.network.load import LoadedSite


def cap_transformers(loaded: LoadedSite, cap_kw: float) -> Electrical:
    """Scales every transformer's ratings so that their nameplates add up to ``cap_kw`` [kVA at unity power factor].

    Raises:
        PowerdError: the site has no transformer, or the cap is not above 0.
        SiteRefused: the site has faults.
    """
    electrical = loaded.must()
    site = loaded.site
    nameplate_kva = sum(t.rated_power_kva for t in site.transformers if t.in_service) if site is not None else 0.0
    if nameplate_kva <= 0:
        raise PowerdError(f"{electrical.site_id} has no transformer to cap; leave --cap-kw out")
    if not (np.isfinite(cap_kw) and cap_kw > 0):
        raise PowerdError(f"--cap-kw must be above 0, not {cap_kw:g}")
    branches = electrical.branches
    is_transformer = branches.kind == BranchKind.TRANSFORMER
    factor = np.where(is_transformer, cap_kw / nameplate_kva, 1.0)
    source = tuple(
        f"{own}, capped to {cap_kw:g} kW of {nameplate_kva:g} kVA" if capped else own
        for own, capped in zip(branches.source, is_transformer, strict=True)
    )
    return replace(
        electrical,
        branches=replace(
            branches,
            capacity_from_a=branches.capacity_from_a * factor,
            capacity_to_a=branches.capacity_to_a * factor,
            source=source,
        ),
    )
