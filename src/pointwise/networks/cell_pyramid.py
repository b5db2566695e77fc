"""Our classification network: a pyramid of separable point-cloud convolutions, pooled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.networks.blocks import BatchNorm, Encoder, means


class CellPyramid(nn.Module):
    """A score for each cloud and class.

    ``points [N, 3]``, ``features [N, in_channels]``, ``offsets [B+1]`` to logits ``[B, classes]``;
    any number of points, the order of which does not matter. Mean and maximum over the points of
    every level go into the head, so that fine texture and coarse shape both count.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        cell_size: float,
        width: int = 32,
        depths: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        widths = tuple(width * factor for factor in (1, 2, 4, 6, 8, 8, 8)[: len(depths)])
        self.encoder = Encoder(in_channels, widths, tuple(depths), cell_size, BatchNorm)
        pooled = 2 * sum(widths)
        self.head = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Dropout(0.4),
            nn.Linear(pooled, 128),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(128, classes),
        )

    def forward(self, points: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        levels = self.encoder(features, PointCloud(points, offsets))
        pooled = []
        for level in levels:
            lengths = level.voxels.offsets.diff()
            pooled.append(means(level.x, lengths))
            pooled.append(torch.segment_reduce(level.x, "max", lengths=lengths, initial=0))
        return self.head(torch.cat(pooled, dim=1))
