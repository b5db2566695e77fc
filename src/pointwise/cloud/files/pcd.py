"""PCD, the format of the Point Cloud Library: ascii, binary and binary_compressed."""

from __future__ import annotations

import functools
import io
import math
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointwise.cloud.files.columns import scan_from_columns
from pointwise.cloud.scan import Scan

_TYPES = {"F": "f", "I": "i", "U": "u"}


@dataclass
class _Header:
    names: list[str]
    dtypes: list[np.dtype]
    counts: list[int]
    points: int
    encoding: str

    @property
    def record(self) -> np.dtype:
        """One point as ``binary`` stores it; fields go by number, since names may repeat."""
        fields = zip(self.dtypes, self.counts, strict=True)
        return np.dtype([(str(k), dtype, (count,)) for k, (dtype, count) in enumerate(fields)])


def read(path: Path) -> list[Scan]:
    """The one cloud of a PCD file; points without finite coordinates are dropped with a warning.

    Organised clouds (a depth image) hold NaN where nothing was measured. Packed ``rgb`` and
    ``rgba`` become ``color``. The sensor's pose in ``VIEWPOINT`` is not applied, as in PCL.
    """
    with open(path, "rb") as stream:
        header = _read_header(stream)
        body = stream.read()
    decode = {"ascii": _ascii, "binary": _binary, "binary_compressed": _compressed}[header.encoding]
    columns: dict[str, np.ndarray] = {}
    for name, values in zip(header.names, decode(header, body), strict=True):
        if name == "_":  # padding
            continue
        if name in ("rgb", "rgba") and values.dtype.itemsize == 4:
            packed = np.ascontiguousarray(values).view(np.uint32)
            for shift, channel in ((16, "red"), (8, "green"), (0, "blue")):
                columns[channel] = ((packed >> shift) & 255).astype(np.uint8)
        else:
            columns[name] = values
    scan = scan_from_columns(columns)
    finite = np.isfinite(scan.points).all(axis=1)
    if not finite.all():
        dropped = len(scan) - int(finite.sum())
        warnings.warn(
            f"{path}: dropped {dropped} of {len(scan)} points, which have no finite coordinates",
            stacklevel=2,
        )
        scan = scan.select(finite)
    return [scan]


def _read_header(stream: io.BufferedReader) -> _Header:
    entries: dict[str, list[str]] = {}
    while "DATA" not in entries:
        line = stream.readline(65536)
        if not line:
            raise ValueError("not a PCD file: its header has no line DATA")
        words = line.decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
            if "VERSION" not in entries and "FIELDS" not in entries:
                raise ValueError(f"not a PCD file: it begins with {line[:20]!r}")
    for key in ("FIELDS", "SIZE", "TYPE"):
        if len(entries.get(key, [])) != len(entries.get("FIELDS", [])) or not entries.get(key):
            raise ValueError(f"the PCD header needs one {key} for every field")
    names = entries["FIELDS"]
    counts = _whole("COUNT", entries.get("COUNT", ["1"] * len(names)))
    if len(counts) != len(names) or min(counts) < 1:
        raise ValueError("the PCD header needs one COUNT of 1 or more for every field")
    if "POINTS" in entries:
        points = _whole("POINTS", entries["POINTS"])[0]
    else:
        sides = entries.get("WIDTH", []) + entries.get("HEIGHT", [])
        points = math.prod(_whole("WIDTH and HEIGHT", sides))
    encoding = " ".join(entries["DATA"]).lower()
    if encoding not in ("ascii", "binary", "binary_compressed"):
        raise ValueError(
            f"PCD data are ascii, binary or binary_compressed, the header says {encoding!r}"
        )
    types = zip(entries["TYPE"], entries["SIZE"], strict=True)
    return _Header(names, [_dtype(kind, size) for kind, size in types], counts, points, encoding)


def _whole(key: str, words: list[str]) -> list[int]:
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"{key} in the PCD header must be whole numbers, got {' '.join(words)!r}")
    return [int(word) for word in words]


def _dtype(kind: str, size: str) -> np.dtype:
    sizes = ("4", "8") if kind == "F" else ("1", "2", "4", "8")
    if kind not in _TYPES or size not in sizes:
        raise ValueError(f"a PCD field cannot have TYPE {kind} of SIZE {size}")
    return np.dtype(f"<{_TYPES[kind]}{size}")


def _ascii(header: _Header, body: bytes) -> list[np.ndarray]:
    width = sum(header.counts)
    text = io.StringIO(body.decode("ascii", "replace"))
    if header.points == 0:
        return [np.empty((0,), dtype) for dtype in header.dtypes]
    if header.points * width > len(body):
        _refuse(header, f"{len(body)} bytes follow")
    table = np.loadtxt(text, ndmin=2, comments=None, max_rows=header.points)
    if len(table) < header.points:
        _refuse(header, f"{len(table)} lines follow")
    if table.shape[1] != width:
        raise ValueError(
            f"the header says {width} numbers a point, the lines have {table.shape[1]}"
        )
    columns, start = [], 0
    for dtype, count in zip(header.dtypes, header.counts, strict=True):
        columns.append(_squeeze(table[:, start : start + count].astype(dtype)))
        start += count
    return columns


def _binary(header: _Header, body: bytes) -> list[np.ndarray]:
    record = header.record
    if header.points * record.itemsize > len(body):
        _refuse(header, f"{len(body)} of {header.points * record.itemsize} bytes follow")
    table = np.frombuffer(body, record, count=header.points)
    return [_squeeze(table[name]) for name in record.names or ()]


def _compressed(header: _Header, body: bytes) -> list[np.ndarray]:
    """Undoes LZF; all values of the first field come first, then all of the second."""
    size = header.points * header.record.itemsize
    if len(body) < 8:
        _refuse(header, f"{len(body)} bytes follow")
    packed, unpacked = struct.unpack("<II", body[:8])
    if unpacked != size or packed > len(body) - 8:
        _refuse(header, f"{len(body) - 8} of {packed} bytes follow, for {unpacked} of {size}")
    if unpacked > 264 * packed:  # three bytes of LZF make at most 264
        raise ValueError("the LZF-compressed data are broken")
    out = np.empty(unpacked, np.uint8)
    if unpacked and not _lzf()(np.frombuffer(body, np.uint8, packed, 8), out):
        raise ValueError("the LZF-compressed data are broken")
    columns, start = [], 0
    for dtype, count in zip(header.dtypes, header.counts, strict=True):
        stop = start + header.points * count * dtype.itemsize
        columns.append(_squeeze(out[start:stop].view(dtype).reshape(header.points, count)))
        start = stop
    return columns


def _squeeze(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1] == 1 else values


def _refuse(header: _Header, found: str) -> None:
    raise ValueError(f"truncated: the header says {header.points} points, {found}")


def _decompress_lzf(data: np.ndarray, out: np.ndarray) -> bool:
    """Unpacks ``data`` into ``out``; False where it does not fill it exactly.

    A control byte below 32 is followed by that many + 1 bytes to copy; any other has a length in
    its upper three bits and, with the next byte, how far back in ``out`` to copy from.
    """
    i = o = 0
    while i < len(data):
        control = int(data[i])
        i += 1
        if control < 32:
            length = control + 1
            if i + length > len(data) or o + length > len(out):
                return False
            for k in range(length):
                out[o + k] = data[i + k]
            i += length
        else:
            length = (control >> 5) + 2
            if control >> 5 == 7:
                if i >= len(data):
                    return False
                length += int(data[i])
                i += 1
            if i >= len(data):
                return False
            start = o - ((control & 31) << 8) - int(data[i]) - 1
            i += 1
            if start < 0 or o + length > len(out):
                return False
            for k in range(length):  # byte by byte: the source may overlap what is being written
                out[o + k] = out[start + k]
        o += length
    return o == len(out)


@functools.cache
def _lzf() -> Callable[[np.ndarray, np.ndarray], bool]:
    from pointwise.engine.cpu.launch import host

    return host()(_decompress_lzf)  # compiled, since there is a step for every few bytes
