"""Which convolutions may have products of bfloat16, on any machine."""

from __future__ import annotations

import pytest
import torch

from pointwise.convolution.problem import describe
from pointwise.engine import choose
from pointwise.engine.cpu import pairs
from pointwise.engine.cpu.weights import pack_pairs


def described(weight_size, groups=1, dtype=torch.float32):
    found = describe((1, weight_size[1] * groups, 9, 9), weight_size, (1, 1), (0, 0, 0, 0), (1, 1),
                     groups, dtype)  # fmt: skip
    return found._replace(bf16=True)


@pytest.mark.parametrize(("weight_size", "groups", "dtype", "why"), [
    ((8, 8, 1, 1), 1, torch.float64, "in float32"),
    ((8, 4, 3, 3), 2, torch.float32, "of one group"),
    ((8, 1, 3, 3), 8, torch.float32, "of one group"),
])  # fmt: skip
def test_others_say_why_not(weight_size, groups, dtype, why):
    assert why in choose.why_not(described(weight_size, groups, dtype))


def test_they_run_where_the_machine_can():
    assert choose.why_not(described((8, 8, 3, 3))) == pairs.WHY_NOT
    assert choose.choose(described((64, 64, 3, 3)), constant=True) == choose.Choice(
        "mixed", bf16=True
    )


@pytest.mark.parametrize(("inputs", "kernel"), [(4, 1), (3, 1), (5, 3)])
def test_weights_are_pairs_of_rounded_steps(inputs, kernel):
    weight = torch.randn(11, inputs, kernel, kernel)
    packed = pack_pairs(weight, None)
    _, panels, steps, lanes, two = packed.packed.shape
    assert (packed.depth, steps, two) == (inputs * kernel**2, -(-packed.depth // 2), 2)
    rows = packed.packed[0].permute(1, 3, 0, 2).reshape(2 * steps, panels * lanes)
    matrix = weight.permute(2, 3, 1, 0).flatten(0, 2).bfloat16()
    assert torch.equal(rows[: packed.depth, :11], matrix)
    assert not rows[packed.depth :].any()
    assert not rows[:, 11:].any()
