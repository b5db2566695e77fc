"""NumPy's own files: NPY with one array of points, NPZ with named arrays.

Keys of an NPZ: ``points [N, 3 + F]`` (further columns named by ``columns``), ``labels [N]``,
``classes`` (names; of the codes ``class_codes``, or 0, 1, …), ``label`` (of the whole cloud),
``group``; any other numeric array ``[N]`` or ``[N, K]`` is a field. With ``offsets [B + 1]`` it
holds B clouds, and ``label [B]``. With ``frame [N]``, ``recording [N]`` and ``label [recordings]``
it holds recordings, which are cut into windows of frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import scan_from_columns, to_color
from pointwise.cloud.scan import Scan

_KEYS = ("points", "columns", "labels", "classes", "class_codes", "label", "group", "offsets")


def read_npy(path: Path) -> list[Scan]:
    """The one cloud of an NPY file ``[N, 3 + F]``; columns beyond z are ``feature0``, …"""
    return [_from_table(np.load(path, allow_pickle=False), None)]


def read(path: Path, window: int, stride: int) -> list[Scan]:
    """The clouds of an NPZ file; of recordings, one for every ``window`` frames."""
    arrays = _load(path)
    if "points" not in arrays:
        raise ValueError(f"has no array 'points' (it has: {', '.join(arrays) or 'none'})")
    whole = _from_table(arrays["points"], arrays.get("columns"))
    n = len(whole)
    for name, values in arrays.items():
        numeric = values.dtype.kind in "buif" and values.ndim in (1, 2)
        if name not in _KEYS and numeric and len(values) == n:
            whole.fields[name] = _typed(name, values)
    if "labels" in arrays:
        whole.labels = _whole_numbers("labels", arrays["labels"], n)
    whole.classes = _classes(arrays)
    if {"frame", "recording", "label"} <= arrays.keys() and arrays["label"].ndim == 1:
        return _windows(whole, arrays, window, stride)
    if "offsets" in arrays:
        return _batch(whole, arrays)
    if "label" in arrays:
        whole.label = int(_whole_numbers("label", arrays["label"].reshape(-1), 1)[0])
    if "group" in arrays:
        whole.group = str(arrays["group"])
    return [whole]


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
    _save(_load(source) | {"labels": labels.astype(np.int64)} | _class_arrays(scan), path)


def _load(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            raise ValueError("not an NPZ file, which is a ZIP of arrays")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


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


def _whole_numbers(name: str, values: np.ndarray, n: int) -> np.ndarray:
    if values.shape != (n,) or values.dtype.kind not in "bui":
        raise ValueError(
            f"{name} must be whole numbers [{n}], got {values.dtype} {list(values.shape)}"
        )
    return values.astype(np.int64)


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
