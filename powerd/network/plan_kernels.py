"""One switch state judged in microseconds: is it radial and safe, what does it feed, how much can be delivered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints


class Grid(NamedTuple):
    """What is built, as the kernels read it; B buses, E branches, S supplies, G interlocks, kVA a phase."""

    from_bus: Ints
    to_bus: Ints
    start: Ints
    """(B + 1,) with ``links``: the branches at each bus."""
    links: Ints
    capacity: Floats
    """(E, 3) rating; inf = none."""
    rating: Floats
    """(B, 3) ratings of the EVSEs."""
    reserve: Floats
    """(B, 3) what they may draw without a grant."""
    reserve_kw: Floats
    """(B,) the same as limits in kW count it."""
    load: Floats
    """(B, 3) uncontrolled loads at their worst, at the lowest voltage."""
    load_kw: Floats
    """(B,) the same as limits in kW count it."""
    pickup: Floats
    """(B, 3) ``load`` right after an outage."""
    pickup_kw: Floats
    """(B,) ``load_kw`` right after an outage."""
    worth: Floats
    """(B, 2) critical load, and EVSE rating with all loads; all phases."""
    supply_bus: Ints
    """(S,) bus of each supply."""
    import_kw: Floats
    """(S,) most it may give."""
    site_kw: float
    """Most for the whole site."""
    least_kw: float
    """Least that the whole site is ever left by envelopes that powerd answers for."""
    lock_start: Ints
    """(G + 1,) where the branches of each interlock start."""
    lock_branch: Ints
    lock_most: Ints
    """(G,) how many of an interlock may be closed."""


class Case(NamedTuple):
    """What is asked, as the kernels read it; r feeding supplies."""

    present: Bools
    """(E,) positions now."""
    known: Bools
    """(E,) conducts where it is closed."""
    shadow: Bools
    """(E,) could conduct although nothing is fed through it."""
    which: Ints
    """(k,) switches that may move: a state says of each whether it is closed."""
    roots: Ints
    """(r,) buses of feeding supplies."""
    import_kw: Floats
    """(r,) most each may give."""
    barred: Bools
    """(B,) must not be fed."""
    worth: Floats
    """(B, 2) ``Grid.worth``, a little more for what is fed now."""
    demand: Floats
    """(B, 3) what the EVSEs could take [kVA]."""
    load: Floats
    """(B, 3) uncontrolled loads, as they come back where they are off [kVA]."""
    load_kw: Floats
    """(B,) the same as limits in kW count it."""


@kernel
def root_of(group: Ints, bus: int) -> int:
    """The bus that stands for a group of joined buses (path halving)."""
    while group[bus] != bus:
        group[bus] = group[group[bus]]
        bus = group[bus]
    return bus


@kernel
def faults_of(from_bus: Ints, to_bus: Ints, sure: Bools, shadow: Bools, roots: Ints, sources: Ints, buses: int) -> Ints:
    """(2,) rings, and supplies too many in groups that have voltage.

    ``roots`` (r,) are buses of feeding supplies, ``sources`` (s,) those of all; ``shadow`` (E,) could conduct, too: a
    ring through it means that what it fed is not apart from its old supply.
    """
    group = np.arange(buses)
    rings = 0
    for e in range(from_bus.shape[0]):
        if sure[e]:
            a, b = root_of(group, from_bus[e]), root_of(group, to_bus[e])
            if a == b:
                rings += 1
            group[max(a, b)] = min(a, b)
    for e in range(from_bus.shape[0]):
        if shadow[e] and not sure[e]:
            a, b = root_of(group, from_bus[e]), root_of(group, to_bus[e])
            if a == b:
                rings += 1
            group[max(a, b)] = min(a, b)
    live = np.zeros(buses, np.bool_)
    for k in range(roots.shape[0]):
        live[root_of(group, roots[k])] = True
    seen = np.zeros(buses, np.int64)
    extra = 0
    for k in range(sources.shape[0]):
        g = root_of(group, sources[k])
        seen[g] += 1
        if live[g] and seen[g] > 1:
            extra += 1
    return np.array([rings, extra])


@kernel
def tree_of(
    from_bus: Ints, to_bus: Ints, sure: Bools, shadow: Bools, start: Ints, links: Ints, roots: Ints, buses: int
) -> Ints:
    """(4, B) order of the buses that hang on a supply, branch towards it, its number, 1 where the bus is fed surely.

    -1 = end, none, hangs on nothing. Those that only hang on something live, through what could conduct, come last.
    ``links[start[b]:start[b + 1]]`` are the branches at bus b; ``roots`` (r,) the buses of feeding supplies.
    """
    tree = np.full((4, buses), -1, np.int64)
    count = 0
    for k in range(roots.shape[0]):
        if tree[2, roots[k]] < 0:
            tree[2, roots[k]], tree[3, roots[k]] = k, 1
            tree[0, count] = roots[k]
            count += 1
    for surely in (1, 0):
        head = 0 if surely == 1 or shadow.any() else count
        while head < count:
            bus = tree[0, head]
            head += 1
            for p in range(start[bus], start[bus + 1]):
                e = links[p]
                other = to_bus[e] if from_bus[e] == bus else from_bus[e]
                if tree[2, other] < 0 and (sure[e] or (surely == 0 and shadow[e])):
                    tree[1, other], tree[2, other], tree[3, other] = e, tree[2, bus], surely
                    tree[0, count] = other
                    count += 1
    return tree


@kernel
def coming_back(grid: Grid, case: Case, closed: Bools) -> tuple[Floats, Floats]:
    """(B, 3) loads on the way to a state [kVA], (B,) as limits in kW count them: openings come before closings.

    So what hangs on nothing between the two, and is fed by a closing, comes back with its pick-up, whatever it is now.
    """
    closes = False
    for k in range(case.which.shape[0]):
        closes |= closed[case.which[k]] and not case.present[case.which[k]]
    if not closes:
        return case.load, case.load_kw
    load, load_kw = case.load.copy(), case.load_kw.copy()
    between, buses = case.known & case.present & closed, load_kw.shape[0]
    tree = tree_of(grid.from_bus, grid.to_bus, between, case.shadow, grid.start, grid.links, case.roots, buses)
    for bus in range(buses):
        if tree[2, bus] < 0:
            load[bus], load_kw[bus] = grid.pickup[bus], grid.pickup_kw[bus]
    return load, load_kw


@kernel
def deliverable(  # one pass up the tree, for all at once
    grid: Grid, case: Case, tree: Ints, load: Floats, load_kw: Floats
) -> tuple[float, Floats]:
    """Most power that the fed buses can be given, loads and charging [kVA], and by how much reserves do not fit.

    That is (E + r + 2,): under each branch, each feeding supply, the least and the most that the site may import; below
    0 where they fit. Beside reserves ``load`` (B, 3), ``load_kw`` (B,) have to: what loads take while they come back.

    On a tree, max flow is min(capacity, sum of the children's) from the leaves up, for each phase alone. With their
    pick-up loads only have to fit: it is over in minutes, and neither makes what is dark worth more than what is fed
    nor takes the worth of the cars beside it. What may hang on something fed is given nothing, and counts like it: so
    the limits of the tick have it until it is surely apart.
    """
    flow, bound, usual, fixed = case.demand.copy(), grid.reserve.copy(), grid.load.copy(), load.copy()
    bound_kw, usual_kw, fixed_kw = grid.reserve_kw.copy(), grid.load_kw.copy(), load_kw.copy()
    count = case.import_kw.shape[0]
    given, held, taken, normal = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    edges, loads = grid.from_bus.shape[0], 0.0
    over = np.full(edges + count + 2, -np.inf)
    for k in range(tree.shape[1] - 1, -1, -1):
        bus = tree[0, k]
        if bus < 0:
            continue
        e, supply = tree[1, bus], tree[2, bus]
        if tree[3, bus] == 1:
            loads += grid.load[bus].sum()
        else:
            flow[bus] = 0.0
        if e < 0:
            given[supply] += flow[bus].sum()
            held[supply] += bound_kw[bus]
            taken[supply] += fixed_kw[bus]
            normal[supply] += usual_kw[bus]
            continue
        above = grid.from_bus[e] if grid.to_bus[e] == bus else grid.to_bus[e]
        bound_kw[above] += bound_kw[bus]
        usual_kw[above] += usual_kw[bus]
        fixed_kw[above] += fixed_kw[bus]
        for p in range(3):
            over[e] = max(over[e], bound[bus, p] + fixed[bus, p] - grid.capacity[e, p])
            flow[above, p] += min(flow[bus, p], max(grid.capacity[e, p] - usual[bus, p], 0.0))
            bound[above, p] += bound[bus, p]
            usual[above, p] += usual[bus, p]
            fixed[above, p] += fixed[bus, p]
    total = 0.0
    for k in range(count):
        total += min(given[k], max(case.import_kw[k] - normal[k], 0.0))
        over[edges + k] = held[k] + taken[k] - case.import_kw[k]
    over[edges + count] = held.sum() + normal.sum() - grid.least_kw
    over[edges + count + 1] = held.sum() + taken.sum() - grid.site_kw
    return min(total, max(grid.site_kw - normal.sum(), 0.0)) + loads, over


@kernel
def faults_in(grid: Grid, case: Case, closed: Bools) -> Ints:
    """(2,) ``faults_of`` a state (E,)."""
    return faults_of(
        grid.from_bus, grid.to_bus, case.known & closed, case.shadow, case.roots, grid.supply_bus, case.barred.shape[0]
    )


@kernel
def judge(grid: Grid, case: Case, closed: Bools) -> tuple[Floats, Floats]:
    """(4,) buses that are fed and must not be, critical load, deliverable, fed [kVA]; and what does not fit.

    ``closed`` (E,) is the state; of rings and of supplies together ``faults_in`` tells. See ``deliverable``.
    """
    buses = case.demand.shape[0]
    sure = case.known & closed
    tree = tree_of(grid.from_bus, grid.to_bus, sure, case.shadow, grid.start, grid.links, case.roots, buses)
    load, load_kw = coming_back(grid, case, closed)
    delivered, over = deliverable(grid, case, tree, load, load_kw)
    critical, posts, wrong = 0.0, 0.0, 0
    for bus in range(buses):
        if tree[3, bus] == 1:
            critical += case.worth[bus, 0]
            posts += case.worth[bus, 1]
            if case.barred[bus]:
                wrong += 1
    return np.array([wrong, critical, delivered, posts]), over


@kernel
def shut_in(grid: Grid, closed: Bools, lock: int) -> int:
    """How many switches of an interlock are closed."""
    count = 0
    for p in range(grid.lock_start[lock], grid.lock_start[lock + 1]):
        count += closed[grid.lock_branch[p]]
    return count


@kernel
def search(grid: Grid, case: Case, states: Bools) -> Floats:
    """(s, 5) the columns of ``Score`` of each of the ``states`` (s, k): positions of the switches that may move.

    What is wrong with the present state too, and no worse, does not count against another one: limit by limit, for one
    that is broken now would else hide what is broken elsewhere. Of a state with more rings or supplies together than
    now, as most are, nothing else is said.
    """
    result = np.zeros((states.shape[0], 5))
    faults_now, (now, allowed) = faults_in(grid, case, case.present), judge(grid, case, case.present)
    rings_now, many_now = faults_now[0], faults_now[1] + now[0]
    allowed = np.maximum(allowed, 0.0) + 1e-6
    closed = case.present.copy()
    for i in range(states.shape[0]):
        moved, wrong = 0, 0.0
        for k in range(case.which.shape[0]):
            closed[case.which[k]] = states[i, k]
            moved += closed[case.which[k]] != case.present[case.which[k]]
        for g in range(grid.lock_most.shape[0]):
            wrong += max(0, shut_in(grid, closed, g) - max(grid.lock_most[g], shut_in(grid, case.present, g)))
        result[i, 4] = -moved
        faults = faults_in(grid, case, closed)
        more = max(0.0, faults[0] - rings_now) + max(0.0, faults[1] - many_now)
        if more > 0.0:
            result[i, 0] = -wrong - more
            continue
        found, over = judge(grid, case, closed)
        wrong += max(0.0, faults[1] + found[0] - many_now)
        if np.any(over > allowed):
            wrong += 1
        result[i, 0] = -wrong
        for c in range(3):
            result[i, 1 + c] = np.round(found[1 + c], 3)
    return result
