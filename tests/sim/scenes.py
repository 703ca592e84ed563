"""Small scenes for the tests of the simulator: one busy hour of the garage, and sessions made up."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from powerd.sim.sessions import COLUMNS, RecordedSession

MODELS = Path(__file__).resolve().parents[2] / "models"
GARAGE = MODELS / "caltech_garage"
WEEK = GARAGE / "sessions" / "caltech_2019-05-06_5d.csv"
START = datetime(2019, 5, 6, 16, tzinfo=UTC)


def session(
    evse: str, come_s: float, stay_s: float, energy_kwh: float, *, said_kwh: float | None = None
) -> RecordedSession:
    """A stay that begins ``come_s`` after START."""
    arrival = START + timedelta(seconds=come_s)
    return RecordedSession(
        session_id=f"{evse}@{come_s:g}",
        evse_id=evse,
        arrival=arrival,
        departure=arrival + timedelta(seconds=stay_s),
        day=date(2019, 5, 6),
        energy_kwh=energy_kwh,
        said_energy_kwh=said_kwh,
        said_departure=None if said_kwh is None else arrival + timedelta(hours=4),
    )


def busy_morning(folder: Path, *, day: str = "2019-05-07", since: str = "08:00", until: str = "09:45") -> Path:
    """The recorded arrivals of one morning; every car is made to leave by ``until``, so that it is short."""
    with WEEK.open(encoding="utf-8", newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if r["arrival"].startswith(day) and since <= r["arrival"][11:16]]
    last = f"{day} {until}:00-07:00"
    rows = [r | {"departure": min(r["departure"], last)} for r in rows if r["arrival"] < last]
    path = folder / "morning.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path
