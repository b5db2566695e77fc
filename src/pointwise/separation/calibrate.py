"""The pointwise half of a separable convolution, fitted to what the layer reads on images.

The decomposition of a weight treats all inputs as equally likely. But neighbouring pixels and
related channels say nearly the same, and what a dropped filter saw, others can tell. So with images
at hand, the depthwise filters stay those of the decomposition and the pointwise weight is the one
that leaves the smallest squared error of the convolution's results on these images: least squares,
over some pixels of every image.

Layers are fitted in the order in which they run. Each reads what the separated layers before it
give, and is to give what the whole network gave: so it mends part of their errors. Source of that:
Zhang, Zou, Ming, He, Sun, "Efficient and Accurate Approximations of Nonlinear Convolutional
Networks", CVPR 2015 ("asymmetric").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointwise.functional.padding import resolve
from pointwise.separation.expand import Expansion
from pointwise.separation.probe import inference

FEWEST = 4  # images: of each four, one says how good the fit to the other three is
MOST_COLUMNS = 4096  # unknowns of a least-squares problem; its matrix is then 128 MB
SAMPLES = 4  # for each unknown
LEAST_SAMPLES = 8192
# What pulls towards the decomposition, as a share of the results' mean square: where images say
# little about a direction, the weight is left as it is there.
RIDGE = 0.01


def batches_of(calibration: Tensor | Iterable[Any]) -> list[Tensor]:
    """A list of batches ``[N, C, H, W]``; of pairs, as data loaders give, the first of each."""
    given = [calibration] if isinstance(calibration, Tensor) else list(calibration)
    batches = [each[0] if isinstance(each, (tuple, list)) else each for each in given]
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.dim() != 4:
            shown = list(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
            raise ValueError(
                "separate: calibration must be images [N, C, H, W], or an iterable of such batches,"
                f" got {shown}"
            )
    images = sum(len(batch) for batch in batches)
    if images < FEWEST:
        raise ValueError(
            f"separate: calibration must have at least {FEWEST} images, better a hundred or more,"
            f" got {images}"
        )
    return [part for batch in batches for part in batch.split(32)]


class NormalEquations:
    """Sums over samples for least squares of ``y [T, o]`` by ``z [T, n]``."""

    def __init__(self) -> None:
        self.zz: Tensor | float = 0.0
        self.zy: Tensor | float = 0.0
        self.y: Tensor | float = 0.0
        self.yy = 0.0
        self.count = 0

    def add(self, z: Tensor, y: Tensor) -> None:
        self.zz = self.zz + (z.T @ z).double()
        self.zy = self.zy + (z.T @ y).double()
        self.y = self.y + y.double().sum(0)
        self.yy += float(y.double().square().sum())
        self.count += len(z)

    def squares(self, weight: Tensor) -> float:
        """The sum of squares of ``y − z·weight``, for a weight ``[n', o]`` of the first columns."""
        n = len(weight)
        found = self.yy - 2 * (weight * self.zy[:n]).sum()  # type: ignore[index]
        return float(found + (weight * (self.zz[:n, :n] @ weight)).sum())  # type: ignore[index]

    def spread(self) -> float:
        """The sum of squares of ``y`` about its mean."""
        return self.yy - float((self.y * self.y).sum()) / max(1, self.count)  # type: ignore[union-attr]


class Fit:
    """Least squares over several numbers of columns, with one decomposition of the matrix."""

    def __init__(self, moments: NormalEquations) -> None:
        self.moments = moments
        assert isinstance(moments.zz, Tensor)
        diagonal = moments.zz.diagonal()
        ridge = RIDGE * float(diagonal.mean()) or 1.0  # of nothing but zeros, all is as good
        own = moments.zz + ridge * torch.eye(len(diagonal), dtype=diagonal.dtype).to(diagonal)
        self.factor = torch.linalg.cholesky(own)

    def near(self, prior: Tensor) -> Tensor:
        """The weight ``[n', o]`` of the first columns that fits best, pulled towards ``prior``."""
        n = len(prior)
        left = self.moments.zy[:n] - self.moments.zz[:n, :n] @ prior  # type: ignore[index]
        # The factor of a leading block is the leading block of the factor.
        return prior + torch.cholesky_solve(left, self.factor[:n, :n])


@torch.no_grad()
def curve(
    network: nn.Module, conv: nn.Conv2d, expansion: Expansion, batches: Sequence[Tensor], most: int
) -> list[float]:
    """Relative errors of ``conv``'s results, fitted with rank 1, 2, … up to ``most``.

    Fitted to three images of four, measured on the fourth: root of the sum of squared errors over
    that of the results' own spread about each channel's mean.
    """
    columns = conv.in_channels // conv.groups
    most = max(1, min(most, MOST_COLUMNS // columns))
    fitted, held = _moments_of(network, conv, expansion, most)
    first = 0
    for number, (x,) in enumerate(inputs_of([(network, conv)], batches)):
        places = _places(x, conv, _per_image(conv, most, batches), number)
        held_out = torch.arange(first, first + len(x), device=x.device) % FEWEST == FEWEST - 1
        first += len(x)
        for mask, moments in ((~held_out, fitted), (held_out, held)):
            if mask.any():
                _add(moments, conv, expansion, most, (x[mask], x[mask]), places[mask])
    errors = []
    fits = [Fit(each) for each in fitted]
    spread = sum(each.spread() for each in held)
    for rank in range(1, most + 1):
        squares = 0.0
        for group, (fit, other) in enumerate(zip(fits, held, strict=True)):
            squares += other.squares(fit.near(_prior(expansion, rank, group).to(fit.factor)))
        errors.append(math.sqrt(max(0.0, squares) / spread) if spread > 0 else 0.0)
    return errors


@torch.no_grad()
def fitted_pointwise(
    original: tuple[nn.Module, nn.Conv2d],
    separated: tuple[nn.Module, nn.Conv2d],
    expansion: Expansion,
    rank: int,
    batches: Sequence[Tensor],
) -> Tensor:
    """The pointwise weight ``[C_out, C_in/groups·rank, 1, 1]`` that fits all images best.

    ``separated`` is the network in which the layers before are separated, and the convolution that
    is still in the place of this one.
    """
    conv = original[1]
    all_of = _moments_of(*original, expansion, rank)[0]
    for number, (x, target) in enumerate(inputs_of([separated, original], batches)):
        places = _places(x, conv, _per_image(conv, rank, batches), number)
        _add(all_of, conv, expansion, rank, (x, target), places)
    own = [
        Fit(moments).near(_prior(expansion, rank, group).to(moments.zz))  # type: ignore[arg-type]
        for group, moments in enumerate(all_of)
    ]
    # From columns j·C + c to the modules' order c·rank + j.
    ordered = [each.unflatten(0, (rank, -1)).permute(2, 1, 0).flatten(1) for each in own]
    return torch.cat(ordered)[:, :, None, None]


def _prior(expansion: Expansion, rank: int, group: int) -> Tensor:
    """The decomposition's pointwise weight of a group, ``[rank·C, o]`` in the order j·C + c."""
    own = expansion.shares[:, :rank].unflatten(0, (expansion.groups, -1))[group]  # [C, rank, o]
    return own.transpose(0, 1).flatten(0, 1)


def _moments_of(
    network, conv, expansion, most
) -> tuple[list[NormalEquations], list[NormalEquations]]:
    return [NormalEquations() for _ in range(conv.groups)], [
        NormalEquations() for _ in range(conv.groups)
    ]


def _add(
    moments: list[NormalEquations],
    conv: nn.Conv2d,
    expansion: Expansion,
    rank: int,
    images: tuple[Tensor, Tensor],
    places: Tensor,
) -> None:
    """Adds what the filters give on the first images, and ``conv`` itself on the second."""
    read, target = (patches(x, conv, places).flatten(0, 1) for x in images)  # [T, C, K]
    filters = expansion.filters[:, :rank].to(read)
    seen = torch.einsum("tck,crk->trc", read, filters)  # [T, rank, C]
    weight = conv.weight.flatten(2)
    each = conv.in_channels // conv.groups
    for group, own in enumerate(moments):
        channels = slice(group * each, (group + 1) * each)
        outputs = weight.unflatten(0, (conv.groups, -1))[group]  # [o, C, K]
        wanted = target[:, channels].flatten(1) @ outputs.flatten(1).T.to(target)
        own.add(seen[:, :, channels].flatten(1), wanted)


def patches(x: Tensor, conv: nn.Conv2d, places: Tensor) -> Tensor:
    """What ``conv`` sees of ``x [N, C, H, W]`` at some results ``places [N, S]``: [N, S, C, K]."""
    edges = _edges(x, conv)
    columns = _sizes(x, conv, edges)[1]
    x = F.pad(x, (edges[2], edges[3], edges[0], edges[1]))
    rows = (places // columns) * conv.stride[0]
    across = (places % columns) * conv.stride[1]
    image = torch.arange(len(x), device=x.device)[:, None]
    taps = [
        x[image, :, rows + i * conv.dilation[0], across + j * conv.dilation[1]]
        for i in range(conv.kernel_size[0])
        for j in range(conv.kernel_size[1])
    ]
    found = torch.stack(taps, dim=3)
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _edges(x: Tensor, conv: nn.Conv2d) -> list[int]:
    return resolve(
        "separate", conv.padding, x.shape[2:], conv.kernel_size, conv.stride, conv.dilation
    )


def _sizes(x: Tensor, conv: nn.Conv2d, edges: Sequence[int]) -> list[int]:
    """Height and width of the result."""
    return [
        (size + sum(edges[2 * i : 2 * i + 2]) - (k - 1) * dilation - 1) // stride + 1
        for i, (size, k, dilation, stride) in enumerate(
            zip(x.shape[2:], conv.kernel_size, conv.dilation, conv.stride, strict=True)
        )
    ]


def _places(x: Tensor, conv: nn.Conv2d, per_image: int, seed: int) -> Tensor:
    """Results ``[N, S]`` to look at, at random: other ones in each image and batch."""
    count = math.prod(_sizes(x, conv, _edges(x, conv)))
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        torch.randperm(count, generator=generator)[:per_image]
        if count > per_image
        else torch.arange(count)
        for _ in range(len(x))
    ]
    return torch.stack(drawn).to(x.device)


def _per_image(conv: nn.Conv2d, rank: int, batches: Sequence[Tensor]) -> int:
    wanted = max(LEAST_SAMPLES, SAMPLES * rank * conv.in_channels // conv.groups)
    return math.ceil(wanted / sum(len(batch) for batch in batches))


class _Enough(Exception):
    """Ends a run of a network as soon as the input that was wanted is known."""


def inputs_of(
    layers: Sequence[tuple[nn.Module, nn.Module]], batches: Sequence[Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """For each batch, the first input of each layer, one in each network."""
    for batch in batches:
        yield tuple(_input_of(network, layer, batch) for network, layer in layers)


def _input_of(network: nn.Module, layer: nn.Module, batch: Tensor) -> Tensor:
    seen: list[Tensor] = []

    def note(part: nn.Module, inputs: tuple) -> None:
        seen.append(inputs[0])
        raise _Enough

    handle = layer.register_forward_pre_hook(note)
    try:
        with inference(network), suppress(_Enough):
            network(batch)
    finally:
        handle.remove()
    return seen[0]
