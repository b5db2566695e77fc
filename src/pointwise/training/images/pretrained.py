"""Networks with weights that others have trained: what they are called with and what they read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pointwise.training.classes import Classes
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.run import Run, build_network, network_class

WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25, 1.25, 1.3, 1.4, 1.5, 2.0)  # the authors' multipliers
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # torchvision's mean and std
TENSORFLOW = (127.5,) * 3, (127.5,) * 3  # pixel/127.5 - 1
SIZE = 224
CROP = 0.875  # of the image, in the middle: what both libraries' authors test on


def pretrained(
    name: str,
    weights: str | Path,
    *,
    labels: str | Path | None = None,
    size: int | None = None,
    arguments: dict[str, Any] | None = None,
    device: str = "cpu",
) -> Run[ImageRecipe]:
    """A network of ``pointwise.networks`` with the weights of a file, ready for classifying.

    The classes, the width and what the library the weights are from does otherwise follow from the
    weights, where ``arguments`` do not say; so does what an image becomes: TensorFlow's values from
    -1 to 1, or torchvision's. ``size`` is 224 unless given, or unless the file's name says it.
    ``labels`` is a text file, a name on each line. Raises ValueError where something does not fit.
    """
    from pointwise.networks.weights import load_weights, read_tensors

    path = Path(weights)
    tensors = read_tensors(path)
    tensorflow = any("MobilenetV1" in key for key in tensors)
    made: dict[str, Any] = {"classes": _classes(path, tensors)}
    if tensorflow:  # batch norm is folded into the weights
        made |= {"norm": None, "padding": "same"}
    made |= arguments or {}
    network, made = _filled(name, path, tensors, made, load_weights)
    mean, std = TENSORFLOW if tensorflow else IMAGENET
    side = size or _size_in(path.name) or SIZE
    names = _names(labels, made["classes"])
    recipe = ImageRecipe(
        Classes(tuple(range(len(names))), names),
        (side, side),
        mean,
        std,
        crop=CROP,
        antialias=not tensorflow,
    )
    return Run(recipe, network.to(device).eval(), made)


def _filled(
    name: str,
    path: Path,
    tensors: Mapping[str, Tensor],
    made: dict[str, Any],
    load_weights: Callable[..., nn.Module],
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its weights, of the width that they fit, and its arguments."""
    takes = inspect.signature(network_class(name)).parameters
    search = "width" in takes and "width" not in made
    problems = []
    for width in WIDTHS if search else (None,):
        arguments = made if width is None else made | {"width": width}
        network = build_network(name, arguments)
        try:
            return load_weights(network, tensors), arguments
        except ValueError as error:
            problems.append(str(error))
    # What is wrong at every width is what is wrong; else the nearest width has the least to say.
    raise ValueError(f"{path.name}: {min(problems, key=len)}")


def _classes(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """How many classes the weights tell apart: the length of the last layer's bias."""
    for layer in ("classifier", "logits", "fc", "head"):  # in one library or another
        found = [
            value
            for name, value in tensors.items()
            if layer in name.lower() and name.endswith(("bias", "biases")) and value.dim() == 1
        ]
        if found:
            return len(found[-1])
    raise ValueError(
        f"{path.name}: no layer that gives the classes (classifier or fc) is in these weights"
    )


def _size_in(name: str) -> int | None:
    """The pixels of an image as names of weights have it: ``mobilenet_v1_0.25_128_quant``."""
    found = re.search(r"(?<![\d.])(96|128|160|192|224|256|299|384)(?!\d)", name)
    return int(found[1]) if found else None


def _names(labels: str | Path | None, count: int) -> tuple[str, ...]:
    if labels is None:
        return tuple(f"class {i}" for i in range(count))
    try:
        lines = Path(labels).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f"{labels}: is no text; give a file with the name of a class on a line"
        ) from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != count:
        raise ValueError(
            f"{labels}: has {len(names)} names, but the weights tell {count} classes apart"
        )
    return names
