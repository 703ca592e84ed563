"""Reads the README: the blocks that a test runs, and the drawing of the house.

A fenced block is run if an HTML comment ``<!-- test: NAME -->`` stands right above it. A ``text`` block that follows it
with nothing but blank lines between is what it prints; ``...`` there stands for anything, within a line or, alone on a
line, for any lines. The block ``suite`` is the command that ``.ci/run`` calls, and ``run`` does not end by itself:
those two are not run from inside the tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ELSEWHERE = ("suite", "run")
SERVED = {"envelope": "two_feeder_depot"}
"""Blocks that talk to the daemon of another model than the garage."""

_BLOCK = re.compile(
    r"<!-- test: (?P<name>[\w-]+) -->\s*```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"(?:\s*```text\n(?P<result>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_HOUSE = re.compile(r"<!-- house -->\s*```\w*\n(?P<drawing>.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"(?:127\.0\.0\.1|localhost):\d+")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of the README that a reader is meant to try."""

    name: str
    """From its marker."""
    language: str
    """``bash`` or ``python``."""
    code: str
    """What to run."""
    result: str | None
    """What the README says it prints; None where it says nothing."""

    @property
    def needs_daemon(self) -> bool:
        """Whether the code talks to an address."""
        return bool(_ADDRESS.search(self.code))

    def at(self, address: str) -> str:
        """The code with the README's address replaced by ``address``."""
        return _ADDRESS.sub(address, self.code)


def blocks(text: str) -> list[Block]:
    """All marked blocks, in the order of the document."""
    return [Block(**match.groupdict()) for match in _BLOCK.finditer(text)]


def marks(text: str) -> int:
    """Number of markers, whether a block follows or not."""
    return len(re.findall(r"<!-- test: ", text))


def prints(block: Block, output: str) -> bool:
    """Whether ``output`` is what the README promises."""
    if block.result is None:
        return True
    pattern = "".join(_line(line) for line in block.result.strip().splitlines())
    return re.fullmatch(pattern, output.strip() + "\n") is not None


def _line(promised: str) -> str:
    """The pattern for one line of a result."""
    if promised.strip() == "...":
        return r"(?:.*\n)*?"
    return ".*?".join(re.escape(part) for part in promised.rstrip().split("...")) + r"[ \t]*\n"


def drawing(text: str) -> str | None:
    """The drawing of the house, None where the README has none."""
    match = _HOUSE.search(text)
    return match["drawing"] if match else None


def rooms_drawn(drawing: str, floors: list[str]) -> dict[str, set[str]]:
    """Floor -> rooms drawn on it: words that end in ``/`` or ``.py`` and start a column."""
    found: dict[str, set[str]] = {}
    here = ""
    for line in drawing.splitlines():
        here = next((floor for floor in floors if re.search(rf"[├┌─ ]{floor}\b", line)), here)
        found.setdefault(here, set()).update(re.findall(r"(?<=[│ ])(\w+)(?:/|\.py)(?=\s|$)", line) if here else ())
    return found
