"""Valid sites with something dropped, retyped, rescaled or renamed: a located fault, or a net that converges."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from powerd.network.electrical import Electrical
from powerd.network.load import LoadedSite, load_site
from powerd.network.loading import ac_loading
from powerd.network.supply import normal_positions
from powerd.site.tree import parse

ROOT = Path(__file__).parents[2]
SITES = [
    ROOT / "tests" / "site" / "cases" / "base.yaml",
    ROOT / "models" / "caltech_garage" / "site.yaml",
    ROOT / "models" / "two_feeder_depot" / "site.yaml",
]
TREES = {path: parse(path.read_text(encoding="utf-8"), str(path)).value for path in SITES}

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.text("abl1{}n: /~", max_size=6),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["id", "bus", "x"]), st.text("ab", max_size=3), max_size=2),
)
FACTORS = st.sampled_from([1e-6, 1e-3, 0.1, 0.5, 2.0, 10.0, 1e3, 1e6, -1.0, 1e300])


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a tree."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from spots(part, (*path, key))


def mutate(data: st.DataObject, tree: Any) -> None:
    """One change somewhere, in place."""
    places = list(spots(tree))
    if not places:
        return
    path = data.draw(st.sampled_from(places))
    *above, key = path
    holder = tree
    for step in above:
        holder = holder[step]
    value = holder[key]
    what = data.draw(st.sampled_from(["drop", "retype", "rescale", "rename", "double"]))
    if what == "drop":
        del holder[key]
    elif what == "rescale" and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = value * data.draw(FACTORS)
    elif what == "rename" and isinstance(holder, dict):
        holder[data.draw(st.sampled_from([f"{key}x", "id", "bus", "closed"]))] = holder.pop(key)
    elif what == "rename" and isinstance(value, str):
        holder[key] = value[:-1]
    elif what == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(value))
    else:
        holder[key] = data.draw(JUNK)


def load_mutant(data: st.DataObject, path: Path, folder: Path, changes: int) -> tuple[LoadedSite, int]:
    """The mutated site as loaded, and how many lines its file has."""
    tree = copy.deepcopy(TREES[path])
    for _ in range(changes):
        mutate(data, tree)
    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = False
    yaml.dump(tree, stream)
    (folder / "site.yaml").write_text(stream.getvalue(), encoding="utf-8")
    return load_site(folder), stream.getvalue().count("\n") + 1


def converges(electrical: Electrical) -> bool:
    """Whether pandapower solves it with typical loads and idle EVSEs."""
    idle = np.zeros(electrical.evse_count)
    flow = ac_loading(electrical, normal_positions(electrical), idle, loads_kw=electrical.loads.typical_kw)
    return bool(np.isfinite(flow.lowest_pu))


def check(loaded: LoadedSite, lines: int) -> None:
    for fault in loaded.faults:
        assert 1 <= fault.line <= lines
        assert fault.element
        assert fault.message
        assert fault.mend
    assert (loaded.electrical is None) == bool(loaded.errors)


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.parent.name)
@settings(max_examples=60)
@given(data=st.data())
def test_mutants_are_told_or_load(tmp_path_factory: pytest.TempPathFactory, path: Path, data: st.DataObject) -> None:
    """One to four changes: never a traceback, every fault with a line of the file and a mend."""
    loaded, lines = load_mutant(data, path, tmp_path_factory.mktemp("mutant"), data.draw(st.integers(1, 4)))
    check(loaded, lines)


@settings(max_examples=30)
@given(data=st.data())
def test_mutants_without_fault_converge(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One change that brings no fault leaves a net that pandapower solves."""
    loaded, lines = load_mutant(data, SITES[0], tmp_path_factory.mktemp("mutant"), 1)
    check(loaded, lines)
    if loaded.electrical is not None and not loaded.faults:
        assert converges(loaded.electrical)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", SITES, ids=lambda path: path.parent.name)
@settings(max_examples=500, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_many_mutants(tmp_path_factory: pytest.TempPathFactory, path: Path, data: st.DataObject) -> None:
    """As above, at length."""
    loaded, lines = load_mutant(data, path, tmp_path_factory.mktemp("mutant"), data.draw(st.integers(1, 4)))
    check(loaded, lines)
    if loaded.electrical is not None and not loaded.faults:
        assert converges(loaded.electrical)
