"""What other libraries call the layers of our image networks.

Each function gives, for one network and one library, their name of each layer that holds
parameters, and ours. The tables are made by walking over the network, so they hold for any width.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pointwise.layers import InvertedResidual
from pointwise.networks.efficientnet import EfficientNetB0
from pointwise.networks.mobilenet_v1 import MobileNetV1
from pointwise.networks.mobilenet_v2 import MobileNetV2
from pointwise.networks.mobilenet_v3 import MobileNetV3
from pointwise.networks.xception import Xception

Names = dict[str, str]
"""From their names of layers to ours, without ``.weight``, ``.bias`` and the like."""

Pairs = Iterator[tuple[str, str]]
"""The same, one by one."""

Staged = MobileNetV1 | MobileNetV2 | MobileNetV3 | EfficientNetB0


def known_names(network: nn.Module) -> dict[str, Names]:
    """The tables for ``network``, by the name of the library; its own names come first."""
    own = {name: name for name, module in network.named_modules() if _holds(module)}
    tables = {type(network).__name__: own}
    if isinstance(network, Staged):
        tables["timm"] = dict(_timm(network))
    if isinstance(network, MobileNetV2 | MobileNetV3 | EfficientNetB0):
        tables["torchvision"] = dict(_torchvision(network))
    if isinstance(network, MobileNetV1):
        tables["RetinaFace"] = dict(_retinaface())
    if isinstance(network, Xception):
        tables["timm"] = dict(_timm_xception(network))
    return tables


def _holds(module: nn.Module) -> bool:
    return bool(module._parameters or module._buffers)


def _pair(conv: str, norm: str, ours: str) -> Pairs:
    """A ``ConvNormAct`` is a convolution and a norm to others."""
    yield conv, f"{ours}.conv"
    yield norm, f"{ours}.norm"


def _places(network: Staged) -> Iterator[tuple[nn.Module, str, int, int]]:
    """Each block, our name of it, its stage, and its index there."""
    places = [(stage, i) for stage, depth in enumerate(network.depths) for i in range(depth)]
    for number, (stage, place) in enumerate(places):
        yield network.blocks[number], f"blocks.{number}", stage, place


# --- torchvision ----------------------------------------------------------------------------------


def _torchvision(network: MobileNetV2 | MobileNetV3 | EfficientNetB0) -> Pairs:
    yield from _pair("features.0.0", "features.0.1", "stem")
    number = 0
    for number, (block, ours, stage, place) in enumerate(_places(network), start=1):
        assert isinstance(block, InvertedResidual)
        if isinstance(network, MobileNetV2):
            yield from _torchvision_plain(block, f"features.{number}.conv", ours)
        elif isinstance(network, MobileNetV3):
            yield from _torchvision_block(block, f"features.{number}.block", ours)
        else:
            yield from _torchvision_block(block, f"features.{stage + 1}.{place}.block", ours)
    last = len(network.depths) if isinstance(network, EfficientNetB0) else number
    yield from _pair(f"features.{last + 1}.0", f"features.{last + 1}.1", "last")
    if isinstance(network, MobileNetV3):
        yield "classifier.0", "hidden"
        yield "classifier.3", "classifier"
    else:
        yield "classifier.1", "classifier"


def _torchvision_plain(block: InvertedResidual, theirs: str, ours: str) -> Pairs:
    """In MobileNetV2 the last convolution and its norm stand on their own."""
    before = ["depthwise"] if block.expand is None else ["expand", "depthwise"]
    for number, part in enumerate(before):
        yield from _pair(f"{theirs}.{number}.0", f"{theirs}.{number}.1", f"{ours}.{part}")
    number = len(before)
    yield from _pair(f"{theirs}.{number}", f"{theirs}.{number + 1}", f"{ours}.project")


def _torchvision_block(block: InvertedResidual, theirs: str, ours: str) -> Pairs:
    for number, (part, _) in enumerate(block.named_children()):
        if part == "excite":
            yield f"{theirs}.{number}.fc1", f"{ours}.excite.reduce.conv"
            yield f"{theirs}.{number}.fc2", f"{ours}.excite.restore.conv"
        else:
            yield from _pair(f"{theirs}.{number}.0", f"{theirs}.{number}.1", f"{ours}.{part}")


# --- timm -----------------------------------------------------------------------------------------


def _timm(network: Staged) -> Pairs:
    yield from _pair("conv_stem", "bn1", "stem")
    for block, ours, stage, place in _places(network):
        theirs = f"blocks.{stage}.{place}"
        for part, conv, norm in _timm_parts(block):
            yield from _pair(f"{theirs}.{conv}", f"{theirs}.{norm}", f"{ours}.{part}")
        if getattr(block, "excite", None) is not None:
            yield f"{theirs}.se.conv_reduce", f"{ours}.excite.reduce.conv"
            yield f"{theirs}.se.conv_expand", f"{ours}.excite.restore.conv"
    if isinstance(network, MobileNetV3):
        stage = len(network.depths)
        yield from _pair(f"blocks.{stage}.0.conv", f"blocks.{stage}.0.bn1", "last")
        yield "conv_head", "hidden"
    elif not isinstance(network, MobileNetV1):
        yield from _pair("conv_head", "bn2", "last")
    yield "classifier", "classifier"


def _timm_parts(block: nn.Module) -> tuple[tuple[str, str, str], ...]:
    """Our name of a layer, theirs of its convolution and of its norm."""
    if not isinstance(block, InvertedResidual):
        return ("depthwise", "conv_dw", "bn1"), ("pointwise", "conv_pw", "bn2")
    if block.expand is None:
        return ("depthwise", "conv_dw", "bn1"), ("project", "conv_pw", "bn2")
    return (
        ("expand", "conv_pw", "bn1"),
        ("depthwise", "conv_dw", "bn2"),
        ("project", "conv_pwl", "bn3"),
    )


def _timm_xception(network: Xception) -> Pairs:
    for number in (0, 1):
        yield from _pair(f"conv{number + 1}", f"bn{number + 1}", f"stem.{number}")
        theirs, ours = f"conv{number + 3}", f"last.{number}"
        yield from _timm_separable(theirs, f"bn{number + 3}", ours)
    for number, block in enumerate(network.blocks):
        theirs, ours = f"block{number + 1}", f"blocks.{number}"
        for i in range(len(block.separables)):  # type: ignore[arg-type]
            first = 3 * i + (0 if block.first else 1)  # they count the ReLUs too
            yield from _timm_separable(
                f"{theirs}.rep.{first}", f"{theirs}.rep.{first + 1}", f"{ours}.separables.{i}"
            )
        if block.shortcut is not None:
            yield from _pair(f"{theirs}.skip", f"{theirs}.skipbn", f"{ours}.shortcut")
    yield "fc", "classifier"


def _timm_separable(theirs: str, norm: str, ours: str) -> Pairs:
    yield f"{theirs}.conv1", f"{ours}.depthwise.conv"
    yield from _pair(f"{theirs}.pointwise", norm, f"{ours}.pointwise")


# --- RetinaFace -----------------------------------------------------------------------------------


def _retinaface() -> Pairs:
    """The backbone of biubug6's face detectors: MobileNetV1 ×0.25 in three stages."""
    yield from _pair("body.stage1.0.0", "body.stage1.0.1", "stem")
    places = [(1, i) for i in range(1, 6)] + [(2, i) for i in range(6)] + [(3, i) for i in range(2)]
    for number, (stage, place) in enumerate(places):
        theirs, ours = f"body.stage{stage}.{place}", f"blocks.{number}"
        yield from _pair(f"{theirs}.0", f"{theirs}.1", f"{ours}.depthwise")
        yield from _pair(f"{theirs}.3", f"{theirs}.4", f"{ours}.pointwise")
