"""Wires the rooms, owns the clock and the ticker; nothing else does.

    doors -> inbox -> [tick: step -> publish decreases] -> journal -> [publish raises -> answer the doors]

Missed ticks are skipped and the rhythm is kept (skip-and-resync): a late tick never causes a burst.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from powerd.compiled import load_types
from powerd.control import failsafe
from powerd.control.compiled import CompiledSite, as_drawn
from powerd.control.decision import Decision
from powerd.control.elements import evses_below
from powerd.control.events import Event, Outcome, SolveSkipped, TroubleBegan, TroubleEnded
from powerd.control.plans_ahead import PlanWork, plans_wanted
from powerd.control.rehearsal import rehearse
from powerd.control.step import Stepper
from powerd.errors import EnvelopeUnheld, Overloaded, PowerdError
from powerd.journal.disk import alone_in
from powerd.journal.drawing import elements_of, fingerprint_of
from powerd.journal.gate import Gate, Leaving
from powerd.journal.store import BOUND_BYTES, Entry, Journal, JournalBroken
from powerd.journal.writer import JournalWriter
from powerd.limits import Limits
from powerd.network.electrical import Electrical
from powerd.network.kept import cache_folder, load_electrical
from powerd.server.core import GrantSink
from powerd.server.serve import TlsFiles, start_server
from powerd.server.status import Unavailable
from powerd.server.streams import REPORTS_PER_TTL
from powerd.state import leases
from powerd.state.envelopes import Envelopes, is_left
from powerd.state.impaired import Trigger
from powerd.state.lease_book import open_book
from powerd.state.snapshot import open_snapshot, reopen_snapshot, worst_of
from powerd.units import Now

_log = logging.getLogger("powerd")

INBOX_EVENTS = 50_000
"""Events that may wait for a tick: ten each from 5 000 EVSEs. Beyond it callers are told to come again."""
URGENT_ROOM = 5_000
"""Room beyond that for stops, trips and positions alone."""
WARM_S = 15.0
"""A start with kernels that are compiled already takes less [s]."""
SLOW_TICKS = 2
"""A tick that waits for the disk for longer than this many periods is trouble."""
SOLVE_SHARE = 0.5
"""A solve that takes a longer share of the period is late: the guard decides the tick."""
SWITCH_S = 0.0005
"""How long the thread of a solve may keep the interpreter while the guard waits for it [s]; by default it is 5 ms."""
URGENT_SPACING_S = 0.05
"""At most 20 urgent ticks a second; the first of a window is never delayed."""


END_S = 10.0
"""So long a daemon that was told to end waits for a solve and for the disk [s]."""

STEPPED_START = Now(utc=datetime.fromtimestamp(0, UTC), boottime_s=0.0)
"""Where a stepped clock stands before its first step."""


class Clock(Protocol):
    """Where ticks get their instant from."""

    def now(self) -> Now:
        """This instant."""


class SystemClock:
    """The machine's clocks; CLOCK_BOOTTIME also runs in suspend, so a lease cannot outlive a sleep."""

    def now(self) -> Now:
        """This instant."""
        return Now(utc=datetime.now(UTC), boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME))

    @staticmethod
    def boot() -> str:
        """Which boot of the machine this is (Linux, random(4)); "" = it does not say."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""


@dataclass(frozen=True)
class _Waiting:
    """Events of one call and who waits for their outcome."""

    events: tuple[Event, ...]
    answer: asyncio.Future[tuple[Outcome, ...]]


@dataclass
class _Taken:
    """What one decision is made of."""

    callers: list[_Waiting] = field(default_factory=list)
    """Calls, in the order in which they came."""
    own: list[Event] = field(default_factory=list)
    """What the ticker itself has to tell, in order."""

    @property
    def events(self) -> list[Event]:
        """The callers' first: their outcomes are found again by counting."""
        return [*(event for waiting in self.callers for event in waiting.events), *self.own]


class Ticker:
    """The one loop of the daemon; implements ``server.core.Core``. Lives on one event loop."""

    def __init__(
        self,
        electrical: Electrical,
        *,
        tick_s: float,
        first_start: bool,
        start: Now,
        journal: Journal | None = None,
        boot: str = "",
    ) -> None:
        """Compiles the site and opens the books.

        Args:
            electrical: the compiled drawing.
            tick_s: period of the tick [s].
            first_start: an operator's word that nobody granted anything here within the longest lease; otherwise no
                raise is decided until every earlier lease must have ended (docs/leases.md R3).
            start: the instant of the start.
            journal: where to go on from, and what raises wait for; without one nothing survives a restart.
            boot: of which boot of the machine the boottime is; "" = not known.

        Raises:
            JournalBroken: the journal cannot be read or written.
            EnvelopeUnheld: it knows an envelope, and the site file has no limit any more that it could lower.
        """
        self.electrical: Electrical = electrical
        self.tick_s = tick_s
        self.site = CompiledSite.of(electrical)
        self.sink: GrantSink | None = None
        self._stepper = Stepper(self.site)
        terms = self.site.terms
        unknown_until_s = np.full(terms.life_s.shape, -np.inf) if first_start else start.boottime_s + terms.life_s
        led_since_s = -np.inf if first_start else start.boottime_s
        book = open_book(terms, epoch=1, unknown_until_s=unknown_until_s, led_since_s=led_since_s)
        self._snapshot = open_snapshot(
            book,
            as_drawn(electrical),
            start.boottime_s,
            meters=electrical.meters.count,
            boot=boot,
        )
        self._writer: JournalWriter | None = None
        covered = np.full(electrical.evse_count, np.inf)
        if journal is not None:
            found = journal.recover(self._snapshot)
            if found is not None:
                self._snapshot = reopen_snapshot(found, terms, start, boot)
                _refuse_unheld(self._snapshot.envelopes, electrical, start)
            # The new epoch is durable before the first grant of it (R4).
            journal.start(self._snapshot, start, self._stepper.terms)
            self._writer = JournalWriter(journal)
            covered = worst_of(self._snapshot, terms)
        self._gate = Gate(
            electrical.posts.controller,
            covered,
            slow_s=SLOW_TICKS * tick_s,
            epoch=None if journal is None else self._snapshot.leases.epoch,
            alone=alone_in(self._snapshot),
        )
        self._published: asyncio.Task[None] | None = None
        self._advancing: set[asyncio.Task[Decision]] = set()
        self._planning: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._inbox: list[_Waiting] = []
        self._inbox_events = 0
        self._latest: Decision | None = None
        self._urgent = asyncio.Event()
        self._urgent_at = -float("inf")
        self._overtaken: asyncio.Task[Decision] | None = None
        self._late = False
        self._turned_away = self._overloaded = False
        self._serving = True
        self._silent: frozenset[str] = frozenset()
        self.on_serving: Callable[[bool], None] | None = None
        self._news = asyncio.Condition()
        self._ticking = asyncio.Lock()

    # --- what the doors see -------------------------------------------------------------------------------------------

    def post(self, *events: Event, urgent: bool = False) -> Awaitable[tuple[Outcome, ...]]:
        """See ``Core.post``."""
        if self._inbox_events + len(events) > INBOX_EVENTS + (URGENT_ROOM if urgent else 0):
            self._turned_away = True
            raise Overloaded(f"{self._inbox_events} events wait for the next tick; try again in {self.tick_s:g} s")
        answer: asyncio.Future[tuple[Outcome, ...]] = asyncio.get_running_loop().create_future()
        self._inbox.append(_Waiting(events, answer))
        self._inbox_events += len(events)
        if urgent:
            self._urgent.set()
        return answer

    @property
    def limits(self) -> Limits:
        """See ``Core.limits``."""
        return self._present.limits

    @property
    def _present(self) -> CompiledSite:
        """The site in the switching state of the last tick."""
        return self.site if self._latest is None else self._latest.site

    def latest(self) -> Decision | None:
        """See ``Core.latest``."""
        return self._latest

    @property
    def now_s(self) -> float:
        """See ``Core.now_s``."""
        return self._snapshot.boottime_s

    def follow(self) -> AsyncIterator[Decision]:
        """See ``Core.follow``."""
        return self._newer(self._latest.tick if self._latest else 0)

    async def _newer(self, seen: int) -> AsyncIterator[Decision]:
        """Every decision after the tick ``seen``."""
        while True:
            async with self._news:
                while self._latest is None or self._latest.tick <= seen:
                    await self._news.wait()
                latest = self._latest
            seen = latest.tick
            yield latest

    def below(self, element: str) -> tuple[int, ...] | None:
        """See ``Core.below``."""
        found = evses_below(self.electrical, self._present.state.closed, element)
        return None if found is None else tuple(int(i) for i in found)

    async def advance(self, now: Now) -> Decision:
        """See ``Core.advance``; once begun it goes on to its end, also where whoever asked for it has gone."""
        advancing = asyncio.create_task(self._advanced(now))
        self._advancing.add(advancing)  # a loop holds its tasks weakly
        advancing.add_done_callback(self._advancing.discard)
        return await asyncio.shield(advancing)

    async def _advanced(self, now: Now) -> Decision:
        """One full tick, with all that follows from it."""
        decision = await self._tick(now)
        if self._published is not None:
            await self._published
        return decision

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def warm_up(self, now: Now) -> None:
        """Compiles problem and kernels by deciding for an imagined full house; until then only fallbacks hold."""
        told = asyncio.get_running_loop().call_later(
            WARM_S, _log.warning, "first start: compiling the kernels takes some minutes; nothing is granted yet"
        )
        try:
            await asyncio.to_thread(rehearse, self.site, self._stepper, self._snapshot, now)
        finally:
            told.cancel()

    async def run(self, clock: Clock) -> None:
        """Ticks for ever: every ``tick_s``, and at once when something urgent came.

        An urgent tick is decided by the guard alone, whether a solve is running or not; a full one follows when what it
        lowered has had the time to go out and no solve is running.
        """
        loop = asyncio.get_running_loop()
        origin = due = loop.time()
        while True:
            urgent = await self._called(due)
            over = loop.time() >= due
            if urgent or (over and self._solving()):
                await self._guard_tick(clock, late=not urgent)
            if not self._solving() and (over or self._overtaken is not None):
                await self._full_tick(clock, loop.time() + SOLVE_SHARE * self.tick_s)
                over = True
            if over:
                due = origin + (int((loop.time() - origin) / self.tick_s) + 1) * self.tick_s
            elif urgent:
                due = min(due, loop.time() + URGENT_SPACING_S)

    def _solving(self) -> bool:
        """A solve that a guard-only tick overtook is still running."""
        return self._overtaken is not None and not self._overtaken.done()

    async def _called(self, due: float) -> bool:
        """Ends when a tick is due, an overtaken solve is done, or something urgent came; True = the last."""
        urgent = asyncio.create_task(self._urgent_call())
        waited: set[asyncio.Task[Any]] = {urgent}
        if self._overtaken is not None:
            waited.add(self._overtaken)
        left_s = due - asyncio.get_running_loop().time()
        await asyncio.wait(waited, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
        called = urgent.done()
        urgent.cancel()
        return called

    async def _urgent_call(self) -> None:
        """Ends when something urgent is to be decided: at once, but not sooner than the last time allows."""
        await self._urgent.wait()
        await asyncio.sleep(max(0.0, self._urgent_at + URGENT_SPACING_S - asyncio.get_running_loop().time()))

    async def _tick(self, now: Now) -> Decision:
        """One full step in a worker thread (the solver releases the interpreter), and everything it decided."""
        async with self._ticking:
            taken = _Taken()
            self._drain_into(taken, now)
            decision = await asyncio.to_thread(self._stepper.step, self._snapshot, taken.events, now)
            await self._settle(decision, taken)
            self._work_ahead(decision)
            return decision

    async def _full_tick(self, clock: Clock, deadline: float) -> None:
        """One full step; if something urgent or its deadline comes first, the guard decides and the solve goes on."""
        async with self._ticking:
            now = clock.now()
            taken = _Taken()
            self._drain_into(taken, now)
            taken.own += self._late_answer()
            step = self._stepper.step
            self._overtaken = asyncio.create_task(asyncio.to_thread(step, self._snapshot, taken.events, now))
            urgent = await self._called(deadline)
            if self._overtaken.done():
                decision, self._overtaken = self._overtaken.result(), None
                await self._settle(decision, taken)
                self._work_ahead(decision)
                return
            await self._decide_unsolved(clock, taken, late=not urgent)

    async def _guard_tick(self, clock: Clock, *, late: bool) -> None:
        """One step by the guard alone."""
        async with self._ticking:
            await self._decide_unsolved(clock, _Taken(), late=late)

    async def _decide_unsolved(self, clock: Clock, taken: _Taken, *, late: bool) -> None:
        """Decides by the guard on this thread, in O(n), what was ``taken`` for the solve and what came meanwhile.

        ``late``: the solve is not done yet.
        """
        now = clock.now()
        self._urgent.clear()
        if not late:
            self._urgent_at = asyncio.get_running_loop().time()
        self._drain_into(taken, now)
        taken.own = [SolveSkipped(), *(event for event in taken.own if not isinstance(event, SolveSkipped))]
        if late and not self._late:
            taken.own.append(TroubleBegan(trigger=Trigger.SOLVER_LATE))
            self._late = True
        decision = self._stepper.step(self._snapshot, taken.events, now)
        await self._settle(decision, taken)
        if late:
            self._work_ahead(decision)

    def _late_answer(self) -> list[Event]:
        """The answer of a solve that came late, as events; one that was only overtaken is worth nothing any more."""
        solved, self._overtaken = self._overtaken, None
        if solved is None or not self._late:
            return []
        self._late = False
        return [SolveSkipped(want=solved.result().want), TroubleEnded(trigger=Trigger.SOLVER_LATE)]

    def _drain_into(self, taken: _Taken, now: Now) -> None:
        """Everything in the inbox, and what the ticker itself has to tell, beside what the decision has already."""
        taken.callers += self._inbox
        self._inbox, self._inbox_events = [], 0
        taken.own += self._gate.news(now.boottime_s)
        half_empty = sum(len(waiting.events) for waiting in taken.callers) <= INBOX_EVENTS / 2
        if self._turned_away and not self._overloaded:
            taken.own.append(TroubleBegan(trigger=Trigger.OVERLOAD))
            self._overloaded = True
        elif self._overloaded and half_empty and not self._turned_away:
            taken.own.append(TroubleEnded(trigger=Trigger.OVERLOAD))
            self._overloaded = False
        self._turned_away = False

    async def _settle(self, decision: Decision, taken: _Taken) -> None:
        """Everything that follows from a decision, in order: decreases, disk, raises and answers."""
        before = self._latest
        self._snapshot, self._latest = decision.snapshot, decision
        self._publish(self._gate.decided(decision))
        if self._published is not None and self._published.done():
            self._published.result()  # after a mistake of ours there nothing would leave or be answered ever again
        durable = None
        if self._writer is not None:
            durable = self._writer.commit(Entry(now=decision.now, events=taken.events, decision=decision))
        self._published = asyncio.create_task(self._finish(self._published, durable, taken.callers, decision))
        serving = failsafe.serving(decision.modes)
        if serving != self._serving and self.on_serving is not None:
            self.on_serving(serving)
        self._serving = serving
        _tell_modes(() if before is None else before.modes, decision.modes)
        self._silent = _tell_silent(self._silent, decision)
        async with self._news:
            self._news.notify_all()

    def _publish(self, leaving: Leaving) -> None:
        """Hands the streams what leaves, in its order."""
        if self.sink is None:
            return
        for lowered in leaving.lowered:
            self.sink.publish_lowered(lowered)
        for raised in leaving.raised:
            self.sink.publish_raised(raised)

    def _work_ahead(self, decision: Decision) -> None:
        """Threads for what may come next; after an urgent tick not before the full one that follows.

        They would take the interpreter from the streams while the decreases of that tick go out.
        """
        self._plan_ahead(decision)
        self._prepare_ahead(decision)

    def _plan_ahead(self, decision: Decision) -> None:
        """Lets a thread find plans in advance; they come back as an event, so that a replay has them, too."""
        if self._planning is not None and not self._planning.done():
            return
        work = plans_wanted(decision)
        if work is not None:
            self._planning = asyncio.create_task(self._planned(work))

    def _prepare_ahead(self, decision: Decision) -> None:
        """Lets a thread compile the limits of one state that may come next: the guard must not wait for that.

        Limits depend on their state alone, so no decision depends on what has been prepared.
        """
        if self._preparing is not None and not self._preparing.done():
            return
        state = self._stepper.states.unprepared(decision.snapshot.gear)
        if state is not None:
            self._preparing = asyncio.create_task(asyncio.to_thread(self._stepper.states.prepare, state))

    async def _planned(self, work: PlanWork) -> None:
        found = await asyncio.to_thread(work.run, self._stepper.planner)
        with contextlib.suppress(Overloaded, Unavailable):  # what is still wanted then is planned again
            await self.post(found)

    async def _finish(
        self,
        before: asyncio.Task[None] | None,
        durable: asyncio.Future[None] | None,
        taken: list[_Waiting],
        decision: Decision,
    ) -> None:
        """Raises and answers, once the tick is on the disk and those of the tick before are out.

        A raise that comes after a newer decrease is refused by its seq, so a slow disk never undoes a decrease. One
        that the disk refused has never left, and is named again.
        """
        if before is not None:
            await before
        if durable is not None:
            try:
                await durable
            except JournalBroken as broken:
                if not self._gate.troubled:
                    _log.error("%s", broken)
                self._publish(self._gate.refused())
                _refuse(taken, str(broken))
                return
        self._publish(self._gate.took())
        _answer(taken, decision)

    async def close(self) -> None:
        """Ends the journal, a tick that is under way and everything that waits for it first."""
        async with self._ticking:
            try:
                if self._published is not None:
                    await self._published
            finally:
                if self._writer is not None:
                    self._writer.close()


def _refuse_unheld(known: Envelopes, electrical: Electrical, now: Now) -> None:
    """A site that would import what it likes beside an envelope that is told to be in force.

    Chargers that stand at their fallbacks until somebody has read this are the lesser harm: a grid operator counts on
    what was acknowledged to him.

    Raises:
        EnvelopeUnheld: there is such an envelope.
    """
    left = [one for one in known if is_left(one, now)]
    if left and not np.isfinite(electrical.site_import_limit_kw):
        names = ", ".join(f"{one.envelope_id} of {one.source} ({one.import_limit_kw:g} kW)" for one in left)
        raise EnvelopeUnheld(
            "site file: grid_connection.import_limit_kw: the journal knows envelopes that lower this limit, and it is "
            f"not there any more, so that nothing would hold them: {names}. Write the limit again and start; withdraw "
            "what no longer counts (powerd envelope withdraw ID) before it is taken out"
        )


def _refuse(taken: list[_Waiting], why: str) -> None:
    """Tells every caller that its events are not durable; a retry with the same request_id is harmless."""
    for waiting in taken:
        if not waiting.answer.done():
            waiting.answer.set_exception(Unavailable(why))


def _tell_modes(before: Sequence[Trigger], now: Sequence[Trigger]) -> None:
    """Logs which degraded modes begin and end; what they mean is in docs/failsafe.md."""
    for trigger in now:
        if trigger not in before:
            row = failsafe.BY_TRIGGER[trigger]
            _log.warning("%s: %s; %s; ends: %s", trigger, row.mode, row.granted, row.ends)
    for trigger in before:
        if trigger not in now:
            _log.warning("%s: over", trigger)


def _tell_silent(before: frozenset[str], decision: Decision) -> frozenset[str]:
    """Logs which controllers with cars fall silent and which speak again; returns those that are silent now."""
    now: frozenset[str] = frozenset()
    if Trigger.CONTROLLER_SILENT in decision.modes:
        site, state = decision.site, decision.snapshot
        heard = leases.reachable(state.leases, site.terms, decision.now.boottime_s)
        owner, names = site.electrical.posts.controller, site.electrical.controllers.ids
        now = frozenset(names[c] for c in owner[state.sessions.plugged & ~heard].tolist())
    for name in sorted(now - before):
        _log.warning("controller %s is silent", name)
    for name in sorted(before - now):
        _log.warning("controller %s: heard again, or its cars have left", name)
    return now


def _answer(taken: list[_Waiting], decision: Decision) -> None:
    """Tells every caller what became of its events."""
    place = 0
    for waiting in taken:
        outcomes = decision.outcomes[place : place + len(waiting.events)]
        place += len(waiting.events)
        if not waiting.answer.done():
            waiting.answer.set_result(outcomes)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What ``powerd serve`` was told."""

    site: Path
    """Site file or its folder."""
    address: str
    """host:port."""
    tick_s: float = 1.0
    """Period of the tick [s]."""
    first_start: bool = False
    """Nobody granted anything here before."""
    cap_kw: float | None = None
    """Scale the transformers to this [kW]."""
    tls_cert: Path | None = None
    """PEM certificate chain."""
    tls_key: Path | None = None
    """PEM private key."""
    tls_client_ca: Path | None = None
    """PEM certificate of the authority whose clients may command; None = anybody who reaches the port may."""
    insecure: bool = False
    """May listen off loopback for anybody."""
    stepped_clock: bool = False
    """Time moves only by SteppedClockService."""
    journal: Path | None = None
    """File of the durable record."""
    journal_bytes: int = BOUND_BYTES
    """About how large its record of ticks may grow."""


def _open_journal(path: Path, electrical: Electrical, bound_bytes: int) -> Journal:
    """The journal of a site; whoever drew the site anew reads what that means for it."""
    ids, drawing = electrical.posts.ids, fingerprint_of(electrical)
    elements = elements_of(electrical)
    journal = Journal(path, evse_ids=ids, elements=elements, drawing=drawing, bound_bytes=bound_bytes)
    if journal.redrawn:
        _log.warning(
            "%s: the site was drawn otherwise when this was written; the new limits hold from the first tick on, "
            "sessions and leases stay, what meters showed is forgotten, and ticks of before can be replayed with the "
            "old site file only",
            path,
        )
    try:
        journal.compact()
    except JournalBroken as full:  # it wants as much room again: no reason not to start
        _log.warning("%s; the file stays as large as it is", full)
    return journal


def _tls_of(options: ServeOptions) -> TlsFiles | None:
    """The files of TLS; None = plain text.

    Raises:
        PowerdError: some are missing.
    """
    certificate, key, authority = options.tls_cert, options.tls_key, options.tls_client_ca
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise PowerdError("--tls-cert and --tls-key belong together, and --tls-client-ca wants both")
    return TlsFiles(certificate=certificate, key=key, client_authority=authority)


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _until_told_to_end(ticking: Coroutine[None, None, None]) -> None:
    """Ticks until SIGTERM, after which the journal is folded as after Ctrl-C."""
    running = asyncio.create_task(ticking)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _end_in_time() -> None:
    """Ends the process after ``END_S`` though a thread of it hangs in a solve or in the disk: no thread can be ended.

    Nothing is lost by it: what was acknowledged is durable.
    """

    def end() -> None:
        _log.error("told to end, and a solve or the disk has not answered for %g s: ended as it stands", END_S)
        os._exit(1)

    timer = threading.Timer(END_S, end)
    timer.daemon = True
    timer.start()


def _tell_tick(tick_s: float, electrical: Electrical) -> None:
    """Warns of a tick that some lease, counted from the report before, does not outlive: cars fall back each time."""
    ttl_s = float(electrical.controllers.ttl_s.min(initial=np.inf))
    most_s = ttl_s * (1.0 - 1.0 / REPORTS_PER_TTL)
    if tick_s >= most_s:
        _log.warning(
            "--tick %g: leases of ttl_s %g end before they are renewed, and cars stand meanwhile; tick below %g s, or "
            "write a longer ttl_s",
            tick_s,
            ttl_s,
            most_s,
        )


async def serve_site(options: ServeOptions) -> None:
    """Loads the site, listens, warms up, ticks until cancelled or told to end by SIGTERM.

    Raises:
        UnreadableInput: the site file cannot be read.
        SiteRefused: it has faults.
        EnvelopeUnheld: the journal knows an envelope that nothing in it can hold.
        PowerdError: the address cannot be used as asked.
    """
    load_types()
    electrical = load_electrical(options.site, options.cap_kw, cache_folder())
    _tell_tick(options.tick_s, electrical)
    clock = SystemClock()
    start, boot = (STEPPED_START, "") if options.stepped_clock else (clock.now(), clock.boot())
    journal = None
    if options.journal is not None:
        journal = _open_journal(options.journal, electrical, options.journal_bytes)
    elif not options.first_start:
        _log.warning("no --journal: nothing is raised until every lease of an earlier start must have ended")
    ticker = Ticker(
        electrical,
        tick_s=options.tick_s,
        first_start=options.first_start,
        start=start,
        journal=journal,
        boot=boot,
    )
    server = await start_server(
        ticker, options.address, tls=_tls_of(options), allow_insecure=options.insecure, stepped=options.stepped_clock
    )
    try:
        ticker.sink = server.sink
        ticker.on_serving = server.set_serving
        await ticker.warm_up(start)
        sys.setswitchinterval(SWITCH_S)
        gc.freeze()  # site, kernels and libraries stay: no tick has to wait until a collection has looked at them
        gc.enable()
        server.set_serving()
        if not options.stepped_clock:
            await ticker.advance(clock.now())  # whoever reads the address may ask at once
        print(json.dumps({"address": server.address, "site": electrical.site_id}), flush=True)  # noqa: T201  the contract
        await _until_told_to_end(_for_ever() if options.stepped_clock else ticker.run(clock))
    finally:
        _end_in_time()
        await server.stop()
        await ticker.close()
