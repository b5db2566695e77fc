"""One line that tells how a training goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Bar(Callback):
    """Shows the share that is done, of minutes or of epochs alike, the loss and the last scores.

    Lightning's bars count the batches of an epoch, which say little about a training in minutes.
    """

    def __init__(self, progress: Callable[[], float], scores: dict[str, str]) -> None:
        self.progress, self.scores = progress, scores
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[says]}"),
            console=Console(highlight=False),
            transient=True,
        )
        self.found: dict[str, float] = {}
        self.task = self.bar.add_task("training", total=1.0, says="")

    def on_train_start(self, *_) -> None:
        self.bar.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_) -> None:
        self.bar.update(self.task, completed=self.progress(), says=self._says(trainer))

    def on_validation_end(self, trainer: lightning.Trainer, *_) -> None:
        # Kept, since Lightning forgets them when the next epoch begins.
        self.found = {name: float(value) for name, value in trainer.callback_metrics.items()}

    def on_train_end(self, *_) -> None:
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        self.bar.stop()

    def _says(self, trainer: lightning.Trainer) -> str:
        parts = [f"epoch {trainer.current_epoch + 1}"]
        if (loss := trainer.callback_metrics.get("loss")) is not None:
            parts.append(f"loss {float(loss):.2f}")
        for name, metric in self.scores.items():
            if metric in self.found:
                parts.append(f"{name} {100 * self.found[metric]:.1f} %")
        return ", ".join(parts)
