"""The picture of a run: power against the transformers, loading of the tightest ratings, cars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import matplotlib as mpl

mpl.use("Agg")  # no screen where daemons live

import matplotlib.dates as mdates
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from powerd.errors import UnreadableInput
from powerd.sim.plant import Series

#: How many ratings the middle panel shows.
SHOWN = 4
#: Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
BLUE, RED, GREY, LIGHT = "#0072B2", "#D55E00", "#666666", "#BBD7EA"
RATING_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
GREEN = "#006B4F"
#: What is drawn from near: so long before an event, movements so long after it, and so long after the last of them [s].
BEFORE_S, NEAR_S, AFTER_S = 5.0, 120.0, 45.0
#: So many movements have a line each for their words before these begin at the top again.
LINES = 8
FORMATS = (".png", ".svg", ".pdf")


def draw_run(
    path: Path,
    *,
    series: Series,
    names: tuple[str, ...],
    transformer_kva: float,
    start: datetime,
    timezone: ZoneInfo,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
    movements: Sequence[tuple[float, str]] = (),
) -> None:
    """Writes the picture to ``path``; its suffix says the format.

    Args:
        path: .png, .svg or .pdf.
        series: the run.
        names: (P,) names of the ratings.
        transformer_kva: rating of all transformers together [kVA]; 0 = none.
        start: wall clock at second 0.
        timezone: of the site; the time axis is local.
        title: one line.
        marks: (second of the run, words) of what was lost, came back or tripped: the first of them is also drawn from
            near, beside the whole run.
        movements: (second of the run, words) of switches that moved; drawn there.

    Raises:
        UnreadableInput: the path cannot be written, or its suffix is none of these.
    """
    if path.suffix.lower() not in FORMATS:
        raise UnreadableInput(f"{path}: end the name of a plot in {', '.join(FORMATS)}")
    columns = 2 if marks else 1
    figure, grid = plt.subplots(
        3, columns, sharex="col", sharey="row", squeeze=False, figsize=(12 if columns == 1 else 17, 8),
        height_ratios=(3, 3, 2), width_ratios=(5, 3)[:columns], layout="constrained",
    )  # fmt: skip
    try:
        edges = _edges(series, start, timezone)
        for axes in grid.T:
            _draw_power(axes[0], edges, series, transformer_kva)
            _draw_loading(axes[1], edges, series, names)
            _draw_cars(axes[2], edges, series)
            _draw_marks(axes, edges[0], marks)
        _draw_time(grid[2, 0], edges, timezone)
        if marks:
            _draw_near(list(grid[:, 1]), edges[0], marks[0], movements)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")  # above all columns: it is long
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise UnreadableInput(f"{path}: cannot be written: {error.strerror}; name a folder that exists") from error
    finally:
        plt.close(figure)


def _edges(series: Series, start: datetime, timezone: ZoneInfo) -> npt.NDArray[np.float64]:
    """(T + 1,) times at which values change, as matplotlib dates."""
    seconds = np.append(series.start_s, series.start_s[-1] + series.seconds[-1])
    origin = float(mdates.date2num(start.astimezone(timezone).replace(tzinfo=None)))
    return np.asarray(origin + seconds / 86400.0, dtype=np.float64)


def _held(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The last value once more, so that a step plot reaches its end."""
    return np.append(values, values[-1])


def _draw_power(axis: Axes, edges: npt.NDArray[np.float64], series: Series, transformer_kva: float) -> None:
    axis.fill_between(edges, _held(series.site_kw), step="post", color=LIGHT, linewidth=0)
    axis.step(edges, _held(series.site_kw), where="post", color=BLUE, linewidth=0.8)
    top = float(series.site_kw.max(initial=0.0))
    if transformer_kva > 0.0:
        axis.axhline(transformer_kva, color=RED, linewidth=1.2)
        axis.annotate(
            f"transformer {transformer_kva:g} kVA",
            (1.0, transformer_kva),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            color=RED,
            fontsize=9,
        )
        top = max(top, transformer_kva)
    axis.set_ylim(0, 1.12 * max(top, 1.0))
    axis.set_ylabel("site power [kW]")
    _plain(axis)


def _draw_loading(axis: Axes, edges: npt.NDArray[np.float64], series: Series, names: tuple[str, ...]) -> None:
    loading = series.loading_percent
    tightest = _tightest(series)
    for place, p in enumerate(tightest):
        colour = RATING_COLOURS[place % len(RATING_COLOURS)]
        label = f"{names[p]}  (highest {loading[:, p].max():.0f} %)"
        axis.step(edges, _held(loading[:, p]), where="post", color=colour, linewidth=0.8, label=label)
    axis.axhline(100.0, color=RED, linewidth=1.2)
    top = max(100.0, float(loading.max(initial=0.0)))
    over = loading.max(axis=1, initial=0.0) > 100.0
    if over.any():
        # As a height, not as ``where``: that leaves out the last step of each stretch.
        axis.fill_between(edges, 0, _held(over.astype(np.float64)), step="post", transform=axis.get_xaxis_transform(),
                          color=RED, alpha=0.12, linewidth=0, label="a rating is exceeded")  # fmt: skip
    axis.set_ylim(0, 1.45 * top)
    axis.set_ylabel("loading [% of rating]")
    if tightest:
        axis.legend(loc="upper left", ncols=2, fontsize=8, frameon=False)
    _plain(axis)


def _tightest(series: Series) -> list[int]:
    """Up to SHOWN ratings with the highest peaks; of those with the same course only the first."""
    peak, mean = series.loading_percent.max(axis=0, initial=0.0), series.loading_percent.mean(axis=0)
    shown: list[int] = []
    for p in np.lexsort((np.arange(peak.shape[0]), -mean, -np.round(peak, 1))).tolist():
        course = series.loading_percent[:, p]
        if len(shown) < SHOWN and not any(np.allclose(course, series.loading_percent[:, q], atol=0.1) for q in shown):
            shown.append(p)
    return shown


def _draw_cars(axis: Axes, edges: npt.NDArray[np.float64], series: Series) -> None:
    axis.fill_between(edges, _held(series.plugged), step="post", color="#DDDDDD", linewidth=0, label="plugged in")
    axis.fill_between(edges, _held(series.charging), step="post", color=BLUE, alpha=0.75, linewidth=0, label="charging")
    axis.set_ylabel("cars")
    axis.set_ylim(0, 1.3 * max(1, int(series.plugged.max(initial=0))))
    axis.legend(loc="upper left", ncols=2, fontsize=8, frameon=False)
    _plain(axis)


def _draw_marks(axes: Sequence[Axes], origin: float, marks: Sequence[tuple[float, str]]) -> None:
    """A dashed line through all panels for each event, its words at the top."""
    for second, words in marks:
        for axis in axes:
            axis.axvline(origin + second / 86400.0, color=GREY, linewidth=0.9, linestyle="--")
        where = (origin + second / 86400.0, 0.98)
        # Clipped: from near, the words of an event far away would take the picture's room.
        axes[0].annotate(words, where, xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                         va="top", color=GREY, fontsize=9, annotation_clip=True)  # fmt: skip


def _draw_near(
    axes: Sequence[Axes], origin: float, mark: tuple[float, str], movements: Sequence[tuple[float, str]]
) -> None:
    """The first seconds after an event, with the switches that move: in the whole run all that is less than a dot."""
    second, words = mark
    near = [(at_s, told) for at_s, told in movements if second - BEFORE_S <= at_s <= second + NEAR_S]
    until_s = max((at_s - second for at_s, _ in near), default=0.0) + AFTER_S
    day_s = 86400.0
    for axis in axes:
        axis.set_xlim(origin + (second - BEFORE_S) / day_s, origin + (second + until_s) / day_s)
        legend = axis.get_legend()
        if legend is not None:
            legend.remove()
        for at_s, _ in near:
            axis.axvline(origin + at_s / day_s, color=GREEN, linewidth=0.9, linestyle=":")
    for k, (at_s, told) in enumerate(near):
        where = (origin + at_s / day_s, 0.97 - 0.055 * (k % LINES))
        axes[1].annotate(told, where, xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
                         va="top", color=GREEN, fontsize=8)  # fmt: skip
    ticks_s = np.arange(0.0, until_s + 1.0, 10.0)
    axes[2].set_xticks(origin + (second + ticks_s) / day_s, [f"{k:.0f}" for k in ticks_s])
    axes[2].set_xlabel(f"seconds after: {words}", fontsize=9, color=GREY)
    axes[0].set_title("from near, with the switches that move", loc="left", fontsize=10, color=GREY)


def _draw_time(axis: Axes, edges: npt.NDArray[np.float64], timezone: ZoneInfo) -> None:
    axis.set_xlim(float(edges[0]), float(edges[-1]))
    locator = mdates.AutoDateLocator(minticks=6, maxticks=14)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(
        mdates.ConciseDateFormatter(locator, formats=["%Y", "%b", "%a %d %b", "%H:%M", "%H:%M", "%S"])
    )
    axis.set_xlabel(f"local time, {timezone.key}", fontsize=9, color=GREY)


def _plain(axis: Axes) -> None:
    axis.grid(visible=True, axis="y", color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
