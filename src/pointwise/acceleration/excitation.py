"""Squeeze and excitation as two launches: its weights in the kernels' order, and how it is cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointwise.convolution.epilogue import kernel_form
from pointwise.engine.cpu.cut import TEAM
from pointwise.engine.cpu.loops import excite
from pointwise.engine.cpu.loops.images import Step
from pointwise.engine.cpu.pack import pack, pad_row, padded_columns
from pointwise.engine.cpu.table import bits


@dataclass(frozen=True)
class Excitation:
    """The weights and biases of both products."""

    narrow: Tensor  # [C, hidden up to whole registers]
    narrow_bias: Tensor | None  # [hidden up to whole registers]
    wide: Tensor  # [C / lanes, hidden, lanes]
    wide_bias: Tensor | None  # [C up to whole registers]
    hidden: int

    def unpacked(self, first: bool) -> Tensor:
        """One of the weights in PyTorch's order."""
        if first:
            return self.narrow[:, : self.hidden].t().contiguous()[:, :, None, None]
        channels = len(self.narrow)
        rows = self.wide.transpose(1, 2).reshape(-1, self.hidden)[:channels]
        return rows.contiguous()[:, :, None, None]


def packed(
    narrow: Tensor, narrow_bias: Tensor | None, wide: Tensor, wide_bias: Tensor | None
) -> Excitation:
    """Weights ``[hidden, C, 1, 1]`` and ``[C, hidden, 1, 1]``."""
    hidden, channels = narrow.shape[:2]
    rows = torch.zeros(channels, padded_columns(hidden, narrow.dtype), dtype=narrow.dtype)
    rows[:, :hidden] = narrow[:, :, 0, 0].t()
    biases = (None if row is None else pad_row(row) for row in (narrow_bias, wide_bias))
    return Excitation(rows, next(biases), pack(wide[:, :, 0, 0].t()), next(biases), hidden)


def cut(images: int, channels: int, dtype: torch.dtype) -> tuple[int, int]:
    """(channels of a program, programs of an image), whatever the number of threads."""
    line = 64 // dtype.itemsize
    lines = -(-channels // line)
    block = -(-lines // max(1, min(lines, TEAM // images))) * line
    return block, -(-channels // block)


def room(images: int, channels: int, weights: Excitation) -> tuple[int, int]:
    """How many numbers lie between the two launches, of each image."""
    padded = weights.narrow.shape[1]
    _, blocks = cut(images, channels, weights.narrow.dtype)
    return images, 2 * blocks * padded + padded_columns(channels, weights.narrow.dtype)


def _common(x: Tensor, between: Tensor, weights: Excitation, weight: int) -> list[int]:
    images, channels, height, width = x.shape
    return [x.data_ptr(), between.data_ptr(), height * width, channels,
            *cut(images, channels, x.dtype), weight, weights.narrow.shape[1],
            between.shape[1] * x.element_size()]  # fmt: skip


def squeeze(x: Tensor, between: Tensor, weights: Excitation) -> Step:
    """Means of ``x [N, C, H, W]``, channels_last, times the first weight, into ``between``."""
    arguments = _common(x, between, weights, weights.narrow.data_ptr())
    programs = x.shape[0] * arguments[5]
    return Step(excite.SQUEEZE[x.dtype], arguments, programs, between, 1, (weights,))


def scaled(
    x: Tensor, between: Tensor, weights: Excitation, out: Tensor, activations: tuple[str, str, str]
) -> Step:
    """Hidden numbers, factors, and ``x`` times these, into ``out``, which may be ``x``.

    ``activations`` are those of the hidden numbers, of the factors, and of the result.
    """
    inner, gate, last = (_bounds(name, x.dtype) for name in activations)
    arguments = _common(x, between, weights, _address(weights.narrow_bias))
    arguments += [*inner, weights.wide.data_ptr(), _address(weights.wide_bias), weights.hidden]
    arguments += [*gate, out.data_ptr(), *last]
    programs = x.shape[0] * arguments[5]
    return Step(excite.EXCITE[x.dtype], arguments, programs, out, excite.OUT, (weights, between))


def _bounds(activation: str, dtype: torch.dtype) -> tuple[int, int, int]:
    low, high, kind = kernel_form(activation, dtype)
    return bits(low), bits(high), kind


def _address(row: Tensor | None) -> int:
    return 0 if row is None else row.data_ptr()
