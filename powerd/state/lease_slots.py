"""The few places of the lease book for grants under way and for lowerings: full ones merge, which only raises W."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from powerd.limits import Floats, Ints
from powerd.state.columns import put
from powerd.state.lease_book import SLOTS, LeaseBook


def insert_slot(book: LeaseBook, evse: Ints, seq: int, ceiling: Floats, until_s: Floats, then_s: Floats) -> LeaseBook:
    """Adds an unacked grant at the right end of the slots of ``evse`` (k,).

    A repeat of the newest slot's ceiling extends that slot (a renewal costs no slot and loses nothing: an ack of the
    older seq leaves the same ceiling). Otherwise expired slots are squeezed out, and if there is still no room the two
    oldest are merged.
    """
    k = np.arange(evse.shape[0])
    slot_seq, slot_ceiling, slot_until = book.slot_seq[evse], book.slot_ceiling[evse], book.slot_until_s[evse]
    live = (slot_seq > 0) & (slot_until > then_s[:, None])
    order = np.argsort(~live, axis=1, kind="stable")  # live ones to the left, in their order
    slot_seq = np.take_along_axis(np.where(live, slot_seq, 0), order, axis=1)
    slot_ceiling = np.take_along_axis(np.where(live, slot_ceiling, 0.0), order, axis=1)
    slot_until = np.take_along_axis(np.where(live, slot_until, -np.inf), order, axis=1)
    used = live.sum(axis=1)
    last = np.maximum(used - 1, 0)
    repeat = (used > 0) & (slot_ceiling[k, last] == ceiling)
    full = (used == SLOTS) & ~repeat
    if full.any():
        slot_ceiling[full, 1] = np.maximum(slot_ceiling[full, 0], slot_ceiling[full, 1])
        slot_until[full, 1] = np.maximum(slot_until[full, 0], slot_until[full, 1])
        for column in (slot_seq, slot_ceiling, slot_until):
            column[full, :-1] = column[full, 1:]
    place = np.where(repeat, last, np.minimum(used, SLOTS - 1))
    slot_until[k, place] = np.where(repeat, np.maximum(slot_until[k, place], until_s), until_s)
    slot_seq[k, place] = seq
    slot_ceiling[k, place] = ceiling
    return replace(
        book,
        slot_seq=put(book.slot_seq, evse, slot_seq),
        slot_ceiling=put(book.slot_ceiling, evse, slot_ceiling),
        slot_until_s=put(book.slot_until_s, evse, slot_until),
    )


def insert_hold(book: LeaseBook, evse: Ints, ceiling: Floats, until_s: Floats, then_s: Floats) -> LeaseBook:
    """Adds a value to be held until ``until_s``: into an expired place, else merged with the one that ends first."""
    if evse.shape[0] == 0:
        return book
    k = np.arange(evse.shape[0])
    held, until = book.hold_ceiling[evse], book.hold_until_s[evse]
    place = until.argmin(axis=1)
    merge = until[k, place] > then_s
    held[k, place] = np.where(merge, np.maximum(held[k, place], ceiling), ceiling)
    until[k, place] = np.where(merge, np.maximum(until[k, place], until_s), until_s)
    return replace(
        book,
        hold_ceiling=put(book.hold_ceiling, evse, held),
        hold_until_s=put(book.hold_until_s, evse, until),
    )
