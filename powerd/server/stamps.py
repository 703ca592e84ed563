"""Which messages are news: a late or repeated one must not undo what its controller has said since."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field

from powerd.errors import BadRequest

PROCESSES_KEPT = 8
"""Processes of one controller that are remembered."""


@dataclass(kw_only=True, slots=True)
class _Process:
    """The newest stamps of one process [s]; -1 = none heard."""

    hello_s: float = -1.0
    calls_s: dict[int, float] = field(default_factory=dict)
    """EVSE -> of its newest single call."""

    def newest_s(self) -> float:
        return max(self.hello_s, *self.calls_s.values(), -1.0)


class Stamps:
    """The newest hello of each process that this daemon has heard, and its newest single call for each EVSE.

    Streams keep their order, single calls have none, and neither keeps it against the other: a connection given up may
    still deliver its hello when the next one is long open, or a call what it said before the next one. The stamps of
    one process only grow (docs/protocol.md, rule 1), so they tell. Connections end with the daemon's process, hence
    nothing of this is kept over its restart.
    """

    def __init__(self) -> None:
        self._known: defaultdict[int, OrderedDict[int, _Process]] = defaultdict(OrderedDict)

    def hello(self, controller: int, incarnation: int, boottime_s: float) -> None:
        """Remembers a hello that is news.

        Raises:
            BadRequest: it is as old as a hello or call that was heard before, or older.
        """
        process = self._process(controller, incarnation)
        newest_s = process.newest_s()
        if boottime_s <= newest_s:
            raise BadRequest("hello.stamp.boottime_s", f"later than the stamp before, {newest_s}, got {boottime_s}")
        process.hello_s = boottime_s

    def call(self, controller: int, evse: int, incarnation: int, boottime_s: float) -> bool:
        """Remembers a single call; whether what it says is news, or the newest said again.

        It is not if it is older than the newest hello, or than the newest call for the same EVSE: calls that are under
        way together come in any order.
        """
        process = self._process(controller, incarnation)
        newest_s = max(process.hello_s, process.calls_s.get(evse, -1.0))
        process.calls_s[evse] = max(newest_s, boottime_s)
        return boottime_s >= newest_s

    def _process(self, controller: int, incarnation: int) -> _Process:
        """What is known of a process; the one that was silent for longest is forgotten for a new one."""
        known = self._known[controller]
        process = known.setdefault(incarnation, _Process())
        known.move_to_end(incarnation)
        if len(known) > PROCESSES_KEPT:
            known.popitem(last=False)
        return process
