"""Broken rules, switched on by name from outside: each one the simulation must catch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from powerd.allocation.guard import admit_raises
from powerd.client.core import ControllerCore
from powerd.client.lease import EvseLease, Refusal, Terms
from powerd.control import absorb, step, telling
from powerd.control.decision import Renewal
from powerd.control.durable import HeldBack, split_raised
from powerd.journal import disk, gate
from powerd.journal.disk import DiskWatch
from powerd.journal.gate import Gate, Leaving
from powerd.server import stamps, unary
from powerd.server.stamps import Stamps
from powerd.sim.faults import leader
from powerd.sim.faults.leader import Leader
from powerd.sim.faults.owner import Owner
from powerd.state import hello, leases, overshoot, reaction, snapshot
from powerd.state.lease_book import LeaseBook
from powerd.state.lease_kernels import MARGIN_A
from powerd.state.lease_terms import LeaseTerms


@dataclass(frozen=True, kw_only=True)
class Swap:
    """One function or value replaced."""

    where: Any
    name: str
    by: Any


def _no_reserve(honest: Callable[..., Any]) -> Callable[..., Any]:
    def standing(book: LeaseBook, terms: LeaseTerms, *rest: Any) -> Any:
        nothing, unsaid = np.zeros_like(terms.rating), np.full_like(terms.rating, np.nan)
        alone = replace(terms, fallback=nothing, fallback_idle=nothing, boot=nothing, has_watchdog=nothing == 0.0)
        unknown = replace(book, said_fallback=unsaid, said_idle=unsaid, said_boot=unsaid)
        without = honest(unknown, alone, *rest)
        return honest(book, terms, *rest)._replace(reserve=nothing, worst=without.worst)

    return standing


def _raise_early(limits: Any, uncontrolled: Any, _worst: Any, current: Any, *rest: Any, **more: Any) -> Any:
    return admit_raises(limits, uncontrolled, current, current, *rest, **more)


def _measured_only(honest: Callable[..., Any]) -> Callable[..., Any]:
    def standing(book: Any, terms: Any, plugged: Any, drawn: Any, now_s: float) -> Any:
        stands = honest(book, terms, plugged, drawn, now_s)
        return stands._replace(worst=np.minimum(stands.worst, drawn + MARGIN_A))

    return standing


def _ack_all(honest: Callable[..., Any]) -> Callable[..., Any]:
    def ack(book: Any, terms: Any, evse: Any, epoch: int, _seq: int, ceiling: Any, now_s: float) -> Any:
        for newest in np.unique(book.sent_seq[evse]).tolist():
            mine = book.sent_seq[evse] == newest
            book = honest(book, terms, evse[mine], epoch, int(newest), ceiling[mine], now_s)
        return book

    return ack


def _shorter_life(part: Callable[[LeaseTerms], Any]) -> Callable[[LeaseBook, LeaseTerms], Any]:
    def life(_book: LeaseBook, terms: LeaseTerms) -> Any:
        return terms.life_s - part(terms)

    return life


def _finite_life(_book: LeaseBook, terms: LeaseTerms) -> Any:
    finite = terms.ttl_s + terms.reaction_s
    return np.where(np.isfinite(terms.life_s), terms.life_s, finite)


def _restart_at_once(honest: Callable[..., Any]) -> Callable[..., Any]:
    def reopen(*rest: Any) -> Any:
        book = honest(*rest)
        return replace(book, hold_until_s=np.full_like(book.hold_until_s, -np.inf))

    return reopen


def _same_epoch(honest: Callable[..., Any]) -> Callable[..., Any]:
    def reopen(book: Any, *rest: Any) -> Any:
        return replace(honest(book, *rest), epoch=book.epoch)

    return reopen


def _takes_old(self: EvseLease, _terms: Terms) -> Refusal | None:
    return Refusal.UNSETTLED if not self.settled else None


def _takes_anothers(self: EvseLease, terms: Terms) -> Refusal | None:
    return Refusal.NOT_NEWER if terms.order <= self.accepted else None


def _stop_ends(self: EvseLease, now_s: float) -> Any:
    if not self.live or now_s < self.until_s:
        return None
    self.latched = False
    return self._end()


def _fresh_echo(honest: Callable[..., Any]) -> Callable[..., Any]:
    def receive(self: ControllerCore, message: Any, now_s: float) -> Any:
        which = message.WhichOneof("message")
        if which in {"grants", "renew_all"}:
            getattr(message, which).echo.boottime_s = self._stamp_s
            getattr(message, which).echo.incarnation = self.incarnation
        return honest(self, message, now_s)

    return receive


def _uncounted(honest: Callable[..., Any]) -> Callable[..., Any]:
    def renewal(self: ControllerCore, message: Any, now_s: float) -> Any:
        message.count = self._carried
        for lease in self.evses:
            lease.sent = lease.applied = lease.accepted
        return honest(self, message, now_s)

    return renewal


def _ack_unapplied(honest: Callable[..., Any]) -> Callable[..., Any]:
    def order(self: Owner, writes: Any, t_s: float) -> None:
        for write in writes:
            self.core.applied(write, self.clock(t_s))
        honest(self, writes, t_s)

    return order


def _raises_first(honest: Callable[..., Any]) -> Callable[..., Any]:
    def decide(self: Leader, t_s: float) -> Any:
        decision = honest(self, t_s)
        self._publish(decision.raised)
        self._flush(t_s)
        return decision

    return decide


def _no_advance(book: LeaseBook, *_: Any) -> LeaseBook:
    return book


def _no_linger(book: LeaseBook, *_: Any) -> LeaseBook:
    return book


def _stops_forgotten(honest: Callable[..., Any]) -> Callable[..., Any]:
    def reopen(*rest: Any) -> Any:
        return replace(honest(*rest), stops=())

    return reopen


def _takes_any_hello(_self: Stamps, *_told: Any) -> None:
    pass


def _stays(_self: Owner, _post: Any, _lane: Any, _write: Any, _t_s: float) -> bool:
    return False


def _never_over(_book: LeaseBook, report: hello.Report, _then_s: Any) -> Any:
    return np.zeros(report.evse.shape, np.bool_)


def _for_ever_held(_book: LeaseBook, _terms: LeaseTerms, evse: Any, _then_s: Any) -> Any:
    return np.ones(evse.shape, np.bool_)


def _guess_is_fact(honest: Callable[..., Any]) -> Callable[..., Any]:
    def opened(*rest: Any) -> Any:
        sure, perhaps = honest(*rest)
        return sure | perhaps, perhaps

    return opened


def _nothing_held(book: LeaseBook) -> Any:
    return np.zeros_like(book.sent_at_s)


def _no_news(honest: Callable[..., Any]) -> Callable[..., Any]:
    def track(*rest: Any, anew: Any, **seen: Any) -> Any:
        return honest(*rest, anew=np.zeros_like(anew), **seen)

    return track


def _last_durable_only(worst: Any) -> Any:
    return worst[0]


def _renewed_at_once(honest: Callable[..., Any]) -> Callable[..., Any]:
    def split(decision: Any, *rest: Any) -> Any:
        now, later = honest(decision, *rest)
        return replace(now, renewal=decision.renewal), later

    return split


def _newest_alone(self: Gate) -> Any:
    if not self.troubled or not self._waiting:
        return ()
    decision, part = self._waiting[-1]
    if part is not decision:
        return ()
    now, later = self._needless(part)
    self._waiting[-1] = (decision, later)
    return (now,)


def _refused_leaves(honest: Callable[..., Any]) -> Callable[..., Any]:
    def refused(self: Gate) -> Leaving:
        decision, _ = self._waiting[0]
        leaving: Leaving = honest(self)
        return replace(leaving, raised=(decision,))

    return refused


def _dropped(_self: HeldBack, _decision: Any) -> None:
    pass


def _renewed_beside(site: Any, book: LeaseBook, _plugged: Any, scene: Any, now: Any) -> Any:
    owner = site.electrical.posts.controller
    due = leases.renewal_due(book, site.terms, now.boottime_s) & scene.reachable & book.streamed
    concerned = (
        np.bincount(owner[due & np.isnan(book.barred_ceiling)], minlength=len(site.electrical.controllers.ids)) > 0
    )
    controllers = np.flatnonzero(concerned)
    if controllers.shape[0]:
        members = np.flatnonzero(concerned[owner] & ~np.isnan(book.sent_ceiling))
        book = leases.renew(book, site.terms, members, now.boottime_s)
    return book, Renewal(epoch=book.epoch, seq=book.seq, controller=controllers)


def _never_settled(honest: Callable[..., Any]) -> Callable[..., Any]:
    def settle(book: LeaseBook, evse: Any, unsettled: Any) -> LeaseBook:
        after: LeaseBook = honest(book, evse, book.unsettled[evse] | unsettled)
        return after

    return settle


def _raise_overfull(limits: Any, uncontrolled: Any, worst: Any, current: Any, *rest: Any, **more: Any) -> Any:
    over = np.any(limits.limit_flow(worst) > limits.capacity - uncontrolled)
    return admit_raises(limits, uncontrolled, current if over else worst, current, *rest, **more)


def _half_served(honest: Callable[..., Any]) -> Callable[..., Any]:
    def begin(sessions: Any, evse: Any, names: dict[int, str], now: Any) -> Any:
        even = evse[evse % 2 == 0]
        return honest(sessions, even, {i: names[i] for i in even.tolist()}, now)

    return begin


def _calls_in_any_order(honest: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Stamps, *told: Any) -> bool:
        honest(self, *told)
        return True

    return call


def _never_a_hello(_request: Any, _ack: Any, _evse: int, _decision: Any) -> bool:
    return False


def _refused_is_gone(honest: Callable[..., Any]) -> Callable[..., Any]:
    def refused(self: DiskWatch) -> None:
        honest(self)
        self._unsure = []

    return refused


def _unfenced(self: DiskWatch, _decision: Any) -> Any:
    return self._least_covered().worst


NAMED_ONCE = Swap(where=leases, name="unacked", by=lambda book: np.zeros(book.acked_seq.shape, np.bool_))
"""What was lost is named again with the next renewal, which mends most of what these break: only both together harm."""

MUTANTS: dict[str, tuple[Swap, ...]] = {
    "forget-reserve": (Swap(where=leases, name="standing", by=_no_reserve(leases.standing)),),
    "raise-before-w-falls": (Swap(where=step, name="admit_raises", by=_raise_early),),
    "count-measurement-instead-of-w": (Swap(where=leases, name="standing", by=_measured_only(leases.standing)),),
    "ack-retires-too-much": (Swap(where=leases, name="ack", by=_ack_all(leases.ack)),),
    "no-drift": (
        Swap(where=leases, name="life_of", by=_shorter_life(lambda t: np.where(t.has_watchdog, 0.05 * t.ttl_s, 0.0))),
    ),
    "watchdog-ignored": (
        Swap(where=leases, name="life_of", by=_shorter_life(lambda t: np.where(t.has_watchdog, t.watchdog_s, 0.0))),
    ),
    "no-reaction-at-expiry": (
        Swap(where=leases, name="life_of", by=_shorter_life(lambda t: np.where(t.has_watchdog, t.reaction_s, 0.0))),
    ),
    "silence-frees-without-watchdog": (Swap(where=leases, name="life_of", by=_finite_life),),
    "restart-without-wait": (Swap(where=snapshot, name="reopen_book", by=_restart_at_once(leases.reopen_book)),),
    "epoch-used-twice": (Swap(where=snapshot, name="reopen_book", by=_same_epoch(leases.reopen_book)),),
    "no-fencing": (Swap(where=hello, name="advance_epoch", by=_no_advance),),
    "accept-old-seq": (Swap(where=EvseLease, name="refusal", by=_takes_old),),
    "accept-another-cars-grant": (Swap(where=EvseLease, name="refusal", by=_takes_anothers),),
    "latched-stop-expires": (Swap(where=EvseLease, name="expire", by=_stop_ends),),
    "refresh-echo": (Swap(where=ControllerCore, name="receive", by=_fresh_echo(ControllerCore.receive)),),
    "renew-what-was-missed": (
        Swap(where=ControllerCore, name="_receive_renewal", by=_uncounted(ControllerCore._receive_renewal)),  # noqa: SLF001
        NAMED_ONCE,
    ),
    "ack-before-the-actuator": (Swap(where=Owner, name="_order", by=_ack_unapplied(Owner._order)),),  # noqa: SLF001
    "raises-before-the-disk": (Swap(where=Leader, name="_decide", by=_raises_first(Leader._decide)),),  # noqa: SLF001
    "stops-forgotten": (Swap(where=leader, name="reopen_snapshot", by=_stops_forgotten(snapshot.reopen_snapshot)),),
    "slow-car-is-defiant": (Swap(where=reaction, name="WINDOW_S", by=0.0),),
    "next-car-follows-at-once": (Swap(where=leases, name="linger", by=_no_linger),),
    "old-hello-counts": (Swap(where=Stamps, name="hello", by=_takes_any_hello),),
    "no-news-in-an-overshoot": (Swap(where=step, name="track", by=_no_news(overshoot.track)),),
    "endless-hold-waits-for-room": (Swap(where=leases, name="held_without_end", by=_nothing_held),),
    "restarted-contactor-is-known": (Swap(where=EvseLease, name="restart", by=EvseLease.again),),
    "contactor-stays": (Swap(where=Owner, name="_must_move", by=_stays),),
    "late-hello-goes-on": (Swap(where=hello, name="_over", by=_never_over),),
    "lease-of-before-goes-on": (Swap(where=hello, name="_still_held", by=_for_ever_held),),
    "guess-is-fact": (Swap(where=absorb, name="_opened", by=_guess_is_fact(absorb._opened)),),  # noqa: SLF001
    "barred-gets-grants": (Swap(where=hello, name="bar", by=lambda book, _evse, _ceiling: book),),
    "waiting-ticks-bound-nothing": (Swap(where=disk, name="covered_by", by=_last_durable_only),),
    "renewals-wait-for-nothing": (Swap(where=gate, name="split_raised", by=_renewed_at_once(split_raised)),),
    "renewal-overtakes-a-raise": (Swap(where=Gate, name="_sifted", by=_newest_alone), NAMED_ONCE),
    "refused-raises-leave": (Swap(where=Gate, name="refused", by=_refused_leaves(Gate.refused)),),
    "renewal-beside-a-waiting-car": (Swap(where=telling, name="_renewals", by=_renewed_beside),),
    "held-back-lowering-is-lost": (Swap(where=HeldBack, name="add", by=_dropped), NAMED_ONCE),
    "named-once": (NAMED_ONCE,),
    "slow-disk-fences-nothing": (Swap(where=DiskWatch, name="covering", by=_unfenced),),
    "never-settled": (Swap(where=hello, name="settle", by=_never_settled(hello.settle)),),
    "raise-under-an-overshoot": (Swap(where=step, name="admit_raises", by=_raise_overfull),),
    "overtaken-call-counts": (Swap(where=Stamps, name="call", by=_calls_in_any_order(Stamps.call)),),
    "call-tells-no-more": (Swap(where=unary, name="_is_hello", by=_never_a_hello),),
    "refused-is-gone": (Swap(where=DiskWatch, name="refused", by=_refused_is_gone(DiskWatch.refused)),),
    "who-is-no-more-counts": (Swap(where=stamps._Newest, name="is_over", by=lambda _self, _i, _s: False),),  # noqa: SLF001
    "succeeded-for-good": (Swap(where=stamps, name="OVERTAKEN_S", by=np.inf),),
    "half-served": (Swap(where=absorb, name="_begin_sessions", by=_half_served(absorb._begin_sessions)),),  # noqa: SLF001
}
"""Name -> what is replaced."""


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """The rules with one of them broken; None = as they are."""
    swaps = () if name is None else MUTANTS[name]
    before = [getattr(swap.where, swap.name) for swap in swaps]
    for swap in swaps:
        setattr(swap.where, swap.name, swap.by)
    try:
        yield
    finally:
        for swap, honest in zip(swaps, before, strict=True):
            setattr(swap.where, swap.name, honest)
