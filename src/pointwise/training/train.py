"""A training from the data to the weights, with Lightning."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from pointwise.interruption import as_ctrl_c
from pointwise.training import processes
from pointwise.training.bar import Bar, Lines
from pointwise.training.classes import class_weights
from pointwise.training.clock import STEPS, Clock, Spent
from pointwise.training.feed import Feed
from pointwise.training.module import TrainingModule
from pointwise.training.muon import Muon
from pointwise.training.run import Run, save_run, save_weights
from pointwise.training.stopping import SaveLast, Stop, StopTogether, interruptible

SMOOTHING = 0.1  # a few hundred clouds are soon known by heart, and then nothing more is learned
_PRECISIONS = tuple(f"{bits}{kind}" for bits in ("16", "bf16") for kind in ("-mixed", "-true", ""))
_PRECISIONS += ("32-true", "32", "64-true", "64")  # Lightning's, without those of other packages


@dataclass(frozen=True)
class Settings:
    """How to train: for so many ``steps``, or ``epochs`` (passes over the data), ``STEPS`` unless
    one of them is given, and never longer than ``minutes``."""

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    learning_rate: float = 0.005
    label_smoothing: float | None = None  # SMOOTHING for whole clouds, none for the rest
    patience: int | None = None  # validations without a better one before the end
    devices: int | None = None  # processes on this machine; as many as were started
    precision: str | None = None  # bf16-mixed on a GPU, else 32-true
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("train: --steps and --epochs both say how long; give one of them")
        for name in ("steps", "epochs", "minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                option = name.replace("_", "-")
                raise ValueError(f"train: --{option} must be greater than 0, got {value:g}")
        if self.precision not in (None, *_PRECISIONS):
            raise ValueError(
                f"train: --precision is {self.precision!r}, but it can be {', '.join(_PRECISIONS)}"
            )

    def length(self, feed: Feed) -> int:
        """The number of steps."""
        if self.epochs is not None:
            return feed.steps_of(self.epochs)
        return STEPS if self.steps is None else self.steps


def train(
    run: Run,
    feed: Feed,
    folder: Path,
    settings: Settings,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Spent:
    """Trains the run's network on ``feed``; leaves the best weights in it and in ``folder``.

    Writes ``run.json``, ``last.ckpt``, ``best.ckpt``, TensorBoard's ``logs`` and ``weights.pt``;
    returns the steps and seconds spent, those before a resumption included. An interruption (by
    Ctrl-C, SIGTERM or SIGHUP) leaves a ``last.ckpt`` that ``resume=True`` continues from. Raises
    ValueError where nothing is left.

    Of several processes (``training/processes.py``), each calls this with its own share of the data
    in ``feed``; the first one writes, and all have the same weights afterwards.
    """
    processes.take_place(settings.devices)
    if settings.devices not in (None, processes.here()):
        raise ValueError(
            f"train: --devices is {settings.devices}, but this is one process; start as many with:"
            f" torchrun --nproc-per-node {settings.devices}"
        )
    validated = feed.validation is not None
    if settings.patience is not None and not validated:
        raise ValueError(
            "train: --patience waits for better scores on a validation part, and there is none;"
            " leave it out"
        )
    last, steps = folder / "last.ckpt", settings.length(feed)
    if resume:
        processes.first(lambda: check_resumable(folder, settings, steps))
    else:
        processes.first(lambda: save_run(run, folder))
    torch.manual_seed(settings.seed + processes.rank())
    # The first one alone, so that the others find its kernels in the cache.
    if processes.rank() == 0:
        _compile_kernels(run, feed)
    processes.together(lambda: None)
    smoothing = settings.label_smoothing
    if smoothing is None:
        smoothing = SMOOTHING if run.recipe.task == "classification" else 0.0
    scores = {"IoU": "iou"} if run.recipe.task == "segmentation" else {"accuracy": "accuracy"}
    clock = Clock(steps, settings.minutes)
    told: list[Callback] = []
    if processes.rank() == 0:
        told = [(Bar if sys.stderr.isatty() else Lines)(clock, scores)]
    module = TrainingModule(
        run.network,
        len(run.recipe.classes),
        progress=clock.progress,
        weights=class_weights(feed.counts).tolist(),
        learning_rate=settings.learning_rate,
        label_smoothing=smoothing,
        overlap=run.recipe.task == "segmentation",
    )
    with _quiet(), as_ctrl_c(), interruptible():
        if resume:
            _load(module, last)  # said in one line here, where it does not fit
        # The clock first, so that the others ask it after the step that has ended.
        callbacks = [clock, *told, Stop() if processes.count() == 1 else StopTogether(), *callbacks]
        trainer = processes.together(lambda: _trainer(run, folder, settings, callbacks, validated))
        checkpoint = last if resume else None
        trainer.fit(module, feed.train, feed.validation, ckpt_path=checkpoint, weights_only=True)
    best = folder / "best.ckpt"
    if trainer.is_global_zero and validated and best.exists():
        _load(module, best)
    run.network.load_state_dict(module.average.module.state_dict())
    processes.copy_first(run.network)
    run.network.eval()
    if trainer.is_global_zero:
        save_weights(run, folder)
    return clock.spent


def _compile_kernels(run: Run, feed: Feed) -> None:
    """Takes one step with a copy of the network, whose kernels compile if they never ran before.

    That takes half a minute on a new machine, which is not to be taken from ``minutes``.
    """
    if torch.cuda.is_available():
        return
    network = copy.deepcopy(run.network).train()
    with torch.random.fork_rng():
        network(*feed.example().inputs).sum().backward()


def check_resumable(folder: Path, settings: Settings, steps: int | None = None) -> None:
    """Raises OSError where there is no ``last.ckpt``, ValueError where its training is over.

    ``steps`` are its length, which the settings alone do not say where it is in epochs.
    """
    last = folder / "last.ckpt"
    if not last.exists():
        raise FileNotFoundError(f"train: {folder} has no last.ckpt to resume from; train anew")
    state = _checkpoint(last)
    try:
        used = float(state["callbacks"]["Clock"]["seconds"]) / 60
        done = int(state["callbacks"]["Clock"]["steps"])
        groups = len(state["optimizer_states"][0]["param_groups"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"train: {last} is no checkpoint of a training by this command"
            f" ({type(error).__name__}: {error}); train anew"
        ) from None
    if groups != Muon.GROUPS:
        raise ValueError(
            f"train: {last} is of an earlier version, whose optimiser cannot go on in this one;"
            f" train anew, or beginning with its weights: --from {folder}"
        )
    if settings.minutes is not None and used >= settings.minutes:
        raise ValueError(
            f"train: {folder} has used its {settings.minutes:g} minutes; give more with --minutes"
        )
    if steps is None and settings.epochs is None:
        steps = settings.steps or STEPS
    # Without weights it was stopped after its last step, in the validation behind it.
    if steps is not None and done >= steps and (folder / "weights.pt").exists():
        length, more = f"{steps:,} steps", "--steps"
        if settings.epochs is not None:
            length, more = f"{settings.epochs:,} epochs", "--epochs"
        raise ValueError(f"train: {folder} has done its {length}; give more with {more}")


def _checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of Lightning's; raises ValueError, in one line, for anything else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds {type(state).__name__}")
    except Exception as error:  # pickle, zip and torch raise a dozen types for a broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"train: {path} cannot be read: {reason}; train anew") from None
    return state


def _load(module: TrainingModule, path: Path) -> None:
    """Loads a checkpoint's weights; raises ValueError, in one line, where they do not fit."""
    try:
        module.load_state_dict(_checkpoint(path)["state_dict"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"train: {path} does not fit its run.json: {reason}; train anew") from None


def _trainer(
    run: Run, folder: Path, settings: Settings, callbacks: list[Callback], validated: bool
) -> lightning.Trainer:
    gpu = torch.cuda.is_available()
    monitor = ("iou" if run.recipe.task == "segmentation" else "accuracy") if validated else None
    callbacks = [
        *callbacks,
        LearningRateMonitor("step"),
        ModelCheckpoint(
            folder,
            filename="best",
            monitor=monitor,
            mode="max",
            save_last=True,
            save_on_train_epoch_end=not validated,
            enable_version_counter=False,
        ),
        SaveLast(folder),
    ]
    if monitor is not None and settings.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=settings.patience))
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        **_spread(gpu),
        precision=settings.precision or ("bf16-mixed" if gpu else "32-true"),  # type: ignore[arg-type]
        max_epochs=-1,  # the clock ends it
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        gradient_clip_val=5.0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _spread(gpu: bool) -> dict[str, Any]:
    """What Lightning is told of the processes that ``training/processes.py`` has connected."""
    if processes.count() == 1:
        return {"devices": 1}
    return {
        "devices": processes.here(),
        "num_nodes": processes.count() // processes.here(),
        # The network's buffers are averaged by the module, after each step. What a process's data
        # leave unused in a step gets no gradient there, which the others must not wait for.
        "strategy": DDPStrategy(broadcast_buffers=False, find_unused_parameters=True),
        "plugins": [TorchElasticEnvironment()],
        "use_distributed_sampler": False,  # the feed is shared out already
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's tips and remarks to itself; errors are still raised."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning|torch\.optim")
            # Of DDP, about weights of size 1 in memory's other order: copied, and that is all.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
