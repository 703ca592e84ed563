"""buf keeps the API's style and its compatibility, and notices a breach."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).parent / "buf"
RELEASED = ROOT / "protos" / "released.binpb"
FIELD = re.compile(r"^  (?:repeated |optional )?[\w.]+ \w+ = \d+;\n", re.MULTILINE)


def _buf(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *arguments], cwd=where, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The API by itself, free to be broken."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    return tmp_path


def _file_with_fields(copy: Path) -> Path:
    return next(path for path in sorted(copy.rglob("*.proto")) if FIELD.search(path.read_text(encoding="utf-8")))


def test_the_api_keeps_the_style() -> None:
    """buf lint finds nothing in protos/."""
    result = _buf(ROOT, "lint")
    assert (result.returncode, result.stdout) == (0, "")


def test_the_api_breaks_no_released_client() -> None:
    """buf breaking finds nothing against the released API."""
    result = _buf(ROOT, "breaking", "--against", str(RELEASED))
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_a_deleted_field_is_a_breach(copy: Path) -> None:
    """Against the released API, a message that lost a field fails, and the message is named."""
    path = _file_with_fields(copy)
    text = path.read_text(encoding="utf-8")
    path.write_text(FIELD.sub("", text, count=1), encoding="utf-8")
    assert _buf(copy, "build").returncode == 0
    result = _buf(copy, "breaking", "--against", str(RELEASED))
    assert result.returncode != 0
    assert "was deleted" in result.stdout


def test_a_renumbered_field_is_a_breach(copy: Path) -> None:
    """A field that takes another number fails against the released API."""
    path = _file_with_fields(copy)
    text = path.read_text(encoding="utf-8")
    field = next(FIELD.finditer(text)).group()
    path.write_text(text.replace(field, re.sub(r"= \d+;", "= 15999;", field), 1), encoding="utf-8")
    assert _buf(copy, "build").returncode == 0
    assert _buf(copy, "breaking", "--against", str(RELEASED)).returncode != 0


def test_an_uncommented_field_is_bad_style(copy: Path) -> None:
    """A field that does not say what it means fails the lint."""
    path = _file_with_fields(copy)
    text = path.read_text(encoding="utf-8")
    first_message = re.search(r"^message \w+ \{\n", text, re.MULTILINE)
    assert first_message is not None
    planted = f"{first_message.group()}  string planted = 15999;\n"
    path.write_text(text.replace(first_message.group(), planted, 1), encoding="utf-8")
    result = _buf(copy, "lint")
    assert result.returncode != 0
    assert "planted" in result.stdout
