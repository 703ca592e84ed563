"""YAML text as plain data with the line of every value; the only place that knows YAML.

Built from parser events, not from a loader: no tag constructs anything, depth and size are bounded (an alias counts as
what it repeats), and a key that is written twice is reported instead of silently overwritten. Scalars follow the core
schema of YAML 1.2: ``yes`` and ``08:30`` are words, ``400`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from powerd.errors import UnreadableInput

Path = tuple[str | int, ...]

#: Deepest nesting a site file can need is 5 (stations, item, evses, item, value).
MAX_DEPTH = 24
#: Values in one file, aliases counted as often as they repeat; 5 000 stations written out in full need 60 000.
MAX_VALUES = 1_000_000

_INT = re.compile(r"[-+]?\d{1,18}")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class Place:
    """The line of a value and of everything inside it; pruned together with the value."""

    line: int
    """1-based; of a mapping's value the line of its key."""
    inside: dict[str, Place] | list[Place] | None = None
    """Places of the parts, keyed or indexed as the value is; None for a scalar."""

    def at(self, *path: str | int) -> int:
        """Line of the value at ``path``, or of the nearest thing around it that is written in the file."""
        place = self
        for step in path:
            inner = place.part(step)
            if inner is None:
                break
            place = inner
        return place.line

    def part(self, step: str | int) -> Place | None:
        """Place of one part; None where it is not written in the file."""
        if isinstance(self.inside, dict) and isinstance(step, str):
            return self.inside.get(step)
        if isinstance(self.inside, list) and isinstance(step, int) and step < len(self.inside):
            return self.inside[step]
        return None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A parsed file."""

    value: Any
    """Mappings as dict with str keys, sequences as list, scalars as str, int, float, bool, None."""
    place: Place
    """The line of every value, in the same shape."""
    repeated: tuple[tuple[Path, int], ...]
    """Keys that occur twice in one mapping, with the line of the later one; the first counts."""


@dataclass(slots=True)
class _Node:
    """A value with its line; ``value`` is a scalar, a list of nodes, or a list of (key, key's line, node)."""

    kind: str
    value: Any
    line: int
    size: int = 1
    depth: int = 1


def parse(text: str, name: str) -> Tree:
    """Parse YAML ``text``; ``name`` is the file as the user named it.

    Raises:
        UnreadableInput: not YAML, two documents, an explicit tag, a key that is not a word, too deep or too large.
    """
    try:
        root = _compose(YAML(typ="safe", pure=True).parse(text), name)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        problem = error.problem or error.context or ""
        raise UnreadableInput(f"{where}: not YAML: {problem}; {_mend_of(error, problem, text)}") from error
    except (YAMLError, ValueError) as error:
        raise UnreadableInput(f"{name}: not YAML: {str(error).splitlines()[0]}") from error
    repeated: list[tuple[Path, int]] = []
    value, place = _flatten(root, root.line, (), repeated)
    return Tree(value=value, place=place, repeated=tuple(repeated))


def _mend_of(error: MarkedYAMLError, problem: str, text: str) -> str:
    """What mostly is the cause."""
    opened = error.context_mark.line + 1 if error.context_mark is not None else 0
    at = error.problem_mark
    last = text[at.index - 1 : at.index] if at is not None else ""
    if "'\\t'" in problem:
        return "indent with spaces, not with tabs"
    if "escape" in problem:
        return "write \\\\ for a backslash, or put the word in single quotes"
    if problem.startswith("expected ',' or"):
        return _mend_of_flow(problem, opened, last, same_line=at is not None and at.line + 1 == opened)
    if "quoted scalar" in (error.context or ""):
        return f"the quotes that line {opened} opens are never closed"
    if "found '}'" in problem or "found ']'" in problem:
        return "nothing is open that this bracket could close: take it out"
    if "<block sequence start>" in problem or "<block mapping start>" in problem:
        return "begin this line in the same column as those beside it"
    if problem.startswith("could not find expected ':'") and opened:
        return f"line {opened} has no colon after its key"
    if "cannot start any token" in problem:
        return "put the word in quotes"
    return (
        "look at the indentation, the colons and the quotes here and in the line before, and for a space after each "
        "'-' and ':'"
    )


def _mend_of_flow(problem: str, opened: int, last: str, *, same_line: bool) -> str:
    """The same inside of braces or brackets that line ``opened`` opens; ``last`` is the character before."""
    closing = problem.removeprefix("expected ',' or ")[1:2]
    opening = "{" if closing == "}" else "["
    if problem.endswith(("'}'", "']'")):
        return f"the {opening} in line {opened} is still open: write {closing} before this bracket or take it out"
    if problem.endswith("'<stream end>'"):
        return f"the {opening} in line {opened} is not closed: write {closing} where it ends"
    if same_line and (last == "}" or (problem.endswith("'{'") and last.isalnum())):
        return "put words with braces in quotes, as 'A{n:02}'"
    if same_line:
        return "a comma, a closing bracket or quotes are missing before this"
    return f"the {opening} in line {opened} is not closed: write {closing} where it ends (or a comma here)"


def _compose(events: Iterable[Event], name: str) -> _Node:
    """First pass: events to nodes, with a stack of open collections."""
    stack: list[_Node] = []
    anchors: dict[str, _Node] = {}
    open_anchors: list[str | None] = []
    root: _Node | None = None
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent) and root is not None:
            raise UnreadableInput(f"{name}:{line}: a second document starts here; a site is one document, remove '---'")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            _refuse_tag(event, name, line)
            if len(stack) >= MAX_DEPTH:
                raise UnreadableInput(f"{name}:{line}: nested deeper than {MAX_DEPTH}; a site file is flat")
            stack.append(_Node("map" if isinstance(event, MappingStartEvent) else "list", [], line))
            open_anchors.append(event.anchor)
            continue
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            node, anchor = _close(stack.pop(), name), open_anchors.pop()
        elif isinstance(event, ScalarEvent):
            _refuse_tag(event, name, line)
            node, anchor = _Node("scalar", _scalar(event), line), event.anchor
        elif isinstance(event, AliasEvent):
            node, anchor = _aliased(event, anchors, name, line), None
        else:
            continue
        if anchor is not None:
            anchors[anchor] = node
        if not stack:
            root = node
            continue
        stack[-1].value.append(node)
        stack[-1].size += node.size
        stack[-1].depth = max(stack[-1].depth, node.depth + 1)
        if stack[-1].depth > MAX_DEPTH:
            raise UnreadableInput(f"{name}:{line}: nested deeper than {MAX_DEPTH}; a site file is flat")
        if stack[-1].size > MAX_VALUES:
            raise UnreadableInput(f"{name}:{line}: more than {MAX_VALUES} values; use station_groups")
    return root if root is not None else _Node("scalar", None, 1)


def _refuse_tag(event: ScalarEvent | MappingStartEvent | SequenceStartEvent, name: str, line: int) -> None:
    tag = str(event.tag) if event.tag is not None else ""
    if tag not in ("", "!"):
        raise UnreadableInput(f"{name}:{line}: the tag {tag} means nothing in a site file; remove it")


def _aliased(event: AliasEvent, anchors: dict[str, _Node], name: str, line: int) -> _Node:
    if event.anchor not in anchors:
        raise UnreadableInput(f"{name}:{line}: *{event.anchor} refers to nothing; define &{event.anchor} before it")
    node = anchors[event.anchor]
    return _Node(node.kind, node.value, line, node.size, node.depth)


def _close(node: _Node, name: str) -> _Node:
    """Pair up keys and values of a finished mapping, merge keys (``<<``) last."""
    if node.kind == "list":
        return node
    pairs: list[tuple[str, int, _Node]] = []
    merged: list[tuple[str, int, _Node]] = []
    for key, value in zip(node.value[::2], node.value[1::2], strict=True):
        if key.kind != "scalar":
            raise UnreadableInput(f"{name}:{key.line}: a key must be one word")
        word = "null" if key.value is None else str(key.value)
        (merged if word == "<<" else pairs).append((word, key.line, value))
    own = {word for word, _, _ in pairs}
    for _, line, value in merged:
        for source in value.value if value.kind == "list" else [value]:
            if source.kind != "map":
                raise UnreadableInput(f"{name}:{line}: << takes a mapping, e.g. <<: *defaults")
            new = [(word, line, item) for word, _, item in source.value if word not in own]
            own.update(word for word, _, _ in new)
            pairs.extend(new)
    return _Node("map", pairs, node.line, node.size, node.depth)


def _scalar(event: ScalarEvent) -> Any:
    """A scalar by the YAML 1.2 core schema; what is quoted is a word."""
    text = str(event.value)
    if event.style or event.tag is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text) or text in (".nan", ".NaN", ".NAN"):
        return float(text.replace(".", "", 1))
    return text


def _flatten(node: _Node, line: int, path: Path, repeated: list[tuple[Path, int]]) -> tuple[Any, Place]:
    """Second pass: nodes to plain data and places; no deeper than ``MAX_DEPTH``, aliases included."""
    if node.kind == "scalar":
        return node.value, Place(line)
    if node.kind == "list":
        items = [_flatten(item, item.line, (*path, index), repeated) for index, item in enumerate(node.value)]
        return [value for value, _ in items], Place(line, [place for _, place in items])
    mapping: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for key, key_line, item in node.value:
        if key in mapping:
            repeated.append(((*path, key), key_line))
        else:
            mapping[key], places[key] = _flatten(item, key_line, (*path, key), repeated)
    return mapping, Place(line, places)
