"""News of one tick that can be taken in one pass: what a hundred controllers say costs what one says.

Two events of one kind may be joined if nothing that came between them concerns the same EVSEs, nor do they themselves:
then nobody can tell the order. Whatever can change more than its own EVSEs (a hello may raise the epoch, a request has
an answer) keeps its place, and nothing is moved across it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from powerd.compiled import kernel
from powerd.control import events as ev
from powerd.limits import Ints
from powerd.state.columns import replace

#: With fewer events than this, joining costs more than it saves.
WORTH_JOINING = 8

Joinable = ev.StampSeen | ev.Acked | ev.RenewalAcked | ev.Measured | ev.PlugChanged | ev.FreshWanted
#: What two of each kind must have in common to be joined; asked for every event, so by type.
_ALIKE: dict[type, Callable[[Any], Hashable]] = {
    ev.StampSeen: lambda _: None,
    ev.Acked: attrgetter("epoch", "seq"),
    ev.RenewalAcked: attrgetter("epoch", "seq"),
    ev.Measured: attrgetter("window_s"),
    ev.PlugChanged: lambda _: None,
    ev.FreshWanted: lambda _: None,
}


def runs(events: Sequence[ev.Event], count: int) -> list[list[int]]:
    """Indices of events that may be taken together, in an order in which they may be taken.

    Args:
        events: in the order in which they came.
        count: n, EVSEs of the site.
    """
    if len(events) < WORTH_JOINING:
        return [[index] for index in range(len(events))]
    keys: dict[Hashable, int] = {}
    key, fixed, touched = [], [], []
    for index, event in enumerate(events):
        alike = _ALIKE.get(type(event))
        fixed.append(alike is None)
        touched.append(_NOBODY if alike is None else _evse_of(event))
        key.append(keys.setdefault(index if alike is None else (type(event), alike(event)), len(keys)))
    start = np.cumsum([0, *map(len, touched)])
    run = _assign(np.array(key), len(keys), np.array(fixed), np.concatenate(touched), start, count)
    found: list[list[int]] = [[] for _ in range(int(run.max()) + 1)]
    for index, number in enumerate(run.tolist()):
        found[number].append(index)
    return found


def joined(events: list[Joinable]) -> Joinable:
    """One event that says what these of one run say; all but stamps, which differ in more than their EVSEs."""
    first, evse = events[0], np.concatenate([event.evse for event in events])
    changes: dict[str, object] = {"evse": evse}
    for name in ("ceiling", "drawn", "plugged", "plug_boottime_s"):
        if hasattr(first, name):
            changes[name] = np.concatenate([getattr(event, name) for event in events])
    acks = [event for event in events if isinstance(event, ev.Acked)]
    if any(ack.one_phase is not None for ack in acks):
        changes["one_phase"] = np.concatenate([ev.or_none(ack.one_phase, ack.evse) for ack in acks])
    return replace(first, **changes)  # type: ignore[arg-type]


_evse_of = attrgetter("evse")
_NOBODY: Ints = np.zeros(0, dtype=np.int64)


@kernel
def _assign(
    key: Ints, keys: int, fixed: np.ndarray[tuple[int], np.dtype[np.bool_]], evse: Ints, start: Ints, count: int
) -> Ints:
    """Run of each event; ``evse[start[i]:start[i + 1]]`` are the EVSEs of event i."""
    run = np.empty(key.shape[0], dtype=np.int64)
    newest = np.full(keys, -1)  # newest run of each key
    concerned = np.full(count, -1)  # newest run that concerns an EVSE
    barrier, made = -1, 0
    for i in range(key.shape[0]):
        into = newest[key[i]]
        joins = into > barrier and not fixed[i]
        for at in range(start[i], start[i + 1]):
            joins = joins and concerned[evse[at]] < into
        if not joins:
            into, made = made, made + 1
            newest[key[i]] = into
        if fixed[i]:
            barrier = into
        for at in range(start[i], start[i + 1]):
            concerned[evse[at]] = into
        run[i] = into
    return run
