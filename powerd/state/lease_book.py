"""The lease book's columns, and a book without state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.limits import Bools, Floats, Ints
from powerd.state.lease_terms import LeaseTerms

SLOTS = 6
"""Unacked grants remembered per EVSE before two are merged."""
HOLDS = 4
"""Lowerings under way remembered per EVSE before two are merged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LeaseBook:
    """All leases of a site; replaced, never changed in place."""

    epoch: int
    """Who leads: ours."""
    seq: int
    """Newest seq given out in this epoch."""
    sent_seq: Ints
    """(n,) newest message that concerned the EVSE, 0 = none in this epoch."""
    explicit_seq: Ints
    """(n,) newest message that named its ceiling (not a RenewAll); of a stop that is said again the first."""
    sent_ceiling: Floats
    """(n,) newest ceiling sent; nan = none."""
    sent_latched: Bools
    """(n,) that was a stop."""
    sent_at_s: Floats
    """(n,) when."""
    sent_until_s: Floats
    """(n,) its E."""
    slot_seq: Ints
    """(n, SLOTS) unacked grants, ascending by seq from the left; 0 = empty."""
    slot_ceiling: Floats
    """(n, SLOTS) their ceilings; 0 where empty."""
    slot_until_s: Floats
    """(n, SLOTS) their E; -inf where empty."""
    acked_seq: Ints
    """(n,) newest acked seq of this epoch."""
    acked_ceiling: Floats
    """(n,) ceiling applied with it."""
    acked_until_s: Floats
    """(n,) its E."""
    hold_ceiling: Floats
    """(n, HOLDS) values before a lowering."""
    hold_until_s: Floats
    """(n, HOLDS) ack + reaction; -inf where empty."""
    echo_incarnation: Ints
    """(n,) newest stamp absorbed: process, 0 = none."""
    echo_boottime_s: Floats
    """(n,) newest stamp absorbed: its clock."""
    echo_at_s: Floats
    """(n,) when that stamp was absorbed; -inf = never heard from."""
    streamed: Bools
    """(n,) a stream can carry grants to it."""
    plug_boottime_s: Floats
    """(n,) controller's clock at the newest plug change known."""
    granted: Bools
    """(n,) a grant that is no stop was sent, or its controller names one, since the car came: its fallback is possible
    from now on."""
    perhaps_open: Bools
    """(n,) somebody may have granted the car something: its fallback is reserved, but nobody follows it."""
    reaction_s: Floats
    """(n,) this car's reaction: the class value, grown to the longest lag seen in this plug-in."""
    lowered_at_s: Floats
    """(n,) when the lowering that the car has not yet followed was acked; inf = it follows."""
    high: Floats
    """(n,) largest ceiling that it could rightly follow since ``window_at_s``."""
    high_before: Floats
    """(n,) the same of the window before."""
    above: Ints
    """(n,) readings in a row above all of these."""
    obeyed_since_s: Floats
    """(n,) since when no reading shows more than it may rightly follow; inf = the newest does."""
    defiant: Bools
    """(n,) non-compliant: counts at its rating."""
    said_fallback: Floats
    """(n,) F as its controller said it; nan = it did not."""
    said_idle: Floats
    """(n,) idle fallback likewise."""
    said_boot: Floats
    """(n,) boot current likewise."""
    late_s: Floats
    """(n,) by how much the watchdog that its controller spoke of is slower than the site file's; inf = it has none."""
    unsettled: Bools
    """(n,) its post has not yet taken its controller's first order: it counts as never heard from."""
    barred_ceiling: Floats
    """(n,) what an untrusted controller reported as in force; nan = trusted."""
    life_s: Floats
    """(n,) ``LeaseTerms.life_s`` under which all this was granted: a leader that starts again may have others."""
    class_reaction_s: Floats
    """(n,) ``LeaseTerms.reaction_s`` likewise."""
    window_at_s: float
    """Start of the present window of ``high``."""
    led_since_s: float
    """When this leader began: a life later every lease of the ones before is over; -inf = there was none."""


def open_book(
    terms: LeaseTerms, *, epoch: int, unknown_until_s: float | Floats, led_since_s: float = -np.inf
) -> LeaseBook:
    """A book without state: until ``unknown_until_s`` any EVSE may hold a lease of an earlier leader, up to its rating.

    Pass -inf where it is known that nobody granted anything before (first start of a site), also for ``led_since_s``,
    which is when this leader begins.
    """
    n = terms.rating.shape[0]
    hold_ceiling = np.zeros((n, HOLDS))
    hold_until_s = np.full((n, HOLDS), -np.inf)
    hold_ceiling[:, 0] = terms.rating
    hold_until_s[:, 0] = unknown_until_s
    return LeaseBook(
        epoch=epoch,
        seq=0,
        sent_seq=np.zeros(n, np.int64),
        explicit_seq=np.zeros(n, np.int64),
        sent_ceiling=np.full(n, np.nan),
        sent_latched=np.zeros(n, np.bool_),
        sent_at_s=np.full(n, -np.inf),
        sent_until_s=np.full(n, -np.inf),
        slot_seq=np.zeros((n, SLOTS), np.int64),
        slot_ceiling=np.zeros((n, SLOTS)),
        slot_until_s=np.full((n, SLOTS), -np.inf),
        acked_seq=np.zeros(n, np.int64),
        acked_ceiling=np.zeros(n),
        acked_until_s=np.full(n, -np.inf),
        hold_ceiling=hold_ceiling,
        hold_until_s=hold_until_s,
        echo_incarnation=np.zeros(n, np.int64),
        echo_boottime_s=np.zeros(n),
        echo_at_s=np.full(n, -np.inf),
        streamed=np.zeros(n, np.bool_),
        plug_boottime_s=np.full(n, -np.inf),
        granted=np.zeros(n, np.bool_),
        perhaps_open=np.zeros(n, np.bool_),
        reaction_s=terms.reaction_s.copy(),
        lowered_at_s=np.full(n, np.inf),
        high=np.zeros(n),
        high_before=np.zeros(n),
        above=np.zeros(n, np.int64),
        obeyed_since_s=np.full(n, np.inf),
        defiant=np.zeros(n, np.bool_),
        said_fallback=np.full(n, np.nan),
        said_idle=np.full(n, np.nan),
        said_boot=np.full(n, np.nan),
        late_s=np.zeros(n),
        unsettled=np.zeros(n, np.bool_),
        barred_ceiling=np.full(n, np.nan),
        life_s=terms.life_s.copy(),
        class_reaction_s=terms.reaction_s.copy(),
        window_at_s=-np.inf,
        led_since_s=led_since_s,
    )
