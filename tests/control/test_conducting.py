"""What is said to be lost, or taken out of service, conducts until a switch is open: it goes on counting above."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerd.control import switch_events as sw
from powerd.control.compiled import CompiledSite
from powerd.state.switchgear import Flag
from powerd.units import ROW_TOLERANCE
from tests.control.substation import Substation, model


@pytest.fixture(scope="module")
def capped() -> CompiledSite:
    """The depot with a limit of 1 500 kW on what the whole site imports: it binds while both halves charge."""
    return CompiledSite.of(replace(model("two_feeder_depot").electrical, site_import_limit_kw=1500.0))


def out(kind: sw.ElementKind, index: int) -> sw.ServiceChanged:
    """An operator takes it out."""
    return sw.ServiceChanged(request_id="", kind=kind, indices=(index,), in_service=False, reason="relay test")


@pytest.mark.parametrize("what", ["branch out", "supply out", "supply lost", "branch lost"])
def test_a_word_alone_makes_no_room_above_what_it_speaks_of(capped: CompiledSite, what: str) -> None:
    """No switch moves: in no tick does W with the loads exceed the site's limit, whoever is raised meanwhile."""
    depot = Substation.open(capped)
    depot.run(60)
    electrical, limits = capped.electrical, capped.limits
    limit = limits.name.index("import of the site")
    depot.stuck = set(depot.switches.tolist())
    main, utility = depot.branch("main-a"), electrical.supplies.ids.index("utility-a")
    for t in range(120):
        if t == 0 and what == "supply lost":
            depot.supply("utility-a", lost=True)
        if t == 0 and what == "branch lost":
            depot.branch_lost("T1", flags=Flag.UPSTREAM_LOST)
        event = {
            "branch out": out(sw.ElementKind.BRANCH, main),
            "supply out": out(sw.ElementKind.SUPPLY, utility),
        }.get(what)
        decision = depot.tick(*([event] if event is not None and t == 0 else []))
        assert np.array_equal(depot.closed, electrical.branches.normally_closed)
        could = limits.limit_flow(decision.worst)[limit] + capped.loads_worst[limit]
        assert could <= limits.capacity[limit] + ROW_TOLERANCE


def test_what_is_isolated_counts_no_longer(capped: CompiledSite) -> None:
    """Once the breaker below the lost supply is open, and the tie closed, its half counts where it is fed from now."""
    depot = Substation.open(capped)
    depot.run(60)
    depot.supply("utility-a", lost=True)
    decision = depot.run(120)
    assert ("tie", True) in depot.orders
    assert "import from supply utility-b" in decision.site.limits.name
    assert "import from supply utility-a" not in decision.site.limits.name  # nothing hangs there any more
