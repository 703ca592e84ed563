"""What the command line cannot say, told before anybody is asked."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from powerd.client.ask import Daemon
from powerd.client.envelopes import import_sentence, sentence, set_envelope
from powerd.errors import BadRequest
from powerd.v1 import envelope_service_pb2 as pb

EAST = timezone(timedelta(hours=14))


@pytest.mark.parametrize(
    "said",
    [
        {"heartbeat_s": float("inf")},
        {"heartbeat_s": float("nan")},
        {"heartbeat_s": 1e30},
        {"start": datetime(1, 1, 1, tzinfo=EAST)},
        {"end": datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=5)))},
    ],
)
def test_what_no_clock_holds_is_a_bad_request(said: dict[str, Any]) -> None:
    """An endless heartbeat, an instant before the year 1 or after 9999 in UTC: by its field, not as a traceback."""
    nobody = Daemon(address="127.0.0.1:1", tls_ca=None, tls_cert=None, tls_key=None)
    with pytest.raises(BadRequest) as refused:
        set_envelope(nobody, 5.0, source="dso", **said)
    assert refused.value.field == next(iter(said)).removesuffix("_s")


@pytest.mark.parametrize(
    ("limit_kw", "told"),
    [
        (1200.0, "at most 40 kW could be imported now, 1200 kW may be"),
        (float("inf"), "the site file has no grid_connection.import_limit_kw: nothing is said of what may be imported"),
    ],
)
def test_a_site_without_a_contract_is_not_said_to_import_without_end(limit_kw: float, told: str) -> None:
    """Where the site file has no limit there is none to tell."""
    assert import_sentence(pb.ListEnvelopesResponse(worst_import_kw=40.0, import_limit_kw=limit_kw)) == told


def test_a_key_that_the_site_file_may_not_have_is_not_named() -> None:
    """Below what is promised: the lowest of three keys, of which the client knows none."""
    told = sentence(pb.Envelope(envelope_id="night", source="dso", import_limit_kw=40.0))
    assert told.endswith("not guaranteed: below all that the site file promises to keep")


def test_no_duration_is_told_from_a_clock_that_people_set() -> None:
    """Set back by an hour between force and compliance: both instants as the clock showed them, and no "-3594 s"."""
    told = pb.Envelope(envelope_id="night", source="dso", import_limit_kw=40.0, in_force=True, guaranteed=True)
    told.in_force_since.FromSeconds(10_000)
    told.kept_since.FromSeconds(6_406)
    assert "in force since 1970-01-01T" in sentence(told)
    assert "3594" not in sentence(told)
