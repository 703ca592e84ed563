"""The picture exists, in the format asked for, and shows the tightest ratings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from powerd.errors import UnreadableInput
from powerd.sim.plant import Series
from powerd.sim.plot import SHOWN, _tightest, draw_run
from tests.sim.scenes import START


def _series(ratings: int = 6, steps: int = 50) -> Series:
    rng = np.random.default_rng(1)
    loading = rng.uniform(0, 90, (steps, ratings)).astype(np.float32)
    loading[-1:, 2:3] = 130.0
    loading[:, 5:] = loading[:, 2:3]
    return Series(
        start_s=np.arange(steps) * 600,
        seconds=np.full(steps, 600),
        site_kw=rng.uniform(0, 100, steps),
        loading_percent=loading,
        plugged=rng.integers(5, 9, steps),
        charging=rng.integers(0, 5, steps),
    )


Told = Sequence[tuple[float, str]]


def _draw(path: Path, series: Series, *, marks: Told = (), movements: Told = ()) -> None:
    names = tuple(f"rating <{k}>" for k in range(series.loading_percent.shape[1]))
    draw_run(
        path,
        series=series,
        names=names,
        transformer_kva=80.0,
        start=START,
        timezone=ZoneInfo("America/Los_Angeles"),
        title="a run",
        marks=marks,
        movements=movements,
    )


def test_png_and_svg_are_written_and_equal_runs_give_equal_pictures(tmp_path: Path) -> None:
    """The suffix says the format; a picture holds no time of its making."""
    _draw(tmp_path / "a.png", _series())
    _draw(tmp_path / "b.png", _series())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    _draw(tmp_path / "a.svg", _series())
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_what_follows_an_event_is_drawn_from_near(tmp_path: Path) -> None:
    """The words of the event and of each switch that moved within two minutes are there; later ones are not."""
    series = _series(steps=400)
    series = replace(series, start_s=np.arange(400), seconds=np.ones(400, np.int64))
    movements = [(102.5, "main-a opens"), (104.0, "tie closes"), (300.0, "tie opens")]
    _draw(tmp_path / "a.svg", series, marks=[(100, "T1 lost")], movements=movements)
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for words in ("seconds after: T1 lost", "main-a opens", "tie closes"):
        assert f"<!-- {words} -->" in drawn
    assert "tie opens" not in drawn


def test_an_event_far_away_takes_no_room_of_the_one_from_near(tmp_path: Path) -> None:
    """Its words are outside of that panel; with them in it nothing of the layout was left, said matplotlib."""
    series = replace(_series(steps=4000), start_s=np.arange(4000), seconds=np.ones(4000, np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _draw(tmp_path / "a.png", series, marks=[(100, "T1 lost"), (3700, "T1 is back")])
    assert (tmp_path / "a.png").stat().st_size > 0


def test_the_tightest_are_shown_once_each() -> None:
    """The overloaded rating comes first; one with the same course is left out."""
    shown = _tightest(_series())
    assert shown[0] == 2
    assert 5 not in shown
    assert len(shown) == SHOWN


def test_a_site_without_ratings_still_has_a_picture(tmp_path: Path) -> None:
    """No rating, no transformer: power and cars are drawn."""
    _draw(tmp_path / "a.png", _series(ratings=0, steps=1))
    assert (tmp_path / "a.png").stat().st_size > 5_000


@pytest.mark.parametrize(("name", "said"), [("a.gif", "end the name"), ("missing/a.png", "cannot be written")])
def test_a_bad_path_is_named_with_a_mend(name: str, said: str, tmp_path: Path) -> None:
    """Neither a strange suffix nor a missing folder ends in a traceback."""
    with pytest.raises(UnreadableInput, match=said):
        _draw(tmp_path / name, _series())
