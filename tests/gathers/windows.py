"""What the tests of gathers and loops share: cases of stencils, and how a case reads its image."""

from __future__ import annotations

import torch
from image_cases import CASES, ImageCase, in_turn

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.convolution.window import Window, window
from pointwise.engine.cpu.gathers import stencil

STENCILS = [case for case in CASES if case.batch and case.is_depthwise
            and case.channels[0] == case.channels[1]]  # fmt: skip
OWN = in_turn(
    ImageCase(f"rows of {taps} with step {step}, {points} points", (3, (points - 1) * step + 1),
              (17, 17), (3, taps), stride=(1, step), padding=(1, (taps - 1) // 2), groups=17)
    for taps, step in (*stencil.ROWS, (4, 1), (2, 3)) if taps
    for points in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 22, 31)
)  # fmt: skip

# Of functions that differ in a number alone, one.
EXACT = [row.name for row in ACTIVATIONS.values() if row.exact and row.name.isidentifier()]


def window_of(case: ImageCase) -> Window:
    stride, padding, dilation, _ = case.numbers
    return window(case.batch, case.sizes, case.kernel, stride, padding, dilation)


def image(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous(memory_format=torch.channels_last)
