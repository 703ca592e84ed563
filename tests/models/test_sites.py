"""Every site in ``models/`` at powerd's own allocation for full demand, solved by pandapower."""

from __future__ import annotations

import time

import numpy as np
import pytest

from powerd.faults import Severity
from powerd.network.load import load_site
from powerd.network.rows import build_rows
from powerd.network.supply import energise, normal_positions
from tests.models.full_demand import MODELS, FullDemand, full_demand

#: EVSEs of each site and the element that full demand fills.
SITES = {
    "caltech_garage": (54, "phase L2 of transformer T1, high side"),
    "two_feeder_depot": (60, "phase L1 of feeder cable-staff"),
    "street_lv": (36, "phase L3 of feeder line:0"),
    "campus_ring": (500, "phase L1 of transformer T13, low side"),
    "mega_hub": (5000, "phase L1 of transformer T1, low side"),
}
#: What the power flow may show above a rating: nominal against solved angles, as in ``simulate --verify-ac`` [%].
TOLERANCE_PERCENT = 0.5


@pytest.fixture(scope="module", params=sorted(SITES))
def site(request: pytest.FixtureRequest) -> tuple[str, FullDemand]:
    """A site and its solution."""
    return request.param, full_demand(request.param)


def test_folders_are_these_sites() -> None:
    """Every folder in models/ is tested here, and holds a drawing and a README."""
    assert sorted(path.name for path in MODELS.iterdir() if path.is_dir()) == sorted(SITES)
    for name in SITES:
        assert (MODELS / name / "site.yaml").is_file()
        assert (MODELS / name / "README.md").is_file()


@pytest.mark.parametrize("name", sorted(SITES))
def test_site_loads_without_errors(name: str) -> None:
    """No faults of severity error, and as many EVSEs as the README says."""
    loaded = load_site(MODELS / name)
    assert [fault for fault in loaded.faults if fault.severity is Severity.ERROR] == []
    assert loaded.must().evse_count == SITES[name][0]


@pytest.mark.parametrize("name", sorted(SITES))
def test_every_limit_says_where_it_is_from(name: str) -> None:
    """No limit without a source; normally all EVSEs are energised, every supply feeds some, and there is no loop."""
    electrical = load_site(MODELS / name).must()
    closed = normal_positions(electrical)
    limits = build_rows(electrical, closed).limits
    live = energise(electrical, closed)
    assert all(source.strip() for source in limits.source)
    assert limits.energized.all()
    assert live.loop_count == 0
    assert live.parallel.shape[0] == 0
    assert set(live.supply[electrical.evse_bus].tolist()) == set(range(len(electrical.supplies.ids)))


def test_full_demand_is_solved_within_voltage_and_ratings(site: tuple[str, FullDemand]) -> None:
    """It converges; voltages 0.90 to 1.10 pu; no limit above its rating by more than the tolerance."""
    _, result = site
    assert result.flow.lowest_pu >= 0.90
    assert result.flow.highest_pu <= 1.10
    assert result.loading_percent.max() <= 100 + TOLERANCE_PERCENT
    assert (result.rows.limits.limit_flow(result.allocation.want) <= result.rows.limits.capacity + 1e-6).all()


def test_full_demand_fills_an_element(site: tuple[str, FullDemand]) -> None:
    """The element named above is at least 95 % loaded by pandapower, so the site is worth managing."""
    name, result = site
    limit = result.rows.limits.name.index(SITES[name][1])
    assert result.loading_percent[limit] >= 95.0


def test_full_demand_uncontrolled_overloads(site: tuple[str, FullDemand]) -> None:
    """Every post at its rating would overload the site by its rows, so that what holds it back is powerd."""
    _, result = site
    rating = result.electrical.posts.max_ceiling
    assert (result.rows.limits.limit_flow(rating) / result.rows.limits.capacity).max() > 1.2


def test_fallbacks_fit_under_every_limit(site: tuple[str, FullDemand]) -> None:
    """Silence is safe: all posts at their fallback beside the worst uncontrolled load stay within every limit."""
    _, result = site
    rows, electrical = result.rows, result.electrical
    resting = rows.limits.limit_flow(electrical.posts.fallback) + rows.load_share @ electrical.loads.worst_kw
    assert (resting <= rows.limits.capacity).all()


def test_mega_hub_is_short() -> None:
    """5 000 EVSEs under 4 transformers and 2 supplies in at most 150 lines."""
    text = (MODELS / "mega_hub" / "site.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    electrical = load_site(MODELS / "mega_hub").must()
    assert (len(electrical.supplies.ids), int((electrical.branches.turns_ratio != 1).sum())) == (2, 4)


def test_depot_transfer_switch_moves_the_critical_half() -> None:
    """Preferred side dead: half of the 40 fast chargers can be carried by the other feeder, without a loop."""
    electrical = load_site(MODELS / "two_feeder_depot").must()
    closed = normal_positions(electrical)
    branch = electrical.branches.ids.index
    live = energise(electrical, closed)
    critical = electrical.buses.ids.index("critical")
    assert electrical.supplies.ids[live.supply[critical]] == "utility-a"
    moved = closed.copy()
    moved[branch("ats/preferred")], moved[branch("ats/alternate")] = False, True
    after = energise(electrical, moved)
    assert electrical.supplies.ids[after.supply[critical]] == "utility-b"
    behind = after.supply[electrical.evse_bus[electrical.posts.is_dc]]
    assert int((behind == electrical.supplies.ids.index("utility-b")).sum()) == 40
    assert after.loop_count == 0
    both = closed.copy()
    both[branch("ats/alternate")] = True
    assert energise(electrical, both).parallel.shape[0] == 1


def test_campus_ring_closes_into_loops() -> None:
    """Closing S2 makes the ring within one feeder a loop, closing S1 joins both feeders of the substation."""
    electrical = load_site(MODELS / "campus_ring").must()
    closed = normal_positions(electrical)
    for switch in ("sw1-open", "sw2-open", "sw3-open"):
        position = closed.copy()
        position[electrical.branches.ids.index(switch)] = True
        assert energise(electrical, position).loop_count == 1


def test_street_has_posts_of_every_kind() -> None:
    """All three phases, two unknown ones, three-phase posts of every rotation."""
    electrical = load_site(MODELS / "street_lv").must()
    on = ~np.isnan(electrical.evse_phasor_deg)
    single = on.sum(axis=1) == 1
    assert on[single].any(axis=0).all()
    assert int(electrical.evse_unknown.sum()) == 2
    three = (on.sum(axis=1) == 3) & ~electrical.evse_unknown
    assert set(electrical.evse_rotation[three].tolist()) == {-1, 0, 1, 2}


def test_five_thousand_posts_become_rows_within_a_second() -> None:
    """Rows of mega_hub are rebuilt while a feeder is being lost: the best of three takes less than a second."""
    electrical = load_site(MODELS / "mega_hub").must()
    closed = normal_positions(electrical)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        build_rows(electrical, closed)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0
