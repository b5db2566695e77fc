"""Files that a command is to write are looked at before minutes of work, not after."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


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
