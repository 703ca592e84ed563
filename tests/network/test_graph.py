"""Components and breadth-first order against scipy's."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csgraph

from powerd.network.graph import breadth_first, components

EDGES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=24)


def ends_of(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(one ends, other ends)."""
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def matrix(nodes: int, one: np.ndarray, other: np.ndarray) -> sp.csr_array:
    """The same graph for scipy, both ways."""
    ones = np.ones(2 * one.shape[0], np.int8)
    return sp.csr_array((ones, (np.r_[one, other], np.r_[other, one])), shape=(nodes, nodes))


@given(edges=EDGES)
def test_components_are_those_of_scipy(edges: list[tuple[int, int]]) -> None:
    """Label by label, with parallel edges, edges from a node to itself, and nodes without any."""
    one, other = ends_of(edges)
    found = components(12, one, other)
    assert found.dtype == np.int64
    assert found.tolist() == csgraph.connected_components(matrix(12, one, other), directed=False)[1].tolist()


@given(edges=EDGES, roots=st.sets(st.integers(0, 11), min_size=1, max_size=4))
def test_breadth_first_is_that_of_scipy(edges: list[tuple[int, int]], roots: set[int]) -> None:
    """From a node joined to all roots scipy reaches the same nodes in the same order from the same neighbours."""
    one, other = ends_of(edges)
    start = np.array(sorted(roots))
    graph = matrix(13, np.r_[one, np.full(start.shape[0], 12)], np.r_[other, start])
    order, parent = csgraph.breadth_first_order(graph, 12, directed=True, return_predecessors=True)
    ours, reached_from = breadth_first(12, one, other, start)
    assert ours.tolist() == order[1:].tolist()
    assert reached_from.tolist() == np.where((parent[:12] == 12) | (parent[:12] < 0), -1, parent[:12]).tolist()
