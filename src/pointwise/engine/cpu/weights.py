"""The weights of convolutions on images, in the order in which the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointwise.engine.cpu.pack import pack_kernels, padded_columns


def is_stencil(weight_size, groups: int) -> bool:
    """Whether every output reads a single channel: the depthwise convolution."""
    return weight_size[1] == 1 and (groups > 1 or weight_size[0] == 1)


class Weights:
    """What kernels read of a weight and its bias."""

    @property
    def dtype(self) -> torch.dtype:
        raise NotImplementedError


@dataclass(frozen=True)
class Mix(Weights):
    """A weight ``[C_out, C_in/groups, kh, kw]`` and its bias, packed for the matrix product."""

    packed: Tensor  # [groups, C_out/groups/lanes, kh·kw·C_in/groups, lanes]
    bias: Tensor | None  # [groups, C_out/groups up to whole registers]
    groups: int
    columns: int  # C_out / groups
    depth: int  # kh·kw·C_in/groups

    @property
    def dtype(self) -> torch.dtype:
        return self.packed.dtype


def mix(weight: Tensor, bias: Tensor | None, groups: int = 1) -> Mix:
    """Packs a weight, tap by tap and channel by channel, as the gathers order them."""
    columns = weight.shape[0] // groups
    depth = weight.shape[1] * weight.shape[2] * weight.shape[3]
    row = None
    if bias is not None:
        row = torch.zeros(groups, padded_columns(columns, bias.dtype), dtype=bias.dtype)
        row[:, :columns] = bias.reshape(groups, columns)
    return Mix(pack_kernels(weight, groups), row, groups, columns, depth)


@dataclass(frozen=True)
class Filtered(Weights):
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
class Taps(Weights):
    """A depthwise weight ``[C, 1, kh, kw]`` and its bias, channels last."""

    weight: Tensor  # [kh·kw, C]
    bias: Tensor  # [C]

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype


def taps(weight: Tensor, bias: Tensor | None) -> Taps:
    """Orders a depthwise weight as the stencil reads it."""
    rows = weight.flatten(1).t().contiguous()
    return Taps(rows, torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias)
