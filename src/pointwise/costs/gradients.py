"""What gradients cost where a network computes some as it runs: as many multiply-adds as the
convolution, for each of the two. (Of additions as many are counted, which is a few too many.)"""

from __future__ import annotations

import math

from pointwise.costs import clouds, work_kinds
from pointwise.costs.count import Count
from pointwise.costs.formula import Formula, Work, applied, size_of
from pointwise.costs.own_operators import table_of_call


def _convolution_backward(given, out) -> list[Work]:
    """As many multiply-adds as the convolution, for each of the two gradients that are wanted."""
    input, weight, grad = given["input"], given["weight"], given["grad_output"]
    scattered = input if given["transposed"] else grad
    products = scattered.numel() * weight[0].numel()
    wanted = given["output_mask"]
    found = [tensor for tensor in out if tensor is not None]
    times = sum(map(bool, wanted[:2]))
    count = Count(
        multiplications=times * products,
        multiply_adds=times * products,
        additions=times * products + (grad.numel() if wanted[2] else 0),
        outputs=sum(tensor.numel() for tensor in found),
        bytes_read=size_of(grad) + size_of(input) + size_of(weight),
        bytes_written=sum(map(size_of, found)),
    )
    groups = given["groups"]
    channels = weight.shape[0] if given["transposed"] else weight.shape[1] * groups
    kind = work_kinds.of_convolution(weight.shape[2:], channels, groups)
    return [applied(work_kinds.TRANSPOSED if given["transposed"] else kind, count)]


def _gradient_of_conv2d(given, out) -> list[Work]:
    """Either gradient takes as many multiply-adds as the convolution, and sums of their length."""
    grad, size = given["grad"], given.get("size")
    read = [grad, *(given[name] for name in ("input", "weight") if name in given)]
    weight = tuple(given["weight"].shape) if "weight" in given else tuple(size)
    products = grad.numel() * math.prod(weight[1:])
    count = Count(
        multiplications=products,
        multiply_adds=products,
        additions=products,
        outputs=out.numel(),
        bytes_read=sum(map(size_of, read)),
        bytes_written=size_of(out),
    )
    kind = work_kinds.of_convolution(weight[2:], weight[1] * given["groups"], given["groups"])
    return [applied(kind, count)]


def _norm_conv2d_backward(given, out) -> list[Work]:
    z, weight, grad = given["z"], given["weight"], given["grad"]
    times = 2 if given["wanted"] else 1
    products = times * grad.numel() * weight[0].numel()
    count = Count(
        multiplications=products,
        multiply_adds=products,
        additions=products,
        outputs=sum(x.numel() for x in out),
        bytes_read=size_of(grad) + size_of(z) + size_of(given["out"]) + size_of(weight),
        bytes_written=sum(map(size_of, out)),
    )
    groups = given["groups"]
    kind = work_kinds.of_convolution(weight.shape[2:], z.shape[1], groups)
    norm = Count(multiplications=2 * z.numel(), additions=4 * z.numel())
    return [applied(kind, count), Work(work_kinds.NORM, norm)]


def _norm_act_backward(given, out) -> list[Work]:
    numbers = given["z"].numel()
    count = Count(
        multiplications=2 * numbers,
        additions=4 * numbers,
        others=numbers,
        outputs=sum(x.numel() for x in out),
        bytes_read=size_of(given["grad"]) + size_of(given["z"]),
        bytes_written=sum(map(size_of, out)),
    )
    return [Work(work_kinds.NORM, count)]


def _gradient_of_cells(depthwise: bool) -> Formula:
    """A gradient takes as many multiply-adds as the convolution, and adds as many neighbours up."""

    def formula(given, out) -> list[Work]:
        grad, weight = given["grad"], given["weight"]
        points = given["points"] if "points" in given else given["features"].shape[0]
        results = out if isinstance(out, (tuple, list)) else [out]
        cells = weight[0].numel() if depthwise else weight[0, 0].numel()
        table = table_of_call(given, points, cells)
        channels, outputs = weight.shape[0 if depthwise else 1], grad.shape[1]
        products = table.occupied * channels * (1 if depthwise else outputs)
        count = Count(
            multiplications=products + (table.occupied * channels if given["mean"] else 0),
            multiply_adds=products,
            additions=products + table.pairs * channels,
            outputs=sum(x.numel() for x in results),
            bytes_read=table.bytes + size_of(grad) + size_of(weight),
            bytes_written=sum(map(size_of, results)),
            exact=table.exact,
        )
        return [applied(work_kinds.CELL_DEPTHWISE if depthwise else work_kinds.CELL, count)]

    return formula


def _both_gradients_of_cells(given, out) -> list[Work]:
    """Each takes as many multiply-adds as the convolution; neighbours are added up once."""
    grad, features, weight = given["grad"], given["features"], given["weight"]
    table = table_of_call(given, features.shape[0], weight[0, 0].numel())
    products = table.occupied * weight.shape[1] * grad.shape[1]
    gathered = grad.shape[1]
    count = Count(
        multiplications=2 * products + (table.occupied * gathered if given["mean"] else 0),
        multiply_adds=2 * products,
        additions=2 * products + table.pairs * gathered,
        outputs=sum(x.numel() for x in out),
        bytes_read=table.bytes + size_of(grad) + size_of(features) + size_of(weight),
        bytes_written=sum(map(size_of, out)),
        exact=table.exact,
    )
    return [applied(work_kinds.CELL, count)]


def _gradient_of_shift(given, out) -> list[Work]:
    """Either gradient takes as many multiply-adds as the mix; channels are moved for nothing."""
    grad, results = given["grad"], out if isinstance(out, (tuple, list)) else [out]
    read = [given[name] for name in ("weight", "input", "features") if name in given]
    products = grad.numel() * read[0].shape[1]
    count = Count(
        multiplications=products,
        multiply_adds=products,
        additions=products,
        outputs=sum(x.numel() for x in results),
        bytes_read=size_of(grad) + sum(map(size_of, read)),
        bytes_written=sum(map(size_of, results)),
    )
    return [applied(work_kinds.SHIFT, count)]


def _pointwise_grad_weight(given, out) -> list[Work]:
    grad, x = given["grad"], given["features"]
    count = clouds.count_matrix(x.shape[0], x.shape[1], grad.shape[1], True, x.element_size())
    return [applied(work_kinds.POINTWISE, count)]


FORMULAS: dict[str, Formula] = {
    "aten::convolution_backward": _convolution_backward,
    "pointwise::conv2d_grad_input": _gradient_of_conv2d,
    "pointwise::conv2d_grad_weight": _gradient_of_conv2d,
    "pointwise::shift_conv2d_grad_input": _gradient_of_shift,
    "pointwise::shift_conv2d_grad_weight": _gradient_of_shift,
    "pointwise::cell_shift_conv_grad_input": _gradient_of_shift,
    "pointwise::cell_shift_conv_grad_weight": _gradient_of_shift,
    "pointwise::norm_conv2d_backward": _norm_conv2d_backward,
    "pointwise::norm_act_backward": _norm_act_backward,
    "pointwise::cell_conv_grad_input": _gradient_of_cells(depthwise=False),
    "pointwise::cell_conv_grad_weight": _gradient_of_cells(depthwise=False),
    "pointwise::cell_conv_grads": _both_gradients_of_cells,
    "pointwise::cell_depthwise_conv_grad_input": _gradient_of_cells(depthwise=True),
    "pointwise::cell_depthwise_conv_grad_weight": _gradient_of_cells(depthwise=True),
    "pointwise::pointwise_conv_grad_weight": _pointwise_grad_weight,
}
