"""The shape of a site file for editors and readers: JSON-Schema, and the reference tables of docs/site-file.md.

Both are generated from ``schema``; ``python -m powerd.site.published`` writes them anew into the checkout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from powerd.site.codes import Code
from powerd.site.schema import SiteFile

SCHEMA_FILE = "models/site.schema.json"
PAGE_FILE = "docs/site-file.md"
#: Everything after this line of the page is generated.
MARK = "<!-- generated below: python -m powerd.site.published -->\n"


def schema_text() -> str:
    """The JSON-Schema (draft 2020-12) of a site file."""
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "powerd site file",
        **{key: value for key, value in SiteFile.model_json_schema().items() if key != "title"},
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """Markdown tables: every key with unit, default and meaning, every word that may stand there, every fault code."""
    content = SiteFile.model_json_schema()
    parts = ["\n## Every key\n", _mapping("The file itself", content)]
    for name, part in content["$defs"].items():
        if part.get("type") == "object":
            parts.append(_mapping(name, part))
    words = [_words(name, part) for name, part in content["$defs"].items() if "enum" in part]
    codes = [f"| `{code}` | {code.meaning} |" for code in Code]
    return "\n".join([*parts, "## Words\n", *words, "## Fault codes\n", "| code | meaning |\n|---|---|", *codes]) + "\n"


def _mapping(title: str, part: dict[str, Any]) -> str:
    required = part.get("required", [])
    rows = []
    for key, field in part["properties"].items():
        cells = (f"`{key}`", _kind(field), _default(field, needed=key in required), _cell(field.get("description", "")))
        rows.append(f"| {' | '.join(cells)} |")
    intro = "" if title == "The file itself" else f"\n{part.get('description', '').splitlines()[0]}\n"
    return "\n".join([f"### {title}", intro, "| key | value | default | meaning |\n|---|---|---|---|", *rows, ""])


def _words(name: str, part: dict[str, Any]) -> str:
    """Members of an enumeration; their docstrings are only in the source, which says no more than the word."""
    return f"- {name}: {', '.join(f'`{word}`' for word in part['enum'])}. {part.get('description', '')}"


def _kind(field: dict[str, Any]) -> str:
    """What may stand there, in few words."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return ", ".join(dict.fromkeys(f"`{word}`" for word in field["enum"]))
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    return _range(field) or {"string": "word", "boolean": "true, false"}.get(field.get("type", ""), "value")


def _range(field: dict[str, Any]) -> str:
    if field.get("type") not in ("number", "integer"):
        return ""
    signs = {"exclusiveMinimum": "> ", "minimum": "≥ ", "exclusiveMaximum": "< ", "maximum": "≤ "}
    bounds = [f"{sign}{field[key]:g}" for key, sign in signs.items() if key in field]
    noun = "whole number" if field["type"] == "integer" else "number"
    return f"{noun} {', '.join(bounds)}".strip()


def _default(field: dict[str, Any], *, needed: bool) -> str:
    if needed:
        return "**required**"
    value = field.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return "–"
    return f"`{json.dumps(value)}`" if isinstance(value, bool | list) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def write(root: Path) -> None:
    """Write both files anew below ``root``, the checkout."""
    (root / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    page = root / PAGE_FILE
    head, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    page.write_text(head + mark + reference_text(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
