"""``protos/generate.py`` makes a package that imports, follows its sources, and refuses what protoc refuses."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROTO = """
syntax = "proto3";
package powerd.v1;
import "google/protobuf/timestamp.proto";
import "google/rpc/status.proto";
message Word { google.rpc.Status status = 1; google.protobuf.Timestamp at_time = 2; }
service WordService { rpc Say(Word) returns (stream Word); }
"""
USE = """
from powerd.v1 import word_pb2, word_pb2_grpc
word = word_pb2.Word(status={"code": 3})
assert word_pb2.Word.FromString(word.SerializeToString()).status.code == 3
assert word_pb2_grpc.WordServiceStub
"""


@pytest.fixture(scope="module")
def generate() -> Callable[[Path], list[Path]]:
    """The function that the build hook calls."""
    function: Callable[[Path], list[Path]] = runpy.run_path(str(ROOT / "protos/generate.py"))["generate"]
    return function


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project with one .proto that imports what ours may import."""
    folder = tmp_path / "protos/powerd/v1"
    folder.mkdir(parents=True)
    (folder / "word.proto").write_text(PROTO, encoding="utf-8")
    (tmp_path / "powerd").mkdir()
    (tmp_path / "powerd/__init__.py").touch()
    return tmp_path


def test_the_package_imports(tree: Path, generate: Callable[[Path], list[Path]]) -> None:
    """Messages, services and stubs of both are written as ``powerd.v1``, google.rpc included, and nothing else is."""
    names = sorted(path.relative_to(tree).as_posix() for path in generate(tree))
    stem = "powerd/v1/word_pb2"
    assert names == ["powerd/v1/__init__.py", f"{stem}.py", f"{stem}.pyi", f"{stem}_grpc.py", f"{stem}_grpc.pyi"]
    assert sorted(path.name for path in tree.iterdir()) == ["powerd", "protos"]
    subprocess.run([sys.executable, "-c", USE], cwd=tree, check=True)


def test_what_has_no_source_is_removed(tree: Path, generate: Callable[[Path], list[Path]]) -> None:
    """After a .proto was renamed, nothing of its old name is left."""
    generate(tree)
    source = tree / "protos/powerd/v1/word.proto"
    source.rename(source.with_name("phrase.proto"))
    written = generate(tree)
    assert sorted((tree / "powerd/v1").iterdir()) == written
    assert {path.name for path in written} >= {"phrase_pb2.py"}


def test_a_broken_source_is_refused(tree: Path, generate: Callable[[Path], list[Path]]) -> None:
    """protoc's refusal ends the build with the mend, and leaves the former code in place."""
    before = generate(tree)
    (tree / "protos/powerd/v1/word.proto").write_text(PROTO.replace("= 1;", "= one;"), encoding="utf-8")
    with pytest.raises(SystemExit, match="was not generated"):
        generate(tree)
    assert sorted((tree / "powerd/v1").iterdir()) == before
