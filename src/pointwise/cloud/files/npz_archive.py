"""The arrays of an NPZ archive: what they are, and each unpacked when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np

from pointwise.cloud.files.unpack import check_unpacked


class ArrayKind(NamedTuple):
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


@contextmanager
def open_npz(path: Path) -> Iterator[ZipFile]:
    """The archive of an NPZ file; raises ValueError where it is none."""
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            raise ValueError("not an NPZ file, which is a ZIP of arrays")
    try:
        with ZipFile(path) as archive:
            yield archive
    except BadZipFile as error:
        raise ValueError(f"damaged: {error}") from error


def kinds_of(archive: ZipFile) -> dict[str, ArrayKind]:
    """Shape and type of each array, without unpacking it."""
    kinds = {}
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            name = member.filename.removesuffix(".npy")
            if name in kinds:
                raise ValueError(f"two arrays are named {name!r}")
            with archive.open(member) as stream:
                kinds[name] = kind_of(stream, member.file_size)
    return kinds


def kind_of(stream: Any, size: int) -> ArrayKind:
    """What the header of an NPY says; raises where it says more than the ``size`` it has."""
    version = np.lib.format.read_magic(stream)
    header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else (np.lib.format.read_array_header_2_0)
    )
    shape, _, dtype = header(stream)
    said, held = int(np.prod(shape, dtype=object)) * dtype.itemsize, size - stream.tell()
    if not dtype.hasobject and said > held:
        raise ValueError(f"truncated: the header says {said} bytes of numbers, {held} follow")
    return ArrayKind(shape, dtype)


def array_of(archive: ZipFile, name: str) -> np.ndarray:
    """One array, unpacked; raises ValueError where that would be gigabytes of a small file."""
    member = archive.getinfo(f"{name}.npy")
    check_unpacked(f"array {name!r}", member.file_size, member.compress_size)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def native(values: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's order of bytes."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)
