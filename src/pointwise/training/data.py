"""Scans as PyTorch data sets: random blocks to train on, tiles to validate on, whole clouds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pointwise.cloud.scan import Scan
from pointwise.training.augment import Augmentation
from pointwise.training.block_source import Source, cloud_of, prepared_of, source_of
from pointwise.training.classes import IGNORED
from pointwise.training.columns import blocks
from pointwise.training.feed import Epochs, Feed, own_share
from pointwise.training.recipe import Prepared, Recipe
from pointwise.training.shelf import MEMORY, Arrays, Held, Memory, arrays_of


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
        self,
        recipe: Recipe,
        scans: Sequence[Scan],
        augmentation: Augmentation | None,
        seed: int,
        memory: Memory = MEMORY,
    ) -> None:
        self.recipe, self.augmentation, self.seed = recipe, augmentation, seed
        self.held = [held_source(recipe, scan, memory) for scan in scans]
        counts = [self._count(self.source(i)) for i in range(len(scans))]
        blocks = np.repeat(np.arange(len(scans)), counts)
        self.passes = -(-FEWEST // len(blocks))
        self.scan_of_block = np.tile(blocks, self.passes)

    def source(self, scan: int) -> Source:
        return Source(self.recipe, self.held[scan].arrays)

    def __len__(self) -> int:
        return len(self.scan_of_block)

    def __getitem__(self, n: int) -> Sample:
        epoch, block = divmod(n, len(self))
        order = np.random.default_rng((self.seed, epoch)).permutation(self.scan_of_block)
        source, rng = self.source(order[block]), np.random.default_rng((self.seed, epoch, block))
        index = self._block(source, rng)
        if self.augmentation is not None:
            index = index[self.augmentation.kept(len(index), rng)]
        points, features = self.recipe.sample(source.prepared, index, self.augmentation, rng)
        return points, features, source.labels[index]

    def _block(self, source: Source, rng: np.random.Generator) -> np.ndarray:
        columns, most = source.prepared.columns, self.recipe.most
        of_class = source.by_class[rng.integers(len(source.by_class))]
        centre = columns.xy[rng.choice(of_class)]
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

    def _count(self, source: Source) -> int:
        """How many blocks hold about as many points as a scan has."""
        rng = np.random.default_rng(self.seed)
        held = np.median([len(self._block(source, rng)) for _ in range(5)])
        return int(np.ceil(len(source.labels) / held))


class Tiles(Dataset[Sample]):
    """Scans cut as labelling cuts them; the points of the margins have no label here."""

    def __init__(self, recipe: Recipe, scans: Sequence[Scan], memory: Memory = MEMORY) -> None:
        self.recipe = recipe
        self.held = [held_source(recipe, scan, memory) for scan in scans]
        self.cuts = [held_tiles(recipe, held, memory) for held in self.held]
        counts = [len(cut.arrays["ends"]) for cut in self.cuts]
        self.places = [(scan, tile) for scan, n in enumerate(counts) for tile in range(n)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, n: int) -> Sample:
        scan, tile = self.places[n]
        source, cut = Source(self.recipe, self.held[scan].arrays), self.cuts[scan].arrays
        part = slice(cut["ends"][tile - 1] if tile else 0, cut["ends"][tile])
        index = cut["index"][part]
        labels = np.where(cut["core"][part], source.labels[index], IGNORED)
        return *self.recipe.sample(source.prepared, index), labels


def held_source(recipe: Recipe, scan: Scan, memory: Memory) -> Held:
    """What blocks of a scan are drawn from, or tiles are cut from."""
    return memory.hold(("blocks", recipe), arrays_of(scan), lambda: source_of(recipe, scan))


def held_tiles(recipe: Recipe, source: Held, memory: Memory) -> Held:
    """The points ``index`` of the tiles, whether they are in the tile's ``core``, and the ends."""

    def tiles() -> Arrays:
        found = list(cut(recipe, prepared_of(recipe, source.arrays)))
        index, core = (np.concatenate(part) for part in zip(*found, strict=True))
        return {"index": index, "core": core, "ends": np.cumsum([len(part) for part, _ in found])}

    return memory.hold(("tiles", recipe), source.arrays, tiles)


def cut(recipe: Recipe, prepared: Prepared) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ``(index [n], core [n])`` of blocks whose cores together hold every point once."""
    return blocks(prepared.columns, recipe.block, recipe.margin, recipe.most)


class Clouds(Dataset[Sample]):
    """Whole clouds and the class of each; with an augmentation, in a new order each epoch."""

    def __init__(
        self,
        recipe: Recipe,
        scans: Sequence[Scan],
        augmentation: Augmentation | None,
        seed: int,
        memory: Memory = MEMORY,
    ) -> None:
        self.recipe, self.augmentation, self.seed = recipe, augmentation, seed
        self.held = [held_cloud(recipe, scan, memory) for scan in scans]
        self.labels = [recipe.targets(scan) for scan in scans]

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, n: int) -> Sample:
        epoch, item = divmod(n, len(self))
        rng = np.random.default_rng((self.seed, epoch, item))
        if self.augmentation is not None:
            item = int(np.random.default_rng((self.seed, epoch)).permutation(len(self))[item])
        prepared = prepared_of(self.recipe, self.held[item].arrays)
        index = np.arange(len(prepared.scan))
        if self.augmentation is not None:
            index = index[self.augmentation.kept(len(index), rng)]
        index = self.recipe.thin(index, rng)
        points, features = self.recipe.sample(prepared, index, self.augmentation, rng)
        return points, features, self.labels[item]


def held_cloud(recipe: Recipe, scan: Scan, memory: Memory) -> Held:
    return memory.hold(("cloud", recipe), arrays_of(scan), lambda: cloud_of(recipe, scan))


def feed(
    recipe: Recipe,
    train: Sequence[Scan],
    validation: Sequence[Scan] = (),
    *,
    augmentation: Augmentation | None = None,
    batch: int | None = None,
    workers: int = 0,
    seed: int = 0,
    memory: Memory = MEMORY,
) -> Feed:
    """What a training on clouds reads; ``batch`` is 1 block or 16 clouds unless given."""
    batch = batch or (1 if recipe.task == "segmentation" else 16)
    loader = train_loader(
        recipe,
        train,
        augmentation=augmentation,
        batch=batch,
        workers=workers,
        seed=seed,
        memory=memory,
    )
    return Feed(
        loader,
        validation_loader(recipe, validation, batch=batch, workers=workers, memory=memory)
        if validation
        else None,
        label_counts(recipe, train),
        loader.dataset.passes if isinstance(loader.dataset, RandomBlocks) else 1,
    )


def prepare(recipe: Recipe, scans: Sequence[Scan], memory: Memory) -> None:
    """Holds in ``memory`` what ``feed`` will ask for, so that it is there already."""
    held = held_source if recipe.task == "segmentation" else held_cloud
    for scan in scans:
        held(recipe, scan, memory)


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
    memory: Memory = MEMORY,
) -> DataLoader:
    """Batches to train on, without end in their variety."""
    kind = RandomBlocks if recipe.task == "segmentation" else Clouds
    data = kind(recipe, scans, augmentation, seed, memory)
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
    recipe: Recipe, scans: Sequence[Scan], *, batch: int, workers: int, memory: Memory = MEMORY
) -> DataLoader:
    """The labelled scans once, the same each time."""
    if recipe.task == "segmentation":
        data: Dataset[Sample] = Tiles(recipe, scans, memory)
    else:
        data = Clouds(recipe, scans, None, seed=0, memory=memory)
    return DataLoader(own_share(data), batch_size=batch, collate_fn=pack, num_workers=workers)
