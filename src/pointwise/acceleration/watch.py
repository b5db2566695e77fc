"""Where the time of a plan goes: which of it is kernels', which PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

KERNELS = "kernels"
_WATCHED = 4  # runs; the first reads kernels from disk, or compiles them, and does not count
_LEAST = 1e-3  # seconds; of less than that, little is to be gained


class Step(NamedTuple):
    """A part of a plan's work, and in words what it is."""

    what: str
    work: Callable[[list[Any]], None]


class Watch:
    """Times the steps of a plan in its first few runs."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._runs = 0
        self._least = [float("inf")] * len(steps)

    @property
    def ended(self) -> bool:
        return self._runs >= _WATCHED

    def run(self, slots: list[Any]) -> str:
        """Runs all steps; once it knows, says whether most of the time is PyTorch's own."""
        before = perf_counter()
        for i, step in enumerate(self._steps):
            step.work(slots)
            now = perf_counter()
            if self._runs:
                self._least[i] = min(self._least[i], now - before)
            before = now
        self._runs += 1
        return self._said() if self.ended else ""

    def times(self) -> dict[str, float]:
        """Seconds by what they are spent in, the most first; empty before it knows."""
        if self._runs < 2:
            return {}
        found: dict[str, float] = {}
        for step, seconds in zip(self._steps, self._least, strict=True):
            found[step.what] = found.get(step.what, 0.0) + seconds
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _said(self) -> str:
        times = self.times()
        whole = sum(times.values())
        if whole < _LEAST or times.get(KERNELS, 0.0) >= whole / 2:
            return ""
        plain = {what: seconds for what, seconds in times.items() if what != KERNELS}
        some = ", ".join(f"{what} {share(plain[what], whole)}" for what in list(plain)[:3])
        return (
            f"{share(sum(plain.values()), whole)} of this model's time is spent in PyTorch's own "
            f"calls, not in kernels: {some}{', …' if len(plain) > 3 else ''}; reports() says why"
        )


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"
