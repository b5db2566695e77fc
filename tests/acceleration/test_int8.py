"""Models in bytes: as the plain functions say, near the float32 model, and honest about it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pointwise
from pointwise.engine.cpu import dots
from pointwise.networks import MobileNetV1, load_weights

needs_vnni = pytest.mark.skipif(dots.WHY_NOT is not None, reason=str(dots.WHY_NOT))
PHOTOS = ("cat.png", "grace_hopper.png", "hot_dog.jpg", "owl.jpg", "parrot.jpg")


class Branches(nn.Module):
    """Residuals, a pool, grouped and dilated convolutions, an activation bytes do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.wide = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.expand = nn.Conv2d(24, 72, 1)
        self.depth = nn.Conv2d(72, 72, 5, 2, 2, groups=72)
        self.project = nn.Conv2d(72, 40, 1)
        self.grouped = nn.Conv2d(40, 40, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(40, 40, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(40, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.wide(x)) + x)
        x = F.max_pool2d(x, 2)
        x = self.project(F.relu6(self.depth(F.relu6(self.expand(x)))))
        x = F.silu(self.grouped(x)) + x
        return self.last(self.dilated(x) + x).mean((2, 3))


def branches() -> nn.Module:
    torch.manual_seed(0)
    model = Branches().eval()
    model.norm.running_var.uniform_(0.5, 2)
    model.norm.running_mean.normal_()
    return model


def pictures(count: int, size: int = 33) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 3, size, size, generator=generator) for _ in range(count)]


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@needs_vnni
def test_kernels_give_the_bits_of_the_plain_functions(monkeypatch):
    batches = pictures(3)
    fast = pointwise.accelerate(branches(), batches[0], precision="int8", calibration=batches)
    x = pictures(1, 47)[0]
    found = fast(x)
    kinds = [entry.what for entry in fast.reports()[-1].fused]
    assert sum(kind.startswith("int8") for kind in kinds) >= 5
    monkeypatch.setattr(dots, "WHY_NOT", "kernels of bytes need another machine")
    slow = pickle.loads(pickle.dumps(fast))
    expected = slow(x)
    plain = [entry for entry in slow.reports()[0].plain if entry.what.startswith("int8")]
    assert len(plain) >= 5
    assert all(entry.why == dots.WHY_NOT for entry in plain)
    # What is in float32 adds up in another order only where shapes are the same to begin with.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_results_are_near_those_of_the_model():
    model, batches = branches(), pictures(4)
    fast = pointwise.accelerate(model, batches[0], precision="int8", calibration=batches)
    with torch.no_grad():
        for x in (batches[0], pictures(5)[-1], pictures(1, 64)[0]):
            assert 1e-5 < error(fast(x), model(x)) < 0.05


def test_cost_is_measured_on_the_calibration_data():
    model, batches = branches(), pictures(4)
    with torch.no_grad():
        labels = [model(x).argmax(1) for x in batches]
    labels[0] = (labels[0] + 1) % 10
    pairs = list(zip(batches, labels, strict=True))
    fast = pointwise.accelerate(model, batches[0], precision="int8", calibration=pairs)
    wanted, found = (torch.cat([m(x) for x in batches]).detach() for m in (model, fast))
    assert fast.cost.samples == 8
    assert fast.cost.error == pytest.approx(error(found, wanted), rel=0.01)
    assert fast.cost.accuracy[0] == 0.75
    assert fast.cost.agreement == (found.argmax(1) == wanted.argmax(1)).double().mean()
    assert "relative error" in repr(fast)
    assert "accuracy 75.0% in float32" in repr(fast)
    again = pickle.loads(pickle.dumps(fast))
    assert again.cost == fast.cost
    assert torch.equal(again(batches[1]), fast(batches[1]))


@pytest.fixture
def photographs(shared_data):
    """[1, 3, 128, 128] each, from -1 to 1."""
    image = pytest.importorskip("PIL.Image")
    found = []
    for name in PHOTOS:
        pixels = np.array(image.open(shared_data / "photos" / name).convert("RGB"))
        x = torch.from_numpy(pixels).permute(2, 0, 1).float()[None]
        edge = min(x.shape[2:])
        top, left = (x.shape[2] - edge) // 2, (x.shape[3] - edge) // 2
        x = x[:, :, top : top + edge, left : left + edge]
        found.append(F.interpolate(x, size=(128, 128), mode="bilinear") / 127.5 - 1)
    return found


@pytest.mark.slow  # without VNNI; with it, it takes a moment
def test_photographs_are_known_as_before(shared_data, photographs):
    weights = shared_data / "mobilenet_v1/mobilenet_v1_0.25_128_quant_weights_dequant.npz"
    model = load_weights(MobileNetV1(classes=1001, width=0.25, norm=None, padding="same"), weights)
    model.eval()
    fast = pointwise.accelerate(
        model, photographs[0], precision="int8", calibration=photographs[:3]
    )
    with torch.no_grad():
        wanted = torch.cat([model(x) for x in photographs])
    found = torch.cat([fast(x) for x in photographs])  # two of them were not calibrated with
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    assert error(found, wanted) < 0.15


def test_a_machine_without_vnni_says_that_it_is_slower(monkeypatch):
    monkeypatch.setattr(dots, "WHY_NOT", "kernels of bytes need another machine")
    x = torch.rand(1, 3, 8, 8)
    with pytest.warns(UserWarning, match="another machine, and this processor has none of them"):
        pointwise.accelerate(branches(), x, precision="int8", calibration=[x])


# --- wrong input ----------------------------------------------------------------------------------


def test_int8_is_never_silently_something_else():
    x = torch.rand(2, 3, 16, 16)
    for given, message in (
        ({"precision": "int4", "calibration": [x]}, "precision must be 'int8' or 'bf16', or None"),
        ({"precision": "int8"}, "precision='int8' needs calibration"),
        ({"calibration": [x]}, "calibration is for a precision"),
        ({"precision": "int8", "calibration": []}, "calibration has no batches"),
        ({"precision": "int8", "calibration": [(x, x, x)]}, "the model's 1 input"),
        ({"precision": "int8", "calibration": [x * float("nan")]}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            pointwise.accelerate(branches(), x, **given)
    single = torch.rand(3, 8, 8)
    with pytest.raises(ValueError, match="has nothing to work on"):
        pointwise.accelerate(nn.Conv2d(3, 32, 3).eval(), single, precision="int8",
                             calibration=[single])  # fmt: skip
    with pytest.raises(TypeError, match="must be a DataLoader or a list of batches, got Tensor"):
        pointwise.accelerate(branches(), x, precision="int8", calibration=x)
    with pytest.raises(ValueError, match="has nothing to work on"):
        pointwise.accelerate(nn.Sequential(nn.Linear(4, 4)).eval(), torch.rand(2, 4),
                             precision="int8", calibration=[torch.rand(2, 4)])  # fmt: skip


class ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else x


def test_models_that_cannot_be_traced_are_refused():
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"torch\.export can trace"):
        pointwise.accelerate(ByValue().eval(), x, precision="int8", calibration=[x])
