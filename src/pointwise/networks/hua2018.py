"""The networks of "Pointwise Convolutional Neural Networks" (Hua, Tran, Yeung, CVPR 2018), as is.

Four à-trous convolutions of 9 channels with dilations 1 to 4, SELU behind each, concatenated; then
a fifth convolution to the classes (segmentation), or fully connected layers over the points in a
fixed order (classification). No bias, and SELU behind the last layer too, as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.layers import CellConv

_CHANNELS = 9
_LAYERS = 4


def _initialise(module: nn.Module) -> None:
    """Glorot's uniform initialisation, the default of the framework the authors used."""
    if isinstance(module, CellConv):
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class _Trunk(nn.Module):
    """The four à-trous layers; returns all four outputs side by side, ``[N, 36]``."""

    def __init__(self, in_channels: int, cell_size: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CellConv(
                in_channels if number == 0 else _CHANNELS,
                _CHANNELS,
                cell_size,
                dilation=number + 1,
                bias=False,
            )
            for number in range(_LAYERS)
        )

    def forward(self, features: Tensor, cloud: PointCloud) -> Tensor:
        outputs = []
        for layer in self.layers:
            features = F.selu(layer(features, cloud))
            outputs.append(features)
        return torch.cat(outputs, dim=1)


class Hua2018Segmentation(nn.Module):
    """The paper's segmentation network: a score for each point and class.

    ``points [N, 3]``, ``features [N, in_channels]``, ``offsets [B+1]`` to logits ``[N, classes]``.
    The authors' cell size is 0.1 for shapes in the unit sphere.
    """

    def __init__(self, in_channels: int, classes: int, cell_size: float = 0.1) -> None:
        super().__init__()
        self.trunk = _Trunk(in_channels, cell_size)
        self.head = CellConv(_LAYERS * _CHANNELS, classes, cell_size, bias=False)
        self.apply(_initialise)

    def forward(self, points: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        cloud = PointCloud(points, offsets)
        return F.selu(self.head(self.trunk(features, cloud), cloud))


class Hua2018Classification(nn.Module):
    """The paper's classification network: a score for each cloud and class.

    ``points [N, 3]``, ``features [N, in_channels]``, ``offsets [B+1]`` to logits ``[B, classes]``.
    The fully connected layers see the points in the order of x, then y, then z; a cloud of another
    size than ``sample`` is read at ``sample`` evenly spaced places of that order.
    """

    def __init__(
        self, in_channels: int, classes: int, cell_size: float = 0.1, sample: int = 2048
    ) -> None:
        super().__init__()
        if sample < 1:
            raise ValueError(f"Hua2018Classification: sample must be at least 1, got {sample}")
        self.sample = sample
        self.trunk = _Trunk(in_channels, cell_size)
        self.hidden = nn.Linear(sample * _LAYERS * _CHANNELS, 512)
        self.dropout = nn.AlphaDropout(0.5)
        self.head = nn.Linear(512, classes)
        self.apply(_initialise)

    def forward(self, points: Tensor, features: Tensor, offsets: Tensor) -> Tensor:
        cloud = PointCloud(points, offsets)
        x = self.trunk(features, cloud)
        x = x[self._places(cloud)].flatten(1)
        return F.selu(self.head(self.dropout(F.selu(self.hidden(x)))))

    def _places(self, cloud: PointCloud) -> Tensor:
        """Which points each cloud's ``sample`` inputs are, ``[B, sample]``."""
        order = torch.arange(cloud.points.shape[0], device=cloud.points.device)
        for axis in (2, 1, 0):
            order = order[torch.sort(cloud.points[order, axis], stable=True).indices]
        order = order[torch.sort(cloud.batch[order], stable=True).indices]
        sizes = cloud.offsets.diff()
        if not torch.compiler.is_compiling() and bool((sizes == 0).any()):
            raise ValueError(
                f"Hua2018Classification: cloud {int((sizes == 0).nonzero()[0])} is empty; the "
                "fully connected layers need points to read: leave such clouds out"
            )
        steps = torch.arange(self.sample, device=order.device) / self.sample
        place = cloud.offsets[:-1, None] + (steps * sizes[:, None]).long()
        return order[place]
