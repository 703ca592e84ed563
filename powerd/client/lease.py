"""The lease of one EVSE as its controller keeps it: what it accepts, what is in force, what follows when it ends.

The rules are those of docs/protocol.md, "Rules of the controller". Times are the controller's own CLOCK_BOOTTIME [s]; a
ceiling is in the EVSE's own unit (A per connected phase for AC, kW for DC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

Order = tuple[int, int]
"""(epoch, seq) of a grant; compares lexicographically; (0, 0) = none."""

NONE: Order = (0, 0)


class Refusal(StrEnum):
    """Why a grant was not taken."""

    MALFORMED = "malformed"
    """It does not parse, columns of unequal length, an unknown index, or a number that can be no ceiling or time."""
    FOREIGN_INCARNATION = "foreign-incarnation"
    """It answers another process, or nobody."""
    STALE = "stale"
    """The echoed stamp is older than the lease is long."""
    FROM_THE_FUTURE = "from-the-future"
    """It echoes a stamp that this process has not sent yet."""
    OLD_EPOCH = "old-epoch"
    """A newer leader has been heard."""
    NOT_NEWER = "not-newer"
    """Its (epoch, seq) is not newer than the last one accepted."""
    BEFORE_PLUG = "before-plug"
    """It was decided before the plug last changed, so it was meant for another car or for none."""
    MISSED_MESSAGE = "missed-message"
    """A renewal whose count shows that a message was lost."""
    UNSETTLED = "unsettled"
    """The post has not yet taken the order that a start or an unplugging gave it; until it has, nothing else counts."""
    NOT_APPLIED = "not-applied"
    """A renewal of a grant that the actuator has not taken."""
    CANNOT_SWITCH = "cannot-switch"
    """It is for L1 alone, and this post cannot be told to connect that."""
    NO_LEASE = "no-lease"
    """A renewal of a lease that has ended (expiry, unplugging) or never was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvseConfig:
    """What a controller has to know of one of its EVSEs; must agree with the site file."""

    evse_id: str
    """Id as in the site file."""
    fallback: float = 0.0
    """Ceiling on silence while a car is plugged in that powerd knows of [own unit]."""
    fallback_idle: float = 0.0
    """Ceiling on silence otherwise [own unit]."""
    boot_ceiling: float = 0.0
    """What the post allows after its own restart, before anything was written to it [own unit]."""
    watchdog_s: float | None = None
    """Time the post needs to fall back when this process is gone [s]; inf = it never does; None = powerd's site file
    knows."""
    switches_phases: bool = False
    """The post can be told to connect its L1 alone."""

    def __post_init__(self) -> None:
        """Refuses what would be handed to the post, or what powerd would refuse with all others.

        Raises:
            ValueError: there is no id, or a number is negative or none.
        """
        if not self.evse_id:
            raise ValueError("evse_id: the id of the EVSE in the site file is missing")
        for name in ("fallback", "fallback_idle", "boot_ceiling"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{self.evse_id}: {name} must be 0 or more, got {value}")
        if self.watchdog_s is not None and not self.watchdog_s >= 0.0:
            raise ValueError(f"{self.evse_id}: watchdog_s must be 0 or more, inf or None, got {self.watchdog_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """One order to an actuator. Writes to one EVSE are carried out in order; a newer one may replace one that waits."""

    index: int
    """Place of the EVSE in the hello."""
    evse_id: str
    """Its id."""
    ceiling: float
    """The ceiling to put into force [own unit]."""
    valid_until_s: float
    """Not to be written at or after this instant, and to be dropped by the post itself then; inf = no end."""
    latched: bool
    """A stop: holds until another write."""
    epoch: int
    """Epoch of the grant; 0 = no grant but a fallback."""
    seq: int
    """Seq of the grant; 0 = no grant but a fallback."""
    one_phase: bool | None = None
    """The ceiling is for L1 alone; None = for what the post has connected: a fallback moves no contactor."""
    voidings: int = 0
    """How often all of before had been voided when it was given, by the process's start or an unplugging."""

    @property
    def order(self) -> Order:
        """(epoch, seq); (0, 0) for a fallback."""
        return (self.epoch, self.seq)


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the entries of one message share."""

    order: Order
    """(epoch, seq)."""
    echo_s: float
    """The echoed stamp."""
    ttl_s: float
    """Length of the lease, counted from the stamp."""

    @property
    def valid_until_s(self) -> float:
        """When the lease ends."""
        return self.echo_s + self.ttl_s


@dataclass(kw_only=True, slots=True)
class EvseLease:
    """The state of one EVSE. Only ``ControllerCore`` changes it."""

    index: int
    config: EvseConfig
    plugged: bool = False
    """A car is plugged in."""
    plug_s: float = 0.0
    """When the plug last changed, or its post took the order that voided what was before; 0 = not since the process
    started."""
    found: bool = False
    """The car was there when the process started, and has not left since."""
    accepted: Order = NONE
    """The newest grant accepted."""
    sent: Order = NONE
    """The newest grant that the stream has carried for this EVSE, accepted or not; none at the start of a stream."""
    applied: Order = NONE
    """The newest grant that the actuator took."""
    ceiling: float = 0.0
    """Ceiling of the newest accepted grant, or the fallback after its end."""
    in_force: float = 0.0
    """Ceiling that the actuator last took."""
    in_force_until_s: float = 0.0
    """End of the lease of ``in_force``; 0 = a fallback."""
    until_s: float = 0.0
    """End of the newest accepted lease."""
    live: bool = False
    """The newest accepted lease has neither ended nor been voided."""
    ended: Order = NONE
    """The newest grant whose lease has ended or was voided: what the actuator takes of it late is not acked."""
    voidings: int = 0
    """How often all of before was voided: an order of an earlier one says nothing of what its car may still draw."""
    settled: bool = False
    """The post has taken the order that the process's start, or the last unplugging, gave it, or the stop instead."""
    latched: bool = False
    """A stop holds: 0 until a newer grant that is not latched."""
    stopped: bool = False
    """The post has taken the stop that holds: it stays at 0 whatever becomes of this process."""
    freed: Order = NONE
    """The newest accepted grant that is no stop: until the post takes a newer one, it may have taken this one."""
    one_phase: bool = False
    """The newest accepted grant is for L1 alone."""
    on_one_phase: bool | None = None
    """The post has connected L1 alone; None = this process has not told it anything yet, or its contactor may move."""
    known: bool = False
    """A grant that knew of this plug-in was accepted, so that powerd reserves ``fallback`` for it."""
    measured: tuple[float, float, float] | None = field(default=None)
    """Last reading given: L1, L2, L3 [A]; DC: power [kW], 0, 0."""

    def refusal(self, terms: Terms) -> Refusal | None:
        """Why this EVSE does not take a grant or renewal that its message's own checks let through; None = it does."""
        if terms.order <= self.accepted:
            return Refusal.NOT_NEWER
        if not self.settled:
            return Refusal.UNSETTLED
        if terms.echo_s < self.plug_s:
            return Refusal.BEFORE_PLUG
        return None

    def renewal_refusal(self, terms: Terms) -> Refusal | None:
        """The same for a renewal: only a living lease whose last grant sent was applied can be prolonged."""
        if (refused := self.refusal(terms)) is not None:
            return refused
        if self.sent == NONE or not self.live:
            return Refusal.NO_LEASE
        if not self.sent == self.accepted == self.applied:
            return Refusal.NOT_APPLIED
        return None

    def accept(self, terms: Terms, ceiling: float, *, latched: bool, one_phase: bool) -> Write:
        """Takes a grant."""
        self.accepted, self.ceiling, self.latched, self.one_phase = terms.order, ceiling, latched, one_phase
        if not latched:
            self.freed, self.stopped, self.known = terms.order, False, self.plugged
        self.until_s, self.live = terms.valid_until_s, True
        return self._write(order=terms.order)

    def again(self) -> Write:
        """The order that holds, for a post that has lost it."""
        return self._write(order=self.accepted if self.live else NONE)

    def restart(self) -> Write:
        """The post has restarted and does what it does without an order, with any contactor; the one that holds."""
        self.in_force, self.in_force_until_s, self.on_one_phase = self.config.boot_ceiling, 0.0, None
        self.stopped = False
        return self.again()

    def apply(self, write: Write, now_s: float) -> bool:
        """The actuator took ``write``. True if that is to be acked: a grant, in time, that no plug has voided since."""
        self.in_force, self.in_force_until_s = write.ceiling, 0.0
        self.stopped = write.latched and write.order >= self.freed
        if write.one_phase is not None:
            self.on_one_phase = write.one_phase
        if write.order <= self.ended or now_s > write.valid_until_s:
            return False
        self.in_force_until_s = self.until_s if write.latched else write.valid_until_s
        self.applied = max(self.applied, write.order)
        return True

    @property
    def told_plug_s(self) -> float:
        """``plug_s`` as powerd is told it: 0 for a car that was found there, also once its post has taken an order."""
        return 0.0 if self.found else self.plug_s

    def plug(self, plugged: bool, at_s: float) -> Write | None:
        """The plug changed. Unplugging voids the lease; a stop stays, and is then what the post has to take."""
        self.plugged, self.found, self.plug_s, self.known = plugged, False, at_s, False
        if plugged:
            return None
        self.voidings += 1
        end = self._end()
        self.settled = self.settled and end is None and self.applied == self.accepted
        return end

    def settle(self, write: Write) -> bool:
        """The post took ``write``. True if it has thereby left behind what the car before may have been granted.

        Not by the fallback of that car's lease, which may still be on its way.
        """
        if self.settled or not (write.latched or (write.order == NONE and write.voidings == self.voidings)):
            return False
        self.settled = True
        return True

    def expire(self, now_s: float) -> Write | None:
        """Ends the lease if its time is over; a stop stays."""
        if not self.live or self.latched or now_s < self.until_s:
            return None
        return self._end()

    def start(self) -> Write:
        """The first write after the process started: the idle fallback, or the stop that held before."""
        self.ceiling = self._fallback()
        return self._write(order=NONE)

    def remaining_s(self, now_s: float) -> float:
        """How long ``in_force`` stays before the fallback [s]; 0 = it is one, or a stop that nobody renewed."""
        return max(0.0, self.in_force_until_s - now_s)

    def _end(self) -> Write | None:
        if self.latched:
            return None
        self.live, self.ended = False, self.accepted
        self.ceiling = self._fallback()
        return self._write(order=NONE)

    def _fallback(self) -> float:
        if self.latched:
            return 0.0
        return self.config.fallback if self.plugged and self.known else self.config.fallback_idle

    def _write(self, *, order: Order) -> Write:
        endless = self.latched or order == NONE
        return Write(
            index=self.index,
            evse_id=self.config.evse_id,
            ceiling=self.ceiling,
            valid_until_s=math.inf if endless else self.until_s,
            latched=self.latched,
            epoch=order[0],
            seq=order[1],
            one_phase=None if order == NONE else self.one_phase,
            voidings=self.voidings,
        )
