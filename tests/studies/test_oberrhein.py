"""pandapower's mv_oberrhein with charging stations, as a site that studies can play."""

from __future__ import annotations

import pytest

from powerd.network.load import load_site
from powerd.studies.outages import Study
from tests.studies.oberrhein import write


@pytest.fixture(scope="module")
def oberrhein(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A full house on it, steady."""
    return Study(load_site(write(tmp_path_factory.mktemp("oberrhein"))))


def test_it_is_the_net_that_ships_with_pandapower(oberrhein: Study) -> None:
    """322 switches, two transformers and two supplies of its own; 25 stations of ten posts are ours."""
    names = [element.name for element in oberrhein.elements]
    assert sum(name.startswith("s") and not name.startswith("station") for name in names) == 322
    assert {"t114", "t142", "grid0", "grid1"} <= set(names)
    assert oberrhein.electrical.posts.count == 250
