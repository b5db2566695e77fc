"""The one place of choice: which loop, which of them in one, and why not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.convolution.problem import Convolution, Rescaling, describe
from pointwise.engine import choose
from pointwise.engine.cpu import dots
from pointwise.engine.cpu.memory import empty_image

F32 = torch.float32


def convolution(
    channels=(32, 32), kernel=3, groups=1, stride=1, size=20, dtype=F32, activation="none"
) -> Convolution:
    weight = (channels[1], channels[0] // groups, kernel, kernel)
    edges = [(kernel - 1) // 2] * 4
    return describe((1, channels[0], size, size), weight, (stride,) * 2, edges, (1, 1), groups,
                    dtype, activation)  # fmt: skip


def test_the_loop_of_a_convolution():
    assert choose.choose(convolution(groups=32)) == choose.DEPTHWISE
    assert choose.choose(convolution(kernel=1)) == choose.MIXED
    assert choose.choose(convolution()) == choose.MIXED  # whose weight may change, or be trained
    constant = choose.choose(convolution(channels=(64, 64)), constant=True)
    assert constant.algorithm == "winograd"
    assert str(constant) == f"Winograd {constant.tile_size}×{constant.tile_size}"
    assert choose.choose(convolution(stride=2), constant=True) == choose.MIXED
    assert choose.choose(convolution(groups=32), constant=True) == choose.DEPTHWISE


@pytest.mark.parametrize(
    ("given", "algorithm", "why"),
    [
        ({"size": 0, "kernel": 1}, None, "its kernel does not fit into the image"),
        ({"dtype": torch.float16}, None, "kernels take float32 and float64, not float16"),
        ({"dtype": torch.float64, "activation": "gelu"}, None, "gelu in float64"),
        ({}, "depthwise", "its results read more than one channel"),
        ({"kernel": 5}, "winograd", "3×3 kernels of stride 1"),
        ({}, "grouped", "it has no groups, or groups of one channel"),
        ({}, "fft", "there is no such loop; there are depthwise, mixed, grouped, winograd"),
    ],
)
def test_why_not(given, algorithm, why):
    assert why in choose.why_not(convolution(**given), algorithm)
    if algorithm is not None:
        with pytest.raises(ValueError, match=f"{algorithm} cannot run this convolution: .*{why}"):
            choose.choose(convolution(**given), algorithm=algorithm)


def test_why_not_in_bytes():
    small = convolution(dtype=torch.uint8)._replace(rescaling=Rescaling(0.0, 0.0, 1.0, True))
    assert choose.why_not(small) == dots.WHY_NOT
    one, two = (1, 1), (2, 2)
    assert choose.why_not_quantised((8, 8, 3, 3), one, one, 1) is None
    assert choose.why_not_quantised((8, 4, 3, 3), one, one, 2) == "groups"
    assert choose.why_not_quantised((8, 1, 3, 3), one, one, 8) is None
    assert "no stencil" in choose.why_not_quantised((8, 1, 3, 3), one, two, 8)
    assert "no stencil" in choose.why_not_quantised((8, 1, 3, 4), one, one, 8)


def test_another_loop_by_its_name():
    """A depthwise convolution is one in groups too, and gives the same."""
    given = convolution(channels=(8, 8), groups=8)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 8, 20, 20, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(8, 1, 3, 3, generator=generator), torch.randn(8, generator=generator)
    wanted = F.conv2d(x, weight, bias, padding=1, groups=8)
    for algorithm in ("depthwise", "mixed"):
        choice = choose.choose(given, algorithm=algorithm)
        prepared = choose.prepare(given, weight, bias, choice)
        found = choose.launch(x, (prepared,), empty_image(given.shape, F32)).run()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
