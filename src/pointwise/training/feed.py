"""What a training reads, whatever it is of: batches, and how often each class occurs."""

from __future__ import annotations

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
    """Batches to train on, batches to watch it by (if any), and the labels of each class [K]."""

    train: DataLoader
    validation: DataLoader | None
    counts: np.ndarray

    def example(self) -> Batch:
        """One batch as training will see them; the loader's order stays as it is."""
        samples = [self.train.dataset[i] for i in range(self.train.batch_size or 1)]
        return self.train.collate_fn(samples)


class Epochs(Sampler[int]):
    """Numbers that go on from epoch to epoch, so that no epoch repeats another's random draws.

    Of several processes, each has every so manieth number, and all have equally many: what is left
    over is left out, in each epoch something else. Raises ValueError where there are fewer.
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
    """Every so manieth item: all processes together have each one once, without repetition."""
    return items[processes.rank() :: processes.count()]


def watched(data: Dataset[T]) -> Dataset[T]:
    """What of ``data`` this process validates on.

    All of it where there is less than a sample for each: Lightning takes no empty share, and
    counts that are all multiplied by the same number have the same scores.
    """
    size = len(data)  # type: ignore[arg-type]
    return Subset(data, share(range(size))) if size >= processes.count() else data
