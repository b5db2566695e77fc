"""What is said of bfloat16 where the machine has no products of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pointwise.acceleration import accelerate, plans
from pointwise.engine.cpu import isa, pairs

pytestmark = pytest.mark.skipif(pairs.WHY_NOT is None, reason="this machine has AVX512-BF16")

IMAGES = torch.rand(1, 3, 12, 12)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()


@pytest.fixture(autouse=True)
def warned(monkeypatch):
    monkeypatch.setattr(plans, "_warned", set())


def test_the_precision_is_refused():
    line = "precision='bf16': products of bfloat16 need AVX512-BF16, which .*Leave precision out"
    with pytest.raises(ValueError, match=line) as raised:
        accelerate(network(), IMAGES, precision="bf16")
    assert "\n" not in str(raised.value)


def test_fewer_instructions_than_the_machine_has_are_named(monkeypatch):
    monkeypatch.setattr(isa, "available", lambda: [isa._AVX512, isa.ISA])
    with pytest.raises(ValueError, match=f"which POINTWISE_ISA={isa.ISA.name} leaves out"):
        accelerate(network(), IMAGES, precision="bf16")


def test_a_model_in_bfloat16_is_told_that_float32_is_faster():
    half = network().bfloat16()
    with pytest.warns(UserWarning, match=r"computes in torch.bfloat16.*model.float\(\) is faster"):
        fast = accelerate(half, IMAGES.bfloat16())
    with torch.no_grad():
        assert torch.equal(fast(IMAGES.bfloat16()), half(IMAGES.bfloat16()))


def test_autocast_is_told_that_float32_is_faster():
    model = network()
    fast = accelerate(model, IMAGES)
    with (
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16),
        pytest.warns(UserWarning, match="without autocast it runs as kernels in float32"),
    ):
        assert torch.equal(fast(IMAGES), model(IMAGES))
    assert "without autocast" in str(fast.reports()[0])
