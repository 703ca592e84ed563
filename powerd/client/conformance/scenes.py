"""The scenes: each starts with a new candidate and holds it to one thing that docs/protocol.md asks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from powerd.client.conformance.stage import EVSES, FALLBACK, IDLE, TTL_S, Breach, Lease, Said, Stage
from powerd.v1 import common_pb2 as pb_common
from powerd.v1 import controller_service_pb2 as pb

Scene = Callable[[Stage], None]

QUIET_S = 0.5
"""How long nothing must happen after a message that is to be refused [s]."""


def hello_first(stage: Stage) -> None:
    """Message by message: a stream starts with a hello of all EVSEs; posts stand at their idle fallbacks (rule 6)."""
    hello = stage.open()
    if hello.stamp.incarnation == 0:
        raise Breach("the stamp of the hello has no incarnation")
    for evse in hello.evses:
        stage.written(evse.evse_id, IDLE, 0.0)
        if evse.plugged or evse.latched or not (evse.unsettled or evse.applied_ceiling == IDLE):
            raise Breach(f"the hello says of {evse.evse_id} what is not so")
        if evse.HasField("fallback") and evse.fallback != FALLBACK:
            raise Breach(f"the hello gives {evse.evse_id} the fallback {evse.fallback:g}")


def stamps(stage: Stage) -> None:
    """Rule 1: one at least every ttl/4, each later than the one before, all of one incarnation."""
    stage.settle()
    stage.never("a second stream", lambda: next((s for s in stage.said if s.stream > 1), None), 1.5 * TTL_S)
    for before, after in pairwise([*stage.said]):
        if after.at_s - before.at_s > TTL_S / 4 + stage.slack_s:
            raise Breach(f"{after.at_s - before.at_s:.1f} s without a stamp")
        if after.stamp.incarnation != before.stamp.incarnation or after.stamp.boottime_s <= before.stamp.boottime_s:
            raise Breach(f"the stamp {after.stamp.boottime_s} comes after {before.stamp.boottime_s}")
    if time.monotonic() - stage.said[-1].at_s > TTL_S / 4 + stage.slack_s:
        raise Breach("no more stamps")


def ack_after_write(stage: Stage) -> None:
    """Rule 8: acked after the actuator took it, never before, with epoch, seq and ceiling."""
    stage.settle()
    stage.plug("A1")
    stage.tell("hold", "A1")
    time.sleep(QUIET_S)  # the line has been read
    lease = stage.grant({"A1": 16.0})
    stage.never("a write while the post was held", lambda: stage.wrote("A1", 16.0, lease.sent_s), QUIET_S)
    stage.never("acked before the post took it", lambda: stage.ack(lease, "A1"), QUIET_S)
    stage.tell("free", "A1")
    stage.written("A1", 16.0, lease.sent_s)
    stage.acked(lease, "A1", 16.0)


def lease_ends(stage: Stage) -> None:
    """Rule 6: one ttl after its echo the fallback is written, without a car the idle one; the stream may be up."""
    stage.settle()
    lease = _leased(stage)
    stage.falls_back("A1", FALLBACK, lease)
    stage.falls_back("A2", IDLE, lease)


def renewal(stage: Stage) -> None:
    """Rule 9: a RenewAll prolongs what was granted, and is acked."""
    stage.settle()
    first = last = _leased(stage)
    for _ in range(2):
        time.sleep(TTL_S / 3)
        last = stage.renew()
        stage.acked(last, "A1", 16.0)
        stage.acked(last, "A2", 12.0)
    whole = replace(last, sent_s=first.sent_s)
    stage.falls_back("A1", FALLBACK, whole)
    stage.falls_back("A2", IDLE, whole)


def renewal_after_a_gap(stage: Stage) -> None:
    """Rule 9: a RenewAll whose count shows that a message was missed renews nothing; all EVSEs ask for a grant."""
    stage.settle()
    first = _leased(stage)
    missed = stage.renew(missed=1)
    stage.await_("want_index with all EVSEs", lambda: _wanted(stage, missed))
    stage.falls_back("A1", FALLBACK, first)
    if stage.ack(missed, "A1") is not None:
        raise Breach("it acked what it did not renew")


def old_seq(stage: Stage) -> None:
    """Rule 4: refused is what is not newer in (epoch, seq), also the very same."""
    stage.settle()
    epoch, seq = _leased(stage).order
    _refused(stage, 20.0, lambda: stage.grant({"A1": 20.0}, order=(epoch, seq - 1)))
    _refused(stage, 21.0, lambda: stage.grant({"A1": 21.0}, order=(epoch, seq)))
    _goes_on(stage)


def old_epoch(stage: Stage) -> None:
    """Rule 4: refused is a lower epoch than the highest that this controller accepted, if only for another EVSE."""
    stage.settle()
    lease = stage.grant({"A2": 12.0})
    stage.acked(lease, "A2", 12.0)
    epoch, seq = lease.order
    _refused(stage, 20.0, lambda: stage.grant({"A1": 20.0}, order=(epoch - 1, seq + 100)))
    _goes_on(stage)


def old_stamp(stage: Stage) -> None:
    """Rule 2: refused is a grant whose echo is older than the ttl, or lies ahead of the clock."""
    stage.settle()
    _leased(stage)
    _refused(stage, 20.0, lambda: stage.grant({"A1": 20.0}, change=_echo_moved(-TTL_S - 1.0)))
    _refused(stage, 21.0, lambda: stage.grant({"A1": 21.0}, change=_echo_moved(60.0)))
    _goes_on(stage)


def foreign_incarnation(stage: Stage) -> None:
    """Rule 2: refused is a grant that answers another process, or nobody."""
    stage.settle()
    _leased(stage)

    def foreign(message: pb.Grants) -> None:
        message.echo.incarnation ^= 1

    def nobody(message: pb.Grants) -> None:
        message.ClearField("echo")

    _refused(stage, 20.0, lambda: stage.grant({"A1": 20.0}, change=foreign))
    _refused(stage, 21.0, lambda: stage.grant({"A1": 21.0}, change=nobody))
    _goes_on(stage)


def stop_stays(stage: Stage) -> None:
    """Rule 11: a latched 0 outlives its lease and the stream, the hello says so, and the next grant releases it."""
    stage.settle()
    _leased(stage)
    stop = stage.grant({"A1": 0.0}, latched=True)
    stage.written("A1", 0.0, stop.sent_s)
    stage.acked(stop, "A1", 0.0)
    after_s = stop.ends_s + stage.slack_s - time.monotonic()
    stage.never("it left the stop at the end of its lease", lambda: _above_zero(stage, stop), after_s)
    stage.cut()
    evse = next(e for e in stage.open(2).evses if e.evse_id == "A1")
    if not evse.latched or evse.applied_ceiling != 0:
        raise Breach("the hello after a stop does not say `latched`, at 0")
    stage.never("it left the stop on a new stream", lambda: _above_zero(stage, stop), QUIET_S)
    _goes_on(stage)


def reconnect(stage: Stage) -> None:
    """Message by message: a cut stream is opened again, by a newer hello that knows the highest epoch and the grant."""
    stage.settle()
    lease = _leased(stage)
    stage.cut()
    hello = stage.open(2)
    if hello.highest_epoch != lease.order[0]:
        raise Breach(f"the hello says highest_epoch {hello.highest_epoch} instead of {lease.order[0]}")
    evse = next(e for e in hello.evses if e.evse_id == "A1")
    if (evse.epoch, evse.seq) != lease.order or not evse.plugged:
        raise Breach("the hello does not name the last grant of A1, or not its car")
    before = [s for s in stage.said if s.stream == 1][-1].stamp
    if hello.stamp.incarnation != before.incarnation or hello.stamp.boottime_s <= before.boottime_s:
        raise Breach("the stamp of the hello is not newer than that of the last report")
    _goes_on(stage)


def car_comes(stage: Stage) -> None:
    """Rule 3: refused is a grant that echoes a stamp of before the car came."""
    stage.settle()
    before = stage.said[-1]
    stage.plug("A1")
    _refused(stage, 20.0, lambda: stage.grant({"A1": 20.0}, echo=before))
    _goes_on(stage)


def car_leaves(stage: Stage) -> None:
    """Rule 10: unplugging voids the lease; told after the post took the idle fallback; older grants are refused."""
    stage.settle()
    lease = _leased(stage)
    stage.tell("hold", "A1")
    time.sleep(QUIET_S / 2)  # the line has been read
    left_s, before = time.monotonic(), stage.said[-1]
    stage.tell("unplug", "A1")
    stage.never("told before the post took its order", lambda: stage.told("A1", False, left_s), QUIET_S)
    stage.tell("free", "A1")
    if stage.written("A1", IDLE, left_s).at_s > lease.ends_s - stage.slack_s / 2:
        raise Breach("the lease of the car that left ended by its time alone")
    stage.await_("report that the car of A1 has left", lambda: stage.told("A1", False, left_s))
    _refused(stage, 20.0, lambda: stage.grant({"A1": 20.0}, echo=before))
    _goes_on(stage)


def malformed(stage: Stage) -> None:
    """Rule 5: what cannot be writes nothing, ends no lease and no stream."""
    stage.settle()
    lease = _leased(stage)
    for change in (_longer, _beyond, _negative, _infinite, _not_a_number, _latched_above_0, _no_ttl):
        stage.grant({"A1": 20.0}, change=change)
    stage.never(
        "it wrote something upon a message that cannot be",
        lambda: next((w for w in stage.writes if w.at_s > lease.sent_s and w.ceiling not in {16.0, 12.0}), None),
        min(QUIET_S, lease.ends_s - stage.slack_s / 2 - time.monotonic()),
    )
    _goes_on(stage)
    if any(said.stream > 1 for said in stage.said):
        raise Breach("it opened another stream")


SCENES: tuple[Scene, ...] = (
    hello_first,
    stamps,
    ack_after_write,
    lease_ends,
    renewal,
    renewal_after_a_gap,
    old_seq,
    old_epoch,
    old_stamp,
    foreign_incarnation,
    stop_stays,
    reconnect,
    car_comes,
    car_leaves,
    malformed,
)


def _leased(stage: Stage) -> Lease:
    """A car at A1, which has 16 A; A2 has 12 A and no car; both have been acked."""
    stage.plug("A1")
    lease = stage.grant({"A1": 16.0, "A2": 12.0})
    for evse_id, ceiling in (("A1", 16.0), ("A2", 12.0)):
        stage.written(evse_id, ceiling, lease.sent_s)
        stage.acked(lease, evse_id, ceiling)
    return lease


def _refused(stage: Stage, ceiling: float, send: Callable[[], Lease]) -> None:
    """What ``send`` grants to A1 is neither written nor acked."""
    bad = send()
    stage.never(f"it wrote `A1 {ceiling:g}`, which is to be refused", lambda: stage.wrote("A1", ceiling, 0.0), QUIET_S)
    if stage.ack(bad, "A1") is not None:
        raise Breach(f"it acked {bad.order}, which is to be refused")


def _goes_on(stage: Stage) -> None:
    """What it refused has not stopped it: the next good grant is written and acked."""
    lease = stage.grant({"A1": 10.0})
    stage.written("A1", 10.0, lease.sent_s)
    stage.acked(lease, "A1", 10.0)


def _wanted(stage: Stage, since: Lease) -> Said | None:
    reports = [said for said in stage.said if said.at_s >= since.sent_s]
    wanted = {place for said in reports for place in said.message.report.want_index}
    return reports[-1] if wanted >= set(range(len(EVSES))) else None


def _above_zero(stage: Stage, stop: Lease) -> object | None:
    taken = stage.wrote("A1", 0.0, stop.sent_s)
    since_s = math.inf if taken is None else taken.at_s
    return next((w for w in stage.writes if w.at_s > since_s and w.evse_id == "A1" and w.ceiling > 0), None)


def _echo_moved(by_s: float) -> Callable[[pb.Grants], None]:
    def change(message: pb.Grants) -> None:
        echo = message.echo
        moved = pb_common.Stamp(incarnation=echo.incarnation, boottime_s=echo.boottime_s + by_s)
        message.echo.CopyFrom(moved)

    return change


def _longer(message: pb.Grants) -> None:
    message.index.append(1 - message.index[0])


def _beyond(message: pb.Grants) -> None:
    message.index[0] = len(EVSES)


def _negative(message: pb.Grants) -> None:
    message.ceiling[0] = -1.0


def _infinite(message: pb.Grants) -> None:
    message.ceiling[0] = math.inf


def _not_a_number(message: pb.Grants) -> None:
    message.ceiling[0] = math.nan


def _latched_above_0(message: pb.Grants) -> None:
    message.latched_index.append(message.index[0])


def _no_ttl(message: pb.Grants) -> None:
    message.ClearField("ttl")
