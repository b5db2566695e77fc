"""LAS and LAZ files opened and saved with laspy, and what is damaged in them said first."""

from __future__ import annotations

import logging
import multiprocessing
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.extras import import_extra

LAYERED = 3  # LAZ's compressor for point formats 6 to 10
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # of LAZ's items Point14, RGB14, RGBNIR14, Wavepacket14
# LAZ holds some 150 points in a byte where all of them are the same, and less than 8 elsewhere.
POINTS_PER_BYTE = 256

# The threads that lazrs decompresses with are not there in a process that was forked from one that
# has used them: it would wait for them forever.
_process = {"forked": multiprocessing.parent_process() is not None}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _process.update(forked=True))


def load(path: Path) -> Any:
    """The file as laspy has it; raises ValueError where it is damaged or truncated."""
    laspy = import_extra("laspy", "files")
    # Without a handler laspy's log lines would reach stderr beside the error that is raised.
    logging.getLogger("laspy").addHandler(logging.NullHandler())
    _check_records(path)
    with laspy.open(path, laz_backend=backend()) as reader:
        held = _points_held(path, reader.header)
        if reader.header.point_count > held:
            raise ValueError(
                f"truncated: the header says {reader.header.point_count} points, "
                f"the file has room for {held}"
            )
        las = reader.read()
    if len(las.points) != las.header.point_count:
        raise ValueError(
            f"truncated: the header says {las.header.point_count} points, "
            f"{len(las.points)} could be read"
        )
    return las


def _points_held(path: Path, header: Any) -> int:
    """The most points the file can have; raises where its LAZ chunks are longer than it is.

    lazrs ends the process when it cannot reserve what a damaged header or chunk table says.
    """
    room = max(path.stat().st_size - header.offset_to_point_data, 0)
    if not header.are_points_compressed:
        return room // header.point_format.size
    if not header.point_count:
        return 0
    lazrs = import_extra("lazrs", "files")
    with open(path, "rb") as stream:
        stream.seek(header.offset_to_point_data)
        (table,) = struct.unpack("<q", stream.read(8))
        if table == -1:  # written to a stream: the offset came last
            stream.seek(-8, 2)
            (table,) = struct.unpack("<q", stream.read(8))
        stream.seek(max(table, 0))
        _, chunks = struct.unpack("<II", stream.read(8))
        if chunks > room:
            raise ValueError(f"damaged: its chunk table says {chunks} chunks in {room} bytes")
        stream.seek(header.offset_to_point_data)
        record = header.vlrs.get("LasZipVlr")[0].record_data
        sizes = lazrs.read_chunk_table(stream, lazrs.LazVlr(record))
        _check_layers(stream, header, bytes(record), [length for _, length in sizes])
    if sum(length for _, length in sizes) > room:
        raise ValueError(f"truncated: its chunk table says more than the {room} bytes it has")
    largest = max((count for count, _ in sizes), default=0)
    if largest * header.point_format.size > 2**31:
        raise ValueError(f"damaged: a LAZ chunk says {largest} points, most have 50,000")
    if len({count for count, _ in sizes}) > 1:  # else the last one may be filled in part
        count, length = max(sizes, key=lambda chunk: chunk[0] / max(chunk[1], 1))
        if count > POINTS_PER_BYTE * length:
            raise ValueError(f"damaged: a LAZ chunk says {count} points in {length} bytes")
    held = sum(count for count, _ in sizes)
    if POINTS_PER_BYTE * room < header.point_count <= held:
        raise ValueError(f"damaged: the header says {header.point_count} points in {room} bytes")
    return held


def _check_layers(stream: Any, header: Any, record: bytes, lengths: list[int]) -> None:
    """Raises where a chunk says layers that are longer than it is: space for them is reserved.

    In point formats above 5 a chunk is its first point, the number of points, the lengths of the
    layers, the layers.
    """
    compressor, items = struct.unpack_from("<H30xH", record)
    if compressor != LAYERED:
        return
    kinds = [struct.unpack_from("<HH", record, 34 + 6 * k) for k in range(items)]
    layers = sum(LAYERS.get(kind, size) for kind, size in kinds)  # one for each extra byte
    start = header.offset_to_point_data + 8
    head = sum(size for _, size in kinds) + 4
    for length in lengths:
        stream.seek(start + head)
        said = np.frombuffer(stream.read(4 * layers), "<u4").sum(dtype=np.int64)
        if head + 4 * layers + said > length:
            raise ValueError(f"damaged: a LAZ chunk of {length} bytes says layers of {said} bytes")
        start += length


def _check_records(path: Path) -> None:
    """Raises where the header says more VLRs than fit: laspy would read billions of empty ones."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(247)
    if header[:4] != b"LASF" or len(header) < 227:
        raise ValueError("not a LAS file: it does not begin with a header that says LASF")
    if header[25] > 4 or header[104] & 63 > 10:
        raise ValueError(
            f"LAS 1.{header[25]}, point format {header[104] & 63}: known are LAS 1.0 to 1.4 and "
            "the point formats 0 to 10"
        )
    if 0.0 in struct.unpack_from("<3d", header, 131):
        raise ValueError("damaged: its header scales coordinates by 0")
    (vlrs,) = struct.unpack_from("<I", header, 100)
    (evlrs,) = struct.unpack_from("<I", header, 243) if header[25] >= 4 else (0,)
    if 54 * vlrs + 60 * evlrs > size:  # the bytes of their headers alone
        raise ValueError(f"damaged: the header says {vlrs} VLRs and {evlrs} EVLRs in {size} bytes")


def save(las: Any, path: Path) -> None:
    """Writes the file in the place of another only when it is whole."""
    with replacing(path) as part:
        las.write(part, laz_backend=backend())


def backend() -> Any:
    """How LAZ is decompressed: by all threads, or by this one in a process that was forked."""
    laspy = import_extra("laspy", "files")
    return laspy.LazBackend.Lazrs if _process["forked"] else laspy.LazBackend.detect_available()
