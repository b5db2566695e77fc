"""KITTI's Velodyne ``.bin``, with SemanticKITTI's ``.label`` where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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


def read(path: Path) -> list[Scan]:
    """One sweep: float32 x, y, z (metres, sensor frame), intensity.

    nuScenes' ``.pcd.bin`` adds the ring. Labels come from ``<stem>.label`` beside the file or in
    ``../labels``. The group is the sequence where the file lies in ``<sequence>/velodyne``.
    """
    nuscenes = path.name.lower().endswith(".pcd.bin")
    names = ("intensity", "ring") if nuscenes else ("intensity",)
    size = path.stat().st_size
    width = 4 * (3 + len(names))
    if size % width:
        raise ValueError(f"not a .bin of {width} bytes a point, or truncated: it has {size} bytes")
    table = np.fromfile(path, "<f4").reshape(-1, 3 + len(names))
    scan = Scan(points=table[:, :3].astype(np.float64))
    scan.fields = {name: table[:, 3 + k].copy() for k, name in enumerate(names)}
    if path.parent.name == "velodyne":
        scan.group = path.parent.parent.name
    label = next((file for file in _label_files(path) if file.is_file()), None)
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


def _label_files(path: Path) -> tuple[Path, Path]:
    name = path.with_suffix(".label").name
    return path.with_name(name), path.parent.parent / "labels" / name
