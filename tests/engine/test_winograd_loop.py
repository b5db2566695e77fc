"""Winograd's tile loop against the direct sum in float64, and the algebra it rests on."""

from __future__ import annotations

import pickle
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pointwise import accelerate
from pointwise.convolution.window import window
from pointwise.engine.cpu.loops.mixed import mixed
from pointwise.engine.cpu.loops.winograd import (
    MATRICES,
    best_tile_size,
    room_for,
    weight_transform_launch,
    winograd_launch,
    winograd_weight,
    winograd_weight_in,
)
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.toom_cook import matrices
from pointwise.engine.cpu.weights import WinogradWeight, pack_weight

F32, F64 = torch.float32, torch.float64
ACTIVATIONS = {"none": lambda x: x, "relu6": F.relu6, "hardswish": F.hardswish, "silu": F.silu}


def weight_by_a_launch(weight, bias, outputs):
    mix = pack_weight(weight, bias)
    room = torch.full((room_for(mix, outputs),), torch.nan, dtype=weight.dtype)
    found = winograd_weight_in(room, mix, outputs)
    weight_transform_launch(mix, found).run()
    return found


WEIGHTS = {"beforehand": winograd_weight, "in every run": weight_by_a_launch}
LANES = padded_columns(1, F32)  # channels come in whole registers

# images, size, registers of inputs and of outputs, padding (top, bottom, left, right)
CASES = {
    "one point": (1, (1, 1), 1, 1, (1, 1, 1, 1)),
    "one tile of two": (1, (2, 2), 1, 2, (1, 1, 1, 1)),
    "no padding": (1, (9, 11), 2, 1, (0, 0, 0, 0)),
    "much padding": (2, (5, 3), 1, 3, (2, 2, 2, 2)),
    "one side": (1, (7, 8), 1, 1, (0, 2, 1, 0)),
    "odd sizes": (3, (13, 7), 3, 5, (1, 1, 1, 1)),
    "many tiles": (2, (40, 33), 2, 2, (1, 1, 1, 1)),
    "rows that do not fit into one": (1, (6, 6), 9, 4, (1, 1, 1, 1)),
    "pixels that do not fit into one": (1, (5, 5), 66, 1, (1, 1, 1, 1)),
}


def problem(case, dtype, seed=0):
    """Images, a weight and a bias, a residual, and the window."""
    images, size, c_in, c_out, padding = case
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64).sub(0.4).to(dtype)

    lanes = padded_columns(1, dtype)
    x = random(images, c_in * lanes, *size).contiguous(memory_format=torch.channels_last)
    weight, bias = random(c_out * lanes, c_in * lanes, 3, 3), random(c_out * lanes)
    field = window(images, size, (3, 3), (1, 1), padding, (1, 1))
    residual = random(images, c_out * lanes, field.y.points, field.x.points)
    return x, weight, bias, residual.contiguous(memory_format=torch.channels_last), field


def plain(x, weight, bias, residual, field, padding, activation):
    """The definition, in float64."""
    top, bottom, left, right = padding
    wide = F.pad(x.double(), (left, right, top, bottom))
    out = F.conv2d(wide, weight.double(), None if bias is None else bias.double())
    return ACTIVATIONS[activation](out if residual is None else out + residual.double())


def run(x, weight, bias, residual, field, outputs, activation, weights="beforehand"):
    shape = (field.images, len(weight), field.y.points, field.x.points)
    out = torch.full(shape, torch.nan, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
    weights = WEIGHTS[weights](weight, bias, outputs)
    winograd_launch(x, weights, field, out, residual, activation).run()
    return out


@given(
    points=st.lists(st.integers(-9, 9), min_size=2, max_size=6, unique=True),
    data=st.data(),
)
def test_any_points_give_the_convolution_exactly(points, data):
    """A·((G·w) ⊙ (B·x)) is the convolution, whatever the points: fractions are not rounded."""
    taps = data.draw(st.integers(1, len(points)))
    whole = st.integers(-20, 20)
    n = len(points) + 1
    x = data.draw(st.lists(whole, min_size=n, max_size=n))
    w = data.draw(st.lists(whole, min_size=taps, max_size=taps))
    a, g, b = matrices([Fraction(p) for p in points], taps)
    products = [
        sum(f * v for f, v in zip(g_row, w, strict=True))
        * sum(f * v for f, v in zip(b_row, x, strict=True))
        for g_row, b_row in zip(g, b, strict=True)
    ]
    found = [sum(f * v for f, v in zip(row, products, strict=True)) for row in a]
    expected = [sum(w[j] * x[i + j] for j in range(taps)) for i in range(n - taps + 1)]
    assert found == expected


@pytest.mark.parametrize(
    ("weights", "activation", "dtype"),
    [
        ("beforehand", "none", F64),
        ("beforehand", "relu6", F32),
        ("beforehand", "silu", F64),
        ("in every run", "none", F32),
        ("in every run", "silu", F32),
    ],
)
@pytest.mark.parametrize("outputs", MATRICES)
@pytest.mark.parametrize("name", CASES)
def test_against_the_definition(name, weights, outputs, activation, dtype):
    x, weight, bias, residual, field = problem(CASES[name], dtype)
    expected = plain(x, weight, bias, residual, field, CASES[name][4], activation)
    found = run(x, weight, bias, residual, field, outputs, activation, weights)
    error = (found - expected).abs().max()
    scale = (x.abs().max() * weight.abs().max()).double() * weight[0].numel()
    assert error <= 16 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("outputs", MATRICES)
def test_without_bias_and_residual(outputs, weights):
    x, weight, _, _, field = problem(CASES["odd sizes"], F64)
    expected = plain(x, weight, None, None, field, CASES["odd sizes"][4], "none")
    found = run(x, weight, None, None, field, outputs, "none", weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("outputs", MATRICES)
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_with_any_threads(name, outputs, weights, threads):
    """However tiles and columns are cut among threads."""
    given = problem(CASES[name], F32)
    threads(1)
    expected = run(*given, outputs, "hardswish", weights)
    for count in (2, 3, 5):
        threads(count)
        assert torch.equal(run(*given, outputs, "hardswish", weights), expected)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 30), st.integers(1, 12)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    outputs=st.sampled_from([*MATRICES]),
    weights=st.sampled_from([*WEIGHTS]),
)
def test_any_shape(images, size, channels, padding, outputs, weights):
    top, bottom, left, right = padding
    assume(size[0] + top + bottom > 2)
    assume(size[1] + left + right > 2)
    x, weight, bias, residual, field = problem((images, size, *channels, padding), F64)
    expected = plain(x, weight, bias, residual, field, padding, "none")
    found = run(x, weight, bias, residual, field, outputs, "none", weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rounding_is_what_is_said(weights):
    """Of a layer of a ResNet: m = 2 is better than the direct sum, m = 4 not much worse."""
    torch.manual_seed(1)
    x = torch.randn(1, 256, 24, 24).relu().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 256, 3, 3) / 48
    field = square(24)
    expected = F.conv2d(x.double(), weight.double(), padding=1)

    def error(found):
        return (found - expected).square().mean().sqrt()

    direct = error(mixed(x, pack_weight(weight, None), field))
    assert error(run(x, weight, None, None, field, 2, "none", weights)) < direct
    assert error(run(x, weight, None, None, field, 4, "none", weights)) < 3 * direct


def test_no_images():
    x, weight, bias, _, field = problem((0, (5, 5), 1, 1, (1,) * 4), F32)
    assert run(x, weight, bias, None, field, 2, "none").shape == (0, LANES, 5, 5)


def square(size, images=1, kernel=3, stride=1, dilation=1):
    return window(images, (size,) * 2, (kernel,) * 2, (stride,) * 2, (dilation,) * 4,
                  (dilation,) * 2)  # fmt: skip


def test_where_it_is_used():
    """Larger tiles for larger images; the direct sum where there is little work, or another one."""

    def outputs(field, inputs, columns, groups=1):
        return best_tile_size(field, inputs, columns, groups, F32)

    wide = 4 * LANES
    assert outputs(square(56), wide, wide) == 4
    assert outputs(square(14), wide, wide) == 2
    assert outputs(square(3), wide, wide) == 0
    assert outputs(square(14, images=8), wide, wide) == 4
    assert outputs(square(14, images=8), 512, 512) == 2  # for memory's sake
    for other in (square(56, kernel=5), square(56, stride=2), square(56, dilation=2)):
        assert outputs(other, wide, wide) == 0
    assert outputs(square(56), wide, wide, groups=2) == 0
    if LANES > 1:
        assert outputs(square(56), wide + 1, wide) == 0
        assert outputs(square(56), wide, wide - 1) == 0


def test_a_large_weight_is_kept_once():
    """It is transformed in every run, into memory that is there anyway, and changes nothing."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 320, 1),
        torch.nn.Conv2d(320, 320, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(320, 320, 3, padding=1),
    ).eval()
    x = torch.rand(1, 3, 20, 20)
    faster = accelerate(net, x)
    with torch.no_grad():
        wanted = net.double()(x.double())
    for _ in range(2):
        torch.testing.assert_close(faster(x).double(), wanted, rtol=1e-4, atol=1e-5)
    said = [entry.what for entry in faster.reports()[-1].entries]
    assert said[1:] == ["conv 3×3 + relu, Winograd 2×2", "conv 3×3, Winograd 2×2"]
    kept = faster._constants._packed.values()
    assert not any(isinstance(weight, WinogradWeight) for weight in kept)
    assert len(pickle.dumps(faster)) < 1.1 * sum(p.numel() * 4 for p in net.parameters())
    plan = next(iter(faster._plans.values()))
    transformed = 16 * 320 * 320 * 4
    assert transformed < plan.bytes < 1.7 * transformed  # both in the same place


def test_a_network_runs_it():
    """An accelerated network does, where its weights take part in nothing else, and saves them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2 * LANES, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(2 * LANES, 4 * LANES, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(4 * LANES),
        torch.nn.ReLU(),
    ).eval()
    images = torch.rand(1, 3, 40, 40)
    faster = accelerate(net, images)
    assert faster.reports()[-1].entries[-1].what == "conv 3×3 + relu, Winograd 4×4"
    for size in ((40, 40), (5, 6)):  # the second one directly, with the same weight
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            wanted = net.double()(x.double())
            net.float()
        torch.testing.assert_close(faster(x).double(), wanted, rtol=1e-4, atol=1e-5)
