"""HDF5 as ModelNet40, ShapeNet parts, ScanObjectNN and S3DIS are prepared for training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.files.columns import as_field, as_labels, to_color
from pointwise.cloud.files.s3dis import CLASSES
from pointwise.cloud.files.unpack import check_unpacked
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra

SCAN_OBJECTS = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door",
    "shelf", "table", "bed", "pillow", "sink", "sofa", "toilet",
)  # fmt: skip
_LABELS = ("pid", "labels", "seg", "label")  # of points; the first goes before the others


def read(path: Path) -> list[Scan]:
    """The clouds of ``data [n, P, 3]`` (or ``[n, P, 9]``, S3DIS), with their labels.

    ``label [n]`` or ``[n, 1]`` labels whole clouds; ``pid [n, P]``, ``labels``, ``seg`` or
    ``label [n, P]`` points, the first of them that is there; other arrays ``[n, P]`` or
    ``[n, P, K]`` are fields. Class names come from ``shape_names.txt`` beside the file, and of
    ScanObjectNN, which has none, from the name of the file (``…_objectdataset…``). Of S3DIS,
    ``room_position`` is the place in the room (0 to 1), and the group is the area where
    ``room_filelist.txt`` lies beside.
    """
    h5py = import_extra("h5py", "files")
    with h5py.File(path, "r") as file:
        found = _datasets(file)
        data = found.pop("data", None)
        if (
            data is None
            or len(data.shape or ()) != 3
            or data.shape[2] not in (3, 6, 9)
            or data.dtype.kind != "f"
        ):
            got = "none" if data is None else f"{data.dtype} {list(data.shape or ())}"
            raise ValueError(
                f"needs a dataset 'data' of floats [n, P, 3], [n, P, 6] or [n, P, 9], got {got}"
            )
        n, p, width = data.shape
        arrays = {
            name: _numbers(item)
            for name, item in found.items()
            if name == "label" or (item.shape or ())[:2] == (n, p)
        }
        data = _numbers(data)
    label, labels, classes = _labels(path, arrays, n, p, rooms=width == 9)
    fields = {}
    for name, values in arrays.items():
        if values.shape[:2] == (n, p) and values.ndim <= 3 and values.dtype.kind in "buif":
            field = as_field(name, values.reshape(n * p, *values.shape[2:]))
            fields[f"extra_{name}" if name in _LABELS else name] = field.reshape(
                n, p, *field.shape[1:]
            )
    if width == 6:
        fields["normal"] = data[:, :, 3:].astype(np.float32)
    if width == 9:
        fields["color"] = np.stack([to_color(colors) for colors in data[:, :, 3:6]])
        fields["room_position"] = data[:, :, 6:].astype(np.float32)
    groups = _areas(path, n) if width == 9 else [""] * n
    return [
        Scan(
            points=data[i, :, :3].astype(np.float64),
            fields={name: values[i] for name, values in fields.items()},
            labels=None if labels is None else labels[i],
            classes=classes,
            label=None if label is None else int(label[i]),
            group=groups[i],
        )
        for i in range(n)
    ]


def _datasets(file: Any) -> dict[str, Any]:
    """The datasets of a file by name; links to other files are not followed."""
    h5py = import_extra("h5py", "files")
    links = {name: file.get(name, getlink=True) for name in file}
    own = [name for name, link in links.items() if isinstance(link, h5py.HardLink)]
    return {name: item for name in own if isinstance(item := file[name], h5py.Dataset)}


def _numbers(dataset: Any) -> np.ndarray:
    """What a dataset holds, of its own file alone, in the machine's byte order."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"dataset {dataset.name!r} lies in other files, which are not read")
    check_unpacked(
        f"dataset {dataset.name!r}",
        dataset.size * dataset.dtype.itemsize,
        dataset.id.get_storage_size(),
    )
    values = dataset[()]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _labels(
    path: Path, arrays: dict[str, np.ndarray], n: int, p: int, rooms: bool
) -> tuple[np.ndarray | None, np.ndarray | None, dict[int, str]]:
    """Labels of the clouds and of the points, taken from ``arrays``, and class names."""
    label, labels = None, None
    if "label" in arrays:
        given = arrays["label"]
        numbers = as_labels(given.reshape(-1))
        if numbers is None or (given.size != n and given.shape not in ((n, p), (n, p, 1))):
            raise ValueError(
                f"label must be whole numbers [{n}], [{n}, 1] or [{n}, {p}], "
                f"got {given.dtype} {list(given.shape)}"
            )
        if given.size == n:
            label = numbers
            del arrays["label"]
    for name in _LABELS:
        if labels is None and name in arrays and arrays[name].size == n * p:
            numbers = as_labels(arrays[name].reshape(-1))
            if numbers is not None:
                labels = numbers.reshape(n, p)
                del arrays[name]
    names = path.parent / "shape_names.txt"
    if rooms:
        return label, labels, dict(CLASSES)
    if label is not None and names.is_file():
        return label, labels, dict(enumerate(names.read_text(encoding="utf-8").split()))
    if label is not None and "objectdataset" in path.stem and label.max() < len(SCAN_OBJECTS):
        return label, labels, dict(enumerate(SCAN_OBJECTS))
    return label, labels, {}


def _areas(path: Path, n: int) -> list[str]:
    """The area of every block: ``room_filelist.txt`` has a line for each, through all the files."""
    rooms = path.parent / "room_filelist.txt"
    if not rooms.is_file():
        return [""] * n
    lines = rooms.read_text(encoding="utf-8").split()
    h5py = import_extra("h5py", "files")
    siblings = sorted(path.parent.glob("*.h5"), key=_number)
    start = 0
    for sibling in siblings[: siblings.index(path)]:
        with h5py.File(sibling, "r") as file:
            start += len(_datasets(file).get("data", ()))
    lines = lines[start : start + n]
    if len(lines) < n:
        raise ValueError(f"room_filelist.txt ends before block {start + n}, the last of this file")
    return ["_".join(line.split("_")[:2]) for line in lines]


def _number(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else -1
