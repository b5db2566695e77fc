"""``compare``: what each way to do a job costs, by count and by the clock, in ours and PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pointwise import checks
from pointwise.comparison.variants import VARIANTS, Job, Variant, made
from pointwise.costs import cost
from pointwise.timing import Ratio, Run, Times, Watch, gpu, in_turns, ratio

OURS, TORCH, LAST = "ours", "torch", "torch channels_last"
WHO = (OURS, TORCH, LAST)
Measured = dict[str, Times]  # by who
Progress = Callable[[str, int, int], object]  # what is timed, how much of it is done, of how much


@dataclass(frozen=True)
class VariantResult:
    """What one variant costs. Multiply-adds are those of the whole batch."""

    kind: str
    parameters: int
    multiply_adds: int
    forward: Measured
    backward: Measured

    def best_of_torch(self, direction: str) -> Times:
        """The faster of PyTorch's two memory layouts."""
        measured: Measured = getattr(self, direction)
        return min((measured[TORCH], measured[LAST]), key=lambda times: times.median)


@dataclass(frozen=True)
class Comparison:
    """The variants that can do a job, and why the others cannot.

    ``busy`` says why nothing can be concluded from the times; it is empty where all can.
    """

    job: Job
    rows: tuple[VariantResult, ...]
    impossible: dict[str, str]
    threads: int
    busy: str = ""

    def row(self, kind: str) -> VariantResult:
        return next(row for row in self.rows if row.kind == kind)

    def by_count(self, row: VariantResult) -> float:
        """The speed-up over the standard convolution that the count predicts."""
        return self.row("standard").multiply_adds / row.multiply_adds

    def by_clock(self, row: VariantResult, who: str = OURS, direction: str = "forward") -> Ratio:
        """The speed-up over the standard convolution that was measured, round by round."""
        first, own = (getattr(each, direction)[who] for each in (self.row("standard"), row))
        return ratio(first, own)

    def of_torch(self, row: VariantResult, direction: str = "forward") -> Ratio:
        """PyTorch's own speed-up, of each side the faster memory layout."""
        return ratio(self.row("standard").best_of_torch(direction), row.best_of_torch(direction))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and words, for JSON; times are milliseconds."""
        job = self.job
        return {
            "in": [job.height, job.width, job.in_channels],
            "out": job.out_channels,
            "kernel": job.kernel,
            "stride": job.stride,
            "batch": job.batch,
            "threads": self.threads,
            "rows": [self._row(row) for row in self.rows],
            "impossible": self.impossible,
            "busy": self.busy,
        }

    def _row(self, row: VariantResult) -> dict[str, Any]:
        directions = ("forward", "backward")
        times = {
            direction: {who.replace(" ", "_"): each.record() for who, each in measured.items()}
            for direction in directions
            for measured in [getattr(row, direction)]
        }
        gain: dict[str, Any] = {"by_count": round(self.by_count(row), 4)}
        for direction in directions:
            for who in getattr(row, direction):
                name = f"{direction}_{who.replace(' ', '_')}"
                gain[name] = self.by_clock(row, who, direction).record()
        return {
            "kind": row.kind,
            "parameters": row.parameters,
            "multiply_adds": row.multiply_adds,
            **times,
            "gain": gain,
        }


def compare(
    job: Job,
    *,
    groups: int = 4,
    expand: int = 6,
    norm: bool = False,
    samples: int = 50,
    seconds: float = 1.0,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> Comparison:
    """Counts and times every way to do ``job``, after checking that ours and PyTorch's agree.

    ``groups`` are those of the grouped convolution (or the largest number of them that goes into
    the channels), ``expand`` how many times as many channels the inverted residual has inside. With
    ``norm``, batch norm follows each convolution. Forward is inference; backward the gradients of
    input and weights in training, without what comes before. All alternate, ``samples`` times, or
    as often as ``seconds`` allow for each. On a ``device`` that is a GPU, times are those of CUDA
    events.

    >>> found = compare(Job(8, 8, 4, 8), samples=1)
    >>> found.row("standard").multiply_adds, found.row("separable").multiply_adds
    (18432, 4352)
    """
    checks.positive("compare", "groups", groups)
    checks.positive("compare", "expand", expand)
    told = progress or (lambda *_: None)
    images = torch.randn(job.input_shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device)
    networks: dict[str, dict[str, nn.Module]] = {}
    counts = {}
    impossible: dict[str, str] = {}
    for kind in VARIANTS:
        parts = kind.parts(job, groups, expand)
        if isinstance(parts, str):
            impossible[kind.name] = parts
            continue
        ours, plain = made(parts, norm)
        counts[kind.name] = cost(ours.eval(), job.input_shape).totals
        last = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        each = {OURS: ours, TORCH: plain, LAST: last}
        networks[kind.name] = {who: network.to(device) for who, network in each.items()}
        _check(kind, networks[kind.name], images)
    timed: dict[str, dict[str, Measured]] = {}
    with Watch() as watch:
        for direction, make in (("forward", _forward), ("backward", _backward)):
            tell = partial(told, direction)
            timed[direction] = _timed(networks, images, make, samples, seconds, tell)
    rows = []
    for name, count in counts.items():
        rows.append(
            VariantResult(
                name,
                count.parameters,
                count.multiply_adds,
                timed["forward"][name],
                timed["backward"][name],
            )
        )
    every = [
        times
        for of_direction in timed.values()
        for of_kind in of_direction.values()
        for times in of_kind.values()
    ]
    busy = watch.busy(*every)
    return Comparison(job, tuple(rows), impossible, torch.get_num_threads(), busy)


def _check(kind: Variant, networks: Mapping[str, nn.Module], images: Tensor) -> None:
    """What is not correct is not timed."""
    with torch.no_grad():
        found = {who: network.eval()(images) for who, network in networks.items()}
    expected = found[TORCH]
    # Sums of some thousand products at most, in another order; GPUs multiply in TF32.
    allowed = (1e-2 if images.is_cuda else 1e-4) * float(expected.abs().max())
    for who, each in found.items():
        error = float((each - expected).abs().max())
        if not error <= allowed:
            raise ValueError(
                f"compare: {kind.name} is not timed, since {who} differs by {error:.2g} from"
                " PyTorch's result"
            )


def _timed(
    networks: Mapping[str, Mapping[str, nn.Module]],
    images: Tensor,
    make: Callable[[nn.Module, Tensor], Run],
    samples: int,
    seconds: float,
    progress: Callable[[int, int], object],
) -> dict[str, Measured]:
    last = images.contiguous(memory_format=torch.channels_last)
    runs = {
        f"{name}/{who}": make(network, images if who == TORCH else last)
        for name, each in networks.items()
        for who, network in each.items()
    }
    if images.is_cuda:
        rounds = max(1, samples // gpu.BURST)
        found = dict(zip(runs, gpu.in_turns(list(runs.values()), rounds), strict=True))
        progress(1, 1)
    else:
        found = in_turns(runs, samples, seconds, progress)
    return {name: {who: found[f"{name}/{who}"] for who in each} for name, each in networks.items()}


def _forward(network: nn.Module, images: Tensor) -> Run:
    network.eval()

    def run() -> object:
        with torch.no_grad():
            return network(images)

    return run


def _backward(network: nn.Module, images: Tensor) -> Run:
    """A run that computes the gradients of one forward pass, which is done once."""
    network.train()
    x = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = network(x)
    grad = torch.ones_like(out)
    wanted = [x, *network.parameters()]
    return lambda: torch.autograd.grad(out, wanted, grad, retain_graph=True)
