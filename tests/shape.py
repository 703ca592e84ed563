"""Measures of the code's shape: how long functions are, and what is said about them.

The bounds are those that the packages we found easiest to read meet unasked: nine functions of ten within 30 lines,
none above 70. A function compiled by numba cannot always be split, so it may be longer where its ``def`` says why.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST = 70
NINE_OF_TEN = 30

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One module, read and parsed."""

    name: str
    """Path relative to the project."""
    text: str
    """As it stands in the file."""
    tree: ast.Module
    """Its syntax tree."""


def sources(root: Path, folder: str) -> list[Source]:
    """All modules under ``root/folder``, without the generated ones."""
    paths = sorted(path for path in (root / folder).rglob("*.py") if "powerd/v1" not in path.as_posix())
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return [Source(name=name, text=text, tree=ast.parse(text)) for name, text in texts.items()]


def length(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def functions(source: Source) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(source.tree) if isinstance(node, FUNCTION))


def ninth_decile(modules: list[Source]) -> float:
    """The length that nine functions of ten stay within [lines]."""
    lengths = [length(function) for source in modules for function in functions(source)]
    return statistics.quantiles(lengths, n=10)[8] if len(lengths) > 1 else float(sum(lengths))


def too_long(source: Source) -> Iterator[str]:
    """Functions above LONGEST, but for compiled ones that say why on their ``def`` or decorator."""
    for function in functions(source):
        if length(function) > LONGEST and not _excused(source, function):
            yield f"{source.name}:{function.lineno}: {function.name} has {length(function)} lines, above {LONGEST}"


def _excused(source: Source, function: Function) -> bool:
    """Whether numba compiles the function and a comment in its head gives a reason."""
    compiled = any("njit" in ast.unparse(decorator) for decorator in function.decorator_list)
    if not compiled:
        return False
    first = min(decorator.lineno for decorator in function.decorator_list)
    head = "\n".join(source.text.splitlines()[first - 1 : function.body[0].lineno - 1])
    reasons = [token.string for token in _tokens(head) if token.type == tokenize.COMMENT]
    return any(len(reason.strip("# ")) >= 10 for reason in reasons)


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    """Tokens of a piece of source, as far as it can be read."""
    found: list[tokenize.TokenInfo] = []
    reader = tokenize.generate_tokens(io.StringIO(text).readline)
    try:
        found.extend(reader)
    except (tokenize.TokenError, IndentationError):  # the piece ends in the middle of a block
        return found
    return found


def undocumented(source: Source) -> Iterator[str]:
    """Modules, public classes and public functions without a docstring."""
    if not ast.get_docstring(source.tree):
        yield f"{source.name}:1: the module has no docstring"
    yield from _undocumented(source.name, source.tree)


def _undocumented(name: str, scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """What is public directly in ``scope``, and in its classes, without a docstring."""
    for node in scope.body:
        if not isinstance(node, (*FUNCTION, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not _repeats(node):
            yield f"{name}:{node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(name, node)


def _repeats(node: Function | ast.ClassDef) -> bool:
    """Overloads and setters are documented where the thing itself is."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(name.endswith((".setter", "overload")) for name in decorators)


def unannotated(source: Source) -> Iterator[str]:
    """Arguments without a type."""
    for function in functions(source):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in every:
            if argument is not None and argument.annotation is None and argument.arg not in {"self", "cls"}:
                yield f"{source.name}:{argument.lineno}: {function.name}({argument.arg}) has no type"


def unclaimed(source: Source) -> Iterator[str]:
    """Tests whose docstring does not state what they prove."""
    for function in functions(source):
        if function.name.startswith("test_") and not ast.get_docstring(function):
            yield f"{source.name}:{function.lineno}: {function.name} states no claim"


def left_over(source: Source) -> Iterator[str]:
    """Tests that are switched off, stubs, notes to self, and exceptions caught wholesale."""
    for node in ast.walk(source.tree):
        what = _left_over(node)
        if what:
            yield f"{source.name}:{getattr(node, 'lineno', 1)}: {what}"
    for token in _tokens(source.text):
        if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string):
            yield f"{source.name}:{token.start[0]}: a note to self: {token.string}"


def _left_over(node: ast.AST) -> str | None:
    """What is wrong with one node, None where nothing is."""
    if isinstance(node, ast.Attribute) and ast.unparse(node) in _SWITCHED_OFF:
        return "a test is switched off"
    if isinstance(node, ast.Name) and node.id == "NotImplementedError":
        return "a stub"
    if isinstance(node, ast.ExceptHandler):
        caught = "" if node.type is None else ast.unparse(node.type)
        if caught in {"", "Exception", "BaseException"} and not _raises_again(node):
            return "catches everything: name the exceptions"
    return None


_SWITCHED_OFF = tuple(
    f"pytest.{how}" for how in ("skip", "xfail", "mark.skip", "mark.skipif", "mark.xfail", "importorskip")
)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """A handler that cleans up and passes the exception on swallows nothing."""
    return isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
