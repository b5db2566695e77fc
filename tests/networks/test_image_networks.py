"""The image networks: the papers' numbers, small images, training, and what they refuse."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from pointwise.networks import (
    EfficientNetB0,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    ResNet50,
    Xception,
)

NETWORKS = {
    "MobileNetV1": lambda **options: MobileNetV1(width=0.25, **options),
    "MobileNetV1, standard": lambda **options: MobileNetV1(
        width=0.25, convolution="standard", **options
    ),
    "MobileNetV2": lambda **options: MobileNetV2(width=0.35, **options),
    "MobileNetV3, large": lambda **options: MobileNetV3(width=0.35, **options),
    "MobileNetV3, small": lambda **options: MobileNetV3(width=0.35, size="small", **options),
    "EfficientNetB0": EfficientNetB0,
    "ResNet50": ResNet50,
    "Xception": Xception,
}
EVERY = pytest.mark.parametrize("name", NETWORKS)
SMALL = pytest.mark.parametrize("name", [n for n in NETWORKS if "Mobile" in n])


def cost(make, size: int) -> tuple[int, int]:
    """Parameters and multiply-adds (of convolutions and linear layers) on one image of ``size``.

    On tensors without data: only the shapes count.
    """
    total = 0

    def count(module, inputs, output):
        nonlocal total
        each = module.weight[0].numel()  # what it takes to make one number of the output
        total += output.numel() * each

    with FakeTensorMode():
        network = make().eval()
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(count)
        network(torch.empty(1, 3, size, size))
    return sum(parameter.numel() for parameter in network.parameters()), total


V1, V2, V3 = MobileNetV1, MobileNetV2, MobileNetV3


@pytest.mark.parametrize(
    ("make", "size", "millions", "multiply_adds"),
    [
        # MobileNets, tables 4, 6 and 7; table 4 leaves the last layer's million out
        (lambda: V1(convolution="standard"), 224, 29.3, 4867),
        (V1, 224, 4.2, 569),
        (lambda: V1(width=0.75), 224, 2.6, 325),
        (lambda: V1(width=0.5), 224, 1.3, 149),
        (lambda: V1(width=0.25), 224, 0.5, 41),
        (V1, 192, 4.2, 418),
        (V1, 160, 4.2, 290.7),
        (V1, 128, 4.2, 186),
        (lambda: V1(width=0.25), 128, 0.47, 14),
        # MobileNetV2, table 4, and the authors' release
        (V2, 224, 3.5, 301),
        (lambda: V2(width=1.4), 224, 6.1, 582),
        (lambda: V2(width=0.75), 224, 2.6, 209),
        (lambda: V2(width=0.5), 224, 2.0, 97),
        # MobileNetV3, table 5 and figure 1 of the authors' release
        (V3, 224, 5.48, 217),
        (lambda: V3(width=0.75), 224, 4.0, 155),
        (lambda: V3(width=0.5), 224, 2.7, 69),
        (lambda: V3(size="small"), 224, 2.54, 56.5),
        (lambda: V3(size="small", width=0.75), 224, 2.0, 43.4),
        # EfficientNet, table 2; ResNet-50 of version 1.5; Xception, table 3
        (EfficientNetB0, 224, 5.3, 386),
        (ResNet50, 224, 25.56, 4089),
        (Xception, 299, 22.86, 8357),
    ],
)
def test_parameters_and_multiply_adds_are_the_papers(make, size, millions, multiply_adds):
    parameters, found = cost(make, size)
    digits = len(str(millions).split(".")[1])
    assert round(parameters / 1e6, digits) == millions
    assert found / 1e6 == pytest.approx(multiply_adds, abs=0.51)


@pytest.mark.slow
def test_parameters_to_the_last_one():
    """As the authors of torchvision, timm and Keras count them."""
    for make, parameters in (
        (V1, 4_231_976),
        (V2, 3_504_872),
        (V3, 5_483_032),
        (lambda: V3(size="small"), 2_542_856),
        (EfficientNetB0, 5_288_548),
        (ResNet50, 25_557_032),
        (Xception, 22_855_952),
    ):
        assert cost(make, 64)[0] == parameters


def features(network, *size):
    with FakeTensorMode():
        made = network().eval()
        return tuple(made.features(torch.empty(1, made_channels(made), *size)).shape[2:])


def made_channels(network: nn.Module) -> int:
    return next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels


@EVERY
def test_small_images(name):
    """Of 28 × 28 grey pixels there is something left for the last layer; of 8 × 8, too."""

    def network():
        return NETWORKS[name](classes=3, in_channels=1, stem_stride=1)

    assert features(network, 224, 224)[0] in (14, 28)
    assert features(network, 28, 28)[0] >= 2
    assert min(features(network, 8, 8)) >= 1


@EVERY
def test_any_shape_of_image(name):
    network = NETWORKS[name](classes=3).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 3, 40, 65)).shape == (2, 3)


@EVERY
def test_every_parameter_learns(name):
    """One step down the gradient makes the loss smaller, and no parameter is left out."""
    torch.manual_seed(0)
    network = NETWORKS[name](classes=3, stem_stride=1, dropout=0.0) if name != "ResNet50" else (
        ResNet50(classes=3, stem_stride=1)
    )  # fmt: skip
    for module in network.modules():
        if hasattr(module, "drop"):
            module.drop = 0.0
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    loss = nn.functional.cross_entropy(network(images), labels)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(p.grad.abs().max() > 0 for p in network.parameters() if p.dim() > 1)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters()))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 1e-3 / norm * parameter.grad
        after = nn.functional.cross_entropy(network(images), labels)
    # to first order, the loss falls by the step's length times the gradient's norm
    assert (after - loss).item() == pytest.approx(-1e-3 * norm, rel=0.3)


@EVERY
def test_first_values_keep_the_signal(name):
    """Neither silence nor noise comes out of a network that has not learnt anything."""
    torch.manual_seed(0)
    network = NETWORKS[name](classes=10)
    scores = network(torch.randn(8, 3, 64, 64))
    assert scores.isfinite().all()
    assert 1e-4 < scores.std() < 5


def test_depthwise_layers_are_not_silent_without_norm():
    torch.manual_seed(0)
    network = MobileNetV1(width=0.5, norm=None)
    with torch.no_grad():
        assert network.features(torch.randn(4, 3, 64, 64)).std() > 1e-3


@SMALL
def test_copies_and_pickles_compute_the_same(name):
    torch.manual_seed(0)
    network = NETWORKS[name](classes=3).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other(images), expected)


@SMALL
def test_each_image_is_judged_alone(name):
    """Outside of training, the other images of a batch do not matter."""
    torch.manual_seed(0)
    network = NETWORKS[name](classes=3).eval()
    images = torch.rand(5, 3, 48, 48)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_same_padding_is_of_tensorflow():
    """At stride 2 it extends even images at the end only: the first pixel is the corner's."""
    network = MobileNetV1(width=0.25, norm=None, padding="same")
    image = torch.rand(1, 3, 32, 32)
    stem = network.stem(image)
    conv = network.stem.conv
    padded = nn.functional.pad(image, (0, 1, 0, 1))
    expected = nn.functional.relu6(nn.functional.conv2d(padded, conv.weight, conv.bias, 2))
    torch.testing.assert_close(stem, expected, rtol=1e-5, atol=1e-6)


def test_hard_examples_are_learnt():
    """Ten Adam steps on one batch: a MobileNetV1 ×0.25 tells four kinds of stripes apart."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 4
    across = torch.arange(32.0)
    waves = torch.stack([torch.sin(across * 2 * math.pi / period) for period in (2.5, 4, 8, 16)])
    images = waves[labels][:, None, None].expand(-1, 3, 32, -1) + 0.3 * torch.randn(16, 3, 32, 32)
    network = MobileNetV1(classes=4, width=0.25, stem_stride=1)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(20):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimiser.step()
    assert loss < 0.1


# --- what they refuse -----------------------------------------------------------------------------


@EVERY
def test_wrong_arguments(name):
    make = NETWORKS[name]
    kind = name.split(",")[0]
    with pytest.raises(ValueError, match=f"{kind}: classes must be a whole number from 1, got 0"):
        make(classes=0)
    with pytest.raises(ValueError, match=f"{kind}: in_channels must be a whole number from 1, got"):
        make(in_channels="rgb")
    with pytest.raises(ValueError, match=f"{kind}: stem_stride must be 2, or 1 for images of less"):
        make(stem_stride=3)
    network = make(classes=2)
    with pytest.raises(ValueError, match=rf"{kind}: images must be a batch .*\(3, 32, 32\).*for o"):
        network(torch.rand(3, 32, 32))
    with pytest.raises(TypeError, match=f"{kind}: input must be floating point.*uint8"):
        network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("make", [V1, V2, V3])
def test_widths_are_positive(make):
    with pytest.raises(ValueError, match=f"{make.__name__}: width must be a positive factor"):
        make(width=0)
    with pytest.raises(ValueError, match="got 'wide'"):
        make(width="wide")


def test_choices():
    with pytest.raises(ValueError, match="convolution must be one of 'separable', 'standard'"):
        MobileNetV1(convolution="depthwise")
    with pytest.raises(ValueError, match="size must be one of 'large', 'small', got 'tiny'"):
        MobileNetV3(size="tiny")
    with pytest.raises(ValueError, match="activation must be one of"):
        MobileNetV1(activation="swish")
