"""The lease book's loops: what may be in force at every EVSE, and what an ack or a grant changes, one EVSE at a time.

The columns are ``LeaseBook``'s. Those that are only read come in as read-only views and those that are written as
columns of this tick's own (``powerd.state.columns``), so that each kernel is compiled for one kind of array alone.
"""

from __future__ import annotations

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints
from powerd.state.lease_book import HOLDS, SLOTS

MARGIN_A = 1.0
"""Least margin on a measurement above the ceiling [own unit]: max(1 A, 5 %), meters and cars round."""
MARGIN_SHARE = 0.05
"""Relative part of the same margin."""


@kernel
def live(ceiling: Floats, until_s: Floats, then_s: Floats) -> Floats:
    """(n,) largest ceiling (n, k) of those that have not expired at ``then_s`` (n,)."""
    largest = np.zeros(then_s.shape[0])
    for i in range(largest.shape[0]):
        for k in range(ceiling.shape[1]):
            if until_s[i, k] > then_s[i]:
                largest[i] = np.maximum(largest[i], ceiling[i, k])
    return largest


@kernel
def follow(
    until_s: Floats, latched: Bools, ceiling: Floats, then_s: Floats, opened: Bools, fallback: Floats, idle: Floats
) -> Floats:
    """(n,) the newest ceiling sent while it lives; then the fallback where a grant has opened it, else the idle one."""
    followed = np.empty(until_s.shape[0])
    for i in range(followed.shape[0]):
        if (until_s[i] > then_s[i] or latched[i]) and not np.isnan(ceiling[i]):
            followed[i] = ceiling[i]
        else:
            followed[i] = fallback[i] if opened[i] else idle[i]
    return followed


@kernel
def reserved(
    heard: Bools,
    plugged: Bools,
    opened: Bools,
    fallback: Floats,
    idle: Floats,
    boot: Floats,
    falls_back: Bools,
    rating: Floats,
) -> Floats:
    """(n,) see ``leases.reserve``; all (n,)."""
    own = np.empty(heard.shape[0])
    for i in range(own.shape[0]):
        if heard[i]:
            with_car = np.maximum(boot[i], fallback[i] if opened[i] else 0.0)
            own[i] = np.maximum(idle[i], with_car if plugged[i] else 0.0)
        else:
            own[i] = np.maximum(np.maximum(fallback[i], boot[i]), idle[i]) if falls_back[i] else rating[i]
    return own


@kernel
def most(
    reserve: Floats,
    lawful: Floats,
    in_force: Floats,
    drawn: Floats,
    mute: Bools,
    barred: Floats,
    defiant: Bools,
    rating: Floats,
) -> Floats:
    """(n,) W, from what each post may do by itself, what it was granted and what it draws [own unit]."""
    w = np.empty(reserve.shape[0])
    for i in range(w.shape[0]):
        w[i] = np.maximum(reserve[i], lawful[i])
        margin = max(MARGIN_A, MARGIN_SHARE * drawn[i])
        # What it may still be following is no excess: a lowering must not raise W by the margin.
        if drawn[i] > np.maximum(lawful[i], in_force[i]) + margin:
            w[i] = np.maximum(w[i], drawn[i] + margin)
        if mute[i]:
            w[i] = np.maximum(w[i], drawn[i])
        elif not np.isnan(barred[i]):
            w[i] = np.maximum(w[i], barred[i])
        if defiant[i]:
            w[i] = np.maximum(w[i], rating[i])
    return w


@kernel
def insert_slots(
    slot_seq: Ints, slot_ceiling: Floats, slot_until: Floats,
    evse: Ints, seq: int, ceiling: Floats, until_s: Floats, then_s: Floats,
) -> None:  # fmt: skip
    """See ``lease_slots.insert_slot``; the slots in place, the rest (k,)."""
    for e in range(evse.shape[0]):
        i, used = evse[e], 0
        for k in range(SLOTS):  # live ones to the left, in their order
            if slot_seq[i, k] > 0 and slot_until[i, k] > then_s[e]:
                slot_seq[i, used], slot_ceiling[i, used] = slot_seq[i, k], slot_ceiling[i, k]
                slot_until[i, used] = slot_until[i, k]
                used += 1
        for k in range(used, SLOTS):
            slot_seq[i, k], slot_ceiling[i, k], slot_until[i, k] = 0, 0.0, -np.inf
        if used > 0 and slot_ceiling[i, used - 1] == ceiling[e]:
            slot_seq[i, used - 1] = seq
            slot_until[i, used - 1] = np.maximum(slot_until[i, used - 1], until_s[e])
            continue
        if used == SLOTS:
            used -= 1
            slot_ceiling[i, 1] = np.maximum(slot_ceiling[i, 0], slot_ceiling[i, 1])
            slot_until[i, 1] = np.maximum(slot_until[i, 0], slot_until[i, 1])
            for k in range(used):
                slot_seq[i, k], slot_ceiling[i, k] = slot_seq[i, k + 1], slot_ceiling[i, k + 1]
                slot_until[i, k] = slot_until[i, k + 1]
        slot_seq[i, used], slot_ceiling[i, used], slot_until[i, used] = seq, ceiling[e], until_s[e]


@kernel
def hold(hold_ceiling: Floats, hold_until: Floats, i: int, ceiling: float, until_s: float, then_s: float) -> None:
    """See ``lease_slots.insert_hold``, for EVSE ``i`` in place."""
    place = 0
    for k in range(1, HOLDS):
        if hold_until[i, k] < hold_until[i, place]:
            place = k
    merge = hold_until[i, place] > then_s
    hold_ceiling[i, place] = np.maximum(hold_ceiling[i, place], ceiling) if merge else ceiling
    hold_until[i, place] = np.maximum(hold_until[i, place], until_s) if merge else until_s


@kernel
def insert_holds(
    hold_ceiling: Floats, hold_until: Floats, evse: Ints, ceiling: Floats, until_s: Floats, then_s: Floats
) -> None:
    """``hold`` for ``evse`` (k,)."""
    for e in range(evse.shape[0]):
        hold(hold_ceiling, hold_until, evse[e], ceiling[e], until_s[e], then_s[e])


@kernel
def retire(  # one pass over the EVSEs of an ack: everything that it changes
    slot_seq: Ints, slot_ceiling: Floats, slot_until: Floats,
    acked_seq: Ints, acked_ceiling: Floats, acked_until: Floats,
    hold_ceiling: Floats, hold_until: Floats, lowered_at: Floats,
    evse: Ints, seq: int, ceiling: Floats, then_s: Floats, reaction_s: Floats, now_s: float,
) -> None:  # fmt: skip
    """See ``leases._retire``; the book's columns in place, the rest (k,)."""
    for e in range(evse.shape[0]):
        i = evse[e]
        alive = acked_until[i] > then_s[e]
        before = np.maximum(acked_ceiling[i] if alive else 0.0, 0.0)
        # Nothing outlives its own end: at E the car has followed, acked or not. What is not lowered has no say in it.
        ended = acked_until[i] if acked_ceiling[i] > ceiling[e] else -np.inf
        own_until, found = acked_until[i], False
        for k in range(SLOTS):
            if slot_seq[i, k] <= 0 or not slot_until[i, k] > then_s[e]:
                continue
            # The slot that holds seq is the first whose seq is not smaller (merged slots keep their newest seq).
            if slot_seq[i, k] >= seq and not found:
                own_until, found = slot_until[i, k], True
            if slot_seq[i, k] <= seq:
                before = np.maximum(before, slot_ceiling[i, k])
                if slot_ceiling[i, k] > ceiling[e]:
                    ended = np.maximum(ended, slot_until[i, k])
        for k in range(HOLDS):
            # What an earlier leader granted is older than any ack of ours: where it would never end, it ends so.
            if hold_until[i, k] == np.inf:
                hold_until[i, k] = now_s + reaction_s[e]
        if before > ceiling[e]:
            hold(hold_ceiling, hold_until, i, before, np.minimum(now_s + reaction_s[e], ended), then_s[e])
            lowered_at[i] = np.minimum(lowered_at[i], now_s)
        for k in range(SLOTS):
            if slot_seq[i, k] <= seq:
                slot_seq[i, k], slot_ceiling[i, k], slot_until[i, k] = 0, 0.0, -np.inf
        acked_seq[i], acked_ceiling[i], acked_until[i] = seq, ceiling[e], own_until
