"""PLY: vertices with any properties, read and written by plyfile."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import columns_from_fields, scan_from_columns
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra

# PLY has no place for class names, so they travel as comments: "comment class 6 building".
_CLASS_COMMENT = re.compile(r"class (-?\d+) (.+)")


def read(path: Path) -> list[Scan]:
    """The vertices of a PLY file as one cloud; faces and other elements are left out."""
    vertices, comments = _read_vertices(path)
    columns = {
        name: vertices[name]
        for name in vertices.dtype.names or ()
        if vertices.dtype[name].kind != "O"  # lists have another length at every vertex
    }
    scan = scan_from_columns(columns)
    matches = [m for comment in comments if (m := _CLASS_COMMENT.fullmatch(comment.strip()))]
    scan.classes = {int(match[1]): match[2] for match in matches}
    return [scan]


def write(scan: Scan, path: Path) -> None:
    """Writes binary PLY with every field; coordinates are doubles."""
    plyfile = import_extra("plyfile", "files")
    columns = dict(zip("xyz", scan.points.astype(np.float64).T, strict=True))
    for name, values in columns_from_fields(scan.fields, len(scan)).items():
        columns[_property_name(name)] = _property_values(name, values)
    if scan.labels is not None:
        if "label" in columns:
            raise ValueError("a field is named 'label', as the labels are; rename the field")
        columns["label"] = _label_values(scan.labels)
    vertices = np.empty(len(scan), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        vertices[name] = values
    element = plyfile.PlyElement.describe(vertices, "vertex")
    _save(plyfile.PlyData([element], byte_order="<", comments=_comments(scan.classes)), path)


def write_labels(source: Path, scan: Scan, labels: np.ndarray, path: Path) -> None:
    """Writes ``source`` again with a vertex property ``label``, and everything else as it was."""
    plyfile = import_extra("plyfile", "files")
    data = _load(source)
    old = data["vertex"]
    kept = [(name, old.data.dtype[name]) for name in old.data.dtype.names if name != "label"]
    vertices = np.empty(old.count, [*kept, ("label", np.int32)])
    for name, _ in kept:
        vertices[name] = old.data[name]
    vertices["label"] = _label_values(labels)
    lists = {p.name: p for p in old.properties if old.data.dtype[p.name].kind == "O"}
    element = plyfile.PlyElement.describe(
        vertices,
        "vertex",
        len_types={name: prop.len_dtype for name, prop in lists.items()},
        val_types={name: prop.val_dtype for name, prop in lists.items()},
        comments=old.comments,
    )
    others = [c for c in data.comments if not _CLASS_COMMENT.fullmatch(c.strip())]
    comments = [*others, *_comments(scan.classes)] if scan.classes else data.comments
    elements = [element if e.name == "vertex" else e for e in data.elements]
    _save(
        plyfile.PlyData(
            elements,
            text=data.text,
            byte_order=data.byte_order,
            comments=comments,
            obj_info=data.obj_info,
        ),
        path,
    )


def _read_vertices(path: Path) -> tuple[np.ndarray, list[str]]:
    """The vertices and the comments of the header.

    What follows the vertices is not even looked at: millions of faces take plyfile minutes, and
    faces that break the format do not matter to a cloud.
    """
    plyfile = import_extra("plyfile", "files")
    header, end, body = path.read_bytes().partition(b"end_header")
    later = re.search(rb"(?s)^element[ \t]+vertex\b.*?^(element\b)", header, re.MULTILINE)
    header = header[: later.start(1)] if later else header
    counts = _counts(header, len(body))
    empty = re.sub(rb"(?m)^(element[ \t]+\S+[ \t]+)\d+", rb"\g<1>0", header)
    layout = plyfile.PlyData.read(io.BytesIO(empty + end + b"\n"))
    _check_vertices(layout)
    dtype = layout["vertex"].dtype(layout.byte_order)
    if layout.text or len(layout.elements) > 1 or dtype.hasobject:
        data = plyfile.PlyData.read(io.BytesIO(header + end + body))
        return data["vertex"].data, data.comments
    # The usual case, which plyfile reads at once only where it can map a whole file into memory.
    start = 2 if header.startswith(b"ply\r\n") else 1
    count, held = counts["vertex"], (len(body) - start) // dtype.itemsize
    if count > held:
        raise ValueError(f"truncated: the header says {count} vertices, {held} follow")
    return np.frombuffer(body, dtype, count, start).copy(), layout.comments


def _load(path: Path) -> Any:
    plyfile = import_extra("plyfile", "files")
    header, _, body = path.read_bytes().partition(b"end_header")
    _counts(header, len(body))
    data = plyfile.PlyData.read(path)
    _check_vertices(data)
    return data


def _counts(header: bytes, room: int) -> dict[str, int]:
    """The rows of each element, which plyfile reserves before it reads the first."""
    found = re.findall(rb"^element[ \t]+(\S+)[ \t]+(\d+)", header, re.MULTILINE)
    counts = {name.decode("ascii", "replace"): int(count) for name, count in found}
    for name, count in counts.items():
        if count > room:  # each takes a byte at least
            raise ValueError(f"truncated: the header says {count} of {name!r}, {room} bytes follow")
    return counts


def _check_vertices(data: Any) -> None:
    if "vertex" not in data:
        raise ValueError("no element 'vertex', which holds the points of a PLY file")


def _save(data: Any, path: Path) -> None:
    with replacing(path) as part:
        data.write(part)


def _comments(classes: dict[int, str]) -> list[str]:
    lines = [f"class {code} {' '.join(name.split())}" for code, name in sorted(classes.items())]
    return [line.encode("ascii", "replace").decode() for line in lines]


def _property_name(name: str) -> str:
    return re.sub(r"[^!-~]", "_", name)  # a property's name is one word of ASCII


def _property_values(name: str, values: np.ndarray) -> np.ndarray:
    """PLY has no 64-bit integers: they become 32-bit ones, or doubles where those hold them."""
    if values.dtype.kind not in "ui" or values.dtype.itemsize < 8:
        return values
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if low >= -(2**31) and high < 2**31:
        return values.astype(np.int32)
    if max(-low, high) <= 2**53:
        return values.astype(np.float64)
    raise ValueError(f"PLY holds whole numbers to 2**53, field {name!r} has {high}; write .npz")


def _label_values(labels: np.ndarray) -> np.ndarray:
    if len(labels) and not (labels.min() >= -(2**31) and labels.max() < 2**31):
        raise ValueError(f"PLY holds 32-bit labels, got {labels.max()}; write .npz instead")
    return labels.astype(np.int32)
