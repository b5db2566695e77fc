"""``--device cuda`` of ``bench image``, ``training`` and ``accelerate``: the same on a GPU.

Batches of 128 (``--only '*_b1'`` and other names for the rest), in bfloat16 and float32, in
channels_last, timed by CUDA events: of whole networks what a run takes, Python's own time included,
as a user waits for it. Who: ``pointwise``; ``torch_channels_last``, with cuDNN's benchmark mode;
``torch_compile``, that one compiled. The limit is the time that the GPU's memory needs for what
goes in and out, or its products, at the rates measured in the same run.

Without a GPU, one line says so.
"""

from __future__ import annotations

import copy
import json as json_
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import accelerate as accelerate_
import image_pairs
import image_shapes
import image_work
import plain_networks
import planned
import runtimes
import torch
import torch.nn.functional as F
from frame import OURS
from image_pairs import Pair
from image_shapes import NETWORKS
from planned import QUICK_NOTE, Planned
from rich.console import Console
from torch import Tensor, nn

from pointwise import accelerate
from pointwise.atomic import replacing
from pointwise.timing import Times, gpu

CHANNELS_LAST = "torch_channels_last"
BATCHES = (1, 8, 128)
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Job:
    """Who does it, what it is at least, and how far results may be apart, of the largest."""

    runs: dict[str, Callable[[], Any]]
    flops: float
    bytes: float
    tolerance: float


def run(
    benchmark: str, device: str, json: Path | None, rounds: int, quick: bool, only: str | None
) -> None:
    """Measures the chosen cases of one of the three benchmarks, and prints a line for each."""
    there = gpu.chosen("bench", device)
    torch.backends.cudnn.benchmark = True
    console = Console(highlight=False)
    cases = planned.chosen(plan(benchmark, there, quick), only)
    speed = {name: gpu.rates(there, dtype) for name, dtype in DTYPES.items()}
    console.print(f"{gpu.name_of(there)}, torch {torch.__version__}")
    for name, (gflops, gbs) in speed.items():
        console.print(f"{name}: {gflops / 1000:,.1f} TFLOP/s, {gbs:,.0f} GB/s")
    records = []
    for case in cases:
        records += _measured(case, 2 if quick else rounds, speed, console)
    if quick:
        console.print(QUICK_NOTE)
    if json is not None:
        with replacing(json) as part:
            found = {"device": gpu.name_of(there), "torch": torch.__version__, "rows": records}
            part.write_text(json_.dumps(found, indent=2) + "\n", encoding="utf-8")


def _measured(
    case: Planned, rounds: int, speed: dict[str, tuple[float, float]], console: Console
) -> list[dict[str, Any]]:
    job: Any = case.make()
    results = {who: call() for who, call in job.runs.items()}
    if wrong := _apart(results, job.tolerance):
        raise ValueError(f"bench: {case.name} is not timed, since it is not correct: {wrong}")
    peaks = {who: _peak(call) for who, call in job.runs.items()}
    times: Sequence[Times] = gpu.in_turns(list(job.runs.values()), rounds, burst=3, hurried=False)
    gflops, gbs = speed[case.name.rsplit("_", 1)[1]]
    limit = max(job.flops / (1e6 * gflops), job.bytes / (1e6 * gbs))
    console.print(case.name)
    records = []
    for who, each in zip(job.runs, times, strict=True):
        console.print(
            f"  {who:20} {each.median:9.3f} ms  {100 * limit / each.median:5.1f} % of the limit"
            f"  {peaks[who]:8,.0f} MB"
        )
        records.append({"case": case.name, "who": who, **each.record(), "limit_ms": limit,
                        "peak_mb": peaks[who]})  # fmt: skip
    return records


def _peak(call: Callable[[], Any]) -> float:
    """MB at the highest while it runs, above what is there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _apart(results: dict[str, Any], tolerance: float) -> str | None:
    """The first result of everyone: gradients of deep networks differ by more than rounding."""
    first, *others = results
    mine = _first(results[first])
    for who in others:
        theirs = _first(results[who])
        error = float((mine - theirs).norm() / mine.norm())
        if not error <= tolerance:
            return f"{who} differs from {first} by {error:.2g} of it, more than {tolerance:.2g}"
    return None


def _first(result: Any) -> Tensor:
    return (result[0] if isinstance(result, (list, tuple)) else result).detach().double()


# --- cases ----------------------------------------------------------------------------------------


def plan(benchmark: str, device: torch.device, quick: bool) -> list[Planned]:
    """All cases of a benchmark, the networks first; usual are those of the largest batch."""
    trained = "_train" if benchmark == "training" else ""
    make = partial(_job, benchmark == "training", device)
    found = []
    for name, dtype in DTYPES.items():
        for batch in (2,) if quick else BATCHES:
            ending = f"b{batch}{trained}_{name}"
            usual = batch == max(BATCHES) or quick
            if benchmark == "accelerate":
                for network, made in _others(quick).items():
                    job = partial(_accelerated, made, batch, 32 if quick else 224, dtype, device)
                    found.append(Planned(f"{network}_{ending}", job, usual))
                continue
            for network in list(NETWORKS)[: 1 if quick else None]:
                pair = partial(image_pairs.network, network, batch, 32 if quick else 224)
                found.append(Planned(f"{network}_{ending}", partial(make, pair, dtype), usual))
            if quick:
                continue
            for block in dict.fromkeys(b for n in NETWORKS for b in image_shapes.blocks(n)):
                pair = partial(image_pairs.block, block, batch)
                found.append(Planned(f"{block.name}_{ending}", partial(make, pair, dtype), False))
            for shape in image_shapes.all_convolutions():
                pair = partial(image_pairs.convolution, shape, batch)
                found.append(Planned(f"{shape.name}_{ending}", partial(make, pair, dtype), False))
    return found


def _others(quick: bool) -> dict[str, Callable[[], nn.Module]]:
    if quick:
        return {"mobilenet_v1": partial(plain_networks.mobilenet_v1, 0.25, 10)}
    found: dict[str, Callable[[], nn.Module]] = {**accelerate_.PLAIN}
    if not accelerate_._why_no_timm():
        found |= {name: partial(accelerate_._timm, of) for name, of in accelerate_.TIMM.items()}
    return found


def _job(trained: bool, device: torch.device, make: Callable[[], Pair], dtype: torch.dtype) -> Job:
    """A network, block or convolution: ours, PyTorch's in channels_last, and that one compiled."""
    pair = make().train(trained)
    size, channels = pair.input.shape[2], pair.input.shape[1]
    shapes = (
        image_shapes.network_convolutions(pair.plain, size, channels)
        if not isinstance(pair.plain, nn.Conv2d) else []
    )  # fmt: skip
    batch = len(pair.input)
    # In training weights stay float32, and autocast gives the type, as users train.
    kind = torch.float32 if trained else dtype
    images = pair.input.to(device, dtype)
    ours, last = (module.to(device, kind) for module in (pair.ours, pair.channels_last))
    calls: dict[str, Any] = {OURS: ours, CHANNELS_LAST: last,
                             runtimes.COMPILE: torch.compile(last)}  # fmt: skip
    step: Callable = partial(_trained, dtype) if trained else _inferred
    runs: dict[str, Callable] = {who: partial(step, call, images) for who, call in calls.items()}
    numbers = images.numel() + sum(p.numel() for p in last.parameters())
    work = image_work.network_forward(shapes, batch, 0) if shapes else None
    flops = 0.0 if work is None else work.flops * (3 if trained else 1)
    moved = dtype.itemsize * numbers * (2 if trained else 1)
    return Job(runs, flops, moved, 0.2 if dtype == torch.bfloat16 else 1e-2)


def _inferred(call: Callable, images: Tensor) -> Tensor:
    with torch.no_grad():
        return call(images)


def _trained(dtype: torch.dtype, call: Any, images: Tensor) -> list[Tensor]:
    images = images.detach().float().requires_grad_()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        out = call(images)
    loss = out.float().square().mean() if out.dim() == 4 else F.cross_entropy(
        out.float(), torch.zeros(len(out), dtype=torch.long, device=out.device)
    )  # fmt: skip
    return [out.detach(), *torch.autograd.grad(loss, [images, *call.parameters()])]


def _accelerated(
    make: Callable[[], nn.Module], batch: int, size: int, dtype: torch.dtype, device: torch.device
) -> Job:
    """A model of others."""
    torch.manual_seed(0)
    model = plain_networks.settle(make(), torch.randn(4, 3, size, size)).eval().to(device, dtype)
    images = torch.randn(batch, 3, size, size, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calls: dict[str, Any] = {OURS: accelerate(model, images), CHANNELS_LAST: last,
                             runtimes.COMPILE: torch.compile(last)}  # fmt: skip
    runs: dict[str, Callable] = {
        who: partial(_inferred, call, images) for who, call in calls.items()
    }
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    moved = dtype.itemsize * (images.numel() + sum(x.numel() for x in model.parameters()))
    return Job(runs, counter.get_total_flops(), moved, 0.2 if dtype == torch.bfloat16 else 1e-2)
