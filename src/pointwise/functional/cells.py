"""The convolutions on point clouds as functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pointwise import checks
from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.engine import gpu
from pointwise.functional.convolve import in_autocast
from pointwise.operators import ops

_REDUCTIONS = ("mean", "sum")

# A table of this many pairs (4 bytes each, 8 with its transpose) is built whole; beyond, the
# queries are worked off in tiles.
_PAIRS_AT_ONCE = 1 << 28


def cell_conv(
    features: Tensor,
    neighborhood: Neighborhood,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Point-cloud convolution: ``y_i = b + Σ_m W_m · mean_{j in cell m of i} x_j``.

    ``features [Np, C_in]``, ``weight [C_out, C_in, k, k, k]`` (z, y, x last, as in ``nn.Conv3d``),
    ``bias [C_out]``; returns ``[Nq, C_out]``. An empty cell adds nothing; ``reduction="sum"`` adds
    the neighbours up instead of averaging them. float32 and float64; half precision computes in
    float32, or, on GPUs, adds up in it. Source: Hua, Tran, Yeung, "Pointwise Convolutional Neural
    Networks", CVPR 2018, eq. 1.

    >>> cloud = PointCloud(torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    >>> weight = torch.ones(1, 1, 3, 3, 3)
    >>> cell_conv(torch.tensor([[1.0], [2.0]]), cloud.neighborhood(0.1), weight)
    tensor([[3.],
            [3.]])
    """
    channels = features.shape[1] if isinstance(features, Tensor) and features.dim() == 2 else None
    k = _kernel_size("cell_conv", neighborhood)
    checks.features("cell_conv", features, neighborhood.points.shape[0])
    words = f"[C_out, C_in={channels}, {k}, {k}, {k}]"
    checks.weight("cell_conv", "weight", weight, (None, channels, k, k, k), words)
    checks.not_empty("cell_conv", "weight", weight)
    if bias is not None:
        checks.weight("cell_conv", "bias", bias, (len(weight),), f"[C_out={len(weight)}]")
    checks.alike("cell_conv", weight=weight, bias=bias)
    checks.one_of("cell_conv", "reduction", reduction, _REDUCTIONS)
    features, weight, bias = _in_autocast(features, weight, bias)
    compute, weight, bias = _in_float(features, weight, bias)
    checks.alike("cell_conv", features=compute, weight=weight)
    tables = _tables(compute, neighborhood)
    out = ops.cell_conv(compute, weight, bias, *tables, reduction == "mean")
    return out.to(features.dtype)


def cell_depthwise_conv(
    features: Tensor, neighborhood: Neighborhood, weight: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """Depthwise point-cloud convolution: ``y_i = Σ_m w_m ⊙ mean_{j in cell m of i} x_j``.

    ``features [Np, C]``, ``weight [C, 1, k, k, k]``; returns ``[Nq, C]``.
    """
    channels = features.shape[1] if isinstance(features, Tensor) and features.dim() == 2 else None
    k = _kernel_size("cell_depthwise_conv", neighborhood)
    checks.features("cell_depthwise_conv", features, neighborhood.points.shape[0])
    words = f"[C={channels}, 1, {k}, {k}, {k}]"
    checks.weight("cell_depthwise_conv", "weight", weight, (channels, 1, k, k, k), words)
    checks.not_empty("cell_depthwise_conv", "weight", weight)
    checks.one_of("cell_depthwise_conv", "reduction", reduction, _REDUCTIONS)
    features, weight = _in_autocast(features, weight)
    compute, weight = _in_float(features, weight)
    checks.alike("cell_depthwise_conv", features=compute, weight=weight)
    tables = _tables(compute, neighborhood)
    out = ops.cell_depthwise_conv(compute, weight, *tables, reduction == "mean")
    return out.to(features.dtype)


def cell_separable_conv(
    features: Tensor,
    neighborhood: Neighborhood,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Depthwise separable point-cloud convolution: the depthwise one, then a pointwise mix.

    ``depthwise [C_in, 1, k, k, k]``, ``pointwise [C_out, C_in]``, ``bias [C_out]``; returns
    ``[Nq, C_out]``. Without gradients both halves run in one tile loop, and the features between
    them never leave the cache.
    """
    needs_grad = torch.is_grad_enabled() and any(
        isinstance(tensor, Tensor) and tensor.requires_grad
        for tensor in (features, depthwise, pointwise, bias)
    )
    caller = "cell_separable_conv"
    channels = features.shape[1] if isinstance(features, Tensor) and features.dim() == 2 else None
    k = _kernel_size(caller, neighborhood)
    checks.features(caller, features, neighborhood.points.shape[0])
    words = f"[C_in={channels}, 1, {k}, {k}, {k}]"
    checks.weight(caller, "depthwise", depthwise, (channels, 1, k, k, k), words)
    checks.not_empty(caller, "depthwise", depthwise)
    words = f"[C_out, C_in={channels}]"
    checks.weight(caller, "pointwise", pointwise, (None, channels), words)
    if bias is not None:
        checks.weight(caller, "bias", bias, (len(pointwise),), f"[C_out={len(pointwise)}]")
    checks.one_of(caller, "reduction", reduction, _REDUCTIONS)
    checks.alike(caller, depthwise=depthwise, pointwise=pointwise, bias=bias)
    features, depthwise, pointwise, bias = _in_autocast(features, depthwise, pointwise, bias)
    compute, depthwise, pointwise, bias = _in_float(features, depthwise, pointwise, bias)
    checks.alike(caller, features=compute, depthwise=depthwise)
    if needs_grad:
        mixed = cell_depthwise_conv(compute, neighborhood, depthwise, reduction=reduction)
        return pointwise_conv(mixed, pointwise, bias).to(features.dtype)
    out = ops.cell_separable_conv(
        compute,
        depthwise,
        pointwise,
        bias,
        neighborhood.row_start,
        neighborhood.pairs,
        reduction == "mean",
    )
    return out.to(features.dtype)


def cell_shift_conv(
    features: Tensor,
    neighborhood: Neighborhood,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Shift convolution on a cloud: every channel from one kernel cell, then a pointwise mix.

    ``features [Np, C_in]``, ``weight [C_out, C_in]``, ``bias [C_out]``; returns ``[Nq, C_out]``.
    ⌊C_in/k³⌋ consecutive channels are the mean (or sum) of the neighbours in each of the k³ cells,
    in the order of ``cell_conv``'s weight; what is left over is that of the cell in the middle. An
    empty cell gives zeros. Source: as of ``shift_conv2d``, for the cells of ``cell_conv``.

    >>> cloud = PointCloud(torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    >>> features = torch.tensor([[1.0] * 27, [2.0] * 27])  # a channel for each cell
    >>> cell_shift_conv(features, cloud.neighborhood(0.1), torch.ones(1, 27))
    tensor([[3.],
            [3.]])
    """
    caller = "cell_shift_conv"
    channels = features.shape[1] if isinstance(features, Tensor) and features.dim() == 2 else None
    k = _kernel_size(caller, neighborhood)
    checks.features(caller, features, neighborhood.points.shape[0])
    checks.weight(caller, "weight", weight, (None, channels), f"[C_out, C_in={channels}]")
    checks.not_empty(caller, "weight", weight)
    if bias is not None:
        checks.weight(caller, "bias", bias, (len(weight),), f"[C_out={len(weight)}]")
    checks.alike(caller, weight=weight, bias=bias)
    checks.one_of(caller, "reduction", reduction, _REDUCTIONS)
    features, weight, bias = _in_autocast(features, weight, bias)
    compute, weight, bias = _in_float(features, weight, bias)
    checks.alike(caller, features=compute, weight=weight)
    tables = _tables(compute, neighborhood)
    mean = reduction == "mean"
    out = ops.cell_shift_conv(compute, weight, bias, *tables, k, mean)
    return out.to(features.dtype)


def pointwise_conv(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The 1×1 convolution on a cloud: ``features @ weight.T + bias``, as ``F.linear``.

    ``features [N, C_in]``, ``weight [C_out, C_in]``, ``bias [C_out]``; returns ``[N, C_out]``. The
    same result bit for bit at any number of threads.
    """
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise ValueError(
            f"pointwise_conv: features must be a tensor [N, C_in], got {checks.describe(features)}"
        )
    checks.features("pointwise_conv", features, features.shape[0])
    words = f"[C_out, C_in={features.shape[1]}]"
    checks.weight("pointwise_conv", "weight", weight, (None, features.shape[1]), words)
    if bias is not None:
        checks.weight("pointwise_conv", "bias", bias, (len(weight),), f"[C_out={len(weight)}]")
    checks.alike("pointwise_conv", weight=weight, bias=bias)
    features, weight, bias = _in_autocast(features, weight, bias)
    compute, weight, bias = _in_float(features, weight, bias)
    checks.alike("pointwise_conv", features=compute, weight=weight)
    return ops.pointwise_conv(compute, weight, bias).to(features.dtype)


def over_queries(
    function: Callable[[Tensor, Neighborhood], Tensor],
    features: Tensor,
    cloud: PointCloud,
    queries: PointCloud | None,
    cell_size: float,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """``function(features, neighborhood)`` for all queries: at once, or in tiles that fit.

    In tiles, each neighbourhood is built, used and dropped, and built again for the backward pass.
    Where a GPU's memory is not enough, it is tried again in tiles, smaller each time.
    """
    asked = cloud if queries is None else queries

    def whole() -> Tensor:
        return function(features, cloud.neighborhood(cell_size, kernel_size, dilation, queries))

    def on_tile(features: Tensor, first: int, last: int) -> Tensor:
        part = PointCloud(asked.points[first:last], asked.offsets.clamp(first, last) - first)
        where = (cloud.points, cloud.offsets, part.points, part.offsets)
        return function(features, Neighborhood(*where, float(cell_size), kernel_size, dilation))

    def in_tiles(tiles: int) -> Tensor:
        step = -(-len(asked) // tiles)
        parts = []
        for first in range(0, len(asked), step):
            span = (first, min(first + step, len(asked)))
            if torch.is_grad_enabled():
                parts.append(checkpoint(on_tile, features, *span, use_reentrant=False))
            else:
                parts.append(on_tile(features, *span))
        return torch.cat(parts)

    if torch.compiler.is_compiling():
        return whole()
    tiles = _tiles(cloud, asked, cell_size, kernel_size, dilation)
    while True:
        try:
            return whole() if tiles == 1 else in_tiles(tiles)
        except torch.OutOfMemoryError:  # of a GPU
            if tiles >= len(asked):
                raise
        # Here, where nothing holds what the attempt had in memory any more.
        tiles = min(4 * tiles, len(asked))


def _tiles(
    cloud: PointCloud, asked: PointCloud, cell_size: float, kernel_size: int, dilation: int
) -> int:
    """Into how many tiles of queries the work goes, from the neighbours of a sample.

    On a GPU whoever wants to know waits; there, work that does not fit shows itself.
    """
    if cloud.points.device.type != "cpu":
        return 1
    most = int((cloud.offsets.diff() * asked.offsets.diff()).sum())
    if most <= 4 * _PAIRS_AT_ONCE or len(asked) == 0:  # not worth a look
        return 1
    # float64: float32 would round the last of more than 2**25 points to one past the end.
    sample = torch.linspace(0, len(asked) - 1, 512, dtype=torch.float64).long().unique()
    sample = sample.to(asked.points.device)
    offsets = torch.searchsorted(sample, asked.offsets)
    part = PointCloud(asked.points[sample], offsets)
    where = (cloud.points, cloud.offsets, part.points, part.offsets)
    found = Neighborhood(*where, float(cell_size), kernel_size, dilation)
    expected = len(found.pairs) / len(sample) * len(asked)
    return max(1, min(len(asked), -(-int(expected) // _PAIRS_AT_ONCE)))


def _kernel_size(caller: str, neighborhood) -> int:
    """Of the neighbourhood; raises TypeError for what is none, such as a weight in its place."""
    if not isinstance(neighborhood, Neighborhood):
        raise TypeError(
            f"{caller}: neighborhood must be a Neighborhood, as cloud.neighborhood(cell_size) "
            f"gives, got {checks.describe(neighborhood)}"
        )
    return neighborhood.kernel_size


def _in_autocast(features: Tensor, *parameters):
    """In autocast's type where kernels for GPUs run; elsewhere the operators see to it."""
    if gpu.runs_on(features.device):
        return in_autocast(features, *parameters)
    return features, *parameters


def _in_float(features: Tensor, *parameters):
    """Half precision computes in float32: sums over many neighbours would lose too much.

    Kernels for GPUs add up in float32 whatever they read.
    """
    if features.dtype in (torch.float16, torch.bfloat16):
        mixed = any(p is not None and p.dtype != features.dtype for p in parameters)
        if mixed or not gpu.runs_on(features.device):
            features = features.float()
            parameters = tuple(p if p is None else p.float() for p in parameters)
    return features, *parameters


def _tables(features: Tensor, neighborhood: Neighborhood) -> tuple[Tensor | None, ...]:
    """The table, and the transposed one where the backward pass will ask for it."""
    table = (neighborhood.row_start, neighborhood.pairs)
    if torch.is_grad_enabled() and features.requires_grad:
        return *table, *neighborhood.backward_table()
    return *table, None, None
