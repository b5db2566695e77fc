"""Comparisons as tables of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pointwise.comparison.compared import OURS, Comparison
from pointwise.costs.tables import milliseconds, short
from pointwise.messages import rounded
from pointwise.timing.load import verdict_of

if TYPE_CHECKING:
    from rich.table import Table

DIRECTIONS = ("forward", "backward")
LEGEND = (
    "ms: medians; torch is PyTorch in the faster of its two memory layouts. Gain: how many times"
    " as fast as the standard convolution, by count of multiply-adds and forward by the clock, in"
    " brackets where it lies with a confidence of 95 %."
)
WITHHELD = "–"


def main_table(found: Comparison) -> Table:
    """Counts, medians, and what the count lets expect against what the clock says."""
    table = _table(str(found.job))
    table.add_column("\n", min_width=10, max_width=10)
    for name in (
        "\nparams",
        "mult-\nadds",
        "forward\nours",
        "ms\ntorch",
        "backward\nours",
        "ms\ntorch",
        "gain\ncount",
        "\nours",
        "\ntorch",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        times = [
            milliseconds(each.median)
            for direction in DIRECTIONS
            for each in (getattr(row, direction)[OURS], row.best_of_torch(direction))
        ]
        gains = [found.by_clock(row).value, found.of_torch(row).value]
        table.add_row(
            row.kind,
            short(row.parameters).replace(" ", ""),
            short(row.multiply_adds).replace(" ", ""),
            *times,
            _times(found.by_count(row)),
            *(WITHHELD if found.busy else _times(gain) for gain in gains),
        )
    return table


def detail_table(found: Comparison) -> Table:
    """The distribution of the times of single runs, and how sure the gains are."""
    table = _table("")
    table.add_column("ms", overflow="fold")
    table.add_column("", no_wrap=True)
    for name in ("least", "median", "95th", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        for direction in DIRECTIONS:
            for who, times, gain in (
                (OURS, getattr(row, direction)[OURS], found.by_clock(row, OURS, direction)),
                ("torch", row.best_of_torch(direction), found.of_torch(row, direction)),
            ):
                first = direction == "forward" and who == OURS
                cells = [milliseconds(each) for each in (times.min, times.median, times.p95)]
                said = WITHHELD if found.busy else "" if row.kind == "standard" else str(gain)
                table.add_row(row.kind if first else "", f"{who} {direction}", *cells, said)
        table.add_section()
    return table


def remarks(found: Comparison) -> Iterator[str]:
    """What is not possible, and where the clock contradicts the count."""
    for kind, why in found.impossible.items():
        yield f"No {kind}: {why}."
    if found.busy:
        yield verdict_of(found.busy)
        return
    for row in found.rows:
        gain = found.by_clock(row)
        if found.by_count(row) > 1 and gain.is_below:
            yield (
                f"{row.kind} takes {gain.inverse()} times as long as standard in ours, with"
                f" 1/{rounded(found.by_count(row), 2)} of the multiply-adds."
            )


def _times(gain: float) -> str:
    return f"{gain:.1f}" if gain >= 9.95 else f"{gain:.2f}"


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
