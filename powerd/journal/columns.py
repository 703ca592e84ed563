"""A snapshot as named columns and a small remainder, and back.

Columns of a snapshot are replaced, never changed in place: a column that is still the same object need not be written
again. That is what makes one transaction a tick cheap.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from powerd.state.lease_book import LeaseBook
from powerd.state.overshoot import Overshoot
from powerd.state.snapshot import GROUPS, Sessions, Snapshot, Stop, Usage

Column = npt.NDArray[Any]
Group = TypeVar("Group", Sessions, LeaseBook, Usage)


def remainder_of(snapshot: Snapshot) -> str:
    """What is not a column, as JSON: ids, stops, answers, counters."""
    scalars = {
        f"{name}/{own.name}": getattr(getattr(snapshot, name), own.name)
        for name in GROUPS
        for own in fields(getattr(snapshot, name))
        if not isinstance(getattr(getattr(snapshot, name), own.name), np.ndarray)
    }
    stops = [
        {"stop_id": s.stop_id, "element": s.element, "evse": s.evse.tolist(), "reason": s.reason}
        for s in snapshot.stops
    ]
    return json.dumps(
        {
            "scalars": scalars,
            "stops": stops,
            "overshoots": [asdict(one) for one in snapshot.overshoots],
            "answered": snapshot.answered,
            "boottime_s": snapshot.boottime_s,
            "tick": snapshot.tick,
        }
    )


def snapshot_of(like: Snapshot, columns: dict[str, Column], remainder: str) -> Snapshot:
    """The snapshot again.

    Args:
        like: an empty snapshot of the same site; says which columns there are and of what shape.
        columns: as written.
        remainder: as written.

    Raises:
        KeyError, ValueError: a column is missing or has another shape: the record is not of this site or version.
    """
    rest = json.loads(remainder)
    groups = {name: _group(getattr(like, name), name, columns, rest["scalars"]) for name in GROUPS}
    stops = tuple(
        Stop(
            stop_id=s["stop_id"],
            element=s["element"],
            evse=np.array(s["evse"], dtype=np.int64),
            reason=s["reason"],
        )
        for s in rest["stops"]
    )
    return replace(
        like,
        **groups,
        drawn=_checked("drawn", columns, like.drawn),
        drawn_at_s=_checked("drawn_at_s", columns, like.drawn_at_s),
        stops=stops,
        overshoots=tuple(Overshoot(**one) for one in rest["overshoots"]),
        answered=tuple((a, b) for a, b in rest["answered"]),
        boottime_s=float(rest["boottime_s"]),
        tick=int(rest["tick"]),
    )


def _group(like: Group, name: str, columns: dict[str, Column], scalars: dict[str, Any]) -> Group:
    """One part of the snapshot."""
    values: dict[str, Any] = {}
    for own in fields(like):
        before = getattr(like, own.name)
        path = f"{name}/{own.name}"
        if isinstance(before, np.ndarray):
            values[own.name] = _checked(path, columns, before)
        else:
            values[own.name] = tuple(scalars[path]) if isinstance(before, tuple) else type(before)(scalars[path])
    return replace(like, **values)


def _checked(path: str, columns: dict[str, Column], like: Column) -> Column:
    """A column of the record, if it is like the one this site has."""
    column = columns[path]
    if column.shape != like.shape or column.dtype != like.dtype:
        raise ValueError(f"{path} is {column.dtype}{column.shape}, this site needs {like.dtype}{like.shape}")
    return column
