"""What a training reads, whatever it is of: batches, and how often each class occurs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from pointwise.training import processes

T = TypeVar("T")


class Batch(Protocol):
    """Of clouds or of images: what the network is called with, and what it should say.

    A NamedTuple of tensors, so that Lightning can move it to a device.
    """

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]: ...

    @property
    def labels(self) -> torch.Tensor: ...  # one per row of logits, int64, IGNORED where none


@dataclass(frozen=True)
class Feed:
    """Batches to train and (if any) to validate on, and the number of labels of each class [K].

    ``train`` holds the data ``passes`` times; whenever it has been read, a validation follows.
    """

    train: DataLoader
    validation: DataLoader | None
    counts: np.ndarray
    passes: int = 1

    def steps_of(self, epochs: float) -> int:
        """The number of steps in which the data are read ``epochs`` times."""
        return max(1, math.ceil(epochs * len(self.train) / self.passes))

    def epochs_of(self, steps: int) -> float:
        """How often the data are read in so many steps."""
        return steps * self.passes / len(self.train)

    def example(self) -> Batch:
        """One batch as training will see them; the loader's order stays as it is."""
        samples = [self.train.dataset[i] for i in range(self.train.batch_size or 1)]
        return self.train.collate_fn(samples)


class Epochs(Sampler[int]):
    """Indices that go on from epoch to epoch, so that no epoch repeats another's random draws.

    Of P processes each has every P-th number, and all have equally many: the remainder is left out,
    in each epoch another. Raises ValueError for a ``length`` below P.
    """

    def __init__(self, length: int) -> None:
        self.length, self.epoch = length, 0
        if length < processes.count():
            raise ValueError(
                f"train: an epoch has {length} blocks, clouds or images, too few for"
                f" {processes.count()} processes; lower --devices"
            )

    def __len__(self) -> int:
        return self.length // processes.count()

    def __iter__(self) -> Iterator[int]:
        first, share = self.epoch * self.length + processes.rank(), processes.count()
        self.epoch += 1
        return iter(range(first, first + len(self) * share, share))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch; after a resumption it is not 0."""
        self.epoch = epoch


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share, every P-th item: the P processes together have each item once."""
    return items[processes.rank() :: processes.count()]


def own_share(data: Dataset[T]) -> Dataset[T]:
    """The part of ``data`` that this process validates on.

    All of it where there is less than a sample for each: Lightning takes no empty share, and
    counts that are all multiplied by the same number have the same scores.
    """
    size = len(data)  # type: ignore[arg-type]
    return Subset(data, share(range(size))) if size >= processes.count() else data
