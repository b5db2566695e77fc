"""Which kernel runs a convolution of images on the CPU, and why one cannot: said here only.

Functions, layers and graphs describe a ``Convolution`` and ``prepare`` it: the loop is chosen and
the weight put into its order. ``launch`` is then one launch for one prepared convolution, or for
two or three that had better run in one loop (``fused``). What a loop costs stands beside the loop;
what is compared stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointwise.convolution import epilogue
from pointwise.convolution.problem import Convolution, is_depthwise
from pointwise.engine.cpu import dots, pairs
from pointwise.engine.cpu.cut import is_better_joined
from pointwise.engine.cpu.gathers import stencil_int8
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import grouped, inverted, winograd
from pointwise.engine.cpu.loops.depthwise import depthwise_launch
from pointwise.engine.cpu.loops.depthwise_gradient import stencil_weight_gradient
from pointwise.engine.cpu.loops.input_gradient import (
    depthwise_input_gradient,
    mixed_input_gradient,
)
from pointwise.engine.cpu.loops.mixed import mixed_int8_launch, mixed_launch
from pointwise.engine.cpu.loops.separable import separable_int8_launch, separable_launch
from pointwise.engine.cpu.loops.weight_gradient import mixed_weight_gradient
from pointwise.engine.cpu.weights import (
    PackedWeightInt8,
    StencilWeight,
    StencilWeightInt8,
    pack_pairs,
    pack_stencil,
    pack_stencil_int8,
    pack_weight,
    pack_weight_int8,
)

Weight = Any
"""A weight in the order in which a loop reads it: one of the classes of ``engine.cpu.weights``."""

ALGORITHMS = ("depthwise", "mixed", "grouped", "winograd")
"""The loops that run a convolution by itself."""


class Choice(NamedTuple):
    """The loop that runs a convolution by itself: one of ``ALGORITHMS``."""

    algorithm: str
    tile_size: int = 0  # of Winograd: tiles are so many points high and wide
    transformed_each_run: bool = False  # of Winograd: the weight is transformed in every run
    bf16: bool = False  # of mixed: products of bfloat16

    def __str__(self) -> str:
        if self.bf16:
            return "bf16"
        return f"Winograd {self.tile_size}×{self.tile_size}" if self.tile_size else self.algorithm


DEPTHWISE, MIXED = Choice("depthwise"), Choice("mixed")


class Prepared(NamedTuple):
    """A convolution, the loop chosen for it, and its weight as that loop reads it."""

    convolution: Convolution
    choice: Choice
    weight: Weight

    @property
    def shape(self) -> torch.Size:
        """Of the result."""
        return self.convolution.shape


# --- can it run, and if not, why ------------------------------------------------------------------


def why_not(convolution: Convolution, algorithm: str | None = None) -> str | None:
    """Why no kernel, or not that of an ``algorithm``, runs a convolution; None where one does."""
    window = convolution.window
    if window.y.points < 1 or window.x.points < 1:
        return "its kernel does not fit into the image"
    if convolution.shape.numel() == 0:
        return "there is nothing to compute"
    if convolution.dtype == torch.uint8:
        return _why_not_bytes(convolution)
    if convolution.bf16 and (why := _why_not_bf16(convolution)):
        return why
    if convolution.dtype not in (torch.float32, torch.float64):
        name = str(convolution.dtype).removeprefix("torch.")
        return f"kernels take float32 and float64, not {name}"
    if why := epilogue.why_not(convolution.activation, convolution.dtype):
        return why
    if algorithm not in (None, *ALGORITHMS):
        return f"there is no such loop; there are {', '.join(ALGORITHMS)}"
    if algorithm == "depthwise" and not convolution.is_depthwise:
        return "its results read more than one channel"
    if algorithm == "grouped" and (convolution.groups == 1 or convolution.is_depthwise):
        return "it has no groups, or groups of one channel"
    if algorithm == "winograd" and not _winograd_tile_size(convolution):
        return "Winograd's loop takes 3×3 kernels of stride 1 that it makes faster"
    return None


def _why_not_bf16(convolution: Convolution) -> str | None:
    if convolution.dtype != torch.float32:
        return "products of bfloat16 are of images in float32"
    if convolution.groups > 1 or convolution.is_depthwise:
        return "only convolutions of one group have products of bfloat16"
    return pairs.WHY_NOT


def _why_not_bytes(convolution: Convolution) -> str | None:
    if dots.WHY_NOT:
        return dots.WHY_NOT
    y, x = convolution.window.y, convolution.window.x
    size = convolution.out_channels, convolution.in_channels // convolution.groups, y.taps, x.taps
    stride, dilation = (y.stride, x.stride), (y.dilation, x.dilation)
    return why_not_quantised(size, stride, dilation, convolution.groups)


def why_not_quantised(
    weight_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
) -> str | None:
    """Why no loop of bytes computes a convolution, on whatever machine; None where one does."""
    if not is_depthwise(weight_size, groups):
        return None if groups == 1 else "groups"
    known = tuple(dilation) == (1, 1) and (weight_size[3], stride[1]) in stencil_int8.ROWS
    return None if known else "no stencil of this shape for bytes"


# --- the loop of one convolution, and its weight --------------------------------------------------


def choose(
    convolution: Convolution,
    constant: bool = False,
    algorithm: str | None = None,
    kept: bool = False,
) -> Choice:
    """The loop for a convolution.

    Winograd's is chosen only for a ``constant`` weight of an inference: it rounds otherwise than
    the direct sum that training computes, and transforms the weight first: a large one in every
    run, unless it may be ``kept`` so. An ``algorithm`` by name is taken as it is: for tests, and
    for the curious. Raises ValueError where it cannot run.
    """
    if algorithm is not None and (why := why_not(convolution, algorithm)):
        raise ValueError(f"{algorithm} cannot run this convolution: {why}")
    if convolution.bf16 and algorithm in (None, "mixed"):
        return Choice("mixed", bf16=True)
    wanted = algorithm == "winograd" or (algorithm is None and constant)
    if wanted and (tile_size := _winograd_tile_size(convolution, kept)):
        channels = convolution.in_channels, convolution.out_channels
        large = winograd.is_large(*channels, convolution.dtype)
        return Choice("winograd", tile_size, large and not kept)
    if algorithm is None:
        algorithm = "depthwise" if convolution.is_depthwise else "mixed"
        if algorithm == "mixed" and _is_better_grouped(convolution):
            algorithm = "grouped"
    return Choice(algorithm)


def _is_better_grouped(convolution: Convolution) -> bool:
    columns = convolution.out_channels // convolution.groups
    return grouped.is_better(convolution.window, columns, convolution.groups, convolution.dtype)


def _winograd_tile_size(convolution: Convolution, kept: bool = False) -> int:
    """How many points high and wide Winograd's tiles had better be; 0: it is no faster."""
    window, inputs, columns, groups, dtype, *_ = convolution
    if convolution.is_depthwise or dtype == torch.uint8:
        return 0
    return winograd.best_tile_size(window, inputs, columns, groups, dtype, kept)


def pack(choice: Choice, groups: int, weight: Tensor, bias: Tensor | None) -> Weight:
    """A weight ``[C_out, C_in/groups, kh, kw]`` and its bias ``[C_out]`` for the loop chosen."""
    if choice.algorithm == "depthwise":
        return pack_stencil(weight, bias)
    if choice.algorithm == "grouped":
        return grouped.pack(weight, bias, groups)
    if choice.algorithm == "winograd" and not choice.transformed_each_run:
        return winograd.winograd_weight(weight, bias, choice.tile_size)
    if choice.bf16:
        return pack_pairs(weight, bias)
    return pack_weight(weight, bias, groups)


def pack_bytes(
    choice: Choice, weight: Tensor, factor: Tensor, shift: Tensor, zero: int
) -> PackedWeightInt8 | StencilWeightInt8:
    """An int8 weight, ``factor`` and ``shift [C_out]`` of its sums, and the byte for zero."""
    if choice.algorithm == "depthwise":
        return pack_stencil_int8(weight, factor, shift, zero)
    return pack_weight_int8(weight, factor, shift, zero)


def prepare(
    convolution: Convolution, weight: Tensor, bias: Tensor | None, choice: Choice | None = None
) -> Prepared:
    """A convolution with its weight for the loop chosen, or for another ``choice``."""
    choice = choice or choose(convolution)
    return Prepared(convolution, choice, pack(choice, convolution.groups, weight, bias))


# --- several in one loop --------------------------------------------------------------------------


def is_separable(first: Prepared, second: Prepared) -> bool:
    """Whether two convolutions are a depthwise one and a pointwise one of all its channels."""
    return (
        first.choice.algorithm == "depthwise"
        and second.choice.algorithm == "mixed"
        and second.convolution.groups == 1
        and second.convolution.window.is_identity
    )


def are_better_joined(first: Prepared, second: Prepared) -> bool:
    """Whether a depthwise and a pointwise convolution are faster in one loop than one by one."""
    return (
        is_separable(first, second)
        and first.convolution.depth_multiplier == 1
        and is_better_joined(second.weight)
    )


def can_lead(first: Prepared, second: Prepared) -> bool:
    """Whether a convolution had better run in one loop with the depthwise one behind it."""
    one, two = first.convolution, second.convolution
    if one.dtype == torch.uint8 or first.choice.bf16:  # there is no such loop
        return False
    packed = first.choice.algorithm == "mixed" or first.choice.transformed_each_run
    return (
        packed
        and second.choice.algorithm == "depthwise"
        and two.depth_multiplier == one.groups == 1
        and is_better_joined(first.weight)
        and inverted.is_better_in_one(two.window, one.out_channels, one.dtype.itemsize)
    )


def can_follow(second: Prepared, third: Prepared) -> bool:
    """Whether a pointwise convolution had better run in the loop that makes two before it."""
    return are_better_joined(second, third) and not third.choice.bf16  # there is no such loop


def fused(*chain: Prepared) -> int:
    """How many of the next convolutions of a chain, up to three, had better run in one loop."""
    if len(chain) > 2 and can_lead(*chain[:2]) and can_follow(*chain[1:3]):
        return 3
    return 2 if len(chain) > 1 and are_better_joined(*chain[:2]) else 1


def launch(
    x: Tensor, chain: Sequence[Prepared], out: Tensor, residual: Tensor | None = None
) -> Launch:
    """One launch for one, two or three convolutions: as ``fused`` says, or the first two of three.

    ``x``, ``out`` and ``residual``, which is added before the last activation, are channels_last. A
    depthwise convolution by itself takes no residual.
    """
    first, last = chain[0], chain[-1]
    if first.convolution.dtype == torch.uint8:
        return _launch_bytes(x, chain, out, residual)
    if len(chain) == 1:
        return _alone(x, first, out, residual)
    activations = [part.convolution.activation for part in chain]
    if first.choice.algorithm == "depthwise":
        window = first.convolution.window
        return separable_launch(x, first.weight, last.weight, window, out, residual, *activations)
    then = last if len(chain) == 3 else None
    activations = [*activations, "none"]
    return inverted.inverted_launch(
        x, first.weight, first.convolution.window, chain[1].weight, chain[1].convolution.window,
        None if then is None else then.weight, out, residual, tuple(activations[:3]),  # type: ignore[arg-type]
    )  # fmt: skip


def _alone(x: Tensor, prepared: Prepared, out: Tensor, residual: Tensor | None) -> Launch:
    convolution, choice, weight = prepared
    window, activation = convolution.window, convolution.activation
    if choice.algorithm == "winograd":
        assert not choice.transformed_each_run, "its weight is transformed by a launch of its own"
        return winograd.winograd_launch(x, weight, window, out, residual, activation)
    if choice.algorithm == "mixed":
        return mixed_launch(x, weight, window, out, residual, activation)
    if choice.algorithm == "grouped":
        return grouped.grouped_launch(x, weight, window, out, residual, activation)
    assert residual is None, "a depthwise convolution takes no residual"
    return depthwise_launch(x, weight, window, out, activation)


def _launch_bytes(
    x: Tensor, chain: Sequence[Prepared], out: Tensor, residual: Tensor | None
) -> Launch:
    first, last = chain[0], chain[-1]
    window, after = first.convolution.window, last.convolution.rescaling
    if len(chain) == 1 and first.choice.algorithm == "depthwise":
        return depthwise_launch(x, first.weight, window, out)
    assert after is not None
    finish = after.residual, after.low, after.high
    if len(chain) == 1:
        return mixed_int8_launch(x, first.weight, window, out, residual, *finish)
    return separable_int8_launch(x, first.weight, last.weight, window, out, residual, *finish)


# --- gradients ------------------------------------------------------------------------------------


def input_gradient(convolution: Convolution, grad: Tensor, weight: Tensor) -> Tensor:
    """The input's gradient, of the gradient ``[N, C_out, H_out, W_out]`` of a result.

    Of a depth multiplier, that of each channel as many times as there are results of it.
    """
    if convolution.is_depthwise:
        return depthwise_input_gradient(grad, weight, convolution.window)
    return mixed_input_gradient(grad, weight, convolution.window, convolution.groups)


def weight_gradient(convolution: Convolution, grad: Tensor, input: Tensor) -> Tensor:
    """The weight's gradient; of a depth multiplier, ``input`` has each channel so many times."""
    window = convolution.window
    kernel = window.y.taps, window.x.taps
    if convolution.is_depthwise:
        return stencil_weight_gradient(grad, input, window, kernel)
    return mixed_weight_gradient(grad, input, window, kernel, convolution.groups)


# --- depth multipliers ----------------------------------------------------------------------------
#
# A depthwise convolution with a depth multiplier m is m launches, of which launch j writes result j
# of every channel: so channels stay side by side for the stencil, and nothing is repeated. Results
# then lie in the order j·C + c, and not c·m + j as PyTorch has them; a pointwise convolution behind
# reads its weight in that order.


def launch_of_multiplier(x: Tensor, prepared: Prepared, out: Tensor, j: int) -> Launch:
    """Launch j of a depthwise convolution with a depth multiplier, into all of ``out``."""
    convolution, weight = prepared.convolution, prepared.weight
    many, channels = convolution.depth_multiplier, x.shape[1]
    own = StencilWeight(weight.weight[:, j::many].contiguous(), weight.bias[j::many].contiguous())
    part = out[:, j * channels : (j + 1) * channels]
    return depthwise_launch(x, own, convolution.window, part, convolution.activation)


def launch_behind_multiplier(
    x: Tensor, first: Prepared, second: Prepared, out: Tensor, residual: Tensor | None
) -> Launch:
    """The pointwise convolution of what ``launch_of_multiplier`` wrote."""
    many, channels = first.convolution.depth_multiplier, first.convolution.in_channels
    packed = second.weight.packed.unflatten(2, (channels, many)).transpose(2, 3).flatten(2, 3)
    weight = replace(second.weight, packed=packed.contiguous())
    return _alone(x, second._replace(weight=weight), out, residual)
