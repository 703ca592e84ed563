"""The page of the degraded modes is the table in the code."""

from __future__ import annotations

from powerd.control.failsafe import TABLE
from powerd.reports.degraded import PAGE, page


def test_the_page_is_the_table() -> None:
    """Whoever changes one writes the other anew: ``python -m powerd.reports.degraded``."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert all(f"| {row.trigger} | " in page() for row in TABLE)
