"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointwise.extras import import_extra
from pointwise.messages import shortened
from pointwise.report.figure import figure, save


def write_confusion(matrix: np.ndarray, classes: Sequence[str], path: str | Path) -> None:
    """Writes a confusion matrix ``[K, K]`` of counts (rows the truth, columns the prediction).

    Each row is coloured by its shares, and says them in per cent; up to ten classes also show the
    counts. ``classes`` are the K names. Raises ValueError where the matrix is not such a table.
    """
    counts = np.asarray(matrix)
    _check(counts, classes)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)

    many = len(classes)
    cell = 0.9 if many <= 10 else 0.55  # inches
    side = max(many * cell, 2.5)
    letters = [shortened(name, 30) for name in classes]
    room = 0.11 * max(map(len, letters))  # inches that the longest name takes
    page = figure(side + room + 2.4, side + room * 0.8 + 1.6, layout="constrained")
    axes = page.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        axes.text(
            column,
            row,
            _text(counts[row, column], shares[row, column], totals[row, 0], many),
            ha="center",
            va="center",
            fontsize=11 if many <= 10 else 9,
            color="white" if shares[row, column] > 0.55 else "#1c2430",
        )
    axes.set_xticks(range(many), letters, rotation=45, ha="right", rotation_mode="anchor")
    rows = [f"{name} ({int(total):,})" for name, total in zip(letters, totals[:, 0], strict=True)]
    axes.set_yticks(range(many), rows)
    axes.set_xlabel("predicted", fontsize=12)
    axes.set_ylabel("truth (count)", fontsize=12)
    axes.tick_params(length=0, labelsize=11 if many <= 10 else 9)
    axes.spines[:].set_visible(False)
    bar = page.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.yaxis.set_major_formatter(
        import_extra("matplotlib.ticker", "report").PercentFormatter(1)
    )
    bar.outline.set_visible(False)
    bar.set_label("share of the truth")
    right = np.trace(counts) / counts.sum() if counts.sum() else 0.0
    axes.set_title(f"{right:.1%} of {int(counts.sum()):,} right", fontsize=13)
    page.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    save(page, path)


def _check(counts: np.ndarray, classes: Sequence[str]) -> None:
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) == 0:
        raise ValueError(f"matrix must be [K, K] with a row per class, got {list(counts.shape)}")
    if len(classes) != len(counts):
        raise ValueError(f"matrix has {len(counts)} classes, but {len(classes)} names were given")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("matrix must hold counts: finite numbers, none of them negative")


def _text(count: float, part: float, total: float, many: int) -> str:
    """What a cell says: nothing where there is nothing, so that the mistakes stand out."""
    if count == 0:
        return "–" if total == 0 else ""
    percent = f"{100 * part:.0f} %" if part >= 0.005 else "< 1 %"
    return f"{percent}\n{int(count):,}" if many <= 10 else percent.removesuffix(" %")
