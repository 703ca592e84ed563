"""The few places of the lease book for grants under way and for lowerings: full ones merge, which only raises W."""

from __future__ import annotations

from powerd.compiled import read
from powerd.limits import Floats, Ints
from powerd.state.columns import own, replace
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_kernels import insert_holds, insert_slots


def insert_slot(book: LeaseBook, evse: Ints, seq: int, ceiling: Floats, until_s: Floats, then_s: Floats) -> LeaseBook:
    """Adds an unacked grant at the right end of the slots of ``evse`` (k,).

    A repeat of the newest slot's ceiling extends that slot (a renewal costs no slot and loses nothing: an ack of the
    older seq leaves the same ceiling). Otherwise expired slots are squeezed out, and if there is still no room the two
    oldest are merged.
    """
    slot_seq, slot_ceiling, slot_until = own(book.slot_seq), own(book.slot_ceiling), own(book.slot_until_s)
    insert_slots(slot_seq, slot_ceiling, slot_until, read(evse), seq, read(ceiling), read(until_s), read(then_s))
    return replace(book, slot_seq=slot_seq, slot_ceiling=slot_ceiling, slot_until_s=slot_until)


def insert_hold(book: LeaseBook, evse: Ints, ceiling: Floats, until_s: Floats, then_s: Floats) -> LeaseBook:
    """Adds a value to be held until ``until_s``: into an expired place, else merged with the one that ends first.

    What is neither larger nor longer than another one needs no place, and moves nothing.
    """
    if evse.shape[0] == 0:
        return book
    held, until = own(book.hold_ceiling), own(book.hold_until_s)
    insert_holds(held, until, read(evse), read(ceiling), read(until_s), read(then_s))
    return replace(book, hold_ceiling=held, hold_until_s=until)
