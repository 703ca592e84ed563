"""Weighted max-min on a tree by Newton's method on the levels of its rows, from those of the last tick.

Give every row r a level T_r, infinite where it bounds nobody. An EVSE stands at the lowest level of the rows on its
path, y_i = clip(v_i min T_r, lower_i, upper_i), and that row is the one that holds it. The answer is where

    flow_r = room_r  for every row that holds somebody,     flow_r <= room_r  for the others,

for then each EVSE below its upper bound has a bottleneck: a full row on which nobody has more. Between two bends each
flow is a line in the level of the row that holds, so a round is one Newton step on every row at once; when it is known
who is held by which row and who stands at a bound, as after a tick in which little changed, one or two rounds land on
the answer. Nothing makes sure that rounds end: the filling (``max_min_tree``) always does, and comes next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.allocation.forest import Forest, Grown, tree_at
from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints

#: Share of its room by which a full row may be off, and any row overdrawn.
EXACT = 1e-12

#: How exactly a row that begins to hold is filled at first.
ROUGH = 1e-3

#: Rounds after which the filling is quicker.
MOST_ROUNDS = 20


class Rows(NamedTuple):
    """The rows of one tree, N nodes and 3 phases each; levels are in own unit per weight."""

    level: Floats
    """(N, 3) T; infinite where the row bounds nobody."""
    lowest: Floats
    """(N, 3) the lowest level from the root to here."""
    holder: Ints
    """(N, 3) whose that is: 3 x node + phase."""
    flow: Floats
    """(N, 3) [reference A]"""
    slope: Floats
    """(N, 3) how the flow of those it holds answers to its level [reference A per level]."""
    holds: Bools
    """(N, 3) somebody would take more if its level were higher."""


@kernel
def _look_up(tree: Grown, rows: Rows) -> None:
    """Write the lowest level of every path, and take the sums back to nothing."""
    for v in range(tree.nodes.shape[0]):
        for k in range(3):
            rows.lowest[v, k] = rows.level[v, k]
            rows.holder[v, k] = 3 * v + k
            rows.flow[v, k] = 0.0
            rows.slope[v, k] = 0.0
            rows.holds[v, k] = False
        if v > 0:
            above = tree.nodes[v]["parent"]
            for k in range(3):
                if rows.lowest[above, k] < rows.lowest[v, k]:
                    rows.lowest[v, k] = rows.lowest[above, k]
                    rows.holder[v, k] = rows.holder[above, k]


@kernel
def _held_by(rows: Rows, v: int, bits: int) -> tuple[float, int]:
    """The lowest level for a run, and the row that says it."""
    level, holder = np.inf, -1
    for k in range(3):
        if bits >> k & 1 and rows.lowest[v, k] < level:
            level, holder = rows.lowest[v, k], rows.holder[v, k]
    return level, holder


@kernel
def _respond(tree: Grown, share: Floats, rows: Rows) -> None:
    """What the EVSEs take at the levels: flows and slopes of all rows are written."""
    lower, upper = tree.lower, tree.upper
    _look_up(tree, rows)
    for q in range(tree.runs.shape[0]):
        run = tree.runs[q]
        level, holder = _held_by(rows, run["node"], run["bits"])
        flow, slope = 0.0, 0.0
        for j in range(run["first"], run["last"]):
            y = share[j] * level
            held = min(max(y, lower[j]), upper[j])
            slope += share[j] if held == y else 0.0
            flow += held
        for k in range(3):
            if run["bits"] >> k & 1:
                rows.flow[run["node"], k] += flow
        if holder >= 0:
            rows.slope[holder // 3, holder % 3] += slope
            rows.holds[holder // 3, holder % 3] |= flow < run["most"]
    for v in range(tree.nodes.shape[0] - 1, 0, -1):
        for k in range(3):
            rows.flow[tree.nodes[v]["parent"], k] += rows.flow[v, k]


@kernel
def _below(tree: Grown, share: Floats, rows: Rows, v: int, k: int, level: float) -> tuple[float, float, float]:
    """Flow of a row and its slope if those below it stood no higher than ``level``, and the shares of them all."""
    node, first = tree.nodes[v], tree.nodes[0]["first"]
    lower, upper = tree.lower, tree.upper
    flow, slope, shares = 0.0, 0.0, 0.0
    for q in range(node["first"] - first, node["last"] - first):
        run = tree.runs[q]
        if not run["bits"] >> k & 1:
            continue
        others, _ = _held_by(rows, run["node"], run["bits"])
        for j in range(run["first"], run["last"]):
            y = share[j] * min(level, others)
            held = min(max(y, lower[j]), upper[j])
            slope += share[j] if held == y and level <= others else 0.0
            shares += share[j]
            flow += held
    return flow, slope, shares


@kernel
def _alone(tree: Grown, share: Floats, rows: Rows, v: int, k: int) -> float:
    """The level at which an overdrawn row that holds nobody would be full, all others standing still.

    From below: without lower bounds the flow is concave in the level, and Newton's steps do not go beyond the root.
    """
    room = tree.nodes[v]["room"][k]
    _, _, shares = _below(tree, share, rows, v, k, 0.0)
    level = max(room, 0.0) / shares
    for _ in range(MOST_ROUNDS):
        flow, slope, _ = _below(tree, share, rows, v, k, level)
        if abs(flow - room) <= ROUGH * room or slope == 0.0:
            break
        level = max(level + (room - flow) / slope, 0.0)
    return float(level)


@kernel
def _off(tree: Grown, rows: Rows, v: int, k: int) -> float:
    """By how much of its room a row is off: overdrawn, or not full though it holds somebody back."""
    room = tree.nodes[v]["room"][k]
    if room == np.inf:
        return 0.0
    over = (rows.flow[v, k] - room) / max(room, 1e-300)
    return float(abs(over) if rows.holds[v, k] else max(over, 0.0))


@kernel
def _worst(tree: Grown, rows: Rows) -> float:
    """The same of the worst row."""
    worst = 0.0
    for v in range(tree.nodes.shape[0]):
        for k in range(3):
            worst = max(worst, _off(tree, rows, v, k))
    return worst


@kernel
def _step(tree: Grown, share: Floats, rows: Rows) -> None:
    """One Newton step of every row that is off; one that is overdrawn and holds nobody begins to hold.

    A row with room to spare of which all stand at their lower bounds lets go: nothing says how far it is from full.
    """
    for v in range(tree.nodes.shape[0]):
        for k in range(3):
            if not _off(tree, rows, v, k) > EXACT:
                continue
            over = rows.flow[v, k] - tree.nodes[v]["room"][k]
            if rows.slope[v, k] > 0.0:
                rows.level[v, k] = max(rows.level[v, k] - over / rows.slope[v, k], 0.0)
            elif over > 0.0:
                rows.level[v, k] = min(rows.lowest[v, k], _alone(tree, share, rows, v, k))
            else:
                rows.level[v, k] = np.inf


@kernel
def _write(tree: Grown, share: Floats, rows: Rows, y: Floats) -> None:
    """What every EVSE takes, and the prices of the rows."""
    for v in range(tree.nodes.shape[0]):
        for k in range(3):
            holds = rows.holds[v, k] and rows.level[v, k] > 0.0
            tree.nodes[v]["price"][k] = 1.0 / rows.level[v, k] if holds else 0.0
    for q in range(tree.runs.shape[0]):
        run = tree.runs[q]
        level, _ = _held_by(rows, run["node"], run["bits"])
        for j in range(run["first"], run["last"]):
            y[j] = min(max(share[j] * level, tree.lower[j]), tree.upper[j])


@kernel
def _settle(tree: Grown, share: Floats, y: Floats) -> int:
    """Bring the levels of one tree from 1 / price to the answer, and write it; rounds, -1 if it gave up."""
    size = (tree.nodes.shape[0], 3)
    whose, holds = np.empty(size, np.int64), np.empty(size, np.bool_)
    rows = Rows(np.empty(size), np.empty(size), whose, np.empty(size), np.empty(size), holds)
    for v in range(size[0]):
        for k in range(3):
            price = tree.nodes[v]["price"][k]
            rows.level[v, k] = 1.0 / price if price > 0.0 else np.inf
    for done in range(MOST_ROUNDS):
        _respond(tree, share, rows)
        if _worst(tree, rows) <= EXACT:
            _write(tree, share, rows, y)
            return done + 1
        _step(tree, share, rows)
    return -1


@kernel
def settle(forest: Forest, start: Floats) -> tuple[Floats, int]:
    """Newton on the levels of all trees.

    Args:
        forest: the stage; ``price`` of its rows is written, 1 / level.
        start: (m,) row prices to start from, 1 / level; 0 = holds nobody back.

    Returns:
        What every EVSE takes (k,) [reference A], and rounds in all, -1 if one tree did not settle.
    """
    share, y = forest.weight * forest.gain, np.empty(forest.evse.shape[0])
    for v in range(forest.nodes.shape[0]):
        for k in range(3):
            r = forest.nodes[v]["row"][k]
            forest.nodes[v]["price"][k] = start[r] if r >= 0 else 0.0
    rounds, root = 0, 0
    while root < forest.nodes.shape[0]:
        tree = tree_at(forest, root)
        done = _settle(tree, share, y)
        if done < 0:
            return y, -1
        rounds += done
        root = forest.nodes[root]["end"]
    return y, rounds
