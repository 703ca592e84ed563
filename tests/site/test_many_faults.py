"""Files with many faults: one pass tells all of them, each in its line, and the mends make the file load.

A line of a case ends in ``# fault code, code => text``: these codes are told in this line, and ``text`` mends it ("-":
without the line). ``# mend => text`` is a line that the mend of a fault elsewhere changes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from powerd.network.load import load_site

FILES = sorted((Path(__file__).parent / "cases" / "many").glob("*.yaml"))
MARK = re.compile(r"^(?P<space>\s*)(?P<text>.*?)\s+# (?:fault (?P<codes>[a-z0-9, -]+?)|mend) => (?P<mend>.*)$")


def expected(text: str) -> list[tuple[int, str]]:
    marks = [(line, MARK.match(content)) for line, content in enumerate(text.splitlines(), start=1)]
    return sorted((line, code) for line, mark in marks if mark and mark["codes"] for code in mark["codes"].split(", "))


def mended(text: str) -> str:
    lines = []
    for content in text.splitlines():
        mark = MARK.match(content)
        if mark is None:
            lines.append(content)
        elif mark["mend"] != "-":
            lines.append(mark["space"] + mark["mend"])
    return "\n".join(lines) + "\n"


def test_there_are_ten_files_with_three_faults_each() -> None:
    """The cases are as many and as bad as promised."""
    assert len(FILES) >= 10
    assert all(len(expected(path.read_text(encoding="utf-8"))) >= 3 for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_faults_are_told_in_one_pass(path: Path) -> None:
    """Exactly the faults marked in the file, each once and in its line."""
    found = sorted((fault.line, str(fault.code)) for fault in load_site(path).faults)
    assert found == expected(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_mends_make_the_file_load(path: Path, tmp_path: Path) -> None:
    """With every mend applied nothing is left to tell."""
    copy = tmp_path / "site.yaml"
    copy.write_text(mended(path.read_text(encoding="utf-8")), encoding="utf-8")
    loaded = load_site(copy)
    assert loaded.faults == ()
    assert loaded.electrical is not None
