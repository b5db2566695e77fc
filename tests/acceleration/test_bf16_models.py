"""Models with products of bfloat16: by ``precision="bf16"``, in bfloat16, or under autocast.

A machine without AVX512-BF16 runs these in ``test_bf16_emulated``.
"""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

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


def test_other_sizes(model, images):
    fast = accelerate(model, images, precision="bf16")
    other = torch.randn(1, 3, 48, 40)
    with torch.no_grad():
        assert error(fast(other), model(other)) < 1e-2


# --- models in bfloat16, and autocast -------------------------------------------------------------


def kernels_of(fast) -> list[str]:
    (report,) = fast.reports()
    assert not report.why, report
    return [entry.what for entry in report.fused]


def test_a_model_in_bfloat16_runs_as_kernels(model, images):
    half = copy.deepcopy(model).bfloat16()
    fast = accelerate(half, images.bfloat16())
    found = fast(images.bfloat16())
    assert found.dtype == torch.bfloat16
    assert sum("bf16" in what for what in kernels_of(fast)) == 5
    with torch.no_grad():
        exact = copy.deepcopy(half).float()(images.bfloat16().float())
    assert error(found.float(), exact) < 8e-3
    with pytest.raises(ValueError, match="must be a bfloat16 tensor"):
        fast(images)
    assert next(fast.parameters()).dtype == torch.bfloat16


def test_a_model_that_asks_for_types_itself_stays_as_it_is(images):
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3).bfloat16()

        def forward(self, x):
            return self.conv(x.bfloat16())

    mixed = Mixed().eval()
    fast = accelerate(mixed, images)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), mixed(images))


def test_autocast_has_kernels_and_the_types_of_pytorch(model, images):
    class Two(nn.Module):
        def __init__(self, inner) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x):
            x = self.inner(x)
            return x, x.softmax(1)

    both = Two(model).eval()
    fast = accelerate(both, images)
    before = fast(images)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = both(images)
        fast(images)  # says which types there are
        found = fast(images)
    assert [x.dtype for x in found] == [x.dtype for x in wanted]
    assert found[0].dtype == torch.bfloat16
    assert error(found[0].float(), before[0]) < 1e-2
    twin = fast._autocast._twins[0]
    assert sum("bf16" in what for what in kernels_of(twin)) == 5
    assert torch.equal(fast(images)[0], before[0])
    with torch.autocast("cpu", torch.float16):  # no kernels of these
        fast(images)
    assert "autocast" in str(fast.reports())


def test_new_weights_reach_autocast(model, images):
    fast, other = (accelerate(copy.deepcopy(model), images) for _ in range(2))
    state = {name: tensor * 0 for name, tensor in other.state_dict().items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert fast(images).any()
        assert fast(images).any()
        fast.load_state_dict(state, strict=False)
        assert not fast(images).any()
