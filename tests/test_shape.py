"""The code keeps its shape: short functions, a docstring on all that is public, a type on every argument."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import shape
from tests.shape import Source

ROOT = Path(__file__).resolve().parent.parent
OURS = shape.sources(ROOT, "powerd")
TESTS = shape.sources(ROOT, "tests")

Rule = Callable[[Source], Iterator[str]]


def test_nine_functions_of_ten_are_short() -> None:
    """The ninth decile of function lengths stays within 30 lines."""
    assert shape.ninth_decile(OURS) <= shape.NINE_OF_TEN


@pytest.mark.parametrize("rule", [shape.too_long, shape.undocumented, shape.unannotated, shape.left_over])
def test_powerd_keeps_the_rule(rule: Rule) -> None:
    """No function above 70 lines, nothing public without a docstring, no argument without a type, nothing left over."""
    assert [offence for source in OURS for offence in rule(source)] == []


@pytest.mark.parametrize("rule", [shape.too_long, shape.unannotated, shape.unclaimed, shape.left_over])
def test_the_tests_keep_the_rule(rule: Rule) -> None:
    """Tests are short, typed and switched on, and each states its claim."""
    assert [offence for source in TESTS for offence in rule(source)] == []


def test_nothing_points_outside_of_the_project() -> None:
    """No file names a folder that a clone would not have."""
    outside = ("/wo" + "rk/", "../sha" + "red")
    folders = ("powerd", "tests", "protos", "models", "docs", "bench", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]  # a worktree's .git is a file
    texts = {path: path.read_bytes() for path in files if path.suffix not in {".pyc", ".nbi", ".nbc"}}
    assert [path for path, text in texts.items() if any(word.encode() in text for word in outside)] == []


def _source(text: str) -> Source:
    return Source(name="planted.py", text=text, tree=ast.parse(text))


def _body(lines: int) -> str:
    return "\n".join(["    x = 0"] * lines) + "\n"


OFFENDERS = {
    "long": (shape.too_long, "def f():\n" + _body(71)),
    "long and async, in a class": (shape.too_long, "class A:\n  async def f():\n" + _body(71)),
    "compiled without a reason": (shape.too_long, "@njit(cache=True)\ndef f():\n" + _body(71)),
    "a reason alone": (shape.too_long, "def f():  # one loop over the tree\n" + _body(71)),
    "no module docstring": (shape.undocumented, "x = 1\n"),
    "no function docstring": (shape.undocumented, '"""M."""\ndef f(): ...\n'),
    "no class docstring": (shape.undocumented, '"""M."""\nclass A: ...\n'),
    "no method docstring": (shape.undocumented, '"""M."""\nclass A:\n    """A."""\n    def f(self): ...\n'),
    "no type": (shape.unannotated, "def f(a): ...\n"),
    "no type, keyword": (shape.unannotated, "def f(self, *, a=1): ...\n"),
    "no type, starred": (shape.unannotated, "async def f(*rest): ...\n"),
    "no claim": (shape.unclaimed, "def test_a(): assert True\n"),
    "switched off": (shape.left_over, "@pytest.mark.skip\ndef test_a(): ...\n"),
    "switched off inside": (shape.left_over, "def test_a():\n    pytest.skip('later')\n"),
    "stub": (shape.left_over, "def f():\n    raise NotImplementedError\n"),
    "note": (shape.left_over, "x = 1  # TO" + "DO: y\n"),
    "catch-all": (shape.left_over, "try:\n    f()\nexcept Exception:\n    x = 1\n"),
    "bare catch-all": (shape.left_over, "try:\n    f()\nexcept:\n    pass\n"),
}


@pytest.mark.parametrize("case", OFFENDERS)
def test_a_planted_offender_is_caught(case: str) -> None:
    """Each breach is found by its rule, once."""
    rule, text = OFFENDERS[case]
    assert len(list(rule(_source(text)))) == 1


ADMITTED = {
    "70 lines": (shape.too_long, 'def f():\n    """Doc\n\n    of some lines.\n    """\n' + _body(70)),
    "compiled with a reason": (shape.too_long, "@njit(cache=True)\ndef f():  # one loop over the tree\n" + _body(71)),
    "private": (shape.undocumented, '"""M."""\ndef _f(): ...\nclass _A:\n    def f(self): ...\n'),
    "typed": (shape.unannotated, "class A:\n    def f(self, a: int, *b: int, **c: int) -> None: ...\n"),
    "claim": (shape.unclaimed, 'def test_a():\n    """A holds."""\n'),
    "passes on": (shape.left_over, "try:\n    f()\nexcept BaseException:\n    g()\n    raise\n"),
}


@pytest.mark.parametrize("case", ADMITTED)
def test_what_is_admitted_is_left_alone(case: str) -> None:
    """The rules do not fire beside their aim."""
    rule, text = ADMITTED[case]
    assert list(rule(_source(text))) == []


def test_the_decile_sees_long_functions() -> None:
    """Two functions of 40 lines among ten push the ninth decile above 30."""
    long_ones = [_source("def f():\n" + _body(40))] * 2
    short_ones = [_source("def f():\n" + _body(3))] * 8
    assert shape.ninth_decile(short_ones + long_ones) > shape.NINE_OF_TEN
    assert shape.ninth_decile(short_ones * 2) <= shape.NINE_OF_TEN
