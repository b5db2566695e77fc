"""The classes of images, by a trained network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.picture import Picture
from pointwise.training.run import Run


def classify_pictures(
    run: Run[ImageRecipe], pictures: Sequence[Picture], batch: int = 32
) -> Iterator[np.ndarray]:
    """The probabilities float32 ``[classes]`` of each picture, in the order of the run's classes.

    Reads ``batch`` pictures at a time.
    """
    for first in range(0, len(pictures), batch):
        pixels = [run.recipe.pixels(picture) for picture in pictures[first : first + batch]]
        yield from _logits(run, run.recipe.batch(pixels)).softmax(dim=1).numpy()


@torch.inference_mode()
def _logits(run: Run[ImageRecipe], images: torch.Tensor) -> torch.Tensor:
    run.network.eval()
    return run.network(images.to(run.device)).float().cpu()
