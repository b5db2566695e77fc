"""Small networks put together at random, of pieces that are fused and pieces that are not."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def settle(model: nn.Module) -> nn.Module:
    """Statistics of batch norms as training leaves them, and inference."""
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, 0.7, 1.3)
                nn.init.uniform_(part.bias, -0.3, 0.3)
    return model.eval()


class Then(nn.Module):
    """Any function of one tensor as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Around(nn.Module):
    """``combine(x, inner(x))``."""

    def __init__(self, inner: nn.Module, combine) -> None:
        super().__init__()
        self.inner, self.combine = inner, combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(x, self.inner(x))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(channels, 3, 1), nn.Conv2d(3, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.wide(F.relu(self.narrow(y))))


class ChannelsLast(nn.Module):
    """ConvNeXt's inner part: norm and linear layers over the last dimension, and layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = (
            nn.Linear(channels, 2 * channels),
            nn.Linear(2 * channels, channels),
        )
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(F.gelu(self.wide(self.norm(x.permute(0, 2, 3, 1)))))
        return x + (y * self.scale).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Attention among the pixels of an image, by PyTorch's own call or ``by_hand``."""

    def __init__(self, channels: int, heads: int, bias: bool, causal: bool, by_hand: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.by_hand = heads, causal, by_hand
        self.qkv = nn.Linear(channels, 3 * 4 * heads)
        self.last = nn.Linear(4 * heads, channels)
        self.bias = nn.Parameter(torch.randn(heads, 1, 1)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, self.heads, 4))
        q, k, v = y.permute(2, 0, 3, 1, 4).unbind(0)
        if self.by_hand:
            scores = q * 0.5 @ k.transpose(2, 3)
            scores = scores if self.bias is None else scores + self.bias
            if self.causal:
                later = torch.ones_like(scores[0, 0]).triu(1)
                scores = scores.masked_fill(later > 0, float("-inf"))
            y = scores.softmax(3) @ v
        else:
            mask = None if self.causal else self.bias
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
        y = self.last(y.transpose(1, 2).flatten(2))
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


def _cut(x: Tensor) -> Tensor:
    first, *rest = x.split((x.shape[1] + 1) // 2, 1)
    return torch.cat((*rest, F.relu(first)), 1)


def _halves(x: Tensor) -> Tensor:
    """Some channels read apart and joined again."""
    half = (x.shape[1] + 1) // 2
    return torch.cat((F.avg_pool2d(x[:, :half], 3, 1, 1), x, x[:, half:].tanh()), 1)[:, ::2]


def _written(x: Tensor) -> Tensor:
    """Some rows, channels and columns written to."""
    x = x.clone()
    x[:, :, 1:] = x[:, :, :-1].sin()
    x[:, 0] = 0.25
    x[..., ::2] = x[..., ::2] * 2
    return x


def _windows(x: Tensor) -> Tensor:
    """Rolled, cut into windows of two rows, and put together again."""
    x = x.permute(0, 2, 3, 1)
    high = x.shape[1] // 2 * 2
    y = x[:, :high].roll((1, -1), (1, 2))
    y = y.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
    return torch.cat((y, x[:, high:]), 1).permute(0, 3, 1, 2)


def _stacked(x: Tensor) -> Tensor:
    one, other = torch.stack((x.relu(), x), 2).unbind(2)
    return one - 0.5 * other


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _hard_swish(x: Tensor) -> Tensor:
    return x * F.relu6(x + 3) / 6


def _shuffle(x: Tensor) -> Tensor:
    return x.view(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def _in_half(x: Tensor) -> Tensor:
    return (x.bfloat16() * 0.5).relu().float()


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Sigmoid, nn.GELU, nn.Hardsigmoid,
               nn.Tanh, nn.ELU, lambda: nn.ReLU(inplace=True), lambda: nn.GELU("tanh"),
               lambda: nn.Hardtanh(-1, 2), lambda: nn.SiLU(inplace=True))  # fmt: skip

FUNCTIONS = (_cut, _swish, _hard_swish, _in_half, lambda x: x * 0.5 + 0.1, lambda x: x.clone(),
             lambda x: x.flip(3), lambda x: x + x.mean((2, 3), keepdim=True),
             lambda x: x.softmax(1), lambda x: x.transpose(2, 3).contiguous(),
             lambda x: x[:, :, 1:] if x.shape[2] > 3 else x, lambda x: x + x,
             lambda x: F.pad(x, (0, 1, 1, 0)), lambda x: torch.cat((x, x), 1)[:, 1::2],
             lambda x: x.to(memory_format=torch.channels_last), lambda x: x / (1 + x.abs()),
             lambda x: x.amax((2, 3), keepdim=True) * x,
             lambda x: F.leaky_relu(x - 0.1, 0.3) * F.softplus(x), lambda x: F.mish(x) / 2 + x**2,
             lambda x: torch.where(x > 0.2, x, -x).masked_fill(x < -1, 0.5),
             lambda x: torch.addcmul(x, x, x.norm(dim=(2, 3), keepdim=True), value=0.1),
             lambda x: F.pad(x, (1, 2, 1, 0), mode="replicate").clamp(-2, 1.5),
             lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
             lambda x: F.pixel_unshuffle(F.pixel_shuffle(torch.cat((x, x.abs(), -x, x), 1), 2),
                                         2)[:, ::4],
             lambda x: torch.cat((x, F.max_pool2d(x, 3, 1, 1), x.roll(1, 3)), 1)[:, ::3],
             _halves, _written, _windows, _stacked)  # fmt: skip


class Builder:
    """Draws pieces; keeps the number of channels and a guess of the size."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        torch.manual_seed(seed)
        self.shared: dict[int, nn.Module] = {}

    def network(self, channels: int, pieces: int) -> tuple[nn.Module, int]:
        parts: list[nn.Module] = []
        for _ in range(pieces):
            part, channels = self.piece(channels)
            parts.append(part)
        return nn.Sequential(*parts), channels

    def piece(self, channels: int) -> tuple[nn.Module, int]:
        kind = self.chance.choice(
            ("conv", "conv", "conv", "separable", "function", "around", "gate", "pool", "last",
             "shared", "norm", "shuffle", "branches", "multiplier", "grouped", "activation", "up",
             "deep", "parts", "attention")
        )  # fmt: skip
        return getattr(self, f"_{kind}")(channels)

    def _activation(self, channels: int) -> tuple[nn.Module, int]:
        return self.chance.choice(ACTIVATIONS)(), channels

    def _finished(self, conv: nn.Module, channels: int) -> nn.Module:
        parts = [conv]
        if self.chance.random() < 0.6:
            parts.append(nn.BatchNorm2d(channels, affine=self.chance.random() < 0.8))
        if self.chance.random() < 0.7:
            parts.append(self._activation(channels)[0])
        return nn.Sequential(*parts)

    def _conv(self, channels: int, keeps: bool = False) -> tuple[nn.Module, int]:
        draw = self.chance.choice
        out = channels if keeps else draw((1, 5, 8, 16, 33))
        kernel, dilation = draw((1, 1, 3, 3, 5)), draw((1, 1, 2))
        stride = 1 if keeps else draw((1, 1, 2))
        mode = (
            draw(("zeros", "zeros", "zeros", "reflect"))
            if kernel == 3 and dilation == 1
            else "zeros"
        )
        padding = (
            draw(("same", dilation * (kernel // 2))) if stride == 1 else kernel // 2 * dilation
        )
        if mode == "reflect":
            padding = 1
        conv = nn.Conv2d(channels, out, kernel, stride, padding, dilation, padding_mode=mode,
                         bias=draw((True, False)))  # fmt: skip
        return self._finished(conv, out), out

    def _depthwise(self, channels: int, stride: int = 1) -> nn.Module:
        kernel = self.chance.choice((3, 3, 5, 7))
        conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels,
                         bias=self.chance.random() < 0.3)  # fmt: skip
        return self._finished(conv, channels)

    def _separable(self, channels: int) -> tuple[nn.Module, int]:
        out = self.chance.choice((8, 16, channels))
        first = self._depthwise(channels, self.chance.choice((1, 2)))
        return nn.Sequential(first, self._finished(nn.Conv2d(channels, out, 1), out)), out

    def _function(self, channels: int) -> tuple[nn.Module, int]:
        return Then(self.chance.choice(FUNCTIONS)), channels

    def _around(self, channels: int) -> tuple[nn.Module, int]:
        inner = self.chance.choice(
            (self._conv(channels, keeps=True)[0], self._depthwise(channels), nn.Identity())
        )
        combine = self.chance.choice(
            (torch.add, lambda x, y: F.relu(y + x), lambda x, y: x - y, torch.mul,
             lambda x, y: y.add_(x) if y is not x else y, torch.maximum)
        )  # fmt: skip
        return Around(inner, combine), channels

    def _gate(self, channels: int) -> tuple[nn.Module, int]:
        return Gate(channels, self.chance.choice((nn.Sigmoid, nn.Hardsigmoid, nn.Tanh))()), channels

    def _pool(self, channels: int) -> tuple[nn.Module, int]:
        pools = (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 1, 1),
                 nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.MaxPool2d(3, 1, 1, dilation=2),
                 nn.AvgPool2d(2, 1, ceil_mode=True), nn.AdaptiveAvgPool2d((4, 3)),
                 nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.UpsamplingNearest2d(scale_factor=2),
                 nn.AvgPool2d(2, 1, divisor_override=3))  # fmt: skip
        return Around(self.chance.choice(pools), lambda x, y: y), channels

    def _last(self, channels: int) -> tuple[nn.Module, int]:
        return ChannelsLast(channels), channels

    def _shared(self, channels: int) -> tuple[nn.Module, int]:
        """The same module at several places."""
        module = self.shared.setdefault(channels, self._conv(channels, keeps=True)[0])
        return module, channels

    def _norm(self, channels: int) -> tuple[nn.Module, int]:
        norms = (
            nn.BatchNorm2d(channels),
            nn.GroupNorm(1, channels),
            nn.InstanceNorm2d(channels),
            nn.GroupNorm(channels, channels),
            nn.InstanceNorm2d(channels, affine=True),
        )
        return self.chance.choice(norms), channels

    def _shuffle(self, channels: int) -> tuple[nn.Module, int]:
        return (Then(_shuffle) if channels % 2 == 0 else nn.Identity()), channels

    def _up(self, channels: int) -> tuple[nn.Module, int]:
        """A transposed convolution."""
        draw = self.chance.choice
        groups = draw((1, channels)) if channels < 9 else draw((1, 1 if channels % 2 else 2))
        conv = nn.ConvTranspose2d(channels, channels, draw((2, 3, 4)), draw((1, 2)), draw((0, 1)),
                                  groups=groups, dilation=draw((1, 1, 2)))  # fmt: skip
        return self._finished(conv, channels), channels

    def _deep(self, channels: int) -> tuple[nn.Module, int]:
        """A convolution of volumes, over channels as their depth."""
        draw = self.chance.choice
        conv = nn.Conv3d(
            1, 2, (draw((1, 3)), 3, draw((1, 3))), padding="same", bias=draw((True, False))
        )
        parts = [nn.Unflatten(1, (1, channels)), conv, nn.BatchNorm3d(2), nn.ReLU(),
                 nn.Conv3d(2, 1, 1), nn.Flatten(1, 2)]  # fmt: skip
        return nn.Sequential(*parts), channels

    def _parts(self, channels: int) -> tuple[nn.Module, int]:
        """YOLOv8's C2f."""
        half = self.chance.choice((4, 8))
        more = nn.ModuleList(self._conv(half, keeps=True)[0] for _ in range(2))
        parts = Parts(self._finished(nn.Conv2d(channels, 2 * half, 1), 2 * half), more,
                      self.chance.random() < 0.5)  # fmt: skip
        return nn.Sequential(parts, self._finished(nn.Conv2d(4 * half, 2 * half, 1), 2 * half)), (
            2 * half
        )

    def _attention(self, channels: int) -> tuple[nn.Module, int]:
        draw = self.chance.choice
        found = Attention(channels, draw((1, 2, 3)), *(draw((True, False)) for _ in range(3)))
        return found, channels

    def _branches(self, channels: int) -> tuple[nn.Module, int]:
        one, other = (self._conv(channels, keeps=True)[0] for _ in range(2))
        return Branches(one, other), 2 * channels

    def _multiplier(self, channels: int) -> tuple[nn.Module, int]:
        return self._finished(nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels),
                              2 * channels), 2 * channels  # fmt: skip

    def _grouped(self, channels: int) -> tuple[nn.Module, int]:
        if channels % 2:
            return nn.Identity(), channels
        return self._finished(
            nn.Conv2d(channels, channels, 3, padding=1, groups=2), channels
        ), channels


class Branches(nn.Module):
    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.one(x), self.other(x)), 1)


class Parts(nn.Module):
    """Halves of a result, one of which goes on, and all of them joined."""

    def __init__(self, first: nn.Module, more: nn.ModuleList, add: bool) -> None:
        super().__init__()
        self.first, self.more, self.add = first, more, add

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for layer in self.more:
            y = layer(parts[-1])
            parts.append(parts[-1] + y if self.add else y)
        return torch.cat(parts, 1)


class Whole(nn.Module):
    """A network and one of several ends, some with several results."""

    def __init__(self, body: nn.Module, channels: int, end: int) -> None:
        super().__init__()
        self.body, self.end = body, end
        self.norm, self.head = nn.BatchNorm1d(channels), nn.Linear(channels, 7)

    def forward(self, x: Tensor):
        y = self.body(x)
        if self.end == 0:
            return self.head(y.mean((2, 3)))
        if self.end == 1:
            return {"features": y, "scores": F.relu(self.norm(y.mean((2, 3))))}
        if self.end == 2:
            return y, y.amax(1), x
        return self.head(y.flatten(2).transpose(1, 2)).softmax(-1)


def random_network(seed: int) -> tuple[nn.Module, Tensor]:
    """A network and an input for it, channels_last or not."""
    builder = Builder(seed)
    draw = builder.chance.choice
    inputs = draw((3, 4))
    body, channels = builder.network(inputs, draw((2, 4, 6)))
    model = settle(Whole(body, channels, draw((0, 1, 2, 3))))
    x = torch.randn(draw((1, 2)), inputs, draw((9, 12, 17)), draw((8, 13)))
    return model, x.to(memory_format=draw((torch.contiguous_format, torch.channels_last)))
