"""Which messages are news: a late or repeated one must not undo what its controller has said since."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from copy import deepcopy

from powerd.errors import BadRequest
from powerd.v1.common_pb2 import Stamp

PROCESSES_KEPT = 8
"""Processes remembered that said hello for one controller, and that called for one EVSE."""


OVERTAKEN_S = 60.0
"""A call that is older than another one by more was not overtaken: one of the two has a wrong clock [s]."""


SUCCEEDED = "that of the process that speaks now, for another one has been heard since; each start takes a new one"
"""What a process is told that was heard before its successor."""


class _Newest:
    """The newest stamp of each process [s]; the process that was silent for longest is forgotten for a new one."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, float] = OrderedDict()
        self._last = 0
        self._late: dict[int, float] = {}  # the first stamp of each that was refused since a successor was heard

    def is_over(self, incarnation: int, boottime_s: float) -> bool:
        """Another process was heard for the first time after this one: what this one said is late.

        Unless it goes on speaking for longer than anything is under way: then it lives, and is the one that speaks.
        """
        if incarnation not in self._known or incarnation == self._last:
            return False
        if boottime_s <= self._late.setdefault(incarnation, boottime_s) + OVERTAKEN_S:
            return True
        self._last = incarnation
        self._late.clear()
        return False

    def of(self, incarnation: int) -> float:
        """Of this process; -1 = none heard."""
        return self._known.get(incarnation, -1.0)

    def hear(self, incarnation: int, boottime_s: float) -> None:
        """This process has spoken."""
        if incarnation not in self._known:
            self._last = incarnation
            self._late.clear()
        self._known[incarnation] = max(self.of(incarnation), boottime_s)
        self._known.move_to_end(incarnation)
        if len(self._known) > PROCESSES_KEPT:
            self._known.popitem(last=False)


class Stamps:
    """The newest hello of each process that this daemon has heard, and its newest single call for each EVSE.

    Streams keep their order, single calls have none, and neither keeps it against the other: a connection given up may
    still deliver its hello when the next one is long open, or a call what it said before the next one. The stamps of
    one process only grow (docs/protocol.md, rule 1), so they tell. Posts may call each by itself, with a process of its
    own: one is not forgotten because others of its controller speak. A process that was heard before its successor is
    not heard again for a minute: what it says then was under way for long, and would undo what the successor has said.
    Who still speaks after that lives. Which way either of them spoke does not matter: a hello is for every EVSE of its
    controller. Connections end with the daemon's process, hence nothing of this is kept over its restart.
    """

    def __init__(self) -> None:
        self._hellos: defaultdict[int, _Newest] = defaultdict(_Newest)
        # Controller -> EVSE that was called for -> what was heard for it, by calls and by hellos.
        self._calls: defaultdict[int, dict[int, _Newest]] = defaultdict(dict)

    def hello(self, controller: int, incarnation: int, boottime_s: float) -> None:
        """Remembers a hello that is news.

        Raises:
            BadRequest: it is as old as a hello or call that was heard before, or older; or another process has said
                hello since, or has called for an EVSE that this one spoke for.
        """
        everything = [self._hellos[controller], *self._calls[controller].values()]
        over = [heard.is_over(incarnation, boottime_s) for heard in everything]  # each of them notes when it began
        if any(over):
            raise BadRequest("hello.stamp.incarnation", SUCCEEDED)
        newest_s = max(heard.of(incarnation) for heard in everything)
        if boottime_s <= newest_s:
            raise BadRequest("hello.stamp.boottime_s", f"later than the stamp before, {newest_s}, got {boottime_s}")
        for heard in everything:
            heard.hear(incarnation, boottime_s)

    def call(self, controller: int, evse: int, incarnation: int, boottime_s: float) -> bool:
        """Remembers a single call; whether what it says is news, or the newest said again.

        It is not if it is older than the newest hello, or than the newest call for the same EVSE: calls that are under
        way together come in any order.

        Raises:
            BadRequest: it is older by more than calls are ever under way, or another process has spoken for the same
                EVSE since.
        """
        if evse not in self._calls[controller]:
            self._calls[controller][evse] = deepcopy(self._hellos[controller])
        heard = self._calls[controller][evse]
        if heard.is_over(incarnation, boottime_s):
            raise BadRequest("stamp.incarnation", SUCCEEDED)
        newest_s = heard.of(incarnation)
        if boottime_s < newest_s - OVERTAKEN_S:
            wanted = f"not more than {OVERTAKEN_S:g} s before the newest of this incarnation, {newest_s}"
            raise BadRequest("stamp.boottime_s", f"{wanted}; a clock that was set back is another incarnation's")
        heard.hear(incarnation, boottime_s)
        return boottime_s >= newest_s


class Reports:
    """Who has told of which switch, loss or meter: a report of a process that another one has succeeded is not news.

    Calls keep no order, so one that a device's last process had under way comes when its next one has long spoken. It
    is refused as for ``Stamps``; late reports of one process are dropped where they are compared with what is known
    (``positions``, ``losses``, ``meters``). Of one device each element may be told by a process of its own.
    """

    def __init__(self) -> None:
        self._heard: defaultdict[tuple[int, str, int], _Newest] = defaultdict(_Newest)

    def hear(self, field: str, reporter: int, about: Sequence[tuple[str, int]], stamp: Stamp) -> None:
        """Remembers who tells ``about`` these elements, kind and index each.

        Raises:
            BadRequest: another process of this reporter has told about one of them since; ``field`` leads to its stamp.
        """
        told = [self._heard[(reporter, *one)] for one in about]
        over = [one.is_over(stamp.incarnation, stamp.boottime_s) for one in told]  # of each its minute begins
        if any(over):
            raise BadRequest(f"{field}.incarnation", SUCCEEDED)
        for one in told:
            one.hear(stamp.incarnation, stamp.boottime_s)
