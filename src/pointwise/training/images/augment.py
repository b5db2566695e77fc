"""Random changes of images that leave the class as it is; for training only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True)
class ImageAugmentation:
    """What may be done to an image.

    ``shift`` is the largest move, as a share of the image's size; ``scale`` the largest change of
    size, as a share; ``rotate`` the largest turn, in degrees; ``flip`` whether left and right may
    change places, which makes another class of some letters and signs; ``brightness`` and
    ``contrast`` the largest changes of the normalised values, the first added, the second a share.
    """

    shift: float = 0.1
    scale: float = 0.15
    rotate: float = 10.0
    flip: bool = False
    brightness: float = 0.3
    contrast: float = 0.3

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """What is done to one image, float32 ``[8]``: six of an affine map, then two of light."""
        turn = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        scale = 1 / rng.uniform(1 - self.scale, 1 + self.scale)
        x, y = rng.uniform(-2 * self.shift, 2 * self.shift, size=2)  # the image is 2 wide
        mirror = -1.0 if self.flip and rng.random() < 0.5 else 1.0
        cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
        light = (
            1 + rng.uniform(-self.contrast, self.contrast),
            rng.uniform(-self.brightness, self.brightness),
        )
        return np.array([cos * mirror, -sin, x, sin * mirror, cos, y, *light], dtype=np.float32)


def apply(images: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
    """Changes images ``[B, C, H, W]`` as ``drawn [B, 8]`` says; what comes in is as the edge."""
    height, width = images.shape[2:]
    numbers = torch.from_numpy(drawn)
    maps = numbers[:, :6].reshape(-1, 2, 3).clone()
    # In units of half the height and half the width, a turn of an oblong image is a shear too.
    maps[:, 0, 1] *= height / width
    maps[:, 1, 0] *= width / height
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    moved = functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    contrast, brightness = numbers[:, 6:].reshape(-1, 2, 1, 1, 1).unbind(dim=1)
    return moved.mul_(contrast).add_(brightness).contiguous(memory_format=torch.channels_last)
