"""What a model is run on when a command counts or times it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pointwise.cli.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from pointwise.onnx.protobuf import Takes

_POINTS = 20_000  # of a room


def inputs_of(
    caller: str,
    model: Model,
    given: list[str] | None,
    batch: int | None = None,
    size: int | None = None,
) -> tuple[tuple, str]:
    """What a model is run on, and in words: tensors, or sizes of images.

    ``given`` is what ``--input`` says: ``1x3x224x224``, or ``1x16:int`` for indices. Without, the
    inputs that came with the model; an image for image networks, ``batch`` of them, of ``size``
    pixels along both sides; a room of 20,000 points for cloud networks, whose ``--input`` is
    points x channels.
    """
    shapes = [_shape(caller, text) for text in given or ()]
    if model.inputs is not None and not shapes:
        if batch is not None or size is not None:
            raise ValueError(
                f"{caller}: {model.name} brings its own inputs; omit --batch and --size"
            )
        return model.inputs, ", ".join(map(_words, model.inputs))
    if model.is_for_clouds:
        if batch is not None or size is not None:
            raise ValueError(f"{caller}: {model.name} takes clouds; omit --batch and --size")
        return _room(caller, model, shapes)
    if model.takes is not None and not shapes:
        filled = tuple(_filled(caller, model.name, part, batch, size) for part in model.takes)
        return filled, ", ".join(map(_words, filled))
    if not shapes:
        shapes = [(_images(caller, model, batch, size), False)]
    made = tuple(_indices(shape) if whole else shape for shape, whole in shapes)
    return made, ", ".join("x".join(map(str, shape)) for shape, _ in shapes)


def _words(x: Any) -> str:
    """Sizes of an input: ``1x3x224x224``."""
    return "x".join(map(str, x.shape)) if hasattr(x, "shape") else str(x)


def _filled(caller: str, name: str, takes: Takes, batch: int | None, size: int | None) -> Tensor:
    """An input of an ONNX file; what it leaves open is a batch of 1, 3 channels, 224 pixels."""
    import torch

    image = len(takes.shape) == 4
    asked = (batch, None, size, size) if image else (batch, *[None] * (len(takes.shape) - 1))
    usual = (1, 3, 224, 224) if image else (1,) * len(takes.shape)
    options = ("--batch", "", "--size", "--size")
    for own, wanted, option in zip(takes.shape, asked, options, strict=False):
        if own is not None and wanted is not None and own != wanted:
            raise ValueError(f"{caller}: {name} is made for {option} {own} only, got {wanted}")
    shape = [
        own or wanted or other for own, wanted, other in zip(takes.shape, asked, usual, strict=True)
    ]
    if not takes.dtype.is_floating_point:
        return torch.zeros(shape, dtype=takes.dtype)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(takes.dtype)


def _shape(caller: str, text: str) -> tuple[tuple[int, ...], bool]:
    found = re.fullmatch(r"([1-9]\d*(?:x[1-9]\d*)*)(:int)?", text.strip().lower())
    if found is None:
        raise ValueError(
            f"{caller}: --input takes sizes such as 1x3x224x224, or 1x16:int for indices, "
            f"got {text!r}"
        )
    return tuple(map(int, found.group(1).split("x"))), found.group(2) is not None


def _indices(shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.zeros(shape, dtype=torch.int64)


def _images(caller: str, model: Model, batch: int | None, size: int | None) -> tuple[int, ...]:
    if model.image is None:
        raise ValueError(
            f"{caller}: say what {model.name} is given, as in --input 1x3x224x224, and once for "
            "each input"
        )
    channels, height, width = model.image
    return batch or 1, channels, size or height, size or width


def _room(
    caller: str, model: Model, shapes: list[tuple[tuple[int, ...], bool]]
) -> tuple[tuple, str]:
    """The points of a built-in room, features for them, and offsets that make it one cloud."""
    import torch

    from pointwise.rooms import room

    channels = model.arguments.get("in_channels", 3)
    count = _POINTS
    if shapes:
        (shape, _), *more = shapes
        if more or len(shape) != 2 or shape[1] != channels:
            raise ValueError(
                f"{caller}: {model.name} takes clouds: --input is points x channels, such as "
                f"{_POINTS}x{channels}"
            )
        count = shape[0]
    scan = room(0, rays=max(1000, 2 * count))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(scan), generator=generator)[:count].sort().values
    if len(chosen) < count:
        raise ValueError(f"{caller}: a room has no {count:,} points; take fewer")
    points = torch.from_numpy(scan.points)[chosen].float()
    features = torch.rand(count, channels, generator=generator)
    offsets = torch.tensor([0, count])
    return (points, features, offsets), f"{count:,} points of a room, {channels} features each"
