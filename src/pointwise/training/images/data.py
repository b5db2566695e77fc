"""Pictures as PyTorch data sets: in a new order and changed at random, or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pointwise.training.classes import IGNORED
from pointwise.training.feed import Epochs, Feed, own_share
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.images.augment import ImageAugmentation, apply
from pointwise.training.picture import Picture

BATCH = 16  # steps are worth more than their size: there are hundreds of them, not millions
MEMORY = 2 * 2**30  # bytes of pixels that are kept; of more, files are read again each time


class ImageBatch(NamedTuple):
    """Images of one size, and the class of each."""

    images: torch.Tensor  # [B, C, H, W] float32, channels last
    labels: torch.Tensor  # [B] int64, IGNORED where there is none

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        return (self.images,)


# Pixels uint8 [H, W, C], class index, and what is done to them at random, where anything is.
Sample = tuple[np.ndarray, int, np.ndarray | None]


@dataclass(frozen=True)
class Collate:
    """Makes a batch of samples: the changes are made to all of its images at once."""

    recipe: ImageRecipe

    def __call__(self, samples: Sequence[Sample]) -> ImageBatch:
        pixels, labels, drawn = zip(*samples, strict=True)
        images = self.recipe.batch(pixels)
        if drawn[0] is not None:
            images = apply(images, np.stack(drawn))
        return ImageBatch(images, torch.tensor(labels))


class Pictures(Dataset[Sample]):
    """Pictures and their classes; with an augmentation, changed, and in a new order each epoch.

    Item ``n`` depends on the seed and on ``n`` alone, whichever worker makes it.
    """

    def __init__(
        self,
        recipe: ImageRecipe,
        pictures: Sequence[Picture],
        augmentation: ImageAugmentation | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.recipe, self.pictures, self.augmentation = recipe, pictures, augmentation
        self.shuffle, self.seed = shuffle, seed
        self.labels = recipe.targets(pictures)
        self.order = -1, np.arange(len(pictures))  # of an epoch

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, n: int) -> Sample:
        epoch, turn = divmod(n, len(self))
        place = self._place(epoch, turn)
        drawn = None
        if self.augmentation is not None:
            drawn = self.augmentation.draw(np.random.default_rng((self.seed, epoch, turn)))
        return self._pixels(place), int(self.labels[place]), drawn

    def _place(self, epoch: int, turn: int) -> int:
        if not self.shuffle:
            return turn
        if self.order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self.order = epoch, rng.permutation(len(self))
        return int(self.order[1][turn])

    def _pixels(self, place: int) -> np.ndarray:
        if self._kept is not None:
            return self._kept[place]
        return self.recipe.pixels(self.pictures[place])

    @cached_property
    def _kept(self) -> np.ndarray | None:
        """All pixels ``[N, H, W, C]``, read once, where they fit into ``MEMORY``."""
        if len(self) * int(np.prod(self.recipe.size)) * self.recipe.channels > MEMORY:
            return None
        return np.stack([self.recipe.pixels(picture) for picture in self.pictures])


def feed(
    recipe: ImageRecipe,
    train: Sequence[Picture],
    validation: Sequence[Picture] = (),
    *,
    augmentation: ImageAugmentation | None = None,
    batch: int | None = None,
    workers: int = 0,
    seed: int = 0,
) -> Feed:
    """What a training on images reads, ``BATCH`` at a time unless said."""
    batch = batch or BATCH
    data = Pictures(recipe, train, augmentation, shuffle=True, seed=seed)
    _ = data._kept  # read before the workers fork, so that they share it
    sampler = Epochs(len(data))
    return Feed(
        DataLoader(
            data,
            batch_size=min(batch, len(sampler)),
            sampler=sampler,
            # A last batch of a single small image may leave batch norm without a variance.
            drop_last=True,
            collate_fn=Collate(recipe),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        ),
        loader(recipe, validation, batch=batch, workers=workers) if validation else None,
        label_counts(recipe, train),
    )


def loader(
    recipe: ImageRecipe, pictures: Sequence[Picture], *, batch: int = BATCH, workers: int = 0
) -> DataLoader:
    """The pictures once, in their order and as they are."""
    data = own_share(Pictures(recipe, pictures))
    return DataLoader(data, batch_size=batch, collate_fn=Collate(recipe), num_workers=workers)


def label_counts(recipe: ImageRecipe, pictures: Sequence[Picture]) -> np.ndarray:
    """How many pictures of each class ``[K]`` there are."""
    index = recipe.targets(pictures)
    return np.bincount(index[index != IGNORED], minlength=len(recipe.classes))
