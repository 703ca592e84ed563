"""Posts that can be told to connect L1 alone: for how many phases ceilings are granted; columns over the n EVSEs.

A ceiling is granted either for L1 alone or for all phases, and a post never offers it on more phases than it was
granted for. So what counts is not where a contactor stands but what every ceiling above 0 that may be in force was
granted for:

- what is granted (``one``) changes only while W is 0, so no ceiling of before can be in force any more;
- from all phases to L1: its ceiling stays 0, and it counts on all phases, until it has acked a grant for L1 alone.
  Older grants it refuses from then on, later ones are for L1 alone: this is what ``proved`` says;
- from L1 to all phases: the post counts on all of them before the first such grant leaves.

A proof stands through the silence, the restart and the hello of a controller, and through our own restart (the change
back is durable before a grant above 0 leaves); it ends where somebody says or shows otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.state.columns import put, replace


@dataclass(frozen=True, kw_only=True, eq=False)
class Contactors:
    """(n,) each; times on our boottime [s]."""

    able: Bools
    """Its controller said that it can be told to connect L1 alone."""
    one: Bools
    """What is granted is for L1 alone."""
    said_seq: Ints
    """Seq of the first grant of this epoch that said so; 0 = it is still to be said; -1 = there is nothing to say."""
    proved: Bools
    """The post has acked such a grant: it counts on L1 alone."""
    leaving: Bools
    """Nothing is granted for L1 alone any more: as soon as W is 0, ceilings are for all phases again."""
    changed_s: Floats
    """When ``one`` last changed, or had to be said anew; -inf = never."""
    roomy_since_s: Floats
    """Since when all cars' minima have fitted on all phases above a post with L1 alone; inf = they do not."""


def open_contactors(count: int) -> Contactors:
    """All ceilings for all phases."""
    no = np.zeros(count, np.bool_)
    return Contactors(
        able=no,
        one=no,
        said_seq=np.full(count, -1),
        proved=no,
        leaving=no,
        changed_s=np.full(count, -np.inf),
        roomy_since_s=np.full(count, np.inf),
    )


def reopen_contactors(contactors: Contactors, was_s: float, now_s: float) -> Contactors:
    """After a restart: what was proved stays so; under the new epoch it is said anew."""
    return replace(
        contactors,
        said_seq=np.where(contactors.one, 0, -1),
        changed_s=contactors.changed_s + (now_s - was_s),
        roomy_since_s=np.full_like(contactors.roomy_since_s, np.inf),
    )


def greet(contactors: Contactors, evse: Ints, able: Bools, ceiling: Floats, one: Bools, now_s: float) -> Contactors:
    """A hello says what ``evse`` (k,) can do, and for which phases the ceiling (k,) is that they offer.

    A ceiling of 0 is for any phases. One that we did not grant so was granted by another leader: it is taken over as it
    is, and nothing is proved.
    """
    foreign = (ceiling > 0) & (one != contactors.one[evse])
    wanted = np.where(foreign, one, contactors.one[evse])
    return replace(
        contactors,
        able=put(contactors.able, evse, able),
        one=put(contactors.one, evse, wanted),
        proved=put(contactors.proved, evse, contactors.proved[evse] & able & ~foreign),
        said_seq=put(contactors.said_seq, evse, np.where(foreign, 0, contactors.said_seq[evse])),
        leaving=put(contactors.leaving, evse, contactors.leaving[evse] & wanted),
        changed_s=put(contactors.changed_s, evse, np.where(foreign, now_s, contactors.changed_s[evse])),
    )


def doubt(contactors: Contactors, now_s: float) -> Contactors:
    """Another leader was here: nothing is proved any more, and what is granted is said anew."""
    return replace(
        contactors,
        proved=np.zeros_like(contactors.proved),
        said_seq=np.where(contactors.one, 0, -1),
        changed_s=np.where(contactors.one, now_s, contactors.changed_s),
    )


def heed(contactors: Contactors, evse: Ints, seq: int, sent_seq: Ints, one: Bools) -> Contactors:
    """An ack of message ``seq`` of our epoch says what ``evse`` (k,) have connected.

    Args:
        contactors: before it.
        evse: (k,) who acks.
        seq: of the message.
        sent_seq: (k,) the newest seq sent to each.
        one: (k,) L1 alone.
    """
    said = contactors.said_seq[evse]
    concerned = contactors.one[evse] & (said > 0) & (said <= seq) & (seq <= sent_seq)
    return replace(contactors, proved=put(contactors.proved, evse[concerned], one[concerned]))


def told(contactors: Contactors, evse: Ints, seq: int) -> Contactors:
    """Message ``seq`` goes to ``evse`` (k,)."""
    first = evse[contactors.said_seq[evse] == 0]
    if first.shape[0] == 0:
        return contactors
    return replace(contactors, said_seq=put(contactors.said_seq, first, seq))


def grant_for(contactors: Contactors, evse: Ints, one: bool, now_s: float) -> Contactors:
    """From now on ceilings of ``evse`` (k,) are for L1 alone, or for all phases. Only while their W is 0."""
    if evse.shape[0] == 0:
        return contactors
    return replace(
        contactors,
        one=put(contactors.one, evse, one),
        said_seq=put(contactors.said_seq, evse, 0),
        proved=put(contactors.proved, evse, False),
        leaving=put(contactors.leaving, evse, False),
        changed_s=put(contactors.changed_s, evse, now_s),
        roomy_since_s=put(contactors.roomy_since_s, evse, np.inf),
    )
