"""What each operator asks of its arguments: kernels work on addresses, and see no wrong ones.

Shapes, types and devices are checked whoever calls, and when shapes alone are computed; tables of
neighbours are read by ``operators.tables``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise import checks
from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.convolution.shift import padding_of
from pointwise.engine import gpu
from pointwise.operators import tables

HALVES = (torch.float16, torch.bfloat16)


def _floats(caller: str, **tensors: Tensor | None) -> None:
    """All alike, and of a type that the kernels compute in."""
    checks.alike(caller, **tensors)
    name, first = next(iter(tensors.items()))
    checks.precise(caller, name, first)  # type: ignore[arg-type]


def _rows(caller: str, name: str, given: Tensor, rows: int | None, columns: int | None) -> None:
    shown = ", ".join("any" if size is None else str(size) for size in (rows, columns))
    checks.weight(caller, name, given, (rows, columns), f"[{shown}]")


def _optional(caller: str, name: str, given: Tensor | None, length: int, letters: str = "") -> None:
    if given is not None:
        checks.weight(caller, name, given, (length,), f"[{letters}{length}]")


# --- clouds ---------------------------------------------------------------------------------------


def _numbers(caller: str, **tensors: Tensor | None) -> None:
    """As ``_floats``, or in half precision where kernels add up in float32: on GPUs."""
    first = next(iter(tensors.values()))
    if first is not None and first.dtype in HALVES and gpu.runs_on(first.device):
        checks.alike(caller, **tensors)
    else:
        _floats(caller, **tensors)


def _kernel(caller: str, name: str, weight: Tensor, own: bool = False) -> int:
    """A weight ``[C_out, C_in, k, k, k]``, or ``[C, 1, k, k, k]``; the number of its cells."""
    words = "[C, 1, k, k, k]" if own else "[C_out, C_in, k, k, k]"
    checks.weight(caller, name, weight, (None, 1 if own else None, None, None, None), words)
    checks.not_empty(caller, name, weight)
    return weight.shape[2:].numel()


def table(caller: str, like: Tensor, row_start: Tensor, pairs: Tensor) -> int:
    """The shapes of a table of neighbours; how many rows it has."""
    for name, given, dtype in (
        ("row_start", row_start, torch.int64),
        ("pairs", pairs, torch.int32),
    ):
        fits = given.dim() == 1 and given.dtype == dtype and given.layout == torch.strided
        if not fits or (name == "row_start" and given.shape[0] == 0):
            size = "[rows+1]" if name == "row_start" else "[P]"
            raise ValueError(
                f"{caller}: {name} of a table must be {str(dtype).removeprefix('torch.')} {size}, "
                f"got {checks.describe(given)}"
            )
        if given.device != like.device:
            raise ValueError(
                f"{caller}: {name} of a table is on {given.device}, other tensors on {like.device}"
            )
    return row_start.shape[0] - 1


def _back(caller: str, like: Tensor, row_start, pairs, rows: int) -> None:
    """A transposed table, if there is one, has a row for each point."""
    if (row_start is None) != (pairs is None):
        raise ValueError(f"{caller}: give both back_row_start and back_pairs, or neither")
    if row_start is not None and table(caller, like, row_start, pairs) != rows:
        raise ValueError(
            f"{caller}: back_row_start must be [{rows + 1}], one more than there are points, got "
            f"{checks.describe(row_start)}"
        )


def cell_conv(features, weight, bias, row_start, pairs, back_row_start, back_pairs, mean) -> None:
    caller = "cell_conv"
    _rows(caller, "features", features, None, None)
    _kernel(caller, "weight", weight)
    _rows(caller, "features", features, None, weight.shape[1])
    _optional(caller, "bias", bias, weight.shape[0])
    _numbers(caller, features=features, weight=weight, bias=bias)
    table(caller, features, row_start, pairs)
    _back(caller, features, back_row_start, back_pairs, features.shape[0])


def cell_conv_table(features, weight, bias, row_start, pairs, *rest) -> None:
    tables.check("cell_conv", row_start, pairs, len(features), weight.shape[2:].numel())


def _grad_input(caller, grad, weight, row_start, pairs, back_row_start, back_pairs, points):
    rows = table(caller, grad, row_start, pairs)
    _rows(caller, "grad", grad, rows, weight.shape[0])
    _numbers(caller, grad=grad, weight=weight)
    if not 0 <= points <= checks.LARGEST:
        raise ValueError(f"{caller}: points must be a whole number from 0, got {points}")
    _back(caller, grad, back_row_start, back_pairs, points)
    if back_row_start is None and rows != points:
        raise ValueError(
            f"{caller}: {rows} rows in the table for {points} points; only where the queries are "
            "the points can the table stand for its own transpose"
        )


def _grad_input_tables(caller, grad, cells, row_start, pairs, back_row_start, back_pairs, points):
    tables.check(caller, row_start, pairs, points, cells)
    if back_row_start is not None:
        tables.check(caller, back_row_start, back_pairs, len(grad), cells)


def cell_conv_grad_input(grad, weight, a, b, c, d, mean, points) -> None:
    caller = "cell_conv_grad_input"
    _kernel(caller, "weight", weight)
    _grad_input(caller, grad, weight, a, b, c, d, points)


def cell_conv_grad_input_tables(grad, weight, a, b, c, d, mean, points) -> None:
    cells = weight.shape[2:].numel()
    _grad_input_tables("cell_conv_grad_input", grad, cells, a, b, c, d, points)


def _grad_weight(caller, grad, features, weight, row_start, pairs, own):
    _kernel(caller, "weight", weight, own)
    _rows(caller, "features", features, None, weight.shape[0 if own else 1])
    rows = table(caller, features, row_start, pairs)
    _rows(caller, "grad", grad, rows, weight.shape[0])
    _numbers(caller, grad=grad, features=features, weight=weight)


def cell_conv_grad_weight(grad, features, weight, row_start, pairs, mean) -> None:
    _grad_weight("cell_conv_grad_weight", grad, features, weight, row_start, pairs, False)


def cell_conv_grad_weight_table(grad, features, weight, row_start, pairs, mean) -> None:
    cells = weight.shape[2:].numel()
    tables.check("cell_conv_grad_weight", row_start, pairs, len(features), cells)


def cell_conv_grads(grad, features, weight, row_start, pairs, c, d, mean) -> None:
    _grad_weight("cell_conv_grads", grad, features, weight, row_start, pairs, False)
    _grad_input("cell_conv_grads", grad, weight, row_start, pairs, c, d, features.shape[0])


def cell_conv_grads_tables(grad, features, weight, row_start, pairs, c, d, mean) -> None:
    cells = weight.shape[2:].numel()
    _grad_input_tables("cell_conv_grads", grad, cells, row_start, pairs, c, d, len(features))


def depthwise(features, weight, row_start, pairs, back_row_start, back_pairs, mean) -> None:
    caller = "cell_depthwise_conv"
    _kernel(caller, "weight", weight, own=True)
    _rows(caller, "features", features, None, weight.shape[0])
    _numbers(caller, features=features, weight=weight)
    table(caller, features, row_start, pairs)
    _back(caller, features, back_row_start, back_pairs, features.shape[0])


def depthwise_table(features, weight, row_start, pairs, *rest) -> None:
    cells = weight.shape[2:].numel()
    tables.check("cell_depthwise_conv", row_start, pairs, len(features), cells)


def depthwise_grad_input(grad, weight, a, b, c, d, mean, points) -> None:
    caller = "cell_depthwise_conv_grad_input"
    _kernel(caller, "weight", weight, own=True)
    _grad_input(caller, grad, weight, a, b, c, d, points)


def depthwise_grad_input_tables(grad, weight, a, b, c, d, mean, points) -> None:
    cells = weight.shape[2:].numel()
    _grad_input_tables("cell_depthwise_conv_grad_input", grad, cells, a, b, c, d, points)


def depthwise_grad_weight(grad, features, weight, row_start, pairs, mean) -> None:
    _grad_weight("cell_depthwise_conv_grad_weight", grad, features, weight, row_start, pairs, True)


def depthwise_grad_weight_table(grad, features, weight, row_start, pairs, mean) -> None:
    cells = weight.shape[2:].numel()
    tables.check("cell_depthwise_conv_grad_weight", row_start, pairs, len(features), cells)


def separable(features, depthwise, pointwise, bias, row_start, pairs, mean) -> None:
    caller = "cell_separable_conv"
    _kernel(caller, "depthwise", depthwise, own=True)
    _rows(caller, "features", features, None, depthwise.shape[0])
    _rows(caller, "pointwise", pointwise, None, depthwise.shape[0])
    _optional(caller, "bias", bias, pointwise.shape[0])
    _numbers(caller, features=features, depthwise=depthwise, pointwise=pointwise, bias=bias)
    table(caller, features, row_start, pairs)


def separable_table(features, depthwise, pointwise, bias, row_start, pairs, mean) -> None:
    cells = depthwise.shape[2:].numel()
    tables.check("cell_separable_conv", row_start, pairs, len(features), cells)


def pointwise_conv(features, weight, bias) -> None:
    _rows("pointwise_conv", "features", features, None, None)
    _rows("pointwise_conv", "weight", weight, None, features.shape[1])
    _optional("pointwise_conv", "bias", bias, weight.shape[0])
    _numbers("pointwise_conv", features=features, weight=weight, bias=bias)


def pointwise_conv_grad_weight(grad, features) -> None:
    _rows("pointwise_conv_grad_weight", "features", features, None, None)
    _rows("pointwise_conv_grad_weight", "grad", grad, features.shape[0], None)
    _numbers("pointwise_conv_grad_weight", grad=grad, features=features)


def cell_shift_conv(
    features, weight, bias, row_start, pairs, back_row_start, back_pairs, kernel_size, mean
) -> None:
    caller = "cell_shift_conv"
    _rows(caller, "weight", weight, None, None)
    checks.not_empty(caller, "weight", weight)
    _rows(caller, "features", features, None, weight.shape[1])
    _optional(caller, "bias", bias, weight.shape[0])
    _numbers(caller, features=features, weight=weight, bias=bias)
    checks.odd_kernel(caller, kernel_size, 3)
    table(caller, features, row_start, pairs)
    _back(caller, features, back_row_start, back_pairs, features.shape[0])


def cell_shift_conv_table(
    features, weight, bias, row_start, pairs, b, c, kernel_size, mean
) -> None:
    tables.check("cell_shift_conv", row_start, pairs, len(features), kernel_size**3)


def cell_shift_conv_grad_input(grad, weight, a, b, c, d, kernel_size, mean, points) -> None:
    caller = "cell_shift_conv_grad_input"
    checks.odd_kernel(caller, kernel_size, 3)
    _rows(caller, "weight", weight, None, None)
    checks.not_empty(caller, "weight", weight)
    _grad_input(caller, grad, weight, a, b, c, d, points)


def cell_shift_conv_grad_input_tables(grad, weight, a, b, c, d, kernel_size, mean, points) -> None:
    _grad_input_tables("cell_shift_conv_grad_input", grad, kernel_size**3, a, b, c, d, points)


def cell_shift_conv_grad_weight(grad, features, row_start, pairs, kernel_size, mean) -> None:
    caller = "cell_shift_conv_grad_weight"
    checks.odd_kernel(caller, kernel_size, 3)
    _rows(caller, "features", features, None, None)
    rows = table(caller, features, row_start, pairs)
    _rows(caller, "grad", grad, rows, None)
    _numbers(caller, grad=grad, features=features)


def cell_shift_conv_grad_weight_table(grad, features, row_start, pairs, kernel_size, mean) -> None:
    caller = "cell_shift_conv_grad_weight"
    tables.check(caller, row_start, pairs, len(features), kernel_size**3)


def voxel_grid(points, offsets, size) -> None:
    checks.positions("voxel_grid", "points", points)
    checks.length("voxel_grid", "size", size)


# --- images ---------------------------------------------------------------------------------------


def geometry(caller: str, input, weight_size, stride, padding, dilation, groups) -> tuple[int, ...]:
    """A convolution's input, the size of its weight and how it is placed; the result's shape."""
    checks.image(caller, input, 2)
    checks.groups(caller, groups, input.shape[1])
    outputs, per_group, *kernel = [*weight_size, 0, 0][: max(2, len(weight_size))]
    if input.dim() != 4 or len(kernel) != 2 or per_group * groups != input.shape[1]:
        raise ValueError(
            f"{caller}: a weight of {list(weight_size)} in groups={groups} does not fit input "
            f"{checks.describe(input)}; it must be [C_out, C_in/groups, kh, kw]"
        )
    checks.outputs(caller, outputs, groups)
    checks.per_dimension(caller, "kernel_size", kernel, 2)
    steps = checks.per_dimension(caller, "stride", stride, 2)
    spread = checks.per_dimension(caller, "dilation", dilation, 2)
    if len(padding) != 4 or not 0 <= min(padding) <= max(padding) <= checks.LARGEST:
        raise ValueError(f"{caller}: padding must be four whole numbers from 0, got {padding}")
    sizes = checks.output_sizes(caller, input.shape[2:], kernel, steps, padding, spread)
    return (input.shape[0], outputs, *sizes)


def conv2d(input, weight, bias, residual, stride, padding, dilation, groups, activation) -> None:
    checks.one_of("conv2d", "activation", activation, tuple(ACTIVATIONS))
    shape = geometry("conv2d", input, weight.shape, stride, padding, dilation, groups)
    checks.alike("conv2d", input=input, weight=weight, bias=bias, residual=residual)
    _optional("conv2d", "bias", bias, shape[1], "C_out=")
    _added("conv2d", residual, shape)


def separable_conv2d(input, depthwise, pointwise, depthwise_bias, bias, residual, stride, padding,
                     dilation, between, activation) -> None:  # fmt: skip
    caller = "separable_conv2d"
    checks.image(caller, input, 2)
    for name, given in (("between", between), ("activation", activation)):
        checks.one_of(caller, name, given, tuple(ACTIVATIONS))
    groups = input.shape[1]
    shape = geometry(caller, input, depthwise.shape, stride, padding, dilation, groups)
    inner = input.new_empty(()).expand(shape)  # of what lies between, only the shape
    shape = geometry(caller, inner, pointwise.shape, [1, 1], [0] * 4, [1, 1], 1)
    checks.alike(caller, input=input, depthwise=depthwise, pointwise=pointwise,
                 depthwise_bias=depthwise_bias, bias=bias, residual=residual)  # fmt: skip
    _optional(caller, "depthwise_bias", depthwise_bias, inner.shape[1])
    _optional(caller, "bias", bias, shape[1])
    _added(caller, residual, shape)


def _added(caller: str, residual: Tensor | None, shape: tuple[int, ...]) -> None:
    if residual is not None:
        words = f"like the result, {list(shape)}"
        checks.weight(caller, "residual", residual, shape, words)


def conv2d_grad_input(grad, weight, size, *placed) -> None:
    caller = "conv2d_grad_input"
    if len(size) != 4 or min(size) < 0:
        raise ValueError(f"{caller}: size must be [N, C, H, W], got {list(size)}")
    shape = geometry(caller, grad.new_empty(()).expand(size), weight.shape, *placed)
    checks.weight(caller, "grad", grad, shape, f"like the result, {list(shape)}")
    checks.alike(caller, grad=grad, weight=weight)


def conv2d_grad_weight(grad, input, size, *placed) -> None:
    caller = "conv2d_grad_weight"
    shape = geometry(caller, input, size, *placed)
    checks.weight(caller, "grad", grad, shape, f"like the result, {list(shape)}")
    checks.alike(caller, grad=grad, input=input)


def _shift(caller: str, input, weight_size, kernel_size, stride, dilation) -> tuple[int, ...]:
    """A shift convolution's input ``[N, C, H, W]``, and how it is placed; the result's shape."""
    checks.image(caller, input, 2)
    if input.dim() != 4 or len(weight_size) != 2 or weight_size[1] != input.shape[1]:
        raise ValueError(
            f"{caller}: a weight of {list(weight_size)} does not fit input "
            f"{checks.describe(input)}; it must be [C_out, C_in]"
        )
    for name, size in (("out_channels", weight_size[0]), ("in_channels", weight_size[1])):
        checks.positive(caller, name, size)
    kernel = checks.odd_kernel(caller, kernel_size, 2)
    steps = checks.per_dimension(caller, "stride", stride, 2)
    apart = checks.per_dimension(caller, "dilation", dilation, 2)
    padding = padding_of(kernel, apart)
    checks.not_too_large(caller, "padding", *padding)
    sizes = checks.output_sizes(caller, input.shape[2:], kernel, steps, padding, apart)
    return (input.shape[0], weight_size[0], *sizes)


def shift_conv2d(input, weight, bias, residual, kernel_size, stride, dilation, activation) -> None:
    caller = "shift_conv2d"
    checks.one_of(caller, "activation", activation, tuple(ACTIVATIONS))
    shape = _shift(caller, input, weight.shape, kernel_size, stride, dilation)
    checks.alike(caller, input=input, weight=weight, bias=bias, residual=residual)
    _optional(caller, "bias", bias, shape[1])
    _added(caller, residual, shape)


def shift_conv2d_grad_input(grad, weight, size, *how) -> None:
    caller = "shift_conv2d_grad_input"
    if len(size) != 4 or min(size) < 0:
        raise ValueError(f"{caller}: size must be [N, C, H, W], got {list(size)}")
    shape = _shift(caller, grad.new_empty(()).expand(size), weight.shape, *how)
    checks.weight(caller, "grad", grad, shape, f"like the result, {list(shape)}")
    checks.alike(caller, grad=grad, weight=weight)


def shift_conv2d_grad_weight(grad, input, *how) -> None:
    caller = "shift_conv2d_grad_weight"
    checks.image(caller, input, 2)
    shape = _shift(caller, input, (*grad.shape[1:2], input.shape[1]), *how)
    checks.weight(caller, "grad", grad, shape, f"like the result, {list(shape)}")
    checks.alike(caller, grad=grad, input=input)


def _norm(caller: str, z, mean, scale, shift, low: float, high: float) -> None:
    if z.dim() != 4:
        raise ValueError(f"{caller}: z must be a tensor [N, C, H, W], got {checks.describe(z)}")
    if any((row is None) != (mean is None) for row in (scale, shift)):
        raise ValueError(f"{caller}: give all of mean, scale and shift, or none of them")
    for name, row in (("mean", mean), ("scale", scale), ("shift", shift)):
        _optional(caller, name, row, z.shape[1])
    if not low <= high:
        raise ValueError(f"{caller}: low must be a number up to high, got {low} and {high}")


def _normed_floats(caller: str, images: dict[str, Tensor | None], **rows: Tensor | None) -> None:
    """Images and weights alike, and rows like them; on GPUs also float32 rows of 16-bit images."""
    z = images["z"]
    assert z is not None
    if z.dtype in HALVES and (z.device.type != "cpu" or gpu.is_interpreted()):
        checks.alike(caller, **images)
        wide = z.new_empty((), dtype=torch.float32).expand(z.shape)
        checks.alike(caller, z=wide, **rows)
    else:
        _floats(caller, **images, **rows)


def _norm_conv2d(
    caller: str, z, mean, scale, shift, low, high, weight, stride, padding, dilation, groups
) -> tuple[int, ...]:
    _norm(caller, z, mean, scale, shift, low, high)
    _normed_floats(caller, {"z": z, "weight": weight}, mean=mean, scale=scale, shift=shift)
    shape = geometry(caller, z, weight.shape, stride, padding, dilation, groups)
    if 0 in (*shape, *z.shape):
        raise ValueError(f"{caller}: there is no mean of no pixels; got z {checks.describe(z)}")
    return shape


def norm_conv2d(*arguments) -> None:
    _norm_conv2d("norm_conv2d", *arguments)


def norm_conv2d_backward(grad, d_mean, d_variance, out, out_mean, wanted, z, *rest) -> None:
    caller = "norm_conv2d_backward"
    shape = _norm_conv2d(caller, z, *rest)
    for name, given in (("grad", grad), ("out", out)):
        checks.weight(caller, name, given, shape, f"like the result, {list(shape)}")
    for name, row in (("d_mean", d_mean), ("d_variance", d_variance), ("out_mean", out_mean)):
        checks.weight(caller, name, row, shape[1:2], f"[C_out={shape[1]}]")
    _normed_floats(caller, {"z": z, "grad": grad, "out": out}, d_mean=d_mean,
                   d_variance=d_variance, out_mean=out_mean)  # fmt: skip


def _norm_act(caller: str, z, mean, scale, shift, residual, activation) -> None:
    checks.one_of(caller, "activation", activation, tuple(ACTIVATIONS))
    _norm(caller, z, mean, scale, shift, 0.0, 0.0)
    if residual is not None:
        checks.weight(caller, "residual", residual, tuple(z.shape), f"like z, {list(z.shape)}")
    _normed_floats(caller, {"z": z, "residual": residual}, mean=mean, scale=scale, shift=shift)


def norm_act(*arguments) -> None:
    _norm_act("norm_act", *arguments)


def norm_act_backward(grad, z, *rest) -> None:
    _norm_act("norm_act_backward", z, *rest)
    checks.weight("norm_act_backward", "grad", grad, tuple(z.shape), f"like z, {list(z.shape)}")
    _normed_floats("norm_act_backward", {"z": z, "grad": grad})
