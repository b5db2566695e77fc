"""Our segmentation network: a U-Net of separable point-cloud convolutions on voxel grids."""

from __future__ import annotations

from torch import Tensor, nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.layers import PointwiseConv
from pointwise.networks.blocks import CloudNorm, Encoder, Residual


class _Up(nn.Module):
    """Back to the finer grid: each fine point takes its voxel's features, beside its own."""

    def __init__(self, coarse_channels: int, fine_channels: int) -> None:
        super().__init__()
        self.from_coarse = PointwiseConv(coarse_channels, fine_channels, bias=False)
        self.from_fine = PointwiseConv(fine_channels, fine_channels, bias=False)
        self.norm = CloudNorm(fine_channels)

    def forward(self, coarse: Tensor, parent: Tensor, fine: Tensor, cloud: PointCloud) -> Tensor:
        x = self.from_fine(fine) + self.from_coarse(coarse)[parent]
        return self.norm(x, cloud).relu_()


class CellUNet(nn.Module):
    """A score for each point and class.

    ``points [N, 3]``, ``features [N, in_channels]``, ``offsets [B+1]`` to logits ``[N, classes]``;
    any number of points. ``cell_size`` is the edge of the finest voxels, in the unit of the points;
    details smaller than that share a label. ``width`` is the number of channels there.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        cell_size: float,
        width: int = 32,
        depths: tuple[int, ...] = (1, 1, 2, 2, 1),
    ) -> None:
        super().__init__()
        widths = tuple(width * factor for factor in (1, 2, 4, 6, 8, 8, 8)[: len(depths)])
        self.encoder = Encoder(in_channels, widths, tuple(depths), cell_size, CloudNorm)
        self.ups = nn.ModuleList(
            _Up(wide, narrow) for wide, narrow in zip(widths[1:], widths[:-1], strict=True)
        )
        self.blocks = nn.ModuleList(
            Residual(narrow, size, CloudNorm)
            for narrow, size in zip(widths[:-1], self.encoder.sizes[:-1], strict=True)
        )
        self.head = PointwiseConv(width, classes)

    def forward(self, points: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        levels = self.encoder(features, PointCloud(points, offsets))
        x, parent = levels[-1].x, levels[-1].parent
        for number in reversed(range(len(self.ups))):
            fine = levels[number]
            x = self.ups[number](x, parent, fine.x, fine.voxels)
            x = self.blocks[number](x, fine.voxels)
            parent = fine.parent
        return self.head(x)[parent]
