"""The operators on point clouds: schema, CPU kernels, a plain form for every other device, shapes
for tracing, and gradients. Their forms on GPUs are in ``cells_on_gpus``.

All of a convolution's gradients are convolutions again: the input's is one over the transposed
table, the weight's gathers once more and multiplies from the other side. Where both are wanted, one
gather over the transposed table serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointwise.convolution.cells import (
    adjoint_weights,
    by_cell,
    depthwise_by_cell,
    gather,
    gather_depthwise,
    index_bits,
)
from pointwise.engine import found
from pointwise.engine.cpu.gathers import cells
from pointwise.engine.cpu.gathers.points import CELLS, CELLS_DEPTHWISE, IDENTITY, Gather
from pointwise.engine.cpu.loops.depthwise_gradient import cells_weight_gradient
from pointwise.engine.cpu.loops.points import mixed_points
from pointwise.engine.cpu.loops.points_backward import points_backward
from pointwise.engine.cpu.loops.weight_gradient import points_weight_gradient
from pointwise.engine.cpu.replay import replayed
from pointwise.engine.cpu.search.neighbours import grid_search
from pointwise.engine.cpu.search.voxels import voxel_grid
from pointwise.engine.library import define, differentiate, ops
from pointwise.operators import cells_on_gpus, requirements
from pointwise.operators.autocast import follow_autocast

TABLE = "Tensor row_start, Tensor pairs"


# --- search -------------------------------------------------------------------------------------


def _search_anywhere(
    points, point_offsets, queries, query_offsets, cell_size, kernel_size, dilation, transposed
):
    here = (points.cpu(), point_offsets.cpu())
    same = points is queries and point_offsets is query_offsets
    there = here if same else (queries.cpu(), query_offsets.cpu())
    table = grid_search(*here, *there, cell_size, kernel_size, dilation, transposed)
    row_start, pairs, symmetric = (each.to(points.device) for each in table)
    columns = len(queries if transposed else points)
    found.remember(row_start, pairs, columns, kernel_size**3, bool(table[2]))
    return row_start, pairs, symmetric


def _search_cuda(*arguments):
    from pointwise.engine.gpu.search import neighbours

    return neighbours.grid_search(*arguments)


def _search_fake(
    points, point_offsets, queries, query_offsets, cell_size, kernel_size, dilation, transposed
):
    rows = points.shape[0] if transposed else queries.shape[0]
    found = torch.library.get_ctx().new_dynamic_size()
    row_start = points.new_empty(rows + 1, dtype=torch.int64)
    pairs = points.new_empty(found, dtype=torch.int32)
    return row_start, pairs, points.new_empty((), dtype=torch.bool)


define(
    "cell_search(Tensor points, Tensor point_offsets, Tensor queries, Tensor query_offsets, "
    "float cell_size, int kernel_size, int dilation, bool transposed) -> (Tensor, Tensor, Tensor)",
    grid_search,
    _search_anywhere,
    _search_fake,
    cuda=_search_cuda,
)


def _voxels_cuda(*arguments):
    from pointwise.engine.gpu.search import voxels

    return voxels.voxel_grid(*arguments)


def _voxels_fake(points, offsets, size):
    count = torch.library.get_ctx().new_dynamic_size()
    parent = points.new_empty(points.shape[0], dtype=torch.int64)
    return points.new_empty(count, 3), torch.empty_like(offsets), parent


define(
    "voxel_grid(Tensor points, Tensor offsets, float size) -> (Tensor, Tensor, Tensor)",
    voxel_grid,
    voxel_grid,
    _voxels_fake,
    requirements.voxel_grid,
    cuda=_voxels_cuda,
)


# --- pieces that the kernels share ---------------------------------------------------------------


def gather_over_table(kind, x, row_start, pairs, kernel_cells, mean, weight=None) -> Gather:
    """The gather of ``x [Np, C]`` over a table of neighbours."""
    return Gather(
        kind,
        x.contiguous(),
        len(row_start) - 1,
        row_start.contiguous(),
        pairs.contiguous(),
        index_bits(len(x)),
        cells.MEAN if mean else cells.SUM,
        cells=kernel_cells,
        weight=weight,
    )


def adjoint_over_table(
    kind, grad, table, transposed, kernel_cells, mean, points, weight=None
) -> Gather:
    """The gather of ``grad [Nq, C]`` over the transposed table: the other gather's adjoint.

    Without a transposed table, the table itself is read from the other side (``mirrored``).
    """
    mirrored = transposed[0] is None
    row_start, pairs = table if mirrored else transposed
    gather = gather_over_table(kind, grad, row_start, pairs, kernel_cells, False, weight)
    gather.mirrored = mirrored
    if mean:
        gather.mode = cells.ADJOINT_OF_MEAN
        row_start, pairs = table
        bits = index_bits(points)
        gather.shares = cells.cell_shares(row_start, pairs, bits, kernel_cells, grad.dtype)
    return gather


def ready(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """As the kernels read them."""
    return tuple(None if x is None else x.contiguous() for x in tensors)


def _matrix(weight: Tensor) -> Tensor:
    """``by_cell`` as a matrix ``[M·C_in, C_out]``."""
    return by_cell(weight).reshape(-1, len(weight))


# --- cell_conv ------------------------------------------------------------------------------------


def _cell_conv_cpu(features, weight, bias, row_start, pairs, back_row_start, back_pairs, mean):
    return _convolved(ready(features, weight, bias, row_start, pairs), mean)


@replayed
def _convolved(tensors, mean):
    features, weight, bias, row_start, pairs = tensors
    kernel_cells = weight.shape[2:].numel()
    gather = gather_over_table(CELLS, features, row_start, pairs, kernel_cells, mean)
    return mixed_points(gather, by_cell(weight), bias)


def _cell_conv_plain(features, weight, bias, row_start, pairs, back_row_start, back_pairs, mean):
    kernel_cells = weight.shape[2:].numel()
    bits = index_bits(len(features))
    gathered = gather(features, row_start, pairs, bits, kernel_cells, mean)
    out = gathered.flatten(1) @ _matrix(weight)
    return out if bias is None else out + bias


def _cell_conv_fake(features, weight, bias, row_start, *rest):
    return features.new_empty(row_start.shape[0] - 1, weight.shape[0])


define(
    f"cell_conv(Tensor features, Tensor weight, Tensor? bias, {TABLE}, Tensor? back_row_start, "
    "Tensor? back_pairs, bool mean) -> Tensor",
    _cell_conv_cpu,
    _cell_conv_plain,
    _cell_conv_fake,
    requirements.cell_conv,
    requirements.cell_conv_table,
    cuda=cells_on_gpus.cell_conv,
)


def _cell_conv_grad_input_cpu(
    grad, weight, row_start, pairs, back_row_start, back_pairs, mean, points
):
    tensors = ready(grad, weight, row_start, pairs, back_row_start, back_pairs)
    return _input_gradient(tensors, mean, points)


@replayed
def _input_gradient(tensors, mean, points):
    grad, weight, row_start, pairs, *back = tensors
    kernel_cells = weight.shape[2:].numel()
    gather = adjoint_over_table(CELLS, grad, (row_start, pairs), back, kernel_cells, mean, points)
    return mixed_points(gather, by_cell(weight.transpose(0, 1)), None)


def _cell_conv_grad_input_plain(
    grad, weight, row_start, pairs, back_row_start, back_pairs, mean, points
):
    kernel_cells = weight.shape[2:].numel()
    where, point, scale = adjoint_weights(
        row_start, pairs, index_bits(points), kernel_cells, mean, grad.dtype
    )
    gathered = (grad @ _matrix(weight).t()).view(-1, weight.shape[1])
    out = grad.new_zeros(points, weight.shape[1])
    return out.index_add(0, point, gathered[where] * scale[:, None])


define(
    f"cell_conv_grad_input(Tensor grad, Tensor weight, {TABLE}, Tensor? back_row_start, "
    "Tensor? back_pairs, bool mean, SymInt points) -> Tensor",
    _cell_conv_grad_input_cpu,
    _cell_conv_grad_input_plain,
    lambda grad, weight, a, b, c, d, mean, points: grad.new_empty(points, weight.shape[1]),
    requirements.cell_conv_grad_input,
    requirements.cell_conv_grad_input_tables,
    cuda=cells_on_gpus.cell_conv_grad_input,
)


def _cell_conv_grad_weight_cpu(grad, features, weight, row_start, pairs, mean):
    kernel_cells = weight.shape[2:].numel()
    total, bias = _weight_gradient(ready(grad, features, row_start, pairs), kernel_cells, mean)
    total = total.reshape(kernel_cells, weight.shape[1], len(weight)).permute(2, 1, 0)
    return total.reshape(weight.shape).contiguous(), bias.clone()


@replayed
def _weight_gradient(tensors, kernel_cells, mean):
    grad, features, row_start, pairs = tensors
    gather = gather_over_table(CELLS, features, row_start, pairs, kernel_cells, mean)
    return points_weight_gradient(gather, grad)


def _cell_conv_grad_weight_plain(grad, features, weight, row_start, pairs, mean):
    kernel_cells = weight.shape[2:].numel()
    bits = index_bits(len(features))
    gathered = gather(features, row_start, pairs, bits, kernel_cells, mean)
    total = (gathered.flatten(1).t() @ grad).view(kernel_cells, weight.shape[1], len(weight))
    return total.permute(2, 1, 0).reshape(weight.shape).contiguous(), grad.sum(0)


define(
    f"cell_conv_grad_weight(Tensor grad, Tensor features, Tensor weight, {TABLE}, bool mean)"
    " -> (Tensor, Tensor)",
    _cell_conv_grad_weight_cpu,
    _cell_conv_grad_weight_plain,
    lambda grad, features, weight, a, b, mean: (
        torch.empty_like(weight, memory_format=torch.contiguous_format),
        grad.new_empty(grad.shape[1]),
    ),
    requirements.cell_conv_grad_weight,
    requirements.cell_conv_grad_weight_table,
    cuda=cells_on_gpus.cell_conv_grad_weight,
)


def _cell_conv_grads_cpu(
    grad, features, weight, row_start, pairs, back_row_start, back_pairs, mean
):
    grad = grad.contiguous()
    tensors = ready(grad, features, weight, row_start, pairs, back_row_start, back_pairs)
    d_features, total = _both_gradients(tensors, mean)
    _, bias = points_weight_gradient(Gather(IDENTITY, grad[:, :0], len(grad)), grad)
    total = total.view(weight.shape[1], -1, len(weight)).permute(2, 0, 1)
    return d_features, total.reshape(weight.shape).contiguous(), bias


@replayed
def _both_gradients(tensors, mean):
    grad, features, weight, row_start, pairs, *back = tensors
    kernel_cells, table = weight.shape[2:].numel(), (row_start, pairs)
    gather = adjoint_over_table(CELLS, grad, table, back, kernel_cells, mean, len(features))
    return points_backward(gather, by_cell(weight.transpose(0, 1)), features)


def _cell_conv_grads_plain(
    grad, features, weight, row_start, pairs, back_row_start, back_pairs, mean
):
    table, back = (row_start, pairs), (back_row_start, back_pairs)
    d_features = _cell_conv_grad_input_plain(grad, weight, *table, *back, mean, len(features))
    return d_features, *_cell_conv_grad_weight_plain(grad, features, weight, *table, mean)


def _cell_conv_grads_fake(grad, features, weight, *rest):
    like = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return features.new_empty(features.shape), like, grad.new_empty(grad.shape[1])


define(
    f"cell_conv_grads(Tensor grad, Tensor features, Tensor weight, {TABLE}, "
    "Tensor? back_row_start, Tensor? back_pairs, bool mean) -> (Tensor, Tensor, Tensor)",
    _cell_conv_grads_cpu,
    _cell_conv_grads_plain,
    _cell_conv_grads_fake,
    requirements.cell_conv_grads,
    requirements.cell_conv_grads_tables,
    cuda=cells_on_gpus.cell_conv_grads,
)


def _cell_conv_setup(ctx, inputs, output) -> None:
    features, weight, bias, *tables, mean = inputs
    ctx.save_for_backward(features, weight, *tables)
    ctx.mean, ctx.with_bias = mean, bias is not None


@once_differentiable
def _cell_conv_backward(ctx, grad):
    features, weight, *tables = ctx.saved_tensors
    wants = ctx.needs_input_grad
    d_features = d_weight = d_bias = None
    if wants[0] and wants[1]:
        d_features, d_weight, d_bias = ops.cell_conv_grads(
            grad, features, weight, *tables, ctx.mean
        )
    elif wants[0]:
        d_features = ops.cell_conv_grad_input(grad, weight, *tables, ctx.mean, features.shape[0])
    if d_bias is None and (wants[1] or wants[2]):
        d_weight, d_bias = ops.cell_conv_grad_weight(
            grad, features, weight, tables[0], tables[1], ctx.mean
        )
    return d_features, d_weight, d_bias if ctx.with_bias else None, None, None, None, None, None


differentiate("cell_conv", _cell_conv_backward, _cell_conv_setup)


# --- cell_depthwise_conv --------------------------------------------------------------------------


def _depthwise_matrix(weight: Tensor) -> Tensor:
    """``depthwise_by_cell`` as the kernels read it."""
    return depthwise_by_cell(weight).contiguous()


def _depthwise_cpu(features, weight, row_start, pairs, back_row_start, back_pairs, mean):
    kernel_cells = weight[0].numel()
    matrix = _depthwise_matrix(weight)
    gather = gather_over_table(
        CELLS_DEPTHWISE, features, row_start, pairs, kernel_cells, mean, matrix
    )
    return mixed_points(gather, None, None)


def _depthwise_plain(features, weight, row_start, pairs, back_row_start, back_pairs, mean):
    bits = index_bits(len(features))
    return gather_depthwise(features, weight, row_start, pairs, bits, mean)


define(
    f"cell_depthwise_conv(Tensor features, Tensor weight, {TABLE}, Tensor? back_row_start, "
    "Tensor? back_pairs, bool mean) -> Tensor",
    _depthwise_cpu,
    _depthwise_plain,
    lambda features, weight, row_start, *rest: features.new_empty(
        row_start.shape[0] - 1, features.shape[1]
    ),
    requirements.depthwise,
    requirements.depthwise_table,
    cuda=cells_on_gpus.depthwise,
)


def _depthwise_grad_input_cpu(
    grad, weight, row_start, pairs, back_row_start, back_pairs, mean, points
):
    table, back = (row_start, pairs), (back_row_start, back_pairs)
    matrix = _depthwise_matrix(weight)
    gather = adjoint_over_table(
        CELLS_DEPTHWISE, grad, table, back, weight[0].numel(), mean, points, matrix
    )
    return mixed_points(gather, None, None)


def _depthwise_grad_input_plain(
    grad, weight, row_start, pairs, back_row_start, back_pairs, mean, points
):
    kernel_cells = weight[0].numel()
    where, point, scale = adjoint_weights(
        row_start, pairs, index_bits(points), kernel_cells, mean, grad.dtype
    )
    pair = grad[where // kernel_cells] * weight.flatten(1).t()[where % kernel_cells]
    return grad.new_zeros(points, grad.shape[1]).index_add(0, point, pair * scale[:, None])


define(
    f"cell_depthwise_conv_grad_input(Tensor grad, Tensor weight, {TABLE}, Tensor? back_row_start, "
    "Tensor? back_pairs, bool mean, SymInt points) -> Tensor",
    _depthwise_grad_input_cpu,
    _depthwise_grad_input_plain,
    lambda grad, weight, a, b, c, d, mean, points: grad.new_empty(points, grad.shape[1]),
    requirements.depthwise_grad_input,
    requirements.depthwise_grad_input_tables,
    cuda=cells_on_gpus.depthwise_grad_input,
)


def _depthwise_grad_weight_cpu(grad, features, weight, row_start, pairs, mean):
    gather = gather_over_table(CELLS_DEPTHWISE, features, row_start, pairs, weight[0].numel(), mean)
    total = cells_weight_gradient(gather, grad.contiguous())
    return total.t().reshape(weight.shape).contiguous()


def _depthwise_grad_weight_plain(grad, features, weight, row_start, pairs, mean):
    bits = index_bits(len(features))
    gathered = gather(features, row_start, pairs, bits, weight[0].numel(), mean)
    total = (gathered * grad[:, None]).sum(0)
    return total.t().reshape(weight.shape).contiguous()


define(
    f"cell_depthwise_conv_grad_weight(Tensor grad, Tensor features, Tensor weight, {TABLE}, "
    "bool mean) -> Tensor",
    _depthwise_grad_weight_cpu,
    _depthwise_grad_weight_plain,
    lambda grad, features, weight, a, b, mean: torch.empty_like(
        weight, memory_format=torch.contiguous_format
    ),
    requirements.depthwise_grad_weight,
    requirements.depthwise_grad_weight_table,
    cuda=cells_on_gpus.depthwise_grad_weight,
)


def _depthwise_setup(ctx, inputs, output) -> None:
    features, weight, *tables, mean = inputs
    ctx.save_for_backward(features, weight, *tables)
    ctx.mean = mean


@once_differentiable
def _depthwise_backward(ctx, grad):
    features, weight, *tables = ctx.saved_tensors
    d_features = d_weight = None
    if ctx.needs_input_grad[0]:
        d_features = ops.cell_depthwise_conv_grad_input(
            grad, weight, *tables, ctx.mean, features.shape[0]
        )
    if ctx.needs_input_grad[1]:
        d_weight = ops.cell_depthwise_conv_grad_weight(
            grad, features, weight, tables[0], tables[1], ctx.mean
        )
    return d_features, d_weight, None, None, None, None, None


differentiate("cell_depthwise_conv", _depthwise_backward, _depthwise_setup)


# --- pointwise_conv -------------------------------------------------------------------------------


def _pointwise_cpu(features, weight, bias):
    return _mixed((features.contiguous(), weight, bias))


@replayed
def _mixed(tensors):
    features, weight, bias = tensors
    return mixed_points(Gather(IDENTITY, features, len(features)), weight.t(), bias)


def _pointwise_plain(features, weight, bias):
    out = features @ weight.t()
    return out if bias is None else out + bias


define(
    "pointwise_conv(Tensor features, Tensor weight, Tensor? bias) -> Tensor",
    _pointwise_cpu,
    _pointwise_plain,
    lambda features, weight, bias: features.new_empty(features.shape[0], weight.shape[0]),
    requirements.pointwise_conv,
    cuda=cells_on_gpus.pointwise,
)


def _pointwise_grad_weight_cpu(grad, features):
    total, bias = _mixed_gradient(ready(grad, features))
    return total.t().contiguous(), bias.clone()


@replayed
def _mixed_gradient(tensors):
    grad, features = tensors
    return points_weight_gradient(Gather(IDENTITY, features, len(features)), grad)


def _pointwise_grad_weight_plain(grad, features):
    return (features.t() @ grad).t().contiguous(), grad.sum(0)


define(
    "pointwise_conv_grad_weight(Tensor grad, Tensor features) -> (Tensor, Tensor)",
    _pointwise_grad_weight_cpu,
    _pointwise_grad_weight_plain,
    lambda grad, features: (
        grad.new_empty(grad.shape[1], features.shape[1]),
        grad.new_empty(grad.shape[1]),
    ),
    requirements.pointwise_conv_grad_weight,
    cuda=cells_on_gpus.pointwise_grad_weight,
)


def _pointwise_setup(ctx, inputs, output) -> None:
    features, weight, bias = inputs
    ctx.save_for_backward(features, weight)
    ctx.with_bias = bias is not None


@once_differentiable
def _pointwise_backward(ctx, grad):
    features, weight = ctx.saved_tensors
    d_features = d_weight = d_bias = None
    if ctx.needs_input_grad[0]:
        d_features = ops.pointwise_conv(grad, weight.t(), None)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        d_weight, d_bias = ops.pointwise_conv_grad_weight(grad, features)
    return d_features, d_weight, d_bias if ctx.with_bias else None


differentiate("pointwise_conv", _pointwise_backward, _pointwise_setup)

# --- cell_separable_conv: both halves in one tile loop, for inference -----------------------------


def _separable_cpu(features, depthwise, pointwise, bias, row_start, pairs, mean):
    kernel_cells = depthwise[0].numel()
    matrix = _depthwise_matrix(depthwise)
    gather = gather_over_table(
        CELLS_DEPTHWISE, features, row_start, pairs, kernel_cells, mean, matrix
    )
    return mixed_points(gather, pointwise.t(), bias)


def _separable_plain(features, depthwise, pointwise, bias, row_start, pairs, mean):
    gathered = _depthwise_plain(features, depthwise, row_start, pairs, None, None, mean)
    return _pointwise_plain(gathered, pointwise, bias)


define(
    "cell_separable_conv(Tensor features, Tensor depthwise, Tensor pointwise, Tensor? bias, "
    f"{TABLE}, bool mean) -> Tensor",
    _separable_cpu,
    _separable_plain,
    lambda features, depthwise, pointwise, bias, row_start, *rest: features.new_empty(
        row_start.shape[0] - 1, pointwise.shape[0]
    ),
    requirements.separable,
    requirements.separable_table,
    cuda=cells_on_gpus.separable,
)

for _name in ("cell_conv", "cell_depthwise_conv", "cell_separable_conv", "pointwise_conv"):
    follow_autocast(_name)
