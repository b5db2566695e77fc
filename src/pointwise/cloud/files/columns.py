"""Columns under the names that files use, to the fields of a scan and back.

PLY, PCD and text files name (or imply) columns; LAS names dimensions. All of them meet here, so
that ``red, green, blue`` or ``scalar_Label`` mean the same whatever file they come from.
"""

from __future__ import annotations

import re

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan

COLORS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
NORMALS = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
)
LABELS = ("label", "labels", "class", "classification", "class_id", "semantic", "semantic_label")
RESERVED = ("color", "normal", "intensity")


def scan_from_columns(columns: dict[str, np.ndarray]) -> Scan:
    """A scan from columns ``[N]`` (or ``[N, K]``) under a file's names; raises without x, y, z.

    ``label`` and its usual other names become the labels where they hold whole numbers (NaN is
    unlabelled); colours of any type become uint8; ``name_0 … name_K`` become one field ``[N, K]``;
    the rest keeps its name.
    """
    columns = dict(columns)
    xyz = _take(columns, ("x", "y", "z"))
    if xyz is None:
        raise ValueError(f"no columns x, y, z (it has: {', '.join(columns) or 'none'})")
    labels = _take_labels(columns)
    return Scan(points=xyz.astype(np.float64), fields=fields_from_columns(columns), labels=labels)


def fields_from_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fields as a scan names and types them, from a file's columns other than x, y, z, labels."""
    columns = dict(columns)
    fields = {}
    color = next((c for names in COLORS if (c := _take(columns, names)) is not None), None)
    if color is not None:
        fields["color"] = to_color(color)
    normal = next((n for names in NORMALS if (n := _take(columns, names)) is not None), None)
    if normal is not None:
        fields["normal"] = normal.astype(np.float32)
    intensity = _find(columns, "intensity")
    if intensity is not None and columns[intensity].ndim == 1:
        fields["intensity"] = columns.pop(intensity).astype(np.float32)
    for name, values in _merge(columns).items():
        # A file's own "color" need not be uint8 RGB, which is what a scan promises under the name.
        fields[f"extra_{name}" if name in RESERVED else name] = values
    return fields


def columns_from_fields(fields: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Columns ``[N]`` of numbers that ``fields_from_columns`` makes the same fields of."""
    columns: dict[str, np.ndarray] = {}
    for name, given in fields.items():
        values = np.asarray(given)
        if values.dtype.kind not in "buif" or values.ndim not in (1, 2) or len(values) != n:
            raise ValueError(
                f"field {name!r} must be numbers [{n}] or [{n}, K], "
                f"got {values.dtype} {list(values.shape)}"
            )
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        elif values.dtype == np.float16:
            values = values.astype(np.float32)
        if name in ("color", "normal"):
            if values.shape != (n, 3):
                raise ValueError(f"field {name!r} must be [{n}, 3], got {list(values.shape)}")
            names = list(COLORS[0] if name == "color" else NORMALS[0])
        else:
            names = [name] if values.ndim == 1 else [f"{name}_{k}" for k in range(values.shape[1])]
        rows = values.T if values.ndim == 2 else values[None]
        for column, column_values in zip(names, rows, strict=True):
            if column in columns or column in ("x", "y", "z"):
                raise ValueError(f"two columns would be named {column!r}; rename a field")
            columns[column] = column_values
    return columns


def to_color(values: np.ndarray) -> np.ndarray:
    """RGB of any type to uint8: floats up to 1 are fractions, integers above 255 have 16 bits.

    The whole array decides, since writers of LAS often put 8-bit colours into its 16-bit fields.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    top = np.nanmax(values)
    if values.dtype.kind == "f" and top <= 1:
        values = np.nan_to_num(values) * 255
    elif top > 255:
        values = np.nan_to_num(values) / 256
        return np.clip(values, 0, 255).astype(np.uint8)
    return np.clip(np.rint(np.nan_to_num(values)), 0, 255).astype(np.uint8)


def _plain(name: str) -> str:
    return name.strip().lower().removeprefix("scalar_")  # CloudCompare's prefix


def _find(columns: dict[str, np.ndarray], name: str) -> str | None:
    return next((given for given in columns if _plain(given) == name), None)


def _take(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """Removes the columns from ``columns`` and stacks them, if all are there and single."""
    found = [given for name in names if (given := _find(columns, name)) is not None]
    if len(found) < len(names) or any(columns[name].ndim != 1 for name in found):
        return None
    return np.stack([columns.pop(name) for name in found], axis=1)


def _take_labels(columns: dict[str, np.ndarray]) -> np.ndarray | None:
    for name in LABELS:
        given = _find(columns, name)
        if given is None or columns[given].ndim != 1 or columns[given].dtype.kind not in "uif":
            continue
        values = np.nan_to_num(columns[given], nan=UNLABELLED)
        if np.array_equal(values, np.rint(values)):
            del columns[given]
            return values.astype(np.int64)
    return None


def _merge(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``name_0 … name_K`` of one type, all there, as one ``[N, K]``; the others as they are."""
    runs: dict[str, dict[int, str]] = {}
    for name, values in columns.items():
        if (match := re.fullmatch(r"(.+)_(0|[1-9]\d{0,3})", name)) and values.ndim == 1:
            runs.setdefault(match[1], {})[int(match[2])] = name
    merged = dict(columns)
    for base, members in runs.items():
        names = [members[k] for k in sorted(members)]
        whole = sorted(members) == list(range(len(names))) and len(names) > 1
        if whole and base not in columns and len({columns[name].dtype for name in names}) == 1:
            merged[base] = np.stack([merged.pop(name) for name in names], axis=1)
    return merged
