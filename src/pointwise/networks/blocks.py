"""What our cloud networks are built from: a stem, residual separable blocks, and an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.layers import CellConv, CellDepthwiseConv, CellSeparableConv, PointwiseConv

Norm = Callable[[int], nn.Module]  # from a number of channels, a module of (features, cloud)


def means(x: Tensor, lengths: Tensor) -> Tensor:
    """The mean of each cloud's rows, ``[B, C]``; of half precision in float32, as its sums are."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.segment_reduce(wide, "mean", lengths=lengths, initial=0)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over points; a level with a single point takes the running statistics."""

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor, cloud: PointCloud) -> Tensor:  # type: ignore[override]
        if self.training and len(x) > 1:
            return super().forward(x)
        # Written out, because PyTorch's cannot be exported for a number of points known only later.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return torch.addcmul(self.bias - self.running_mean * scale, x, scale)


class CloudNorm(nn.Module):
    """Instance norm: each channel by its mean and variance over the points of its own cloud.

    The same in training and afterwards, so that it needs no large batches; and what a board is to
    the wall of its room, it is in a darker room as well.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, cloud: PointCloud) -> Tensor:
        if not torch.compiler.is_compiling():  # there, the numbers must stay open
            if len(x) == 0:
                return x
            if len(cloud.offsets) == 2:  # one cloud is one batch
                return torch.batch_norm(
                    x, self.weight, self.bias, None, None, True, 0.0, self.eps, False
                )
        batch, lengths = cloud.batch, cloud.offsets.diff()
        away = x - means(x, lengths)[batch]
        scale = self.weight * torch.rsqrt(means(away * away, lengths) + self.eps)
        return torch.addcmul(self.bias, away, scale[batch]).to(x.dtype)


class Describe(nn.Module):
    """What is known of each point: its features, a constant, and its place in its voxel.

    The constant tells occupied cells from empty ones; from the first and second moments of the
    place, averaged over cells, a network reads how the surface lies.
    """

    MORE = 1 + 3 + 6  # channels besides the features

    def __init__(self, cell_size: float) -> None:
        super().__init__()
        self.cell_size = cell_size

    def forward(
        self, features: Tensor, cloud: PointCloud, voxels: PointCloud, parent: Tensor
    ) -> Tensor:
        place = (cloud.points - voxels.points[parent]).to(features.dtype) / self.cell_size
        x, y, z = place.unbind(1)
        second = torch.stack((x * x, y * y, z * z, x * y, y * z, z * x), dim=1)
        constant = torch.ones_like(place[:, :1])
        return torch.cat((features, constant, place, second), dim=1)


class Residual(nn.Module):
    """A residual block: depthwise convolution, then a pointwise bottleneck turned inside out."""

    def __init__(self, channels: int, cell_size: float, norm: Norm) -> None:
        super().__init__()
        self.depthwise = CellDepthwiseConv(channels, cell_size)
        self.norm = norm(channels)
        self.widen = PointwiseConv(channels, 2 * channels)
        self.narrow = PointwiseConv(2 * channels, channels, bias=False)
        self.out_norm = norm(channels)

    def forward(self, x: Tensor, cloud: PointCloud) -> Tensor:
        y = self.norm(self.depthwise(x, cloud), cloud)
        y = self.narrow(self.widen(y).relu_())
        return (x + self.out_norm(y, cloud)).relu_()


class Down(nn.Module):
    """To a coarser voxel grid: a separable convolution with the coarse points as its queries."""

    def __init__(self, in_channels: int, out_channels: int, cell_size: float, norm: Norm) -> None:
        super().__init__()
        self.conv = CellSeparableConv(in_channels, out_channels, cell_size, bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor, fine: PointCloud, coarse: PointCloud) -> Tensor:
        return self.norm(self.conv(x, fine, coarse), coarse).relu_()


@dataclass
class Level:
    """One resolution: features ``[V, C]`` of the voxels, and the voxel of each finer point."""

    x: Tensor
    voxels: PointCloud
    parent: Tensor


class Encoder(nn.Module):
    """From points to voxels, then residual blocks, each level twice as coarse as the last.

    Before them, a convolution whose queries are the voxels takes in all the points.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        cell_size: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.sizes = [cell_size * 2**level for level in range(len(widths))]
        self.describe = Describe(cell_size)
        self.stem = CellConv(in_channels + Describe.MORE, widths[0], cell_size, bias=False)
        self.norm = norm(widths[0])
        self.downs = nn.ModuleList(
            Down(narrow, wide, size, norm)
            for narrow, wide, size in zip(widths[:-1], widths[1:], self.sizes[:-1], strict=True)
        )
        self.levels = nn.ModuleList(
            nn.ModuleList(Residual(width, size, norm) for _ in range(depth))
            for width, depth, size in zip(widths, depths, self.sizes, strict=True)
        )

    def forward(self, features: Tensor, cloud: PointCloud) -> list[Level]:
        voxels, parent = cloud.voxels(self.sizes[0])
        described = self.describe(features, cloud, voxels, parent)
        x = self.norm(self.stem(described, cloud, voxels), voxels).relu_()
        levels = []
        for number, blocks in enumerate(self.levels):
            if number:
                coarse, parent = voxels.voxels(self.sizes[number])
                x = self.downs[number - 1](x, voxels, coarse)
                voxels = coarse
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, voxels)
            levels.append(Level(x, voxels, parent))
        return levels
