"""How long each part of a network takes as the network runs, and how that depends on the machine.

Five passes, each a number of runs: the whole network, nothing timed inside; its parts; its parts on
one thread; its parts on twice the batch; and its parts run a second time at once. The first two
alternate. Of every part the median is taken.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pointwise.costs.clock import FusedLaunch, Key, Stopwatch, hookable, launches, timed
from pointwise.engine.cpu import launch
from pointwise.engine.cpu.launch import Program, kernel, threads

Progress = Callable[[], object]
"""Called after each run."""

ROUNDS = 20


@dataclass(frozen=True)
class ModuleTimes:
    """Milliseconds: of the ``whole`` network, and of its parts in each of the passes.

    A pass that is not possible is empty: on ``one_thread`` where there is only one, ``double``
    where the input has no batch.
    """

    whole: float
    parts: dict[Key, float]
    one_thread: dict[Key, float]
    double: dict[Key, float]
    again: dict[Key, float]
    call: float  # of a module that does almost nothing
    launch: float  # of a launch that does nothing
    launches: dict[Key, FusedLaunch] = field(default_factory=dict)


def runs(rounds: int) -> int:
    """How often ``measure`` calls its progress, at most."""
    return 5 * rounds


@torch.no_grad()
def measure(
    network: nn.Module,
    inputs: tuple,
    keywords: dict[str, Any],
    rounds: int = ROUNDS,
    progress: Progress = lambda: None,
) -> ModuleTimes:
    """Times ``network(*inputs, **keywords)``, which is in evaluation mode, on torch's threads."""

    def run() -> None:
        network(*inputs, **keywords)

    run()  # compiles and plans what has to be
    fused = launches(network, run)
    modules = hookable(network, fused)

    def parts(work: Callable[[], None], again: bool = False) -> dict[Key, float]:
        clock = Stopwatch()
        with timed(network, modules, clock, again):
            work()
        return clock.own

    def several(work: Callable[[], None], again: bool = False) -> dict[Key, float]:
        work()
        found = []
        for _ in range(rounds):
            found.append(parts(work, again))
            progress()
        return _medians(found)

    parts(run)
    whole, found = [], []
    for _ in range(rounds):
        whole.append(_seconds(run))
        progress()
        found.append(parts(run))
        progress()
    alone: dict[Key, float] = {}
    if threads() > 1:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            alone = several(run)
        finally:
            torch.set_num_threads(before)
    twice = doubled(inputs) if not keywords else None
    double: dict[Key, float] = {}
    if twice is not None and _runs(network, twice):
        double = several(lambda: network(*twice))
    return ModuleTimes(
        whole=1e3 * statistics.median(whole),
        parts=_medians(found),
        one_thread=alone,
        double=double,
        again=several(run, again=True),
        call=_call_ms(),
        launch=_launch_ms(),
        launches=fused,
    )


def doubled(inputs: tuple) -> tuple | None:
    """Inputs with twice the batch, where all of them are tensors with one batch; else None."""
    if not inputs or not all(isinstance(x, Tensor) and x.dim() > 1 for x in inputs):
        return None
    if len({x.shape[0] for x in inputs}) > 1:
        return None
    return tuple(torch.cat((x, x)) for x in inputs)


def _runs(network: nn.Module, inputs: tuple) -> bool:
    try:
        network(*inputs)
    except Exception:  # a network may be made for one size only
        return False
    return True


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _medians(found: list[dict[Key, float]]) -> dict[Key, float]:
    """Milliseconds of each part; a part that did not run in a round took none."""
    keys = {key: None for each in found for key in each}
    return {key: 1e3 * statistics.median(each.get(key, 0.0) for each in found) for key in keys}


def _call_ms(times: int = 200) -> float:
    """A module that takes the relu of a single number, timed by hooks like every other."""
    module, x = nn.ReLU(), torch.zeros(1)
    found = []
    for _ in range(times):
        clock = Stopwatch()
        with timed(module, {"": module}, clock):
            module(x)
        found.append(clock.own)
    return _medians(found)[("",)]


@kernel
def _nothing(arguments, program, thread):
    """Does nothing: what is left is the launch."""


def _launch_ms(times: int = 200) -> float:
    """A launch on all threads whose kernel does nothing."""
    program = Program([launch.Launch(_nothing, None, 8 * threads(), torch.empty(0))])
    seconds = []
    for _ in range(times):
        with program.lock:
            seconds.append(_seconds(program.run))
    return 1e3 * statistics.median(seconds)
