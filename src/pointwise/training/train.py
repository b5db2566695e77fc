"""A training from the data to the weights, with Lightning."""

from __future__ import annotations

import copy
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from pointwise.cloud.scan import Scan
from pointwise.training.augment import Augmentation
from pointwise.training.bar import Bar
from pointwise.training.classes import class_weights
from pointwise.training.data import pack, train_loader, validation_loader
from pointwise.training.module import TrainingModule
from pointwise.training.run import Run, save_run, save_weights
from pointwise.training.sources import Data


@dataclass(frozen=True)
class Settings:
    """How to train. The end is after ``minutes`` where they are given, else after ``epochs``."""

    minutes: float | None = None
    epochs: int = 100
    batch: int | None = None  # blocks or clouds in a step; 1 or 16 unless given
    learning_rate: float = 0.005
    label_smoothing: float = 0.0
    patience: int | None = None  # validations without a better one before the end
    workers: int = 0
    devices: int = 1
    precision: str | None = None  # bf16-mixed on a GPU, else 32-true
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                option = name.replace("_", "-")
                raise ValueError(f"train: --{option} must be greater than 0, got {value:g}")


class Clock(Callback):
    """Says how much of a training is done, ends it in time, and goes on after a resumption."""

    def __init__(self, settings: Settings) -> None:
        self.minutes, self.epochs = settings.minutes, settings.epochs
        self.before = 0.0  # seconds, in earlier sittings
        self.start: float | None = None
        self.trainer: lightning.Trainer | None = None

    @property
    def seconds(self) -> float:
        return self.before + (0.0 if self.start is None else time.monotonic() - self.start)

    def progress(self) -> float:
        if self.minutes is not None:
            return min(1.0, self.seconds / (60 * self.minutes))
        if self.trainer is None:
            return 0.0
        return min(
            1.0, self.trainer.global_step / (self.epochs * self.trainer.num_training_batches)
        )

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self.start, self.trainer = time.monotonic(), trainer

    def on_train_batch_end(self, trainer: lightning.Trainer, *_) -> None:
        if self.minutes is not None and self.progress() >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.before = state["seconds"]


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


def train(
    run: Run,
    data: Data,
    folder: Path,
    settings: Settings,
    *,
    augmentation: Augmentation | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Trains the run's network and leaves the best weights in it and in ``folder``.

    Writes ``run.json``, ``last.ckpt``, ``best.ckpt``, TensorBoard's ``logs`` and ``weights.pt``;
    returns the seconds spent, earlier sittings included. An interruption leaves a ``last.ckpt``
    that ``resume=True`` continues from. Raises ValueError where nothing is left to do.
    """
    last = folder / "last.ckpt"
    if resume:
        check_resumable(folder, settings)
    else:
        save_run(run, folder)
    torch.manual_seed(settings.seed)
    batch = settings.batch or (1 if run.recipe.task == "segmentation" else 16)
    loader = train_loader(
        run.recipe,
        data.train,
        augmentation=augmentation,
        batch=batch,
        workers=settings.workers,
        seed=settings.seed,
    )
    watched = (
        validation_loader(run.recipe, data.validation, batch=batch, workers=settings.workers)
        if data.validation
        else None
    )
    _compile_kernels(run, loader)
    clock = Clock(settings)
    module = TrainingModule(
        run.network,
        len(run.recipe.classes),
        progress=clock.progress,
        weights=class_weights(label_counts(run, data.train)).tolist(),
        learning_rate=settings.learning_rate,
        label_smoothing=settings.label_smoothing,
    )
    shown = (
        [Bar(clock.progress, {"accuracy": "accuracy", "IoU": "iou"})] if sys.stdout.isatty() else []
    )
    with _quiet(), _interruptible():
        trainer = _trainer(run, folder, settings, [*shown, clock, *callbacks], bool(watched))
        trainer.fit(module, loader, watched, ckpt_path=last if resume else None, weights_only=True)
    seconds = clock.seconds
    best = folder / "best.ckpt"
    if watched is not None and best.exists():
        state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)
    run.network.load_state_dict(module.average.module.state_dict())
    run.network.eval()
    if trainer.is_global_zero:
        save_weights(run, folder)
    return seconds


def _compile_kernels(run: Run, loader: DataLoader) -> None:
    """Takes one step with a copy of the network, whose kernels compile if they never ran before.

    That takes half a minute on a new machine, which is not to be taken from ``minutes``.
    """
    if torch.cuda.is_available():
        return
    network = copy.deepcopy(run.network).train()
    samples = [loader.dataset[i] for i in range(loader.batch_size or 1)]
    batch = pack(samples)
    with torch.random.fork_rng():
        network(batch.points, batch.features, batch.offsets).sum().backward()


def label_counts(run: Run, scans: Sequence[Scan]) -> np.ndarray:
    """How many points, or clouds, of each class ``[K]`` the scans hold."""
    counts = np.zeros(len(run.recipe.classes), dtype=np.int64)
    for scan in scans:
        index = run.recipe.targets(scan)
        counts += np.bincount(index[index >= 0], minlength=len(counts))
    return counts


def check_resumable(folder: Path, settings: Settings) -> None:
    """Raises OSError where there is no ``last.ckpt``, ValueError where its training is over."""
    last = folder / "last.ckpt"
    if not last.exists():
        raise FileNotFoundError(f"train: {folder} has no last.ckpt to resume from; train anew")
    state = torch.load(last, map_location="cpu", weights_only=True)
    if settings.minutes is not None:
        used = state["callbacks"]["Clock"]["seconds"] / 60
        if used >= settings.minutes:
            raise ValueError(
                f"train: {folder} has used its {settings.minutes:g} minutes;"
                " give more with --minutes"
            )
    elif state["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] >= settings.epochs:
        raise ValueError(
            f"train: {folder} has done its {settings.epochs} epochs; give more with --epochs"
        )


def _trainer(
    run: Run, folder: Path, settings: Settings, callbacks: list[Callback], watched: bool
) -> lightning.Trainer:
    gpu = torch.cuda.is_available()
    monitor = ("iou" if run.recipe.task == "segmentation" else "accuracy") if watched else None
    callbacks = [
        *callbacks,
        LearningRateMonitor("step"),
        ModelCheckpoint(
            folder,
            filename="best",
            monitor=monitor,
            mode="max",
            save_last=True,
            save_on_train_epoch_end=not watched,
            enable_version_counter=False,
        ),
        SaveLast(folder),
    ]
    if monitor is not None and settings.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=settings.patience))
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=settings.devices,
        precision=settings.precision or ("bf16-mixed" if gpu else "32-true"),  # type: ignore[arg-type]
        max_epochs=-1 if settings.minutes is not None else settings.epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        gradient_clip_val=5.0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's tips and remarks to itself; errors are still raised."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning|torch\.optim")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turns what Lightning makes of Ctrl-C (an exit, further ones ignored) into Ctrl-C again."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
