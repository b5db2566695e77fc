"""KITTI's Velodyne ``.bin``, with SemanticKITTI's ``.label`` where there is one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointwise.cloud.files.columns import scan_from_columns
from pointwise.cloud.scan import UNLABELLED, Scan

# SemanticKITTI's semantic-kitti.yaml; code 0 is unlabelled.
CLASSES = {
    1: "outlier",
    10: "car",
    11: "bicycle",
    13: "bus",
    15: "motorcycle",
    16: "on-rails",
    18: "truck",
    20: "other-vehicle",
    30: "person",
    31: "bicyclist",
    32: "motorcyclist",
    40: "road",
    44: "parking",
    48: "sidewalk",
    49: "other-ground",
    50: "building",
    51: "fence",
    52: "other-structure",
    60: "lane-marking",
    70: "vegetation",
    71: "trunk",
    72: "terrain",
    80: "pole",
    81: "traffic-sign",
    99: "other-object",
    252: "moving-car",
    253: "moving-bicyclist",
    254: "moving-person",
    255: "moving-motorcyclist",
    256: "moving-on-rails",
    257: "moving-bus",
    258: "moving-truck",
    259: "moving-other-vehicle",
}


_KITTI = ("x", "y", "z", "intensity")
_NUSCENES = (*_KITTI, "ring")


def read(path: Path, columns: Sequence[str] | None = None) -> list[Scan]:
    """One sweep: float32 x, y, z (metres, sensor frame), intensity, or what ``columns`` names.

    nuScenes adds the ring, in files that end in ``.pcd.bin``, or whose numbers fit nothing else.
    Labels come from ``<stem>.label`` beside the file or in ``../labels``. The group is the sequence
    where the file lies in ``<sequence>/velodyne``.
    """
    label = next((file for file in _label_files(path) if file.is_file()), None)
    names = columns or _names(path, None if label is None else label.stat().st_size // 4)
    size = path.stat().st_size
    width = 4 * len(names)
    if size % width:
        raise ValueError(f"not a .bin of {width} bytes a point, or truncated: it has {size} bytes")
    table = np.fromfile(path, "<f4").reshape(-1, len(names))
    pairs = zip(names, table.T, strict=True)
    scan = scan_from_columns({name: values.copy() for name, values in pairs if name != "_"})
    if columns is None:
        scan.unit = "m"  # as KITTI and nuScenes have it
    if path.parent.name == "velodyne":
        scan.group = path.parent.parent.name
    if label is not None:
        values = np.fromfile(label, "<u4")
        if len(values) != len(scan):
            raise ValueError(f"{label} has {len(values)} labels for {len(scan)} points")
        semantic = (values & 0xFFFF).astype(np.int64)
        scan.labels = np.where(semantic == 0, UNLABELLED, semantic)
        scan.fields["instance"] = (values >> 16).astype(np.int32)
        scan.classes = dict(CLASSES)
        if unlabelled := int((semantic == 0).sum()):
            scan.no_class = {0: (unlabelled, "unlabelled in SemanticKITTI")}
        scan.assumed = ("class names are SemanticKITTI's",)
    return [scan]


def _names(path: Path, labels: int | None) -> tuple[str, ...]:
    """What the numbers of a point are: by the name, the labels, the length and the numbers.

    The file has no header. Raises ValueError where both readings fit, or none does.
    """
    if path.name.lower().endswith(".pcd.bin"):
        return _NUSCENES
    size = path.stat().st_size
    if path.parent.name == "velodyne" or (labels is not None and labels * 16 == size):
        return _KITTI
    if size % 16 and size % 20:
        raise ValueError(f"not a .bin of 16 bytes a point, or truncated: it has {size} bytes")
    fitting = [names for names in (_KITTI, _NUSCENES) if _fits(path, len(names))]
    if len(fitting) == 2:
        raise ValueError(
            f"two readings fit, {' '.join(_KITTI)!r} and {' '.join(_NUSCENES)!r}; "
            "say which with columns= (--columns), or end the second's name in .pcd.bin"
        )
    if not fitting:
        raise ValueError(
            f"its 32-bit floats are neither {' '.join(_KITTI)!r} nor {' '.join(_NUSCENES)!r}; "
            "name its columns with columns= (--columns), or save it as .npy"
        )
    warnings.warn(
        f"{path.with_name('*.bin')}: no header, so the columns are taken for "
        f"{' '.join(fitting[0])}; name others with columns= (--columns)",
        stacklevel=2,
    )
    return fitting[0]


def _fits(path: Path, width: int) -> bool:
    """Whether rows of ``width`` floats may be a sweep: no distance beyond 100 km, rings whole.

    A reading of another width mixes the columns up, so that coordinates, half of them below 0,
    stand where intensities should; doubles read as floats have exponents of all sizes.
    """
    if path.stat().st_size % (4 * width):
        return False
    numbers = np.fromfile(path, "<f4", count=width << 18)  # enough of them to tell
    if numbers.any() and not numbers[::2].any():  # whole numbers as doubles
        return False
    table = numbers.reshape(-1, width)
    table = table[np.isfinite(table[:, :3]).all(axis=1)]
    tiny = (table != 0) & (np.abs(table) < 1e-20)
    near = not len(table) or np.abs(table[:, :3]).max() < 1e5
    reflects = bool((table[:, 3] >= 0).all() and (table[:, 3] < 2**16).all())
    rings = table[:, 4:]
    whole = bool(((rings >= 0) & (rings < 256) & (rings == np.rint(rings))).all())
    return bool(near and not tiny.any() and reflects and whole)


def _label_files(path: Path) -> tuple[Path, Path]:
    name = path.with_suffix(".label").name
    return path.with_name(name), path.parent.parent / "labels" / name
