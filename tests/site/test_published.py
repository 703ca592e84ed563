"""What editors and readers get is what powerd reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerd.network.load import load_site
from powerd.site.codes import Code
from powerd.site.published import MARK, PAGE_FILE, SCHEMA_FILE, reference_text, schema_text
from powerd.site.schema import SiteFile

ROOT = Path(__file__).parents[2]


def test_the_published_schema_is_up_to_date() -> None:
    """models/site.schema.json is what the classes say today (python -m powerd.site.published)."""
    assert (ROOT / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text()


def test_the_reference_page_is_up_to_date() -> None:
    """The generated half of docs/site-file.md, with every fault code in it."""
    head, mark, generated = (ROOT / PAGE_FILE).read_text(encoding="utf-8").partition(MARK)
    assert head
    assert mark == MARK
    assert generated == reference_text()
    assert all(f"| `{code}` |" in generated for code in Code)


def test_every_key_says_what_it_means() -> None:
    """No property of any element goes without a description."""
    content = SiteFile.model_json_schema()
    silent = [
        f"{name}.{key}"
        for name, part in [("SiteFile", content), *content["$defs"].items()]
        for key, field in part.get("properties", {}).items()
        if not field.get("description") and "$ref" not in field
    ]
    assert silent == []


def test_the_page_s_example_loads(tmp_path: Path) -> None:
    """The site in docs/site-file.md is in order as printed."""
    page = (ROOT / PAGE_FILE).read_text(encoding="utf-8")
    example = next(block for block in page.split("```yaml\n")[1:] if block.startswith("site:")).split("```")[0]
    (tmp_path / "site.yaml").write_text(example, encoding="utf-8")
    loaded = load_site(tmp_path)
    assert loaded.faults == ()
    assert loaded.must().evse_count == 32


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/site.yaml")), ids=lambda path: path.parent.name)
def test_every_published_model_is_in_order(path: Path) -> None:
    """No model that powerd ships has a fault of severity error."""
    assert load_site(path).errors == ()
