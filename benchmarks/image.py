"""``pointwise bench image``: convolutions on images, forward, against PyTorch and two runtimes.

Single convolutions, blocks and whole networks: every shape of MobileNetV1 (1.0), MobileNetV2 (1.0)
and ResNet-50 at 224 × 224 pixels, in batches of 1, 8 and 32. ``pointwise bench training`` has the
backward pass.

``mobilenet_v1_b1``        the network on a batch of one; ``mobilenet_v2_b8``, ``resnet50_b32`` …
``block_separable_s2_56x56x128_256_b1``
                           MobileNetV1's block, stride 2, on 56×56 pixels, 128 to 256 channels;
                           ``inverted`` is MobileNetV2's, ``bottleneck`` ResNet-50's
``dw3_s1_112x112x32_b1``   depthwise 3×3; ``pw_56x56x128_256_b1`` pointwise; ``conv3_…`` standard

Who: ``torch_eager`` is a network of plain modules with the same weights, ``torch_channels_last``
the same with weights and images in channels_last, ``torch_compile`` that one compiled,
``onnxruntime`` and ``openvino`` run its ONNX file; networks of ours are made one fused module by
``accelerate``. ``torch_mm``, at pointwise shapes of stride 1, is the matrix product alone. Everyone
in float32, without gradients, on the same number of threads.

Pointwise and channels_last peers get images in channels_last, the rest in PyTorch's usual order;
nobody is timed turning one into the other, but for what happens inside a call. ONNX Runtime and
OpenVINO have layouts of their own, in which whole networks stay; a single convolution pays there
for the way in and out.

Times are warm: who takes less than 10 ms runs several times on the same input, and the time is a
run's mean. So small convolutions find their input in cache, as they do in a network, where the
layer before has just written it; and their weights too, which in a network come from the last cache
or from memory. The limit uses the bandwidth of the cache that input, weights and output fit into.
The runtimes keep memory from run to run, which ``peak MB`` then does not show.

A usual run takes some minutes: all shapes at batch 1, the networks, MobileNetV1 at batch 8 too. The
rest is there for the asking: ``--only 'dw3_*_b8,resnet50'``, or ``--only '*'`` for all, which takes
an hour or more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import image_pairs
import image_shapes
import image_work
import numpy as np
import planned
import runtimes
import torch
from frame import OURS, Case, Contestant, agree
from image_pairs import Pair
from image_shapes import NETWORKS, Block, Convolution
from planned import Planned
from torch import Tensor, nn

from pointwise import accelerate

BATCHES = (1, 8, 32)
USUAL_NETWORKS = ("mobilenet_v1_b1", "mobilenet_v1_b8", "mobilenet_v2_b1", "resnet50_b1")
EPS = torch.finfo(torch.float32).eps


def main(
    json: Path | None = None,
    rounds: int = 7,
    quick: bool = False,
    only: str | None = None,
    device: str = "cpu",
) -> None:
    """Times the chosen cases and prints a table; writes it to ``json`` if given."""
    if device != "cpu":
        import on_device  # which reads this file

        return on_device.run("image", device, json, rounds, quick, only)
    missing = runtimes.missing(inference=True, quick=quick)
    notes = [f"without {who}: {reason}" for who, reason in missing.items()]
    planned.run(plan(frozenset(missing), quick), json, rounds, quick, only, notes)


def plan(missing: frozenset[str] = frozenset(), quick: bool = False) -> list[Planned]:
    """All cases, in the order of the table, without those of the peers that are ``missing``."""
    if quick:
        return list(_quick(missing))
    return [*_networks(missing), *_blocks(missing), *_convolutions(missing)]


def _quick(missing: frozenset[str]) -> Iterator[Planned]:
    for batch in (1, 8):
        name = f"mobilenet_v1_b{batch}"
        yield Planned(name, partial(network_case, "mobilenet_v1", batch, 32, 0.25, missing))
    block = Block("inverted", 10, 8, 8, 48, 1)
    yield Planned(f"{block.name}_b1", partial(block_case, block, 1, missing))
    for shape in (
        Convolution(10, 16, 16, 3, 1, 16),
        Convolution(10, 16, 32),
        Convolution(11, 8, 8, 3, 2),
    ):
        yield Planned(f"{shape.name}_b1", partial(convolution_case, shape, 1, missing))


def _networks(missing: frozenset[str]) -> Iterator[Planned]:
    for network in NETWORKS:
        for batch in BATCHES:
            name = f"{network}_b{batch}"
            make = partial(network_case, network, batch, image_shapes.SIZE, 1.0, missing)
            yield Planned(name, make, name in USUAL_NETWORKS)


def _blocks(missing: frozenset[str]) -> Iterator[Planned]:
    for network in NETWORKS:
        for shape in image_shapes.blocks(network):
            for batch in BATCHES:
                make = partial(block_case, shape, batch, missing)
                yield Planned(f"{shape.name}_b{batch}", make, usual=False)


def _convolutions(missing: frozenset[str]) -> Iterator[Planned]:
    for shape in image_shapes.all_convolutions():
        for batch in BATCHES:
            make = partial(convolution_case, shape, batch, missing)
            yield Planned(f"{shape.name}_b{batch}", make, batch == 1)


# --- cases ----------------------------------------------------------------------------------------


def network_case(
    name: str, batch: int, size: int, width: float = 1.0, missing: frozenset[str] = frozenset()
) -> Case:
    """A whole network on ``batch`` images of ``size`` pixels along both sides."""
    pair = image_pairs.network(name, batch, size, width).train(False)
    pair = replace(pair, ours=accelerate(pair.ours, pair.input))
    shapes = image_shapes.network_convolutions(pair.plain, size)
    linear = pair.plain[-1].weight  # type: ignore[index]
    work = image_work.network_forward(shapes, batch, len(linear), linear.numel())
    return Case(f"{name}_b{batch}", _contestants(pair, missing), _same(shapes), *work)


def block_case(shape: Block, batch: int, missing: frozenset[str] = frozenset()) -> Case:
    """A block."""
    pair = image_pairs.block(shape, batch).train(False)
    shapes = image_shapes.network_convolutions(pair.plain, shape.size, shape.c_in)
    result = shape.c_out * shapes[-1].out ** 2
    work = image_work.network_forward(shapes, batch, result)
    return Case(f"{shape.name}_b{batch}", _contestants(pair, missing), _same(shapes), *work)


def convolution_case(shape: Convolution, batch: int, missing: frozenset[str] = frozenset()) -> Case:
    """A single convolution."""
    pair = image_pairs.convolution(shape, batch).train(False)
    contestants = _contestants(pair, missing)
    if shape.kind == "pw" and shape.stride == 1:
        contestants.append(Contestant("torch_mm", matrix_product(pair), steady=True))
    work = image_work.forward(shape, batch)
    return Case(f"{shape.name}_b{batch}", contestants, _same([shape]), *work)


def matrix_product(pair: Pair) -> Callable[[object], Tensor]:
    """``torch.mm`` of the pixels with the weights of a pointwise convolution."""
    pixels = pair.input.permute(0, 2, 3, 1)
    rows, weight = pixels.flatten(0, 2), pair.plain.weight.detach().flatten(1).t()  # type: ignore[operator]

    def run(_: object) -> Tensor:
        with torch.inference_mode():
            out = torch.mm(rows, weight)
        return out.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)

    return run


def _contestants(pair: Pair, missing: frozenset[str]) -> list[Contestant]:
    """Everyone who is not missing."""
    image, usual = pair.input, pair.input.contiguous()
    last = pair.channels_last
    runs: dict[str, Callable[[object], Any]] = {
        OURS: runtimes.infer(pair.ours, image),
        "torch_eager": runtimes.infer(pair.plain, usual),
        "torch_channels_last": runtimes.infer(last, image),
    }
    if runtimes.COMPILE not in missing:
        runs[runtimes.COMPILE] = runtimes.infer(runtimes.compiled(last), image)
    engines = {
        runtimes.ONNXRUNTIME: runtimes.by_onnxruntime,
        runtimes.OPENVINO: runtimes.by_openvino,
    }
    if set(engines) - missing:
        file = _onnx(pair.plain, usual)
        runs |= {who: make(file, usual) for who, make in engines.items() if who not in missing}
    return [Contestant(who, run, steady=True) for who, run in runs.items()]


def _onnx(plain: nn.Module, image: Tensor) -> bytes:
    if isinstance(plain, nn.Conv2d):
        return runtimes.convolution_file(plain, image)
    return runtimes.onnx_file(plain, image)


def _same(shapes: list[Convolution]) -> Callable[[dict[str, Any]], str | None]:
    """A check: all results are equal but for rounding in sums as long as these convolutions'.

    Every convolution adds errors of its own, which are independent of those before.
    """
    longest = max(shape.c_in // shape.groups * shape.kernel**2 for shape in shapes)
    check = agree(8 * EPS * math.sqrt(longest * len(shapes)))
    return lambda results: check({who: [np.asarray(out)] for who, out in results.items()})


if __name__ == "__main__":
    import typer

    typer.run(main)
