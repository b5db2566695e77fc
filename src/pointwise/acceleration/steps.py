"""Launches of the kernels besides convolutions: sums, factors, means, pools and norms of pixels."""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.epilogue import kernel_form
from pointwise.engine.cpu.launch import threads
from pointwise.engine.cpu.loops import combine, layer_norm
from pointwise.engine.cpu.loops.images import Step
from pointwise.engine.cpu.table import bits

# Less than so much is not worth a program of its own.
_LEAST_BYTES = 16 * 1024


def _span(rows: int, row_bytes: int) -> int:
    """Rows of a program: several programs for each thread, none of them tiny."""
    least = -(-_LEAST_BYTES // max(1, row_bytes))
    return max(1, least, -(-rows // (8 * threads())))


def by_rows(
    how: int,
    x: Tensor,
    out: Tensor,
    y: Tensor | None,
    z: Tensor | None,
    activation: str,
    rows: int,
    channels: int,
    out_row: int,
    of_image: int = 1,
) -> Step:
    """``rows`` of ``channels`` numbers; those of ``out`` lie ``out_row`` bytes apart."""
    size = x.element_size()
    low, high, kind = kernel_form(activation, x.dtype)
    row = channels * size
    span = _span(rows, row)
    arguments = [x.data_ptr(), row, out.data_ptr(), out_row, rows * channels, channels, span, how,
                 0 if y is None else y.data_ptr(), of_image if how == combine.SCALE else row,
                 0 if z is None else z.data_ptr(), bits(low), bits(high), kind]  # fmt: skip
    return Step(combine.KERNELS[x.dtype], arguments, -(-rows // span), out, combine.OUT, (y, z))


def dense(how: int, x: Tensor, out: Tensor, y: Tensor | None, activation: str) -> Step:
    """All numbers of tensors that lie in memory in the same way."""
    size, total = x.element_size(), x.numel()
    low, high, kind = kernel_form(activation, x.dtype)
    channels = 1024
    rows = -(-total // channels)
    span = _span(rows, channels * size)
    row = channels * size
    arguments = [x.data_ptr(), row, out.data_ptr(), row, total, channels, span, how,
                 0 if y is None else y.data_ptr(), row, 0, bits(low), bits(high),
                 kind]  # fmt: skip
    return Step(combine.KERNELS[x.dtype], arguments, -(-rows // span), out, combine.OUT)


def normed(
    x: Tensor, out: Tensor, rows: int, columns: int, weight: Tensor | None, bias: Tensor | None,
    eps: float,
) -> Step:  # fmt: skip
    """Layer norm of ``rows`` of ``columns`` numbers."""
    span = _span(rows, columns * x.element_size())
    arguments = [x.data_ptr(), out.data_ptr(), rows, columns, span,
                 0 if weight is None else weight.data_ptr(),
                 0 if bias is None else bias.data_ptr(), bits(eps)]  # fmt: skip
    kernel = layer_norm.KERNELS[x.dtype]
    return Step(kernel, arguments, -(-rows // span), out, 1, (weight, bias))
