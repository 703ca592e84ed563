"""Everything that can happen to the controller, as the doors hand it in. Nothing else changes the snapshot.

``evse`` are column indices of the site; quantities are in the EVSE's own unit (A per phase for AC, kW for DC).
The doors validate what can be validated without the snapshot; ``absorb`` answers each event with an ``Outcome``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from powerd.control.switch_events import SwitchEvent
from powerd.limits import Bools, Floats, Ints
from powerd.state.hello import Said
from powerd.state.impaired import Trigger
from powerd.state.snapshot import SessionTold


def or_none(said: Bools | None, evse: Ints) -> Bools:
    """(k,) what was said of ``evse`` (k,), where nothing was said: of none of them."""
    return np.zeros(evse.shape, np.bool_) if said is None else said


@dataclass(frozen=True, kw_only=True, eq=False)
class HelloReceived:
    """A controller (re)connected and said what its EVSEs do."""

    evse: Ints
    """(k,) its EVSEs."""
    incarnation: int
    """Its process."""
    boottime_s: float
    """Its clock [s]."""
    highest_epoch: int
    """Highest epoch it ever accepted."""
    plugged: Bools
    """(k,) a car is plugged in."""
    plug_boottime_s: Floats
    """(k,) when the plug last changed, its clock [s]; 0 = before its start."""
    epoch: Ints
    """(k,) epoch of the grant last applied, 0 = none."""
    seq: Ints
    """(k,) seq of the grant last applied, 0 = none."""
    ceiling: Floats
    """(k,) ceiling in force."""
    remaining_s: Floats
    """(k,) its remaining lease [s]."""
    latched: Bools
    """(k,) a latched stop is in force."""
    said: Said | None = None
    """How it is configured; None = it does not say."""
    unsettled: Bools | None = None
    """(k,) what the post does is not known yet; None = nowhere."""
    switches: Bools | None = None
    """(k,) the post can be told to connect its L1 alone; None = none can."""
    one_phase: Bools | None = None
    """(k,) the ceiling is for its L1 alone; None = none is."""

    @property
    def heard(self) -> int:
        """The highest epoch that it has heard of: who leaves it out has heard what he names."""
        return max(self.highest_epoch, int(self.epoch.max(initial=0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class StampSeen:
    """A controller's clock reading arrived: it lives, and grants may echo it."""

    evse: Ints
    """(k,) EVSEs it speaks for."""
    incarnation: int
    """Its process."""
    boottime_s: float
    """Its clock [s]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Acked:
    """Actuators took the grants of one message. ``evse`` lists those that did; stale ones are harmless."""

    evse: Ints
    """(k,) EVSEs."""
    epoch: int
    """Epoch of the message."""
    seq: int
    """Seq of the message."""
    ceiling: Floats
    """(k,) ceilings now in force."""
    one_phase: Bools | None = None
    """(k,) the post has connected its L1 alone; None = none has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RenewalAcked:
    """Every EVSE of ``evse`` took a RenewAll of this seq; it counts where the last named ceiling was acked before."""

    evse: Ints
    """(k,) all EVSEs of the stream."""
    epoch: int
    """Epoch of the message."""
    seq: int
    """Seq of the message."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FreshWanted:
    """These EVSEs missed a grant: send them a full one."""

    evse: Ints
    """(k,) EVSEs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamClosed:
    """Their stream ended: nothing can be sent to these EVSEs until a new hello or a unary request."""

    evse: Ints
    """(k,) EVSEs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Meter readings of posts."""

    evse: Ints
    """(k,) EVSEs."""
    drawn: Floats
    """(k, 3) current on L1, L2, L3 of the post [A]; DC: power [kW], 0, 0."""
    window_s: float | None = None
    """Length of the time they stand for, which ends now [s]; None = since the controller was last heard."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeterRead:
    """Readings of meters of elements: what flows there, charging and all else together."""

    meter: Ints
    """(k,) meter indices."""
    incarnation: int
    """The process that reports."""
    boottime_s: float
    """Its clock [s]."""
    current: Floats
    """(k, 3) on l1, l2, l3 of the bus [A], positive = away from the grid; nan = not measured."""
    power_kw: Floats
    """(k,) active power over all phases [kW], positive = away from the grid; nan = not measured."""
    start_age_s: Floats
    """(k,) how long before the stamp the sample windows began [s]."""
    end_age_s: Floats
    """(k,) how long before the stamp they ended [s]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlugChanged:
    """Cars came or left."""

    evse: Ints
    """(k,) EVSEs."""
    plugged: Bools
    """(k,) a car is plugged in now."""
    plug_boottime_s: Floats
    """(k,) when, on the controller's clock [s]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CallReceived:
    """A controller without a stream asked for one EVSE and said what is a hello's to say: see ``unary``."""

    seen: StampSeen
    """Its process and clock."""
    plug: PlugChanged
    """Whether a car is there; a time of 0: the plug has not changed since the process started."""
    ack: Acked | None
    """The grant last applied, for this car or one before, whoever gave it; None = none since the process started."""
    highest_epoch: int = 0
    """Highest epoch that its controller has heard of, before its restart too; 0 = not said."""
    unsettled: bool = False
    """Its post has not taken its first order yet, or the one after an unplugging: ``plug`` is not heeded."""
    accepted: bool = False
    """A grant was accepted for this car, whoever gave it, applied or not."""

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, seq) of that grant; (0, 0) = none."""
        return (0, 0) if self.ack is None else (self.ack.epoch, self.ack.seq)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a driver said; None = not said."""

    requested_energy_kwh: float | None = None
    """Energy asked for [kWh]; noted, and counts for nothing yet."""
    departure_time: datetime | None = None
    """When the driver means to leave (aware); noted, and counts for nothing yet."""
    min_ceiling: float | None = None
    """Least the car can charge with [own unit]."""
    max_ceiling: float | None = None
    """Most the car can take [own unit]."""
    priority: int | None = None
    """Class 0-9, higher first."""
    weight: float | None = None
    """Share among equals."""


@dataclass(frozen=True, kw_only=True)
class SessionStarted:
    """A session begins (or what is known of the running one is replaced)."""

    request_id: str
    """For idempotence; empty = none."""
    evse: int
    """Where."""
    session_id: str
    """Its id (the door made one if the caller did not)."""
    demand: Demand
    """What was said."""


@dataclass(frozen=True, kw_only=True)
class SessionUpdated:
    """The driver changed his mind; None fields stay."""

    request_id: str
    session_id: str
    demand: Demand


@dataclass(frozen=True, kw_only=True)
class SessionStopped:
    """The session is over; the car may stay plugged in without being served."""

    request_id: str
    session_id: str


@dataclass(frozen=True, kw_only=True, eq=False)
class StopOrdered:
    """All these ceilings to a latched 0."""

    request_id: str
    stop_id: str
    """Made by the door."""
    element: str
    """As ordered."""
    evse: Ints
    """(k,) EVSEs at or below the element."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class StopReleased:
    """A stop is over."""

    request_id: str
    stop_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EnvelopeSet:
    """A grid operator says what may be imported, anew or again."""

    request_id: str
    envelope_id: str
    """Made by the door if the caller did not."""
    source: str
    """Who says so."""
    reason: str
    """Why."""
    import_limit_kw: float
    """Most that the site may import [kW]."""
    start_time: datetime | None
    """Aware; None = now."""
    end_time: datetime | None
    """Aware; None = until it is replaced or withdrawn."""
    heartbeat_s: float
    """It is said again within this; inf = no promise [s]."""


@dataclass(frozen=True, kw_only=True)
class EnvelopeWithdrawn:
    """A grid operator takes one back."""

    request_id: str
    envelope_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class TroubleBegan:
    """The daemon noticed something wrong outside of the step."""

    trigger: Trigger
    """What."""
    cap: Floats | None = None
    """(n,) the most that may be granted meanwhile [own unit]; None = as before."""


@dataclass(frozen=True, kw_only=True)
class TroubleEnded:
    """That is over."""

    trigger: Trigger
    """What."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SolveSkipped:
    """This tick must not wait for a solve."""

    want: Floats | None = None
    """(n,) the answer of a solve that came late [own unit]; None = every ceiling stays or falls."""


Event = (
    HelloReceived
    | CallReceived
    | StampSeen
    | Acked
    | RenewalAcked
    | FreshWanted
    | StreamClosed
    | Measured
    | MeterRead
    | PlugChanged
    | SessionStarted
    | SessionUpdated
    | SessionStopped
    | StopOrdered
    | StopReleased
    | EnvelopeSet
    | EnvelopeWithdrawn
    | SwitchEvent
    | TroubleBegan
    | TroubleEnded
    | SolveSkipped
)


@dataclass(frozen=True)
class Done:
    """The event took effect (or was harmlessly old). ``key`` is the session or stop concerned, "" otherwise."""

    key: str = ""
    evse: tuple[int, ...] = field(default=())
    """EVSEs concerned, where the answer lists them."""
    session: SessionTold | None = field(default=None, compare=False)
    """The session concerned as the event left it; nan is in it, so it is not compared."""
    start_utc_s: float | None = field(default=None, compare=False)
    """Start of the envelope concerned, POSIX seconds: told, as the session is, beside what was done."""


@dataclass(frozen=True)
class NotFound:
    """It named something that is not there; nothing changed."""

    what: str


@dataclass(frozen=True)
class Refused:
    """A value does not fit what is going on; nothing changed."""

    field: str
    expected: str


Outcome = Done | NotFound | Refused
