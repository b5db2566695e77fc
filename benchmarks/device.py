"""The frame for a GPU: shown to agree first, then timed by CUDA events, in turns, in one process.

As in ``frame``, each round begins with the next one, so that a device that warms up, or is
disturbed, is disturbed for all alike. Between two runs nothing is left on the device to do.
"""

from __future__ import annotations

import fnmatch
import json as text
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from planned import QUICK_NOTE
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pointwise.atomic import replacing
from pointwise.timing import Times, ratio

_COPIED = 1 << 30  # bytes, to see what the device's memory gives
_WARM = 2  # runs before each time, as kernels are loaded and clocks rise


@dataclass(frozen=True)
class Contestant:
    """``run`` is timed; ``prepare`` is not, and makes its argument anew before every run."""

    who: str
    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Case:
    """One job and who does it; the first one's result is what the others' are compared with.

    They may differ by ``tolerance`` of the largest number. ``bytes`` are what must be moved.
    """

    name: str
    contestants: Sequence[Contestant]
    tolerance: float
    bytes: float | None


@dataclass(frozen=True)
class Row:
    """What was measured of one contestant in one case."""

    case: str
    who: str
    times: Times
    peak_mb: float
    ratio: str  # its time over that of the first
    limit_ms: float | None  # the least time, by the bytes that must be moved


def refuse_without_cuda(command: str) -> None:
    """Raises ValueError where PyTorch has no device of NVIDIA's to time."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "sees none here" if built else f"{torch.__version__} is built without CUDA"
        raise ValueError(f"{command}: --device cuda needs a CUDA device, but PyTorch {why}")


def measure(
    plan: Mapping[str, Callable[[], list[Case]]], rounds: int, only: str | None
) -> list[Row]:
    """Checks and times all cases, or those whose names hold a part of ``only``, one by one."""
    rows: list[Row] = []
    gbs = bandwidth()
    for name in _chosen(list(plan), only):
        for case in plan[name]():
            rows += _measured(case, rounds, gbs)
        torch.cuda.empty_cache()
    return rows


def _chosen(names: list[str], only: str | None) -> list[str]:
    if only is None:
        return names
    found = set()
    for part in filter(None, map(str.strip, only.split(","))):
        some = fnmatch.filter(names, f"*{part}*")
        if not some:
            raise ValueError(
                f"bench: no case has {part!r} in its name; there are {', '.join(names)}"
            )
        found.update(some)
    return [name for name in names if name in found]


def _measured(case: Case, rounds: int, gbs: float) -> list[Row]:
    first = None
    for one in case.contestants:
        result = _flat(one.run(one.prepare()))
        if first is None:
            first = result
        elif wrong := _difference(first, result, case.tolerance):
            raise ValueError(
                f"bench: {case.name} is not timed, since it is not correct: {one.who} differs from"
                f" {case.contestants[0].who} by {wrong}"
            )
        del result
    del first
    times: list[list[float]] = [[] for _ in case.contestants]
    peaks = [0.0] * len(times)
    for number in range(rounds):
        for place in range(len(times)):
            turn = (number + place) % len(times)
            milliseconds, peaks[turn] = _timed(case.contestants[turn])
            times[turn].append(milliseconds)
    taken = [Times(tuple(each)) for each in times]
    limit = None if case.bytes is None else case.bytes / gbs / 1e6
    return [
        Row(case.name, one.who, mine, peak, str(ratio(mine, taken[0])), limit)
        for one, mine, peak in zip(case.contestants, taken, peaks, strict=True)
    ]


def _timed(one: Contestant) -> tuple[float, float]:
    """(milliseconds between two events around a run, the most MB that were in use meanwhile)."""
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
    del result
    return start.elapsed_time(end), (torch.cuda.max_memory_allocated() - before) / 1e6


def _flat(result: Any) -> list[Tensor]:
    tensors = [result] if isinstance(result, Tensor) else list(result)
    return [each.detach().clone() for each in tensors]


def _difference(first: Sequence[Tensor], other: Sequence[Tensor], tolerance: float) -> str:
    """How far results are apart, where that is too far; empty where it is not."""
    for mine, theirs in zip(first, other, strict=True):
        if mine.shape != theirs.shape:
            return f"shape {tuple(theirs.shape)} instead of {tuple(mine.shape)}"
        if mine.numel() == 0:
            continue
        error = float((mine.double() - theirs.double()).abs().amax())
        allowed = tolerance * float(mine.double().abs().amax())
        if not error <= allowed:
            return f"{error:.2g}, more than {allowed:.2g}"
    return ""


def bandwidth() -> float:
    """10⁹ bytes per second, read and written, of a large copy."""
    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = min(_timed(Contestant("", lambda _: target.copy_(source)))[0] for _ in range(5))
    return 2 * _COPIED / best / 1e6


def report(rows: Sequence[Row], console: Console, quick: bool, json: Path | None) -> None:
    """Prints the rows as a table that fits 80 columns, and writes them to ``json`` if given."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("who", overflow="fold")
    for name in ("ms\nmedian", "\nleast", "\nratio", "bytes'\nlimit", "peak\nMB"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in rows:
        if last is not None and row.case != last:
            table.add_section()
        table.add_row(
            row.case if row.case != last else "",
            row.who,
            f"{row.times.median:.3f}",
            f"{row.times.min:.3f}",
            row.ratio,
            "" if row.limit_ms is None else f"{row.limit_ms:.3f}",
            f"{row.peak_mb:,.0f}",
        )
        last = row.case
    console.print(table)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    console.print(f"\n{device}, PyTorch {torch.__version__}; times by CUDA events")
    console.print("ratio: time over that of the first; bytes' limit: what a copy of them takes")
    if quick:
        console.print(QUICK_NOTE)
    if json is not None:
        found = [
            {
                "case": row.case,
                "who": row.who,
                **row.times.record(),
                "ratio": row.ratio,
                "limit_ms": row.limit_ms,
                "peak_mb": row.peak_mb,
            }
            for row in rows
        ]
        with replacing(json) as part:
            part.write_text(text.dumps({"device": device, "rows": found}, indent=2) + "\n",
                            encoding="utf-8")  # fmt: skip
