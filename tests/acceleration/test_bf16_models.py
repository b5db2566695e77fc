"""Models whose products are of bfloat16: ``accelerate(…, precision="bf16")``.

A machine without AVX512-BF16 runs these in ``test_bf16_emulated``.
"""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import pointwise
from pointwise.acceleration import accelerate
from pointwise.engine.cpu import pairs

pytestmark = pytest.mark.skipif(pairs.WHY_NOT is not None, reason=str(pairs.WHY_NOT))


def norm(channels: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    nn.init.uniform_(made.running_mean, -0.5, 0.5)
    nn.init.uniform_(made.running_var, 0.5, 2)
    return made


class Network(nn.Module):
    """Standard, depthwise, pointwise, inverted with a residual, grouped; then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), norm(16), nn.ReLU())
        self.separable = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16), norm(16), nn.ReLU6(),
            nn.Conv2d(16, 25, 1), norm(25), nn.SiLU(),
        )  # fmt: skip
        self.inverted = nn.Sequential(
            nn.Conv2d(25, 75, 1), norm(75), nn.ReLU6(), nn.Conv2d(75, 75, 3, 1, 1, groups=75),
            norm(75), nn.ReLU6(), nn.Conv2d(75, 25, 1), norm(25),
        )  # fmt: skip
        self.grouped = nn.Conv2d(25, 20, 3, 1, 1, groups=5)
        self.end = nn.Linear(20, 10)

    def forward(self, x):
        x = self.separable(self.begin(x))
        x = x + self.inverted(x)
        return self.end(self.grouped(x).mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 33, 31, generator=torch.Generator().manual_seed(1))


def error(found, wanted) -> float:
    return ((found - wanted).square().sum() / wanted.square().sum()).sqrt().item()


def test_all_products_are_kernels_and_near_float32(model, images):
    fast = accelerate(model, images, precision="bf16")
    with torch.no_grad():
        exact = model(images)
    found = fast(images)
    (report,) = fast.reports()
    kinds = [entry.what for entry in report.fused]
    assert sum("bf16" in what for what in kinds) == 5, report
    assert not [e for e in report.plain if "conv" in e.what or "linear" in e.what], report
    assert 1e-5 < error(found, exact) < 1e-2
    assert fast.cost.error == pytest.approx(error(found, exact), rel=1e-3)
    assert (fast.cost.precision, fast.cost.data, fast.cost.samples) == ("bf16", "example", 2)
    assert str(fast.cost).startswith("bf16 on 2 example samples: relative error 0.")


def test_kernels_compute_what_the_plain_graph_says(model, images):
    fast = accelerate(model, images, precision="bf16")
    # A sum that rounds otherwise may round to another bfloat16 behind it: 2 ** -9 of one number.
    torch.testing.assert_close(fast(images), fast.run_plain([images])[0], rtol=2e-3, atol=2e-3)
    assert error(fast(images), fast.run_plain([images])[0]) < 1e-3


def test_the_cost_on_calibration_data_with_labels(model, images):
    with torch.no_grad():
        labels = model(images).argmax(1)
    fast = accelerate(model, images, precision="bf16", calibration=[(images, labels)] * 3)
    assert (fast.cost.data, fast.cost.samples) == ("calibration", 6)
    assert fast.cost.accuracy == (1.0, fast.cost.agreement)


def test_it_is_saved_and_loaded(model, images):
    fast = accelerate(model, images, precision="bf16")
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(images), fast(images))
    assert again.cost == fast.cost


def test_a_model_without_products_is_refused(images):
    with pytest.raises(ValueError, match="precision='bf16' has nothing to work on"):
        accelerate(nn.ReLU().eval(), images, precision="bf16")


def test_other_sizes_and_the_same_weights(model, images):
    fast = accelerate(model, images, precision="bf16")
    other = torch.randn(1, 3, 48, 40)
    with torch.no_grad():
        assert error(fast(other), model(other)) < 1e-2
    assert pointwise.accelerate is accelerate
