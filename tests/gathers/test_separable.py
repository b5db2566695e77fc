"""The stencil and the mix in one tile loop are the stencil, and then the mix."""

from __future__ import annotations

import pytest
import torch
from image_cases import DTYPES, ImageCase, each, in_both
from image_oracle import activate, assert_close
from windows import EXACT, OWN, STENCILS, image, window_of

from pointwise.convolution.window import window
from pointwise.engine.cpu.loops.depthwise import depthwise
from pointwise.engine.cpu.loops.mixed import mixed
from pointwise.engine.cpu.loops.separable import separable
from pointwise.engine.cpu.weights import pack_stencil, pack_weight

LARGE = in_both(
    [
        ImageCase("as in a network", (28, 29), (64, 64), groups=64, layout="channels_last"),
        ImageCase("wide", (9, 9), (1100, 1100), groups=1100, batch=1),  # rows longer than a tile's
        ImageCase(
            "5 × 5, stride 2", (31, 30), (33, 33), (5, 5), padding="same", stride=2, groups=33
        ),
    ]
)


class Pair:
    """A depthwise convolution, a pointwise one behind it, and their halves one after the other."""

    def __init__(self, case: ImageCase, outputs: int, dtype, bias: bool = True) -> None:
        self.case, self.window = case, window_of(case)
        x, weight, first_bias = case.tensors(dtype)
        self.x, self.first = image(x), pack_stencil(weight.contiguous(), first_bias)
        channels = case.channels[1]
        mix = case.values("mix", (outputs, channels, 1, 1), channels**-0.5)
        self.weight = torch.from_numpy(mix).to(dtype)
        self.bias = torch.from_numpy(case.values("mix bias", (outputs,))).to(dtype)
        self.second = pack_weight(self.weight, self.bias if bias else None)
        images, _, height, width = case.result_shape
        shape = (images, outputs, height, width)
        self.residual = image(torch.from_numpy(case.values("added", shape)).to(dtype))
        self.pixels = window(images, (height, width), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))

    def joined(self, residual=None, between="none", activation="none") -> torch.Tensor:
        return separable(
            self.x, self.first, self.second, self.window, residual, between, activation
        )

    def halves(self, residual=None, between="none", activation="none") -> torch.Tensor:
        half = depthwise(self.x, self.first, self.window, between)
        return mixed(half, self.second, self.pixels, residual, activation)


def outputs_of(case: ImageCase) -> int:
    """Around registers of columns, one for each case."""
    return (1, 7, 16, 17, 33, 70)[sum(case.name.encode()) % 6]


@each([*STENCILS, *OWN[::3], *LARGE])
def test_joined_is_its_halves(case, poisoned):
    pair = Pair(case, outputs_of(case), case.dtype)
    # The same operations in the same order: to the last bit.
    assert torch.equal(pair.joined(), pair.halves())
    given = (pair.residual, "relu6", "hardswish")
    assert torch.equal(pair.joined(*given), pair.halves(*given))


@each(STENCILS[::3])
def test_joined_is_the_oracle(case, poisoned):
    pair = Pair(case, outputs_of(case), case.dtype)
    middle, size = case.expected
    weight = pair.weight.double().numpy()[:, :, 0, 0]
    exact, sizes = (
        (w @ m.reshape(*m.shape[:2], -1)).reshape(len(m), -1, *m.shape[2:])
        for w, m in ((weight, activate(middle, "relu")), (abs(weight), size))
    )
    bias = pair.bias.double().numpy().reshape(-1, 1, 1)
    terms = case.terms + case.channels[1] + 1
    assert_close(pair.joined(None, "relu").numpy(), exact + bias, sizes + abs(bias), terms)


@DTYPES
@pytest.mark.parametrize("between", EXACT)
@pytest.mark.parametrize("activation", EXACT)
def test_every_pair_of_epilogues(activation, between, dtype, poisoned):
    for stride, bias in ((1, True), (2, False)):
        case = ImageCase("epilogues", (9, 8), (19, 19), stride=stride, groups=19)
        pair = Pair(case, 21, dtype, bias)
        for residual in (None, pair.residual):
            given = (residual, between, activation)
            assert torch.equal(pair.joined(*given), pair.halves(*given))


@each(LARGE)
def test_the_same_bits_at_any_number_of_threads(case, threads):
    pair = Pair(case, 48, case.dtype)
    threads(1)
    alone = pair.joined(pair.residual, "silu", "relu")
    for count in (2, 3):
        threads(count)
        assert torch.equal(pair.joined(pair.residual, "silu", "relu"), alone)


def test_a_broken_half_is_noticed():
    pair = Pair(LARGE[0], 48, torch.float32)
    halves = pair.halves()
    assert torch.equal(pair.joined(), halves)
    pair.first.weight[4, 63] *= 1.001
    assert not torch.equal(pair.joined(), halves)
