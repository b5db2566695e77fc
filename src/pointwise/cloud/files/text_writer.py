"""Points as text, one a line, under a first line that names the columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import LABELS, columns_from_fields
from pointwise.cloud.scan import Scan

SUFFIXES = (".xyz", ".txt", ".asc", ".csv")
_LINES = 100_000  # at a time: Python's numbers take ten times the room of NumPy's


def write(scan: Scan, path: Path) -> None:
    """Writes x, y, z, every field and the label; each number as the shortest that reads back.

    Columns are separated by commas in ``.csv``, else by spaces, where the line of names begins with
    ``#``. A field that would be read as the labels is called ``extra_…``. Names of classes, for
    which text has no place, are lost.
    """
    columns = dict(zip("xyz", scan.points.T, strict=True))
    for name, values in columns_from_fields(scan.fields, len(scan)).items():
        word = "_".join(name.replace(",", " ").split()) or "column"
        columns[f"extra_{word}" if word.lower() in LABELS else word] = values
    if scan.labels is not None:
        columns["label"] = scan.labels
    comma = path.suffix.lower() == ".csv"
    between = "," if comma else " "
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(("" if comma else "# ") + between.join(columns) + "\n")
        for first in range(0, len(scan), _LINES):
            words = [_words(values[first : first + _LINES]) for values in columns.values()]
            stream.writelines(between.join(row) + "\n" for row in zip(*words, strict=True))


def _words(values: np.ndarray) -> list[str]:
    """NumPy's own text of float32, and Python's of all else, which is ten times as fast."""
    if values.dtype == np.float32:
        return list(map(str, values))
    return list(map(repr, values.tolist()))
