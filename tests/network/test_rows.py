"""The rows against the slow way (``oracle``): no current that cars can draw under their ceilings escapes them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.limits import Limits, Tree
from powerd.network.electrical import Electrical
from powerd.network.in_use import with_phases_in_use
from powerd.network.rows import Rows, build_limits, build_rows, uncontrolled_worst
from powerd.network.supply import energise, normal_positions
from tests.network.drawings import Drawing
from tests.network.oracle import branch_currents, taken_at_buses
from tests.network.randoms import some_use, trees

INF = float("inf")


def _rows(drawing: Drawing) -> tuple[Electrical, Rows]:
    electrical = drawing.electrical()
    return electrical, build_rows(electrical, normal_positions(electrical))


def _by_oracle(electrical: Electrical, rows: Rows, taken: np.ndarray) -> np.ndarray:
    """(L,) current on each limit by the slow way; nan for kW limits."""
    sides = branch_currents(electrical, energise(electrical, normal_positions(electrical)), taken)
    result = np.full(rows.branch.shape[0], np.nan)
    for limit in np.flatnonzero(rows.branch >= 0).tolist():
        result[limit] = abs(sides[rows.branch[limit], rows.side[limit]][rows.phase[limit]])
    return result


@settings(max_examples=150)
@given(trees(), st.integers(0, 2**31))
def test_whatever_cars_draw_stays_below_the_largest_cone(drawing: Drawing, seed: int) -> None:
    """For random ceilings x and any draw below them the current on every limit is at most the largest row of x.

    Below means fewer amperes, fewer phases of a three-phase post, any phase of an unknown one.
    """
    electrical, rows = _rows(drawing)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        ceilings, used = some_use(electrical, drawing, rng)
        drawn = ceilings * rng.choice([0.0, 0.5, 1.0], electrical.evse_count)
        actual = _by_oracle(electrical, rows, taken_at_buses(electrical, drawn, used))
        assert (actual <= rows.limits.limit_flow(ceilings) + 1e-9).all()


@settings(max_examples=100)
@given(trees(connections=("l1", "l2", "l3", "l12", "l23", "l31", "l123", "dc")), st.integers(0, 2**31))
def test_first_row_of_each_limit_is_exact_where_it_holds_all_posts(drawing: Drawing, seed: int) -> None:
    """Every limit has some draw that fills its largest row: all cars at their ceilings, or some group switched off."""
    electrical, rows = _rows(drawing)
    rng = np.random.default_rng(seed)
    ceilings = rng.uniform(1, 32, electrical.evse_count)
    promised = rows.limits.limit_flow(ceilings)
    every = np.ones((electrical.evse_count, 3), dtype=bool)
    reached = np.nan_to_num(_by_oracle(electrical, rows, taken_at_buses(electrical, ceilings, every)))
    for row in range(rows.limits.row_count):
        inside = (np.abs(rows.limits.real[[row]].toarray()) + np.abs(rows.limits.imag[[row]].toarray()))[0] > 0
        limit = rows.limits.limit_of_row[row]
        part = taken_at_buses(electrical, ceilings * inside, every)
        reached[limit] = max(reached[limit], np.nan_to_num(_by_oracle(electrical, rows, part))[limit])
    assert (reached >= promised * (0.999 if _only_whole(drawing) else 0.5) - 1e-9).all()


def _only_whole(drawing: Drawing) -> bool:
    """True if no post lets its car choose phases: then switching posts off reaches every subset."""
    return all(connection != "l123" for _, _, connection in drawing.evses)


@given(trees(), st.integers(0, 2**31))
def test_lowering_any_ceiling_never_raises_a_limit(drawing: Drawing, seed: int) -> None:
    """The admitted set is closed downward: limit_flow is monotone in every ceiling."""
    electrical, rows = _rows(drawing)
    rng = np.random.default_rng(seed)
    high = rng.uniform(0, 32, electrical.evse_count)
    low = high * rng.uniform(0, 1, electrical.evse_count)
    assert (rows.limits.limit_flow(low) <= rows.limits.limit_flow(high) + 1e-9).all()


@given(trees(groups=("YNyn0", "Dyn11", "Dyn5")), st.integers(0, 2**31))
def test_tree_says_the_same_as_the_rows(drawing: Drawing, seed: int) -> None:
    """scale * sum(gain x) over posts below each node and phase equals the row, wherever the tree has one."""
    electrical, rows = _rows(drawing)
    tree = rows.limits.tree
    if tree is None:
        return
    x = np.random.default_rng(seed).uniform(0, 32, electrical.evse_count)
    held = np.sort(tree.row[tree.row >= 0])
    assert np.unique(held).shape == held.shape
    np.testing.assert_allclose(_tree_flow(tree, rows.limits, x)[held], rows.limits.flow(x)[held], rtol=1e-9)


@given(trees(connections=("l123", "dc", "l1", "l2", "l3"), groups=("YNyn0", "Dyn11")))
def test_only_cones_stay_outside_of_the_tree(drawing: Drawing) -> None:
    """Posts on one phase or on all: each sum of currents is in it, and no row in which angles mix."""
    _, rows = _rows(drawing)
    limits = rows.limits
    linear = (np.diff(limits.imag.indptr) == 0) & (np.diff(limits.real.indptr) > 0)
    alone = np.bincount(limits.limit_of_row, minlength=limits.capacity.shape[0])[limits.limit_of_row] == 1
    currents = np.array([limits.unit[l] == "A" for l in limits.limit_of_row.tolist()], np.bool_)
    wanted = np.flatnonzero(linear & alone & currents)
    held = np.zeros(0, np.int64) if limits.tree is None else limits.tree.row
    assert np.isin(wanted, held).all() or any(branch[7] == "Dyn" for branch in drawing.branches)
    assert not np.isin(np.flatnonzero(np.diff(limits.imag.indptr) > 0), held).any()


def test_posts_that_load_other_phases_above_transformers_are_not_taken_for_one_another() -> None:
    """Line-to-line posts behind two windings in a row: as many load l1 of 20 kV as below, but others: it is no sum."""
    drawing = Drawing()
    high, middle, low = drawing.bus(20_000.0), drawing.bus(10_000.0), drawing.bus(400.0)
    drawing.supply(high)
    drawing.transformer(high, middle, 500.0, 1000.0, "Dyn11")
    drawing.transformer(middle, low, 50.0, 1443.0, "Dyn11")
    for connection in ("l12", "l23"):
        drawing.evse(low, connection)
    _, rows = _rows(drawing)
    assert rows.limits.tree is not None
    held = np.sort(rows.limits.tree.row[rows.limits.tree.row >= 0])
    for x in np.eye(2) * 32.0:
        flow = _tree_flow(rows.limits.tree, rows.limits, x)[held]
        np.testing.assert_allclose(flow, rows.limits.flow(x)[held], rtol=1e-9)


def _tree_flow(tree: Tree, limits: Limits, x: np.ndarray) -> np.ndarray:
    """(m,) row flows by adding up the tree."""
    total = np.zeros((tree.parent.shape[0], 3))
    on = (tree.phase_bits[:, None] >> np.arange(3)) & 1
    live = tree.node >= 0
    np.add.at(total, tree.node[live], ((tree.gain * x)[:, None] * on)[live])
    for node in range(tree.parent.shape[0] - 1, -1, -1):
        if tree.parent[node] >= 0:
            total[tree.parent[node]] += total[node]
    flow = np.zeros(limits.row_count)
    for node, phase in zip(*np.nonzero(tree.row >= 0), strict=True):
        flow[tree.row[node, phase]] = tree.scale[node] * total[node, phase]
    return flow


def _station(*connections: str, group: str = "Dyn11") -> Drawing:
    """Posts on the low side of one transformer."""
    drawing = Drawing()
    high, low = drawing.bus(20_000.0), drawing.bus(400.0)
    drawing.supply(high)
    drawing.transformer(high, low, 10.0, 500.0, group)
    for connection in connections:
        drawing.evse(low, connection)
    return drawing


def test_three_phase_posts_have_a_tree_through_delta() -> None:
    """Three-phase and DC posts behind one or two delta windings stay linear, although their cars may use one phase."""
    drawing = _station("l123", "dc", "l123")
    above = drawing.bus(110_000.0)
    drawing.supplies[0] = ("s0", above, INF, True)
    drawing.transformer(above, 0, 50.0, 100.0, "Dyn1")
    _, rows = _rows(drawing)
    assert rows.limits.tree is not None
    assert rows.limits.row_count == rows.limits.capacity.shape[0]


def test_single_phase_posts_behind_delta_leave_the_low_side() -> None:
    """One-phase posts behind a delta winding need cones on its high side; the sums on the low side are the tree."""
    _, rows = _rows(_station("l1", "l2", "l3"))
    limits = rows.limits
    assert limits.tree is not None
    names = [limits.name[limits.limit_of_row[row]] for row in np.sort(limits.tree.row[limits.tree.row >= 0])]
    assert names == [f"phase L{k} of transformer transformer0, low side" for k in (1, 2, 3)]
    assert limits.imag.nnz > 0


def test_unknown_phase_counts_fully_on_each() -> None:
    """A post on an unknown phase has coefficient 1 on l1, l2 and l3 of its own bus."""
    drawing = Drawing()
    first, second = drawing.bus(), drawing.bus()
    drawing.supply(first)
    drawing.feeder(first, second, 40.0)
    drawing.evse(second, "unknown")
    _, rows = _rows(drawing)
    np.testing.assert_allclose(rows.limits.real.toarray(), [[1.0], [1.0], [1.0]], rtol=1e-12)


def test_limits_in_series_are_one_and_the_weakest_names_it() -> None:
    """Three feeders in a row carry the same: the 80 A one stands for all; a load in between keeps them apart."""
    drawing = Drawing()
    buses = [drawing.bus() for _ in range(4)]
    drawing.supply(buses[0])
    for a, amps in zip(range(3), (100.0, 80.0, 120.0), strict=True):
        drawing.feeder(buses[a], buses[a + 1], amps)
    drawing.evse(buses[3], "l1")
    _, rows = _rows(drawing)
    assert rows.limits.element == ("feeder1",)
    assert rows.limits.capacity.tolist() == [80.0]
    drawing.load(buses[1], 5.0)
    _, rows = _rows(drawing)
    assert rows.limits.element == ("feeder0", "feeder1")


def test_dead_evse_is_in_no_row() -> None:
    """An EVSE behind an open switch is not energised and weighs on nothing."""
    drawing = Drawing()
    buses = [drawing.bus() for _ in range(3)]
    drawing.supply(buses[0])
    drawing.feeder(buses[0], buses[1], 50.0)
    drawing.switch(buses[1], buses[2], 50.0, closed=False)
    drawing.evse(buses[1], "l1")
    drawing.evse(buses[2], "l1")
    electrical, rows = _rows(drawing)
    assert rows.limits.energized.tolist() == [True, False]
    assert not rows.limits.real.toarray()[:, 1].any()
    tree = rows.limits.tree
    assert tree is not None
    assert tree.node.tolist()[1] == -1
    closed = build_limits(electrical, np.ones(2, dtype=bool))
    assert closed.energized.all()


def test_everything_on_a_ring_counts_on_all_of_it() -> None:
    """In a closed ring every branch is reckoned with all posts on the ring, whichever way the current goes.

    A third of a one-phase current may show on the other phases: the zero sequence splits by its own impedances.
    """
    drawing = Drawing()
    buses = [drawing.bus() for _ in range(4)]
    drawing.supply(buses[0])
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
        drawing.feeder(buses[a], buses[b], 100.0)
    for bus in buses:
        drawing.evse(bus, "l1")
    _, rows = _rows(drawing)
    assert len(rows.limits.name) == 12
    assert all(name.endswith("in a loop") for name in rows.limits.name)
    own, others = [0.0, 1.0, 1.0, 1.0], [0.0, 1 / 3, 1 / 3, 1 / 3]
    np.testing.assert_allclose(rows.limits.real.toarray(), np.tile([own, others, others], (4, 1)))


def _carried(currents: np.ndarray) -> np.ndarray:
    """(3,) most on each phase of one way of two, of currents (3,), over shares of the sequences in the circle."""
    circle = 0.5 + 0.5 * np.exp(2j * np.pi * np.arange(48) / 48)
    zero = currents.mean()
    split = circle[:, None, None] * (currents - zero) + circle[None, :, None] * zero
    most: np.ndarray = np.abs(split).max(axis=(0, 1))
    return most


@pytest.mark.parametrize(
    ("connection", "used", "own"),
    [("l1", 0, 1.0), ("l31", 0, 1.0), ("l123", 0, (4 + 7**0.5) / 6), ("l123", 7, 1.0), ("l123", 3, (4 + 7**0.5) / 6)],
)
def test_no_car_loads_a_way_of_a_loop_more_than_its_row_says(connection: str, used: int, own: float) -> None:
    """One ampere through two ways, whatever their impedances in each sequence: the rows hold, and are reached."""
    drawing = Drawing()
    grid, panel = drawing.bus(), drawing.bus()
    drawing.supply(grid)
    ways = [drawing.feeder(grid, panel, 100.0) for _ in range(2)]
    drawing.evse(panel, connection)
    electrical = with_phases_in_use(drawing.electrical(), np.array([used]))
    rows = build_rows(electrical, normal_positions(electrical))
    mine = np.flatnonzero(rows.branch == ways[0])
    row = dict(zip(rows.phase[mine].tolist(), rows.limits.limit_flow(np.ones(1))[mine].tolist(), strict=True))
    deg = electrical.evse_phasor_deg[0]
    phasor = np.where(np.isnan(deg), 0.0, np.exp(1j * np.radians(np.nan_to_num(deg))))
    free = connection == "l123" and not used
    cars = [np.array(on) for on in itertools.product((0, 1), repeat=3)] if free else [np.ones(3)]
    most = np.max([_carried(phasor * on) for on in cars], axis=0)
    for phase in range(3):
        assert row.get(phase, 0.0) >= most[phase] - 1e-9
        if phasor[phase]:
            assert row[phase] == pytest.approx(own)
            assert most[phase] >= 0.995 * own


def test_supplies_in_parallel_both_count_everything() -> None:
    """With the tie closed each supply's limits hold all posts, also those at the other supply's own bus."""
    drawing = Drawing()
    left, right = drawing.bus(), drawing.bus()
    drawing.supply(left, 100.0)
    drawing.supply(right, 200.0)
    drawing.switch(left, right, 100.0)
    drawing.evse(left, "l1")
    drawing.evse(right, "l1")
    _, rows = _rows(drawing)
    assert rows.limits.unit == ("kW", "kW", "A", "A", "A")
    assert (rows.limits.real.toarray() > 0).all()


def test_power_limits_count_ac_at_high_voltage_and_leave_room_for_losses() -> None:
    """A 32 A three-phase post at 400 V counts 1.1 * sqrt(3) * 0.4 kW an ampere; feeder losses come off the limit."""
    drawing = Drawing()
    first, second = drawing.bus(), drawing.bus()
    drawing.supply(first, 30.0)
    drawing.site_import_limit_kw = 25.0
    drawing.feeder(first, second)
    drawing.evse(second, "l123")
    electrical, rows = _rows(drawing)
    per_ampere = 1.1 * np.sqrt(3) * 0.4
    np.testing.assert_allclose(rows.limits.real.toarray(), [[per_ampere], [per_ampere]])
    most = electrical.posts.max_ceiling[0]
    ohm = electrical.impedances.r_ohm[0]
    neutral = (electrical.impedances.r0_ohm[0] - ohm) / 3
    lost = most**2 * (3 * ohm + neutral) / 1000
    np.testing.assert_allclose(rows.losses, [lost, lost])
    np.testing.assert_allclose(rows.limits.capacity, [25.0 - lost, 30.0 - lost])
    assert rows.limits.name == ("import of the site", "import from supply s0")


def test_dc_posts_count_their_current_at_low_voltage() -> None:
    """150 kW at 0.9 * 400 V and unit efficiency is 240.6 A a phase."""
    drawing = Drawing()
    first, second = drawing.bus(), drawing.bus()
    drawing.supply(first)
    drawing.feeder(first, second, 400.0)
    drawing.evse(second, "dc")
    _, rows = _rows(drawing)
    np.testing.assert_allclose(rows.limits.flow(np.array([150.0])), 150e3 / (np.sqrt(3) * 360.0))


@settings(max_examples=60)
@given(trees(), st.integers(0, 2**31))
def test_loads_never_exceed_their_worst_share(drawing: Drawing, seed: int) -> None:
    """Constant-power loads at 90 % voltage, at any angle the power factor gives, stay below ``uncontrolled_worst``."""
    rng = np.random.default_rng(seed)
    for bus in range(1, len(drawing.buses)):
        drawing.load(bus, float(rng.uniform(0, 50)), int(rng.choice([1, 2, 4, 7])))
    electrical = drawing.electrical()
    closed = normal_positions(electrical)
    limits = build_limits(electrical, closed)
    worst = uncontrolled_worst(electrical, closed, limits)
    rows = build_rows(electrical, closed)
    taken = np.zeros((len(drawing.buses), 3), dtype=np.complex128)
    for _, bus, kw, bits in drawing.loads:
        on = (bits >> np.arange(3)) & 1
        volts = 0.9 * drawing.buses[bus][1] / np.sqrt(3)
        turn = np.exp(1j * (np.radians([0.0, -120.0, 120.0]) - rng.uniform(0, 0.5)))
        taken[bus] += on / on.sum() * kw * 1000 / volts * turn
    actual = _by_oracle(electrical, rows, taken)
    amps = rows.branch >= 0
    assert (actual[amps] <= worst[amps] + 1e-9).all()


def test_limits_of_other_positions_are_refused() -> None:
    """Asking for the loads on limits of another switching state is an error, not a wrong number."""
    drawing = Drawing()
    buses = [drawing.bus() for _ in range(3)]
    drawing.supply(buses[0])
    drawing.switch(buses[0], buses[1], 50.0)
    drawing.switch(buses[0], buses[2], 50.0)
    drawing.evse(buses[1], "l1")
    drawing.evse(buses[2], "l1")
    electrical = drawing.electrical()
    limits = build_limits(electrical, np.array([True, True]))
    with pytest.raises(ValueError, match="other switch positions"):
        uncontrolled_worst(electrical, np.array([True, False]), limits)


def test_a_three_phase_post_may_be_used_on_two_phases() -> None:
    """Behind two delta windings a car on two phases can load a limit more than one on three; the rows know it."""
    drawing = _station("l123", "l2", "l2", group="Dyn5")
    above = drawing.bus(110_000.0)
    drawing.supplies[0] = ("s0", above, INF, True)
    drawing.transformer(above, 0, 50.0, 100.0, "Dyn1")
    electrical, rows = _rows(drawing)
    ceilings = np.array([10.0, 32.0, 32.0])
    exceeded = False
    for used in ([1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]):
        phases = np.array([used, [1, 1, 1], [1, 1, 1]], dtype=bool)
        actual = _by_oracle(electrical, rows, taken_at_buses(electrical, ceilings, phases))
        whole = _by_oracle(electrical, rows, taken_at_buses(electrical, ceilings, np.ones((3, 3), dtype=bool)))
        assert (actual <= rows.limits.limit_flow(ceilings) + 1e-9).all()
        exceeded |= bool((actual > whole + 1e-6).any())
    assert exceeded
