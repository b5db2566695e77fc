"""The weights of convolutions on images, in the order in which the kernels read them.

An int8 weight has a scale for each channel of the result. Its sums are int32 and exact; they begin
with the zero point's share of them, and become ``sum·factor + shift``, one of each for a channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointwise.engine.cpu import gemm_int8
from pointwise.engine.cpu.dots import DOTS
from pointwise.engine.cpu.gathers.weave import CHANNELS, HALF, LINES, spans, woven
from pointwise.engine.cpu.gemm_int8 import pad
from pointwise.engine.cpu.pack import pack_taps, pack_with_bias, padded_columns


class Weights:
    """What kernels read of a weight and its bias."""

    @property
    def dtype(self) -> torch.dtype:
        raise NotImplementedError


@dataclass(frozen=True)
class PackedWeight(Weights):
    """A weight ``[C_out, C_in/groups, kh, kw]`` and its bias, packed for the matrix product."""

    packed: Tensor  # [groups, C_out/groups/lanes, kh·kw·C_in/groups, lanes]
    bias: Tensor | None  # [groups, C_out/groups up to whole registers]
    groups: int
    columns: int  # C_out / groups
    depth: int  # kh·kw·C_in/groups

    @property
    def dtype(self) -> torch.dtype:
        return self.packed.dtype


def pack_weight(
    weight: Tensor, bias: Tensor | None, groups: int = 1, backwards: bool = False
) -> PackedWeight:
    """Packs a weight, tap by tap and channel by channel, as the gathers order them.

    It may be given group by group, and its taps packed ``backwards`` (see ``pack_with_bias``).
    """
    columns = weight.shape[1] if weight.dim() == 5 else weight.shape[0] // groups
    depth = weight.shape[-3] * weight.shape[-2] * weight.shape[-1]
    packed, row = pack_with_bias(weight, groups, bias, backwards)
    return PackedWeight(packed, row, groups, columns, depth)


@dataclass(frozen=True)
class PairedWeight(PackedWeight):
    """One of a single group for products of bfloat16: two steps of depth side by side."""

    # packed: [1, C_out/lanes, ⌈kh·kw·C_in / 2⌉, lanes, 2]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32  # of what it is multiplied with, and of sums


def pack_pairs(weight: Tensor, bias: Tensor | None) -> PairedWeight:
    """Packs a weight in float32, rounded to bfloat16, with zeros behind an odd last step."""
    own = pack_weight(weight, bias)
    panels = own.packed[0]
    if own.depth % 2:
        panels = torch.cat([panels, panels.new_zeros(len(panels), 1, panels.shape[2])], 1)
    paired = panels.unflatten(1, (-1, 2)).mT.to(torch.bfloat16).contiguous()
    return PairedWeight(paired[None], own.bias, 1, own.columns, own.depth)


def pack_matrix(matrix: Tensor, bias: Tensor | None) -> PackedWeight:
    """Packs a weight ``[K, C_out]`` of rows that are gathered in the same order.

    That of taps may be given tap by tap, ``[taps, C_in, C_out]``.
    """
    taps = matrix if matrix.dim() == 3 else matrix[None]
    return pack_weight(taps.permute(2, 1, 0)[..., None], bias)


@dataclass(frozen=True)
class GroupedWeight(Weights):
    """A weight ``[C_out, C_in/groups, kh, kw]`` and its bias, as the loop of groups reads it.

    A bundle is a group or, where groups are narrower than a register, one of those: then a lane's
    weights are those of its own group.
    """

    packed: Tensor  # [bundles, columns/lanes, kh·kw·steps, lanes]; without the second if shared
    bias: Tensor | None  # [bundles, columns up to whole registers]
    bundles: int
    inputs: int  # channels that a bundle reads
    columns: int  # channels that it makes
    depth: int  # kh·kw·steps
    shared: int  # the width of groups that share a register, or 0

    @property
    def dtype(self) -> torch.dtype:
        return self.packed.dtype


def pack_grouped(
    weight: Tensor, bias: Tensor | None, groups: int, shared: int, backwards: bool = False
) -> GroupedWeight:
    """Packs a weight of groups, which share registers if they are ``shared`` channels wide.

    It may be given group by group, and its taps packed ``backwards`` (see ``pack_with_bias``).
    """
    if not shared:
        own = pack_weight(weight, bias, groups, backwards)
        inputs = weight.shape[-3]
        return GroupedWeight(own.packed, own.bias, groups, inputs, own.columns, own.depth, 0)
    if weight.dim() == 5:
        weight = weight.flatten(0, 1)
    # A panel is a register of channels, whatever groups they are of.
    own = pack_weight(weight, bias, 1, backwards)
    lanes = padded_columns(1, weight.dtype)
    row = None if own.bias is None else own.bias[0]
    return GroupedWeight(own.packed[0], row, len(own.packed[0]), lanes, lanes, own.depth, shared)


@dataclass(frozen=True)
class WinogradWeight(Weights):
    """A weight ``[C_out, C_in, 3, 3]`` for Winograd's loop, transformed, and its bias."""

    packed: Tensor  # [(m + 2)², C_out/lanes, C_in, lanes], dense but for the first
    bias: Tensor | None  # [C_out up to whole registers]
    columns: int  # C_out
    depth: int  # C_in
    outputs: int  # m: tiles are m × m points

    @property
    def dtype(self) -> torch.dtype:
        return self.packed.dtype


@dataclass(frozen=True)
class StencilWeight(Weights):
    """A depthwise weight ``[C, 1, kh, kw]`` and its bias, channels last."""

    weight: Tensor  # [kh·kw, C]
    bias: Tensor  # [C]

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype


def pack_stencil(weight: Tensor, bias: Tensor | None, backwards: bool = False) -> StencilWeight:
    """Orders a depthwise weight as the stencil reads it; its taps may be packed ``backwards``."""
    return StencilWeight(*pack_taps(weight, bias, backwards))


@dataclass(frozen=True)
class PackedWeightInt8:
    """A weight ``[C_out, C_in, kh, kw]`` of int8, packed for the matrix product."""

    packed: Tensor  # [C_out/LANES, K/GROUP, LANES, GROUP]
    start: Tensor  # what sums begin with, int32, up to whole registers as are the next two
    factor: Tensor  # float32
    shift: Tensor  # float32
    columns: int  # C_out
    zero: int  # the byte that stands for zero in the input

    @property
    def depth(self) -> int:
        """Lanes of ``GROUP`` steps."""
        return self.packed.shape[1]


def pack_weight_int8(weight: Tensor, factor: Tensor, shift: Tensor, zero: int) -> PackedWeightInt8:
    """Packs an int8 weight, tap by tap and channel by channel, as the gathers order them."""
    matrix = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
    start, factor, shift = (pad(row) for row in (_starts(weight, zero), factor, shift))
    return PackedWeightInt8(gemm_int8.pack(matrix), start, factor, shift, len(weight), zero)


@dataclass(frozen=True)
class StencilWeightInt8:
    """A depthwise weight ``[C, 1, kh, kw]`` of int8, as the stencil reads it."""

    packed: Tensor  # spans of [groups of LINES rows, kw, channels, LINES]
    start: Tensor
    factor: Tensor
    shift: Tensor
    blank: Tensor  # a pixel of what stands for zero, as int8


def pack_stencil_int8(
    weight: Tensor, factor: Tensor, shift: Tensor, zero: int
) -> StencilWeightInt8:
    """Orders a depthwise int8 weight as the stencil reads it."""
    channels, _, height, width = weight.shape
    lines = -(-height // LINES) * LINES
    full = torch.zeros(channels, lines, width, dtype=DOTS.dtype)
    full[:, :height] = weight[:, 0]
    parts = []
    for span in spans(channels):
        own = full[span.first : span.first + span.channels]
        own = torch.cat([own, own.new_zeros(span.channels - len(own), lines, width)])
        # [groups, taps, places, lines]
        own = own[woven(span.channels)].view(span.channels, lines // LINES, LINES, width)
        parts.append(own.permute(1, 3, 0, 2).flatten())
    order = _order(channels)
    begin = _starts(weight, zero)
    start, factor, shift = (pad(row, CHANNELS)[order] for row in (begin, factor, shift))
    blank = torch.full((max(channels, HALF),), zero, dtype=torch.uint8).view(torch.int8)
    return StencilWeightInt8(torch.cat(parts), start, factor, shift, blank)


def _starts(weight: Tensor, zero: int) -> Tensor:
    """What sums begin with, so that they are those of ``x - zero``: int32 ``[C_out]``."""
    return -zero * weight.flatten(1).sum(1, dtype=torch.int32)


def _order(channels: int) -> Tensor:
    """Which channel stands at each place of a register, one span after the other."""
    return torch.tensor(
        [span.first + at for span in spans(channels) for at in woven(span.channels)]
    )
