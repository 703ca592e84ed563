"""Every fault code: one slip of the pen brings it in the right line, and its mend takes it away."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from powerd.faults import Severity
from powerd.network.load import LoadedSite, load_site
from powerd.site.codes import Code

from .nets import write_net

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One entry of ``cases/codes.yaml``; the keys are explained there."""

    code: str
    find: str = ""
    put: str = ""
    mend: str = ""
    below: int = 0
    line_of: str = ""
    also: list[str] = field(default_factory=list)
    net: str = ""
    where: str = "site"
    more: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path, text: str, net: str) -> Path:
        """The base with ``find`` and ``more`` replaced, in ``folder``."""
        base = (CASES / ("net.yaml" if self.net else "base.yaml")).read_text(encoding="utf-8")
        for find, put in {self.find: text, **self.more}.items():
            assert not find or base.count(find) == 1, find
            base = base.replace(find, put) if find else base
        (folder / "site.yaml").write_text(base, encoding="utf-8")
        if self.net:
            write_net(net, folder)
        return folder / "site.yaml"

    def line(self, text: str) -> int:
        """Where the fault has to be told."""
        mark = self.line_of or self.put or self.find.split("\n")[0]
        if not (self.line_of or self.put):
            base = (CASES / "base.yaml").read_text(encoding="utf-8")
            return base[: base.index(self.find)].count("\n") + 1
        return text[: text.index(mark)].count("\n") + 1 + self.below


def cases() -> list[Case]:
    raw: list[dict[str, Any]] = YAML(typ="safe").load(CASES / "codes.yaml")
    return [Case(**one) for one in raw]


def codes(loaded: LoadedSite) -> set[str]:
    return {str(fault.code) for fault in loaded.faults}


def test_every_code_has_a_case() -> None:
    """No code without a file that brings it about, and no case for a code that is gone.

    ``user-terms`` is told where the terms are run, the others by the commands (tests/reports/test_refusal.py).
    """
    elsewhere = {Code.USER_TERMS, Code.UNREADABLE, Code.NO_RESULT}
    assert {case.code for case in cases()} == {str(code) for code in Code} - elsewhere


def test_there_are_enough_codes() -> None:
    """At least 25 kinds of fault are told apart, each with its own line of meaning."""
    assert len(set(Code)) >= 25
    assert len({code.meaning for code in Code}) == len(set(Code))


def test_the_bases_are_in_order(tmp_path: Path) -> None:
    """The files that the cases spoil hold no fault themselves, not even a warning."""
    assert load_site(CASES / "base.yaml").faults == ()
    assert load_site(Case(code="", net="plain").write(tmp_path, "", "plain")).faults == ()


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.code}-{case.put or case.net}"[:60])
def test_a_slip_brings_its_fault_and_the_mend_takes_it_away(case: Case, tmp_path: Path) -> None:
    """The broken file gives the code in the line of the slip and no unrelated error; the mended one loads."""
    path = case.write(tmp_path, case.put, case.net)
    broken = load_site(path)
    found = [fault for fault in broken.faults if fault.code == case.code]
    assert found, broken.faults
    assert {str(fault.code) for fault in broken.errors} <= {case.code, *case.also}
    assert all(fault.message and fault.mend and fault.element for fault in broken.faults)
    if case.where == "net":
        assert {(fault.file, fault.line) for fault in found} == {(str(tmp_path / "net.json"), 1)}
    else:
        lines = {fault.line for fault in found if fault.file == str(path)}
        assert case.line(path.read_text(encoding="utf-8")) in lines, (lines, found)
    assert (broken.electrical is None) == any(fault.severity is Severity.ERROR for fault in broken.faults)

    mended = load_site(case.write(tmp_path, case.mend, "plain"))
    assert mended.electrical is not None, mended.faults
    assert case.code not in codes(mended)
