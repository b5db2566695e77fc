"""Timings of an old checkout and a new one in one interleaved run.

    python tests/witness_timing.py OLD_SRC NEW_SRC [--only PATTERN] [--rounds 7] [--out FILE]

Each checkout has a process of its own that waits for the name of a case and answers with seconds.
They take turns, and whoever is not asked sleeps, so that both meet the same machine. Printed are
medians and least times, and new/old of both; a row is marked where both are over 1.03. The exit
status is 1 if any row is. On one thread, the default, processor time is measured, which a busy
machine disturbs least (though shared caches still cost); with more ``--threads``, the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LIMIT = 1.03
LEAST = 0.03  # seconds that a measurement takes at least

Case = Callable[[], Callable[[], Any]]
"""Prepares a case and returns what is timed."""


# --- cases ----------------------------------------------------------------------------------------


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for size, channels in ((14, 64), (112, 32), (56, 128), (28, 256)):
        for kind in ("pointwise", "depthwise", "standard", "separable"):
            if kind != "standard" or size in (14, 28):
                found[f"{kind} {size}²×{channels}"] = partial(_image, kind, size, channels, False)
    for kind in ("pointwise", "depthwise", "standard"):
        found[f"{kind} 28²×64 with gradients"] = partial(_image, kind, 28, 64, True)
    for points, channels in ((200, 8), (20_000, 32)):
        found[f"cell_conv {points}×{channels}"] = partial(_cells, points, channels, False)
        found[f"cell_conv {points}×{channels} with gradients"] = partial(
            _cells, points, channels, True
        )
    found["cell_separable_conv 20000×32"] = _cells_separable
    found["cell_search 20000"] = _search
    found["a launch"] = _launch
    found["inverted residual, one call"] = _layer
    for name in ("MobileNetV1", "MobileNetV2", "EfficientNetB0", "ResNet50"):
        found[f"accelerated {name}"] = partial(_accelerated, name)
    found["frozen MobileNetV1"] = partial(_network, "frozen")
    found["eval MobileNetV1"] = partial(_network, "eval")
    found["training MobileNetV1 2×96²"] = partial(_network, "training")
    return found


def _image(kind: str, size: int, channels: int, gradients: bool) -> Callable[[], Any]:
    import torch

    import pointwise as pw

    x = torch.randn(1, channels, size, size).to(memory_format=torch.channels_last)
    stencil, mix = torch.randn(channels, 1, 3, 3), torch.randn(channels, channels)
    whole = torch.randn(channels, channels, 3, 3)
    weight = {"depthwise": stencil, "pointwise": mix, "standard": whole}.get(kind)
    call: Callable[[], Any] = {
        "pointwise": lambda: pw.pointwise_conv2d(x, mix),
        "depthwise": lambda: pw.depthwise_conv2d(x, stencil, padding=1),
        "standard": lambda: pw.conv2d(x, whole, padding=1),
        "separable": lambda: pw.depthwise_separable_conv2d(x, stencil, mix, padding=1),
    }[kind]
    return _with_gradients(call, x, weight) if gradients else call


def _with_gradients(call: Callable[[], Any], *leaves: Any) -> Callable[[], Any]:
    import torch

    for leaf in leaves:
        leaf.requires_grad_()
    gradient = torch.randn_like(call())
    return lambda: torch.autograd.grad(call(), leaves, gradient)


def _cloud(points: int) -> Any:
    import torch

    import pointwise as pw

    side = (points / 20_000) ** (1 / 3)  # as dense whatever the number
    return pw.PointCloud(torch.rand(points, 3) * side)


def _cells(points: int, channels: int, gradients: bool) -> Callable[[], Any]:
    import torch

    import pointwise as pw

    cloud = _cloud(points)
    near = cloud.neighborhood(0.04)
    x, weight = torch.randn(points, channels), torch.randn(channels, channels, 3, 3, 3)

    def call() -> Any:
        return pw.cell_conv(x, near, weight)

    return _with_gradients(call, x, weight) if gradients else call


def _cells_separable() -> Callable[[], Any]:
    import torch

    import pointwise as pw

    near = _cloud(20_000).neighborhood(0.04)
    x, mix = torch.randn(20_000, 32), torch.randn(32, 32)
    depthwise = torch.randn(32, 1, 3, 3, 3)
    return lambda: pw.cell_separable_conv(x, near, depthwise, mix)


def _search() -> Callable[[], Any]:
    import pointwise as pw

    points = _cloud(20_000).points
    return lambda: pw.PointCloud(points).neighborhood(0.04)


def _launch() -> Callable[[], Any]:
    """The smallest call of an operator: a launch, and what it takes to get there."""
    import torch

    import pointwise as pw

    x, weight = torch.randn(1, 8), torch.randn(8, 8)
    return lambda: pw.pointwise_conv(x, weight)


def _layer() -> Callable[[], Any]:
    import torch

    import pointwise as pw

    block = pw.freeze(pw.InvertedResidual(16, 16, 64))
    x = torch.randn(1, 16, 14, 14).to(memory_format=torch.channels_last)
    return _inference(lambda: block(x))


def _inference(call: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    return torch.no_grad()(call)


def _accelerated(name: str) -> Callable[[], Any]:
    import torch

    import pointwise as pw
    from pointwise import networks

    size = 224 if name != "ResNet50" else 160
    x = torch.randn(1, 3, size, size).to(memory_format=torch.channels_last)
    return _inference(partial(pw.accelerate(getattr(networks, name)().eval(), x), x))


def _network(how: str) -> Callable[[], Any]:
    import torch

    import pointwise as pw
    from pointwise.networks import MobileNetV1

    model: Any = MobileNetV1(classes=100)
    if how == "training":
        x = torch.randn(2, 3, 96, 96).to(memory_format=torch.channels_last)
        return lambda: model.train()(x).sum().backward()
    x = torch.randn(1, 3, 224, 224).to(memory_format=torch.channels_last)
    model = pw.freeze(model) if how == "frozen" else model.eval()
    return _inference(partial(model, x))


# --- one checkout ---------------------------------------------------------------------------------


def serve(threads: int) -> None:
    """Answers the name of a case with the seconds of one call, line by line."""
    import torch

    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    known: dict[str, tuple[Callable[[], Any], int]] = {}
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in known:
                known[name] = _prepared(cases()[name])
            call, times = known[name]
            answer = repr(_seconds(call, times, clock))
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".splitlines()[0]
        print(answer, file=answers, flush=True)


def _prepared(case: Case) -> tuple[Callable[[], Any], int]:
    """What to call, everything compiled, and how often for one measurement."""
    import torch

    torch.manual_seed(0)
    call = case()
    for _ in range(3):
        call()
    return call, max(1, round(LEAST / _seconds(call, 2, time.process_time)))


def _seconds(call: Callable[[], Any], times: int, clock: Callable[[], float]) -> float:
    """The seconds of one call, the mean over some; after one that wakes caches up."""
    call()
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) / times


class Checkout:
    """A process that measures one checkout."""

    def __init__(self, source: Path, threads: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(source.resolve()),
            "OMP_WAIT_POLICY": "passive",
        }
        command = [sys.executable, __file__, "--serve", "--threads", str(threads)]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def measure(self, name: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        try:
            return float(answer)
        except ValueError:
            raise RuntimeError(f"{name}: {answer or 'the process ended'}") from None

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# --- both in turns --------------------------------------------------------------------------------


def measure(old: Checkout, new: Checkout, name: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round; who begins changes from round to round."""
    found: dict[str, list[float]] = {"old": [], "new": []}
    both = (("old", old), ("new", new))
    for checkout in (old, new):  # compiled, and not counted
        checkout.measure(name)
    for number in range(rounds):
        for key, checkout in both if number % 2 == 0 else both[::-1]:
            time.sleep(0.05)
            found[key].append(checkout.measure(name))
    return found


def row(name: str, times: dict[str, list[float]]) -> tuple[str, bool]:
    """A line of the table, and whether it is slower by median and by least time."""
    middle = [statistics.median(times[key]) for key in ("old", "new")]
    least = [min(times[key]) for key in ("old", "new")]
    ratios = middle[1] / middle[0], least[1] / least[0]
    slower = min(ratios) > LIMIT
    numbers = [f"{1e6 * value:12,.1f}" for pair in (middle, least) for value in pair]
    text = f"{name:42}{''.join(numbers)}{ratios[0]:9.3f}{ratios[1]:9.3f}"
    return text + ("  <-- slower" if slower else ""), slower


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("old", nargs="?", type=Path, help="the old checkout's src")
    parser.add_argument("new", nargs="?", type=Path, help="the new checkout's src")
    parser.add_argument("--only", default="", metavar="PATTERN")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file of all times in seconds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve(given.threads)
        return 0
    if given.old is None or given.new is None:
        parser.error("two checkouts are needed")
    old, new = (Checkout(source, given.threads) for source in (given.old, given.new))
    columns = ("median old", "new", "least old", "new")
    print(f"{'µs of one call':42}{''.join(f'{c:>12}' for c in columns)}{'median':>9}{'least':>9}")
    found, status = {}, 0
    for name in cases():
        if not re.search(given.only, name):
            continue
        try:
            found[name] = measure(old, new, name, given.rounds)
            text, slower = row(name, found[name])
        except RuntimeError as error:
            text, slower = f"{name:42}  {error}", True
        print(text, flush=True)
        status |= slower
    old.close()
    new.close()
    if given.out:
        given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
