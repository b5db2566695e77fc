"""E57, the exchange format of terrestrial laser scanners, read by pye57."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.files.columns import scan_from_columns, to_color
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra

_CARTESIAN = ("cartesianX", "cartesianY", "cartesianZ")
_SPHERICAL = ("sphericalRange", "sphericalAzimuth", "sphericalElevation")
_COLORS = ("colorRed", "colorGreen", "colorBlue")
_NAMES = {
    "intensity": "intensity",
    "colorRed": "red",
    "colorGreen": "green",
    "colorBlue": "blue",
    "rowIndex": "row",
    "columnIndex": "column",
}


def read(path: Path) -> list[Scan]:
    """All scans of an E57 file in the file's global frame (metres), as one cloud.

    Points that the file marks as invalid have no coordinates (NaN). Of several scans, which the
    field ``scan`` numbers, the fields that all have are kept.
    """
    pye57 = import_extra("pye57", "files")
    with open(path, "rb") as stream:
        if stream.read(8) != b"ASTM-E57":
            raise ValueError("not an E57 file: it does not begin with ASTM-E57")
    with pye57.E57(str(path)) as file:
        if not file.scan_count:
            raise ValueError("holds no scan")
        parts = [_columns(file, number, path.stat().st_size) for number in range(file.scan_count)]
    parts = [part for part in parts if len(part["x"])] or parts[:1]
    for number, part in enumerate(parts):
        part["scan"] = np.full(len(part["x"]), number, np.int32)
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    if len(parts) == 1:
        shared.remove("scan")
    if lost := sorted({name for part in parts for name in part} - {*shared, "scan"}):
        warnings.warn(
            f"{path}: left out {', '.join(lost)}, which not all of its {len(parts)} scans have",
            stacklevel=2,
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in shared}
    return [replace(scan_from_columns(columns), unit="m")]  # by E57's standard


def _columns(file: Any, number: int, size: int) -> dict[str, np.ndarray]:
    header = file.get_header(number)
    present = set(header.point_fields)
    position = next(
        (names for names in (_CARTESIAN, _SPHERICAL) if present.issuperset(names)), None
    )
    if position is None:
        raise ValueError(f"scan {number} has no coordinates (it has: {', '.join(sorted(present))})")
    if header.point_count * max(_bits(header), 1) > 8 * size:
        raise ValueError(f"truncated: a scan says {header.point_count} points in {size} bytes")
    state = "cartesianInvalidState" if position is _CARTESIAN else "sphericalInvalidState"
    wanted = [*position, *(name for name in (*_NAMES, state) if name in present)]
    values = _read(file, header, wanted)
    points = np.stack([values.pop(name) for name in position], axis=1)
    if position is _SPHERICAL:
        points = _cartesian(points)
    if header.has_pose():
        points = file.to_global(points, header.rotation, header.translation)
    if state in values:
        points[values.pop(state) != 0] = np.nan
    columns = dict(zip("xyz", points.T, strict=True))
    if present.issuperset(_COLORS):
        top = _brightest(header)
        values |= {name: to_color(values[name], top) for name in _COLORS}
    return columns | {_NAMES[name]: column for name, column in values.items()}


def _bits(header: Any) -> int:
    """What a point takes in the file, at least."""
    libe57 = import_extra("pye57", "files").libe57
    node = import_extra("pye57.utils", "files").get_node
    prototype = libe57.StructureNode(header.points.prototype())
    bits = 0
    for name in header.point_fields:
        field = node(prototype, name)
        if isinstance(field, libe57.FloatNode):
            bits += 32 if field.precision() == libe57.FloatPrecision.E57_SINGLE else 64
        elif isinstance(field, (libe57.IntegerNode, libe57.ScaledIntegerNode)):
            bits += (field.maximum() - field.minimum()).bit_length()
    return bits


def _brightest(header: Any) -> float | None:
    """The highest value that a colour can have, where the scan says it."""
    if not header.node.isDefined("colorLimits"):
        return None
    limits = header.node["colorLimits"]
    names = [f"{name}Maximum" for name in _COLORS if limits.isDefined(f"{name}Maximum")]
    return max((float(limits[name].value()) for name in names), default=None)


def _read(file: Any, header: Any, names: list[str]) -> dict[str, np.ndarray]:
    """The columns as float64, since pye57's own buffers hold colours of 8 bits only."""
    libe57 = import_extra("pye57", "files").libe57
    values = {name: np.zeros(header.point_count, np.float64) for name in names}
    buffers = libe57.VectorSourceDestBuffer()
    for name, array in values.items():
        buffers.append(
            libe57.SourceDestBuffer(file.image_file, name, array, len(array), True, True)
        )
    read = header.points.reader(buffers).read() if header.point_count else 0
    if read != header.point_count:
        raise ValueError(
            f"truncated: a scan says {header.point_count} points, {read} could be read"
        )
    return values


def _cartesian(points: np.ndarray) -> np.ndarray:
    distance, azimuth, elevation = points.T
    flat = distance * np.cos(elevation)
    return np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)], axis=1
    )
