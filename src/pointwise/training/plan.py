"""A run that has not been trained yet: network and recipe, chosen by what the data are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import Scan
from pointwise.cloud.units import usual_unit
from pointwise.training.classes import find_classes
from pointwise.training.features import (
    constant_fields,
    default_features,
    fit_features,
    left_out,
)
from pointwise.training.ground import side_of
from pointwise.training.recipe import Recipe, sizes_differ, to_unit_sphere
from pointwise.training.run import Run, build_network
from pointwise.training.shelf import MEMORY, Memory
from pointwise.training.sources import Data
from pointwise.training.spacing import default_block, default_cell_size
from pointwise.training.thin import thin
from pointwise.training.transfer import (
    cell_size_from,
    check_task,
    inherited,
    lines_on_scale,
    on_scale_of,
    optional_in,
    take,
)

NETWORKS = {"segmentation": "CellUNet", "classification": "CellPyramid"}
BLOCK_POINTS = 60_000  # what a block holds about; a scan is not cut at all below MOST_POINTS
MOST_POINTS = 100_000
CLOUD_POINTS = 8192  # what is read of a cloud that is classified


def plan(
    data: Data,
    *,
    network: str | None = None,
    features: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    cell_size: float | None = None,
    block: float | None = None,
    rotate: float = 180.0,
    arguments: dict[str, Any] | None = None,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    memory: Memory = MEMORY,
    start: Run | None = None,
) -> Run:
    """Makes the network and the recipe for the training part of ``data``.

    Whatever is not given follows from the data: the features all scans have, a cell size of a few
    times the spacing, blocks of some 60,000 points. ``arguments`` are for the network's class,
    beside those that the data decide. Scans may lack features that are ``optional``. ``options``
    are kept with the run. Of another run, ``start``, the network takes the weights that fit, and
    its kind and sizes where these are not given. Raises ValueError where something given does not
    fit the data.
    """
    for option, value in (("--cell-size", cell_size), ("--block", block)):
        if value is not None and not value > 0:
            raise ValueError(f"train: {option} must be greater than 0, got {value:g}")
    name, arguments = network or NETWORKS[data.task], arguments or {}
    if start is not None:
        check_task(start, data.task)
        name = network or type(start.network).__name__
        arguments = inherited(start, name, arguments)
    classes = find_classes(data.train, [*data.validation, *data.test])
    scans = data.train
    classification = data.task == "classification"
    unit_sphere = classification and sizes_differ(scans)
    if unit_sphere:
        scans = [memory.scan(to_unit_sphere(scan)) for scan in scans]
    # A cloud of a thousand points is seen as a whole; a scene is wanted in detail.
    unit = usual_unit(scans)
    if cell_size is None:
        cell_size = default_cell_size(scans, occupancy=10 if classification else 5)
        if start is not None:
            cell_size = cell_size_from(start, cell_size, unit)
    # Half a cell: what the finest convolution can still tell apart, and no more.
    spacing = 0.0 if classification else cell_size / 2
    if block is None:
        block = default_block(
            _sample(scans, spacing, memory), points=BLOCK_POINTS, most=MOST_POINTS
        )
    if start is not None and not optional:
        optional = optional_in(start, scans, features)
    # Of all parts: what a test cloud lacks would else be found after the training.
    everything = [*data.train, *data.validation, *data.test]
    constant = constant_fields(scans)
    usual = default_features(everything, data.task, optional)
    names = tuple(features or (name for name in usual if name not in constant))
    notes = [*data.notes, *_of_constants(constant, names)]
    notes += [] if features else left_out([*names, *constant], everything)
    extents = [np.ptp(find_extent(scan.points).kept, axis=0) for scan in scans]
    radius = float(np.median([extent.max() / 2 for extent in extents])) or 1.0
    fitted = fit_features(names, scans, seed=seed, radius=radius, optional=optional)
    if start is not None:
        fitted = on_scale_of(fitted, start.recipe.features)
        notes += lines_on_scale(start, cell_size, unit)
    recipe = Recipe(
        task=data.task,
        classes=classes,
        features=fitted,
        block=block,
        margin=block / 8,
        most=CLOUD_POINTS if classification else MOST_POINTS,
        unit_sphere=unit_sphere,
        spacing=spacing,
        rotate=rotate,
        ground=0.0 if classification else _ground(scans, spacing),
        relabelling=data.relabelling,
        unit=unit,
    )
    for scan in everything:
        recipe.features.check(scan, "train")
    made = with_arguments(
        {
            "in_channels": recipe.features.channels,
            "classes": len(classes),
            "cell_size": cell_size,
        },
        arguments,
    )
    torch.manual_seed(seed)  # of the weights that build_network draws
    run = Run(recipe, build_network(name, made), made, options or {}, notes=notes)
    if start is not None:
        run.notes += take(run, start)
    return run


def _of_constants(constant: dict[str, str], names: Sequence[str]) -> list[str]:
    """Lines on the fields that have one value everywhere, which tells no class from another."""
    lines = []
    left = [f"{name} ({value})" for name, value in constant.items() if name not in names]
    if left:
        lines.append(f"left out: what has one value everywhere, so no feature: {', '.join(left)}")
    for name in names:
        if name in constant:
            lines.append(
                f"note: {name} is {constant[name]} everywhere, so nothing is learned from it, and"
                " scans to label must have it all the same; leave it out of --features"
            )
    return lines


def _ground(scans: Sequence[Scan], spacing: float) -> float:
    """The side of the columns that the ground is looked for in: wider than what stands on it.

    One for all scans, so that what is learned of a small piece holds for a whole survey.
    """
    parts = [find_extent(scan.points).parts[0] for scan in _sample(scans, spacing)]
    return float(f"{np.median([side_of(part) for part in parts]):.3g}")


def with_arguments(decided: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """All arguments of the network's class; raises ValueError for one that the data decide."""
    for name in given:
        if name in decided:
            raise ValueError(
                f"train: {name} is {decided[name]} by the data and the other options; leave out"
                f" --set {name}"
            )
    return decided | given


def _sample(
    scans: Sequence[Scan], spacing: float, memory: Memory = MEMORY, most: int = 16
) -> list[Scan]:
    """Some of the scans, the largest among them, as the network will read them."""
    by_size = sorted((scan for scan in scans if len(scan)), key=len, reverse=True)
    chosen = by_size[:: max(1, len(by_size) // most)]
    return [memory.scan(thin(scan, spacing)[0]) for scan in chosen] if spacing > 0 else chosen
