"""The names of files and folders that say which part of the data they are."""

from __future__ import annotations

import re
from pathlib import Path

PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}  # words in a path -> the part they mean


def part_of(file: Path, root: Path) -> str:
    """The part that a path below ``root`` names, as in ``test/chair_1.off`` or ``train_0.h5``."""
    inner = file.relative_to(root) if file != root else Path(file.name)
    for name in (*inner.parts[:-1], inner.stem):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in PARTS:
                return PARTS[word]
    return "train"
