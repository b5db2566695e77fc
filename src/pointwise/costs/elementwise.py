"""Costs of operators that work element by element or window by window, or only move numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.costs import work_kinds
from pointwise.costs.count import Count
from pointwise.costs.formula import Formula, Work, size_of

PerElement = tuple[int, int, int]
"""Multiplications, additions and others."""

_EACH: dict[str, tuple[str, PerElement]] = {
    **dict.fromkeys(("add", "sub", "rsub"), (work_kinds.ELEMENTWISE, (0, 1, 0))),
    **dict.fromkeys(("mul", "square"), (work_kinds.ELEMENTWISE, (1, 0, 0))),
    **dict.fromkeys(("addcmul", "lerp"), (work_kinds.ELEMENTWISE, (1, 1, 0))),
    **dict.fromkeys(
        ("hardtanh", "clamp", "clamp_min", "clamp_max", "celu", "selu",
         "log_sigmoid_forward", "softplus", "threshold", "_prelu_kernel"),
        (work_kinds.ACTIVATION, (0, 0, 1)),
    ),
    **{
        row.name: (work_kinds.ACTIVATION, (0, 0, row.cost))
        for row in ACTIVATIONS.values()
        if row.cost
    },
    "glu": (work_kinds.ACTIVATION, (1, 0, 1)),
    "native_dropout": (work_kinds.ELEMENTWISE, (1, 0, 1)),
}  # fmt: skip
"""For each number of the result."""

_OVER: dict[str, PerElement] = {
    **dict.fromkeys(("sum", "nansum", "cumsum"), (0, 1, 0)),
    "mean": (0, 1, 0),
    **dict.fromkeys(("prod", "cumprod"), (1, 0, 0)),
    **dict.fromkeys(
        ("amax", "amin", "max", "min", "argmax", "argmin", "all", "any", "aminmax"), (0, 0, 1)
    ),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), (1, 3, 0)),
    "linalg_vector_norm": (1, 1, 0),
    **dict.fromkeys(("segment_reduce", "col2im"), (0, 1, 0)),
}  # fmt: skip
"""Reductions: for each number of the input."""

_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
          "_batch_norm_with_update", "_batch_norm_no_update", "cudnn_batch_norm",
          "native_layer_norm", "native_group_norm", "_fused_rms_norm")  # fmt: skip

_MOVES = (
    "cat", "stack", "clone", "copy", "_to_copy", "constant_pad_nd", "reflection_pad1d",
    "reflection_pad2d", "replication_pad1d", "replication_pad2d", "repeat", "repeat_interleave",
    "roll", "flip", "fill", "zero", "zeros", "zeros_like", "ones", "ones_like", "full",
    "full_like", "new_zeros", "new_ones", "new_full", "arange", "linspace", "eye", "scalar_tensor",
    "lift_fresh", "lift_fresh_copy", "where", "masked_fill", "tril", "triu", "slice_scatter",
    "select_scatter", "index_put", "index_copy", "scatter", "channel_shuffle",
    "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "im2col", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "max_unpool2d", "unsafe_split",
    "split_with_sizes_copy", "_reshape_copy", "contiguous",
)  # fmt: skip

_LOOKUPS = (
    "embedding",
    "index",
    "index_select",
    "gather",
    "take",
    "_unsafe_index",
    "masked_select",
)
"""They read as many numbers as they give back, not the whole tensor that they choose from."""

FREE = (
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias",
    "_local_scalar_dense", "device", "sym_size", "sym_numel", "sym_stride", "is_same_size", "size",
    "set_", "as_strided_", "squeeze_", "unsqueeze_", "transpose_", "t_", "resize_", "item",
    "_assert_async", "is_contiguous", "layout", "dim", "numel", "stride",
)  # fmt: skip
"""Operators that neither compute nor move numbers."""


def formula_of(name: str, is_elementwise: bool) -> Formula | None:
    """The formula of an operator by its name without namespace; None where there is none.

    ``is_elementwise`` is for operators that are not known by name, but to work number by number.
    """
    known = name.rstrip("_") or name
    if known in _EACH:
        return _each(*_EACH[known])
    if known in _OVER:
        return _over(known)
    if known in _NORMS:
        return _norm
    if known in ("_softmax", "_log_softmax", "_safe_softmax"):
        return _softmax
    if known in _POOLS:
        return _POOLS[known]
    if known in _LOOKUPS:
        return _lookup
    if known in _MOVES:
        return _each(work_kinds.MOVING, (0, 0, 0))
    return _each(work_kinds.ELEMENTWISE, (0, 0, 1)) if is_elementwise else None


def moved(given: dict[str, Any], out: Any, kind: str = work_kinds.NOT_COUNTED) -> Work:
    """What every operator does, known or not: it reads its tensors and writes its results."""
    results, read = _tensors(out), _tensors(list(given.values()))
    count = Count(
        outputs=sum(x.numel() for x in results),
        bytes_read=sum(map(size_of, read)),
        bytes_written=sum(map(size_of, results)),
    )
    return Work(kind, count, tuple(read))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def _times(
    part: Work, work: PerElement, numbers: int, weights: tuple = (), more: Count | None = None
) -> list[Work]:
    products, sums, others = (each * numbers for each in work)
    count = replace(part.count, multiplications=products, additions=sums, others=others)
    return [Work(part.kind, count if more is None else count + more, weights)]


def _each(kind: str, work: PerElement) -> Formula:
    def formula(given, out) -> list[Work]:
        part = moved(given, out, kind)
        more = Count()
        for name in ("alpha", "value"):  # a + alpha·b
            factor = given.get(name)
            if kind == work_kinds.ELEMENTWISE and isinstance(factor, (int, float)) and factor != 1:
                more = Count(multiplications=part.count.outputs)
        weights = tuple(_tensors(list(given.values()))) if kind != work_kinds.MOVING else ()
        return _times(part, work, part.count.outputs, weights, more)

    return formula


def _over(name: str) -> Formula:
    def formula(given, out) -> list[Work]:
        part = moved(given, out, work_kinds.REDUCTION)
        (first, *_) = _tensors(list(given.values()))
        results = _tensors(out)[0].numel()
        more = Count()
        if name in ("sum", "nansum", "mean"):  # K numbers take K - 1 additions
            more = Count(additions=-results, multiplications=results if name == "mean" else 0)
        return _times(part, _OVER[name], first.numel(), more=more)

    return formula


def _norm(given, out) -> list[Work]:
    """With fixed statistics a factor and a shift for each number; else mean and variance first.

    What is computed once for each channel, from its mean and variance, is not counted.
    """
    result = _tensors(out)[0]
    inputs = _tensors(list(given.values()))
    moving = [given[name] for name in ("weight", "bias") if isinstance(given.get(name), Tensor)]
    fixed = given.get("running_mean") is not None and not given.get("training", False)
    work: PerElement = (1, 1, 0) if fixed else (2 + len(moving[:1]), 3 + len(moving[1:]), 0)
    count = Count(
        multiplications=work[0] * result.numel(),
        additions=work[1] * result.numel(),
        outputs=result.numel(),
        bytes_read=sum(map(size_of, inputs)),
        bytes_written=size_of(result),
    )
    return [Work(work_kinds.NORM, count, tuple(moving))]


def _softmax(given, out) -> list[Work]:
    """A maximum, a difference, an exponential, a sum and a division for each number."""
    part = moved(given, out, work_kinds.SOFTMAX)
    return _times(part, (0, 2, 3), part.count.outputs)


def _pooled(
    work: PerElement, last: PerElement, patch: Callable[[dict[str, Any], Tensor, Tensor], int]
) -> Formula:
    """``work`` for each number of a patch but the first, ``last`` for each result."""

    def formula(given, out) -> list[Work]:
        part = moved(given, out, work_kinds.POOLING)
        result = _tensors(out)[0]
        taken = patch(given, given["self"], result) - result.numel()
        products, sums, others = (
            a * taken + b * result.numel() for a, b in zip(work, last, strict=True)
        )
        return _times(part, (products, sums, others), 1)

    return formula


def _kernel_patch(given: dict[str, Any], x: Tensor, result: Tensor) -> int:
    kernel = given["kernel_size"]  # one number stands for all dimensions
    dimensions = len(given["padding"]) if len(kernel) == 1 else 1
    return result.numel() * math.prod(kernel) ** dimensions


def _whole_patch(given: dict[str, Any], x: Tensor, result: Tensor) -> int:
    """Adaptive pooling: patches that cover the input, every number of it in one at least."""
    return x.numel()


def _resampled(taps: int) -> Formula:
    """A weighted sum of ``taps`` numbers for each result."""
    return lambda given, out: _times(
        moved(given, out, work_kinds.POOLING), (taps, taps - 1, 0), _tensors(out)[0].numel()
    )


_MAXIMUM, _MEAN = ((0, 0, 1), (0, 0, 0)), ((0, 1, 0), (1, 0, 0))

_POOLS: dict[str, Formula] = {
    "max_pool2d_with_indices": _pooled(*_MAXIMUM, _kernel_patch),
    "max_pool3d_with_indices": _pooled(*_MAXIMUM, _kernel_patch),
    "max_pool2d": _pooled(*_MAXIMUM, _kernel_patch),
    "avg_pool1d": _pooled(*_MEAN, _kernel_patch),
    "avg_pool2d": _pooled(*_MEAN, _kernel_patch),
    "avg_pool3d": _pooled(*_MEAN, _kernel_patch),
    "_adaptive_avg_pool2d": _pooled(*_MEAN, _whole_patch),
    "_adaptive_avg_pool3d": _pooled(*_MEAN, _whole_patch),
    "adaptive_max_pool2d": _pooled(*_MAXIMUM, _whole_patch),
    "adaptive_max_pool3d": _pooled(*_MAXIMUM, _whole_patch),
    "upsample_linear1d": _resampled(2),
    "upsample_bilinear2d": _resampled(4),
    "_upsample_bilinear2d_aa": _resampled(4),
    "upsample_bicubic2d": _resampled(16),
    "upsample_trilinear3d": _resampled(8),
}


def _lookup(given, out) -> list[Work]:
    """Reads the numbers that it gives back, and the indices."""
    results = _tensors(out)
    indices = _tensors([given.get(name) for name in ("indices", "index", "mask")])
    size = sum(map(size_of, results))
    count = Count(
        outputs=sum(x.numel() for x in results),
        bytes_read=size + sum(map(size_of, indices)),
        bytes_written=size,
    )
    table = given.get("weight")
    return [Work(work_kinds.MOVING, count, (table,) if isinstance(table, Tensor) else ())]
