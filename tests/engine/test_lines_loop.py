"""Convolutions along lines: the sums of gathered patches bit for bit, and the oracle's numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.convolution.window import window
from pointwise.engine.cpu.loops import lines
from pointwise.engine.cpu.loops.mixed import mixed, mixed_launch
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.weights import pack_weight

F32, F64 = torch.float32, torch.float64

# (images, lines), points of a line, (channels in, out), taps, stride, padding, dilation
CASES = {
    "one point": ((1, 1), 1, (3, 5), 3, 1, (1, 1), 1),
    "a kernel as long as the line": ((1, 1), 7, (8, 8), 7, 1, (0, 0), 1),
    "no point without padding": ((2, 1), 3, (5, 9), 5, 1, (4, 4), 2),
    "causal": ((1, 1), 41, (16, 24), 3, 1, (8, 0), 4),
    "only what comes": ((1, 1), 41, (16, 24), 3, 1, (0, 8), 4),
    "taps side by side": ((1, 1), 100, (8, 8), 11, 1, (5, 5), 1),
    "taps far apart": ((1, 1), 100, (8, 8), 11, 1, (25, 25), 5),
    "one channel": ((1, 1), 203, (1, 40), 10, 5, (0, 0), 1),
    "to one channel": ((1, 1), 203, (7, 1), 7, 1, (3, 3), 1),
    "strides and dilation": ((3, 1), 37, (6, 17), 4, 3, (5, 2), 2),
    "stride beyond the kernel": ((2, 1), 37, (6, 17), 2, 5, (1, 1), 1),
    "many lines": ((2, 5), 19, (12, 33), 3, 1, (1, 1), 1),
    "columns among programs": ((1, 1), 32, (20, 400), 3, 1, (1, 1), 1),
    "many points": ((1, 1), 2000, (32, 32), 3, 1, (3, 3), 3),
}


def problem(case: str, dtype: torch.dtype):
    (images, height), width, (c_in, c_out), taps, stride, padding, dilation = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    x = torch.randn(images, c_in, height, width, dtype=F64, generator=generator)
    weight = torch.randn(c_out, c_in, 1, taps, dtype=F64, generator=generator)
    bias = torch.randn(c_out, dtype=F64, generator=generator)
    own = window(images, (height, width), (1, taps), (1, stride), (0, 0, *padding), (1, dilation))
    exact = F.conv2d(F.pad(x, padding), weight, bias, (1, stride), 0, (1, dilation))
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    return x, pack_weight(weight.to(dtype), bias.to(dtype)), own, exact


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_sums_are_those_of_gathered_patches(case, dtype, monkeypatch):
    x, weight, own, exact = problem(case, dtype)
    assert lines.is_better(x, own, 1, weight.columns)
    same_as_gathered(x, weight, own, exact, dtype, monkeypatch)


def same_as_gathered(x, weight, own, exact, dtype, monkeypatch):
    residual = torch.randn(exact.shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    found = []
    for is_better in (lambda *_: True, lambda *_: False):
        monkeypatch.setattr(lines, "is_better", is_better)
        for more, activation in ((None, "none"), (residual, "relu"), (residual, "leaky_relu_0.1")):
            out = empty_result(own, weight.columns, dtype).fill_(torch.nan)
            found.append(mixed_launch(x, weight, own, out, more, activation).run())
    for one, other in zip(found[:3], found[3:], strict=True):
        assert torch.equal(one, other)
    size = exact.abs().max() * weight.depth**0.5
    assert (found[0] - exact).abs().max() <= 8 * torch.finfo(dtype).eps * size


@pytest.mark.parametrize("case", ["causal", "many lines", "columns among programs"])
def test_pixels_may_be_parts_of_wider_ones(case):
    x, weight, own, exact = problem(case, F64)
    channels, columns = x.shape[1], weight.columns
    wide = torch.full((x.shape[0], channels + 5, *x.shape[2:]), torch.nan, dtype=F64)
    wide = wide.contiguous(memory_format=torch.channels_last)
    wide[:, 2 : 2 + channels] = x
    out = torch.zeros(exact.shape[0], columns + 3, *exact.shape[2:], dtype=F64)
    out = out.contiguous(memory_format=torch.channels_last)
    part = out[:, 1 : 1 + columns]
    mixed_launch(wide[:, 2 : 2 + channels], weight, own, part, None, "tanh").run()
    torch.testing.assert_close(part, exact.tanh())
    assert not out[:, 0].any()
    assert not out[:, 1 + columns :].any()


@pytest.mark.parametrize("case", ["causal", "many lines", "many points", "columns among programs"])
def test_results_do_not_depend_on_the_number_of_threads(case):
    x, weight, own, _ = problem(case, F32)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(mixed(x, weight, own, activation="silu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


# images, size, channels (in, out), taps, stride, padding (top, bottom, left, right), dilation
IMAGES = {
    "a stem": (2, (37, 61), (3, 32), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "one channel": (1, (9, 70), (1, 9), (5, 3), (1, 1), (2, 2, 1, 1), (1, 1)),
    "a wide kernel": (1, (12, 33), (2, 19), (7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    "one side": (1, (8, 31), (5, 40), (3, 3), (1, 3), (0, 2, 1, 0), (1, 1)),
    "no padding": (3, (7, 30), (4, 17), (4, 4), (4, 4), (0, 0, 0, 0), (1, 1)),
    "all is padding": (1, (1, 2), (3, 8), (3, 3), (1, 1), (4, 4, 4, 4), (1, 1)),
    "no line without padding": (2, (2, 40), (3, 5), (5, 3), (1, 1), (2, 2, 1, 1), (1, 1)),
    "a tall image": (1, (90, 3), (3, 16), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "lines far apart": (1, (30, 40), (3, 24), (3, 3), (1, 1), (2, 2, 1, 1), (2, 1)),
    "taps far apart": (2, (20, 40), (3, 24), (3, 3), (2, 1), (3, 3, 3, 3), (3, 3)),
    "columns among programs": (1, (5, 40), (6, 300), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
}


def image_problem(case: str, dtype: torch.dtype):
    images, size, (c_in, c_out), taps, stride, padding, dilation = IMAGES[case]
    generator = torch.Generator().manual_seed(len(case))
    x = torch.randn(images, c_in, *size, dtype=F64, generator=generator)
    weight = torch.randn(c_out, c_in, *taps, dtype=F64, generator=generator)
    bias = torch.randn(c_out, dtype=F64, generator=generator)
    own = window(images, size, taps, stride, padding, dilation)
    top, bottom, left, right = padding
    exact = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    return x, pack_weight(weight.to(dtype), bias.to(dtype)), own, exact


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("case", IMAGES)
def test_images_too(case, dtype, monkeypatch):
    same_as_gathered(*image_problem(case, dtype), dtype, monkeypatch)


@pytest.mark.parametrize("case", ["a stem", "taps far apart", "no line without padding"])
def test_images_with_any_threads(case, threads, monkeypatch):
    x, weight, own, _ = image_problem(case, F32)
    monkeypatch.setattr(lines, "is_better", lambda *_: True)
    threads(1)
    expected = mixed(x, weight, own, activation="silu")
    for count in (2, 3, 5):
        threads(count)
        assert torch.equal(mixed(x, weight, own, activation="silu"), expected)


def stem(x, columns, kernel=3, dilation=1):
    own = window(1, tuple(x.shape[2:]), (kernel,) * 2, (2, 2), (1,) * 4, (dilation,) * 2)
    return lines.is_better(x, own, 1, columns)


def test_images_of_few_channels_and_long_rows():
    wide = torch.zeros(1, 3, 8, 224).contiguous(memory_format=torch.channels_last)
    assert stem(wide, 32)
    assert stem(wide, 64, kernel=7)
    assert not stem(wide, 96)
    assert not stem(wide, 32, dilation=2)
    assert not stem(wide[..., :16].contiguous(memory_format=torch.channels_last), 32)
    many = torch.zeros(1, 32, 8, 224).contiguous(memory_format=torch.channels_last)
    assert not stem(many, 32)
    assert not stem(many[:, :3], 32)  # parts of wider pixels


def test_what_is_gathered_all_the_same():
    x, _, own, _ = problem("causal", F32)
    assert not lines.is_better(x, own, 2, 24)
    far = torch.zeros(1, 1024, 1, 41).to(memory_format=torch.channels_last)
    assert not lines.is_better(far, own, 1, 24)
