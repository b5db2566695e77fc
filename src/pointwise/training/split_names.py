"""The split of the data, train, validation or test, that files and folders are named by."""

from __future__ import annotations

import re
from pathlib import Path

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}  # words in a path -> the split they mean


def split_of(file: Path, root: Path) -> str:
    """The split that a path below ``root`` names, as in ``test/chair_1.off`` or ``train_0.h5``."""
    inner = file.relative_to(root) if file != root else Path(file.name)
    for name in (*inner.parts[:-1], inner.stem):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return "train"
