"""One switch state judged in microseconds: is it radial and safe, what does it feed, how much can be delivered."""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints
from powerd.network.electrical import V_LOW_PU


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
def tree_of(from_bus: Ints, to_bus: Ints, sure: Bools, start: Ints, links: Ints, roots: Ints, buses: int) -> Ints:
    """(3, B) order of the fed buses (-1 = end), branch towards the supply (-1 = none), supply number (-1 = dead).

    ``links[start[b]:start[b + 1]]`` are the branches at bus b; ``roots`` (r,) the buses of feeding supplies.
    """
    tree = np.full((3, buses), -1, np.int64)
    count = 0
    for k in range(roots.shape[0]):
        if tree[2, roots[k]] < 0:
            tree[2, roots[k]] = k
            tree[0, count] = roots[k]
            count += 1
    head = 0
    while head < count:
        bus = tree[0, head]
        head += 1
        for p in range(start[bus], start[bus + 1]):
            e = links[p]
            if not sure[e]:
                continue
            other = to_bus[e] if from_bus[e] == bus else from_bus[e]
            if tree[2, other] < 0:
                tree[2, other] = tree[2, bus]
                tree[1, other] = e
                tree[0, count] = other
                count += 1
    return tree


@kernel
def deliverable(  # one pass up the tree: split, each array would be walked once more
    from_bus: Ints,
    to_bus: Ints,
    tree: Ints,
    capacity: Floats,
    demand: Floats,
    reserve: Floats,
    load: Floats,
    import_kva: Floats,
    site_kva: float,
) -> Floats:
    """(2,) most power that the fed buses can be given, loads and charging [kVA], and by how much reserves do not fit.

    On a tree, max flow is min(capacity, sum of the children's) from the leaves up, for each phase alone.
    ``capacity`` (E, 3), ``demand``, ``reserve`` and ``load`` (B, 3) [kVA a phase]; ``import_kva`` (r,), all phases.
    Loads come as their current at the lowest voltage, of which an import limit counts the power.
    """
    flow, bound, fixed = demand.copy(), reserve.copy(), load.copy()
    count = import_kva.shape[0]
    given, held, taken = np.zeros(count), np.zeros(count), np.zeros(count)
    loads = 0.0
    misfit = 0.0
    for k in range(tree.shape[1] - 1, -1, -1):
        bus = tree[0, k]
        if bus < 0:
            continue
        e, supply = tree[1, bus], tree[2, bus]
        for p in range(3):
            if e < 0:
                given[supply] += flow[bus, p]
                held[supply] += bound[bus, p]
                taken[supply] += V_LOW_PU * fixed[bus, p]
                loads += fixed[bus, p]
                continue
            above = from_bus[e] if to_bus[e] == bus else to_bus[e]
            room = capacity[e, p] - fixed[bus, p]
            misfit = max(misfit, bound[bus, p] - room)
            flow[above, p] += min(flow[bus, p], max(room, 0.0))
            bound[above, p] += bound[bus, p]
            fixed[above, p] += fixed[bus, p]
    total, reserved, fed = 0.0, 0.0, 0.0
    for k in range(count):
        total += min(given[k], max(import_kva[k] - taken[k], 0.0))
        misfit = max(misfit, held[k] + taken[k] - import_kva[k])
        reserved += held[k]
        fed += taken[k]
    misfit = max(misfit, reserved + fed - site_kva)
    return np.array([min(total, max(site_kva - fed, 0.0)) + loads, misfit])


@kernel
def judge(
    closed: Bools,
    known: Bools,
    shadow: Bools,
    from_bus: Ints,
    to_bus: Ints,
    start: Ints,
    links: Ints,
    roots: Ints,
    sources: Ints,
    barred: Bools,
    worth: Floats,
    capacity: Floats,
    demand: Floats,
    reserve: Floats,
    load: Floats,
    import_kva: Floats,
    site_kva: float,
) -> Floats:
    """(6,) rings, supplies too many, misfit [kVA], critical load [kVA], deliverable [kVA], what else is fed.

    ``closed`` (E,) is the state; ``known`` (E,) conducts where it is closed; ``shadow`` (E,) could conduct although
    nothing is fed through it; ``barred`` (B,) must not be fed: counted as supplies too many; ``worth`` (B, 2) critical
    load and EVSE ratings of each bus [kVA].
    """
    buses = demand.shape[0]
    sure = known & closed
    faults = faults_of(from_bus, to_bus, sure, shadow, roots, sources, buses)
    tree = tree_of(from_bus, to_bus, sure, start, links, roots, buses)
    result = deliverable(from_bus, to_bus, tree, capacity, demand, reserve, load, import_kva, site_kva)
    critical, posts, wrong = 0.0, 0.0, 0
    for bus in range(buses):
        if tree[2, bus] >= 0:
            critical += worth[bus, 0]
            posts += worth[bus, 1]
            if barred[bus]:
                wrong += 1
    return np.array([faults[0], faults[1] + wrong, result[1], critical, result[0], posts])


@kernel
def search(
    present: Bools,
    states: Ints,
    which: Ints,
    lock_start: Ints,
    lock_branch: Ints,
    lock_most: Ints,
    known: Bools,
    shadow: Bools,
    from_bus: Ints,
    to_bus: Ints,
    start: Ints,
    links: Ints,
    roots: Ints,
    sources: Ints,
    barred: Bools,
    worth: Floats,
    capacity: Floats,
    demand: Floats,
    reserve: Floats,
    load: Floats,
    import_kva: Floats,
    site_kva: float,
) -> Floats:
    """(len(states), 5) the columns of ``Score`` of each state; bit k of a state closes switch ``which[k]``.

    What is wrong with the present state too does not count against another one.
    """
    result = np.zeros((states.shape[0], 5))
    shut = np.zeros(lock_most.shape[0], np.int64)
    for g in range(lock_most.shape[0]):
        for p in range(lock_start[g], lock_start[g + 1]):
            shut[g] += present[lock_branch[p]]
    now = judge(
        present, known, shadow, from_bus, to_bus, start, links, roots, sources, barred, worth, capacity, demand,
        reserve, load, import_kva, site_kva,
    )  # fmt: skip
    closed = present.copy()
    for i in range(states.shape[0]):
        moved, wrong = 0, 0.0
        for k in range(which.shape[0]):
            closed[which[k]] = (states[i] >> k) & 1 == 1
            moved += closed[which[k]] != present[which[k]]
        for g in range(lock_most.shape[0]):
            count = 0
            for p in range(lock_start[g], lock_start[g + 1]):
                count += closed[lock_branch[p]]
            wrong += max(0, count - max(lock_most[g], shut[g]))
        found = judge(
            closed, known, shadow, from_bus, to_bus, start, links, roots, sources, barred, worth, capacity, demand,
            reserve, load, import_kva, site_kva,
        )  # fmt: skip
        wrong += max(0.0, found[0] - now[0]) + max(0.0, found[1] - now[1])
        if found[2] > max(1e-6, now[2] + 1e-6):
            wrong += 1
        result[i, 0] = -wrong
        for c in range(3):
            result[i, 1 + c] = np.round(found[3 + c], 3)
        result[i, 4] = -moved
    return result
