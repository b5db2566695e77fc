"""What compressed files may unpack to: a few kilobytes can say that they are terabytes."""

from __future__ import annotations

import os

from pointwise.messages import rounded

LARGE = 2**30  # bytes; what unpacks to less is read without a question
RATIO = 500  # zeros shrink to a thousandth, measured numbers to a tenth


def check_unpacked(name: str, unpacked: int, stored: int) -> None:
    """Raises ValueError where ``stored`` bytes of a file would unpack to more than is sensible."""
    if unpacked > LARGE and (unpacked > RATIO * stored or unpacked > _memory() / 2):
        raise ValueError(
            f"{name} would unpack {rounded(stored / 1e6)} MB to {rounded(unpacked / 1e9)} GB, "
            "more than is read; cut the cloud in parts"
        )


def _memory() -> float:
    """The bytes of the machine's memory, where it can be asked."""
    if not hasattr(os, "sysconf"):
        return float("inf")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
