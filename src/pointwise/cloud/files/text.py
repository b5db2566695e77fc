"""Text of one point a line: XYZ, TXT, CSV, ASC, PTS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from pointwise.cloud.files.columns import scan_from_columns
from pointwise.cloud.scan import Scan

_COMMENTS = ("#", "//")


def read(path: Path) -> list[Scan]:
    """The one cloud of a text file, its numbers separated by spaces, tabs, commas or semicolons.

    A header line, or a comment line just above the points that names x, y and z, names the columns.
    Without one they are x, y, z, and then, from left to right: three columns of whole numbers 0 to
    255 are red, green, blue; three that are unit vectors are a normal; another fourth column is the
    intensity; what remains is ``feature0``, ``feature1`` … (``alpha`` where it is 255 everywhere).
    Labels are read only where a header names them.
    """
    names, table = read_table(path)
    if names is None:
        names = _guess_names(table)
    if len(names) != table.shape[1]:
        raise ValueError(f"the header names {len(names)} columns, the lines have {table.shape[1]}")
    return [scan_from_columns(dict(zip(names, table.T, strict=True)))]


def read_table(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """The numbers of a text file ``[N, columns]``, and their names if a header gives them."""
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        names, count, first = _read_header(stream)
        if not first:
            return names, np.empty((0, len(names or "xyz")))
        lines = itertools.chain([first], stream)
        separator = _separator(first)
        try:
            table = np.loadtxt(
                _clean(lines, separator), delimiter=separator, ndmin=2, comments=None
            )
        except ValueError as error:
            raise ValueError(str(error).partition(";")[0]) from None
    if count is not None and count != len(table):
        raise ValueError(f"truncated: its first line says {count} points, {len(table)} follow")
    return names, table


def _read_header(stream: TextIO) -> tuple[list[str] | None, int | None, str]:
    """Names of the columns, number of points (PTS), and the first line of numbers ("" for none)."""
    names: list[str] | None = None
    commented: list[str] | None = None
    count: int | None = None
    begun = False
    while line := stream.readline():
        words = _words(line)
        if not words:
            continue
        begun = True
        if line.lstrip().startswith(_COMMENTS):
            words = _words(line.strip().lstrip("#/"))
            if {"x", "y", "z"} <= {word.lower() for word in words}:
                commented = words
        elif len(words) == 1 and words[0].isdigit() and count is None:
            count = int(words[0])
        elif _is_number(words[0]):
            # A comment may speak of x, y and z without naming the columns.
            if names is None and commented is not None and len(commented) == len(words):
                names = commented
            return names, count, line
        elif names is None:
            names = words
        else:
            raise ValueError(f"a point is numbers, got {line.strip()[:40]!r}")
    if not begun or (names is None and count != 0):
        raise ValueError("holds no points")
    return names, count, ""


def _words(line: str) -> list[str]:
    words = line.strip().split(_separator(line))
    return [word.strip().strip("\"'") for word in words] if line.strip() else []


def _separator(line: str) -> str | None:
    return next((separator for separator in ";," if separator in line), None)


def _is_number(word: str) -> bool:
    try:
        float(word.replace(",", "."))
    except ValueError:
        return False
    return True


def _clean(lines: Iterator[str] | itertools.chain[str], separator: str | None) -> Iterator[str]:
    for line in lines:
        if line.lstrip().startswith(_COMMENTS):
            continue
        # Where semicolons separate, a comma is the decimal point of a continental European locale.
        yield line.replace(",", ".") if separator == ";" else line


def _guess_names(table: np.ndarray) -> list[str]:
    names = ["x", "y", "z"]
    while len(names) < table.shape[1]:
        k = len(names)
        three = table[:, k : k + 3]
        if three.shape[1] == 3 and "red" not in names and _is_color(three):
            names += ["red", "green", "blue"]
        elif three.shape[1] == 3 and "nx" not in names and _is_unit(three):
            names += ["nx", "ny", "nz"]
        elif k == 3:
            names.append("intensity")
        elif (table[:, k] == 255).all() and "red" in names and "alpha" not in names:
            names.append("alpha")
        else:
            names.append(f"feature{sum(name.startswith('feature') for name in names)}")
    return names[: table.shape[1]] if table.shape[1] < 3 else names


def _is_color(values: np.ndarray) -> bool:
    """Whole numbers 0 to 255; not only 0 and 1, which normals along the axes have too."""
    whole = bool((values == np.rint(values)).all())
    top = values.max(initial=0)
    return whole and bool(values.min(initial=0) >= 0) and (top == 0 or 1 < top <= 255)


def _is_unit(values: np.ndarray) -> bool:
    return bool(np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-2))
