"""A run on images that has not been trained yet: network and recipe, chosen by the data."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pointwise.training.classes import Classes
from pointwise.training.image_recipe import IMAGES, ImageRecipe
from pointwise.training.images.sources import ImageData
from pointwise.training.picture import Picture
from pointwise.training.plan import with_arguments
from pointwise.training.run import Run, build_network, network_class
from pointwise.training.transfer import check_task, inherited, take

NETWORK = "MobileNetV1"
LARGEST = 224  # pixels, unless a size is asked for
STEP = 32  # the networks halve an image five times
SMALL = 100  # pixels, below which a network starts with a stride of 1
SAMPLE = 2000  # pictures that the normalisation is measured on


def plan_images(
    data: ImageData,
    *,
    network: str | None = None,
    size: int | None = None,
    arguments: dict[str, Any] | None = None,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    start: Run[ImageRecipe] | None = None,
) -> Run[ImageRecipe]:
    """Makes the network and the recipe for the training part of ``data``.

    ``arguments`` are for the network's class, beside the channels and classes that the data have.
    ``options`` are kept with the run. Of another run, ``start``, the network takes the weights that
    fit, and its kind and sizes where these are not given. Raises ValueError where something given
    does not fit.
    """
    if size is not None and size < 1:
        raise ValueError(f"train: --size must be 1 or more, got {size}")
    name, arguments = network or NETWORK, arguments or {}
    if start is not None:
        check_task(start, IMAGES)
        name = network or type(start.network).__name__
        arguments = inherited(start, name, arguments)
    names = data.classes()
    learned = sorted({picture.label for picture in data.train if picture.label is not None})
    if len(learned) < 2:
        raise ValueError(
            f"train: the training data has {', '.join(learned) or 'no labels'}, but at least two"
            " classes are needed"
        )
    shapes = [picture.shape() for picture in data.train]
    channels = max(shape[2] for shape in shapes)
    shape = start.recipe.size if start is not None else default_size(shapes)
    if size is not None:
        shape = (size, size)
    blank = ImageRecipe(
        Classes(tuple(range(len(names))), tuple(names)), shape, (0.0,) * channels, (1.0,) * channels
    )
    mean, std = normalisation(blank, data.train)
    if start is not None and start.recipe.channels == channels:  # as its weights have learned with
        mean, std = start.recipe.mean, start.recipe.std
    recipe = ImageRecipe(blank.classes, shape, mean, std)
    made = with_arguments({"in_channels": channels, "classes": len(names)}, arguments)
    # Half the pixels at once would leave little of a small image.
    takes = inspect.signature(network_class(name)).parameters
    if "stem_stride" in takes and min(shape) < SMALL:
        made.setdefault("stem_stride", 1)
    torch.manual_seed(seed)  # of the weights that build_network draws
    run = Run(recipe, build_network(name, made), made, options or {}, notes=list(data.notes))
    if start is not None:
        run.notes += take(run, start)
    return run


def default_size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The height and width to read images at: their own where all have the same, up to 224.

    Images of different sizes are read as squares, of their usual smaller side, in steps of 32.
    """
    (height, width), count = Counter(shape[:2] for shape in shapes).most_common(1)[0]
    if count == len(shapes) and max(height, width) <= LARGEST:
        return height, width
    side = int(np.median([min(shape[:2]) for shape in shapes]))
    if side > STEP:
        side -= side % STEP
    side = min(side, LARGEST)
    return side, side


def normalisation(
    recipe: ImageRecipe, pictures: Sequence[Picture]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over ``SAMPLE`` of the pictures, 0 to 255."""
    chosen = np.random.default_rng(0).permutation(len(pictures))[:SAMPLE]
    sums = np.zeros((2, recipe.channels))
    for place in chosen:
        pixels = recipe.pixels(pictures[place]).astype(np.float64)
        sums += pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1))
    mean, square = sums / len(chosen)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    # An image of one colour throughout has none; a grey level is the finest difference there is.
    return _rounded(mean), _rounded(np.maximum(std, 1))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)
