"""Which hellos are news: a late or repeated one must not undo what its controller has said since."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from powerd.errors import BadRequest

PROCESSES_KEPT = 8
"""Processes of one controller that are remembered."""


class Hellos:
    """The newest hello of each process that this daemon has heard.

    Streams keep their order, but not among each other: a connection given up may still deliver its hello when the next
    one is long open. The stamps of one process only grow (docs/protocol.md, rule 1), so they tell. Connections end with
    the daemon's process, hence nothing of this is kept over its restart.
    """

    def __init__(self) -> None:
        self._newest: defaultdict[int, OrderedDict[int, float]] = defaultdict(OrderedDict)

    def take(self, controller: int, incarnation: int, boottime_s: float) -> None:
        """Remembers a hello that is news.

        Raises:
            BadRequest: it is as old as one that was heard before, or older.
        """
        known = self._newest[controller]
        newest_s = known.get(incarnation, -1.0)
        if boottime_s <= newest_s:
            raise BadRequest("hello.stamp.boottime_s", f"later than the hello before, {newest_s}, got {boottime_s}")
        known[incarnation] = boottime_s
        known.move_to_end(incarnation)
        if len(known) > PROCESSES_KEPT:
            known.popitem(last=False)
