"""A network's counts and its measured times side by side, with what each layer could reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pointwise.costs import machine as machines
from pointwise.costs import work_kinds
from pointwise.costs.clock import Key
from pointwise.costs.count import Count, total
from pointwise.costs.machine import Machine
from pointwise.costs.measure import ROUNDS, ModuleTimes, Progress, measure
from pointwise.costs.network import Cost, cost
from pointwise.costs.roofline import FAR, LayerTimes, limit, verdict
from pointwise.costs.timed_counts import BETWEEN, counts_of_parts
from pointwise.costs.trace import is_shape, largest
from pointwise.timing import Times
from pointwise.timing.times import sum_of


@dataclass(frozen=True)
class Row:
    """A layer, or several that ran as one (``paths``): counts, milliseconds and their limit.

    ``share`` is the part of its roofline that it reaches, None where nothing is counted. ``bound``
    and ``reason`` say what keeps it from being faster (``roofline.verdict``); on a busy machine
    they are empty.
    """

    name: str
    paths: Key
    kind: str
    fused: bool
    count: Count
    seen: LayerTimes
    limit_ms: float
    bound: str
    reason: str

    @property
    def milliseconds(self) -> float:
        return self.seen.milliseconds

    @property
    def share(self) -> float | None:
        if not self.limit_ms or self.milliseconds <= 0:
            return None
        return self.limit_ms / self.milliseconds

    @property
    def is_far(self) -> bool:
        """Whether the layer is far from its roofline."""
        return self.share is not None and self.share < FAR

    @property
    def lost_ms(self) -> float:
        """Milliseconds above the least."""
        return max(0.0, self.milliseconds - self.limit_ms)

    @property
    def anchor(self) -> str:
        """The innermost module with all of the row in it."""
        if self.name == BETWEEN:
            return ""
        if self.fused and len(self.paths) == 1:
            return self.paths[0].removesuffix(".conv")
        return _around(self.paths)

    def as_dict(self) -> dict[str, Any]:
        return {
            "layer": self.name,
            "kind": self.kind,
            "fused": self.fused,
            "modules": [path for path in self.paths if path != BETWEEN],
            **self.count.as_dict(),
            "milliseconds": _rounded(self.milliseconds),
            "least_milliseconds": _rounded(self.seen.times.min),
            "p95_milliseconds": _rounded(self.seen.times.p95),
            "limit_milliseconds": _rounded(self.limit_ms),
            "share_of_roofline": None if self.share is None else round(self.share, 4),
            "gflops": _rounded(self.count.operations / (1e6 * self.milliseconds))
            if self.milliseconds > 0
            else None,
            "bound_by": self.bound or None,
            "reason": self.reason or None,
            "milliseconds_one_thread": _median(self.seen.one_thread),
            "milliseconds_double_batch": _median(self.seen.double),
            "milliseconds_again": _median(self.seen.again),
        }


@dataclass(frozen=True)
class TimedBranch:
    """A module with all that is inside it; ``depth`` is 0 for the network itself."""

    path: str
    type: str
    depth: int
    milliseconds: float
    count: Count

    @property
    def name(self) -> str:
        """The last part of the path, or the class of the network itself in brackets."""
        return self.path.rpartition(".")[2] or f"({self.type})"


@dataclass(frozen=True)
class Profile:
    """Rows in the order they ran; ``whole`` are the times of the network, timed from outside.

    ``busy`` says why nothing can be concluded from the times; it is empty where all can.
    """

    cost: Cost
    machine: Machine
    whole: Times
    rows: list[Row]
    inputs: str
    busy: str = ""

    @property
    def milliseconds(self) -> float:
        return self.whole.median

    @property
    def sum_ms(self) -> float:
        """The rows together: the whole, and what timing them has added."""
        return sum(row.milliseconds for row in self.rows)

    @property
    def count(self) -> Count:
        """As it ran: what lies between layers that ran as one is neither written nor read."""
        return total(row.count for row in self.rows)

    @property
    def limit_ms(self) -> float:
        """Every layer at its roofline."""
        return sum(row.limit_ms for row in self.rows)

    def tree(self) -> list[TimedBranch]:
        """Modules with the time and the count of all rows inside them, in the network's order.

        What ran as one belongs to the module around it, and modules inside that are left out.
        """
        sums: dict[str, tuple[float, Count]] = {}
        for row in self.rows:
            for path in _ancestors(row.anchor):
                milliseconds, count = sums.get(path, (0.0, Count()))
                sums[path] = milliseconds + row.milliseconds, count + row.count
        return [
            TimedBranch(path, kind, len(path.split(".")) if path else 0, *sums[path])
            for path, kind in self.cost.types.items()
            if path in sums
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON: ``totals``, and a row for each layer in ``layers``."""
        caches = [{"bytes": size, "gbs": rate} for size, rate in self.machine.caches]
        return {
            "network": self.cost.network,
            "input": self.inputs,
            "busy": self.busy,
            "machine": {
                "cpu": self.machine.cpu,
                "threads": self.machine.threads,
                "fma_gflops": self.machine.fma_gflops,
                "bandwidth_gbs": self.machine.bandwidth_gbs,
                "caches": caches,
            },
            "totals": {
                **self.count.as_dict(),
                "milliseconds": _rounded(self.milliseconds),
                "least_milliseconds": _rounded(self.whole.min),
                "p95_milliseconds": _rounded(self.whole.p95),
                "milliseconds_of_layers": _rounded(self.sum_ms),
                "limit_milliseconds": _rounded(self.limit_ms),
                "share_of_roofline": round(self.limit_ms / self.milliseconds, 4),
                "peak_bytes": self.cost.peak_bytes,
            },
            "by_kind": {kind: each.as_dict() for kind, each in self.cost.by_kind().items()},
            "not_counted": self.cost.not_counted,
            "layers": [row.as_dict() for row in self.rows],
        }

    def sorted_rows(self, by: str) -> list[Row]:
        """The rows by one of ``SORTS``, or as they ran for ``order``."""
        return list(self.rows) if by == "order" else sorted(self.rows, key=SORTS[by])


SORTS: dict[str, Callable[[Row], float]] = {
    "time": lambda row: -row.milliseconds,
    "lost": lambda row: -row.lost_ms,
    "multiply_adds": lambda row: -row.count.multiply_adds,
    "parameters": lambda row: -row.count.parameters,
    "bytes": lambda row: -row.count.bytes,
    "share": lambda row: 2.0 if row.share is None else row.share,
}
"""Ways to order rows, beside the order in which they ran."""


def profile(
    model: nn.Module,
    *inputs: Any,
    rounds: int = ROUNDS,
    machine: Machine | None = None,
    progress: Progress = lambda: None,
    **keywords: Any,
) -> Profile:
    """Counts and times ``model(*inputs, **keywords)`` in inference on the CPU, layer by layer.

    Shapes among the inputs become random numbers. Layers are timed where they stand, as the network
    runs; those of ours that run as one launch are one row. ``machine`` is what the layers are
    compared with; without, it is measured before and after. Raises ValueError where the model does
    not run on such inputs, or is not on the CPU.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"profile: model must be a module, got {type(model).__name__}")
    if rounds < 1:
        raise ValueError(f"profile: rounds must be 1 or more, got {rounds}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type != "cpu":
            raise ValueError(
                f"profile: times are measured on the CPU, and {name} is on {tensor.device}; "
                "move the model with model.cpu(), or only count it with pointwise.cost"
            )
    counted = cost(model, *inputs, **keywords)
    real = tuple(_real(value, model) for value in inputs)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        before = machines.measured(with_caches=True) if machine is None else machine
        times = measure(model, real, keywords, rounds, progress)
        if machine is None:
            before = machines.better(before, machines.measured(with_caches=True))
    finally:
        for module, training in modes:
            module.training = training
    rows = [
        _row(key, count, parts, times, before, counted)
        for key, (count, parts) in counts_of_parts(counted, times).items()
    ]
    return Profile(counted, before, times.whole, rows, _described(inputs), times.busy)


def _real(value: Any, model: nn.Module) -> Any:
    if not is_shape(value):
        return value
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    generator = torch.Generator().manual_seed(0)
    made = torch.rand(tuple(value), generator=generator)
    return made if first is None else made.to(first.dtype)


def _around(paths: Key) -> str:
    """The innermost module with all of these in it."""
    found = []
    for parts in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        found.append(parts[0])
    return ".".join(found)


def _ancestors(path: str) -> list[str]:
    """A path and all that it is inside of, "" among them."""
    found = [path]
    while path:
        path = path.rpartition(".")[0]
        found.append(path)
    return found


def _described(inputs: tuple) -> str:
    shapes = (getattr(value, "shape", value) for value in inputs)
    return ", ".join(
        "x".join(map(str, shape)) if is_shape(shape) else type(shape).__name__ for shape in shapes
    )


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")


def _median(times: Times | None) -> float | None:
    return None if times is None else _rounded(times.median)


# --- rows -----------------------------------------------------------------------------------------


def _row(
    key: Key,
    count: Count,
    parts: dict[str, Count],
    times: ModuleTimes,
    machine: Machine,
    counted: Cost,
) -> Row:
    fused = key in times.launches
    members: list[Key] = [(path,) for path in key[1:]] if key[0] == BETWEEN else [key]
    seen = LayerTimes(
        _sum(times.parts, members) or Times((0.0,) * len(times.whole.milliseconds)),
        _sum(times.one_thread, members),
        _sum(times.double, members),
        _sum(times.again, members),
        times.launch if fused else times.call,
    )
    bound = reason = ""
    if not times.busy:
        bound, reason = verdict(count, seen, machine, work_kinds.SEARCH in parts)
    return Row(
        name=_name(key, fused, counted),
        paths=key,
        kind=_kind(key, fused, parts),
        fused=fused,
        count=count,
        seen=seen,
        limit_ms=limit(count, machine).milliseconds,
        bound=bound,
        reason=reason,
    )


def _sum(found: dict[Key, Times], keys: list[Key]) -> Times | None:
    present = [found[key] for key in keys if key in found]
    return sum_of(present) if present else None


def _kind(key: Key, fused: bool, parts: dict[str, Count]) -> str:
    if fused and len(key) > 1:
        return work_kinds.SEPARABLE if len(key) == 2 else work_kinds.INVERTED
    return largest(parts) if parts else work_kinds.NOTHING


def _name(key: Key, fused: bool, counted: Cost) -> str:
    """``blocks.0``, ``blocks.0.depthwise+project`` or ``stem+blocks.0`` for what ran as one."""
    if not fused:
        return key[0] or f"({counted.network})"
    shown: list[str] = []
    for path in key:
        around = path.removesuffix(".conv").rpartition(".")[0]
        whole = len(key) > 1 and counted.types.get(around) == "DepthwiseSeparableConv2d"
        name = (around or f"({counted.network})") if whole else path.removesuffix(".conv")
        if name not in shown:
            shown.append(name)
    first, *rest = shown
    parent = first.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    return "+".join([first, *(path.removeprefix(prefix) for path in rest)])
