"""What a call of PyTorch's convolutions, matrix products, attention and recurrent layers costs."""

from __future__ import annotations

import math

from torch import Tensor

from pointwise.costs import convolutions, work_kinds
from pointwise.costs.convolutions import Shape
from pointwise.costs.count import Count
from pointwise.costs.formula import Formula, Work, applied, size_of

# --- PyTorch's convolutions -----------------------------------------------------------------------


def _pairs(flat) -> tuple[int, ...]:
    return tuple(edge for edge in flat for _ in range(2))


def shape_of(input, weight, bias, stride, edges, dilation, groups, out_sizes) -> Shape:
    dimensions = weight.dim() - 2
    batch = input.shape[0] if input.dim() == dimensions + 2 else 1
    return Shape(
        batch,
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(input.shape[-dimensions:]),
        tuple(weight.shape[2:]),
        tuple(stride),
        tuple(edges),
        tuple(dilation),
        groups,
        bias is not None,
        tuple(out_sizes),
    )


def _per_dimension(given, dimensions: int) -> tuple[int, ...]:
    return tuple(given) * dimensions if len(given) == 1 else tuple(given)


def _convolution(given, out) -> list[Work]:
    input, weight, bias = given["input"], given["weight"], given["bias"]
    dimensions = weight.dim() - 2
    stride = _per_dimension(given["stride"], dimensions)
    padding = _per_dimension(given["padding"], dimensions)
    dilation = _per_dimension(given["dilation"], dimensions)
    if given["transposed"]:
        return [applied(work_kinds.TRANSPOSED, _transposed(input, weight, bias, out), weight, bias)]
    shape = shape_of(
        input,
        weight,
        bias,
        stride,
        _pairs(padding),
        dilation,
        given["groups"],
        out.shape[-dimensions:],
    )
    kind = work_kinds.of_convolution(shape.kernel, shape.in_channels, shape.groups)
    return [applied(kind, convolutions.count(shape, input.element_size()), weight, bias)]


def _transposed(input: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Count:
    """Every number of the input times the weights that spread it over the result.

    Products that fall outside the result, where the padding cuts it off, are counted.
    """
    products = input.numel() * weight[0].numel()
    return Count(
        multiplications=products,
        multiply_adds=products,
        additions=max(0, products - out.numel()) + (0 if bias is None else out.numel()),
        outputs=out.numel(),
        bytes_read=sum(size_of(x) for x in (input, weight, bias) if x is not None),
        bytes_written=size_of(out),
    )


# --- matrix products ------------------------------------------------------------------------------


def _product(kind: str, batch: int, m: int, k: int, n: int, added: bool, tensors, out) -> Work:
    """``[m, k] @ [k, n]``, ``batch`` times, and something ``added``."""
    products, outputs = batch * m * k * n, batch * m * n
    read = sum(size_of(x) for x in tensors if isinstance(x, Tensor))
    count = Count(
        multiplications=products,
        multiply_adds=products,
        additions=products - (0 if added else outputs),
        outputs=outputs,
        bytes_read=read,
        bytes_written=size_of(out),
    )
    return Work(kind, count, tuple(x for x in tensors if isinstance(x, Tensor)))


def _matrices(first: str, second: str, added: str | None = None) -> Formula:
    """A product of the arguments of these names: matrices, vectors, or batches of matrices."""

    def formula(given, out) -> list[Work]:
        a, b = given[first], given[second]
        more = given[added] if added else None
        batch = a.shape[0] if a.dim() == 3 else 1
        m = a.shape[-2] if a.dim() > 1 else 1
        n = b.shape[-1] if b.dim() > 1 else 1
        # Only a product with a matrix that is always the same is what a layer of weights does.
        kind = work_kinds.PRODUCT if a.dim() == 3 else work_kinds.LINEAR
        return [_product(kind, batch, m, a.shape[-1], n, more is not None, (a, b, more), out)]

    return formula


def _linear(given, out) -> list[Work]:
    input, weight, bias = given["input"], given["weight"], given["bias"]
    k = weight.shape[-1]
    rows = input.numel() // max(1, k)
    n = weight.shape[0] if weight.dim() > 1 else 1
    return [
        _product(work_kinds.LINEAR, 1, rows, k, n, bias is not None, (input, weight, bias), out)
    ]


def _attention(given, out) -> list[Work]:
    """Two products, of queries and keys, and of their softmax and the values.

    A causal mask is not taken off: half of the products could then be left out.
    """
    q, k, v = given["query"], given["key"], given["value"]
    result = out[0] if isinstance(out, (tuple, list)) else out
    heads = math.prod(q.shape[:-2])
    scores = heads * q.shape[-2] * k.shape[-2]
    products = scores * (q.shape[-1] + v.shape[-1])
    count = Count(
        multiplications=products + scores,  # the scale
        multiply_adds=products,
        # Sums of both products; the softmax subtracts a maximum and adds its exponentials up.
        additions=products - scores - result.numel() + 2 * scores,
        others=3 * scores,  # maximum, exponential, division
        outputs=result.numel(),
        bytes_read=sum(map(size_of, (q, k, v))),
        bytes_written=size_of(result),
    )
    return [Work(work_kinds.ATTENTION, count)]


def _recurrent(given, out) -> list[Work]:
    """One layer and direction of an LSTM over a sequence, as one operator of PyTorch's."""
    input, hidden = given["input"], given["hx_"]
    weights = [given[name] for name in ("weight0", "weight1", "weight2", "weight3")]
    features, size = input.shape[-1], hidden.shape[-1]
    steps = input.numel() // features
    gates = 4 * size * steps
    products = gates * (features + size)
    count = Count(
        # Beside the gates: c = f·c + i·g, h = o·tanh(c).
        multiplications=products + 3 * size * steps,
        multiply_adds=products,
        additions=products + size * steps,
        others=5 * size * steps,  # four gates and tanh(c)
        outputs=out[0].numel(),
        bytes_read=size_of(input) + sum(size_of(x) for x in weights if x is not None),
        bytes_written=size_of(out[0]),
    )
    return [Work(work_kinds.RECURRENT, count, tuple(weights))]


FORMULAS: dict[str, Formula] = {
    "aten::convolution": _convolution,
    "aten::_convolution": _convolution,
    "aten::convolution_overrideable": _convolution,
    "aten::mm": _matrices("self", "mat2"),
    "aten::addmm": _matrices("mat1", "mat2", "self"),
    "aten::_addmm_activation": _matrices("mat1", "mat2", "self"),
    "aten::mv": _matrices("self", "vec"),
    "aten::addmv": _matrices("mat", "vec", "self"),
    "aten::dot": _matrices("self", "tensor"),
    "aten::bmm": _matrices("self", "mat2"),
    "aten::baddbmm": _matrices("batch1", "batch2", "self"),
    "aten::linear": _linear,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
    "aten::mkldnn_rnn_layer": _recurrent,
}
"""By the operators' names, whatever their overload."""
