"""The numbers of points in LAS files: coordinates in whole steps, fields, labels among fields."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from pointwise.cloud.files.columns import LABELS, as_labels

# The values of a field that LAS's own dimension of that name cannot hold (an intensity of 0.3, say)
# go to extra bytes under the name with CloudCompare's prefix for a scalar, and come back by it.
INEXACT = "scalar_"

_STEPS = 2**31 - 1  # of a coordinate above its offset


def other_labels(columns: dict[str, np.ndarray], classified: bool) -> np.ndarray | None:
    """The labels of an extra dimension called ``label``, ``class``, …; taken from ``columns``.

    They are the labels where LAS's own classification says nothing, and otherwise a field, under
    a name that no format takes for the labels.
    """
    found = taken = None
    for name in [name for name in columns if name.lower().removeprefix(INEXACT) in LABELS]:
        values = columns.pop(name)
        labels = as_labels(values)
        if labels is not None and not classified and found is None:
            warnings.warn(
                f"all points are unclassified in LAS's own dimension, so the labels are those of "
                f"the extra dimension {name!r}",
                stacklevel=4,
            )
            found, taken = labels, name
            continue
        said = f"extra dimension {taken!r}; the" if taken else "LAS's classification; its"
        warnings.warn(
            f"the labels are {said} extra dimension {name!r} is the field 'extra_{name}'",
            stacklevel=4,
        )
        columns[f"extra_{name}"] = values
    return found


def grid(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and scales of 32-bit coordinates: 1 mm, or a millionth of a small cloud's extent.

    An axis that is too long for 1 mm has coarser steps, which a warning gives.
    """
    if not len(points):
        return np.zeros(3), np.full(3, 1e-3)
    low = points.min(axis=0)
    with np.errstate(over="ignore"):
        extents = points.max(axis=0) - low
    if not np.isfinite(extents).all():
        raise ValueError(f"LAS holds no coordinates of {low.min():g} beside {points.max():g}")
    extent = float(extents.max())
    scale = 10.0 ** np.floor(np.log10(min(1e-3, extent / 1e6))) if extent > 0 else 1e-3
    # A whole number keeps coordinates that are decimal fractions decimal fractions.
    offsets = np.floor(low) if extent >= 1 else low
    scales = np.full(3, scale)
    long = (extents + (extent >= 1)) / _STEPS > scale
    # From the middle of an axis steps go both ways, so that it may be twice as long.
    offsets[long] += np.floor(extents[long] / 2)
    scales[long] = [_round_up((length + 2) / 2 / _STEPS) for length in extents[long]]
    if (scales > 1e-3).any():
        axis = int(scales.argmax())
        warnings.warn(
            f"{'xyz'[axis]} spans {extents[axis]:.6g}, so LAS's 32 bits keep it to "
            f"{scales[axis]:g} and not to 0.001; leave out points far away, or write .ply or .npz",
            stacklevel=4,
        )
    return offsets, scales


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 mm, 1, 2, 5 cm, …"""
    power = 10.0 ** np.floor(np.log10(step))
    return max(1e-3, next(k * power for k in (1, 2, 5, 10) if k * power >= step))


def las_names(columns: dict[str, np.ndarray], point_format: Any) -> dict[str, np.ndarray]:
    """Columns under LAS's and PDAL's names and with 16-bit colours."""
    renamed = {"nx": "NormalX", "ny": "NormalY", "nz": "NormalZ"}
    own = {dimension.name: dimension for dimension in point_format.dimensions}
    named = {}
    for given, values in columns.items():
        name = renamed.get(given, given)
        if name in ("red", "green", "blue"):
            values = values.astype(np.uint16) * 257  # 255 becomes 65535
        elif name in ("X", "Y", "Z", "classification") or (
            name in own and not holds(own[name], values)
        ):
            name = INEXACT + name
        named[name] = values
    return named


def holds(dimension: Any, values: np.ndarray) -> bool:
    """Whether LAS's own dimension holds the values as they are."""
    if dimension.kind.name == "FloatingPoint" or not len(values):
        return True
    whole = np.array_equal(values, np.rint(values))
    return bool(whole and values.min() >= dimension.min and values.max() <= dimension.max)
