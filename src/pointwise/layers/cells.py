"""The convolutions on point clouds as modules."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pointwise import checks
from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cells as functional


class _CellKernel(nn.Module):
    """What the cloud convolutions share: the kernel's geometry, and its neighbourhoods."""

    def __init__(self, cell_size: float, kernel_size: int, dilation: int, reduction: str) -> None:
        super().__init__()
        checks.kernel(type(self).__name__, cell_size, kernel_size, dilation)
        checks.one_of(type(self).__name__, "reduction", reduction, ("mean", "sum"))
        self.cell_size = float(cell_size)
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.reduction = reduction

    def convolve(self, features: Tensor, neighborhood: Neighborhood) -> Tensor:
        raise NotImplementedError

    def forward(
        self, features: Tensor, cloud: PointCloud, queries: PointCloud | None = None
    ) -> Tensor:
        """``features [N, C_in]`` of ``cloud``'s points to ``[Nq, C_out]`` at the queries."""
        checks.features(type(self).__name__, features, cloud.points.shape[0])
        return functional.over_queries(
            self.convolve,
            features,
            cloud,
            queries,
            self.cell_size,
            self.kernel_size,
            self.dilation,
        )

    def extra_repr(self) -> str:
        return (
            f"cell_size={self.cell_size:g}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, reduction={self.reduction}"
        )


def _uniform(parameter: Tensor, fan_in: int) -> None:
    """PyTorch's default initialisation of convolutions, for this many inputs."""
    bound = 1 / math.sqrt(max(1, fan_in))
    nn.init.uniform_(parameter, -bound, bound)


class _Mixing(nn.Module):
    """What has a weight ``[C_out, C_in, …]`` and perhaps a bias ``[C_out]``."""

    def _make(self, in_channels: int, out_channels: int, bias: bool, kernel: tuple = ()) -> None:
        checks.positive(type(self).__name__, "in_channels", in_channels)
        checks.positive(type(self).__name__, "out_channels", out_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fan_in = self.weight[0].numel()
        _uniform(self.weight, fan_in)
        if self.bias is not None:
            _uniform(self.bias, fan_in)


class CellConv(_Mixing, _CellKernel):
    """Point-cloud convolution, ``functional.cell_conv``; dilation > 1 is its à-trous form.

    ``weight [C_out, C_in, k, k, k]``, ``bias [C_out]``. ``cell_size`` is the edge of a kernel cell
    in the unit of the points. Source: Hua, Tran, Yeung, CVPR 2018.

    >>> conv = CellConv(3, 16, cell_size=0.1)
    >>> conv(torch.rand(100, 3), PointCloud(torch.rand(100, 3))).shape
    torch.Size([100, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cell_size: float,
        kernel_size: int = 3,
        dilation: int = 1,
        bias: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(cell_size, kernel_size, dilation, reduction)
        self._make(in_channels, out_channels, bias, (kernel_size,) * 3)

    def convolve(self, features: Tensor, neighborhood: Neighborhood) -> Tensor:
        return functional.cell_conv(
            features, neighborhood, self.weight, self.bias, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, " + super().extra_repr()


class CellDepthwiseConv(_CellKernel):
    """Depthwise point-cloud convolution, ``functional.cell_depthwise_conv``.

    ``weight [C, 1, k, k, k]``: each channel has its own weight for each kernel cell.
    """

    def __init__(
        self,
        channels: int,
        cell_size: float,
        kernel_size: int = 3,
        dilation: int = 1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(cell_size, kernel_size, dilation, reduction)
        checks.positive(type(self).__name__, "channels", channels)
        self.weight = nn.Parameter(torch.empty(channels, 1, *[kernel_size] * 3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _uniform(self.weight, self.weight[0].numel())

    def convolve(self, features: Tensor, neighborhood: Neighborhood) -> Tensor:
        return functional.cell_depthwise_conv(
            features, neighborhood, self.weight, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, " + super().extra_repr()


class CellSeparableConv(_CellKernel):
    """Depthwise separable point-cloud convolution, ``functional.cell_separable_conv``.

    ``depthwise [C_in, 1, k, k, k]``, ``pointwise [C_out, C_in]``, ``bias [C_out]``: k³·C_in +
    C_in·C_out weights where ``CellConv`` has k³·C_in·C_out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cell_size: float,
        kernel_size: int = 3,
        dilation: int = 1,
        bias: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(cell_size, kernel_size, dilation, reduction)
        checks.positive(type(self).__name__, "in_channels", in_channels)
        checks.positive(type(self).__name__, "out_channels", out_channels)
        self.depthwise = nn.Parameter(torch.empty(in_channels, 1, *[kernel_size] * 3))
        self.pointwise = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _uniform(self.depthwise, self.depthwise[0].numel())
        _uniform(self.pointwise, self.pointwise.shape[1])
        if self.bias is not None:
            _uniform(self.bias, self.pointwise.shape[1])

    def convolve(self, features: Tensor, neighborhood: Neighborhood) -> Tensor:
        return functional.cell_separable_conv(
            features,
            neighborhood,
            self.depthwise,
            self.pointwise,
            self.bias,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"{self.pointwise.shape[1]}, {len(self.pointwise)}, " + super().extra_repr()


class CellShiftConv(_Mixing, _CellKernel):
    """Shift convolution on a cloud, ``functional.cell_shift_conv``: a channel sees one kernel cell.

    ``weight [C_out, C_in]``, ``bias [C_out]``: as many as ``PointwiseConv`` has.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cell_size: float,
        kernel_size: int = 3,
        dilation: int = 1,
        bias: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(cell_size, kernel_size, dilation, reduction)
        self._make(in_channels, out_channels, bias)

    def convolve(self, features: Tensor, neighborhood: Neighborhood) -> Tensor:
        return functional.cell_shift_conv(
            features, neighborhood, self.weight, self.bias, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, " + super().extra_repr()


class PointwiseConv(_Mixing):
    """The 1×1 convolution on a cloud, ``functional.pointwise_conv``: a linear map at every point.

    ``weight [C_out, C_in]``, ``bias [C_out]``; ``state_dict``s interchange with ``nn.Linear``.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self._make(in_channels, out_channels, bias)

    def forward(self, features: Tensor) -> Tensor:
        return functional.pointwise_conv(features, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"
