"""Arguments for every operator on clouds, from a case of the table."""

from __future__ import annotations

import torch
from cases import Case

from pointwise.operators import cells as operators
from pointwise.operators import shift

OPERATORS = torch.ops.pointwise
PLAIN_FORMS = {
    "cell_conv": operators._cell_conv_plain,
    "cell_conv_grad_input": operators._cell_conv_grad_input_plain,
    "cell_conv_grad_weight": operators._cell_conv_grad_weight_plain,
    "cell_conv_grads": operators._cell_conv_grads_plain,
    "cell_depthwise_conv": operators._depthwise_plain,
    "cell_depthwise_conv_grad_input": operators._depthwise_grad_input_plain,
    "cell_depthwise_conv_grad_weight": operators._depthwise_grad_weight_plain,
    "cell_separable_conv": operators._separable_plain,
    "cell_shift_conv": shift._cells_plain,
    "cell_shift_conv_grad_input": shift._cells_grad_input_plain,
    "cell_shift_conv_grad_weight": shift._cells_grad_weight_plain,
    "pointwise_conv": operators._pointwise_plain,
    "pointwise_conv_grad_weight": operators._pointwise_grad_weight_plain,
}
"""In plain PyTorch, of every operator on a table."""


def calls(case: Case) -> dict[str, tuple]:
    """Arguments for every operator."""
    neighborhood = case.neighborhood()
    table, back = (neighborhood.row_start, neighborhood.pairs), neighborhood.transposed
    x, weight, bias = case.features(), case.weight(), case.bias_values()
    depthwise, pointwise = case.depthwise_weight(), case.pointwise_weight()
    wide, narrow = case.gradient(case.channels[1]), case.gradient(case.channels[0])
    by_point = case.random("gradient", len(x), case.channels[1])
    cloud, asked = case.clouds()
    where = (cloud.points, cloud.offsets, asked.points, asked.offsets)
    kernel = (case.cell_size, case.kernel_size, case.dilation, False)
    mean = case.mean
    return {
        "cell_search": (*where, *kernel),
        "voxel_grid": (cloud.points, cloud.offsets, case.cell_size),
        "cell_conv": (x, weight, bias, *table, *back, mean),
        "cell_conv_grad_input": (wide, weight, *table, *back, mean, len(x)),
        "cell_conv_grad_weight": (wide, x, weight, *table, mean),
        "cell_conv_grads": (wide, x, weight, *table, *back, mean),
        "cell_depthwise_conv": (x, depthwise, *table, *back, mean),
        "cell_depthwise_conv_grad_input": (narrow, depthwise, *table, *back, mean, len(x)),
        "cell_depthwise_conv_grad_weight": (narrow, x, depthwise, *table, mean),
        "cell_separable_conv": (x, depthwise, pointwise, bias, *table, mean),
        "cell_shift_conv": (x, pointwise, bias, *table, *back, case.kernel_size, mean),
        "cell_shift_conv_grad_input": (
            wide,
            pointwise,
            *table,
            *back,
            case.kernel_size,
            mean,
            len(x),
        ),
        "cell_shift_conv_grad_weight": (wide, x, *table, case.kernel_size, mean),
        "pointwise_conv": (x, pointwise, bias),
        "pointwise_conv_grad_weight": (by_point, x),
    }
