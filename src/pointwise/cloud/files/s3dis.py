"""S3DIS as it is published: a folder for every room, a text file for every object in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
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
STAIRS = "stairs"  # in the published rooms, but in no one's list of classes


def read(folder: Path) -> list[Scan]:
    """The labelled cloud of one room, such as ``Area_1/office_1``; its group is the area.

    Coordinates are metres; the field ``instance`` numbers the objects. Of S3DIS's own objects,
    ``stairs`` are clutter, as is usual; other names are classes of their own, numbered on from
    S3DIS's in the order of their names in this room (``one_numbering`` makes it one of all rooms).
    """
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        raise ValueError("is a folder without a folder Annotations, so no room of S3DIS")
    files = sorted(f for f in annotations.glob("*.txt") if not f.name.startswith("."))
    if not files:
        raise ValueError("has no object files (chair_1.txt …) in its folder Annotations")
    names = [_name(file) for file in files]
    own = sorted({name for name in names if name not in NAMES and name != STAIRS})
    classes = CLASSES | dict(enumerate(own, start=len(NAMES)))
    code_of = {name: code for code, name in classes.items()} | {STAIRS: NAMES.index("clutter")}
    labels = [code_of[name] for name in names]
    tables = [_read_object(file) for file in files]
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
            classes=classes,
            assumed=(f"{STAIRS} are clutter, as is usual for S3DIS",) * (STAIRS in names),
            unit="m",
            name=f"{area}_{folder.name}",
            group=area,
        )
    ]


def one_numbering(scans: Sequence[Scan]) -> list[Scan]:
    """Rooms whose own classes have the same numbers in all of them; other scans as they are."""
    own = sorted(
        {
            name
            for scan in scans
            if _is_room(scan)
            for code, name in scan.classes.items()
            if code >= len(NAMES)
        }
    )
    classes = CLASSES | dict(enumerate(own, start=len(NAMES)))
    code_of = {name: code for code, name in classes.items()}
    return [_renumbered(scan, code_of, classes) if _is_room(scan) else scan for scan in scans]


def _renumbered(scan: Scan, code_of: dict[str, int], classes: dict[int, str]) -> Scan:
    assert scan.labels is not None
    codes = np.array([code_of[scan.classes[code]] for code in sorted(scan.classes)])
    labels = np.where(scan.labels < 0, scan.labels, codes[scan.labels])
    return replace(scan, labels=labels, classes=classes)


def _is_room(scan: Scan) -> bool:
    return (
        scan.source is not None
        and scan.labels is not None
        and (scan.source / "Annotations").is_dir()
    )


def _name(file: Path) -> str:
    """The object's class: ``chair_1.txt`` is a chair, ``fire_hose_2.txt`` a fire hose."""
    return re.sub(r"(?<=.)[_\s]+\d*$", "", file.stem).lower()


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
