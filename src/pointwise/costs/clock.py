"""Time spent in each part of a network as it runs: modules by hooks, fused runs step by step.

A part's time is its own: what modules inside it take is theirs. So all parts together are the whole
run. Our convolutions run in plans, several modules in one launch, and would not if somebody hooked
them; such modules are left alone, and their launches timed instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from pointwise.layers import ConvNormAct, DepthwiseSeparableConv2d, inference

Key = tuple[str, ...]
"""The paths of the modules that ran as one: one module, or the convolutions of a launch."""


@dataclass(frozen=True)
class FusedLaunch:
    """A launch of fused modules, by their paths.

    ``convolutions``, those of them that are followed by an activation (``activated``), the norms
    folded into them, and whether a ``residual`` is added.
    """

    convolutions: tuple[str, ...]
    activated: tuple[str, ...]
    norms: tuple[str, ...]
    residual: bool


class Stopwatch:
    """Adds up the seconds of nested modules, each without those inside it."""

    def __init__(self) -> None:
        self.own: dict[Key, float] = {}
        self._open: list[Key] = []
        self._since = 0.0

    def enter(self, key: Key) -> None:
        now = time.perf_counter()
        if self._open:
            self._add(self._open[-1], now - self._since)
        self._open.append(key)
        self._since = time.perf_counter()

    def leave(self) -> None:
        now = time.perf_counter()
        self._add(self._open.pop(), now - self._since)
        self._since = time.perf_counter()

    def _add(self, key: Key, seconds: float) -> None:
        self.own[key] = self.own.get(key, 0.0) + seconds


def launches(network: nn.Module, run: Any) -> dict[Key, FusedLaunch]:
    """The launches of fused runs in ``run()``, by the paths of their convolutions."""
    paths = {id(module): path for path, module in network.named_modules()}
    found: dict[Key, FusedLaunch] = {}

    def note(plan: Any, with_residual: bool) -> None:
        for number in range(len(plan.units)):
            launch = _launch(plan, number, paths, with_residual)
            found[launch.convolutions] = launch
            plan.step(number)

    with inference.observed(note):
        run()
    return found


def _launch(plan: Any, number: int, paths: dict[int, str], with_residual: bool) -> FusedLaunch:
    units = [(paths[id(conv())], norm, activation) for conv, norm, activation in plan.units[number]]
    return FusedLaunch(
        convolutions=tuple(path for path, _, _ in units),
        activated=tuple(path for path, _, activation in units if activation not in (None, "none")),
        norms=tuple(paths[id(norm())] for _, norm, _ in units if norm is not None),
        residual=with_residual and number == len(plan.units) - 1,
    )


def hookable(network: nn.Module, fused: dict[Key, FusedLaunch]) -> dict[str, nn.Module]:
    """The modules that can be timed by hooks: all but those that run in launches."""
    inside = {path for launch in fused.values() for path in (*launch.convolutions, *launch.norms)}
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for path, module in network.named_modules():
        if path in inside or id(module) in seen:
            continue
        seen.add(id(module))
        prefix = f"{path}." if path else ""
        joined = isinstance(module, (ConvNormAct, DepthwiseSeparableConv2d))
        if joined and any(name.startswith(prefix) for name in inside):
            continue  # hooked, it would be called, and its convolutions would not run as one
        found[path] = module
    return found


@contextmanager
def timed(
    network: nn.Module, modules: dict[str, nn.Module], clock: Stopwatch, again: bool = False
) -> Iterator[None]:
    """Starts and stops ``clock`` around the modules and the launches of ``network``.

    With ``again``, what has no modules inside runs twice, and the time is that of the second: with
    its weights and its input in cache as far as they fit.
    """
    paths = {id(module): path for path, module in network.named_modules()}

    def step_by_step(plan: Any, with_residual: bool) -> None:
        for number in range(len(plan.units)):
            key = _launch(plan, number, paths, with_residual).convolutions
            if again:
                plan.step(number)
            clock.enter(key)
            plan.step(number)
            clock.leave()

    with ExitStack() as stack:
        for path, module in modules.items():
            _hook(stack, (path,), module, clock, again)
        stack.enter_context(inference.observed(step_by_step))
        yield


def _hook(stack: ExitStack, key: Key, module: nn.Module, clock: Stopwatch, again: bool) -> None:
    def enter(module: nn.Module, given: Any, keywords: Any) -> None:
        clock.enter(key)

    def leave(module: nn.Module, given: Any, keywords: Any, out: Any) -> None:
        clock.leave()

    def repeat(module: nn.Module, given: Any, keywords: Any, out: Any) -> None:
        clock.enter(key)
        module.forward(*given, **keywords)
        clock.leave()

    if again and not any(module.children()):
        handles = [module.register_forward_hook(repeat, with_kwargs=True)]
    elif again:
        return
    else:
        handles = [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]
    for handle in handles:
        stack.callback(handle.remove)
