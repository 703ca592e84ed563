"""The committed lock installs the same everywhere, and the build uses what it pins."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import cvxpy as cp
import pytest

from tests.setup.lock import foreign, out_of_step, unhashed

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_lock_is_free_of_this_machine() -> None:
    """No URL, no place to look for packages, no path."""
    assert foreign(LOCK) == []


def test_every_pin_has_a_hash() -> None:
    """pip --require-hashes accepts the whole lock."""
    assert unhashed(LOCK) == []


def test_the_lock_covers_the_project() -> None:
    """Every dependency, for running and for developing, is pinned to a version that pyproject.toml admits."""
    project = _project()
    assert out_of_step(LOCK, project["project"]["dependencies"] + project["dependency-groups"]["dev"]) == []


def test_the_build_uses_the_locked_generator() -> None:
    """An isolated build generates powerd/v1 with the same versions as make setup does."""
    requirements = _project()["build-system"]["requires"]
    assert all("==" in requirement for requirement in requirements)
    assert out_of_step(LOCK, requirements) == []


def test_every_dependency_has_its_reason() -> None:
    """Each line of a list of dependencies in pyproject.toml ends in a comment that says what it is for."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line.startswith('    "') and any(sign in line for sign in (">=", "=="))]
    assert len(names) > 30
    assert [line for line in names if len(line.partition(" # ")[2]) < 5] == []


def test_cvxpy_has_its_solvers() -> None:
    """Clarabel and HiGHS are there (with ortools installed cvxpy would lose HiGHS)."""
    assert {"CLARABEL", "HIGHS"} <= set(cp.installed_solvers())


PLANTED = {
    "url": "a @ https://example.org/a.whl",
    "find-links": "--find-links wheels",
    "short find-links": "-f wheels",
    "index": "--index-url=simple",
    "extra index": "--extra-index-url simple",
    "absolute path": "a @ /opt/a.whl",
    "path in a comment": "    # via -r /home/me/requirements.in",
    "local wheel": "./a-1.0.whl",
    "local file": "file:wheels/a.whl",
    "editable": "-e .",
    "git": "a @ git+ssh://example.org/a",
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_foreign_line_is_caught(case: str) -> None:
    """Each way to tie the lock to a machine or server is found, in its line."""
    assert [line.split(":")[0] for line in foreign(f"x==1.0 \\\n    --hash=sha256:0\n{PLANTED[case]}\n")][:1] == ["3"]


def test_a_planted_gap_is_caught() -> None:
    """A pin without a hash, a dependency without a pin and a pin outside of its bounds are found."""
    lock = "a==1.0 \\\n    --hash=sha256:0\n    # via b\nb==2.0 ; python_version < '3.12'\n"
    assert unhashed(lock) == ["b==2.0"]
    assert out_of_step(lock, ["a>=1", "B>=3", "c"]) == ["B>=3", "c"]
