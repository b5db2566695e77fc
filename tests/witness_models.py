"""The witness's entries of whole models: networks, and what ``accelerate`` makes of models."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from witness_images import modules
from witness_inputs import Draw, on_both_teams

import pointwise as pw
from pointwise import networks

Entry = tuple[str, Callable[[Draw], Any]]
FLOATS = (torch.float32, torch.float64)

IMAGE_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "MobileNetV1": (lambda: networks.MobileNetV1(10, 0.25), 64),
    "MobileNetV1 standard": (lambda: networks.MobileNetV1(10, 0.25, convolution="standard"), 32),
    "MobileNetV1 same": (lambda: networks.MobileNetV1(10, 0.25, norm=None, padding="same"), 64),
    "MobileNetV2": (lambda: networks.MobileNetV2(10, 0.35), 64),
    "MobileNetV3": (lambda: networks.MobileNetV3(10, 0.5), 64),
    "MobileNetV3 small": (lambda: networks.MobileNetV3(10, 0.5, size="small"), 64),
    "EfficientNetB0": (lambda: networks.EfficientNetB0(10), 64),
    "ResNet50": (lambda: networks.ResNet50(10), 48),
    "Xception": (lambda: networks.Xception(10), 75),
}
"""How to make it, and the size of its images."""
WIDE = ("EfficientNetB0", "ResNet50", "Xception")
"""Networks without a width; float32 and one example are enough of them."""

SLOW_TO_TRACE = ("MobileNetV1 same",)
"""Networks that torch.export takes minutes for: here each padding is an expression."""

CLOUD_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "Hua2018Segmentation": lambda: networks.Hua2018Segmentation(6, 5, 0.15),
    "Hua2018Classification": lambda: networks.Hua2018Classification(6, 5, 0.15, sample=64),
    "CellUNet": lambda: networks.CellUNet(6, 5, 0.05, width=8),
    "CellPyramid": lambda: networks.CellPyramid(6, 5, 0.05, width=8),
}


def entries() -> Iterator[Entry]:
    for name, (make, size) in IMAGE_NETWORKS.items():
        for dtype in FLOATS[:1] if name in WIDE else FLOATS:
            yield f"network {name} {dtype}", partial(_image_network, make, size, dtype)
        yield f"network {name} initialisation", partial(_initialisation, make)
    for name, network in CLOUD_NETWORKS.items():
        for dtype in FLOATS:
            yield f"network {name} {dtype}", partial(_cloud_network, network, dtype)
        yield f"network {name} initialisation", partial(_initialisation, network)
    for name, (make, size) in IMAGE_NETWORKS.items():
        if name in SLOW_TO_TRACE:
            continue
        yield f"accelerated {name}", partial(_accelerated, make, (1, 3, size, size), FLOATS[0])
    for dtype in FLOATS:
        for name, model, shape in models():
            yield f"accelerated {name} {dtype}", partial(_accelerated, model, shape, dtype)
    yield "accelerated layers", _accelerated_layers
    yield "compiled", _compiled
    for name in ("MobileNetV1", "MobileNetV2"):
        make, size = IMAGE_NETWORKS[name]
        yield f"int8 {name}", partial(_in_bytes, make, (1, 3, size, size))
    for name, model, shape in models_in_bytes():
        yield f"int8 {name}", partial(_in_bytes, model, shape)


# --- networks -------------------------------------------------------------------------------------


def _initialisation(make: Callable[[], nn.Module], draw: Draw) -> dict[str, Any]:
    torch.manual_seed(0)
    return {"state": make().state_dict()}


def _image_network(
    make: Callable[[], nn.Module], size: int, dtype: torch.dtype, draw: Draw
) -> dict[str, Any]:
    model = draw.fill(make(), dtype).eval()
    one, two = (draw.image(n, 3, size, size + n - 1, dtype=dtype) for n in (1, 2))
    with torch.no_grad():
        found = {"eval": model(one), "two": model(two), "again": model(one)}
    _without_chance(model)
    found["training, partly by PyTorch"] = draw.training(model, two)
    with torch.no_grad():
        frozen = pw.freeze(model)
        found |= {"frozen": frozen(one), "frozen again": frozen(one)}
    return found


def _without_chance(model: nn.Module) -> None:
    """No dropout and no stochastic depth, whose draws depend on what was drawn before."""
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.AlphaDropout)):
            module.p = 0.0
        if isinstance(module, pw.InvertedResidual):
            module.drop = 0.0


def _cloud_network(make: Callable[[], nn.Module], dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    model = draw.fill(make(), dtype).eval()
    points, offsets = draw.uniform(700, 3, dtype=dtype), torch.tensor([0, 300, 700])
    features = draw.normal(700, 6, dtype=dtype)
    with torch.no_grad():
        found: dict[str, Any] = {"eval": model(points, features, offsets)}
    _without_chance(model)
    found["training, partly by PyTorch"] = draw.training(model, points, features, offsets)
    return found


# --- accelerated ----------------------------------------------------------------------------------


class Then(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """``combine(inner(x), x)``."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], *inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.combine = nn.Sequential(*inner), combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.inner(x), x)


class Branches(nn.Module):
    """The results of several modules side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class ConvNeXt(nn.Module):
    """Norm and linear layers over the channels of each pixel, and layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 96), nn.Linear(96, channels)
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y)))
        return x + (y * self.scale).permute(0, 3, 1, 2)


def _conv(channels: int, out: int, kernel: int, *activation: nn.Module, **how: Any) -> nn.Module:
    conv = nn.Conv2d(channels, out, kernel, bias=False, **{"padding": kernel // 2, **how})
    return nn.Sequential(conv, nn.BatchNorm2d(out), *activation)


def _depthwise(channels: int, kernel: int, stride: int, *activation: nn.Module) -> nn.Module:
    return _conv(channels, channels, kernel, *activation, stride=stride, groups=channels)


def _inverted(kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        _conv(16, 64, 1, nn.ReLU6()), _depthwise(64, kernel, stride, nn.ReLU6()), _conv(64, 16, 1)
    )


def models() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    """Models of PyTorch's own modules: name, how to make it, and the shape of its input."""
    yield (
        "stencils",
        lambda: nn.Sequential(
            *(
                nn.Sequential(_depthwise(33, k, s, nn.ReLU()), nn.Tanh())
                for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2))
            )
        ),
        (2, 33, 60, 61),
    )
    yield (
        "separable",
        lambda: nn.Sequential(
            *(
                nn.Sequential(_depthwise(32, k, s, nn.ReLU6()), _conv(32, 32, 1, nn.SiLU()))
                for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (9, 1))
            )
        ),
        (1, 32, 50, 49),
    )
    yield (
        "inverted",
        lambda: nn.Sequential(
            *(
                nn.Sequential(_inverted(k, s), nn.Tanh())
                for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (9, 1))
            )
        ),
        (2, 16, 60, 61),
    )
    yield "inverted with residual", lambda: Residual(torch.add, _inverted(3, 1)), (1, 16, 14, 14)
    yield (
        "two of three",
        lambda: nn.Sequential(
            _conv(3, 32, 3, nn.ReLU(), stride=2), _depthwise(32, 3, 1, nn.ReLU()), nn.Tanh()
        ),
        (1, 3, 64, 64),
    )
    yield (
        "stem of three",
        lambda: nn.Sequential(
            _conv(3, 32, 3, nn.ReLU(), stride=2), _depthwise(32, 3, 1, nn.ReLU()), _conv(32, 16, 1)
        ),
        (2, 3, 65, 64),
    )
    yield (
        "Winograd 2",
        lambda: nn.Sequential(_conv(64, 64, 3, nn.ReLU()), nn.Conv2d(64, 64, 3, padding=1)),
        (1, 64, 14, 14),
    )
    yield (
        "Winograd 4",
        lambda: nn.Sequential(
            _conv(32, 64, 3, nn.ReLU6()),
            Residual(lambda x, y: F.relu(x + y), nn.Conv2d(64, 64, 3, padding=1)),
        ),
        (2, 32, 40, 37),
    )
    yield (
        "Winograd of a large weight",
        lambda: nn.Sequential(_conv(192, 192, 3, nn.ReLU()), nn.Conv2d(192, 192, 3, padding=1)),
        (1, 192, 26, 26),
    )
    yield (
        "multiplier",
        lambda: nn.Sequential(
            nn.Conv2d(12, 36, 3, padding=1, groups=12), nn.ReLU(), nn.Conv2d(36, 8, 1)
        ),
        (2, 12, 9, 10),
    )
    yield (
        "standard",
        lambda: nn.Sequential(
            nn.Conv2d(3, 17, 7, 2, 3),
            nn.GELU(),
            nn.Conv2d(17, 33, 3, padding=2, dilation=2),
            nn.Hardswish(),
            nn.Conv2d(33, 24, 3, padding="same"),
            nn.Hardsigmoid(),
            nn.Conv2d(24, 24, 3, padding=1, groups=4),
            nn.Sigmoid(),
            nn.Conv2d(24, 8, 1, 2),
            nn.ReLU(),
        ),
        (2, 3, 33, 32),
    )
    yield (
        "activations",
        lambda: nn.Sequential(
            nn.Conv2d(8, 8, 1),
            *(
                Residual(torch.add, kind())
                for kind in (
                    nn.ReLU,
                    nn.ReLU6,
                    nn.Hardswish,
                    nn.SiLU,
                    nn.Sigmoid,
                    nn.GELU,
                    nn.Hardsigmoid,
                    nn.Tanh,
                )
            ),
        ),
        (1, 8, 9, 9),
    )
    yield (
        "arithmetic",
        lambda: nn.Sequential(
            nn.Conv2d(8, 8, 1),
            Residual(torch.mul, nn.SiLU()),
            Residual(torch.add, nn.BatchNorm2d(8)),
            Residual(lambda x, y: F.relu(x + y), nn.Conv2d(8, 8, 3, padding=1, groups=8)),
            Then(lambda x: x * 0.5 + 0.1),
            Residual(lambda x, y: y * torch.sigmoid(x.mean((2, 3), keepdim=True)), nn.Identity()),
        ),
        (2, 8, 9, 9),
    )
    yield (
        "pools",
        lambda: nn.Sequential(
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(3, 1, 1),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.MaxPool2d(3, 1, 1, dilation=2),
            nn.AvgPool2d(2, 1, divisor_override=3),
            nn.AdaptiveAvgPool2d(1),
        ),
        (2, 17, 31, 30),
    )
    yield (
        "branches",
        lambda: nn.Sequential(
            Branches(_conv(8, 5, 1, nn.ReLU()), _conv(8, 12, 3), nn.MaxPool2d(3, 1, 1)),
            _conv(25, 8, 1),
        ),
        (2, 8, 9, 9),
    )
    yield (
        "excite",
        lambda: nn.Sequential(
            _conv(16, 48, 1, nn.SiLU()),
            pw.SqueezeExcite(48, 12, "silu"),
            _conv(48, 16, 1),
            pw.SqueezeExcite(16, 4, gate="hardsigmoid"),
        ),
        (2, 16, 9, 8),
    )
    yield "ConvNeXt", lambda: ConvNeXt(24), (2, 24, 9, 8)
    yield (
        "linear",
        lambda: nn.Sequential(
            nn.Linear(33, 64),
            nn.ReLU(),
            nn.LayerNorm(64),
            Residual(torch.add, nn.Linear(64, 64)),
            nn.Linear(64, 10),
        ),
        (5, 33),
    )


def _accelerated(
    make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype, draw: Draw
) -> dict[str, Any]:
    model = draw.fill(make(), dtype).eval()
    x = _input(draw, shape, dtype)
    fast = pw.accelerate(model, x)
    more = _input(draw, (shape[0] + 2, *shape[1:]), dtype)
    calls = {"one": x, "again": x, "more": more}
    found: dict[str, Any] = {
        name: on_both_teams(partial(fast, given)) for name, given in calls.items()
    }
    return found | {"calls": _calls(fast)}


def _input(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return draw.image(*shape, dtype=dtype) if len(shape) == 4 else draw.normal(*shape, dtype=dtype)


def _calls(fast: Any) -> str:
    report = fast.reports()[-1]
    return f"{len(report.fused)} as kernels, {len(report.plain)} plain"


def _accelerated_layers(draw: Draw) -> dict[str, Any]:
    """Our own layers, which stand as operators of ours in a trace."""
    found: dict[str, Any] = {}
    for name, make, shape in modules():
        if name in ("stem 7", "separable 5 2", "inverted 3 1", "bottleneck", "inverted excited"):
            found |= {
                f"{name} {k}": v for k, v in _accelerated(make, shape, torch.float32, draw).items()
            }
    return found


def _compiled(draw: Draw) -> dict[str, Any]:
    torch._dynamo.reset()
    model = nn.Sequential(
        _conv(3, 16, 3, nn.SiLU()),
        _depthwise(16, 3, 2, nn.ReLU()),
        _conv(16, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    fast: Any = torch.compile(draw.fill(model).eval(), backend="pointwise")
    with torch.no_grad():
        images = {"one": draw.image(1, 3, 20, 20), "more": draw.image(3, 3, 25, 24)}
        return {name: on_both_teams(partial(fast, x)) for name, x in images.items()}


# --- bytes ----------------------------------------------------------------------------------------


class BranchesOfBytes(nn.Module):
    """Residuals, a pool, grouped and dilated convolutions, an activation bytes do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.wide = nn.Conv2d(24, 24, 3, padding=1)
        self.expand, self.project = nn.Conv2d(24, 72, 1), nn.Conv2d(72, 40, 1)
        self.depth = nn.Conv2d(72, 72, 5, 2, 2, groups=72)
        self.grouped = nn.Conv2d(40, 40, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(40, 40, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(40, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.max_pool2d(F.relu(self.wide(x) + x), 2)
        x = self.project(F.relu6(self.depth(F.relu6(self.expand(x)))))
        x = F.silu(self.grouped(x)) + x
        return self.last(self.dilated(x) + x)


def _separable_of_bytes(kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        _conv(3, 72, 3, nn.ReLU(), stride=2),
        _depthwise(72, kernel, stride, nn.ReLU6()),
        _conv(72, 40, 1, nn.ReLU()),
        _conv(40, 100, 1),
    )


def _depthwise_of_bytes(kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        _conv(3, 100, 1, nn.ReLU()),
        _depthwise(100, kernel, stride, nn.ReLU()),
        _conv(100, 33, 3, nn.ReLU()),
    )


def models_in_bytes() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    """Models whose convolutions run in bytes: name, how to make it, and the shape of its input."""
    for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1)):
        yield f"separable {k} {s}", partial(_separable_of_bytes, k, s), (2, 3, 33, 34)
        yield f"depthwise {k} {s}", partial(_depthwise_of_bytes, k, s), (1, 3, 17, 18)
    yield (
        "standard",
        lambda: nn.Sequential(
            _conv(3, 17, 7, nn.ReLU(), stride=2),
            _conv(17, 33, 3, nn.ReLU6(), stride=2),
            Residual(torch.add, _conv(33, 33, 3)),
            _conv(33, 130, 1),
        ),
        (3, 3, 40, 41),
    )
    yield (
        "wide",
        lambda: nn.Sequential(_conv(24, 300, 1, nn.ReLU()), _conv(300, 64, 1)),
        (1, 24, 1, 2),
    )
    yield "branches", BranchesOfBytes, (2, 3, 33, 33)


class _Plainly(TorchDispatchMode):
    """An accelerated model runs call by call in PyTorch while a mode like this looks on."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def _in_bytes(make: Callable[[], nn.Module], shape: tuple[int, ...], draw: Draw) -> dict[str, Any]:
    model = draw.fill(make()).eval()
    batches = [draw.image(*shape) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast = pw.accelerate(
            model, batches[0], precision="int8", calibration=copy.deepcopy(batches)
        )
    more = draw.image(shape[0] + 1, *shape[1:])
    found: dict[str, Any] = {"one": on_both_teams(partial(fast, batches[0]))}
    found["contiguous"] = on_both_teams(partial(fast, more.contiguous()))
    found |= {"more": on_both_teams(partial(fast, more)), "calls": _calls(fast)}
    with _Plainly():
        plain = fast(more)
    rest = (found["more"] - plain).norm() / plain.norm()
    return found | {"from the plain form": "none" if rest == 0 else f"{rest.item():.1e}"}
