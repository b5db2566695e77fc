"""The frame's cases on a GPU: timed by CUDA events, in turns, beside what its memory can do.

Nothing is left on the device to do when a run begins, and a run ends when the device has done all
of it, so times hold its waits for the CPU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from frame import Case, Contestant, Row, agree, check, print_rows, progress, write_rows
from planned import QUICK_NOTE, Planned, chosen
from rich.console import Console
from torch import Tensor

from pointwise.timing import Times

_COPIED = 1 << 30  # bytes, to see what the device's memory gives
_WARM = 2  # runs before each time: kernels are loaded, and clocks rise


@dataclass(frozen=True)
class Device:
    """A GPU, and the bandwidth of its memory by a large copy, read and written."""

    name: str
    bandwidth_gbs: float
    torch: str


def run(
    planned: Sequence[Planned], json: Path | None, rounds: int, quick: bool, only: str | None
) -> None:
    """Checks and times the chosen cases one by one, prints a table, and writes it to ``json``."""
    console = Console(highlight=False)
    some = chosen(planned, only)
    device = Device(torch.cuda.get_device_name(), bandwidth(), torch.__version__)
    rows: list[Row] = []
    with progress(console, "cases", len(some)) as advance:
        for plan in some:
            rows += measured(plan.make(), min(rounds, 2) if quick else rounds, device)
            torch.cuda.empty_cache()
            advance()
    print_rows(rows, console)
    console.print(
        f"\n{device.name}, {device.bandwidth_gbs:,.0f} GB/s, PyTorch {device.torch}\n"
        "times by CUDA events; ratio: time over that of pointwise; limit: the time in\n"
        "which the device's memory moves what must be moved, over the median"
    )
    if quick:
        console.print(QUICK_NOTE)
    if json is not None:
        write_rows(rows, vars(device), json)


def measured(case: Case, rounds: int, device: Device) -> list[Row]:
    """Checks a case, then times its contestants in turns."""
    check(case)
    times: list[list[float]] = [[] for _ in case.contestants]
    peaks = [0.0] * len(times)
    for number in range(rounds):
        for place in range(len(times)):
            turn = (number + place) % len(times)
            milliseconds, peaks[turn] = timed(case.contestants[turn])
            times[turn].append(milliseconds)
    least = (case.bytes or 0) / device.bandwidth_gbs / 1e6
    rows = []
    for one, each, peak in zip(case.contestants, times, peaks, strict=True):
        taken = Times(tuple(each))
        share = least / taken.median if case.bytes else None
        rows.append(Row(case.name, one.who, taken, share, peak))
    return rows


def timed(one: Contestant) -> tuple[float, float]:
    """(milliseconds between two events around a run, the most MB that it took meanwhile)."""
    for _ in range(_WARM):
        one.run(one.prepare())
    given = one.prepare()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start.record()
    result = one.run(given)
    end.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del result
    return start.elapsed_time(end), peak / 1e6


def bandwidth() -> float:
    """10⁹ bytes per second, read and written, of a large copy."""
    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = Contestant("", lambda _: target.copy_(source))
    return 2 * _COPIED / min(timed(copy)[0] for _ in range(5)) / 1e6


def agree_there(tolerance: float) -> Callable[[dict[str, Any]], str | None]:
    """``agree`` of tensors, wherever they are."""
    same = agree(tolerance)

    def check(results: dict[str, Any]) -> str | None:
        return same({who: [_array(each) for each in found] for who, found in results.items()})

    return check


def _array(tensor: Tensor) -> Any:
    return tensor.detach().double().cpu().numpy()
