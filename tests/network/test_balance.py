"""Imbalance and neutral rows against the slow way: whatever cars draw, no two phases and no neutral escape them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from powerd.network.rows import build_rows
from powerd.network.supply import normal_positions
from tests.network.balances import KINDS, limited, truth
from tests.network.drawings import Drawing
from tests.network.oracle import taken_at_buses
from tests.network.randoms import some_use, trees


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 2**31))
def test_whatever_cars_draw_phases_differ_by_no_more_than_the_rows_say(drawing: Drawing, seed: int) -> None:
    """For random ceilings and any draw below them, on any phases that cars may use, every pair of phases at every bus
    differs by at most its limit's flow, and every neutral carries at most its own.
    """
    electrical, rows = limited(drawing)
    ours = np.isin(rows.limits.kind, KINDS)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        ceilings, used = some_use(electrical, drawing, rng)
        drawn = ceilings * rng.choice([0.0, 0.5, 1.0], electrical.evse_count)
        actual = truth(electrical, rows, taken_at_buses(electrical, drawn, used))
        assert (actual[ours] <= rows.limits.limit_flow(ceilings)[ours] + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(trees(groups=("YNyn0",)), st.integers(0, 2**31))
def test_the_rows_ask_for_no_more_than_some_draw_reaches(drawing: Drawing, seed: int) -> None:
    """Behind star-star windings each imbalance and neutral limit's flow is reached: by those in its row alone, each on
    the phase that is high (a neutral: on one phase for each of the limit's rows).
    """
    electrical, rows = limited(drawing)
    rng = np.random.default_rng(seed)
    ceilings = rng.uniform(1, 32, electrical.evse_count)
    promised, reached = rows.limits.limit_flow(ceilings), np.zeros(len(rows.limits.name))
    ends = np.isin(rows.limits.limit_of_row, np.flatnonzero(np.isin(rows.limits.kind, KINDS)))
    for row in np.flatnonzero(ends).tolist():
        inside = (np.abs(rows.limits.real[[row]].toarray()) + np.abs(rows.limits.imag[[row]].toarray()))[0] > 0
        for phases in ([0], [1], [2], [0, 1, 2]):
            used = np.zeros((electrical.evse_count, 3), dtype=np.bool_)
            used[:, phases] = True
            whole = np.array([c in ("dc", "l12", "l23", "l31") for _, _, c in drawing.evses])
            used[whole] = True
            seen = truth(electrical, rows, taken_at_buses(electrical, ceilings * inside, used))
            limit = rows.limits.limit_of_row[row]
            reached[limit] = max(reached[limit], seen[limit])
    ours = np.isin(rows.limits.kind, KINDS)
    assert (reached[ours] >= promised[ours] - 1e-9).all()


def posts(*connections: str) -> Drawing:
    """Posts on one panel behind a feeder."""
    drawing = Drawing()
    main, panel = drawing.bus(), drawing.bus()
    drawing.supply(main)
    drawing.feeder(main, panel, 100.0)
    for connection in connections:
        drawing.evse(panel, connection)
    return drawing


def weights(drawing: Drawing, bus: int = 0) -> dict[str, list[float]]:
    """What each EVSE weighs in each imbalance limit at a bus, by the limit's name up to the bus."""
    drawing.imbalance = {bus: 20.0}
    electrical = drawing.electrical()
    limits = build_rows(electrical, normal_positions(electrical)).limits
    real = limits.real.toarray()
    return {
        limits.name[l].removesuffix(f" at bus b{bus}"): real[limits.limit_of_row == l][0].tolist()
        for l, kind in enumerate(limits.kind)
        if kind == "imbalance"
    }


def test_posts_weigh_on_the_phases_they_can_lift_alone() -> None:
    """One-phase posts count on their own phase; a three-phase post whose car is unknown on each; a rectifier and both
    ends of a line-to-line post against each other on none.
    """
    assert weights(posts("l1", "l1", "l2", "dc")) == {
        "the imbalance of L1 over the other phases": [1.0, 1.0, 0.0, 0.0],
        "the imbalance of L2 over the other phases": [0.0, 0.0, 1.0, 0.0],
    }
    unknown = weights(posts("l123", "unknown"))
    assert list(unknown.values()) == [[1.0, 1.0]] * 3
    across = {name: [round(w, 9) for w in row] for name, row in weights(posts("l12")).items()}
    assert across == {"the imbalance of L1 over L3": [1.0], "the imbalance of L2 over L3": [1.0]}


def test_one_phase_loads_take_from_the_phase_they_hang_on() -> None:
    """A one-phase load leaves so much less on its own phase, a three-phase load nothing less on any."""
    drawing = posts("l1", "l2")
    drawing.load(1, 3.0, phases=1)
    drawing.load(1, 30.0)
    drawing.imbalance = {0: 20.0}
    electrical = drawing.electrical()
    rows = build_rows(electrical, normal_positions(electrical))
    taken = dict(zip(rows.limits.name, rows.load_share @ electrical.loads.worst_kw, strict=True))
    on_l1 = 3000.0 * np.sqrt(3.0) / (0.9 * 400.0)
    np.testing.assert_allclose(taken["the imbalance of L1 over the other phases at bus b0"], on_l1)
    assert taken["the imbalance of L2 over the other phases at bus b0"] == 0.0


def test_no_such_limit_is_in_the_tree() -> None:
    """Imbalance and neutral rows are no sums of phases below a node: the tree kernel must not be given them."""
    drawing = posts("l1", "l123")
    for limit in ({"imbalance": {0: 20.0}}, {"neutral": {0: 30.0}}):
        drawing.imbalance, drawing.neutral = limit.get("imbalance", {}), limit.get("neutral", {})
        electrical = drawing.electrical()
        limits = build_rows(electrical, normal_positions(electrical)).limits
        assert limits.tree is not None
        held = limits.limit_of_row[limits.tree.row[limits.tree.row >= 0]]
        assert {limits.kind[l] for l in held.tolist()} == {"current"}
        assert {*limits.kind} > {"current"}
    drawing.imbalance, drawing.neutral = {}, {}
    electrical = drawing.electrical()
    assert build_rows(electrical, normal_positions(electrical)).limits.tree is not None
