"""MeterService: readings of elements into the inbox; one that is over what may flow there wakes the ticker."""

from __future__ import annotations

import asyncio

import numpy as np
from grpc.aio import ServicerContext

from powerd.control.events import MeterRead
from powerd.errors import BadRequest, UnknownName
from powerd.limits import Bools, Floats, Ints
from powerd.server import checks
from powerd.server.convert import check_stamp
from powerd.server.core import Core
from powerd.server.stamps import OVERTAKEN_S, SUCCEEDED, Reports
from powerd.server.status import Superseded, as_status
from powerd.v1 import meter_service_pb2 as pb
from powerd.v1.common_pb2 import Stamp
from powerd.v1.meter_service_pb2_grpc import MeterServiceServicer

READINGS_MAX = 1000
"""Most meters of one request."""
NOBODY = 0
"""Nobody says who reports a meter."""


class MeterService(MeterServiceServicer):
    """Serves meters and their gateways."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._index = {name: m for m, name in enumerate(core.electrical.meters.ids)}
        self._waiting: set[asyncio.Future[object]] = set()
        self._reports = Reports()

    async def ReportReadings(  # noqa: N802
        self,
        request: pb.ReportReadingsRequest,
        context: ServicerContext[pb.ReportReadingsRequest, pb.ReportReadingsResponse],
    ) -> pb.ReportReadingsResponse:
        """Takes the readings; measurements need no answer from the tick."""
        async with as_status(context):
            event = self._event(request)
            answer: asyncio.Future[object] = asyncio.ensure_future(self._core.post(event, urgent=self._over(event)))
            self._waiting.add(answer)  # the event loop keeps only weak references
            answer.add_done_callback(self._done)
        return pb.ReportReadingsResponse()

    def _done(self, answer: asyncio.Future[object]) -> None:
        self._waiting.discard(answer)
        if not answer.cancelled():
            answer.exception()  # a stalled disk is told to those who wait for it

    def _event(self, request: pb.ReportReadingsRequest) -> MeterRead:
        check_stamp("stamp", request.stamp)
        count = len(request.readings)
        if not 1 <= count <= READINGS_MAX:
            raise BadRequest("readings", f"1 to {READINGS_MAX} entries, got {count}")
        names = [checks.text(f"readings[{k}].meter_id", r.meter_id) for k, r in enumerate(request.readings)]
        if len(set(names)) != count:
            raise BadRequest("readings", "each meter at most once")
        meter = np.array([self._find(name) for name in names], np.int64)
        self._check_overtaken(request, meter)
        now_s = request.stamp.boottime_s
        windows = np.array([_window(f"readings[{k}]", r, now_s) for k, r in enumerate(request.readings)])
        values = np.array([_reading(f"readings[{k}]", r) for k, r in enumerate(request.readings)])
        news = self._news(meter, request.stamp)
        return MeterRead(
            meter=meter[news],
            incarnation=request.stamp.incarnation,
            boottime_s=now_s,
            current=values[news, :3],
            power_kw=values[news, 3],
            start_age_s=now_s - windows[news, 0],
            end_age_s=now_s - windows[news, 1],
        )

    def _news(self, meter: Ints, stamp: Stamp) -> Bools:
        """(k,) meters (k,) of which no other process has told since: a gateway may share some with another one.

        Raises:
            Superseded: there is none.
        """
        about = [("meter", m) for m in meter.tolist()]
        late = self._reports.late(NOBODY, about, stamp, self._core.now_s)
        if all(late):
            raise Superseded(SUCCEEDED)
        news = [one for one, over in zip(about, late, strict=True) if not over]
        self._reports.hear(NOBODY, news, stamp, self._core.now_s)
        return ~np.array(late)

    def _check_overtaken(self, request: pb.ReportReadingsRequest, meter: Ints) -> None:
        """A reading that another one has overtaken changes nothing; one by more is of a clock that was wrong once.

        Without a word the meter would be silent for ever.

        Raises:
            BadRequest: the stamp is older than the newest of its process by more than readings are ever under way.
        """
        decision = self._core.latest()
        if decision is None:
            return
        meters, stamp = decision.snapshot.meters, request.stamp
        newest_s = np.where(meters.incarnation[meter] == stamp.incarnation, meters.stamp_s[meter], -np.inf).max()
        if stamp.boottime_s < newest_s - OVERTAKEN_S:
            wanted = f"not more than {OVERTAKEN_S:g} s before the newest of this incarnation, {newest_s:.6f}"
            raise BadRequest("stamp.boottime_s", f"{wanted}; a clock that was set back is another incarnation's")

    def _find(self, name: str) -> int:
        if name not in self._index:
            raise UnknownName(f"no meter {name!r} at this site; the site file lists them")
        return self._index[name]

    def _over(self, event: MeterRead) -> bool:
        """Is one of the readings above what may flow at its meter, in the switching state of the last tick?"""
        decision = self._core.latest()
        if decision is None:  # nothing is granted yet
            return False
        rating_a, rating_kw = decision.site.metering.rating_a, decision.site.metering.rating_kw
        over = (event.current > rating_a[event.meter, None]).any() or (event.power_kw > rating_kw[event.meter]).any()
        return bool(over)


def _window(field: str, reading: pb.MeterReading, now_s: float) -> tuple[float, float]:
    """Start and end of the sample window, not after the stamp."""
    start_s = checks.clock(f"{field}.window_start_s", reading.window_start_s)
    end_s = checks.clock(f"{field}.window_end_s", reading.window_end_s)
    checks.is_clock_order(f"{field}.window_end_s", end_s, start_s, "its start")
    if end_s > now_s:
        raise BadRequest(f"{field}.window_end_s", f"not after the stamp ({now_s:.6f} s), got {end_s:.6f}")
    return start_s, end_s


def _reading(field: str, reading: pb.MeterReading) -> Floats:
    """(4,) currents and power; nan = not given."""
    value = np.full(4, np.nan)
    if len(reading.current_a) not in (0, 3):
        raise BadRequest(f"{field}.current_a", f"3 entries, l1, l2, l3, or none, got {len(reading.current_a)}")
    for k, amps in enumerate(reading.current_a):
        value[k] = checks.number(f"{field}.current_a[{k}]", amps, least=-checks.QUANTITY_MAX)
    if reading.HasField("power_kw"):
        value[3] = checks.number(f"{field}.power_kw", reading.power_kw, least=-checks.QUANTITY_MAX)
    if np.isnan(value).all():
        raise BadRequest(field, "current_a or power_kw")
    return value
