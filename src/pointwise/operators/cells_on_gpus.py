"""The forms on GPUs of the operators on point clouds.

Their kernels (``engine.gpu``) are imported when the first tensor on one is met: they need Triton.
What is a matrix product and nothing else is cuBLAS's.
"""

from __future__ import annotations

import torch

from pointwise.convolution.cells import by_cell, depthwise_by_cell

# --- cell_conv ------------------------------------------------------------------------------------


def cell_conv(features, weight, bias, row_start, pairs, back_row_start, back_pairs, mean):
    from pointwise.engine.gpu.loops.points import mixed, over_table

    gather = over_table(features, row_start, pairs, weight.shape[2:].numel(), mean)
    return mixed(gather, by_cell(weight), bias)


def cell_conv_grad_input(grad, weight, row_start, pairs, back_row_start, back_pairs, mean, points):
    from pointwise.engine.gpu.loops.points import adjoint_over_table, mixed

    table, back, cells = (row_start, pairs), (back_row_start, back_pairs), weight.shape[2:].numel()
    gather = adjoint_over_table(grad, table, back, cells, mean, points)
    return mixed(gather, by_cell(weight.transpose(0, 1)), None)


def cell_conv_grad_weight(grad, features, weight, row_start, pairs, mean):
    from pointwise.engine.gpu.loops.points import over_table
    from pointwise.engine.gpu.loops.points_gradient import of_mixed

    gather = over_table(features, row_start, pairs, weight.shape[2:].numel(), mean)
    total = of_mixed(gather, grad).permute(2, 1, 0)
    return total.reshape(weight.shape).contiguous(), grad.sum(0)


def cell_conv_grads(grad, features, weight, row_start, pairs, back_row_start, back_pairs, mean):
    table, back = (row_start, pairs), (back_row_start, back_pairs)
    d_features = cell_conv_grad_input(grad, weight, *table, *back, mean, len(features))
    return d_features, *cell_conv_grad_weight(grad, features, weight, *table, mean)


# --- cell_depthwise_conv --------------------------------------------------------------------------


def depthwise(features, weight, row_start, pairs, back_row_start, back_pairs, mean):
    from pointwise.engine.gpu.loops.points import gathered, over_table

    gather = over_table(features, row_start, pairs, weight[0].numel(), mean)
    return gathered(gather, depthwise_by_cell(weight))


def depthwise_grad_input(grad, weight, row_start, pairs, back_row_start, back_pairs, mean, points):
    from pointwise.engine.gpu.loops.points import adjoint_over_table, gathered

    table, back = (row_start, pairs), (back_row_start, back_pairs)
    gather = adjoint_over_table(grad, table, back, weight[0].numel(), mean, points)
    return gathered(gather, depthwise_by_cell(weight))


def depthwise_grad_weight(grad, features, weight, row_start, pairs, mean):
    from pointwise.engine.gpu.loops.points import over_table
    from pointwise.engine.gpu.loops.points_gradient import of_depthwise

    gather = over_table(features, row_start, pairs, weight[0].numel(), mean)
    return of_depthwise(gather, grad).t().reshape(weight.shape).contiguous()


# --- pointwise_conv and cell_separable_conv -------------------------------------------------------


def pointwise(features, weight, bias):
    return features @ weight.t() if bias is None else torch.addmm(bias, features, weight.t())


def pointwise_grad_weight(grad, features):
    return grad.t() @ features, grad.sum(0)


def separable(features, depthwise, pointwise, bias, row_start, pairs, mean):
    from pointwise.engine.gpu.loops import points

    gather = points.over_table(features, row_start, pairs, depthwise[0].numel(), mean)
    return points.separable(gather, depthwise_by_cell(depthwise), pointwise.t(), bias)


# --- cell_shift_conv ------------------------------------------------------------------------------


def _moved(features, row_start, pairs, kernel_size, mean):
    """Each channel from its own kernel cell, ``[N, C]``."""
    from pointwise.engine.gpu.loops.points import gathered, over_table

    return gathered(over_table(features, row_start, pairs, kernel_size**3, mean), None)


def cell_shift_conv(
    features, weight, bias, row_start, pairs, back_row_start, back_pairs, kernel_size, mean
):
    return pointwise(_moved(features, row_start, pairs, kernel_size, mean), weight, bias)


def cell_shift_conv_grad_input(
    grad, weight, row_start, pairs, back_row_start, back_pairs, kernel_size, mean, points
):
    from pointwise.engine.gpu.loops.points import adjoint_over_table, gathered

    table, back, mixed = (row_start, pairs), (back_row_start, back_pairs), grad @ weight
    return gathered(adjoint_over_table(mixed, table, back, kernel_size**3, mean, points), None)


def cell_shift_conv_grad_weight(grad, features, row_start, pairs, kernel_size, mean):
    return pointwise_grad_weight(grad, _moved(features, row_start, pairs, kernel_size, mean))
