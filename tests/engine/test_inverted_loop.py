"""Three convolutions in one tile loop, against plain PyTorch and against one loop each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pointwise.convolution.window import window
from pointwise.engine.cpu.cut import cut_lines
from pointwise.engine.cpu.loops.depthwise import depthwise
from pointwise.engine.cpu.loops.inverted import inverted_launch, is_better_in_one
from pointwise.engine.cpu.loops.mixed import mixed
from pointwise.engine.cpu.weights import pack_stencil, pack_weight
from pointwise.layers import InvertedResidual, inference

F32, F64 = torch.float32, torch.float64
ACTIVATIONS = {"none": lambda x: x, "relu6": F.relu6, "hardswish": F.hardswish, "silu": F.silu}

# images, size, inputs, between, outputs, first kernel and stride, then kernel, stride, dilation
CASES = {
    "one point": (1, (1, 1), 3, 5, 2, (1, 1), (3, 1, 1)),
    "odd sizes": (1, (13, 7), 5, 19, 11, (1, 1), (3, 1, 1)),
    "stride 2": (3, (11, 14), 16, 32, 24, (1, 1), (3, 2, 1)),
    "stride 2, even lines": (2, (8, 9), 8, 33, 24, (1, 1), (3, 2, 1)),
    "five taps": (2, (9, 10), 4, 17, 8, (1, 1), (5, 1, 1)),
    "five taps, stride 2": (1, (17, 6), 4, 40, 8, (1, 1), (5, 2, 1)),
    "dilated": (2, (15, 9), 6, 18, 9, (1, 1), (3, 1, 3)),
    "steps over lines": (1, (16, 16), 4, 8, 5, (1, 1), (3, 5, 1)),
    "a stem": (2, (21, 23), 3, 16, 24, (3, 2), (3, 1, 1)),
    "a wide stem": (1, (19, 12), 7, 20, 5, (5, 1), (3, 2, 1)),
    "many lines": (1, (70, 30), 8, 96, 16, (1, 1), (3, 1, 1)),
    "more images than threads": (9, (6, 5), 8, 16, 8, (1, 1), (3, 1, 1)),
}


def problem(case, dtype, seed=0):
    """Images, weights and biases, and the two windows."""
    images, size, c_in, wide, c_out, (k, step), (taps, stride, spread) = case
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64).sub(0.4).to(dtype)

    x = random(images, c_in, *size).contiguous(memory_format=torch.channels_last)
    weights = random(wide, c_in, k, k), random(wide, 1, taps, taps), random(c_out, wide, 1, 1)
    biases = random(wide), random(wide), random(c_out)
    first = window(images, size, (k, k), (step, step), (k // 2,) * 4, (1, 1))
    between = first.y.points, first.x.points
    reach = taps // 2 * spread
    seen = window(images, between, (taps, taps), (stride, stride), (reach,) * 4, (spread, spread))
    return x, weights, biases, first, seen


def plain(x, weights, biases, first, seen, residual, activations):
    """The definition, in float64."""
    x, *rest = (part.double() for part in (x, *weights, *biases))
    (one, two, three), (a, b, c) = rest[:3], rest[3:]
    out = F.conv2d(x, one, a, first.y.stride, first.y.taps // 2)
    out = ACTIVATIONS[activations[0]](out)
    reach = seen.y.taps // 2 * seen.y.dilation
    out = F.conv2d(out, two, b, seen.y.stride, reach, seen.y.dilation, len(two))
    out = F.conv2d(ACTIVATIONS[activations[1]](out), three, c)
    return ACTIVATIONS[activations[2]](out if residual is None else out + residual.double())


def run(x, weights, biases, first, seen, residual, activations):
    shape = (seen.images, len(weights[2]), seen.y.points, seen.x.points)
    out = torch.full(shape, torch.nan, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
    mixes = [pack_weight(weights[i], biases[i]) for i in (0, 2)]
    stencil = pack_stencil(weights[1], biases[1])
    inverted_launch(x, mixes[0], first, stencil, seen, mixes[1], out, residual, activations).run()
    return out


def one_by_one(x, weights, biases, first, seen, residual, activations):
    mixes = [pack_weight(weights[i], biases[i]) for i in (0, 2)]
    stencil = pack_stencil(weights[1], biases[1])
    out = mixed(x, mixes[0], first, None, activations[0])
    out = depthwise(out, stencil, seen, activations[1])
    size = seen.y.points, seen.x.points
    pixels = window(seen.images, size, (1, 1), (1, 1), (0,) * 4, (1, 1))
    return mixed(out, mixes[1], pixels, residual, activations[2])


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("activations", [("none",) * 3, ("relu6", "hardswish", "silu")])
@pytest.mark.parametrize("name", CASES)
def test_against_the_definition(name, activations, dtype):
    given = problem(CASES[name], dtype)
    expected = plain(*given, None, activations)
    scale = expected.abs().max()
    error = (run(*given, None, activations).double() - expected).abs().max()
    assert error <= 200 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_as_one_by_one_with_any_threads(name, threads):
    given = problem(CASES[name], F32)
    residual = torch.rand_like(run(*given, None, ("none",) * 3))
    activations = "relu6", "silu", "hardswish"
    expected = one_by_one(*given, residual, activations)
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(run(*given, residual, activations), expected)


@pytest.mark.parametrize("name", CASES)
def test_without_the_last_one(name):
    given = problem(CASES[name], F32)
    x, weights, biases, first, seen = given
    mix, stencil = pack_weight(weights[0], biases[0]), pack_stencil(weights[1], biases[1])
    between = mixed(x, mix, first, None, "relu6")
    expected = depthwise(between, stencil, seen, "hardswish")
    out = torch.full_like(expected, torch.nan)
    inverted_launch(
        x, mix, first, stencil, seen, None, out, None, ("relu6", "hardswish", "none")
    ).run()
    assert torch.equal(out, expected)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 70), st.integers(1, 20)),
    last=st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 3), st.integers(1, 2)),
    most=st.sampled_from([1, 20_000, 512 * 1024]),
)
def test_any_cut_gives_the_same_bits(images, size, channels, last, most):
    """``most`` bytes of lines in cache: how many lines are made at once must not matter."""
    case = (images, size, *channels, (1, 1), last)
    given = problem(case, F32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pointwise.engine.cpu.loops.inverted._CACHE", most)
        found = run(*given, None, ("relu6", "relu6", "none"))
    assert torch.equal(found, one_by_one(*given, None, ("relu6", "relu6", "none")))


def test_no_images():
    given = problem((0, (5, 5), 3, 8, 4, (1, 1), (3, 1, 1)), F32)
    assert run(*given, None, ("none",) * 3).shape == (0, 4, 5, 5)


def test_images_are_cut_where_threads_would_be_idle(threads):
    threads(2)
    alone, pair = (window(n, (56, 56), (3, 3), (1, 1), (1,) * 4, (1, 1)) for n in (1, 2))
    assert cut_lines(alone, 100) == (28, 28)
    assert cut_lines(pair, 100) == (56, 56)
    assert cut_lines(pair, 10) == (56, 10)
    assert is_better_in_one(pair, 16, 4)
    assert is_better_in_one(alone, 144, 4)
    assert not is_better_in_one(alone, 16, 4)


def test_a_block_of_a_network_is_one_launch():
    """What is planned for a block is one loop, and gives what its modules give."""
    torch.manual_seed(0)
    block = InvertedResidual(16, 16, expanded=96).eval()
    x = torch.rand(2, 16, 60, 60)
    with torch.no_grad():
        seen = []

        def watched(plan, _):
            seen.append([len(part) for part in plan.units])
            for number in range(len(plan.units)):
                plan.step(number)

        with inference.observed(watched):
            found = block(x)
        expected = block.double()(x.double())
    assert seen == [[3]]
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
