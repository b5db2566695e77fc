"""Whole networks, ours and others', with batch norms that are not the identity."""

from __future__ import annotations

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from other_libraries import imported
from random_networks import settle

from pointwise.acceleration import reports
from pointwise.networks import (
    EfficientNetB0,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    ResNet50,
    Xception,
)

TIMM = ["mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0",
        "resnet50", "xception41", "convnext_tiny"]  # fmt: skip
TORCHVISION = ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "resnet18", "convnext_tiny",
               "densenet121", "squeezenet1_1", "shufflenet_v2_x0_5", "googlenet", "vgg11_bn",
               "regnet_y_400mf", "mnasnet0_5"]  # fmt: skip


def _assert_all_fused(found) -> None:
    assert found
    for report in found:
        assert not report.why
        assert not report.plain, str(report)


@pytest.mark.parametrize(
    "kind",
    [
        MobileNetV1,
        MobileNetV2,
        MobileNetV3,
        pytest.param(EfficientNetB0, marks=pytest.mark.slow),
        pytest.param(Xception, marks=pytest.mark.slow),
    ],
)
def test_our_networks(kind):
    torch.manual_seed(0)
    options = {"width": 0.25} if kind in (MobileNetV1, MobileNetV2, MobileNetV3) else {}
    model = settle(kind(classes=10, **options))
    x = torch.rand(1, 3, 64, 64)
    faster = exported(model, x)
    assert_as_eager(model, faster, x)
    assert_as_eager(model, faster, torch.rand(2, 3, 96, 64))
    _assert_all_fused(faster.reports())


@pytest.mark.rare
def test_our_resnet_through_torch_compile():
    torch.manual_seed(0)
    model = settle(ResNet50(classes=10))
    faster = compiled(model)
    assert_as_eager(model, faster, torch.rand(1, 3, 64, 64))
    _assert_all_fused(reports())


@pytest.mark.rare
@pytest.mark.parametrize("way", [compiled, exported])
@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name, way):
    timm = imported("timm")
    torch.manual_seed(0)
    model = settle(timm.create_model(name))
    x = torch.randn(1, 3, 224, 224)
    faster = way(model, x)
    assert_as_eager(model, faster, x)
    assert_as_eager(model, faster, torch.randn(2, 3, 160, 192))
    _assert_all_fused(reports() if way is compiled else faster.reports())


@pytest.mark.rare
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision(name):
    models = imported("torchvision").models
    torch.manual_seed(0)
    make = getattr(models, name)
    model = settle(make(init_weights=True) if name == "googlenet" else make())
    x = torch.randn(1, 3, 224, 224)
    faster = exported(model, x)
    assert type(faster).__name__ == "Accelerated", faster
    assert_as_eager(model, faster, x)
    assert_as_eager(model, faster, torch.randn(2, 3, 224, 224))
