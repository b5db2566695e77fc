"""NumPy's own files: NPY with one array of points, NPZ with named arrays.

Keys of an NPZ: ``points [N, 3 + F]`` (further columns named by ``columns``; also ``pos``, ``xyz``
and the like), ``labels [N]`` (or ``label``, ``y``, ``segment``, …), ``classes`` (names; of the
codes ``class_codes``, or 0, 1, …), ``label`` (of the whole cloud), ``group``; any other numeric
array ``[N]`` or ``[N, K]`` is a field. With ``offsets [B + 1]`` it holds B clouds, and
``label [B]``. With ``frame [N]``, ``recording [N]`` and ``label [recordings]`` it holds recordings,
which are cut into windows of frames. What is none of these is not unpacked.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import LABELS, scan_from_columns, to_color
from pointwise.cloud.files.unpack import check_unpacked
from pointwise.cloud.scan import UNLABELLED, Scan

_KEYS = ("points", "columns", "labels", "classes", "class_codes", "label", "group", "offsets")
_OTHER_POINTS = (
    "positions",
    "position",
    "pos",
    "xyz",
    "coords",
    "coord",
    "coordinates",
    "vertices",
)
_POINT_LABELS = ("labels", *LABELS, "y", "segment", "semantic_gt")
_MOST_COLUMNS = 16  # [3, N] with more is three rows of coordinates


class _Kind(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


def read_npy(path: Path) -> list[Scan]:
    """The one cloud of an NPY file ``[N, 3 + F]``; columns beyond z are ``feature0``, …

    Of a structured array the names are those of columns.
    """
    with open(path, "rb") as stream:
        _kind(stream, path.stat().st_size)
    table = _native(np.load(path, allow_pickle=False))
    if table.dtype.names:
        table = table.reshape(-1)
        columns = {name: table[name] for name in table.dtype.names or ()}
        numbers = {n: v for n, v in columns.items() if v.dtype.kind in "buif" and v.ndim <= 2}
        return [scan_from_columns(numbers)]
    if table.ndim == 2 and table.shape[0] == 3 and table.shape[1] > 3:
        if table.shape[1] > _MOST_COLUMNS:
            warnings.warn(
                f"{path}: {list(table.shape)} is read as three rows x, y, z of "
                f"{table.shape[1]} points; save the array as [N, 3]",
                stacklevel=5,
            )
            table = table.T
        else:
            warnings.warn(
                f"{path}: {list(table.shape)} is read as 3 points of {table.shape[1]} columns; "
                "where it is three rows x, y, z, save the array as [N, 3]",
                stacklevel=5,
            )
    return [_from_table(table, None)]


def read(path: Path, window: int, stride: int) -> list[Scan]:
    """The clouds of an NPZ file; of recordings, one for every ``window`` frames."""
    with _open(path) as archive:
        kinds = _kinds(archive)
        place = _points_name(kinds)
        n = kinds[place].shape[0] if kinds[place].shape else 0
        wanted = [name for name, kind in kinds.items() if _is_used(name, kind, n)]
        arrays = {name: _native(_array(archive, name)) for name in dict.fromkeys((place, *wanted))}
    if place == "x":
        arrays["points"] = np.stack([arrays.pop(axis) for axis in "xyz"], axis=1)
    else:
        arrays["points"] = arrays.pop(place)
    whole = _from_table(arrays["points"], arrays.get("columns"))
    recordings = {"frame", "recording", "label"} <= arrays.keys() and arrays["label"].ndim == 1
    if not recordings and "offsets" not in arrays:
        whole.labels = _take_labels(arrays, len(whole))
    elif "labels" in arrays:
        whole.labels = _whole_numbers("labels", arrays["labels"], len(whole))
    for name, values in arrays.items():
        if name not in _KEYS and _is_field(name, _Kind(values.shape, values.dtype), len(whole)):
            whole.fields[name] = _typed(name, values)
    whole.classes = _classes(arrays)
    if recordings:
        return _windows(whole, arrays, window, stride)
    if "offsets" in arrays:
        return _batch(whole, arrays)
    if "label" in arrays:
        whole.label = int(_whole_numbers("label", arrays["label"].reshape(-1), 1)[0])
    if "group" in arrays:
        whole.group = str(arrays["group"])
    return [whole]


def _points_name(kinds: dict[str, _Kind]) -> str:
    """The array with the positions, or ``x`` where each axis has its own."""
    if "points" in kinds:
        return "points"
    found = [name for name in kinds if name.lower() in _OTHER_POINTS]
    if len(found) > 1:
        raise ValueError(f"has no array 'points', and several that may be: {', '.join(found)}")
    if not found and not {"x", "y", "z"} <= kinds.keys():
        raise ValueError(f"has no array 'points' (it has: {', '.join(kinds) or 'none'})")
    return found[0] if found else "x"


def _is_field(name: str, kind: _Kind, n: int) -> bool:
    return kind.dtype.kind in "buif" and len(kind.shape) in (1, 2) and kind.shape[0] == n


def _is_used(name: str, kind: _Kind, n: int) -> bool:
    return name in (*_KEYS, "recording_name") or _is_field(name, kind, n)


def _take_labels(arrays: dict[str, np.ndarray], n: int) -> np.ndarray | None:
    """The labels of the points, taken from ``arrays`` with all else that has a name for labels.

    Others than the first become fields under a name that no format takes for the labels.
    """
    found = None
    for name in _POINT_LABELS:
        values = arrays.get(name)
        if values is None or (name == "label" and values.size == 1):
            continue
        if name == "labels":
            found = _whole_numbers("labels", arrays.pop(name), n)
        elif values.size == n and values.dtype.kind in "buif":
            del arrays[name]
            whole = values.dtype.kind != "f" or _is_whole(values)
            if found is None and whole:
                found = _whole_numbers(name, values, n)
            else:
                arrays[f"extra_{name}"] = values
    return found


def check_labels(source: Path, scan: Scan, codes: np.ndarray, path: Path) -> None:
    """An NPZ that was read takes any labels."""


def write(scan: Scan, path: Path) -> None:
    """Writes a compressed NPZ with every field under its name."""
    arrays = {"points": scan.points}
    for name, values in scan.fields.items():
        if name in _KEYS:
            raise ValueError(f"a field is named {name!r}, as a part of the file is; rename it")
        if values.dtype.kind not in "buif" or values.ndim not in (1, 2):
            raise ValueError(
                f"field {name!r} must be numbers [{len(scan)}] or [{len(scan)}, K], "
                f"got {values.dtype} {list(values.shape)}"
            )
        arrays[name] = values
    if scan.labels is not None:
        arrays["labels"] = scan.labels
    if scan.label is not None:
        arrays["label"] = np.array(scan.label)
    if scan.group:
        arrays["group"] = np.array(scan.group)
    _save(arrays | _class_arrays(scan), path)


def write_labels(source: Path, scan: Scan, labels: np.ndarray, path: Path) -> None:
    """Writes ``source`` again with ``labels``, and every other array as it was."""
    new = {"labels": labels.astype(np.int64)} | _class_arrays(scan)
    with (
        _open(source) as archive,
        replacing(path) as part,
        ZipFile(part, "w", ZIP_DEFLATED, allowZip64=True) as written,
    ):
        for member in archive.infolist():
            if member.filename.removesuffix(".npy") not in new:
                with (
                    archive.open(member) as old,
                    written.open(member.filename, "w", force_zip64=True) as copy,
                ):
                    shutil.copyfileobj(old, copy)
        for name, values in new.items():
            with written.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


@contextmanager
def _open(path: Path) -> Iterator[ZipFile]:
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            raise ValueError("not an NPZ file, which is a ZIP of arrays")
    try:
        with ZipFile(path) as archive:
            yield archive
    except BadZipFile as error:
        raise ValueError(f"damaged: {error}") from error


def _kinds(archive: ZipFile) -> dict[str, _Kind]:
    """Shape and type of each array, without unpacking it."""
    kinds = {}
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            with archive.open(member) as stream:
                kinds[member.filename.removesuffix(".npy")] = _kind(stream, member.file_size)
    return kinds


def _kind(stream: Any, size: int) -> _Kind:
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
    return _Kind(shape, dtype)


def _array(archive: ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    check_unpacked(f"array {name!r}", member.file_size, member.compress_size)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def _class_arrays(scan: Scan) -> dict[str, np.ndarray]:
    if not scan.classes:
        return {}
    codes = sorted(scan.classes)
    names = [scan.classes[code] for code in codes]
    return {"classes": np.array(names, dtype=np.str_), "class_codes": np.array(codes)}


def _from_table(table: np.ndarray, names: np.ndarray | None) -> Scan:
    if table.ndim != 2 or table.shape[1] < 3 or table.dtype.kind not in "uif":
        raise ValueError(
            f"points must be numbers [N, 3] or with more columns, "
            f"got {table.dtype} {list(table.shape)}"
        )
    if names is not None:
        if names.ndim != 1 or len(names) != table.shape[1]:
            raise ValueError(f"columns must name {table.shape[1]} columns, got {list(names.shape)}")
        return scan_from_columns(dict(zip(map(str, names), table.T, strict=True)))
    scan = Scan(points=table[:, :3].astype(np.float64))
    scan.fields = {f"feature{k}": table[:, 3 + k] for k in range(table.shape[1] - 3)}
    return scan


def _typed(name: str, values: np.ndarray) -> np.ndarray:
    if name == "color" and values.shape[1:] == (3,):
        return to_color(values)
    if name == "normal" and values.shape[1:] == (3,):
        return values.astype(np.float32)
    if name == "intensity":
        return values.reshape(len(values), -1)[:, 0].astype(np.float32)
    return values


def _is_whole(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)]
    return bool(np.array_equal(known, np.rint(known)) and (np.abs(known) < 2**63).all())


def _whole_numbers(name: str, values: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers ``[n]`` or ``[n, 1]``, of any type; NaN is unlabelled."""
    whole = values.dtype.kind in "bui" or (values.dtype.kind == "f" and _is_whole(values))
    if values.shape not in ((n,), (n, 1)) or not whole:
        raise ValueError(
            f"{name} must be whole numbers [{n}], got {values.dtype} {list(values.shape)}"
        )
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=UNLABELLED)
    return values.reshape(n).astype(np.int64)


def _classes(arrays: dict[str, np.ndarray]) -> dict[int, str]:
    names = arrays.get("classes", np.array([]))
    codes = arrays.get("class_codes", np.arange(names.size))
    if names.ndim != 1 or codes.shape != names.shape:
        raise ValueError(
            f"class_codes must be [{names.size}], one for each of the classes, "
            f"got {list(codes.shape)}"
        )
    return {int(code): str(name) for code, name in zip(codes, names, strict=True)}


def _batch(whole: Scan, arrays: dict[str, np.ndarray]) -> list[Scan]:
    offsets = arrays["offsets"]
    rising = offsets.ndim == 1 and len(offsets) and offsets.dtype.kind in "ui"
    if not rising or offsets[0] != 0 or offsets[-1] != len(whole) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must rise from 0 to the number of points, {len(whole)}")
    scans = [
        whole.select(np.arange(start, stop))
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    if "label" in arrays:
        labels = _whole_numbers("label", arrays["label"], len(scans))
        for scan, label in zip(scans, labels.tolist(), strict=True):
            scan.label = label
    return scans


def _windows(whole: Scan, arrays: dict[str, np.ndarray], window: int, stride: int) -> list[Scan]:
    """One cloud for every window of frames; a recording shorter than that is one window."""
    if window < 1 or stride < 1:
        raise ValueError(f"window and stride must be 1 or more, got {window} and {stride}")
    n = len(whole)
    frame = _whole_numbers("frame", arrays["frame"], n)
    recording = _whole_numbers("recording", arrays["recording"], n)
    labels = _whole_numbers("label", arrays["label"], len(arrays["label"]))
    if n and not (recording.min() >= 0 and recording.max() < len(labels)):
        raise ValueError(f"recording must be 0 to {len(labels) - 1}, one label for each")
    names = arrays.get("recording_name", np.arange(len(labels)))
    if names.shape != labels.shape:
        raise ValueError(f"recording_name must be [{len(labels)}], got {list(names.shape)}")
    for name in ("frame", "recording"):
        whole.fields.pop(name, None)  # what they say of a point is in the cloud's group and time
    order = np.lexsort((frame, recording))
    whole, frame, recording = whole.select(order), frame[order], recording[order]
    scans = []
    for number in np.unique(recording).tolist():
        first, last = np.searchsorted(recording, [number, number + 1])
        frames = frame[first:last]
        begin, end = int(frames[0]), int(frames[-1]) + 1
        for start in range(begin, max(end - window, begin) + 1, stride):
            low, high = first + np.searchsorted(frames, [start, start + window])
            if high > low:
                scan = whole.select(np.arange(low, high))
                scan.fields["time"] = ((frame[low:high] - start) / window).astype(np.float32)
                scan.label = int(labels[number])
                scan.group = str(names[number])
                scan.name = f"{scan.group}[{start}:{start + window}]"
                scans.append(scan)
    return scans
