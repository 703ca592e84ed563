"""``python -m bench NAME [options] --json``: one JSON object on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version

#: Name on the command line -> module with ``add_arguments(parser)``, ``run(arguments) -> rows`` and ``PACKAGES``.
BENCHES = {
    "allocate": "bench.allocate",
    "tick": "bench.tick",
    "flow": "bench.flow",
    "reroute": "bench.reroute",
    "trip": "bench.trip",
    "persist": "bench.persist",
    "rounding": "bench.rounding",
}


def table(rows: list[dict[str, object]]) -> str:
    """The rows as aligned text, for people."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [["" if row.get(c) is None else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def main() -> int:
    """Run one bench; exit status 0."""
    name = next((argument for argument in sys.argv[1:] if argument in BENCHES), None)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    module = importlib.import_module(BENCHES[name]) if name is not None else None
    if module is not None:
        module.add_arguments(parser)
    arguments = parser.parse_args()
    if module is None:
        parser.error(f"name one of {', '.join(sorted(BENCHES))}")
    rows = module.run(arguments)
    if arguments.json:
        versions = {package: version(package) for package in module.PACKAGES}
        date = datetime.now(UTC).isoformat(timespec="seconds")
        print(json.dumps({"bench": arguments.name, "date": date, "versions": versions, "rows": rows}))
    else:
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
