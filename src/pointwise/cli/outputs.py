"""Files that commands write: looked at before minutes of work, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def check_output(caller: str, option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Raises ValueError, with ``caller`` in front, where ``path`` could not be written."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{caller}: {option} must end in {' or '.join(suffixes)}, got {path}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{caller}: there is no folder {path.parent} for {path.name}")
    if path.is_dir():
        raise ValueError(f"{caller}: {option} {path} is a folder; name a file in it")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{caller}: nothing can be written into the folder {path.parent}")


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes numbers and words for other programs."""
    import json

    from pointwise.atomic import replacing

    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
