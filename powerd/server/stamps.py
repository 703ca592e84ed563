"""Which messages are news: a late or repeated one must not undo what its controller has said since."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from powerd.errors import BadRequest
from powerd.server.status import Superseded
from powerd.v1.common_pb2 import Stamp

PROCESSES_KEPT = 8
"""Processes remembered that said hello for one controller, and that called for one EVSE."""
PROCESSES_MOST = 256
"""And so many of which something may still be under way."""


OVERTAKEN_S = 60.0
"""Nothing is under way for longer [s]: a call that is older than another one by more was not overtaken, one of the two
has a wrong clock; and who speaks so long after his successor was first heard, lives."""


SUCCEEDED = "another process that speaks for it was heard since this one: nothing of this one is taken for a minute"
"""What a process is told that was heard before its successor."""


@dataclass
class _Process:
    """What is remembered of a process."""

    stamp_s: float
    """Its newest stamp, on its own clock [s]."""
    succeeded_s: float = math.inf
    """When another process was heard for the first time after this one, on the daemon's clock [s]; inf = none was."""


class _Newest:
    """Who has spoken; of who was succeeded long ago those that were silent for longest are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _Process] = OrderedDict()

    def is_over(self, incarnation: int, now_s: float) -> bool:
        """Another process was heard after this one, and what this one says now may have been under way since before.

        After a minute it lives, for nothing is under way for longer, and is the one that speaks.
        """
        process = self._known.get(incarnation)
        return process is not None and process.succeeded_s <= now_s <= process.succeeded_s + OVERTAKEN_S

    def of(self, incarnation: int) -> float:
        """Newest stamp of this process; -1 = none heard."""
        return self._known[incarnation].stamp_s if incarnation in self._known else -1.0

    def hear(self, incarnation: int, boottime_s: float, now_s: float) -> None:
        """This process has spoken: if it is new, or was succeeded, it is now the successor of all others."""
        process = self._known.get(incarnation)
        if process is None or process.succeeded_s < math.inf:
            for other in self._known.values():
                other.succeeded_s = min(other.succeeded_s, now_s)
            process = self._known[incarnation] = _Process(self.of(incarnation))
        process.stamp_s = max(process.stamp_s, boottime_s)
        self._known.move_to_end(incarnation)
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        if len(self._known) <= PROCESSES_KEPT:
            return
        oldest, process = next(iter(self._known.items()))
        if process.succeeded_s + OVERTAKEN_S < now_s or len(self._known) > PROCESSES_MOST:
            del self._known[oldest]


class Stamps:
    """The newest hello of each process that this daemon has heard, and its newest single call for each EVSE.

    Streams keep their order, single calls have none, and neither keeps it against the other: a connection given up may
    still deliver its hello when the next one is long open, or a call what it said before the next one. The stamps of
    one process only grow (docs/protocol.md, rule 1), so they tell. Posts may call each by itself, with a process of its
    own: one is not forgotten because others of its controller speak. A process that was heard before its successor is
    not heard again for a minute of the daemon's clock: what it says then may have been under way for long, and would
    undo what the successor has said. Who still speaks after that lives. Which way either of them spoke does not matter:
    a hello is for every EVSE of its controller. Connections end with the daemon's process, hence nothing of this is
    kept over its restart. What is refused changes nothing here.
    """

    def __init__(self) -> None:
        self._hellos: defaultdict[int, _Newest] = defaultdict(_Newest)
        # Controller -> EVSE that was called for -> what was heard for it, by calls and by hellos.
        self._calls: defaultdict[int, dict[int, _Newest]] = defaultdict(dict)

    def hello(self, controller: int, incarnation: int, boottime_s: float, now_s: float) -> None:
        """Remembers a hello that is news, at ``now_s`` on the daemon's clock.

        Raises:
            BadRequest: it is as old as a hello or call that was heard before, or older.
            Superseded: another process has said hello since, or has called for an EVSE that this one spoke for.
        """
        everything = [self._hellos[controller], *self._calls[controller].values()]
        _refuse_succeeded(everything, incarnation, now_s)
        newest_s = max(heard.of(incarnation) for heard in everything)
        if boottime_s <= newest_s:
            raise BadRequest("hello.stamp.boottime_s", f"later than the stamp before, {newest_s}, got {boottime_s}")
        for heard in everything:
            heard.hear(incarnation, boottime_s, now_s)

    def call(self, controller: int, evse: int, incarnation: int, boottime_s: float, now_s: float) -> bool:
        """Remembers a single call, at ``now_s`` on the daemon's clock; whether it is news, or the newest said again.

        It is not if it is older than the newest hello, or than the newest call for the same EVSE: calls that are under
        way together come in any order.

        Raises:
            BadRequest: it is older by more than calls are ever under way.
            Superseded: another process has spoken for the same EVSE since.
        """
        if evse not in self._calls[controller]:
            self._calls[controller][evse] = deepcopy(self._hellos[controller])
        heard = self._calls[controller][evse]
        _refuse_succeeded([heard], incarnation, now_s)
        newest_s = heard.of(incarnation)
        if boottime_s < newest_s - OVERTAKEN_S:
            wanted = f"not more than {OVERTAKEN_S:g} s before the newest of this incarnation, {newest_s}"
            raise BadRequest("stamp.boottime_s", f"{wanted}; a clock that was set back is another incarnation's")
        heard.hear(incarnation, boottime_s, now_s)
        return boottime_s >= newest_s


def _refuse_succeeded(everything: Iterable[_Newest], incarnation: int, now_s: float) -> None:
    if any(heard.is_over(incarnation, now_s) for heard in everything):
        raise Superseded(SUCCEEDED)


Told = tuple[str, int]
"""What a report tells of: kind of the element and its index."""


class Reports:
    """Who has told of which switch, loss or meter: a report of a process that another one has succeeded is not news.

    Calls keep no order, so one that a device's last process had under way comes when its next one has long spoken. It
    is refused as for ``Stamps``; late reports of one process are dropped where they are compared with what is known
    (``positions``, ``losses``, ``meters``). Of one device each element may be told by a process of its own.
    """

    def __init__(self) -> None:
        self._heard: defaultdict[tuple[int, str, int], _Newest] = defaultdict(_Newest)

    def late(self, reporter: int, about: Sequence[Told], stamp: Stamp, now_s: float) -> list[bool]:
        """(k,) of which of ``about`` (k,) another process of this reporter has told since."""
        return [self._heard[reporter, kind, index].is_over(stamp.incarnation, now_s) for kind, index in about]

    def refuse_late(self, reporter: int, about: Sequence[Told], stamp: Stamp, now_s: float) -> None:
        """Of what comes in no order.

        Raises:
            Superseded: another process of this reporter has told of one of ``about`` since.
        """
        if any(self.late(reporter, about, stamp, now_s)):
            raise Superseded(SUCCEEDED)

    def hear(self, reporter: int, about: Sequence[Told], stamp: Stamp, now_s: float) -> None:
        """Remembers who has told of ``about``, at ``now_s`` on the daemon's clock."""
        for kind, index in about:
            self._heard[reporter, kind, index].hear(stamp.incarnation, stamp.boottime_s, now_s)
