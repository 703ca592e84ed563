"""The journal of a simulation by the real daemon, stepped through again in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerd.control.compiled import CompiledSite
from powerd.errors import UnreadableInput
from powerd.journal.replay import replay
from powerd.network.capped import cap_transformers
from powerd.network.load import load_site
from powerd.sim.command import Options, run
from tests.sim.scenes import GARAGE, WEEK, busy_morning

CAP_KW = 40.0


def bit_equal(journal: Path) -> int:
    """Ticks of a journal of the capped garage, all bit-equal."""
    site = CompiledSite.of(cap_transformers(load_site(GARAGE), CAP_KW))
    found = replay(journal, site, verify=True)
    assert found.fault is None
    assert found.ticks == found.exact
    assert found.gaps == 0
    return found.ticks


def test_a_busy_morning_is_decided_again_bit_by_bit(tmp_path: Path) -> None:
    """Twenty minutes of arrivals under a binding transformer; a second run does not write into the same file."""
    options = Options(
        site=GARAGE,
        sessions=busy_morning(tmp_path, since="08:20", until="08:40"),
        cap_kw=CAP_KW,
        journal=tmp_path / "journal",
    )
    assert run(options).limit_violations == 0
    assert bit_equal(tmp_path / "journal") > 50
    with pytest.raises(UnreadableInput, match="it exists"):
        run(options)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_full_week_is_decided_again_bit_by_bit(tmp_path: Path) -> None:
    """All sessions of the garage's week."""
    run(Options(site=GARAGE, sessions=WEEK, cap_kw=CAP_KW, journal=tmp_path / "journal"))
    ticks = bit_equal(tmp_path / "journal")
    print(f"{ticks} ticks bit-equal")
    assert ticks > 10_000
