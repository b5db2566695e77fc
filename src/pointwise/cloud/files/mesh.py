"""Meshes: the vertices of OFF files, and points sampled on the surface of OFF and PLY meshes."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.files.columns import scan_from_columns
from pointwise.cloud.files.ply_header import with_plain_lines
from pointwise.cloud.files.tables import Form, open_text, rows_of, without_comments
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra


@dataclass
class _Off:
    """The lines of an OFF file, without comments, and where its vertices and faces are."""

    kind: str  # what stands before OFF: N, C, ST
    lines: list[str]  # as many as the file has
    vertices: list[int]
    faces: list[int]


def read(path: Path) -> list[Scan]:
    """The vertices of an OFF file as one cloud, with normals (NOFF) and colours (COFF)."""
    off = _read_off(path)
    rows = set(off.vertices)
    text = "\n".join(line if k in rows else "" for k, line in enumerate(off.lines))
    width = len(off.lines[off.vertices[0]].split()) if rows else 3
    names = ["x", "y", "z"] + ["nx", "ny", "nz"] * ("N" in off.kind)
    if "C" in off.kind:
        names += ["red", "green", "blue"]
    if len(names) > width:
        raise ValueError(f"{off.kind}OFF has {len(names)} numbers a vertex, the lines have {width}")
    columns = rows_of(text, width) if rows else [np.empty(0)] * width
    return [scan_from_columns(dict(zip(names, columns, strict=False)))]


def sample(path: Path, n: int, seed: int) -> Scan:
    """``n`` points drawn evenly on the surface, with the normals of their faces."""
    trimesh = import_extra("trimesh", "files")
    mesh = _load(path)
    if not len(mesh.faces):
        raise ValueError("has no faces to sample; read its points with read_scan")
    if not mesh.area > 0:
        raise ValueError("has faces without any area, so nothing can be sampled")
    points, faces = trimesh.sample.sample_surface(mesh, n, seed=seed)
    normals = np.asarray(mesh.face_normals)[faces].astype(np.float32)
    return Scan(points=np.asarray(points, dtype=np.float64), fields={"normal": normals})


def _load(path: Path) -> Any:
    trimesh = import_extra("trimesh", "files")
    source: Any = path
    if path.suffix.lower() == ".off":
        off = _read_off(path)
        lines = ["OFF", f"{len(off.vertices)} {len(off.faces)} 0"]
        lines += [" ".join(off.lines[k].split()[:3]) for k in off.vertices]
        lines += [off.lines[k] for k in off.faces]
        source = io.BytesIO("\n".join(lines).encode("ascii", "replace"))
    else:
        source = io.BytesIO(with_plain_lines(path.read_bytes()))
    kind = path.suffix.lower().removeprefix(".")
    mesh = trimesh.load_mesh(source, file_type=kind, process=False)  # else vertices are merged
    if not isinstance(mesh, trimesh.Trimesh):
        raise ValueError("holds no mesh")
    return mesh


def _read_off(path: Path) -> _Off:
    """Raises where lines are missing, which trimesh takes for a smaller mesh."""
    with open_text(path) as stream:
        lines = without_comments(stream.read(), Form()).split("\n")
    filled = [k for k, line in enumerate(lines) if line.strip()]
    # COFF has colours, NOFF normals; ModelNet writes the counts right behind the word.
    match = re.match(r"(?i)\s*([A-Z0-9]*?)OFF\s*", lines[filled[0]]) if filled else None
    if match is None:
        raise ValueError("not an OFF file: its first line does not say OFF")
    kind = match[1].upper()
    if "4" in kind or match[1].endswith("n"):
        raise ValueError(f"{match[1]}OFF has points of another space than x, y, z")
    behind = lines[filled[0]][match.end() :]
    counts = (behind or " ".join(lines[k] for k in filled[1:2])).split()
    if len(counts) < 2 or not all(word.isascii() and word.isdigit() for word in counts[:2]):
        raise ValueError(f"an OFF file begins with its counts, got {' '.join(counts)[:40]!r}")
    vertices, faces = int(counts[0]), int(counts[1])
    rows = filled[1 if behind else 2 :]
    if vertices + faces > len(rows):
        raise ValueError(
            f"truncated: the header says {vertices} vertices and {faces} faces, "
            f"{len(rows)} lines follow"
        )
    return _Off(kind, lines, rows[:vertices], rows[vertices : vertices + faces])
