"""Columns under the names that files use, to the fields of a scan and back.

PLY, PCD and text files name (or imply) columns; LAS names dimensions. All of them meet here, so
that ``red, green, blue`` or ``scalar_Label`` mean the same whatever file they come from.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan

COLORS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("rf", "gf", "bf"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
_FRACTIONS = COLORS[2]  # CloudCompare's name for colours from 0 to 1
NORMALS = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
)
LABELS = (
    "label",
    "labels",
    "class",
    "classification",
    "class_id",
    "semantic",
    "semantic_label",
    "sem_class",
)
RESERVED = ("color", "normal", "intensity")
_SINGLE = ("intensity", *(name for names in (*COLORS, *NORMALS) for name in names))


_UNIT = re.compile(r"\s*(?:\[[^\]]*\]|\([^)]*\))$")  # x [m], x (m)


def columns_named(text: str | Iterable[str]) -> list[str]:
    """The names in ``x y z _ r g b``, or in a list; a column called ``_`` is left out.

    Raises ValueError where x, y and z are not all there, or a name is there twice.
    """
    names = re.split(r"[\s,]+", text.strip()) if isinstance(text, str) else [*text]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"columns must be names such as 'x y z intensity r g b', got {text!r}")
    if not has_xyz(names):
        raise ValueError(f"columns must name x, y and z, got {' '.join(names)!r}")
    named([name for name in names if name != "_"], ())
    return names


def has_xyz(names: Iterable[str]) -> bool:
    """Whether x, y and z are among the names of columns."""
    return {"x", "y", "z"} <= {_plain(name) for name in names}


def is_coordinate(name: str) -> bool:
    return _plain(name) in ("x", "y", "z")


def named(names: Sequence[str], columns: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Columns by name; raises where two have the same, since one would replace the other."""
    name, times = Counter(names).most_common(1)[0] if names else ("", 1)
    if times > 1:
        raise ValueError(f"two columns are named {name!r}; rename one, or leave it out")
    return dict(zip(names, columns, strict=False))


def scan_from_columns(columns: dict[str, np.ndarray]) -> Scan:
    """A scan from columns ``[N]`` (or ``[N, K]``) under a file's names; raises without x, y, z.

    ``label`` and its usual other names become the labels where they hold whole numbers (what is not
    finite is unlabelled); colours of any type become uint8; ``name_0 … name_K`` become one field
    ``[N, K]``; the rest keeps its name. Warns where one of two columns is taken for the labels, the
    intensity, a colour or a normal.
    """
    columns = dict(columns)
    _refuse_two(columns)
    xyz = _take(columns, ("x", "y", "z"))
    if xyz is None:
        raise ValueError(f"no columns x, y, z (it has: {', '.join(columns) or 'none'})")
    labels = _take_labels(columns)
    _say_two(columns)
    return Scan(points=xyz.astype(np.float64), fields=fields_from_columns(columns), labels=labels)


def fields_from_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fields as a scan names and types them, from a file's columns other than x, y, z, labels."""
    columns = dict(columns)
    fields = {}
    for names in COLORS:
        if (color := _take(columns, names)) is not None:
            # Whole numbers may be fractions too: 0 and 1.
            fields["color"] = to_color(color.astype(np.float64) if names == _FRACTIONS else color)
            break
    normal = next((n for names in NORMALS if (n := _take(columns, names)) is not None), None)
    if normal is not None:
        fields["normal"] = normal.astype(np.float32)
    intensity = find_column(columns, "intensity")
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


def to_color(values: np.ndarray, top: float | None = None) -> np.ndarray:
    """RGB of any type to uint8: floats up to 1 are fractions, numbers above 255 have 16 bits.

    ``top`` is the highest possible value where the file says it. Else the whole array decides,
    since writers of LAS often put 8-bit colours into its 16-bit fields. What is not finite is no
    colour, and black.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    top = float(values.max() if top is None else top)
    if values.dtype.kind == "f" and top <= 1 + 1e-3:  # 1 and what rounding may add
        values = values * 255
    elif top > 255:
        return np.clip(values / 256, 0, 255).astype(np.uint8)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _plain(name: str) -> str:
    name = name.strip()
    if name.endswith(("]", ")")):
        name = _UNIT.sub("", name)
    return name.lower().removeprefix("scalar_")  # CloudCompare's prefix


def find_column(columns: Iterable[str], name: str) -> str | None:
    """The column of that name; rather ``x`` than ``scalar_x`` or ``X``."""
    return next(iter(_candidates(columns, name)), None)


def _candidates(columns: Iterable[str], name: str) -> list[str]:
    found = [given for given in columns if _plain(given) == name]
    return sorted(found, key=lambda given: (_is_scalar(given), given != name))


def _is_scalar(name: str) -> bool:
    return name.strip().lower().startswith("scalar_")


def _refuse_two(columns: dict[str, np.ndarray]) -> None:
    """Raises for ``x`` beside ``X``, of which either could be the coordinate."""
    found = [name for name in columns if is_coordinate(name) and not _is_scalar(name)]
    for axis in "xyz":
        if len(both := [name for name in found if _plain(name) == axis]) > 1:
            raise ValueError(f"two columns are named {both[0]!r} and {both[1]!r}; rename one")


def _take(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """Removes the columns from ``columns`` and stacks them, if all are there and single."""
    found = [given for name in names if (given := find_column(columns, name)) is not None]
    if len(found) < len(names) or any(columns[name].ndim != 1 for name in found):
        return None
    return np.stack([columns.pop(name) for name in found], axis=1)


def as_field(name: str, values: np.ndarray) -> np.ndarray:
    """An array under the name of a field, of the type that a scan promises under it."""
    if name == "color" and values.shape[1:] == (3,):
        return to_color(values)
    if name == "normal" and values.shape[1:] == (3,):
        return values.astype(np.float32)
    if name == "intensity":
        return values.reshape(len(values), -1)[:, 0].astype(np.float32)
    return values


def as_labels(values: np.ndarray) -> np.ndarray | None:
    """Labels ``[N]`` of whole numbers ``[N]`` or ``[N, 1]`` of any type, None of anything else.

    What is not finite is unlabelled.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "buif":
        return None
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, UNLABELLED)
        if not np.array_equal(values, np.rint(values)):
            return None
    if values.dtype.kind in "uf" and np.abs(values).max(initial=0) >= 2**63:
        return None
    return values.astype(np.int64)


def _take_labels(columns: dict[str, np.ndarray]) -> np.ndarray | None:
    """The labels, taken from ``columns``; others that could be labels stay, in one line."""
    possible = {
        given: labels
        for given in sorted(columns, key=lambda given: (_is_scalar(given), given != _plain(given)))
        if _plain(given) in LABELS
        and columns[given].ndim == 1
        and (labels := as_labels(columns[given])) is not None
    }
    if not possible:
        return None
    taken, *others = sorted(possible, key=lambda given: LABELS.index(_plain(given)))
    if others:
        warnings.warn(
            f"the labels are column {taken!r}; {others[0]!r}, which could be labels too, stays a "
            "field: rename the one that is wrong",
            stacklevel=5,
        )
    del columns[taken]
    return possible[taken]


def _say_two(columns: dict[str, np.ndarray]) -> None:
    """Warns of ``intensity`` beside ``Intensity``, and the like, of which one is taken."""
    times = Counter(map(_plain, columns))
    for name in _SINGLE:
        if times[name] > 1:
            taken, other = _candidates(columns, name)[:2]
            warnings.warn(
                f"{name} is column {taken!r}; {other!r} stays a field of its own", stacklevel=5
            )


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
