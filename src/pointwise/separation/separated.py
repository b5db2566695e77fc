"""``separate``: standard convolutions become depthwise separable ones, with their weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pointwise import checks
from pointwise.costs import cost
from pointwise.layers import DepthwiseSeparableConv2d
from pointwise.messages import duration
from pointwise.separation import calibrate, measure
from pointwise.separation.candidates import NOT_FINITE
from pointwise.separation.choose import (
    Candidate,
    Progress,
    by_budget,
    by_error,
    by_rank,
    candidates,
    errors_of,
)
from pointwise.separation.expand import composed
from pointwise.separation.probe import Calls, full_rank, probe, separable_weights, standard_weights
from pointwise.separation.replace import fill, put, stand_in
from pointwise.separation.report import SeparatedLayer, SeparationReport
from pointwise.timing import BUSY, Watch, ratio

OF = ("multiply_adds", "parameters")
Made = dict[str, DepthwiseSeparableConv2d]
Timed = dict[str, measure.BeforeAfter]
Seen = dict[str, Calls] | None  # nothing without an input


class Separated(NamedTuple):
    """The network with separable convolutions, and what was done."""

    module: nn.Module
    report: SeparationReport


def separate(
    module: nn.Module,
    *,
    error: float | None = None,
    budget: float | None = None,
    rank: int | Mapping[str, int] | None = None,
    of: str = "multiply_adds",
    input: Tensor | Sequence[int] | None = None,
    calibration: Tensor | Iterable[Any] | None = None,
    timed: bool = False,
    only_faster: bool = False,
    batch: int = 1,
    inplace: bool = False,
    progress: Progress | None = None,
) -> Separated:
    """Replaces standard convolutions by a depthwise and a pointwise one each.

    A weight is decomposed into ``rank`` depthwise filters for each input channel and a pointwise
    weight behind them (see ``pointwise.separation.expand``), exactly from ``min(C_out/groups,
    kh·kw)`` on. The ranks follow from one of these:

    ``error``   each layer's smallest rank with at most this relative error: of the weights, or,
                with ``calibration``, of the results for images that were not fitted
    ``budget``  the ranks with the smallest errors that keep the whole network within so many
                ``"multiply_adds"`` or ``"parameters"`` (``of``): up to 1 a share of what it has,
                above 1 a number. Errors are the sum of the layers' squared relative errors
    ``rank``    a rank for all layers, or ``{name: rank}`` for some

    By error or budget, a convolution is left alone where its rank would multiply as much as it does
    itself. All channels of a layer have the same rank: a depthwise convolution has one depth
    multiplier.

    ``input`` is an example ``[N, C, H, W]``, or its shape: with it multiply-adds are counted and
    outputs are compared. ``calibration`` are images as the network reads them, a tensor or batches,
    a hundred or more: with them pointwise weights are fitted to what the layers give, which matters
    more than any choice of ranks. ``timed`` measures every layer before and after, on ``batch``
    images at once; ``only_faster`` leaves alone what is not measured to be faster, and raises
    ValueError where the machine is too busy to tell.

    The given module stays as it is, unless ``inplace``. Raises ValueError for arguments that do not
    fit, and for a budget that cannot be kept.

    >>> network = torch.nn.Sequential(Conv2d(8, 32, 3, padding=1), torch.nn.ReLU())
    >>> separated, report = separate(network, rank=2, input=(1, 8, 16, 16))
    >>> report.multiply_adds
    (589824, 167936)
    """
    _check(module, error, budget, rank, of, batch)
    if inplace and isinstance(module, nn.Conv2d):
        raise ValueError("separate: a lone convolution cannot be replaced inplace; take the result")
    batches = None if calibration is None else calibrate.batches_of(calibration)
    example = _example(module, input, batches)
    for name, given in (("timed", timed), ("only_faster", only_faster)):
        if given and example is None:
            raise ValueError(f"separate: {name} needs input, an example or its shape")
    if budget is not None and of == "multiply_adds" and example is None:
        raise ValueError(
            "separate: multiply-adds depend on the size of images; give input, an example or its"
            ' shape, or count of="parameters"'
        )
    progress = progress or (lambda *_: None)
    old, new = (copy.deepcopy(module), module) if inplace else (module, copy.deepcopy(module))
    seen = None if example is None else probe(old, example[:1])
    layers = candidates(old, seen)
    for layer in layers:
        if layer.why == NOT_FINITE:
            warnings.warn(
                f"separate: {layer.name or 'the convolution'} is left as it is, for {layer.why}: "
                "it holds NaN or infinity, and so will what the network gives",
                stacklevel=2,
            )
    if rank is not None:
        by_rank(layers, rank)
    else:
        errors = errors_of(old, layers, batches, progress)
        if error is not None:
            by_error(layers, error, errors)
        elif budget is not None:
            by_budget(layers, budget, of, _whole(old, of, example), errors)
    times: Timed = {}
    busy = ""
    if timed or only_faster:
        with Watch() as watch:
            times = _times(layers, seen, batch, progress)
        busy = watch.busy(*(each for pair in times.values() for each in pair))
    if only_faster:
        if busy:
            raise ValueError(
                f"separate: only_faster cannot be decided, since {BUSY} ({busy}); run it again when"
                " it is idle, or without only_faster"
            )
        _leave_slower(layers, times)
    new, made = _build(old, new, layers, batches, progress)
    report = _report(old, new, layers, made, times, seen, example, batch, busy, progress)
    return Separated(new, report)


def _check(module, error, budget, rank, of, batch) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"separate: module must be a torch.nn.Module, got {type(module).__name__}")
    given = [
        name
        for name, value in (("error", error), ("budget", budget), ("rank", rank))
        if value is not None
    ]
    if len(given) != 1:
        raise ValueError(
            "separate: give one of error, budget and rank, such as budget=0.5 for half the"
            f" multiply-adds; got {' and '.join(given) or 'none'}"
        )
    if error is not None and not 0 <= error < 1:
        raise ValueError(f"separate: error must lie from 0 to less than 1, got {error!r}")
    if budget is not None and not budget > 0:
        raise ValueError(
            f"separate: budget must be a share up to 1, or a number above it, got {budget!r}"
        )
    if isinstance(rank, bool) or not isinstance(rank, (int, Mapping, type(None))):
        raise TypeError(f"separate: rank must be a number or {{name: rank}}, got {rank!r}")
    if isinstance(rank, int) and rank < 1:
        raise ValueError(f"separate: rank must be 1 or more, got {rank}")
    checks.one_of("separate", "of", of, OF)
    checks.positive("separate", "batch", batch)


def _example(module: nn.Module, input, batches: list[Tensor] | None) -> Tensor | None:
    """An input that the network can be called with, where anything tells one."""
    if input is None:
        return None if batches is None else batches[0]
    if isinstance(input, Tensor):
        found = input
    else:
        sizes = list(input)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(
                "separate: input must be a tensor, or a shape such as (1, 3, 224, 224), got"
                f" {input}"
            )
        generator = torch.Generator().manual_seed(0)
        like = next(module.parameters(), torch.empty(()))
        found = torch.randn(sizes, generator=generator).to(like)
    if found.dim() < 2 or len(found) == 0:
        raise ValueError(
            f"separate: input must be a batch [N, C, H, W] of at least one, got {list(found.shape)}"
        )
    return found


def _whole(module: nn.Module, of: str, example: Tensor | None) -> int:
    """All parameters of a network, or all multiply-adds for one image."""
    if of == "parameters":
        return sum(parameter.numel() for parameter in module.parameters())
    assert example is not None
    return cost(module, example[:1]).totals.multiply_adds


def _times(layers: list[Candidate], seen: Seen, batch: int, progress: Progress) -> Timed:
    found = {}
    chosen = [layer for layer in layers if layer.rank is not None]
    for number, layer in enumerate(chosen):
        progress("timing layers", number, len(chosen))
        assert layer.rank is not None
        assert seen is not None
        made = stand_in(layer.conv, layer.rank)
        found[layer.name] = measure.layer_times(layer.conv, made, seen[layer.name], batch)
    return found


def _leave_slower(layers: list[Candidate], times: Timed) -> None:
    """What was not measured to be faster stays as it is."""
    for layer in layers:
        if layer.rank is None or ratio(*times[layer.name]).is_above:
            continue
        before, after = times[layer.name]
        share = separable_weights(layer.conv, layer.rank) / standard_weights(layer.conv)
        layer.why = (
            f"not faster at rank {layer.rank} ({duration(after.median)}, now"
            f" {duration(before.median)}) with {100 * share:.0f} % of the multiply-adds"
        )
        layer.rank = None


def _build(
    old: nn.Module,
    new: nn.Module,
    layers: list[Candidate],
    batches: list[Tensor] | None,
    progress: Progress,
) -> tuple[nn.Module, Made]:
    """Puts the separable convolutions into ``new``, one after the other as they run."""
    places = dict(new.named_modules())
    chosen = [layer for layer in layers if layer.rank is not None]
    made: Made = {}
    for number, layer in enumerate(chosen):
        progress("separating", number, len(chosen))
        conv, place, rank = layer.conv, places[layer.name], layer.rank
        assert isinstance(place, nn.Conv2d)
        assert rank is not None
        expansion = layer.expansion
        if batches is None:
            pointwise = expansion.pointwise(rank)
        else:
            pointwise = calibrate.fitted_pointwise(
                (old, conv), (new, place), expansion, rank, batches
            )
        made[layer.name] = stand_in(place, rank)
        fill(made[layer.name], expansion.depthwise(rank), pointwise)
        new = put(new, {place: made[layer.name]})
    return new, made


def _report(
    old: nn.Module,
    new: nn.Module,
    layers: list[Candidate],
    made: Made,
    times: Timed,
    seen: Seen,
    example: Tensor | None,
    batch: int,
    busy: str,
    progress: Progress,
) -> SeparationReport:
    off: dict[nn.Module, float] = {}
    if example is not None and made:
        every: dict[nn.Module, DepthwiseSeparableConv2d] = {
            layer.conv: made[layer.name] for layer in layers if layer.name in made
        }
        off = measure.layer_errors(old, every, example)
    rows = [_row(layer, made.get(layer.name), times, off, seen) for layer in layers]
    multiply_adds = milliseconds = gain = error = None
    if example is not None:
        multiply_adds = _whole(old, OF[0], example), _whole(new, OF[0], example)
        progress("comparing outputs", 0, 1)
        error = measure.network_error(old, new, example)
        if times:
            progress("timing the network", 0, 1)
            with Watch() as watch:
                whole = measure.network_times(old, new, _repeated(example, batch))
            milliseconds, gain = _medians(whole), ratio(*whole)
            kept = {layer.name: times[layer.name] for layer in layers if layer.rank is not None}
            busy = busy or watch.busy(*whole) or measure.contradiction(kept, whole)
    parameters = _whole(old, OF[1], example), _whole(new, OF[1], example)
    return SeparationReport(
        tuple(rows), parameters, multiply_adds, milliseconds, gain, error, batch, busy
    )


def _medians(times: measure.BeforeAfter) -> tuple[float, float]:
    return times[0].median, times[1].median


def _repeated(example: Tensor, batch: int) -> Tensor:
    """``batch`` images: the first ones, over and over where there are not so many."""
    return example[torch.arange(batch, device=example.device) % len(example)]


def _row(
    layer: Candidate,
    made: DepthwiseSeparableConv2d | None,
    times: Timed,
    off: dict[nn.Module, float],
    seen: Seen,
) -> SeparatedLayer:
    conv = layer.conv
    before = sum(parameter.numel() for parameter in conv.parameters())
    if made is None or layer.rank is None:
        return SeparatedLayer(layer.name, 0, why=layer.why, parameters=(before, before))
    multiply_adds = None
    if seen is not None:
        each = standard_weights(conv), separable_weights(conv, layer.rank)
        multiply_adds = each[0] * layer.points, each[1] * layer.points
    measured = times.get(layer.name)
    return SeparatedLayer(
        layer.name,
        full_rank(conv),
        layer.rank,
        parameters=(before, sum(parameter.numel() for parameter in made.parameters())),
        multiply_adds=multiply_adds,
        milliseconds=None if measured is None else _medians(measured),
        gain=None if measured is None else ratio(*measured),
        weight_error=_weight_error(conv, made, layer.rank),
        output_error=off.get(conv),
    )


def _weight_error(conv: nn.Conv2d, made: DepthwiseSeparableConv2d, rank: int) -> float:
    depthwise, pointwise = made.depthwise.conv.weight, made.pointwise.conv.weight
    with torch.no_grad():
        found = composed(depthwise.double(), pointwise.double(), rank, conv.groups)
        weight = conv.weight.double()
        size = float(weight.norm())
        return float((found - weight).norm()) / size if size else 0.0
