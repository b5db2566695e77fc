"""Comparisons of convolutions as a picture: times as bars, and what the count had predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.comparison.compared import OURS, Comparison, VariantResult
from pointwise.extras import import_extra
from pointwise.report.figure import figure, save
from pointwise.timing import BUSY

INK = "#1c2430"
OURS_COLOR, TORCH_COLOR = "#0072b2", "#d55e00"  # Okabe and Ito's: told apart by everybody
MARKS = (
    ("forward", True, OURS_COLOR, OURS_COLOR, "ours, forward"),
    ("forward", False, TORCH_COLOR, TORCH_COLOR, "PyTorch, forward"),
    ("backward", True, OURS_COLOR, "white", "ours, backward"),
    ("backward", False, TORCH_COLOR, "white", "PyTorch, backward"),
)  # direction, whose, the colour of line and edge, what the mark is filled with, and its name


def write_comparison(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Draws each comparison in a row: left the times, right measured beside predicted gains.

    A mark is the median of all runs, its line goes from the fastest to the 95th percentile. The
    suffix of ``path`` decides the format. Raises ValueError where there is nothing to draw.
    """
    if not comparisons:
        raise ValueError("compare: there is nothing to draw")
    heights = [1.7 + 0.55 * len(each.rows) for each in comparisons]
    page = figure(9.5, sum(heights), layout="constrained")
    rows = page.subfigures(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, found in zip(rows, comparisons, strict=True):
        part.suptitle(str(found.job), x=0.01, ha="left", fontsize=13, color=INK)
        left, right = part.subplots(1, 2, sharey=True)
        _milliseconds(left, found)
        _gains(right, found)
    save(page, path)


def _milliseconds(axes: Any, found: Comparison) -> None:
    places = np.arange(len(found.rows))
    for number, (direction, own, color, inside, label) in enumerate(MARKS):
        times = [_times(row, direction, own) for row in found.rows]
        y = places + (number - 1.5) * 0.17
        axes.hlines(
            y,
            [each.min for each in times],
            [each.percentile(95) for each in times],
            color=color,
            linewidth=1.5,
            alpha=0.6,
        )
        axes.scatter(
            [each.median for each in times],
            y,
            s=34,
            color=inside,
            edgecolor=color,
            linewidth=1.5,
            label=label,
            zorder=3,
        )
    axes.set_yticks(places, [row.kind for row in found.rows])
    axes.invert_yaxis()
    axes.set_title("milliseconds: median, fastest to 95th percentile", fontsize=11, loc="left")
    _plain(axes, "{:g}", columns=2)


def _gains(axes: Any, found: Comparison) -> None:
    count = np.array([found.by_count(row) for row in found.rows])
    ours = np.array([found.by_clock(row).value for row in found.rows])
    theirs = np.array([found.of_torch(row).value for row in found.rows])
    places = np.arange(len(found.rows))
    every = np.stack((count, ours, theirs))
    axes.hlines(places, every.min(0), every.max(0), color="#c4c8d0", linewidth=1.5)
    axes.axvline(1, color="#676c7a", linewidth=0.8)
    axes.scatter(count, places, s=60, marker="D", color="#9a9a9a", label="as counted", zorder=2)
    axes.scatter(ours, places - 0.12, s=40, color=OURS_COLOR, label="ours", zorder=3)
    axes.scatter(theirs, places + 0.12, s=40, color=TORCH_COLOR, label="PyTorch", zorder=3)
    title = "forward, times as fast as standard" + (f"; {BUSY}" if found.busy else "")
    axes.set_title(title, fontsize=11, loc="left")
    _plain(axes, "{:g}×", columns=3)


def _times(row: VariantResult, direction: str, own: bool) -> Any:
    return getattr(row, direction)[OURS] if own else row.best_of_torch(direction)


def _plain(axes: Any, numbers: str, columns: int) -> None:
    axes.set_xscale("log")
    ticks = import_extra("matplotlib.ticker", "report")
    axes.xaxis.set_major_locator(ticks.LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_minor_locator(ticks.NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: numbers.format(value))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=10, colors=INK, length=0)
    axes.grid(True, axis="x", color="#e3e5ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(
        fontsize=9,
        frameon=False,
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=(0, -0.06),
        handletextpad=0.2,
        columnspacing=1.2,
    )
