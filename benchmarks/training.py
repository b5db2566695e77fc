"""``pointwise bench training``: convolutions on images, forward and backward, against PyTorch.

The shapes are those of ``pointwise bench image``, and so are the names, with ``_train`` at the end.

``mobilenet_v1_train``   a training step without the optimiser: logits of 16 images of 128 × 128
                         pixels, cross-entropy, the gradients of all weights. Batch norm in
                         training, no dropout, since random numbers would differ. The same for
                         ``mobilenet_v2_train`` and ``resnet50_train``; at 224 × 224 pixels in other
                         batches, ``mobilenet_v1_b8_train``, ``resnet50_b32_train`` …
``block_…_b8_train``     a block, and the gradients of its input and weights
``dw3_s1_56x56x128_b8_train``, ``pw_…``, ``conv3_…``
                         a convolution, and the gradients of its input and weight

Who: ``torch_eager`` is a network of plain modules with the same weights, ``torch_channels_last``
the same with weights and images in channels_last, ``torch_compile`` that one compiled; where a
pointwise convolution has stride 1, ``torch_mm`` is its three matrix products alone. Everyone in
float32 and on the same number of threads.

Times are warm, as in ``pointwise bench image``. A usual run takes some minutes: the steps of both
MobileNets, and the convolutions and blocks of MobileNetV1 in batches of 8. The rest is there for
the asking (``--only resnet50_train``, ``--only 'dw3_*'``, ``--only '*'``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import image_pairs
import image_shapes
import image_work
import planned
import runtimes
import torch
import torch.nn.functional as F
from frame import OURS, Case, Contestant, agree
from image_pairs import Pair
from image_shapes import NETWORKS, Block, Convolution
from planned import Planned
from torch import Tensor, nn

STEP_BATCH, STEP_SIZE = 16, 128
BATCHES = (1, 8, 32)
EPS = torch.finfo(torch.float32).eps

Step = Callable[[Sequence[Tensor], Callable, Tensor], list[Tensor]]
"""Of weights, the module that they belong to and its input: the output or the loss, detached, then
the gradients."""
Check = Callable[[dict[str, Any]], str | None]
# How far gradients may be apart because of ReLUs, in networks and in single blocks.
NETWORK_KINKS, BLOCK_KINKS = 0.15, 0.02


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

        return on_device.run("training", device, json, rounds, quick, only)
    missing = runtimes.missing(inference=False, quick=quick)
    notes = [f"without {who}: {reason}" for who, reason in missing.items()]
    planned.run(plan(frozenset(missing), quick), json, rounds, quick, only, notes)


def plan(missing: frozenset[str] = frozenset(), quick: bool = False) -> list[Planned]:
    """All cases, in the order of the table, without those of the peers that are ``missing``."""
    if quick:
        return list(_quick(missing))
    return [*_networks(missing), *_blocks(missing), *_convolutions(missing)]


def _quick(missing: frozenset[str]) -> Iterator[Planned]:
    name = "mobilenet_v1_train"
    yield Planned(name, partial(network_case, name, "mobilenet_v1", 2, 64, 0.25, missing))
    block = Block("separable", 10, 8, 16, 8, 2)
    yield Planned(f"{block.name}_b8_train", partial(block_case, block, 8, missing))
    for shape in (Convolution(10, 16, 16, 3, 2, 16), Convolution(10, 16, 32)):
        yield Planned(f"{shape.name}_b8_train", partial(convolution_case, shape, 8, missing))


def _networks(missing: frozenset[str]) -> Iterator[Planned]:
    for network in NETWORKS:
        name = f"{network}_train"
        make = partial(network_case, name, network, STEP_BATCH, STEP_SIZE, 1.0, missing)
        yield Planned(name, make, usual=network != "resnet50")
        for batch in BATCHES:
            name = f"{network}_b{batch}_train"
            make = partial(network_case, name, network, batch, image_shapes.SIZE, 1.0, missing)
            yield Planned(name, make, usual=False)


def _blocks(missing: frozenset[str]) -> Iterator[Planned]:
    for network in NETWORKS:
        for shape in image_shapes.blocks(network):
            for batch in BATCHES:
                make = partial(block_case, shape, batch, missing)
                usual = network == "mobilenet_v1" and batch == 8
                yield Planned(f"{shape.name}_b{batch}_train", make, usual)


def _convolutions(missing: frozenset[str]) -> Iterator[Planned]:
    first = image_shapes.convolutions("mobilenet_v1")
    for shape in image_shapes.all_convolutions():
        for batch in BATCHES:
            make = partial(convolution_case, shape, batch, missing)
            yield Planned(f"{shape.name}_b{batch}_train", make, shape in first and batch == 8)


# --- cases ----------------------------------------------------------------------------------------


def network_case(
    name: str,
    network: str,
    batch: int,
    size: int,
    width: float = 1.0,
    missing: frozenset[str] = frozenset(),
) -> Case:
    """Loss and gradients of a network on ``batch`` images of ``size`` pixels along both sides."""
    pair = image_pairs.network(network, batch, size, width).train(True)
    shapes = image_shapes.network_convolutions(pair.plain, size)
    linear = pair.plain[-1].weight  # type: ignore[index]
    work = image_work.network_training(shapes, batch, linear.numel())
    labels = torch.randint(len(linear), (batch,))

    def step(weights: Sequence[Tensor], module: Callable, images: Tensor) -> list[Tensor]:
        loss = F.cross_entropy(module(images), labels)
        return [loss.detach(), *torch.autograd.grad(loss, weights)]

    check = same_steps(shapes, NETWORK_KINKS)
    return Case(name, _contestants(pair, step, missing), check, *work)


def block_case(shape: Block, batch: int, missing: frozenset[str] = frozenset()) -> Case:
    """A block, and the gradients of its input and weights."""
    pair = image_pairs.block(shape, batch).train(True)
    shapes = image_shapes.network_convolutions(pair.plain, shape.size, shape.c_in)
    work = image_work.network_training(shapes, batch, input_gradient=True)
    name = f"{shape.name}_b{batch}_train"
    check = same_steps(shapes, BLOCK_KINKS)
    return Case(name, _contestants(pair, _back(pair), missing), check, *work)


def convolution_case(shape: Convolution, batch: int, missing: frozenset[str] = frozenset()) -> Case:
    """A single convolution, and the gradients of its input and weight."""
    pair = image_pairs.convolution(shape, batch).train(True)
    contestants = _contestants(pair, _back(pair), missing)
    if shape.kind == "pw" and shape.stride == 1:
        contestants.append(Contestant("torch_mm", _matrix_products(pair), steady=True))
    work = image_work.training(shape, batch)
    name = f"{shape.name}_b{batch}_train"
    return Case(name, contestants, same_convolution(shape, batch), *work)


def _back(pair: Pair) -> Step:
    """The output, and from a gradient of it those of the input and the weights."""
    usual = _gradient(pair)
    last = usual.contiguous(memory_format=torch.channels_last)

    def step(weights: Sequence[Tensor], module: Callable, image: Tensor) -> list[Tensor]:
        image = image.detach().requires_grad_()
        out = module(image)
        gradient = usual if out.is_contiguous() else last
        return [out.detach(), *torch.autograd.grad(out, [image, *weights], gradient)]

    return step


def _matrix_products(pair: Pair) -> Callable[[object], list[Tensor]]:
    """A pointwise convolution's products: result, input's gradient, weight's gradient."""
    pixels = pair.input.permute(0, 2, 3, 1)
    rows, weight = pixels.flatten(0, 2), pair.plain.weight.detach()  # type: ignore[operator]
    matrix = weight.flatten(1)
    gradient = _gradient(pair).permute(0, 2, 3, 1).contiguous().flatten(0, 2)

    def run(_: object) -> list[Tensor]:
        out = torch.mm(rows, matrix.t())
        of_rows = torch.mm(gradient, matrix)
        of_matrix = torch.mm(gradient.t(), rows)
        images = [x.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2) for x in (out, of_rows)]
        return [*images, of_matrix.view_as(weight)]

    return run


def _gradient(pair: Pair) -> Tensor:
    """That of the output, random, the same at every call."""
    with torch.no_grad():
        out = pair.plain(pair.input)
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(1))


def _contestants(pair: Pair, step: Step, missing: frozenset[str]) -> list[Contestant]:
    """Everyone who is not missing."""
    image, last = pair.input, pair.channels_last

    def contestant(who: str, module: nn.Module, call: Callable, image: Tensor) -> Contestant:
        weights = list(module.parameters())
        return Contestant(who, lambda _: step(weights, call, image), steady=True)

    contestants = [
        contestant(OURS, pair.ours, pair.ours, image),
        contestant("torch_eager", pair.plain, pair.plain, image.contiguous()),
        contestant("torch_channels_last", last, last, image),
    ]
    if runtimes.COMPILE not in missing:
        compiled = runtimes.compiled(last)
        contestants.append(contestant(runtimes.COMPILE, last, compiled, image))
    return contestants


# --- checks ---------------------------------------------------------------------------------------


def same_convolution(shape: Convolution, batch: int) -> Check:
    """All results are equal but for rounding in sums as long as the longest here."""
    taps = max(shape.c_in, shape.c_out) // shape.groups * shape.kernel**2
    longest = max(taps, batch * shape.out**2)
    return agree(8 * EPS * math.sqrt(longest))


def same_steps(shapes: list[Convolution], kinks: float) -> Check:
    """Outputs are equal but for rounding; gradients in the mean, by a share of ``kinks``.

    Where a value is within rounding of zero, the ReLU of one lets its gradient through and that of
    another does not. So gradients differ in single places by as much as they are large, and in deep
    networks that adds up: between PyTorch's own two layouts to some percent of a weight's gradient,
    as a root mean square. What that hides is seen at the single convolutions and blocks.
    """
    longest = max(shape.c_in // shape.groups * shape.kernel**2 for shape in shapes)
    outputs = agree(8 * EPS * math.sqrt(longest * len(shapes)))

    def check(results: dict[str, Any]) -> str | None:
        if wrong := outputs({who: result[:1] for who, result in results.items()}):
            return wrong
        first, *others = results
        whole = math.sqrt(sum(float(g.norm()) ** 2 for g in results[first][1:]))
        for who in others:
            pairs = zip(results[first][1:], results[who][1:], strict=True)
            for number, (mine, theirs) in enumerate(pairs, start=1):
                error = float((mine - theirs).norm())
                # Some gradients are zero but for rounding: those of biases that a norm takes out.
                allowed = kinks * float(mine.norm()) + 1e-4 * whole
                if not error <= allowed:
                    return (
                        f"{who} differs from {first} by {error:.2g} (root of the sum of squares) "
                        f"in gradient {number}, more than {allowed:.2g}"
                    )
        return None

    return check


if __name__ == "__main__":
    import typer

    typer.run(main)
