"""PCD, the format of the Point Cloud Library: ascii, binary and binary_compressed."""

from __future__ import annotations

import codecs
import functools
import io
import math
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointwise.cloud.files.columns import named, scan_from_columns
from pointwise.cloud.files.tables import rows_of
from pointwise.cloud.scan import Scan

_TYPES = {"F": "f", "I": "i", "U": "u"}
_KEYS = (
    *("VERSION", "FIELDS", "COLUMNS", "SIZE", "TYPE", "COUNT"),
    *("WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA"),
)


@dataclass
class _Header:
    names: list[str]
    dtypes: list[np.dtype]
    counts: list[int]
    points: int
    organised: int | None  # points by WIDTH and HEIGHT
    encoding: str
    lines: int

    @property
    def size(self) -> int:
        """Bytes of a point as ``binary`` stores it."""
        return sum(d.itemsize * count for d, count in zip(self.dtypes, self.counts, strict=True))

    @property
    def record(self) -> np.dtype:
        """One point as ``binary`` stores it; fields go by number, since names may repeat."""
        fields = zip(self.dtypes, self.counts, strict=True)
        return np.dtype([(str(k), dtype, (count,)) for k, (dtype, count) in enumerate(fields)])


def read(path: Path) -> list[Scan]:
    """The one cloud of a PCD file.

    Organised clouds (a depth image) hold NaN where nothing was measured. Packed ``rgb`` and
    ``rgba`` become ``color``; fields called ``_`` are padding. The sensor's pose in ``VIEWPOINT``
    is not applied, as in PCL.
    """
    with open(path, "rb") as stream:
        header = _read_header(stream)
        body = stream.read()
    decode = {"ascii": _ascii, "binary": _binary, "binary_compressed": _compressed}[header.encoding]
    decoded, left = decode(header, body)
    if header.organised not in (None, header.points):
        raise ValueError(
            f"the header says POINTS {header.points}, and WIDTH × HEIGHT {header.organised}"
        )
    if left:
        warnings.warn(
            f"{path}: the header says {header.points} points; left out {left} behind them",
            stacklevel=2,
        )
    names, columns = [], []
    for name, count, values in zip(header.names, header.counts, decoded, strict=True):
        if name == "_" or count == 0:
            continue
        if name in ("rgb", "rgba") and values.dtype.itemsize == 4 and count == 1:
            packed = np.ascontiguousarray(values).view(np.uint32)
            for shift, channel in ((16, "red"), (8, "green"), (0, "blue")):
                names.append(channel)
                columns.append(((packed >> shift) & 255).astype(np.uint8))
        else:
            names.append(name)
            columns.append(values)
    return [scan_from_columns(named(names, columns))]


def _read_header(stream: io.BufferedReader) -> _Header:
    entries: dict[str, list[str]] = {}
    lines = 0
    while "DATA" not in entries:
        line = stream.readline(65536)
        lines += 1
        if not line:
            raise ValueError("not a PCD file: its header has no line DATA")
        words = line.removeprefix(codecs.BOM_UTF8).decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            if not entries and words[0].upper() not in _KEYS:
                raise ValueError(f"not a PCD file: it begins with {line[:20]!r}")
            entries[words[0].upper()] = words[1:]
    names = entries.get("FIELDS", entries.get("COLUMNS", []))  # COLUMNS before version .6
    entries = {"FIELDS": names, "SIZE": ["4"] * len(names), "TYPE": ["F"] * len(names), **entries}
    for key in ("FIELDS", "SIZE", "TYPE"):
        if len(entries[key]) != len(names) or not names:
            raise ValueError(f"the PCD header needs one {key} for every field")
    counts = _whole("COUNT", entries.get("COUNT", ["1"] * len(names)))
    if len(counts) != len(names):
        raise ValueError("the PCD header needs one COUNT for every field")
    sides = [side for key in ("WIDTH", "HEIGHT") for side in entries.get(key, [])[:1]]
    organised = math.prod(_whole("WIDTH and HEIGHT", sides)) if sides else None
    if "POINTS" in entries or organised is None:
        points = _whole("POINTS", entries.get("POINTS", []))[0]
    else:
        points = organised
    encoding = " ".join(entries["DATA"]).lower()
    if encoding not in ("ascii", "binary", "binary_compressed"):
        raise ValueError(
            f"PCD data are ascii, binary or binary_compressed, the header says {encoding!r}"
        )
    types = zip(entries["TYPE"], entries["SIZE"], strict=True)
    dtypes = [_dtype(kind.upper(), size) for kind, size in types]
    return _Header(names, dtypes, counts, points, organised, encoding, lines)


def _whole(key: str, words: list[str]) -> list[int]:
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"{key} in the PCD header must be whole numbers, got {' '.join(words)!r}")
    return [int(word) for word in words]


def _dtype(kind: str, size: str) -> np.dtype:
    sizes = ("4", "8") if kind == "F" else ("1", "2", "4", "8")
    if kind not in _TYPES or size not in sizes:
        raise ValueError(f"a PCD field cannot have TYPE {kind} of SIZE {size}")
    return np.dtype(f"<{_TYPES[kind]}{size}")


def _ascii(header: _Header, body: bytes) -> tuple[list[np.ndarray], str]:
    """The fields, and in words what follows them."""
    width = sum(header.counts)
    if header.points == 0:
        return _none(header), ""
    if header.points * width > len(body):
        _refuse(header, f"{len(body)} bytes follow")
    text = body.decode("ascii", "replace")
    held = len(text.lstrip().partition("\n")[0].split())
    if held not in (0, width):
        raise ValueError(f"the header says {width} numbers a point, the lines have {held}")
    table = rows_of("\n" * header.lines + text, width) if held else [np.empty(0)] * width
    if len(table[0]) < header.points:
        _refuse(header, f"{len(table[0])} lines follow")
    columns, start = [], 0
    for name, dtype, count in zip(header.names, header.dtypes, header.counts, strict=True):
        parts = [_typed(name, part[: header.points], dtype) for part in table[start:][:count]]
        columns.append(np.stack(parts or [np.empty(header.points)], axis=1))
        start += count
    more = len(table[0]) - header.points
    return [_squeeze(values) for values in columns], f"{more} lines" if more else ""


def _typed(name: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers of a text as the type that the header says; raises where it does not hold them."""
    if dtype.kind == "f":
        if name in ("rgb", "rgba"):
            if values.dtype.kind in "iu" and 1 <= values.max(initial=0) < 2**32:
                # Colours as whole numbers, whatever TYPE says: as floats they would be near 1e-38.
                return (values & (2**32 - 1)).astype(np.uint32)
            values = np.nan_to_num(values, nan=0)  # the bits of a NaN are not in its text
        with np.errstate(over="ignore"):  # which is infinite then
            return values.astype(dtype)
    if name == "_":
        return values
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f":
        whole = values == np.rint(values)
        fits = whole & (values >= float(limits.min)) & (values < float(limits.max) + 1)
    else:
        fits = (values >= limits.min) & (values <= limits.max)
    if not fits.all():
        said = f"TYPE {dtype.kind.upper()} of SIZE {dtype.itemsize}"
        raise ValueError(f"field {name!r} holds {values[~fits][0]}, the header says {said}")
    return values.astype(dtype)


def _binary(header: _Header, body: bytes) -> tuple[list[np.ndarray], str]:
    needed = header.points * header.size
    if needed > len(body):
        _refuse(header, f"{len(body)} of {needed} bytes follow")
    if header.points == 0:
        return _none(header), ""
    if 0 in header.counts and needed != len(body):
        # Some writers mean 1, and the bytes of every point would be taken for another's.
        raise ValueError(
            f"a COUNT of 0 makes {needed} bytes of {header.points} points, {len(body)} follow"
        )
    table = np.frombuffer(body, header.record, count=header.points)
    more = len(body) - needed
    columns = [_squeeze(table[name]) for name in header.record.names or ()]
    return columns, f"{more} bytes" if more >= header.size else ""


def _none(header: _Header) -> list[np.ndarray]:
    return [np.empty(0, dtype) for dtype in header.dtypes]


def _compressed(header: _Header, body: bytes) -> tuple[list[np.ndarray], str]:
    """Undoes LZF; all values of the first field come first, then all of the second."""
    size = header.points * header.size
    if header.points == 0:
        return _none(header), ""
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
    return columns, ""


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
