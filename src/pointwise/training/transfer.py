"""A training that starts from the weights of another run: what fits is taken, the rest is fresh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pointwise.cloud.scan import Scan
from pointwise.cloud.units import METRES, factor
from pointwise.training.features import Features
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.recipe import Recipe
from pointwise.training.run import Run, build_network

DECIDED = ("in_channels", "classes", "cell_size")  # of a network's arguments, by the data
ALIKE = 3.0  # how many times as wide values may spread here as there to be read on one scale
FINER, COARSER = 3.0, 4.0  # how far the other run's cells may be from those that fit the data

Name = tuple[str | int, ...]  # of a channel, or of a class


def check_task(start: Run, task: str) -> None:
    """Raises ValueError where the run to start from was trained for something else."""
    if start.recipe.task != task:
        kinds = {"segmentation": "points", "classification": "whole clouds", "images": "images"}
        raise ValueError(
            f"train: --from must be a run that learned classes of {kinds[task]}, as the data have"
            f" them; the one given learned those of {kinds[start.recipe.task]}"
        )


def inherited(start: Run, network: str, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the network's class, beside those that the data decide: the given ones, and
    else those of the run to start from. Raises ValueError where that has another network."""
    other = type(start.network).__name__
    if network != other:
        raise ValueError(
            f"train: --from must be a run with the same network, {network}, and the one given has"
            f" {other}; leave out --network, or choose another run"
        )
    return {k: v for k, v in start.arguments.items() if k not in DECIDED} | given


def optional_in(
    start: Run[Recipe], scans: Sequence[Scan], features: Sequence[str] | None
) -> tuple[str, ...]:
    """The features that the run to start from can do without, of those that are learned here."""
    found = tuple(
        name
        for name in start.recipe.features.optional
        if (features is None or name in features) and any(name in scan.fields for scan in scans)
    )
    return found if features is None or set(features) - set(found) else ()


# --- scales ---------------------------------------------------------------------------------------


def cell_size_from(start: Run[Recipe], own: float, unit: str | None) -> float:
    """The cell size where nobody asks for one: that of the run to start from, in the data's unit.

    Shapes are learned in cells. Where the data are far too sparse for these, or far denser, it is
    ``own``, which fits them.
    """
    other = _cell_size(start, unit)
    return other if own / FINER <= other <= own * COARSER else own


def lines_on_scale(start: Run[Recipe], cell_size: float, unit: str | None) -> list[str]:
    """What to say where lengths are not those that the run to start from has learned with."""
    other, there, lines = _cell_size(start, unit), start.recipe.unit, []
    if cell_size != other:
        lines.append(
            f"note: cells are {cell_size:g} wide, those of the run to start from {other:g}: what it"
            " has learned of sizes does not hold here"
        )
    if there != unit and not (there in METRES and unit in METRES):
        lines.append(
            f"note: the data are in {unit or 'no stated unit'}, the run to start from in"
            f" {there or 'no stated unit'}; taken to be the same"
        )
    return lines


def _cell_size(start: Run[Recipe], unit: str | None) -> float:
    return float(f"{start.arguments['cell_size'] * factor(start.recipe.unit, unit):.3g}")


def on_scale_of(features: Features, start: Features) -> Features:
    """The features with the normalisation that the weights to start from were learned with.

    So each whose values are about the same in both; the others keep their own.
    """
    centre, scale = list(features.centre), list(features.scale)
    theirs = _places(start)
    for name, own in _places(features).items():
        pairs = list(zip(own, theirs.get(name, ()), strict=False))
        if len(own) == len(theirs.get(name, ())) and all(
            _alike(centre[i], scale[i], start.centre[j], start.scale[j]) for i, j in pairs
        ):
            for i, j in pairs:
                centre[i], scale[i] = start.centre[j], start.scale[j]
    return replace(features, centre=tuple(centre), scale=tuple(scale))


def _alike(centre: float, scale: float, other_centre: float, other_scale: float) -> bool:
    near = abs(centre - other_centre) <= ALIKE * other_scale
    return near and other_scale / ALIKE <= scale <= other_scale * ALIKE


# --- weights --------------------------------------------------------------------------------------


def take(run: Run, start: Run) -> list[str]:
    """Fills the network of ``run`` with what fits of that of ``start``, which is of the same class;
    returns lines that say what was taken and what starts fresh.

    Weights are found by their names. Where they depend on the features or the classes, those that
    both runs have are taken, by name and whatever their order; other weights where their shape is
    the same. Raises ValueError where none of these are.
    """
    names = {
        "in_channels": (_channels(run), _channels(start)),
        "classes": (_classes(run), _classes(start)),
    }
    grown = {argument: _grown(run, argument, len(own)) for argument, (own, _) in names.items()}
    state, theirs = run.network.state_dict(), start.network.state_dict()  # the tensors themselves
    taken, inner = 0, []  # inner: whether layers fit that have nothing to do with those names
    for name, weights in state.items():
        other = theirs.get(name)
        if other is None or other.dim() != weights.dim():
            continue
        by_name = [
            next((argument for argument, shapes in grown.items() if shapes[name][axis] != size), "")
            for axis, size in enumerate(weights.shape)
        ]
        # Along each axis, which places here are filled from which places there.
        pairs = [
            _common(*names.get(argument, ([], [])), here, there)
            for argument, here, there in zip(by_name, weights.shape, other.shape, strict=True)
        ]
        filled, source = ([pair[side] for pair in pairs] for side in (0, 1))
        count = math.prod(map(len, filled))
        if count:
            weights[_mesh(filled)] = other[_mesh(source)]
            taken += count
        if weights.dim() and not any(by_name):
            inner.append(count > 0)
    if not taken or (inner and not any(inner)):
        why = _why(run, start) or "; no feature and no class has the same name"
        raise ValueError(
            f"train: none of the layers of the run to start from fits{why}; choose another run, or"
            " leave out --set"
        )
    total = sum(weights.numel() for weights in state.values())
    return [f"taken: {taken:,} of {total:,} weights{_why(run, start)}", *_by_name(run, names)]


def _places(features: Features) -> dict[str, list[int]]:
    """The channels of each feature."""
    found, first = {}, 0
    for name, width in zip(features.names, features.widths, strict=True):
        found[name] = list(range(first, first + width))
        first += width
    return found


def _channels(run: Run) -> list[Name]:
    """A name for each channel that the network reads."""
    if isinstance(run.recipe, ImageRecipe):
        return [("grey",)] if run.recipe.channels == 1 else [("red",), ("green",), ("blue",)]
    places = _places(run.recipe.features).items()
    return [(name, i, len(own)) for name, own in places for i in range(len(own))]


def _classes(run: Run) -> list[Name]:
    return [(name.casefold(),) for name in run.recipe.classes.names]


def _grown(run: Run, argument: str, count: int) -> dict[str, torch.Size]:
    """The shapes of the weights of a network with one feature, or class, more."""
    with torch.device("meta"):
        network = build_network(type(run.network).__name__, run.arguments | {argument: count + 1})
    return {name: weights.shape for name, weights in network.state_dict().items()}


def _common(
    own: Sequence[Name], theirs: Sequence[Name], here: int, there: int
) -> tuple[list[int], list[int]]:
    """The places along an axis, here and there, of what both have.

    The axis begins with one place for each name. Behind them are those that a network has of its
    own, such as a point's place in its cell; of another number, they mean something else.
    """
    rest, rest_there = range(len(own), here), range(len(theirs), there)
    if len(rest) != len(rest_there):
        return [], []
    both = [name for name in own if name in theirs]
    return [*map(own.index, both), *rest], [*map(theirs.index, both), *rest_there]


def _mesh(places: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """The indices of all combinations of places along the axes."""
    return tuple(
        torch.tensor(each).view([-1 if axis == own else 1 for axis in range(len(places))])
        for own, each in enumerate(places)
    )


# --- words ----------------------------------------------------------------------------------------


def _differences(run: Run, start: Run) -> str:
    """The arguments in which two networks of one class differ."""
    return ", ".join(
        f"{name} is {run.arguments.get(name, 'the default')} here and"
        f" {start.arguments.get(name, 'the default')} there"
        for name in dict.fromkeys((*run.arguments, *start.arguments))
        if name not in DECIDED and run.arguments.get(name) != start.arguments.get(name)
    )


def _why(run: Run, start: Run) -> str:
    """What keeps two networks of one class from fitting, if anything does."""
    reasons = [_differences(run, start), "its convolutions were separated" * bool(start.separated)]
    return "".join(f"; {reason}" for reason in reasons if reason)


def _by_name(run: Run, names: dict[str, tuple[list[Name], list[Name]]]) -> list[str]:
    """Lines on the features and classes that were taken, and on those that start fresh."""
    features, classes = names["in_channels"], names["classes"]
    told = {
        "features": [(str(name[0]), name in features[1]) for name in features[0]],
        "classes": [
            (name, known in classes[1])
            for name, known in zip(run.recipe.classes.names, classes[0], strict=True)
        ],
    }
    lines = []
    for word, wanted in (("taken", True), ("fresh", False)):
        for kind, each in told.items():
            found = dict.fromkeys(name for name, known in each if known is wanted)
            if found:
                lines.append(f"{word}: {kind} {', '.join(found)}")
    return lines
