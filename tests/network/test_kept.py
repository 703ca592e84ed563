"""Columns kept between starts: the same bits, never for another question, and a start that reads no site file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from powerd.errors import SiteRefused
from powerd.network import kept, load
from powerd.network.kept import cache_folder, load_electrical
from tests.control.garage import site_text
from tests.test_codec import same

MODELS = Path(__file__).parents[2] / "models"
NOT_NEEDED = (
    "pydantic",
    "ruamel.yaml",
    "pandapower",
    "pandas",
    "cvxpy",
    "matplotlib",
    "scipy.optimize",
    "scipy.linalg",
    "networkx",
)
"""A warm start has no use for these: together they take longer to import than a restart may last."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site file of four posts."""
    file = tmp_path / "site.yaml"
    file.write_text(site_text(4, 50.0), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where columns are kept."""
    found = tmp_path / "kept"
    found.mkdir()
    return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every site file that was really read."""
    read: list[Path] = []
    real = load.load_site

    def noted(path: Path) -> load.LoadedSite:
        read.append(path)
        return real(path)

    monkeypatch.setattr(load, "load_site", noted)
    return read


@pytest.mark.parametrize("name", sorted(own.parent.name for own in MODELS.glob("*/site.yaml")))
def test_what_is_kept_is_what_was_loaded(name: str, folder: Path, loads: list[Path]) -> None:
    """Each of the house's sites comes back bit by bit, and its files are read once."""
    first, second = (load_electrical(MODELS / name, None, folder) for _ in range(2))
    assert same(first, second)
    assert len(loads) == 1


def test_another_question_is_loaded(site: Path, folder: Path, loads: list[Path]) -> None:
    """A changed file, another cap and a folder that is not asked each load the site anew, with their own answers."""
    before = load_electrical(site, None, folder)
    site.write_text(site_text(4, 60.0), encoding="utf-8")
    assert not same(load_electrical(site, None, folder), before)
    garage = MODELS / "caltech_garage"
    caps = [load_electrical(garage, cap, folder).branches.capacity_from_a for cap in (40.0, 50.0, 40.0)]
    assert np.array_equal(caps[0], caps[2], equal_nan=True)
    assert not np.array_equal(caps[0], caps[1], equal_nan=True)
    load_electrical(site, None, None)
    assert len(loads) == 5


def test_a_changed_net_is_loaded(folder: Path, tmp_path: Path, loads: list[Path]) -> None:
    """Of a site with an imported net both files count."""
    model = next(own.parent for own in MODELS.glob("*/net.json"))
    for own in model.iterdir():
        if own.is_file():
            (tmp_path / own.name).write_bytes(own.read_bytes())
    load_electrical(tmp_path, None, folder)
    net = tmp_path / "net.json"
    net.write_text(net.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    load_electrical(tmp_path, None, folder)
    assert len(loads) == 2


def test_other_sources_load_anew(site: Path, folder: Path, loads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What another version of powerd kept does not count."""
    load_electrical(site, None, folder)
    monkeypatch.setattr(kept, "digest_of", lambda _: "others")
    load_electrical(site, None, folder)
    assert len(loads) == 2


def test_a_wrong_byte_is_loaded_over(site: Path, folder: Path, loads: list[Path]) -> None:
    """Wherever a kept file is damaged or cut off, the site is loaded from its own file, and kept again."""
    whole = load_electrical(site, None, folder)
    (place,) = folder.glob("*.site")
    data = place.read_bytes()
    spoilt = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), len(data) // 40)]
    for bad in [*spoilt, data[:20], b"", data[:-1]]:
        place.write_bytes(bad)
        assert same(load_electrical(site, None, folder), whole)
        assert place.read_bytes() == data
    assert len(loads) == 1 + len(spoilt) + 3


def test_a_faulty_site_is_never_kept(site: Path, folder: Path) -> None:
    """A site that has faults is refused each time; its columns are nowhere."""
    site.write_text(site.read_text(encoding="utf-8").replace("type: t", "type: nobody"), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(SiteRefused):
            load_electrical(site, None, folder)
    assert list(folder.iterdir()) == []


def test_old_ones_make_room(site: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder does not grow for ever, and the newest stays."""
    monkeypatch.setattr(kept, "SITES_KEPT", 2)
    for nth in range(4):
        other = site.parent / f"{nth}.yaml"
        other.write_text(site.read_text(encoding="utf-8"), encoding="utf-8")
        load_electrical(other, None, folder)
        os.utime(max(folder.glob("*.site"), key=lambda own: own.stat().st_mtime_ns), (nth, nth))
    assert len(list(folder.glob("*"))) == 2


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write there could raise limits: then nothing is kept, and without a home neither."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / "powerd"
    folder.chmod(0o770)
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cache_folder() is None


def test_a_warm_start_imports_no_reader(site: Path, folder: Path) -> None:
    """Once kept, the daemon's own imports and the site take nothing that reads, checks or draws sites."""
    load_electrical(site, None, folder)
    script = (
        "import sys; from pathlib import Path; from powerd.daemon import load_electrical;"
        "load_electrical(Path(sys.argv[1]), None, Path(sys.argv[2])); print(*sys.modules)"
    )
    command = [sys.executable, "-c", script, str(site), str(folder)]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "powerd.daemon" in modules
    assert set(NOT_NEEDED) & set(modules) == set()
