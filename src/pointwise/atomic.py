"""Files appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; renames it to ``path`` when the block succeeds.

    When the block fails or is interrupted, the part file is removed and ``path`` is as it was.
    Each part file has a name of its own, so that of several writers the last to end is the one
    whose file stays. It keeps the suffix, since many libraries choose a format by it. A file that
    is replaced hands on its permissions, and a link stays a link, to the new file.
    """
    path = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name may have 255 bytes, and a character four of them.
    part = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}.part{path.suffix}")
    try:
        yield part
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
