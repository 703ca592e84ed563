"""``powerd check``: what scripts rely on, and what people read."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest

from powerd.reports.check import run_check
from tests.control.test_plans import TWO_HALVES

CASES = Path(__file__).parents[1] / "site" / "cases"
KEYS = {"severity", "code", "element", "message", "mend", "file", "line"}


def check(path: Path, *, as_json: bool = False) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    return run_check(path, as_json=as_json, out=out, err=err), out.getvalue(), err.getvalue()


def test_a_site_in_order_exits_0_and_says_what_it_is() -> None:
    """Counts of EVSEs, supplies and limits, and what is held ready."""
    code, out, err = check(CASES / "base.yaml")
    assert (code, err) == (0, "")
    assert "29 EVSEs, 2 supplies" in out
    assert "limits in" in out
    assert "EVSEs without a grant 120 A" in out


def test_the_cost_of_boot_reserve_is_told(tmp_path: Path) -> None:
    """20 posts that restart at 10 A instead of falling back to 6 A cost 20 x 4 A on their feeder."""
    base = (CASES / "base.yaml").read_text(encoding="utf-8")
    (tmp_path / "site.yaml").write_text(base.replace("fallback_a: 6", "fallback_a: 6, boot_current_a: 10"), "utf-8")
    code, out, _ = check(tmp_path)
    assert code == 0
    line = next(line for line in out.splitlines() if "feeder F1" in line)
    assert "EVSEs without a grant 200 A, 80 of it for posts that restart above their fallback" in line


def test_faults_exit_1_and_name_place_and_mend() -> None:
    """One line a fault as compilers print them, and its mend below."""
    path = CASES / "many" / "02_references.yaml"
    code, out, _ = check(path)
    assert code == 1
    assert f"{path}:4: error: grid: there is no bus main-bus [unknown-bus]\n    mend: write main" in out
    assert out.endswith(": 6 errors, 0 warnings\n")


def test_json_is_one_object_with_the_promised_keys() -> None:
    """Nothing but one JSON object on stdout, with every fault in full."""
    for path, count in ((CASES / "base.yaml", 0), (CASES / "many" / "02_references.yaml", 6)):
        code, out, err = check(path, as_json=True)
        answer = json.loads(out)
        assert (out.count("\n"), err) == (1, "")
        assert len(answer["faults"]) == count
        assert code == (1 if count else 0)
        assert all(set(fault) == KEYS for fault in answer["faults"])
        assert {"site", "evses", "limits"} <= set(answer)


def test_warnings_alone_do_not_fail(tmp_path: Path) -> None:
    """A class without watchdog whose rating fits is worth a word, not a refusal."""
    text = (CASES / "base.yaml").read_text(encoding="utf-8")
    text = (
        text.replace(", watchdog_s: 30", "")
        .replace("breaker_a: 400", "breaker_a: 900")
        .replace("ampacity_a: 500", "ampacity_a: 900")
    )
    text = text.replace("min_envelope_kw: 700", "min_envelope_kw: 1500")
    (tmp_path / "site.yaml").write_text(text, "utf-8")
    code, out, _ = check(tmp_path)
    assert code == 0, out
    assert "[no-watchdog]" in out


def test_what_cannot_be_read_exits_2(tmp_path: Path) -> None:
    """Told on stderr, with an empty stdout; ``--json`` answers as ever, with that as the only fault."""
    code, out, err = check(tmp_path / "nowhere.yaml")
    assert (code, out) == (2, "")
    assert "nowhere.yaml" in err
    code, out, err = check(tmp_path / "nowhere.yaml", as_json=True)
    (fault,) = json.loads(out)["faults"]
    assert (code, fault["code"], fault["line"], fault["severity"]) == (2, "unreadable", 1, "error")
    assert (fault["file"], fault["mend"]) == (str(tmp_path / "nowhere.yaml"), "name a site file or its folder")
    assert "cannot be read" in fault["message"]
    (tmp_path / "site.yaml").write_text("site: a\nbuses:\n  - {id: b\n  - {id: c}\n", "utf-8")
    code, out, err = check(tmp_path, as_json=True)
    answer = json.loads(out)
    assert (code, set(answer)) == (2, set(json.loads(check(CASES / "base.yaml", as_json=True)[1])))
    (fault,) = answer["faults"]
    assert set(fault) == KEYS
    assert (fault["line"], fault["file"]) == (4, str(tmp_path / "site.yaml"))
    assert fault["message"].startswith("not YAML: ")
    assert fault["mend"].startswith("the { in line 3 is not closed")
    assert err


def test_the_table_of_moves_is_printed_and_in_the_json() -> None:
    """R9: state, element, worst flow, how long it is stood, and both bounds; fits where nothing is too long."""
    site = Path(__file__).parents[2] / "models" / "two_feeder_depot"
    code, out, _ = check(site)
    assert code == 0
    line = next(line for line in out.splitlines() if "main-b: up to" in line)
    assert "[ats at alternate]" in line
    assert "stood 26.6 s; over within 6 s, 25 s where a controller is silent" in line
    assert "ctl-critical and 1 more: 3 s, silent 22 s" in out
    moves = json.loads(check(site, as_json=True)[1])["after_moves"]
    assert {"state", "element", "worst", "tolerated_s", "bound_s", "answering_s", "fits"} <= set(moves[0])
    assert all(one["fits"] for one in moves)


def test_what_each_plan_has_to_hold_ready_is_told() -> None:
    """R5 after each single loss: the orders, the limit with least left, and that it fits."""
    site = Path(__file__).parents[2] / "models" / "two_feeder_depot"
    lines = check(site)[1].splitlines()
    assert "  90.7 % of 882.4 kW  import of the site: T1 lost, open main-a, close tie" in "\n".join(lines)
    plans = {one["lost"]: one for one in json.loads(check(site, as_json=True)[1])["planned"]}
    assert {"utility-a", "utility-b", "T1", "T2", "trunk-1", "main-a", "main-b"} <= set(plans)
    assert all(one["fits"] and one["forbidden"] is None for one in plans.values())
    assert plans["T2"]["steps"] == ["open main-b", "close tie"]


@pytest.mark.parametrize("key", ["min_envelope_kw", "failsafe_limit_kw"])
def test_an_import_that_is_promised_too_low_names_its_key_and_what_would_do(tmp_path: Path, key: str) -> None:
    """100 kW for fallbacks and other loads of more: the place is the key's line, and what is to be written holds."""
    base = (CASES / "base.yaml").read_text(encoding="utf-8")
    site = tmp_path / "site.yaml"
    site.write_text(base.replace("min_envelope_kw: 700", f"{key}: 100"), "utf-8")
    (fault,) = [one for one in json.loads(check(tmp_path, as_json=True)[1])["faults"] if one["code"] == "fallback-sum"]
    assert fault["line"] == 4
    assert f"kW that {key}, 100 kW, leaves after losses" in fault["message"]
    enough = re.match(r"write at least (\d+) there, or ", fault["mend"])
    assert enough
    site.write_text(base.replace("min_envelope_kw: 700", f"{key}: {enough[1]}"), "utf-8")
    code, _, err = check(tmp_path)
    assert (code, err) == (0, "")


def test_a_plan_that_fallbacks_forbid_is_a_fault_with_its_mend(tmp_path: Path) -> None:
    """Fallbacks of 10 A do not fit on one main: the tie stays open when a supply is lost, and check says why."""
    for fallback, forbidden in ((7, False), (10, True)):
        (tmp_path / "site.yaml").write_text(TWO_HALVES.replace("FALLBACK", str(fallback)), "utf-8")
        answer = json.loads(check(tmp_path, as_json=True)[1])
        lost_a = next(one for one in answer["planned"] if one["lost"] == "a")
        assert lost_a["fits"]
        assert (lost_a["forbidden"] is not None) == forbidden
        assert (lost_a["steps"] == []) == forbidden
        told = [one for one in answer["faults"] if one["code"] == "fallback-sum"]
        assert bool(told) == forbidden
        for fault in told:
            assert fault["severity"] == "warning"
            assert "lost, in a better state than the one planned" in fault["message"]
            assert "lower fallback and boot current" in fault["mend"]
            assert fault["element"] in TWO_HALVES.splitlines()[fault["line"] - 1]


def test_terms_that_the_daemon_would_refuse_are_faults(tmp_path: Path) -> None:
    """Each file in one pass, in its own line: not convex, not there, without a function; the good one is not told."""
    base = (CASES / "base.yaml").read_text(encoding="utf-8")
    files = {"good.py": "<= 40", "bent.py": "== site.ceiling[1] ** 2", "empty.py": None}
    for name, rest in files.items():
        text = "" if rest is None else f"def terms(site):\n    yield site.ceiling[0] {rest}\n"
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "site.yaml").write_text(base + "terms:\n  - good.py\n  - bent.py\n  - gone.py\n  - empty.py\n", "utf-8")
    code, out, _ = check(tmp_path, as_json=True)
    answer, lines = json.loads(out), (tmp_path / "site.yaml").read_text("utf-8").splitlines()
    told = {lines[fault["line"] - 1].strip(" -"): fault["message"] for fault in answer["faults"]}
    assert (code, set(told)) == (1, {"bent.py", "gone.py", "empty.py"})
    assert "term 1 is not a convex constraint" in told["bent.py"]
    assert "in order" not in check(tmp_path)[1]
    (tmp_path / "site.yaml").write_text(base + "terms: [good.py]\n", "utf-8")
    assert check(tmp_path)[0] == 0


def test_no_file_of_terms_ends_the_check(tmp_path: Path) -> None:
    """An exit, a bare exception, what cannot be solved: each a fault in its line, with the file's own line."""
    base = (CASES / "base.yaml").read_text(encoding="utf-8")
    texts = {
        "leaves.py": ("exit(0)", 3),
        "chains.py": ("yield 0 <= site.ceiling <= 40", 3),
        "stops.py": ("yield next(iter(()))", 3),
        "unset.py": ("yield site.ceiling[0] <= cp.Parameter()", 3),
        "whole.py": ("yield site.ceiling[0] <= 9 * cp.Variable(integer=True)", 3),
        "nobody.py": ("yield cp.sum(site.ceiling[[i for i in site.evse_ids if i == 'x']]) <= 9", 3),
    }
    for name, (text, _) in texts.items():
        (tmp_path / name).write_text(f"import cvxpy as cp\ndef terms(site):\n    {text}\n", "utf-8")
    names = "".join(f"  - {name}\n" for name in texts)
    (tmp_path / "site.yaml").write_text(f"{base}terms:\n{names}", "utf-8")
    code, out, _ = check(tmp_path, as_json=True)
    lines = (tmp_path / "site.yaml").read_text("utf-8").splitlines()
    told = {lines[fault["line"] - 1].strip(" -"): fault["message"] for fault in json.loads(out)["faults"]}
    assert code == 1
    assert {name: f"{name}:{line}: " in told[name] for name, (_, line) in texts.items()} == dict.fromkeys(texts, True)


def test_terms_beside_max_min_are_a_fault(tmp_path: Path) -> None:
    """They would be shared by another rule than the one that the site file names."""
    base = (CASES / "base.yaml").read_text(encoding="utf-8")
    (tmp_path / "good.py").write_text("def terms(site):\n    yield site.ceiling[0] <= 40\n", "utf-8")
    (tmp_path / "site.yaml").write_text(base + "fairness: max_min\nterms: [good.py]\n", "utf-8")
    code, out, _ = check(tmp_path)
    assert code == 1
    assert "max_min: take one of the two out" in out
