"""Reading: whatever the bytes, either a place and a mend or data with the right lines; never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerd.errors import UnreadableInput
from powerd.site.read import read_site
from powerd.site.tree import parse

BASE = (Path(__file__).parent / "cases" / "base.yaml").read_text(encoding="utf-8")

#: What YAML is made of: more of its corners than plain text has.
yamlish = st.text("{}[]:,-?!&*|>'\"%@`#~<=+ \n\tab10.\\", max_size=40)
words = st.text(st.characters(min_codepoint=32, max_codepoint=126))
numbers = st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | words
plain_data = st.dictionaries(
    st.text("abcdefgh_", min_size=1),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("xyz", min_size=1), inner),
        max_leaves=12,
    ),
    max_size=5,
)


def refusal(read: Callable[[], object]) -> str:
    """What reading raises; "" where it does not."""
    try:
        read()
    except UnreadableInput as refused:
        return str(refused)
    return ""


def write(folder: Path, content: bytes) -> Path:
    path = folder / "site.yaml"
    path.write_bytes(content)
    return path


@given(plain_data, st.sampled_from([None, 2]))
def test_json_comes_back_as_it_was(data: dict[str, object], indent: int | None) -> None:
    """JSON is YAML: what the standard library writes is read as what it was."""
    assert parse(json.dumps(data, indent=indent), "f").value == data


@given(st.text() | yamlish)
@settings(max_examples=300)
@example("a: &x [*x]")
@example("a: *nowhere")
@example("%YAML 9.9\n---\na: 1")
@example("a: !!python/object:os.system [x]")
@example("? [1, 2]\n: 3")
@example("a: 1\n---\nb: 2")
@example("<<: 5")
@example("- " * 2000)
@example("[" * 2000)
@example("\t- x")
@example("a: 1" + "0" * 5000)
@example("a: \x00")
def test_any_text_is_parsed_or_refused_with_its_place(text: str) -> None:
    """No text raises anything but UnreadableInput, whose message begins with the file."""
    told = refusal(lambda: parse(text, "garage.yaml"))
    assert not told or told.startswith("garage.yaml")


@given(st.binary(max_size=200), st.integers(0, len(BASE)))
def test_any_bytes_in_a_site_file_are_told(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    """A valid site with bytes pushed in anywhere gives faults or UnreadableInput."""
    path = write(tmp_path_factory.mktemp("junk"), BASE[:at].encode() + junk + BASE[at:].encode())
    told = refusal(lambda: read_site(path))
    assert told.startswith(str(path)) or all(fault.line >= 1 for fault in read_site(path).faults)


def test_an_alias_bomb_is_refused() -> None:
    """Nine levels of nine aliases are a thousand million values: refused before they are made."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(UnreadableInput, match="more than"):
        parse("\n".join(levels), "bomb.yaml")


def test_a_chain_of_aliases_cannot_nest_without_end() -> None:
    """Depth counts through aliases."""
    levels = ["a0: &a0 [x]", *(f"a{n}: &a{n} [[*a{n - 1}]]" for n in range(1, 400))]
    with pytest.raises(UnreadableInput, match="nested deeper"):
        parse("\n".join(levels), "deep.yaml")


def test_merge_keys_fill_in_and_never_overwrite() -> None:
    """``<<`` brings what is missing; what is written beside it wins."""
    tree = parse("d: &d {x: 1, y: 2}\na: {<<: *d, y: 3}\nb: {<<: [*d, {z: 4}]}\n", "f")
    assert tree.value["a"] == {"x": 1, "y": 3}
    assert tree.value["b"] == {"x": 1, "y": 2, "z": 4}
    assert tree.repeated == ()


def test_yes_and_no_are_words() -> None:
    """The core schema of YAML 1.2: only true and false are truth values, and a time is a word."""
    assert parse("[yes, off, 08:30, true, ~, 0400, 4e2, .inf]", "f").value == [
        "yes", "off", "08:30", True, None, 400, 400.0, float("inf"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"just words", "starts with keys"),
        (b"", "nothing is written in it; begin with"),
        (b"# later\n", "nothing is written in it; begin with"),
        (b"a: b: c", r"yaml:1:5: not YAML: .*; look at the indentation"),
        (b"a: {b: 1 c: 2}", r"yaml:1:11: not YAML: .*; a comma, a closing bracket or quotes"),
        (b"a: {b: A{n}}", r"yaml:1:9: not YAML: .*; put words with braces in quotes"),
        (b"a: {b: {n}-A}", r"yaml:1:11: not YAML: .*; put words with braces in quotes"),
        (b"a:\n  - {b: 1\n  - {b: 2}", r"yaml:3:5: not YAML: .*; the { in line 2 is not closed: write } where"),
        (b"a: [{b: 1}\nc: 2", r"yaml:2:1: not YAML: .*; the \[ in line 1 is not closed: write \] where"),
        (b"a:\n  - {b: 1", r"yaml:2:10: not YAML: .*; the { in line 2 is not closed: write } where it ends$"),
        (b"a: [{b: 1}", r"yaml:1:11: not YAML: .*; the \[ in line 1 is not closed: write \] where it ends$"),
        (
            b"a: [{b: 1}}]",
            r"yaml:1:11: not YAML: .*; the \[ in line 1 is still open: write \] before .* or take it out",
        ),
        (b"a:\n  - {b: [1, 2}\n", r"yaml:2:14: not YAML: .*; the \[ in line 2 is still open: write \] before this"),
        (b"a: {b: 1}}\n", r"yaml:1:10: not YAML: .*; nothing is open that this bracket could close"),
        (b'a: "b\nc: 1\n', r"yaml:3:1: not YAML: .*; the quotes that line 1 opens are never closed"),
        (rb'a: "b\q"', r"yaml:1:7: not YAML: .*; write \\\\ for a backslash, or put the word in single quotes"),
        (rb'a: "b\xz"', r"yaml:1:8: not YAML: .*; write \\\\ for a backslash"),
        (b"a: 1\nb\n", r"yaml:3:1: not YAML: .*; line 2 has no colon after its key"),
        (b"a: %b\n", r"yaml:1:4: not YAML: .*; put the word in quotes"),
        (b"a:\n  - b: 1\n   - b: 2\n", r"yaml:3:4: not YAML: "),
        (b"a:\n\tb: 1", r"yaml:2:1: not YAML: .*; indent with spaces"),
        (b"- 1", "starts with keys"),
    ],
)
def test_what_is_no_site_file_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    """Not UTF-8, not YAML, not a mapping: one sentence with the place."""
    path = write(tmp_path, content)
    with pytest.raises(UnreadableInput, match=told) as refused:
        read_site(path)
    assert str(refused.value).startswith(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Neither a file nor a folder with site.yaml."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UnreadableInput, match="cannot be read"):
            read_site(path)


def test_a_folder_stands_for_its_site_file(tmp_path: Path) -> None:
    """``powerd check models/garage`` means the site.yaml in there."""
    write(tmp_path, BASE.encode())
    assert read_site(tmp_path).path == tmp_path / "site.yaml"
    assert read_site(tmp_path).faults == ()


def test_every_value_knows_its_line() -> None:
    """Lines are those a person counts in an editor, in block and in flow style."""
    tree = parse("site: x\nbuses:\n  - {id: a,\n     voltage_v: 400}\n  - id: b\n    voltage_v: 10\n", "f")
    assert tree.place.at("buses", 0, "voltage_v") == 4
    assert tree.place.at("buses", 1) == 5
    assert tree.place.at("buses", 1, "voltage_v") == 6
    assert tree.place.at("buses", 1, "nothing") == 5
    assert tree.place.at("nothing") == 1


def test_a_colon_without_its_space_is_told(tmp_path: Path) -> None:
    """``bus:hv`` is one word to YAML, and a person sees a key and its value."""
    path = write(tmp_path, b"site: a\nsupplies:\n  - {id: grid, bus:hv}\n")
    (fault,) = [one for one in read_site(path).faults if one.code == "unknown-key"]
    assert (fault.line, fault.mend) == (3, "write bus: hv, with a space after the colon")
