"""powerd installs into an empty environment, from the source tree, from a wheel and from a source distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.setup

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("powerd", "protos", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")


def _run(*command: str | Path, cwd: Path) -> str:
    """Runs a command that must succeed, away from the checkout and its environment."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    result = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources alone: nothing generated, no repository around them."""
    target = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__", "v1/*_pb2*"))
        else:
            shutil.copy(source, target / part)
    shutil.rmtree(target / "powerd" / "v1", ignore_errors=True)
    return target


@pytest.fixture(scope="module")
def python(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which only ``pip install .`` was said."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder / "env", with_pip=True)
    interpreter = folder / "env" / "bin" / "python"
    _run(interpreter, "-m", "pip", "install", "--quiet", tree, cwd=folder)
    return interpreter


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sources in isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, tree, cwd=folder)
    return next(folder.glob("powerd-*.whl"))


USE = """
import importlib.util, pathlib, sys
import powerd.cli
from powerd.v1 import common_pb2, controller_service_pb2_grpc
assert pathlib.Path(powerd.cli.__file__).is_relative_to(sys.prefix), powerd.cli.__file__
assert importlib.util.find_spec("grpc_tools") is None, "the generator is needed at run time"
"""


def _works(python: Path) -> None:
    """The command, the modules and the generated code are there, away from the checkout."""
    away = python.parents[2]
    _run(python, "-c", USE, cwd=away)
    assert "serve" in _run(python.parent / "powerd", "--help", cwd=away)


def test_pip_install_of_the_tree(python: Path) -> None:
    """``pip install .`` in an empty environment gives a working command and the generated code."""
    _works(python)


def test_the_wheel_installs(python: Path, wheel: Path) -> None:
    """The built wheel replaces the installation of the tree and works as well."""
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel, cwd=wheel.parent)
    _works(python)


def _contents(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("powerd-")}


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    """Code and stubs for every .proto, the marker of a typed package, and nothing beside powerd."""
    names = _contents(wheel)
    stems = [path.stem for path in (ROOT / "protos/powerd/v1").glob("*.proto")]
    assert stems
    endings = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    assert {f"powerd/v1/{stem}{ending}" for stem in stems for ending in endings} <= names
    assert "powerd/py.typed" in names
    assert {name.split("/", maxsplit=1)[0] for name in names} == {"powerd"}


def test_the_source_distribution_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    """A wheel built from the source distribution holds the same files."""
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=tree)
    archive = next(tmp_path.glob("powerd-*.tar.gz"))
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, archive, cwd=tmp_path)
    assert _contents(next(tmp_path.glob("powerd-*.whl"))) == _contents(wheel)
