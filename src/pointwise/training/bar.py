"""How a training goes: a bar on a terminal, elsewhere a line now and then; both on stderr."""

from __future__ import annotations

import sys
import time

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from pointwise.messages import rough_duration
from pointwise.training.clock import Clock

FIRST, EVERY, SELDOM = 5.0, 15.0, 300.0  # seconds until the first line, and between two
SHARE = 0.05  # of the training, between two lines, unless that is more than ``SELDOM``


class Told(Callback):
    """What both have in common: the words, with the last scores among them.

    Lightning's bars count the batches of an epoch, which say little of a training in steps.
    """

    def __init__(self, clock: Clock, scores: dict[str, str]) -> None:
        self.clock, self.scores = clock, scores
        self.found: dict[str, float] = {}

    def on_validation_end(self, trainer: lightning.Trainer, *_) -> None:
        # Kept, since Lightning forgets them when the next epoch begins.
        self.found = {name: float(value) for name, value in trainer.callback_metrics.items()}

    def says(self, trainer: lightning.Trainer) -> str:
        parts = [f"step {self.clock.done:,}/{self.clock.steps:,}"]
        if (loss := trainer.callback_metrics.get("loss")) is not None:
            parts.append(f"loss {float(loss):.2f}")
        for name, metric in self.scores.items():
            if metric in self.found:
                parts.append(f"{name} {100 * self.found[metric]:.1f} %")
        if (left := self.clock.left()) is not None and self.clock.progress() < 1:
            parts.append(f"{rough_duration(left)} left")
        return ", ".join(parts)


class Bar(Told):
    """Shows the share that is done, the step, the loss, the last scores and the time left."""

    def __init__(self, clock: Clock, scores: dict[str, str]) -> None:
        super().__init__(clock, scores)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=8),
            TaskProgressColumn(),
            TextColumn("{task.fields[says]}"),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self.task = self.bar.add_task("training", total=1.0, says="")
        clock.say = self.bar.console.print

    def on_train_start(self, *_) -> None:
        self.bar.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_) -> None:
        self.bar.update(self.task, completed=self.clock.progress(), says=self.says(trainer))

    def on_train_end(self, *_) -> None:
        self.bar.stop()

    def on_exception(self, *_) -> None:
        self.bar.stop()


class Lines(Told):
    """Says the same in lines, where a training takes long."""

    def __init__(self, clock: Clock, scores: dict[str, str]) -> None:
        super().__init__(clock, scores)
        self.next = 0.0
        clock.say = self._forecast

    def _forecast(self, words: str) -> None:
        left = self.clock.left()
        if left is None or left > FIRST:
            print(words, file=sys.stderr, flush=True)

    def on_train_start(self, *_) -> None:
        self.next = time.monotonic() + FIRST

    def on_train_batch_end(self, trainer: lightning.Trainer, *_) -> None:
        now = time.monotonic()
        if now < self.next or self.clock.progress() >= 1:
            return
        whole = self.clock.seconds / max(self.clock.progress(), 1e-9)
        self.next = now + max(EVERY, min(SELDOM, SHARE * whole))
        share = f"{100 * self.clock.progress():.0f} %"
        print(f"training: {share}, {self.says(trainer)}", file=sys.stderr, flush=True)
