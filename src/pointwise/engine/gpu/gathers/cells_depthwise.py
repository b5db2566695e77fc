"""The depthwise gather on a cloud: each channel and kernel cell with its own weight, summed.

Row i of the gathered matrix ``[N, C]`` is Σ_m w_m ⊙ (mean of the features in cell m of query i). It
is summed over the pairs of a row, each with the weight of its cell and one over the number of
points there: cells without points cost nothing. The gather of the shift (``cells_shift`` on the
CPU) is the same with weights of zero and one, of which the ones say which channels are read at all.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pointwise.engine.gpu.gathers.cells import MEAN, SUM, count_of, entry_of

_TOGETHER = tl.constexpr(2)  # neighbours whose features are on their way from memory at a time


@triton.jit
def fill(
    x, weight, pairs, counts, start, length, row, channel, channels, cells, bits, low,
    MODE: tl.constexpr, MIRRORED: tl.constexpr, SHIFT: tl.constexpr, SUMS: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """``[ROWS, CHANNELS]`` of the gathered matrix.

    ``start`` and ``length [ROWS]`` are each row's first pair and how many it has; ``weight [M, C]``
    is not read for a shift.
    """
    group = channels // cells  # channels that a shift takes from each cell; the rest: the middle's
    own = tl.where(channel < group * cells, channel // tl.maximum(group, 1), cells // 2)
    total = tl.zeros([ROWS, CHANNELS], dtype=SUMS)
    for k in range(0, tl.max(length, axis=0), _TOGETHER):
        for ahead in tl.static_range(_TOGETHER):
            here = k + ahead < length
            entry = entry_of(pairs, start + k + ahead, here)
            point, key = entry & low, entry >> bits
            cell = cells - 1 - key if MIRRORED else key
            seen = here[:, None] & (channel < channels)[None, :]
            if SHIFT:
                seen &= own[None, :] == cell[:, None]
            source = x + point[:, None] * channels + channel[None, :]
            values = tl.load(source, mask=seen, other=0).to(SUMS)
            if not SHIFT:
                at = weight + cell[:, None] * channels + channel[None, :]
                values *= tl.load(at, mask=seen, other=0).to(SUMS)
            if MODE != SUM:
                whose = row if MODE == MEAN else point
                count = count_of(counts, whose, cell, cells, here)
                values *= 1.0 / count.to(SUMS)[:, None]
            total += values
    return total
