"""The stencil of copied parts of channels: its sums bit for bit, and the definition's numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.convolution.window import window
from pointwise.engine.cpu.loops import depthwise as loop
from pointwise.engine.cpu.loops.depthwise import depthwise, depthwise_launch
from pointwise.engine.cpu.loops.depthwise_copied import is_better_copied
from pointwise.engine.cpu.weights import pack_stencil

F32, F64 = torch.float32, torch.float64

# images, size, channels, taps, stride, padding (top, bottom, left, right), dilation
CASES = {
    "one point": (1, (1, 1), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "of MobileNet": (1, (7, 7), 1024, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "no whole part": (2, (9, 5), 131, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "less than a register": (1, (6, 8), 5, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "one more than a part": (1, (20, 9), 129, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    "a wide kernel": (1, (13, 17), 200, (7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
    "dilated": (2, (12, 11), 33, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "any kernel": (1, (11, 9), 70, (4, 2), (3, 2), (1, 2, 0, 1), (1, 3)),
    "much padding": (1, (2, 3), 40, (3, 3), (1, 1), (5, 4, 6, 3), (1, 1)),
    "no padding": (3, (15, 8), 160, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "many bands": (1, (90, 40), 24, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
}


def problem(case: str, dtype: torch.dtype):
    images, size, channels, taps, stride, padding, dilation = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    x = torch.randn(images, channels, *size, dtype=F64, generator=generator)
    weight = torch.randn(channels, 1, *taps, dtype=F64, generator=generator)
    bias = torch.randn(channels, dtype=F64, generator=generator)
    own = window(images, size, taps, stride, padding, dilation)
    top, bottom, left, right = padding
    wide = F.pad(x, (left, right, top, bottom))
    exact = F.conv2d(wide, weight, bias, stride, 0, dilation, channels)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    return x, pack_stencil(weight.to(dtype), bias.to(dtype)), own, exact


@pytest.mark.parametrize("activation", ["none", "relu6", "silu"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_sums_are_those_of_the_image_itself(case, dtype, activation, monkeypatch):
    x, weight, own, exact = problem(case, dtype)
    found = []
    for copies in (True, False):
        monkeypatch.setattr(loop, "is_better_copied", lambda x, copies=copies: copies)
        out = torch.full(exact.shape, torch.nan, dtype=dtype)
        out = out.contiguous(memory_format=torch.channels_last)
        found.append(depthwise_launch(x, weight, own, out, activation).run())
    assert torch.equal(*found)
    if activation == "none":
        bound = 8 * torch.finfo(dtype).eps * exact.abs().max() * own.taps**0.5
        assert (found[0] - exact).abs().max() <= bound


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_with_any_threads(case, threads, monkeypatch):
    monkeypatch.setattr(loop, "is_better_copied", lambda x: True)
    x, weight, own, _ = problem(case, F32)
    threads(1)
    expected = depthwise(x, weight, own, "relu")
    for count in (2, 3, 5):
        threads(count)
        assert torch.equal(depthwise(x, weight, own, "relu"), expected)


@pytest.mark.parametrize("case", ["no whole part", "any kernel", "many bands"])
def test_pixels_may_be_parts_of_wider_ones(case, monkeypatch):
    monkeypatch.setattr(loop, "is_better_copied", lambda x: True)
    x, weight, own, exact = problem(case, F64)
    channels = x.shape[1]
    wide = torch.full((x.shape[0], channels + 5, *x.shape[2:]), torch.nan, dtype=F64)
    wide = wide.contiguous(memory_format=torch.channels_last)
    wide[:, 2 : 2 + channels] = x
    out = torch.zeros(exact.shape[0], channels + 3, *exact.shape[2:], dtype=F64)
    out = out.contiguous(memory_format=torch.channels_last)
    depthwise_launch(wide[:, 2 : 2 + channels], weight, own, out[:, 1 : 1 + channels]).run()
    torch.testing.assert_close(out[:, 1 : 1 + channels], exact)
    assert not out[:, 0].any()
    assert not out[:, 1 + channels :].any()


def test_pixels_that_share_their_cache_sets():
    def image(channels):
        return torch.zeros(1, channels, 7, 7).contiguous(memory_format=torch.channels_last)

    assert is_better_copied(image(1024))
    assert is_better_copied(image(2048)[:, :40])
    for channels in (960, 576, 192, 256):
        assert not is_better_copied(image(channels))
