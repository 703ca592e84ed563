"""A pandapower JSON file as plain tables.

Read without pandapower: its decoder imports and calls whatever classes the file names, which is not for a file that
someone sent; and a site with imported wires then starts without the seconds that importing pandapower takes. The format
(pandapower 2.x and 3.x, ``to_json``) keeps every table as a JSON text of columns, index and rows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powerd.errors import UnreadableInput
from powerd.site.read import read_text

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class NetFile:
    """The element tables of a net."""

    tables: dict[str, dict[int, Row]]
    """Table name to index to row."""

    def table(self, name: str) -> dict[int, Row]:
        """Rows by index; empty where the net has no such table."""
        return self.tables.get(name, {})

    def in_service(self, name: str) -> list[int]:
        """Indices of the rows that take part."""
        return [index for index, row in self.table(name).items() if row.get("in_service", True) is not False]


def read_net(path: Path, name: str) -> NetFile:
    """Read the element tables of a pandapower JSON file.

    Raises:
        UnreadableInput: it cannot be read, or is no pandapower net.
    """
    text = read_text(path, name)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise UnreadableInput(f"{name}: nested too deep for a pandapower net") from error
    except ValueError as error:
        raise UnreadableInput(f"{name}: not JSON: {error}; save the net with pandapower.to_json") from error
    parts = content.get("_object") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or content.get("_class") != "pandapowerNet":
        raise UnreadableInput(f"{name}: not a pandapower net; save it with pandapower.to_json")
    wanted = {key: part for key, part in parts.items() if isinstance(part, dict) and part.get("_class") == "DataFrame"}
    tables = {key: _table(part, f"{name}: table {key}") for key, part in wanted.items() if not key.startswith("res_")}
    if not tables.get("bus"):
        raise UnreadableInput(f"{name}: the net has no buses; save it with pandapower.to_json")
    return NetFile(tables=tables)


def _table(part: dict[str, Any], name: str) -> dict[int, Row]:
    """One table: {"columns": [...], "index": [...], "data": [[...], ...]}, written as a text inside the file."""
    inner = part.get("_object")
    try:
        split = json.loads(inner) if isinstance(inner, str) else inner
    except (ValueError, RecursionError) as error:
        raise UnreadableInput(f"{name} is damaged: {error}; save the net again") from error
    if not isinstance(split, dict) or not all(isinstance(split.get(key), list) for key in ("columns", "index", "data")):
        raise UnreadableInput(f"{name} is not written as columns, index and rows; save the net again")
    columns, index, data = split["columns"], split["index"], split["data"]
    if len(index) != len(data) or not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        raise UnreadableInput(f"{name} has rows of different length; save the net again")
    if not all(isinstance(one, int) for one in index):
        return {}  # lookup tables with a composite index describe no element
    return {one: dict(zip(map(str, columns), row, strict=True)) for one, row in zip(index, data, strict=True)}


def number(row: Row, key: str) -> float | None:
    """A finite number, or None where there is none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def scaled(row: Row, key: str, factor: float) -> float | None:
    """A number in another unit, or None where there is none."""
    value = number(row, key)
    return None if value is None else value * factor
