"""The blocks of image networks, against their formulas written with PyTorch's own functions."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointwise.layers import (
    Bottleneck,
    ChannelAttention,
    ConvNormAct,
    EfficientChannelAttention,
    InceptionReduction,
    InvertedResidual,
    SqueezeExcite,
)
from pointwise.layers.blocks import stochastic_depth

# The package gives the name to the function.
MODULE = importlib.import_module("pointwise.layers.conv_norm_act")

GATES = {"sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid}
ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "silu": F.silu, "hardswish": F.hardswish}


def image(channels: int, height: int = 9, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(2, channels, height, width, generator=generator)


def settle(block: nn.Module) -> nn.Module:
    """Norms that do something; outside of training."""
    generator = torch.Generator().manual_seed(7)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.3, generator=generator)
    return block.eval()


def plain(x: Tensor, conv: nn.Conv2d, norm: nn.Module | None, padding: int) -> Tensor:
    x = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
    if norm is None:
        return x
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def part(x: Tensor, block: ConvNormAct, padding: int) -> Tensor:
    return plain(x, block.conv, block.norm, padding)


def close(found: Tensor, expected: Tensor) -> None:
    """Sums of up to a thousand products, a few layers of them: 1e-5 is eps·√1000·2."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)


# --- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_squeeze_excite(gate, activation):
    torch.manual_seed(0)
    block, x = SqueezeExcite(32, 5, activation, gate), 3 * image(32)
    means = x.sum((2, 3)) / (9 * 7)
    hidden = F.linear(means, block.reduce.conv.weight.flatten(1), block.reduce.conv.bias)
    hidden = ACTIVATIONS[activation](hidden)
    scores = F.linear(hidden, block.restore.conv.weight.flatten(1), block.restore.conv.bias)
    factors = GATES[gate](scores)
    assert factors.std() > 0.01
    close(block(x), x * factors[:, :, None, None])


def test_squeezes_to_a_sixteenth():
    assert SqueezeExcite(64).reduce.conv.out_channels == 4
    assert ChannelAttention(64).reduce.conv.out_channels == 4
    assert SqueezeExcite(8).reduce.conv.out_channels == 1


def test_channel_attention():
    torch.manual_seed(0)
    block, x = ChannelAttention(32, 5), 3 * image(32)

    def mlp(pooled):
        hidden = F.relu(F.linear(pooled, block.reduce.conv.weight.flatten(1),
                                 block.reduce.conv.bias))  # fmt: skip
        return F.linear(hidden, block.restore.weight.flatten(1), block.restore.bias)

    factors = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.flatten(2).max(2).values))
    assert factors.std() > 0.01
    close(block(x), x * factors[:, :, None, None])


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (64, 3), (128, 5), (256, 5), (2048, 7)])
def test_efficient_channel_attention_looks_further_in_wide_layers(channels, kernel):
    """|log2(C)/2 + 1/2| to the odd number at or above its whole part, as in the authors' code."""
    block = EfficientChannelAttention(channels)
    assert block.weight.shape == (1, 1, kernel)


def test_efficient_channel_attention():
    block, x = EfficientChannelAttention(24, kernel_size=5), 3 * image(24)
    means = F.pad(x.mean((2, 3)), (2, 2))
    scores = sum(block.weight[0, 0, tap] * means[:, tap : tap + 24] for tap in range(5))
    close(block(x), x * torch.sigmoid(scores)[:, :, None, None])


@pytest.mark.parametrize("block", [SqueezeExcite(16), ChannelAttention(16),
                                   EfficientChannelAttention(16)])  # fmt: skip
def test_attention_has_exact_gradients(block):
    block = block.double()
    x = image(16, 3, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(block, (x,))


# --- residuals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "inner", "stride"), [(32, 8, 1), (32, 8, 2), (16, 8, 1), (24, 4, 2)]
)
def test_bottleneck(channels, inner, stride):
    torch.manual_seed(0)
    block, x = settle(Bottleneck(channels, inner, stride)), image(channels)
    y = F.relu(plain(x, block.conv1, block.bn1, 0))
    y = F.relu(plain(y, block.conv2, block.bn2, 1))
    y = plain(y, block.conv3, block.bn3, 0)
    assert (block.downsample is None) == (stride == 1 and channels == 4 * inner)
    shortcut = x if block.downsample is None else plain(x, *block.downsample, 0)
    assert block.conv2.stride == (stride, stride)
    close(block(x), F.relu(y + shortcut))


def test_bottleneck_takes_dilation_and_groups():
    torch.manual_seed(0)
    block, x = settle(Bottleneck(32, 8, dilation=2, groups=4)), image(32)
    y = F.relu(plain(x, block.conv1, block.bn1, 0))
    y = F.relu(plain(y, block.conv2, block.bn2, 2))
    close(block(x), F.relu(plain(y, block.conv3, block.bn3, 0) + x))
    assert block.conv2.groups == 4


INVERTED = {
    "MobileNetV2": {"expanded": 48},
    "MobileNetV2, no expansion": {"expanded": 16},
    "MobileNetV2, stride 2": {"expanded": 48, "stride": 2},
    "MobileNetV2, other channels": {"expanded": 48, "out_channels": 24},
    "MobileNetV3": {"expanded": 40, "kernel_size": 5, "squeezed": 8, "gate": "hardsigmoid",
                    "activation": "hardswish"},
    "EfficientNet": {"expanded": 96, "kernel_size": 5, "squeezed": 4, "activation": "silu",
                     "squeeze_activation": "silu", "drop": 0.3},
    "no norm": {"expanded": 48, "norm": None},
}  # fmt: skip


@pytest.mark.parametrize("name", INVERTED)
def test_inverted_residual(name):
    torch.manual_seed(0)
    options = {"out_channels": 16, **INVERTED[name]}
    block, x = settle(InvertedResidual(16, **options)), image(16)
    activation = ACTIVATIONS[options.get("activation", "relu6")]
    assert (block.expand is None) == (options["expanded"] == 16)
    y = x if block.expand is None else activation(part(x, block.expand, 0))
    y = activation(part(y, block.depthwise, options.get("kernel_size", 3) // 2))
    assert (block.excite is None) == ("squeezed" not in options)
    if block.excite is not None:
        inner = ACTIVATIONS[options.get("squeeze_activation", "relu")]
        factors = inner(part(y.mean((2, 3), keepdim=True), block.excite.reduce, 0))
        factors = part(factors, block.excite.restore, 0)
        y = y * GATES[options.get("gate", "sigmoid")](factors)
    y = part(y, block.project, 0)
    residual = options.get("stride", 1) == 1 and options["out_channels"] == 16
    close(block(x), y + x if residual else y)


def test_stochastic_depth_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3, 1)
    y = stochastic_depth(x, 0.2)
    assert all(len(of_one.unique()) == 1 for of_one in y)  # a whole image, or none of it
    kept = y[:, 0, 0, 0]
    assert kept.unique().tolist() == [0, 1.25]
    # the mean of 4,000 draws lies within four standard errors, 4·0.5/√4000
    assert kept.mean().item() == pytest.approx(1, abs=4 * 0.5 / math.sqrt(4000))


def test_an_inverted_residual_is_skipped_in_training_only():
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, expanded=16, norm=None, drop=0.5)
    x = torch.randn(64, 8, 4, 4)
    inference = block.eval()(x)
    training = block.train()(x)
    skipped = (training == x).flatten(1).all(1)
    assert 16 <= skipped.sum() <= 48  # 32 expected, ± four standard deviations
    twice = x + 2 * (inference - x)
    torch.testing.assert_close(training[~skipped], twice[~skipped], rtol=1e-4, atol=1e-5)


def test_the_residual_is_handed_to_the_last_convolution(monkeypatch):
    """It is added where the result is still at hand, not in a pass of its own."""
    handed = []

    def noted(input, links, residual=None):
        handed.append((len(links), residual))
        return run(input, links, residual)

    run = MODULE.run
    monkeypatch.setattr(MODULE, "run", noted)
    x = torch.rand(1, 8, 4, 4)
    with torch.no_grad():
        InvertedResidual(8, 8, expanded=16, drop=0.5).eval()(x)
    [(links, residual)] = handed
    assert links == 3
    assert residual is x


# --- reduction ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("padding", "size"), [(0, (9, 7)), (1, (9, 7)), (0, (8, 8)), (1, (8, 8))])
def test_inception_reduction(padding, size):
    torch.manual_seed(0)
    block = settle(InceptionReduction(16, 24, 20, (8, 12), padding=padding))
    x = image(16, *size)
    direct = F.relu(part(x, block.direct, padding))
    deep = F.relu(part(x, block.deep[0], 0))
    deep = F.relu(part(deep, block.deep[1], 1))
    deep = F.relu(part(deep, block.deep[2], padding))
    expected = torch.cat((direct, deep, F.max_pool2d(x, 3, 2, padding)), dim=1)
    found = block(x)
    close(found, expected)
    assert found.shape[1] == block.out_channels == 60
    half = [-(-n // 2) if padding else (n - 1) // 2 for n in size]
    assert list(found.shape[2:]) == half


# --- all ------------------------------------------------------------------------------------------

BLOCKS = {
    "SqueezeExcite": lambda: SqueezeExcite(16),
    "ChannelAttention": lambda: ChannelAttention(16),
    "EfficientChannelAttention": lambda: EfficientChannelAttention(16),
    "Bottleneck": lambda: Bottleneck(16, 4),
    "Bottleneck, stride 2": lambda: Bottleneck(16, 8, 2),
    "InvertedResidual": lambda: InvertedResidual(16, 16, expanded=32, squeezed=4),
    "InceptionReduction": lambda: InceptionReduction(16, 8, 8, (4, 4)),
}
EVERY = pytest.mark.parametrize("name", BLOCKS)


@EVERY
def test_every_parameter_gets_its_gradient(name):
    """In training, against central differences along the gradient, in double precision."""
    torch.manual_seed(0)
    block, x = BLOCKS[name]().double(), image(16).double()
    target = torch.randn(block(x).shape, dtype=torch.float64)
    ((block(x) - target) ** 2).sum().backward()
    parameters = list(block.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in parameters if parameter.dim() > 1)
    gradients = [parameter.grad.clone() for parameter in parameters]
    length = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))

    def loss(step):
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += step / length * gradient
            value = ((block(x) - target) ** 2).sum().item()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= step / length * gradient
        return value

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert slope == pytest.approx(length, rel=1e-4)


@EVERY
def test_memory_formats_do_not_matter(name):
    block, x = settle(BLOCKS[name]()), image(16)
    with torch.no_grad():
        close(block(x.to(memory_format=torch.channels_last)), block(x))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="SqueezeExcite: gate must be one of 'hardsigmoid', 'sig"):
        SqueezeExcite(8, gate="relu")
    with pytest.raises(ValueError, match="SqueezeExcite: squeezed must be a number of channels, at "
                       "least 1, got 0; leave it out for a sixteenth of the 8"):  # fmt: skip
        SqueezeExcite(8, 0)
    with pytest.raises(ValueError, match="ChannelAttention: squeezed must be a number of channels"):
        ChannelAttention(8, 2.5)
    with pytest.raises(ValueError, match=r"kernel_size must be an odd whole number.*got 4"):
        EfficientChannelAttention(8, 4)
    with pytest.raises(ValueError, match="drop must be a probability, at least 0 and less than 1"):
        InvertedResidual(8, 8, 16, drop=1.0)
    with pytest.raises(ValueError, match=r"InvertedResidual: drop must be .* got 'often'"):
        InvertedResidual(8, 8, 16, drop="often")
    with pytest.raises(ValueError, match=r"padding must be 0, as in the paper, or 1.*got 2"):
        InceptionReduction(8, 4, 4, (4, 4), padding=2)
    with pytest.raises(ValueError, match="activation must be one of"):
        InvertedResidual(8, 8, 16, activation="swoosh")
