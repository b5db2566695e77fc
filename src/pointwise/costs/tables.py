"""Counts as text and as tables for people: numbers of three digits, 80 columns."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pointwise.costs.count import Count, total
from pointwise.costs.layer import Branch, Layer
from pointwise.messages import rounded
from pointwise.terminal import plain as one_line

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80


def short(number: float) -> str:
    """A number in three digits: ``999``, ``1.23 k``, ``45.6 M``, ``7.89 G``.

    >>> short(568_740_352), short(12), short(0)
    ('569 M', '12', '0')
    """
    if abs(number) < 1000:
        return f"{number:.0f}" if number == int(number) else f"{number:.3g}"
    for letter in "kMGTP":
        number /= 1000
        if abs(number) < 999.5 or letter == "P":
            break
    digits = 0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f} {letter}"


def milliseconds(number: float) -> str:
    """Three digits, but no more than three behind the point.

    >>> milliseconds(0.0123), milliseconds(1.234), milliseconds(123.4)
    ('0.012', '1.23', '123')
    """
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2 if number >= 0.9995 else 3
    return f"{number:.{digits}f}"


def table(*columns: str) -> Table:
    """An empty table; a column that begins with ``<`` is words, all others are numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, show_footer=False)
    for name in columns:
        if name.startswith("<"):
            made.add_column(name[1:], overflow="fold")
        else:
            made.add_column(name, justify="right", no_wrap=True)
    return made


_COUNTS = ("params", "mult-adds", "bytes", "op/byte")


def numbers(count: Count) -> list[str]:
    """The cells of a row; ``≤`` where it is an upper bound."""
    return [
        short(count.parameters),
        bounded(count.multiply_adds, count.exact),
        bounded(count.bytes, count.exact),
        rounded(count.intensity, 2),
    ]


def bounded(number: int, exact: bool) -> str:
    """A number, with ``≤`` where it is an upper bound."""
    return short(number) if exact or number == 0 else f"≤{short(number)}"


def layer_table(layers: Sequence[Layer]) -> Table:
    """A row for each layer, and the total."""
    made = table("<layer", "<kind", *_COUNTS)
    for layer in layers:
        times = f" ×{layer.calls}" if layer.calls > 1 else ""
        made.add_row(one_line(layer.name) + times, layer.kind, *numbers(layer.count))
    made.add_section()
    made.add_row("total", "", *numbers(total(layer.count for layer in layers)), style="bold")
    return made


def tree_table(branches: Iterable[Branch]) -> Table:
    """A row for each module, with all that is inside it."""
    made = table("<module", "<type", *_COUNTS)
    for branch in branches:
        made.add_row(
            "  " * branch.depth + one_line(branch.name), branch.type, *numbers(branch.count)
        )
    return made


def kind_table(counts: dict[str, Count]) -> Table:
    """A row for each kind, with its shares of multiply-adds and parameters."""
    made = table("<kind", "params", "%", "mult-adds", "%", "operations", "bytes", "op/byte")
    parameters = sum(count.parameters for count in counts.values())
    products = sum(count.multiply_adds for count in counts.values())
    for kind, count in counts.items():
        own, products_, moved, intensity = numbers(count)
        made.add_row(
            kind,
            own,
            _share(count.parameters, parameters),
            products_,
            _share(count.multiply_adds, products),
            bounded(count.operations, count.exact),
            moved,
            intensity,
        )
    return made


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if part else ""


def plain(parts: Iterable[Table | str], width: int = WIDTH) -> str:
    """Tables and lines as plain text without colours."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(), width=width, force_terminal=False, color_system=None, highlight=False
    )
    for part in parts:
        console.print(part, markup=False)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines)
