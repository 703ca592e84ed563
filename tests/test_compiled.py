"""How kernels are loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from powerd import compiled

SCRIPT = """
import sys
from powerd.compiled import load_types
from powerd.state.lease_kernels import margin
load_types()
assert margin(100.0) == 5.0
print(*sys.modules)
import scipy.linalg, cffi
"""


def test_the_types_are_loaded_without_what_no_kernel_needs() -> None:
    """A kernel runs after ``load_types`` without BLAS and C parser, which others can import afterwards."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert {"scipy.linalg", "cffi", "pycparser"} & set(ran.stdout.split()) == set()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A house of three rooms: ``tick`` imports from ``paper``, that from ``words``; ``other`` is nobody's."""
    root = tmp_path / compiled.HOUSE.name
    for name, text in {
        "tick/step.py": "from powerd.paper import book\n",
        "paper/book.py": "def f():\n    import powerd.words\n",
        "words.py": "SHARE = 0.1\n",
        "other.py": "SHARE = 0.1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(compiled, "HOUSE", root)
    return root


@pytest.mark.parametrize(("touched", "stale"), [("tick/step.py", True), ("words.py", True), ("other.py", False)])
def test_what_a_kernel_was_compiled_from_is_all_that_its_module_imports(
    house: Path, touched: str, *, stale: bool
) -> None:
    """Machine code is thrown away when a constant two rooms below changes, and kept when another module does."""
    before = _digest(house)
    (house / touched).write_text("SHARE = 0.2\nfrom powerd.paper import book\n", encoding="utf-8")
    assert (_digest(house) != before) is stale


def _digest(house: Path) -> str:
    """As a process that has just started would have it."""
    for remembered in (compiled.digest_of, compiled._imported_by, compiled._text_of):
        remembered.cache_clear()
    return compiled.digest_of(house / "tick" / "step.py")
