"""CSV and JSON of what things are classified as: clouds and images alike."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pointwise.cli.outputs import check_output

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".csv", ".json")


class Classified(NamedTuple):
    """One cloud or image: its file, its name there if the file holds several, each probability."""

    file: str
    item: str
    probabilities: np.ndarray  # [classes], in the order of their names


def check_class_file(caller: str, path: Path | None, *, force: bool) -> None:
    """Raises ValueError where ``path`` could not be written, or something would be lost."""
    check_output(caller, "-o", path, SUFFIXES)
    if path is not None and path.exists() and not force:
        raise ValueError(f"{caller}: {path} exists; choose another -o, or replace it with --force")


def write_class_file(path: Path, found: Sequence[Classified], names: Sequence[str]) -> None:
    """Writes file, item, class, its probability, and the probability of each class, by the suffix.

    In CSV each class has a column with its name behind the others.
    """
    from pointwise.atomic import replacing

    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as stream:
        if path.suffix.lower() == ".json":
            json.dump([_record(one, names) for one in found], stream, indent=2, ensure_ascii=False)
            stream.write("\n")
            return
        table = csv.writer(stream)
        table.writerow(["file", "item", "class", "probability", *names])
        for one in found:
            each = [round(float(p), 6) for p in one.probabilities]
            best = int(one.probabilities.argmax())
            table.writerow([one.file, one.item, names[best], each[best], *each])


def _record(one: Classified, names: Sequence[str]) -> dict[str, Any]:
    each = {n: round(float(p), 6) for n, p in zip(names, one.probabilities, strict=True)}
    best = names[int(one.probabilities.argmax())]
    return {
        "file": one.file,
        "item": one.item,
        "class": best,
        "probability": each[best],
        "probabilities": each,
    }
