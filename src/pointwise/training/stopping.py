"""Trainings that are ended from outside, by Ctrl-C or a signal, and can go on from there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback

from pointwise import interruption
from pointwise.training import processes


class Stop(Callback):
    """Ends a training at once on what ``as_ctrl_c`` has made to end it, as on Ctrl-C."""

    def __init__(self) -> None:
        self.numbers = [
            number
            for number in interruption.SIGNALS
            if signal.getsignal(number) is interruption.interrupt
        ]

    def on_train_start(self, *_) -> None:
        # Lightning's own handler of SIGTERM ends a training later, and nothing is saved.
        for number in self.numbers:
            signal.signal(number, interruption.interrupt)


class StopTogether(Callback):
    """Makes Ctrl-C and SIGTERM, in any of several processes, end all of them after the same step.

    What arrives during a validation counts once that is over, the last one's included.

    One that stopped by itself would leave the others waiting for it, and nothing could be saved.
    """

    def __init__(self) -> None:
        self.asked = 0

    def on_train_start(self, *_) -> None:
        # Lightning's own handler of SIGTERM waits for the others inside the handler.
        for number in (signal.SIGINT, *interruption.SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, number: int, *_) -> None:
        self.asked = number

    def on_train_batch_end(self, *_) -> None:
        (asked,) = processes.greatest(self.asked)
        if asked:
            interruption.note(int(asked))
            raise KeyboardInterrupt

    def on_train_epoch_end(self, *_) -> None:  # after the validation, and what is saved then
        self.on_train_batch_end()


class SaveLast(Callback):
    """Writes ``last.ckpt`` when a training ends or is interrupted, so that it can go on there.

    What ModelCheckpoint writes after a validation does not know yet that its epoch is complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_exception(
        self, trainer: lightning.Trainer, module: Any, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt):
            trainer.save_checkpoint(self.folder / "last.ckpt")


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns what Lightning makes of Ctrl-C (an exit, further ones ignored) into Ctrl-C again."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
