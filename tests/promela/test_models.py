"""The lease rules as small models, every state looked at; each broken variant is found."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.promela.models import check, need_spin

pytestmark = pytest.mark.setup

WITHIN_S = 120.0
"""Longer than this nobody waits for a model [s]."""
BROKEN = {
    "fencing": ("BROKEN_WAIT", "BROKEN_FENCE"),
    "nested": ("BROKEN_INNER", "BROKEN_OUTER", "BROKEN_LEND", "BROKEN_LIFE"),
    "falling": ("BROKEN_LATE",),
    "reenergise": ("BROKEN_LEASE", "BROKEN_PICKUP", "BROKEN_FALLBACK"),
}


@pytest.mark.parametrize("model", BROKEN)
def test_no_state_breaks_a_limit(model: str, tmp_path: Path) -> None:
    """All states within the model's bounds, in at most two minutes."""
    need_spin()
    begun = time.monotonic()
    verdict = check(model, tmp_path)
    took_s = time.monotonic() - begun
    print(f"{model}: {verdict.states} states in {took_s:.0f} s")
    assert took_s <= WITHIN_S
    assert verdict.complete
    assert verdict.errors == 0
    assert verdict.states > 1000


@pytest.mark.parametrize(("model", "broken"), [(model, one) for model, all_ in BROKEN.items() for one in all_])
def test_a_broken_rule_is_found(model: str, broken: str, tmp_path: Path) -> None:
    """The search ends with a counterexample."""
    need_spin()
    assert check(model, tmp_path, broken).errors > 0
