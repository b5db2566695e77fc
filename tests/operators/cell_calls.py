"""Arguments for every operator on clouds, from a case of the table."""

from __future__ import annotations

import torch
from cases import Case

OPERATORS = torch.ops.pointwise


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
