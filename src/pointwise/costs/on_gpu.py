"""A network's layers on a GPU: what each takes, by CUDA events around it, and what it could take.

Layers are the modules without others inside, which run one by one here: what runs as one when
nobody looks (a norm folded into its convolution, say) is more than they are together. Events are
queued with the work, so that nothing waits while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pointwise.costs.count import Count
from pointwise.costs.network import Cost, cost
from pointwise.timing import Times, gpu


@dataclass(frozen=True)
class LayerOnGpu:
    """A layer: its counts, its times, and the milliseconds that its bytes or products need."""

    name: str
    type: str
    count: Count
    times: Times
    limit_ms: float

    @property
    def share(self) -> float:
        """Of the limit in its time."""
        return self.limit_ms / self.times.median if self.times.median > 0 else 0.0


@dataclass(frozen=True)
class ProfileOnGpu:
    """Layers in the order they ran, the whole network, and what the device reaches."""

    cost: Cost
    device: str
    gflops: float
    gbs: float
    whole: Times
    layers: list[LayerOnGpu]

    def as_dict(self) -> dict[str, Any]:
        return {
            "network": self.cost.network,
            "device": self.device,
            "gflops": round(self.gflops, 1),
            "bandwidth_gbs": round(self.gbs, 1),
            "milliseconds": self.whole.record(),
            "layers": [
                {
                    "layer": layer.name,
                    "type": layer.type,
                    **layer.count.as_dict(),
                    "milliseconds": layer.times.record(),
                    "limit_milliseconds": round(layer.limit_ms, 6),
                }
                for layer in self.layers
            ],
        }


def profile(
    network: nn.Module, inputs: tuple, keywords: dict[str, Any], device: torch.device, rounds: int
) -> ProfileOnGpu:
    """Counts and times ``network(*inputs, **keywords)``, which are on the device already."""
    counts = cost(network, *inputs, **keywords)
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    gflops, gbs = gpu.rates(device, dtype)

    def run() -> Any:
        with torch.no_grad():
            return network(*inputs, **keywords)

    (whole,) = gpu.in_turns([run], rounds, burst=3, hurried=False)
    taken = layer_times(network, run, rounds, lambda: torch.cuda.Event(enable_timing=True),
                        torch.cuda.synchronize)  # fmt: skip
    layers = [
        LayerOnGpu(layer.name, layer.type, layer.count, taken[layer.path],
                   limit_ms(layer.count, gflops, gbs))
        for layer in counts.layers
        if layer.path in taken
    ]  # fmt: skip
    return ProfileOnGpu(counts, gpu.name_of(device), gflops, gbs, whole, layers)


def limit_ms(count: Count, gflops: float, gbs: float) -> float:
    """The larger of the times for arithmetic and for memory."""
    operations = count.multiplications + count.additions
    return max(operations / (1e6 * gflops), count.bytes / (1e6 * gbs))


def layer_times(
    network: nn.Module,
    run: Callable[[], Any],
    rounds: int,
    event: Callable[[], Any],
    wait: Callable[[], Any],
) -> dict[str, Times]:
    """Milliseconds of each module without others inside, in each round, by its path."""
    leaves = {path: part for path, part in network.named_modules() if not any(part.children())}
    marks: list[tuple[str, Any, Any]] = []
    begun: dict[str, Any] = {}

    def enter(path: str) -> Callable:
        def note(*_: Any) -> None:
            begun[path] = event()
            begun[path].record()

        return note

    def leave(path: str) -> Callable:
        def note(*_: Any) -> None:
            end = event()
            end.record()
            marks.append((path, begun.pop(path), end))

        return note

    handles = []
    for path, part in leaves.items():
        handles += [part.register_forward_pre_hook(enter(path)),
                    part.register_forward_hook(leave(path))]  # fmt: skip
    found: dict[str, list[float]] = {}
    try:
        run()
        for _ in range(rounds):
            marks.clear()
            run()
            wait()
            once: dict[str, float] = {}
            for path, start, end in marks:  # a module may run several times
                once[path] = once.get(path, 0.0) + start.elapsed_time(end)
            for path, milliseconds in once.items():
                found.setdefault(path, []).append(milliseconds)
    finally:
        for handle in handles:
            handle.remove()
    return {path: Times(tuple(each)) for path, each in found.items()}
