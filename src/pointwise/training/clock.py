"""How long a training is: so many steps, and no more minutes than are given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback

from pointwise.messages import rough_duration
from pointwise.training import processes

STEPS = 10_000  # where nothing is said
TIMED = 10  # steps that tell how long the others will take
WARM = 2  # before them, which fill caches and start workers


@dataclass(frozen=True)
class Spent:
    """What a training has taken, with all that was before a resumption."""

    steps: int
    seconds: float


class Clock(Callback):
    """Says how much of a training is done, ends it, and goes on after a resumption.

    The same number of steps on any machine; where ``minutes`` come first, as many as these hold:
    ``progress``, which the learning rate follows, is the larger share, of steps or of time.
    ``say`` is told how long it will take, as soon as the first steps tell.
    """

    def __init__(
        self, steps: int, minutes: float | None = None, say: Callable[[str], object] | None = None
    ) -> None:
        self.steps, self.minutes, self.say = steps, minutes, say
        self.done = self.began = 0  # steps, now and when this process began with them
        self.before = 0.0  # seconds, before a resumption
        self.start: float | None = None
        self.agreed: float | None = None
        self.timed: tuple[int, float] | None = None  # steps and seconds when timing began

    @property
    def seconds(self) -> float:
        """Since the start; with other processes as of the last step, so that it is one for all."""
        if self.agreed is not None:
            return self.agreed
        return self.before + (0.0 if self.start is None else time.monotonic() - self.start)

    @property
    def spent(self) -> Spent:
        return Spent(self.done, self.seconds)

    def progress(self) -> float:
        share = self.done / self.steps
        if self.minutes is not None:
            share = max(share, self.seconds / (60 * self.minutes))
        return min(1.0, share)

    def left(self) -> float | None:
        """The seconds that are left, as far as the steps until now tell; None before that."""
        begin = self.timed
        if begin is None or self.done - begin[0] < TIMED:
            return None
        left = (self.steps - self.done) * (self.seconds - begin[1]) / (self.done - begin[0])
        if self.minutes is not None:
            left = min(left, 60 * self.minutes - self.seconds)
        return max(0.0, left)

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.start, self.began = time.monotonic(), self.done
        if processes.count() > 1:
            (self.agreed,) = processes.greatest(self.before)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_) -> None:
        self.done += 1
        if processes.count() > 1:
            self.agreed = None
            (self.agreed,) = processes.greatest(self.seconds)
        if self.done - self.began == WARM:
            self.timed = self.done, self.seconds
        if self.done - self.began == WARM + TIMED and self.say is not None:
            self.say(self._will_take())
        if self.progress() >= 1:
            trainer.should_stop = True

    def _will_take(self) -> str:
        assert self.timed is not None
        each = (self.seconds - self.timed[1]) / (self.done - self.timed[0])
        seconds = self.seconds - self.before + each * (self.steps - self.done)
        other = "the other " if self.began else ""
        if self.minutes is None or self.before + seconds <= 60 * self.minutes:
            steps = self.steps - self.began
            return f"{other}{steps:,} steps take about {rough_duration(seconds)} here"
        hold = self.done + max(0, math.floor((60 * self.minutes - self.seconds) / each))
        return (
            f"{self.minutes:g} min hold about {hold:,} of {self.steps:,} steps here; the learning"
            " rate is fitted to them"
        )

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds, "steps": self.done}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before, self.done = state["seconds"], int(state["steps"])
