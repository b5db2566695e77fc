"""How an image becomes what a network reads: the same steps in training and in classifying."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pointwise.extras import import_extra
from pointwise.training.classes import IGNORED, Classes
from pointwise.training.picture import Picture

IMAGES = "images"  # the task of such a recipe, as run.json has it
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow has it


@dataclass(frozen=True)
class ImageRecipe:
    """The classes, the size of the images in pixels, and the normalisation of each channel.

    An image is cut to the shape of ``size`` (height, width) about its middle, scaled to it and
    given as many channels as there are means; a channel is ``(value - mean) / std``, the value
    0 to 255. ``crop`` is the share of the image's height and width that is looked at. Without
    ``antialias``, pixels are interpolated between neighbours alone, as TensorFlow's tools did.
    """

    classes: Classes
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    antialias: bool = True
    task: str = IMAGES

    @property
    def channels(self) -> int:
        return len(self.mean)

    def target(self, picture: Picture) -> int:
        """The index of the picture's class; ``IGNORED`` where it has none that was learned."""
        names = self.classes.names
        return names.index(picture.label) if picture.label in names else IGNORED

    def targets(self, pictures: Iterable[Picture]) -> np.ndarray:
        """The class indices int64 ``[N]`` of pictures."""
        return np.array([self.target(picture) for picture in pictures], dtype=np.int64)

    def pixels(self, picture: Picture) -> np.ndarray:
        """The picture at the recipe's size: uint8 ``[H, W, channels]``."""
        if not self.antialias:
            return _with_channels(sample(picture.pixels(), self.size, self.crop), self.channels)
        wanted = round(self.size[0] / self.crop), round(self.size[1] / self.crop)
        return _with_channels(fit(picture.pixels(wanted), self.size, self.crop), self.channels)

    def batch(self, pixels: Sequence[np.ndarray]) -> torch.Tensor:
        """What the network reads: float32 ``[B, channels, H, W]``, channels last in memory."""
        stacked = np.stack(pixels)
        count, height, width, _ = stacked.shape
        # Whole rows: over three channels alone, a broadcast is ten times slower.
        mean, std = (torch.tensor(values).repeat(width) for values in (self.mean, self.std))
        rows = torch.from_numpy(stacked.reshape(count, height, -1)).float().sub_(mean).div_(std)
        return rows.view(stacked.shape).permute(0, 3, 1, 2)


def fit(pixels: np.ndarray, size: tuple[int, int], crop: float = 1.0) -> np.ndarray:
    """Cuts ``[H, W, C]`` about its middle to the shape of ``size``, and scales it to that size."""
    height, width = pixels.shape[:2]
    if (height, width) == tuple(size) and crop == 1:
        return pixels
    scale = crop * min(height / size[0], width / size[1])
    tall, wide = size[0] * scale, size[1] * scale
    top, left = (height - tall) / 2, (width - wide) / 2
    image = import_extra("PIL.Image", "train")
    resized = image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).resize(
        (size[1], size[0]),
        image.Resampling.BILINEAR,  # over as many pixels as one covers, so without aliasing
        box=(left, top, left + wide, top + tall),
    )
    return np.asarray(resized).reshape(*size, pixels.shape[2])


def sample(pixels: np.ndarray, size: tuple[int, int], crop: float = 1.0) -> np.ndarray:
    """``fit`` without antialiasing: each value between the four pixels about its place."""
    height, width = pixels.shape[:2]
    scale = crop * min(height / size[0], width / size[1])
    tall, wide = round(size[0] * scale), round(size[1] * scale)
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = torch.from_numpy(pixels[top : top + tall, left : left + wide].astype(np.float32))
    found = F.interpolate(cut.permute(2, 0, 1)[None], size=size, mode="bilinear")
    return found[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return (pixels @ _LUMA).round().astype(np.uint8)[:, :, None]
