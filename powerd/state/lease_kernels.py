"""The lease book's loops: what may be in force at every EVSE, and what an ack or a grant changes, one EVSE at a time.

The columns are ``LeaseBook``'s. Those that are only read come in as read-only views and those that are written as
columns of this tick's own (``powerd.state.columns``), so that each kernel is compiled for one kind of array alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from powerd.compiled import kernel
from powerd.limits import Bools, Floats, Ints
from powerd.state.lease_book import HOLDS, SLOTS
from powerd.state.readings import STEP

MARGIN_A = 1.0
"""Least margin on a measurement above the ceiling [own unit]: max(1 A, 5 %), meters and cars round."""
MARGIN_SHARE = 0.05
"""Relative part of the same margin."""


#: ``Lines`` as they are handed to a loop, which names them inside: numba takes a plain tuple in half the time.
Handed = tuple[Any, ...]


class Lines(NamedTuple):
    """What the loops read of the book and the terms, as read-only columns; (n,) unless said otherwise."""

    echo_at_s: Floats
    """See ``LeaseBook``, likewise those up to ``defiant``."""
    unsettled: Bools
    granted: Bools
    perhaps_open: Bools
    reaction_s: Floats
    late_s: Floats
    said_fallback: Floats
    said_idle: Floats
    said_boot: Floats
    sent_ceiling: Floats
    sent_latched: Bools
    sent_until_s: Floats
    acked_ceiling: Floats
    acked_until_s: Floats
    slot_ceiling: Floats
    """(n, SLOTS)"""
    slot_until_s: Floats
    """(n, SLOTS)"""
    hold_ceiling: Floats
    """(n, HOLDS)"""
    hold_until_s: Floats
    """(n, HOLDS)"""
    barred_ceiling: Floats
    obeyed_since_s: Floats
    defiant: Bools
    plugged: Bools
    """A car is plugged in."""
    ttl_s: Floats
    """See ``LeaseTerms``, likewise the others."""
    class_reaction_s: Floats
    has_watchdog: Bools
    fallback: Floats
    fallback_idle: Floats
    boot: Floats
    rating: Floats


@kernel
def larger(own: float, said: float) -> float:
    """The larger of the site file's and what the controller said; nan = it did not."""
    return own if np.isnan(said) else max(own, said)


@kernel
def margin(drawn: float) -> float:
    """By how much a reading may exceed a ceiling and still count as obedient [own unit]: meters and cars round."""
    return max(MARGIN_A, MARGIN_SHARE * drawn)


# Loops of a known length: the compiler unrolls them, and asks a fifth of the time.


@kernel
def _largest_slot(ceiling: Floats, until_s: Floats, i: int, then_s: float) -> float:
    """Largest of the SLOTS ceilings of EVSE ``i`` that have not expired at ``then_s``."""
    largest = 0.0
    for k in range(SLOTS):
        if until_s[i, k] > then_s:
            largest = np.maximum(largest, ceiling[i, k])
    return largest


@kernel
def _largest_held(ceiling: Floats, until_s: Floats, i: int, then_s: float) -> float:
    """Likewise of the HOLDS ceilings that are held."""
    largest = 0.0
    for k in range(HOLDS):
        if until_s[i, k] > then_s:
            largest = np.maximum(largest, ceiling[i, k])
    return largest


@kernel
def all_held(ceiling: Floats, until_s: Floats, then_s: float) -> Floats:
    """(n,) the largest of what is held, (n, HOLDS) each, and has not expired at ``then_s``."""
    largest = np.empty(ceiling.shape[0])
    for i in range(largest.shape[0]):
        largest[i] = _largest_held(ceiling, until_s, i, then_s)
    return largest


# The parts take numbers, not ``Lines``: a call that is handed those counts the references of all their columns.


@kernel
def _falls_back(has_watchdog: bool, late_s: float) -> bool:
    """The post falls back by itself when its controller is gone."""
    return bool(has_watchdog and np.isfinite(late_s))


@kernel
def _follows(sent: float, lives: bool, opened: bool, fallback: float, idle: float) -> float:
    """The newest ceiling sent while it lives; then the fallback where a grant has opened it, else the idle one."""
    if lives and not np.isnan(sent):
        return sent
    return fallback if opened else idle


@kernel
def followed(handed: Handed, now_s: float) -> Floats:
    """(n,) see ``leases.in_force``."""
    lines = Lines(*handed)
    ceiling = np.empty(lines.rating.shape[0])
    for i in range(ceiling.shape[0]):
        then_s = now_s - (lines.reaction_s[i] - lines.class_reaction_s[i])
        ceiling[i] = _follows(
            lines.sent_ceiling[i],
            lines.sent_until_s[i] > then_s or lines.sent_latched[i],
            lines.plugged[i] and lines.granted[i],
            larger(lines.fallback[i], lines.said_fallback[i]),
            larger(lines.fallback_idle[i], lines.said_idle[i]),
        )
    return ceiling


@kernel
def granted(handed: Handed, now_s: float) -> Floats:
    """(n,) the largest grant that may be in force: the acked one and every later one that has not expired."""
    lines = Lines(*handed)
    ceiling = np.empty(lines.rating.shape[0])
    slots, until_s = lines.slot_ceiling, lines.slot_until_s
    for i in range(ceiling.shape[0]):
        then_s = now_s - (lines.reaction_s[i] - lines.class_reaction_s[i])
        acked = lines.acked_ceiling[i] if lines.acked_until_s[i] > then_s else 0.0
        ceiling[i] = np.maximum(acked, _largest_slot(slots, until_s, i, then_s))
    return ceiling


@kernel
def held(handed: Handed, now_s: float) -> Floats:
    """(n,) the largest of what is held and has not ended."""
    lines = Lines(*handed)
    ceiling = np.empty(lines.rating.shape[0])
    for i in range(ceiling.shape[0]):
        then_s = now_s - (lines.reaction_s[i] - lines.class_reaction_s[i])
        ceiling[i] = _largest_held(lines.hold_ceiling, lines.hold_until_s, i, then_s)
    return ceiling


@kernel
def reserved(handed: Handed) -> Floats:
    """(n,) see ``leases.reserve``."""
    lines = Lines(*handed)
    own = np.empty(lines.rating.shape[0])
    for i in range(own.shape[0]):
        fallback = larger(lines.fallback[i], lines.said_fallback[i])
        idle = larger(lines.fallback_idle[i], lines.said_idle[i])
        boot = larger(lines.boot[i], lines.said_boot[i])
        known = np.isfinite(lines.echo_at_s[i]) and np.isnan(lines.barred_ceiling[i])
        if known and not lines.unsettled[i]:
            opened = lines.granted[i] or lines.perhaps_open[i]
            with_car = np.maximum(boot, fallback if opened else 0.0)
            own[i] = np.maximum(idle, with_car if lines.plugged[i] else 0.0)
        elif _falls_back(lines.has_watchdog[i], lines.late_s[i]):
            own[i] = np.maximum(np.maximum(fallback, boot), idle)
        else:
            own[i] = lines.rating[i]
    return own


@kernel
def standing(handed: Handed, drawn: Floats, now_s: float) -> tuple[Floats, Floats, Floats]:
    """(n,) each, see ``leases.Standing``: W comes from what each post may do by itself, was granted, and draws."""
    lines = Lines(*handed)
    reserve, follows = reserved(handed), followed(handed, now_s)
    w = np.maximum(granted(handed, now_s), held(handed, now_s))
    for i in range(w.shape[0]):
        w[i] = np.maximum(reserve[i], w[i])
        # What it may still be doing is no excess: a lowering must not raise W by the margin, not even one from the
        # fallback, which no lease tells of. Nor is what was lawful when it was read: of a controller that says nothing
        # more, the reading says nothing of now.
        counts = np.isinf(lines.obeyed_since_s[i]) or not lines.plugged[i]
        if counts and drawn[i] > w[i] + margin(drawn[i]):
            w[i] = drawn[i] + margin(drawn[i])
        heard = now_s - lines.echo_at_s[i] <= lines.ttl_s[i]
        silent = not (heard or _falls_back(lines.has_watchdog[i], lines.late_s[i]))
        if silent and drawn[i] > w[i]:
            w[i] = drawn[i] + STEP  # no margin stands for what the door took off
        if not np.isnan(lines.barred_ceiling[i]):
            w[i] = np.maximum(w[i], lines.barred_ceiling[i])
        if lines.defiant[i]:
            w[i] = np.maximum(w[i], lines.rating[i])
    return reserve, follows, w


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
    for k in range(HOLDS):
        if hold_ceiling[i, k] >= ceiling and hold_until[i, k] >= until_s:
            return
        if hold_ceiling[i, k] <= ceiling and hold_until[i, k] <= until_s:
            hold_until[i, k] = -np.inf
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
        i, soon = evse[e], now_s + reaction_s[e]
        taken, own_until = ceiling[e], acked_until[i]
        for k in range(SLOTS):
            # The slot that holds seq is the first whose seq is not smaller (merged slots keep their newest seq).
            if slot_seq[i, k] >= seq and slot_seq[i, k] > 0 and slot_until[i, k] > then_s[e]:
                # A post that does less than it was granted, for heat or a broken phase, may do all of it later.
                taken, own_until = np.maximum(taken, slot_ceiling[i, k]), slot_until[i, k]
                break
        for k in range(HOLDS):
            # What an earlier leader granted is older than any ack of ours: where it would never end, it ends so.
            if hold_until[i, k] == np.inf:
                hold_until[i, k] = soon
        # Nothing outlives its own end: at E the car has followed, acked or not. So each is held by itself.
        lowered = acked_until[i] > then_s[e] and acked_ceiling[i] > taken
        if lowered:
            hold(hold_ceiling, hold_until, i, acked_ceiling[i], np.minimum(soon, acked_until[i]), then_s[e])
        for k in range(SLOTS):
            if slot_seq[i, k] <= 0 or not slot_until[i, k] > then_s[e]:
                continue
            if slot_seq[i, k] <= seq and slot_ceiling[i, k] > taken:
                hold(hold_ceiling, hold_until, i, slot_ceiling[i, k], np.minimum(soon, slot_until[i, k]), then_s[e])
                lowered = True
        if lowered:
            lowered_at[i] = np.minimum(lowered_at[i], now_s)
        for k in range(SLOTS):
            if slot_seq[i, k] <= seq:
                slot_seq[i, k], slot_ceiling[i, k], slot_until[i, k] = 0, 0.0, -np.inf
        acked_seq[i], acked_ceiling[i], acked_until[i] = seq, taken, own_until
