"""Messages of controllers to events, with every check that needs no snapshot; a refusal changes nothing.

Places on the wire (the order of the hello) become columns of the site here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from powerd.control.events import (
    Acked,
    Event,
    FreshWanted,
    HelloReceived,
    Measured,
    PlugChanged,
    RenewalAcked,
    StampSeen,
)
from powerd.errors import BadRequest
from powerd.limits import Floats, Ints
from powerd.server import checks
from powerd.server.directory import Directory
from powerd.state.hello import Said
from powerd.units import TTL_MAX_S
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

ACKED_MESSAGES_MAX = 1000
"""Most messages that one report may ack."""
RATINGS_MAX = 10.0
"""A ceiling beyond so many ratings of its post is no ceiling but a slip, of its unit perhaps: it would be reserved."""
NAMED_MAX = 5
"""So many absent EVSEs are named to a controller that forgot some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Speaker:
    """Who is at the other end of a stream, as its hello said."""

    controller: int
    """Controller index."""
    evse: Ints
    """(k,) columns of its EVSEs in the order of the hello."""
    incarnation: int
    """Its process."""
    heard: int
    """The highest epoch that it had heard of."""
    believed: Floats
    """(k,) the largest ceiling of each that is one (``most_believed``) [own unit]."""


def most_believed(names: Directory, evse: Ints) -> Floats:
    """(k,) the largest ceiling that a controller may speak of, of each of ``evse`` [own unit]."""
    return np.asarray(RATINGS_MAX * names.posts.max_ceiling[evse])


def speaker_of(controller: int, hello: HelloReceived, names: Directory) -> Speaker:
    """Who speaks on the stream that this hello of a controller opened."""
    believed = most_believed(names, hello.evse)
    return Speaker(
        controller=controller,
        evse=hello.evse,
        incarnation=hello.incarnation,
        heard=hello.heard,
        believed=believed,
    )


def hello_event(hello: pb.Hello, names: Directory) -> HelloReceived:
    """Checks a hello.

    Raises:
        BadRequest: something in it is wrong.
    """
    controller = names.controller.get(hello.controller_id)
    if controller is None:
        raise BadRequest("hello.controller_id", f"a controller of this site, got {hello.controller_id[:99]!r}")
    check_stamp("hello.stamp", hello.stamp)
    checks.at_least("hello.highest_epoch", hello.highest_epoch, 0)
    checks.at_least("hello.report_number", hello.report_number, 0)
    evse = _evses_of(hello, names, controller)
    most = most_believed(names, evse)
    for place, state in enumerate(hello.evses):
        _check_state(f"hello.evses[{place}]", state, hello.stamp.boottime_s, float(most[place]))
    states = hello.evses
    return HelloReceived(
        evse=evse,
        incarnation=hello.stamp.incarnation,
        boottime_s=hello.stamp.boottime_s,
        highest_epoch=hello.highest_epoch,
        plugged=np.array([s.plugged for s in states], np.bool_),
        plug_boottime_s=np.array([s.plug_boottime_s for s in states], np.float64),
        epoch=np.array([s.epoch for s in states], np.int64),
        seq=np.array([s.seq for s in states], np.int64),
        ceiling=np.array([s.applied_ceiling for s in states], np.float64),
        remaining_s=np.array([s.remaining_ttl_s for s in states], np.float64),
        latched=np.array([s.latched for s in states], np.bool_),
        said=_said(hello),
        unsettled=np.array([s.unsettled for s in states], np.bool_),
        switches=np.array([s.switches_phases for s in states], np.bool_),
        one_phase=np.array([s.one_phase for s in states], np.bool_),
    )


def _said(hello: pb.Hello) -> Said:
    """How the controller says that its EVSEs are configured; nan where it does not."""

    def column(name: Literal["fallback", "fallback_idle", "boot_ceiling", "watchdog_s"]) -> Floats:
        return np.array([getattr(s, name) if s.HasField(name) else np.nan for s in hello.evses], np.float64)

    mute = np.array([s.no_watchdog for s in hello.evses], np.bool_)
    return Said(
        fallback=column("fallback"),
        fallback_idle=column("fallback_idle"),
        boot_current=column("boot_ceiling"),
        watchdog_s=np.where(mute, np.inf, column("watchdog_s")),
    )


def report_events(report: pb.Report, speaker: Speaker, last_boottime_s: float) -> tuple[Event, ...]:
    """Checks a report of ``speaker``, whose last stamp was ``last_boottime_s``.

    Raises:
        BadRequest: something in it is wrong.
    """
    stamp = report.stamp
    check_stamp("report.stamp", stamp)
    if stamp.incarnation != speaker.incarnation:
        raise BadRequest("report.stamp.incarnation", f"the hello's, {speaker.incarnation}, got {stamp.incarnation}")
    checks.is_clock_order("report.stamp.boottime_s", stamp.boottime_s, last_boottime_s, "the stamp before")
    checks.at_least("report.report_number", report.report_number, 0)
    events: list[Event] = [StampSeen(evse=speaker.evse, incarnation=stamp.incarnation, boottime_s=stamp.boottime_s)]
    if len(report.applied) > ACKED_MESSAGES_MAX:
        raise BadRequest("report.applied", f"at most {ACKED_MESSAGES_MAX} entries, got {len(report.applied)}")
    events += [_acked(f"report.applied[{k}]", entry, speaker) for k, entry in enumerate(report.applied)]
    if report.plug_index or report.plugged or report.plug_boottime_s:
        events.append(_plugs(report, speaker))
    if report.measured_index or report.measured:
        events.append(_measured(report, speaker))
    if report.want_index:
        want = checks.indices("report.want_index", report.want_index, len(speaker.evse))
        events.append(FreshWanted(evse=speaker.evse[want]))
    return tuple(events)


def check_number(field: str, number: int, last: int) -> None:
    """Refuses a report whose number shows that one before it was lost: news of a plug may have been in it.

    Raises:
        BadRequest: it is counted, and not the one after ``last``.
    """
    if number and last and number != last + 1:
        raise BadRequest(field, f"{last + 1}, the number after the last one, or 0 where reports are not counted")


def check_stamp(field: str, stamp: pb_common.Stamp) -> None:
    """Refuses a stamp that says nothing or that cannot be.

    Raises:
        BadRequest: no incarnation, or no clock reading.
    """
    if stamp.incarnation == 0:
        raise BadRequest(f"{field}.incarnation", "a random number other than 0, new for each process")
    checks.clock(f"{field}.boottime_s", stamp.boottime_s)


def _evses_of(hello: pb.Hello, names: Directory, controller: int) -> Ints:
    """(k,) the columns of a hello's EVSEs: all of the controller's, each once, and no other."""
    mine = {names.posts.ids[int(i)]: int(i) for i in names.owned[controller]}
    absent = dict.fromkeys(mine)
    for place, state in enumerate(hello.evses):
        if state.evse_id not in absent:
            wanted = f"an EVSE of controller {hello.controller_id!r}, each once"
            raise BadRequest(f"hello.evses[{place}].evse_id", f"{wanted}, got {state.evse_id[:99]!r}")
        del absent[state.evse_id]
    if absent:
        wanted = f"all {len(mine)} EVSEs that the site file gives to this controller"
        first = ", ".join(list(absent)[:NAMED_MAX]) + (" ..." if len(absent) > NAMED_MAX else "")
        raise BadRequest("hello.evses", f"{wanted}; {len(absent)} are not in it: {first}")
    return np.array([mine[s.evse_id] for s in hello.evses], np.int64)


def _check_state(field: str, state: pb.EvseState, boottime_s: float, most: float) -> None:
    """``most``: the largest ceiling believed [own unit]; all of them are reserved, for as long as it says."""
    for said in ("applied_ceiling", "fallback", "fallback_idle", "boot_ceiling"):
        checks.number(f"{field}.{said}", getattr(state, said), most=most)
    checks.number(f"{field}.remaining_ttl_s", state.remaining_ttl_s, most=TTL_MAX_S)
    checks.clock(f"{field}.watchdog_s", state.watchdog_s)
    if state.no_watchdog and state.HasField("watchdog_s"):
        raise BadRequest(f"{field}.watchdog_s", "absent where no_watchdog is true")
    checks.at_least(f"{field}.epoch", state.epoch, 0)
    checks.at_least(f"{field}.seq", state.seq, 0)
    check_plug_time(f"{field}.plug_boottime_s", state.plug_boottime_s, boottime_s)


def check_plug_time(field: str, plug_s: float, boottime_s: float) -> None:
    """A plug cannot have changed after the stamp beside it.

    Raises:
        BadRequest: it says so, or is no clock reading.
    """
    checks.clock(field, plug_s)
    if plug_s > boottime_s:
        raise BadRequest(field, f"not after the stamp beside it ({boottime_s:.6f} s), got {plug_s:.6f}")


def _acked(field: str, entry: pb.AppliedGrants, speaker: Speaker) -> Acked | RenewalAcked:
    epoch = checks.at_least(f"{field}.epoch", entry.epoch, 1)
    seq = checks.at_least(f"{field}.seq", entry.seq, 1)
    if entry.all:
        if entry.index or entry.ceiling or entry.one_phase_index:
            raise BadRequest(f"{field}.index", "empty where all is true")
        return RenewalAcked(evse=speaker.evse, epoch=epoch, seq=seq)
    checks.same_length(f"{field}.ceiling", len(entry.ceiling), f"{field}.index", len(entry.index))
    index = checks.indices(f"{field}.index", entry.index, len(speaker.evse))
    ceiling = checks.numbers(f"{field}.ceiling", entry.ceiling, most=speaker.believed[index])
    one_phase = None
    if entry.one_phase_index:
        one_phase = np.isin(index, checks.indices(f"{field}.one_phase_index", entry.one_phase_index, len(speaker.evse)))
        if np.count_nonzero(one_phase) != len(entry.one_phase_index):
            raise BadRequest(f"{field}.one_phase_index", f"entries of {field}.index")
    return Acked(evse=speaker.evse[index], epoch=epoch, seq=seq, ceiling=ceiling, one_phase=one_phase)


def _plugs(report: pb.Report, speaker: Speaker) -> PlugChanged:
    count = len(report.plug_index)
    checks.same_length("report.plugged", len(report.plugged), "report.plug_index", count)
    checks.same_length("report.plug_boottime_s", len(report.plug_boottime_s), "report.plug_index", count)
    index = checks.indices("report.plug_index", report.plug_index, len(speaker.evse))
    for k, plug_s in enumerate(report.plug_boottime_s):
        check_plug_time(f"report.plug_boottime_s[{k}]", plug_s, report.stamp.boottime_s)
    return PlugChanged(
        evse=speaker.evse[index],
        plugged=np.asarray(report.plugged, np.bool_),
        plug_boottime_s=np.asarray(report.plug_boottime_s, np.float64),
    )


def _measured(report: pb.Report, speaker: Speaker) -> Measured:
    count = len(report.measured_index)
    checks.same_length("report.measured", len(report.measured), "3 per entry of report.measured_index", 3 * count)
    index = checks.indices("report.measured_index", report.measured_index, len(speaker.evse))
    drawn = checks.readings("report.measured", report.measured)
    window_s = None
    if report.HasField("measured_window_s"):
        window_s = checks.clock("report.measured_window_s", report.measured_window_s)
    return Measured(evse=speaker.evse[index], drawn=drawn.reshape(count, 3), window_s=window_s)
