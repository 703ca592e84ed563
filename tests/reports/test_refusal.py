"""``--json`` where a command comes to no result: still one object on stdout, with why as its faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from powerd.cli import app
from powerd.journal.store import Journal
from tests.control.garage import site_text

CASES = Path(__file__).parents[1] / "site" / "cases"
COMMANDS = {
    "check": ["check", "SITE"],
    "simulate": ["simulate", "SITE", "--trip", "T1@08:15"],
    "outages": ["study", "outages", "SITE"],
    "sequences": ["study", "sequences", "SITE"],
    "replay": ["replay", "JOURNAL", "--site", "SITE"],
}


def told(command: list[str], site: Path, journal: Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, the one object on stdout, stderr."""
    names = {"SITE": str(site), "JOURNAL": str(journal)}
    ended = CliRunner().invoke(app, [*(names.get(word, word) for word in command), "--json"])
    assert ended.stdout.count("\n") == 1
    return ended.exit_code, json.loads(ended.stdout), ended.stderr


@pytest.mark.parametrize("written", [False, True], ids=["missing", "empty"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_site_that_cannot_be_read_is_the_only_fault(tmp_path: Path, command: list[str], written: bool) -> None:
    """Missing or empty: exit 2, told on stderr, and in the same words as the code ``unreadable``."""
    site = tmp_path / "site.yaml"
    if written:
        site.write_text("")
    code, answer, err = told(command, site, tmp_path / "j")
    (fault,) = answer["faults"]
    assert (code, answer["file"], fault["code"], fault["file"]) == (2, str(site), "unreadable", str(site))
    assert fault["message"] in err.replace("\n", " ")
    assert fault["mend"]


@pytest.mark.parametrize("command", ["simulate", "outages", "sequences"])
def test_a_site_with_faults_is_told_with_all_of_them(tmp_path: Path, command: str) -> None:
    """Exit 1, and the faults that ``check`` lists."""
    text = (CASES / "base.yaml").read_text("utf-8")
    (tmp_path / "site.yaml").write_text(f"{text}nonsense: 1\nmore: 2\n", "utf-8")
    code, answer, _ = told(COMMANDS[command], tmp_path, tmp_path / "j")
    _, checked, _ = told(COMMANDS["check"], tmp_path, tmp_path / "j")
    assert (code, answer["faults"]) == (1, checked["faults"])
    assert len(answer["faults"]) == 2


def test_a_journal_that_cannot_be_replayed_is_told_with_its_name(tmp_path: Path) -> None:
    """Missing, no journal, or an EVSE that is not there, which no file is to blame for."""
    (tmp_path / "site.yaml").write_text(site_text(2, 32.0), "utf-8")
    (tmp_path / "text").write_text("no journal at all " * 100)
    for name in ("nowhere", "text"):
        code, answer, _ = told(COMMANDS["replay"], tmp_path, tmp_path / name)
        (fault,) = answer["faults"]
        assert (code, fault["code"], fault["file"]) == (2, "unreadable", str(tmp_path / name))
    Journal(tmp_path / "j", evse_ids=("P0", "P1")).close()
    code, answer, _ = told([*COMMANDS["replay"], "--explain", "P7"], tmp_path, tmp_path / "j")
    assert (code, [fault["code"] for fault in answer["faults"]]) == (2, ["no-result"])


def test_a_file_of_sessions_is_told_with_its_place(tmp_path: Path) -> None:
    """The line of the file that is wrong, not of the site's."""
    (tmp_path / "site.yaml").write_text(site_text(2, 32.0), "utf-8")
    sessions = tmp_path / "sessions.csv"
    sessions.write_text("nothing,that,is,known\n1,2,3,4\n")
    code, answer, _ = told(["simulate", "SITE", "--sessions", str(sessions)], tmp_path, tmp_path / "j")
    assert (code, answer["file"], answer["faults"][0]["code"]) == (2, str(sessions), "unreadable")
