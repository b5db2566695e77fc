"""Scans as PyTorch data sets: random blocks to train on, tiles to validate on, whole clouds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pointwise.cloud.scan import Scan
from pointwise.training.augment import Augmentation
from pointwise.training.classes import IGNORED
from pointwise.training.columns import blocks
from pointwise.training.feed import Epochs, Feed, own_share
from pointwise.training.recipe import Prepared, Recipe


class CloudBatch(NamedTuple):
    """Packed clouds, and one target per row of the network's output."""

    points: torch.Tensor  # [N, 3] float32
    features: torch.Tensor  # [N, C] float32
    offsets: torch.Tensor  # [B + 1] int64
    labels: torch.Tensor  # [N] or [B] int64, IGNORED where there is none

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        return self.points, self.features, self.offsets


FEWEST = 128  # blocks between two validations
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]  # points, features, labels of one block or cloud


def pack(samples: Sequence[Sample]) -> CloudBatch:
    """Puts blocks or clouds one after the other."""
    points, features, labels = (
        torch.from_numpy(np.concatenate(part)) for part in zip(*samples, strict=True)
    )
    offsets = np.cumsum([0, *(len(sample[0]) for sample in samples)], dtype=np.int64)
    return CloudBatch(points, features, torch.from_numpy(offsets), labels)


class RandomBlocks(Dataset[Sample]):
    """Blocks about random points of scans; a pass reads about as many points as there are.

    They are as many passes as ``FEWEST`` blocks take, since a validation follows.

    Every scan has blocks in each epoch, and the class of the point in the middle is drawn evenly
    from the scan's classes, so that rare classes occur. Item ``n`` depends on the seed and on
    ``n`` alone, whichever worker makes it.
    """

    def __init__(
        self, recipe: Recipe, scans: Sequence[Scan], augmentation: Augmentation | None, seed: int
    ) -> None:
        self.recipe, self.augmentation, self.seed = recipe, augmentation, seed
        self.scans = [recipe.prepare(scan, "train") for scan in scans]
        self.labels = [recipe.targets(prepared.scan) for prepared in self.scans]
        self.by_class = [
            _by_class(np.where(prepared.stray, IGNORED, labels))  # no block is about a stray
            for prepared, labels in zip(self.scans, self.labels, strict=True)
        ]
        blocks = np.repeat(np.arange(len(scans)), [self._count(i) for i in range(len(scans))])
        self.passes = -(-FEWEST // len(blocks))
        self.scan_of_block = np.tile(blocks, self.passes)

    def __len__(self) -> int:
        return len(self.scan_of_block)

    def __getitem__(self, n: int) -> Sample:
        epoch, block = divmod(n, len(self))
        order = np.random.default_rng((self.seed, epoch)).permutation(self.scan_of_block)
        scan, rng = int(order[block]), np.random.default_rng((self.seed, epoch, block))
        index = self._block(scan, rng)
        if self.augmentation is not None:
            index = index[self.augmentation.kept(len(index), rng)]
        points, features = self.recipe.sample(self.scans[scan], index, self.augmentation, rng)
        return points, features, self.labels[scan][index]

    def _block(self, scan: int, rng: np.random.Generator) -> np.ndarray:
        columns, most = self.scans[scan].columns, self.recipe.most
        centre = columns.xy[rng.choice(self.by_class[scan][rng.integers(len(self.by_class[scan]))])]
        side = self.recipe.block
        while True:
            # Moved inwards at the scan's edge: labelling, too, reads few half-empty blocks.
            low = np.clip(
                centre - side / 2, columns.low, np.maximum(columns.low, columns.high - side)
            )
            index = columns.rectangle(low, low + side)
            if len(index) <= most:
                return index
            if side < self.recipe.block / 1024:  # a pole or a wall seen from above
                return rng.permutation(index)[:most]
            side *= min(0.9, (most / len(index)) ** 0.5)

    def _count(self, scan: int) -> int:
        """How many blocks hold about as many points as a scan has."""
        rng = np.random.default_rng(self.seed)
        held = np.median([len(self._block(scan, rng)) for _ in range(5)])
        return int(np.ceil(len(self.labels[scan]) / held))


def _by_class(labels: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=IGNORED))
    return [part for part in np.split(order, starts)[1:] if len(part)]


class Tiles(Dataset[Sample]):
    """Scans cut as labelling cuts them; the points of the margins have no label here."""

    def __init__(self, recipe: Recipe, scans: Sequence[Scan]) -> None:
        self.recipe = recipe
        self.tiles: list[tuple[Prepared, np.ndarray, np.ndarray]] = []
        for scan in scans:
            prepared = recipe.prepare(scan, "train")
            labels = recipe.targets(prepared.scan)
            for index, core in cut(recipe, prepared):
                self.tiles.append((prepared, index, np.where(core, labels[index], IGNORED)))

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, n: int) -> Sample:
        prepared, index, labels = self.tiles[n]
        return *self.recipe.sample(prepared, index), labels


def cut(recipe: Recipe, prepared: Prepared) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ``(index [n], core [n])`` of blocks whose cores together hold every point once."""
    return blocks(prepared.columns, recipe.block, recipe.margin, recipe.most)


class Clouds(Dataset[Sample]):
    """Whole clouds and the class of each; with an augmentation, in a new order each epoch."""

    def __init__(
        self, recipe: Recipe, scans: Sequence[Scan], augmentation: Augmentation | None, seed: int
    ) -> None:
        self.recipe, self.augmentation, self.seed = recipe, augmentation, seed
        self.scans = [recipe.prepare(scan, "train") for scan in scans]
        self.labels = [recipe.targets(scan) for scan in scans]

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, n: int) -> Sample:
        epoch, item = divmod(n, len(self))
        rng = np.random.default_rng((self.seed, epoch, item))
        if self.augmentation is not None:
            item = int(np.random.default_rng((self.seed, epoch)).permutation(len(self))[item])
        prepared = self.scans[item]
        index = np.arange(len(prepared.scan))
        if self.augmentation is not None:
            index = index[self.augmentation.kept(len(index), rng)]
        index = self.recipe.thin(index, rng)
        points, features = self.recipe.sample(prepared, index, self.augmentation, rng)
        return points, features, self.labels[item]


def feed(
    recipe: Recipe,
    train: Sequence[Scan],
    validation: Sequence[Scan] = (),
    *,
    augmentation: Augmentation | None = None,
    batch: int | None = None,
    workers: int = 0,
    seed: int = 0,
) -> Feed:
    """What a training on clouds reads; ``batch`` is 1 block or 16 clouds unless given."""
    batch = batch or (1 if recipe.task == "segmentation" else 16)
    loader = train_loader(
        recipe, train, augmentation=augmentation, batch=batch, workers=workers, seed=seed
    )
    return Feed(
        loader,
        validation_loader(recipe, validation, batch=batch, workers=workers) if validation else None,
        label_counts(recipe, train),
        loader.dataset.passes if isinstance(loader.dataset, RandomBlocks) else 1,
    )


def label_counts(recipe: Recipe, scans: Sequence[Scan]) -> np.ndarray:
    """How many points, or clouds, of each class ``[K]`` the scans hold."""
    counts = np.zeros(len(recipe.classes), dtype=np.int64)
    for scan in scans:
        index = recipe.targets(scan)
        counts += np.bincount(index[index >= 0], minlength=len(counts))
    return counts


def train_loader(
    recipe: Recipe,
    scans: Sequence[Scan],
    *,
    augmentation: Augmentation | None,
    batch: int,
    workers: int,
    seed: int,
) -> DataLoader:
    """Batches to train on, without end in their variety."""
    kind = RandomBlocks if recipe.task == "segmentation" else Clouds
    data = kind(recipe, scans, augmentation, seed)
    sampler = Epochs(len(data))
    return DataLoader(
        data,
        batch_size=min(batch, len(sampler)),
        sampler=sampler,
        # A last batch of a single cloud would leave a norm over the batch without a variance.
        drop_last=True,
        collate_fn=pack,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def validation_loader(
    recipe: Recipe, scans: Sequence[Scan], *, batch: int, workers: int
) -> DataLoader:
    """The labelled scans once, the same each time."""
    if recipe.task == "segmentation":
        data: Dataset[Sample] = Tiles(recipe, scans)
    else:
        data = Clouds(recipe, scans, None, seed=0)
    return DataLoader(own_share(data), batch_size=batch, collate_fn=pack, num_workers=workers)
