"""``pointwise bench accelerate``: models that are not ours, made faster, against everyone else.

``mobilenet_v1_b1`` is the network on a batch of one, ``resnet50_b8`` on eight, at 224 × 224 pixels:
MobileNetV1, MobileNetV2 and ResNet-50 in plain PyTorch, which are always there; MobileNetV3-large,
EfficientNet-B0, Xception-41 and ConvNeXt-Tiny from timm, where that is installed. With
``--models``, the kinds of models that people bring: ``field.py``.

Who: ``pointwise`` is ``pointwise.accelerate``, ``pointwise_compile`` is ``torch.compile`` with our
backend, ``torch_eager`` the model as it is, ``torch_channels_last`` the same with weights and
images in channels_last, ``torch_compile`` that one compiled by PyTorch, ``onnxruntime`` and
``openvino`` run its ONNX file, ``litert``, ``mnn`` and ``ncnn`` (which takes one image) what their
tools convert, where they are installed (``mobile_runtimes.py``) and give PyTorch's results to
within 1e-4 of the largest; a line says where one does not. Everyone in float32, without gradients,
on the same number of threads, and everyone but channels_last gets images in PyTorch's usual order.
The limit counts the operations of convolutions and linear layers as PyTorch's flop counter does,
which takes zeros around an image for numbers.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mobile_runtimes
import plain_networks
import planned
import runtimes
import torch
from frame import OURS, Case, Contestant
from planned import Planned
from rich.console import Console
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import pointwise
from pointwise.acceleration import backend
from pointwise.messages import first_line

OURS_COMPILED = "pointwise_compile"
EAGER, CHANNELS_LAST = "torch_eager", "torch_channels_last"
WHO = (EAGER, CHANNELS_LAST, runtimes.COMPILE, runtimes.ONNXRUNTIME, runtimes.OPENVINO, OURS,
       OURS_COMPILED)  # fmt: skip
ALL = (*WHO[:-2], *mobile_runtimes.WHO, *WHO[-2:])  # in the benchmark
NAMES = {
    EAGER: "PyTorch",
    CHANNELS_LAST: "channels_last",
    runtimes.COMPILE: "torch.compile",
    runtimes.ONNXRUNTIME: "ONNX Runtime",
    runtimes.OPENVINO: "OpenVINO",
    mobile_runtimes.LITERT: "LiteRT",
    mobile_runtimes.MNN: "MNN",
    mobile_runtimes.NCNN: "ncnn",
    OURS: "pointwise.accelerate",
    OURS_COMPILED: 'backend="pointwise"',
}
RUNTIMES = {
    runtimes.ONNXRUNTIME: runtimes.by_onnxruntime,
    runtimes.OPENVINO: runtimes.by_openvino,
}
PLAIN: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": plain_networks.mobilenet_v1,
    "mobilenet_v2": plain_networks.mobilenet_v2,
    "resnet50": plain_networks.resnet50,
}
TIMM = {
    "mobilenet_v3": "mobilenetv3_large_100",
    "efficientnet_b0": "efficientnet_b0",
    "xception41": "xception41",
    "convnext_tiny": "convnext_tiny",
}
BATCHES = (1, 8)
TOLERANCE = 1e-4  # of the largest result


def main(
    json: Path | None = None,
    rounds: int = 7,
    quick: bool = False,
    only: str | None = None,
    models: str | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> None:
    """Times the chosen cases and prints a table; writes it to ``json`` if given.

    With ``models``, these are of the kinds that people bring (``field.py``).
    """
    if models is not None:
        if only is not None:
            raise ValueError("bench: --models names what --only would; give one of them")
        if device != "cpu":
            raise ValueError(f"bench: --models are timed on the CPU alone, got --device {device}")
        return importlib.import_module("field").run(models, json, rounds, quick, resume)
    if resume:
        raise ValueError("bench: accelerate --resume goes on with --models; give these too")
    if device != "cpu":
        import on_device  # which reads this file

        return on_device.run("accelerate", device, json, rounds, quick, only)
    missing = runtimes.missing(inference=True, quick=quick) | mobile_runtimes.missing()
    notes = [f"without {who}: {reason}" for who, reason in missing.items()]
    if reason := _why_no_timm():
        notes.append(f"without {', '.join(TIMM)}: {reason}")
    planned.run(plan(frozenset(missing), quick), json, rounds, quick, only, notes)


def plan(missing: frozenset[str] = frozenset(), quick: bool = False) -> list[Planned]:
    """All cases, in the order of the table, without those of the peers that are ``missing``."""
    if quick:
        make = partial(plain_networks.mobilenet_v1, 0.25, 10)
        return [Planned("mobilenet_v1_b1", partial(case, "mobilenet_v1_b1", make, 1, 32, missing))]
    networks: dict[str, Callable[[], nn.Module]] = {**PLAIN}
    if not _why_no_timm():
        networks |= {name: partial(_timm, theirs) for name, theirs in TIMM.items()}
    return [
        Planned(f"{name}_b{batch}", partial(case, f"{name}_b{batch}", make, batch, 224, missing))
        for name, make in networks.items()
        for batch in BATCHES
    ]


def _why_no_timm() -> str:
    """Why timm cannot be imported; nothing where it can."""
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # or torchvision is for another PyTorch
        return f"timm cannot be imported ({str(error).splitlines()[0]})"
    return ""


def _timm(name: str) -> nn.Module:
    return importlib.import_module("timm").create_model(name)


def case(
    name: str, make: Callable[[], nn.Module], batch: int, size: int,
    missing: frozenset[str] = frozenset(),
) -> Case:  # fmt: skip
    """A network on ``batch`` images of ``size`` pixels along both sides, with weights at random."""
    model, images, result, work = job(make, batch, size)
    runs, console = [], Console(highlight=False)
    for who in ALL:
        if who in missing or not mobile_runtimes.takes(who, images):
            continue
        try:
            one = run(who, model, (images,))
            apart = difference(result, one(None)) if who in mobile_runtimes.WHO else 0.0
            why = "" if apart <= TOLERANCE else f"{apart:.2g} of the largest result from {EAGER}"
        except Exception as error:
            if who not in mobile_runtimes.WHO:
                raise
            why = f"{type(error).__name__}: {first_line(error)}"
        if why:  # theirs is not ours to mend, and the others can be timed
            console.print(f"{name} without {who}: {why}")
        else:
            runs.append(Contestant(who, one, steady=True))
    return Case(name, runs, same, *work)


def job(
    make: Callable[[], nn.Module], batch: int, size: int
) -> tuple[nn.Module, Tensor, Tensor, tuple[int, int]]:
    """A network with weights at random, images, its result, and (operations, bytes) of that."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size)
    model = plain_networks.settle(make(), torch.randn(4, 3, size, size)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = model(images)
    weights = sum(x.numel() for x in model.parameters())
    moved = 4 * (weights + images.numel() + result.numel())
    return model, images, result, (counter.get_total_flops(), moved)


def run(who: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[object], Any]:
    """What one of ``ALL`` does with a model, ready to run: compiled and all."""
    if who == EAGER:
        return infer(model, inputs)
    if who == CHANNELS_LAST:
        return infer(*in_channels_last(model, inputs))
    if who == runtimes.COMPILE:
        last, images = in_channels_last(model, inputs)
        return infer(runtimes.compiled(last), images)
    if who == OURS:
        return infer(pointwise.accelerate(model, inputs), inputs)
    if who == OURS_COMPILED:
        return infer(torch.compile(model, backend=backend), inputs)
    if len(inputs) != 1:
        raise ValueError(f"speedup: {who} takes models of one input here, got {len(inputs)}")
    if who == mobile_runtimes.LITERT:
        return mobile_runtimes.by_litert(model, inputs[0])
    if who in mobile_runtimes.BY_FILE:
        file = runtimes.onnx_file(model, inputs[0])
        return mobile_runtimes.BY_FILE[who](file, inputs[0])
    return by_runtime(who, runtimes.onnx_file(model, inputs[0]), inputs[0])


def by_runtime(who: str, file: bytes | Path, image: Tensor) -> Callable[[object], Any]:
    """An ONNX file in one of the two runtimes."""
    return RUNTIMES[who](file, image)


def in_channels_last(model: nn.Module, inputs: tuple[Tensor, ...]):
    import copy

    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = tuple(
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs
    )
    return last, images


def infer(module: Callable[..., Any], inputs: Sequence[Any]) -> Callable[[object], Any]:
    def run(_: object) -> Any:
        with torch.no_grad():
            return module(*inputs)

    return run


def difference(one: Any, other: Any) -> float:
    """The largest difference of two results, over the largest number of the first."""
    worst = 0.0
    for a, b in zip(_numbers(one), _numbers(other), strict=False):  # runtimes give the first only
        if a.shape != b.shape:
            return math.inf
        scale = a.abs().max().item() if a.numel() else 0.0
        apart = (a - b).abs().max().item() if a.numel() else 0.0
        worst = max(worst, apart / scale if scale else apart)
    return worst


def _numbers(result: Any) -> list[Tensor]:
    leaves = [result] if not isinstance(result, (tuple, list, dict)) else pytree.tree_leaves(result)
    return [torch.as_tensor(x).double() for x in leaves if hasattr(x, "shape")]


def same(results: dict[str, Any]) -> str | None:
    for who, result in results.items():
        apart = difference(results[EAGER], result)
        if not apart <= TOLERANCE:
            return f"{who} differs from {EAGER} by {apart:.2g} of the largest result"
    return None


if __name__ == "__main__":
    import typer

    typer.run(main)
