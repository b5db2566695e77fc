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
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import (
    LABELS,
    as_field,
    as_labels,
    named,
    scan_from_columns,
)
from pointwise.cloud.files.npz_archive import (
    ArrayKind,
    array_of,
    kind_of,
    kinds_of,
    native,
    open_npz,
)
from pointwise.cloud.scan import Scan

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


def read_npy(path: Path) -> list[Scan]:
    """The one cloud of an NPY file ``[N, 3 + F]``; columns beyond z are ``feature0``, …

    Of a structured array the names are those of columns.
    """
    with open(path, "rb") as stream:
        kind_of(stream, path.stat().st_size)
    table = native(np.load(path, allow_pickle=False))
    if table.dtype.names:
        table = table.reshape(-1)
        columns = {name: table[name] for name in table.dtype.names or ()}
        numbers = {n: v for n, v in columns.items() if v.dtype.kind in "buif" and v.ndim <= 2}
        return [scan_from_columns(numbers)]
    return [_from_table(_as_rows(path, table), None)]


def _as_rows(path: Path, table: np.ndarray) -> np.ndarray:
    """Points ``[N, 3 + F]`` of an array that may be ``[3, N]``; warns where it could be either."""
    if table.ndim != 2 or table.shape[0] != 3 or table.shape[1] <= 3:
        return table
    if _is_three_rows(table.shape):
        warnings.warn(
            f"{path}: {list(table.shape)} is read as three rows x, y, z of "
            f"{table.shape[1]} points; save the array as [N, 3]",
            stacklevel=6,
        )
        return table.T
    warnings.warn(
        f"{path}: {list(table.shape)} is read as 3 points of {table.shape[1]} columns; "
        "where it is three rows x, y, z, save the array as [N, 3]",
        stacklevel=6,
    )
    return table


def _is_three_rows(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == 3 and shape[1] > _MOST_COLUMNS


def read(path: Path, window: int, stride: int) -> list[Scan]:
    """The clouds of an NPZ file; of recordings, one for every ``window`` frames."""
    with open_npz(path) as archive:
        kinds = kinds_of(archive)
        place = _points_name(kinds)
        three_rows = "columns" not in kinds and _is_three_rows(kinds[place].shape)
        n = kinds[place].shape[1 if three_rows else 0] if kinds[place].shape else 0
        wanted = [name for name, kind in kinds.items() if _is_used(name, kind, n)]
        arrays = {name: native(array_of(archive, name)) for name in dict.fromkeys((place, *wanted))}
    if place == "x":
        arrays["points"] = np.stack([arrays.pop(axis) for axis in "xyz"], axis=1)
    else:
        arrays["points"] = arrays.pop(place)
    if "columns" not in arrays:
        arrays["points"] = _as_rows(path, arrays["points"])
    whole = _from_table(arrays["points"], arrays.get("columns"))
    recordings = {"frame", "recording", "label"} <= arrays.keys() and arrays["label"].ndim == 1
    labels = None
    if not recordings and "offsets" not in arrays:
        labels = _take_labels(path, arrays, len(whole))
    elif "labels" in arrays:
        labels = _whole_numbers("labels", arrays["labels"], len(whole))
    fields = {
        name: as_field(name, values)
        for name, values in arrays.items()
        if name not in _KEYS and _is_field(name, ArrayKind(values.shape, values.dtype), len(whole))
    }
    _add(path, whole, fields, labels)
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


def _points_name(kinds: dict[str, ArrayKind]) -> str:
    """The array with the positions, or ``x`` where each axis has its own."""
    if "points" in kinds:
        return "points"
    found = [name for name in kinds if name.lower() in ("points", *_OTHER_POINTS)]
    if len(found) > 1:
        raise ValueError(f"has no array 'points', and several that may be: {', '.join(found)}")
    if not found and not {"x", "y", "z"} <= kinds.keys():
        raise ValueError(f"has no array 'points' (it has: {', '.join(kinds) or 'none'})")
    return found[0] if found else "x"


def _is_field(name: str, kind: ArrayKind, n: int) -> bool:
    return kind.dtype.kind in "buif" and len(kind.shape) in (1, 2) and kind.shape[0] == n


def _is_used(name: str, kind: ArrayKind, n: int) -> bool:
    return name in (*_KEYS, "recording_name") or _is_field(name, kind, n)


def _take_labels(path: Path, arrays: dict[str, np.ndarray], n: int) -> np.ndarray | None:
    """The labels of the points, taken from ``arrays`` with all else that has a name for labels.

    Others than the first become fields under a name that no format takes for the labels; unless
    the first is ``labels``, a line says which it is.
    """
    found = taken = None
    for name in sorted(arrays, key=_place_of_labels):
        values = arrays[name]
        if _place_of_labels(name) == len(_POINT_LABELS) or (name == "label" and values.size == 1):
            continue
        if name == "y" and {"x", "z"} <= arrays.keys():
            continue  # a coordinate of something
        if name == "labels":
            found, taken = _whole_numbers("labels", arrays.pop(name), n), name
        elif values.size == n and values.dtype.kind in "buif":
            del arrays[name]
            labels = as_labels(values.reshape(n))
            if found is None and labels is not None:
                found, taken = labels, name
                continue
            if found is not None and labels is not None and taken != "labels":
                warnings.warn(
                    f"{path}: the labels are array {taken!r}; {name!r}, which could be labels too, "
                    f"is the field 'extra_{name}'",
                    stacklevel=5,
                )
            arrays[f"extra_{name}"] = values
    return found


def _place_of_labels(name: str) -> int:
    """How early an array is taken for the labels, by its name in letters of any case."""
    known = name if len(name) == 1 else name.lower()
    return _POINT_LABELS.index(known) if known in _POINT_LABELS else len(_POINT_LABELS)


def _add(path: Path, whole: Scan, fields: dict[str, np.ndarray], labels: np.ndarray | None) -> None:
    """Adds what has an array of its own, which goes before a column of the points."""
    twice = [name for name in fields if name in whole.fields]
    for name in twice:
        whole.fields[f"extra_{name}"] = whole.fields.pop(name)
    if labels is not None and whole.labels is not None:
        whole.fields["extra_label"] = whole.labels
        twice.append("label")
    for name in twice:
        warnings.warn(
            f"{path}: {name!r} is a column of the points and an array of its own; the column is "
            f"the field 'extra_{name}'",
            stacklevel=5,
        )
    whole.fields.update(fields)
    whole.labels = whole.labels if labels is None else labels


def check_labels(
    source: Path, scan: Scan, codes: np.ndarray, path: Path, fields: dict[str, np.ndarray]
) -> None:
    """An NPZ that was read takes any labels, and fields of any name."""


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


def write_labels(
    source: Path, scan: Scan, labels: np.ndarray, path: Path, fields: dict[str, np.ndarray]
) -> None:
    """Writes ``source`` again with ``labels`` and ``fields``, and every other array as it was."""
    new = {"labels": labels.astype(np.int64)} | fields | _class_arrays(scan)
    with (
        open_npz(source) as archive,
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
        return scan_from_columns(named([*map(str, names)], table.T))
    scan = Scan(points=table[:, :3].astype(np.float64))
    scan.fields = {f"feature{k}": table[:, 3 + k] for k in range(table.shape[1] - 3)}
    return scan


def _whole_numbers(name: str, values: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers ``[n]`` or ``[n, 1]``, of any type; what is not finite is unlabelled."""
    labels = as_labels(values) if values.shape in ((n,), (n, 1)) else None
    if labels is None:
        raise ValueError(
            f"{name} must be whole numbers [{n}], got {values.dtype} {list(values.shape)}"
        )
    return labels


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
