"""Text of one point a line: XYZ, XYZN, XYZRGB, TXT, CSV, ASC, PTS."""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from pointwise.cloud.files.columns import has_xyz, is_coordinate, named, scan_from_columns
from pointwise.cloud.files.guess import guessed_names, is_color
from pointwise.cloud.files.tables import (
    FORMS,
    LONGEST_LINE,
    Form,
    Rows,
    check_thousands,
    form_of,
    open_text,
    without_comments,
)
from pointwise.cloud.scan import Scan

_MARKS = ("#", "//", "%", ";")
_MOST_TITLES = 100
_MOST_COMMENTS = 1000
_MOST_SCANS = 10_000
_SAMPLE = 1 << 16  # characters, and
_SAMPLE_LINES = 100  # lines, that tell the separator and the decimal sign
_UNIT = re.compile(r"(?i)\W*(?:[mckµu]?m|ft|us[- ]?ft|in|deg|rad|n?s|-)?\W*")


@dataclass
class _Head:
    """What stands above the points, and the first of them."""

    titles: list[tuple[int, str]] = field(default_factory=list)  # numbers of their lines, texts
    comments: deque[str] = field(default_factory=partial(deque, maxlen=_MOST_COMMENTS))
    counts: list[int] = field(default_factory=list)  # numbers of points
    lines: int = 0
    sample: list[str] = field(default_factory=list)


def read(path: Path, columns: list[str] | None = None) -> list[Scan]:
    """The one cloud of a text file, its numbers separated by spaces, tabs, commas or semicolons.

    A header, or a comment above the points that names x, y and z, names the columns; ``columns``
    overrules both. Of a file without, the format says what they are: ``.xyzn`` is x y z nx ny nz,
    ``.xyzrgb`` x y z red green blue (0 to 1), and PTS, which begins with the number of points,
    x y z [intensity] [red green blue]. Else ``guessed_names`` looks at the numbers, and a warning
    says what was assumed. Labels are read only where they are named. Several scans of PTS are one
    cloud, and the field ``scan`` numbers them.
    """
    with open_text(path) as stream:
        head = _read_head(stream)
    if not head.sample:
        return [_without_points(head, columns)]
    form = form_of(head.sample)
    check_thousands(form, head.sample)
    width = len(form.cells(head.sample[0]))
    closed = all(not form.cells(line)[-1] for line in head.sample)  # by a separator
    if columns is not None and len(columns) not in (width, width - closed):
        raise ValueError(f"columns names {len(columns)} columns, the lines have {width}")
    skip = {k for k, name in enumerate(columns or ()) if name == "_"}
    with Rows(partial(open_text, path), head.lines, form, width, skip) as rows:
        lengths = _take(rows, head.counts)
        names, table = _aligned(columns or _header(head, form, width, closed), rows.columns())
        for k, word in rows.texts.items():
            if names is None or is_coordinate(names[k]):
                rows.refuse_text(k)
            elif names[k]:
                warnings.warn(
                    f"{path}: left out column {names[k]!r}, which has words such as {word!r}",
                    stacklevel=2,
                )
    first = [values[0] for values in table if values is not None and len(values) > 1]
    if path.suffix.lower() == ".csv" and len(first) > 2 and first == [*range(len(first))]:
        warnings.warn(
            f"{path}: line {head.lines + 1} numbers the columns, as headers of pandas do, and is "
            "taken for a point; write them with header=False",
            stacklevel=2,
        )
    if names is None:
        names = _names_of_format(path, [values for values in table if values is not None], head)
    numbers = [(n, v) for n, v in zip(names, table, strict=True) if n and v is not None]
    scan = scan_from_columns(named([n for n, _ in numbers], [v for _, v in numbers]))
    if len(lengths) > 1:
        scan.fields["scan"] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return [scan]


def _read_head(stream: TextIO) -> _Head:
    head = _Head()
    while line := stream.readline(LONGEST_LINE):
        head.lines += 1
        if len(line) == LONGEST_LINE:
            raise ValueError(f"line {head.lines} is longer than {LONGEST_LINE:,} characters")
        text = line.strip()
        if not text:
            continue
        if _is_points(text):
            head.lines -= 1
            head.sample = _sample(line, stream.read(_SAMPLE))
            break
        row_names = text.startswith(";") and has_xyz(Form(";").cells(text))  # ;x;y;z
        if text.startswith(_MARKS) and not row_names:
            head.comments.append(text.lstrip("#/%; \t"))
        elif text.strip("\"'").isdecimal() and len(head.counts) < 2:
            head.counts.append(int(text.strip("\"'")))
        else:
            head.titles.append((head.lines, text))
        if len(head.counts) > 1:
            raise ValueError(
                "is no table of points: its first lines hold a number each, as labels do, or "
                "Leica's PTX; export that as PTS or E57"
            )
        if len(head.titles) > _MOST_TITLES:
            _refuse_title(head.titles[-1][1])
    return head


def _sample(first: str, block: str) -> list[str]:
    """The first of the points, whole lines without comments."""
    lines = block.splitlines()[: -1 if len(block) == _SAMPLE else None]
    form = Form(";") if ";" in first else Form()  # where ; begins no comment
    bare = [without_comments(line, form) for line in [first, *lines[:_SAMPLE_LINES]]]
    return [line for line in bare if line.strip()]


def _is_points(text: str) -> bool:
    """Whether a line is a row of numbers, and neither a comment, a header nor a count."""
    if text.startswith(("#", "//", "%")):
        return False
    form = form_of([text])
    cells, numbers = form.cells(text), form.numbers(text)
    if len(cells) > 3 and not cells[0] and cells[1:] == [*map(str, range(len(cells) - 1))]:
        return False  # the numbers of columns that have no names, as pandas writes them
    if len(cells) == 1:
        return numbers == 1 and not cells[0].isdecimal()
    if numbers < 3 and (text.startswith(";") or not cells[0] or form.number(cells[0]) is None):
        return False
    return not has_xyz(cells)


def _without_points(head: _Head, columns: list[str] | None) -> Scan:
    """An empty cloud, where a header or a count of 0 says that nothing is missing."""
    count = head.counts[0] if head.counts else None
    if count:
        raise ValueError(f"truncated: its first line says {count} points, 0 follow")
    if count is None and not head.titles:
        raise ValueError("holds no points")
    names = columns or ["x", "y", "z"]
    if head.titles:
        names = _split(head.titles[0][1], Form(), 0)
        if len(head.titles) > 1:
            _refuse_title(head.titles[1][1])
    return scan_from_columns(named(names, [np.empty(0)] * len(names)))


def _refuse_title(text: str) -> None:
    raise ValueError(f"a point is numbers, got {text[:40]!r}")


def _header(head: _Head, form: Form, width: int, closed: bool) -> list[str] | None:
    """The names of the columns as a title or a comment gives them, or None."""
    splits = [_split(text, form, width) for _, text in head.titles]
    last = next((k for k in reversed(range(len(splits))) if has_xyz(splits[k])), None)
    if last is not None:
        for _, text in head.titles[last + 1 :]:  # units may stand below the names
            if not all(map(_UNIT.fullmatch, form.cells(text))):
                _refuse_title(text)
        return splits[last]
    if len(splits) > 1:
        _refuse_title(head.titles[1][1])
    if splits:
        return splits[0]
    # A comment may speak of x, y and z without naming the columns.
    commented = [_split(text, form, width) for text in head.comments]
    fitting = [names for names in commented if has_xyz(names) and len(names) + closed >= width]
    return next((names for names in reversed(fitting) if len(names) <= width), None)


def _split(text: str, form: Form, width: int) -> list[str]:
    """The names in a header, which may be separated by something else than the numbers are."""
    glued = re.sub(r"\s+(?=[\[(])", "", text)  # X [m] is one name
    splits = [form.cells(text)]
    splits += [other.cells(each) for each in (text, glued) for other in (form, *FORMS)]
    splits = [_without_last_empty(names, width) for names in splits]
    for fits in (
        lambda names: len(names) == width,
        lambda names: len(names) == width - 1 and has_xyz(names),
        has_xyz,
    ):
        if found := [names for names in splits if fits(names)]:
            return found[0]
    return max(splits, key=len)


def _without_last_empty(names: list[str], width: int) -> list[str]:
    return names[:-1] if len(names) > width > 0 and not names[-1] else names


def _take(rows: Rows, counts: Sequence[int]) -> list[int]:
    """Reads all the rows; the number of points in each scan of PTS, or in all."""
    if not counts:
        return [rows.take()]
    lengths: list[int] = []
    count: int | None = counts[0]
    while count is not None:
        where = "first line" if not lengths else "next count"
        found = rows.take(count)
        if found < count:
            raise ValueError(f"truncated: its {where} says {count} points, {found} follow")
        lengths.append(found)
        if len(lengths) > _MOST_SCANS:
            raise ValueError(f"has more than {_MOST_SCANS:,} scans, each with a count of points")
        count = rows.take_count()
        if count is not None and count < 0:
            raise ValueError(f"its {where} says {found} points, and more follow")
    return lengths


def _aligned(
    names: list[str] | None, table: list[np.ndarray | None]
) -> tuple[list[str] | None, list[np.ndarray | None]]:
    """Names and columns, as many of each.

    Taken out are columns without a name or a number, as separators at the ends of lines make them.
    Taken out too are the names of rows: first, and without a name of their own (R leaves it away).
    """
    if names is None:
        while len(table) > 3 and _is_empty(table[-1]):
            table = table[:-1]
        return None, table
    if len(names) == len(table) - 1:
        names = [*names, ""] if _is_empty(table[-1]) else ["", *names]
    if len(names) != len(table):
        raise ValueError(f"the header names {len(names)} columns, the lines have {len(table)}")
    return [
        name or ("" if k == 0 or _is_empty(table[k]) else f"column{k + 1}")
        for k, name in enumerate(names)
    ], table


def _is_empty(values: np.ndarray | None) -> bool:
    return values is not None and values.dtype.kind == "f" and bool(np.isnan(values).all())


def _names_of_format(path: Path, table: list[np.ndarray], head: _Head) -> list[str]:
    """Names that the suffix or a count of points stands for, or else guessed ones."""
    suffix = path.suffix.lower()
    extra = len(table) - 3
    if suffix in (".xyzn", ".xyzrgb"):
        names = ["nx", "ny", "nz"] if suffix == ".xyzn" else ["red", "green", "blue"]
        if extra != 3:
            raise ValueError(
                f"{suffix} is x y z {' '.join(names)}, the lines have {len(table)} columns; "
                "name them with columns= (--columns), or in a header"
            )
        if suffix == ".xyzrgb" and max(values.max(initial=0) for values in table[3:]) <= 1:
            names = ["rf", "gf", "bf"]  # fractions, be they whole numbers
        elif suffix == ".xyzrgb":
            warnings.warn(
                f"{path}: colours of .xyzrgb are 0 to 1, but some are more: taken for 0 to 255",
                stacklevel=2,
            )
        return ["x", "y", "z", *names]
    if suffix == ".pts" or head.counts:
        if extra in (0, 1):
            return ["x", "y", "z", "intensity"][: 3 + extra]
        if extra in (3, 4) and is_color(table[-3:]):
            return ["x", "y", "z", *["intensity"] * (extra - 3), "red", "green", "blue"]
    return guessed_names(path, table)
