"""Meshes: the vertices of OFF files, and points sampled on the surface of OFF and PLY meshes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra


def read(path: Path) -> list[Scan]:
    """The vertices of an OFF file as one cloud; the faces are left out."""
    mesh = _load(path)
    colored = getattr(mesh.visual, "kind", None) == "vertex"
    fields = {"color": np.asarray(mesh.visual.vertex_colors)[:, :3]} if colored else {}
    return [Scan(points=np.asarray(mesh.vertices, dtype=np.float64), fields=fields)]


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
    if path.suffix.lower() == ".off":
        _check_off(path)
    mesh = trimesh.load_mesh(path, process=False)  # processing would merge vertices
    if not isinstance(mesh, trimesh.Trimesh):
        raise ValueError("holds no mesh")
    return mesh


def _check_off(path: Path) -> None:
    """Raises where lines are missing, which trimesh takes for a smaller mesh."""
    content = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in content.splitlines() if line.strip() and not line.startswith("#")]
    # COFF has colours, NOFF normals; ModelNet writes the counts right behind the word.
    match = re.match(r"\s*[A-Z0-9]*OFF\s*", lines[0]) if lines else None
    if match is None:
        raise ValueError("not an OFF file: its first line does not say OFF")
    counts = (lines[0][match.end() :] or " ".join(lines[1:2])).split()
    if len(counts) < 2 or not all(word.isdigit() for word in counts[:2]):
        raise ValueError(f"an OFF file begins with its counts, got {' '.join(counts)[:40]!r}")
    vertices, faces = int(counts[0]), int(counts[1])
    held = len(lines) - (1 if lines[0][match.end() :] else 2)
    if vertices + faces > held:
        raise ValueError(
            f"truncated: the header says {vertices} vertices and {faces} faces, {held} lines follow"
        )
