"""S3DIS as it is published: a folder for every room, a text file for every object in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointwise.cloud.files.guess import are_bytes
from pointwise.cloud.files.tables import rows_of
from pointwise.cloud.scan import Scan

NAMES = (
    "ceiling",
    "floor",
    "wall",
    "beam",
    "column",
    "window",
    "door",
    "table",
    "chair",
    "sofa",
    "bookcase",
    "board",
    "clutter",
)
CLASSES = dict(enumerate(NAMES))


def read(folder: Path) -> list[Scan]:
    """The labelled cloud of one room, such as ``Area_1/office_1``; its group is the area.

    Coordinates are metres; the field ``instance`` numbers the objects. Objects of other names
    (``stairs``) are clutter, as is usual.
    """
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        raise ValueError("is a folder without a folder Annotations, so no room of S3DIS")
    files = sorted(f for f in annotations.glob("*.txt") if not f.name.startswith("."))
    if not files:
        raise ValueError("has no object files (chair_1.txt …) in its folder Annotations")
    tables, labels = [], []
    others: set[str] = set()
    for file in files:
        name = file.stem.split("_")[0].lower()
        tables.append(_read_object(file))
        if name not in NAMES:
            others.add(name)
        labels.append(NAMES.index(name if name in NAMES else "clutter"))
    counts = [len(table[0]) for table in tables]
    whole = [np.concatenate(columns) for columns in zip(*tables, strict=True)]
    area = folder.absolute().parent.name
    return [
        Scan(
            points=np.stack(whole[:3], axis=1).astype(np.float64),
            fields={
                "color": np.stack(whole[3:], axis=1).astype(np.uint8),
                "instance": np.repeat(np.arange(len(files), dtype=np.int32), counts),
            },
            labels=np.repeat(np.array(labels, dtype=np.int64), counts),
            classes=dict(CLASSES),
            assumed=tuple(f"{name} is clutter, as is usual for S3DIS" for name in sorted(others)),
            name=f"{area}_{folder.name}",
            group=area,
        )
    ]


def _read_object(file: Path) -> list[np.ndarray]:
    """x, y, z, r, g, b, each ``[N]``."""
    # The published Area_5/hallway_6 has a control character where a space should be.
    text = file.read_text(encoding="latin-1").replace("\x10", " ")
    if not text.strip():
        return [np.empty(0)] * 6
    width = len(text.lstrip().partition("\n")[0].split())
    if width != 6:
        raise ValueError(f"{file.name}: a line must be x y z r g b, got {width} numbers")
    try:
        table = rows_of(text, width)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    if not are_bytes(table[3:]):
        raise ValueError(f"{file.name}: colours must be whole numbers 0 to 255")
    return table
