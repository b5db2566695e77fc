"""A scan as training reads it: prepared once, as arrays that may lie in memory or in files."""

from __future__ import annotations

import numpy as np

from pointwise.cloud.scan import Scan
from pointwise.training.classes import IGNORED
from pointwise.training.columns import Columns
from pointwise.training.ground import Ground
from pointwise.training.recipe import Prepared, Recipe
from pointwise.training.shelf import Arrays

_GRID = ("low", "side", "grid")


class Source:
    """A prepared scan, the class index of each of its points, and the points of each class."""

    def __init__(self, recipe: Recipe, arrays: Arrays) -> None:
        self.prepared = prepared_of(recipe, arrays)
        self.labels = arrays["labels"]
        self.by_class = _cut(arrays["by class"], arrays["ends"])


def source_of(recipe: Recipe, scan: Scan) -> dict[str, np.ndarray]:
    """What ``Source`` needs of a scan whose points are labelled.

    The points lie column by column, so that a block is read in few pieces.
    """
    prepared = recipe.prepare(scan, "train")
    targets = recipe.targets(prepared.scan)
    columns, sorting = prepared.columns, prepared.columns.sorting
    place = np.empty_like(sorting)
    place[sorting] = np.arange(len(sorting))
    # No block is about a stray.
    chosen = [place[part] for part in _by_class(np.where(prepared.stray, IGNORED, targets))]
    ordered = Prepared(prepared.scan.select(sorting), prepared.side)
    ordered.stray = prepared.stray[sorting]
    if recipe.reads_height:
        ordered.ground = prepared.ground
    return {
        **_arrays(recipe, ordered),
        "labels": targets[sorting],
        "by class": np.concatenate([*chosen, np.empty(0, dtype=np.int64)]),
        "ends": np.cumsum([len(part) for part in chosen], dtype=np.int64),
        "keys": columns.keys,
        "corners": np.stack([columns.low, columns.high]),
        "side": np.array(columns.side),
    }


def cloud_of(recipe: Recipe, scan: Scan) -> dict[str, np.ndarray]:
    """What is needed of a scan that is classified as a whole."""
    return _arrays(recipe, recipe.prepare(scan, "train"))


def _arrays(recipe: Recipe, prepared: Prepared) -> dict[str, np.ndarray]:
    fields = prepared.scan.fields
    arrays = {f"field {n}": fields[n] for n in recipe.features.names if n in fields}
    if recipe.reads_height:
        for i, grid in enumerate(prepared.ground.grids):
            arrays |= {f"ground {i} {name}": v for name, v in zip(_GRID, grid, strict=True)}
    return {"points": prepared.scan.points, "stray": prepared.stray, **arrays}


def prepared_of(recipe: Recipe, arrays: Arrays) -> Prepared:
    """The inverse, with all that would take a look at every point known already."""
    fields = {n: arrays[f"field {n}"] for n in recipe.features.names if f"field {n}" in arrays}
    prepared = Prepared(Scan(arrays["points"], fields), recipe.block / 8)
    prepared.stray = arrays["stray"]
    if recipe.reads_height:
        parts = sum(name.startswith("ground ") for name in arrays) // len(_GRID)
        places = (f"ground {i} " for i in range(parts))
        prepared.ground = Ground.of(
            [(arrays[p + "low"], arrays[p + "side"], arrays[p + "grid"]) for p in places]
        )
    if "keys" in arrays:
        low, high = arrays["corners"]
        prepared.columns = Columns.of_sorted(
            prepared.scan.points, float(arrays["side"]), arrays["keys"], low, high
        )
    return prepared


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=IGNORED))
    return [part for part in np.split(order, starts)[1:] if len(part)]


def _cut(values: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    return [values[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
