"""Who feeds whom, held against networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerd.network.supply import energise, normal_positions
from tests.network.drawings import Drawing


@st.composite
def meshes(draw: st.DrawFn) -> Drawing:
    """Up to nine buses, any switches and feeders between them, up to three supplies."""
    drawing = Drawing()
    count = draw(st.integers(1, 9))
    for _ in range(count):
        drawing.bus()
    bus = st.integers(0, count - 1)
    for _ in range(draw(st.integers(0, 14))):
        a, b = draw(bus), draw(bus)
        if a != b:
            if draw(st.booleans()):
                drawing.feeder(a, b)
            else:
                drawing.switch(a, b, closed=draw(st.booleans()))
    for at in draw(st.lists(bus, max_size=3)):
        drawing.supply(at, in_service=draw(st.booleans()))
    drawing.evse(0, "l123")
    return drawing


def _graph(drawing: Drawing) -> nx.MultiGraph:
    """Conducting branches, with a virtual bus "grid" joined to every supply that feeds."""
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(len(drawing.buses)))
    for index, branch in enumerate(drawing.branches):
        if not branch[9] or branch[10]:
            graph.add_edge(branch[2], branch[3], key=index)
    for index, (_, bus, _, feeds) in enumerate(drawing.supplies):
        if feeds:
            graph.add_edge("grid", bus, key=("supply", index))
    return graph


@given(meshes())
def test_live_buses_are_those_connected_to_a_supply(drawing: Drawing) -> None:
    """A bus is live exactly if some feeding supply reaches it, and then its supply is one of its island."""
    electrical = drawing.electrical()
    live = energise(electrical, normal_positions(electrical))
    graph = _graph(drawing)
    reached = nx.node_connected_component(graph, "grid") if "grid" in graph else set()
    assert set(np.flatnonzero(live.bus_is_live).tolist()) == reached - {"grid"}
    for bus in np.flatnonzero(live.bus_is_live):
        assert live.island[bus] == live.island[electrical.supplies.bus[live.supply[bus]]]


@given(meshes())
def test_tree_leads_every_live_bus_to_its_supply(drawing: Drawing) -> None:
    """Every live bus has a conducting branch to a parent one step nearer, down to its supply's own bus."""
    electrical = drawing.electrical()
    live = energise(electrical, normal_positions(electrical))
    seen: set[int] = set()
    for bus in live.order.tolist():
        branch, above = live.parent_branch[bus], live.parent_bus[bus]
        if branch < 0:
            assert live.depth[bus] == 0
            assert bus in electrical.supplies.bus[electrical.supplies.in_service]
        else:
            ends = {int(electrical.branches.from_bus[branch]), int(electrical.branches.to_bus[branch])}
            assert ends == {bus, int(above)}
            assert live.conducting[branch]
            assert live.depth[bus] == live.depth[above] + 1
            assert above in seen
            assert live.supply[bus] == live.supply[above]
        seen.add(bus)
    assert seen == set(np.flatnonzero(live.bus_is_live).tolist())


@given(meshes())
def test_loops_are_what_bridges_are_not(drawing: Drawing) -> None:
    """A live branch is part of a loop exactly if its ends stay joined without it; the grid joins the supplies."""
    electrical = drawing.electrical()
    live = energise(electrical, normal_positions(electrical))
    graph = _graph(drawing)
    for index in range(len(drawing.branches)):
        a, b = int(electrical.branches.from_bus[index]), int(electrical.branches.to_bus[index])
        if not (live.conducting[index] and live.bus_is_live[a]):
            assert live.loop[index] == -1
            continue
        rest = graph.copy()
        rest.remove_edge(a, b, key=index)
        assert (live.loop[index] >= 0) == nx.has_path(rest, a, b)


@given(meshes())
def test_supplies_in_parallel_are_found(drawing: Drawing) -> None:
    """Two feeding supplies are linked by pairs exactly if branches connect their buses."""
    electrical = drawing.electrical()
    live = energise(electrical, normal_positions(electrical))
    graph = _graph(drawing)
    if "grid" in graph:
        graph.remove_node("grid")
    pairs = nx.Graph([tuple(pair) for pair in live.parallel.tolist()])
    feeding = np.flatnonzero(electrical.supplies.in_service).tolist()
    pairs.add_nodes_from(feeding)
    for one in feeding:
        for other in feeding:
            joined = nx.has_path(graph, int(electrical.supplies.bus[one]), int(electrical.supplies.bus[other]))
            assert nx.has_path(pairs, one, other) == joined


def test_closing_the_tie_of_two_supplies_makes_one_loop_through_both() -> None:
    """Tie open: two islands, no loop. Tie closed: everything between the supplies is one loop, and both are in it."""
    drawing = Drawing()
    buses = [drawing.bus() for _ in range(4)]
    drawing.supply(buses[0])
    drawing.supply(buses[3])
    first = drawing.feeder(buses[0], buses[1])
    tie = drawing.switch(buses[1], buses[2], closed=False)
    last = drawing.feeder(buses[3], buses[2])
    drawing.evse(buses[1], "l123")
    electrical = drawing.electrical()
    open_tie = energise(electrical, normal_positions(electrical))
    assert open_tie.supply.tolist() == [0, 0, 1, 1]
    assert open_tie.loop_count == 0
    closed_tie = energise(electrical, np.ones(3, dtype=bool))
    assert closed_tie.parallel.tolist() == [[0, 1]]
    assert closed_tie.loop[[first, tie, last]].tolist() == [0, 0, 0]
    assert closed_tie.supply_loop.tolist() == [0, 0]


def test_opening_a_switch_kills_what_is_behind_it() -> None:
    """Positions are read only of switches: a feeder cannot be opened by the array."""
    drawing = Drawing()
    buses = [drawing.bus() for _ in range(3)]
    drawing.supply(buses[0])
    drawing.feeder(buses[0], buses[1])
    drawing.switch(buses[1], buses[2])
    drawing.evse(buses[2], "l123")
    electrical = drawing.electrical()
    live = energise(electrical, np.zeros(2, dtype=bool))
    assert live.bus_is_live.tolist() == [True, True, False]
