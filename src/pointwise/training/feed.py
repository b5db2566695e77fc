"""What a training reads, whatever it is of: batches, and how often each class occurs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler


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
    """Numbers that go on from epoch to epoch, so that no epoch repeats another's random draws."""

    def __init__(self, length: int) -> None:
        self.length, self.epoch = length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.length
        self.epoch += 1
        return iter(range(first, first + self.length))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch; after a resumption it is not 0."""
        self.epoch = epoch
