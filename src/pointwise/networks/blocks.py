"""What our cloud networks are built from: a stem, residual separable blocks, and an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.layers import CellConv, CellDepthwiseConv, CellSeparableConv, PointwiseConv


class Norm(nn.BatchNorm1d):
    """Batch norm over points; a level with a single point takes the running statistics."""

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 1:
            return super().forward(x)
        # Written out, because PyTorch's cannot be exported for a number of points known only later.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return torch.addcmul(self.bias - self.running_mean * scale, x, scale)


class Stem(nn.Module):
    """From points to voxels: what the points in and around each voxel look like.

    Besides its features, each point brings a constant (which tells occupied cells from empty ones)
    and the first and second moments of its place about the voxel's mean, from which the network
    reads how the surface lies. A convolution whose queries are the voxels takes it all in.
    """

    _MOMENTS = 1 + 3 + 6

    def __init__(self, in_channels: int, out_channels: int, cell_size: float) -> None:
        super().__init__()
        self.conv = CellConv(in_channels + self._MOMENTS, out_channels, cell_size, bias=False)
        self.norm = Norm(out_channels)

    def forward(
        self, features: Tensor, cloud: PointCloud, voxels: PointCloud, parent: Tensor
    ) -> Tensor:
        place = (cloud.points - voxels.points[parent]).to(features.dtype) / self.conv.cell_size
        x, y, z = place.unbind(1)
        second = torch.stack((x * x, y * y, z * z, x * y, y * z, z * x), dim=1)
        constant = torch.ones_like(place[:, :1])
        described = torch.cat((features, constant, place, second), dim=1)
        return self.norm(self.conv(described, cloud, voxels)).relu_()


class Residual(nn.Module):
    """A residual block: depthwise convolution, then a pointwise bottleneck turned inside out."""

    def __init__(self, channels: int, cell_size: float, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = CellDepthwiseConv(channels, cell_size, dilation=dilation)
        self.norm = Norm(channels)
        self.widen = PointwiseConv(channels, 2 * channels)
        self.narrow = PointwiseConv(2 * channels, channels, bias=False)
        self.out_norm = Norm(channels)

    def forward(self, x: Tensor, cloud: PointCloud) -> Tensor:
        y = self.norm(self.depthwise(x, cloud))
        y = self.narrow(self.widen(y).relu_())
        return (x + self.out_norm(y)).relu_()


class Down(nn.Module):
    """To a coarser voxel grid: a separable convolution with the coarse points as its queries."""

    def __init__(self, in_channels: int, out_channels: int, cell_size: float) -> None:
        super().__init__()
        self.conv = CellSeparableConv(in_channels, out_channels, cell_size, bias=False)
        self.norm = Norm(out_channels)

    def forward(self, x: Tensor, fine: PointCloud, coarse: PointCloud) -> Tensor:
        return self.norm(self.conv(x, fine, coarse)).relu_()


class Encoder(nn.Module):
    """A stem and levels of residual blocks, each on a voxel grid twice as coarse as the last.

    Returns, level by level: the features, the points they belong to, and the index of each finer
    point's voxel.
    """

    def __init__(
        self, in_channels: int, widths: tuple[int, ...], depths: tuple[int, ...], cell_size: float
    ) -> None:
        super().__init__()
        self.sizes = [cell_size * 2**level for level in range(len(widths))]
        self.stem = Stem(in_channels, widths[0], cell_size)
        self.downs = nn.ModuleList(
            Down(narrow, wide, size)
            for narrow, wide, size in zip(widths[:-1], widths[1:], self.sizes[:-1], strict=True)
        )
        self.levels = nn.ModuleList(
            nn.ModuleList(Residual(width, size) for _ in range(depth))
            for width, depth, size in zip(widths, depths, self.sizes, strict=True)
        )

    def forward(
        self, features: Tensor, cloud: PointCloud
    ) -> list[tuple[Tensor, PointCloud, Tensor]]:
        voxels, parent = cloud.voxels(self.sizes[0])
        x = self.stem(features, cloud, voxels, parent)
        outputs = []
        for number, blocks in enumerate(self.levels):
            if number:
                coarse, parent = voxels.voxels(self.sizes[number])
                x = self.downs[number - 1](x, voxels, coarse)
                voxels = coarse
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, voxels)
            outputs.append((x, voxels, parent))
        return outputs
