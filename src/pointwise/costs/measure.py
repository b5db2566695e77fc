"""How long each part of a network takes as the network runs, and how that depends on the machine.

Five passes in each round: the whole network, nothing timed inside; its parts; its parts run a
second time at once; its parts on one thread; and its parts on twice the batch. So each can be
compared with each round by round, and what disturbs a round disturbs all five.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pointwise.costs.clock import FusedLaunch, Key, Stopwatch, hookable, launches, timed
from pointwise.engine.cpu import launch
from pointwise.engine.cpu.launch import Program, kernel, threads
from pointwise.messages import duration
from pointwise.timing import Times, Watch, ratio
from pointwise.timing.times import sum_of

Progress = Callable[[], object]
"""Called after each run."""

ROUNDS = 20
_WORTH_SHARING = 1.0  # milliseconds of a network on one thread
_HELP = (
    0.8  # of the time of all threads: below, the one was alone on a processor that others shared
)


@dataclass(frozen=True)
class ModuleTimes:
    """Milliseconds: of the ``whole`` network, and of its parts in each of the passes.

    A pass that is not possible is empty: on ``one_thread`` where there is only one, ``double``
    where the input has no batch. ``busy`` says why nothing can be concluded; empty where all can.
    """

    whole: Times
    parts: dict[Key, Times]
    one_thread: dict[Key, Times]
    double: dict[Key, Times]
    again: dict[Key, Times]
    call: float  # of a module that does almost nothing
    launch: float  # of a launch that does nothing
    launches: dict[Key, FusedLaunch] = field(default_factory=dict)
    busy: str = ""


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

    def once(pass_: str, work: Callable[[], None], again: bool = False) -> None:
        found[pass_].append(parts(work, again))
        progress()

    twice = doubled(inputs) if not keywords else None
    if twice is not None and not _runs(network, twice):
        twice = None
    whole: list[float] = []
    found: dict[str, list[dict[Key, float]]] = {"parts": [], "again": [], "alone": [], "double": []}
    with Watch() as watch:
        for _ in range(rounds):
            run()  # the pass before may have left others' data in the caches
            whole.append(1e3 * _seconds(run))
            progress()
            once("parts", run)
            once("again", run, again=True)
            if threads() > 1:
                with _one_thread():
                    run()
                    once("alone", run)
            if twice is not None:
                network(*twice)
                once("double", lambda: network(*twice))
    times = {pass_: _times(rows) for pass_, rows in found.items()}
    call, launching = _call_ms(), _launch_ms()
    of_all = Times(tuple(whole))
    return ModuleTimes(
        whole=of_all,
        parts=times["parts"],
        one_thread=times["alone"],
        double=times["double"],
        again=times["again"],
        call=call,
        launch=launching,
        launches=fused,
        busy=watch.busy(of_all)
        or _contradiction(of_all, times["parts"], times["alone"], call + launching),
    )


def _contradiction(
    whole: Times, parts: dict[Key, Times], alone: dict[Key, Times], allowed: float
) -> str:
    """What cannot be, on a machine that has its processors for this; empty where all can."""
    return _too_slow(whole, parts, allowed) or _no_help(parts, alone)


def _no_help(parts: dict[Key, Times], alone: dict[Key, Times]) -> str:
    """Where one thread was faster than all, for longer than a call takes, not all were free."""
    if not alone:
        return ""
    all_threads, one = (sum_of(list(each.values())) for each in (parts, alone))
    if one.median < _WORTH_SHARING or ratio(one, all_threads).high > _HELP:
        return ""
    many = duration(all_threads.median)
    return f"one thread took {duration(one.median)}, and {threads()} took {many}"


def _too_slow(whole: Times, parts: dict[Key, Times], allowed: float) -> str:
    """Where a part never took as little as the whole nearly always did, somebody came between."""
    for key, times in parts.items():
        if times.min > whole.p95 + allowed:
            name = key[0] or "the network itself"
            return (
                f"{name} alone took longer ({duration(times.min)}) than all ({duration(whole.p95)})"
            )
    return ""


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _times(rounds: list[dict[Key, float]]) -> dict[Key, Times]:
    """Milliseconds of each part; a part that did not run in a round took none."""
    keys = {key: None for each in rounds for key in each}
    return {key: Times(tuple(1e3 * each.get(key, 0.0) for each in rounds)) for key in keys}


def _call_ms(times: int = 200) -> float:
    """A module that takes the relu of a single number, timed by hooks like every other."""
    module, x = nn.ReLU(), torch.zeros(1)
    found = []
    for _ in range(times):
        clock = Stopwatch()
        with timed(module, {"": module}, clock):
            module(x)
        found.append(clock.own)
    return _times(found)[("",)].median


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
