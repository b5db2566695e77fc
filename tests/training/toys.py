"""Networks small enough to train in a test, and scans whose classes can be learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.picture import Picture


class TinyPoints(nn.Module):
    """Each point by itself: logits ``[N, classes]``."""

    def __init__(self, in_channels: int, classes: int, cell_size: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_channels, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes)
        )

    def forward(self, points, features, offsets):
        return self.layers(features)


class TinyClouds(nn.Module):
    """The mean over each cloud: logits ``[B, classes]``."""

    def __init__(self, in_channels: int, classes: int, cell_size: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_channels, 16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, points, features, offsets):
        each = self.layers(features).split(offsets.diff().tolist())
        return self.head(torch.stack([rows.mean(dim=0) for rows in each]))


class TinyImages(nn.Module):
    """Two convolutions and the mean over the image: logits ``[B, classes]``."""

    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        wide = round(16 * width)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.ReLU(),
            nn.Conv2d(wide, wide, 3, 2, 1), nn.BatchNorm2d(wide), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(wide, classes)

    def forward(self, images):
        return self.head(self.layers(images).mean((2, 3)))


def stripes(label: int, seed: int, size: tuple[int, int] = (16, 16), channels: int = 3):
    """Pixels of stripes that lie (0) or stand (1), in some place and colour, with noise."""
    rng = np.random.default_rng((label, seed))
    rows = np.indices(size)[label]
    wave = 60 * np.sin(rows * 1.5 + rng.uniform(0, 6))[:, :, None]
    noise = rng.normal(0, 10, size=(*size, channels))
    colour = rng.uniform(90, 160, size=channels)
    return (wave + noise + colour).clip(0, 255).astype(np.uint8)


def pictures(count: int, first: int = 0, **more) -> list[Picture]:
    """``count`` pictures of each of the two classes."""
    return [
        Picture(f"{name} {i}", name, array=stripes(label, i, **more))
        for label, name in enumerate(("lying", "standing"))
        for i in range(first, first + count)
    ]


def scene(seed: int, count: int = 2000) -> Scan:
    """A floor, boxes on it and unlabelled points, at UTM coordinates; the colour tells some."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((0, 0, 0), (12, 8, 0.02), size=(count, 3))
    labels = np.full(count, 10)
    boxes = rng.random(count) < 0.3
    points[boxes, 2] += rng.uniform(0.5, 1.0, size=boxes.sum())
    labels[boxes] = np.where(points[boxes, 0] % 2 < 1, 20, 30)
    color = np.select(
        [labels[:, None] == 20, labels[:, None] == 30], [(200, 20, 20), (20, 200, 20)]
    )
    labels[rng.random(count) < 0.05] = UNLABELLED
    return Scan(
        points=points + (500_000.0, 5_400_000.0, 300.0),
        fields={
            "color": (color + rng.integers(0, 20, size=(count, 3))).astype(np.uint8),
            "intensity": rng.normal(100, 10, size=count).astype(np.float32),
        },
        labels=labels.astype(np.int64),
        classes={10: "floor", 20: "red box", 30: "green box", 99: "never seen"},
        name=f"scene {seed}",
    )


def cloud(label: int, seed: int, count: int = 200) -> Scan:
    """A tall cloud (0) or a flat one (1)."""
    rng = np.random.default_rng((label, seed))
    size = (0.3, 0.3, 2.0) if label == 0 else (1.0, 1.0, 0.2)
    return Scan(
        points=rng.uniform(-0.5, 0.5, size=(count, 3)) * size + 7.0,
        label=label,
        classes={0: "pillar", 1: "slab"},
        group=f"recording {label} {seed // 2}",
        name=f"cloud {seed}",
    )
