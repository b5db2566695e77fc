"""Where commands write what they make."""

from __future__ import annotations

from pathlib import Path


def free(folder: Path) -> Path:
    """``folder``, with a number behind its name if that exists already."""
    count = 1
    named = folder
    while named.exists():
        count += 1
        named = folder.with_name(f"{folder.name}-{count}")
    return named
