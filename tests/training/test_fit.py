from __future__ import annotations

import re
import time
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from short_runs import CLOUDS, SCENES, new_run, train

from pointwise.training import data as training_data
from pointwise.training.augment import Augmentation
from pointwise.training.bar import Bar
from pointwise.training.evaluate import evaluate, write_metrics
from pointwise.training.metrics import scores
from pointwise.training.run import load_run, read_run
from pointwise.training.sources import Data
from pointwise.training.train import Settings

EPOCH = 18  # steps in an epoch of SCENES: 9 blocks cover them once, and 16 are the fewest here


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    monkeypatch.setattr(training_data, "FEWEST", 16)


class After(lightning.Callback):
    """Does something after so many steps."""

    def __init__(self, step: int, action) -> None:
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step == self.step:
            self.action(trainer, module)


def interrupt(trainer, module) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("data", [SCENES, CLOUDS], ids=["segmentation", "classification"])
def test_what_can_be_learned_is_learned(data, tmp_path):
    run = new_run(data)
    before = scores(evaluate(run, data.test)).overall_accuracy
    settings = Settings(epochs=12, learning_rate=0.02)
    train(run, data, tmp_path, settings, augmentation=Augmentation(), batch=2)
    matrix = evaluate(load_run(tmp_path), data.test)
    assert scores(matrix).overall_accuracy > 0.9
    assert scores(matrix).mean_class_accuracy > 0.9
    assert before < 0.9
    assert (matrix == evaluate(run, data.test)).all()  # the run in hand is the one on disk


def test_a_run_leaves_what_it_should(tmp_path):
    run = new_run()
    seconds = train(run, SCENES, tmp_path, Settings(epochs=2))
    result = write_metrics(run, evaluate(run, SCENES.test), tmp_path, seconds=seconds)
    names = {"run.json", "best.ckpt", "last.ckpt", "weights.pt", "metrics.json", "confusion.png"}
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert list((tmp_path / "logs").glob("events.out.tfevents.*"))
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]
    assert 0 <= result.mean_iou <= 1
    assert seconds > 0


def test_training_is_repeatable(tmp_path):
    weights = []
    for name in ("a", "b"):
        train(new_run(), SCENES, tmp_path / name, Settings(epochs=2), augmentation=Augmentation())
        weights.append(load_run(tmp_path / name).network.state_dict())
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
def test_any_precision_trains(precision, tmp_path):
    run = new_run()
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    train(run, SCENES, tmp_path, Settings(epochs=1, precision=precision))
    for name, value in load_run(tmp_path).network.named_parameters():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, before[name]), name


def test_an_interruption_leaves_a_run_that_resumes(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(new_run(), SCENES, tmp_path, Settings(epochs=3), callbacks=[After(20, interrupt)])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 20
    with pytest.raises(FileNotFoundError, match="train --resume"):
        load_run(tmp_path)

    seen: list[tuple[int, float]] = []

    def look(trainer, module) -> None:
        state = module.optimizers().optimizer.state
        seen.append((trainer.global_step, float(next(iter(state.values()))["step"])))

    train(
        read_run(tmp_path),
        SCENES,
        tmp_path,
        Settings(epochs=3),
        resume=True,
        callbacks=[After(21, look)],
    )
    assert seen == [(21, 21.0)]  # it goes on at its step, with its optimiser's state
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3 * EPOCH
    load_run(tmp_path)


def test_minutes_end_a_training_fully_annealed(tmp_path):
    rates: list[float] = []

    class Rates(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    start = time.monotonic()
    settings = Settings(minutes=1.5 / 60, learning_rate=0.01)
    seconds = train(new_run(), SCENES, tmp_path, settings, callbacks=[Rates()])
    assert 1.5 <= seconds <= time.monotonic() - start < 6
    assert max(rates) > 0.009
    assert rates[-1] < 0.0005
    with pytest.raises(ValueError, match=r"has used its 0.025 minutes; give more with --minutes"):
        train(read_run(tmp_path), SCENES, tmp_path, settings, resume=True)


def test_time_spent_counts_after_a_resumption(tmp_path):
    settings = Settings(minutes=1.5 / 60)

    def wait(trainer, module) -> None:
        time.sleep(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(new_run(), SCENES, tmp_path, settings, callbacks=[After(2, wait)])
    start = time.monotonic()
    seconds = train(read_run(tmp_path), SCENES, tmp_path, settings, resume=True)
    assert seconds >= 1.5
    assert seconds - 0.9 > time.monotonic() - start - 1.5  # a second less was left


def test_epochs_already_done(tmp_path):
    train(new_run(), SCENES, tmp_path, Settings(epochs=1))
    with pytest.raises(ValueError, match="has done its 1 epochs; give more with --epochs"):
        train(read_run(tmp_path), SCENES, tmp_path, Settings(epochs=1), resume=True)
    train(read_run(tmp_path), SCENES, tmp_path, Settings(epochs=2), resume=True)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2 * EPOCH


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no last.ckpt to resume from"):
        train(new_run(), SCENES, tmp_path, Settings(), resume=True)


def test_patience_ends_a_training_that_does_not_get_better(tmp_path):
    data = Data("segmentation", SCENES.train, SCENES.validation, [])
    settings = Settings(epochs=50, learning_rate=1e-9, patience=2)
    train(new_run(), data, tmp_path, settings)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] < 8


def test_without_validation_the_last_weights_are_kept(tmp_path):
    run = new_run()
    train(run, Data("segmentation", SCENES.train, [], SCENES.test), tmp_path, Settings(epochs=2))
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in load_run(tmp_path).network.state_dict().items():
        torch.testing.assert_close(value, state[f"average.module.{name}"])


def test_the_bar_tells_how_it_goes(tmp_path):
    share = iter([*(i / 36 for i in range(1, 37))])
    bar = Bar(lambda: next(share), {"IoU": "iou"})
    train(new_run(), SCENES, tmp_path, Settings(epochs=2), callbacks=[bar])
    (task,) = bar.bar.tasks
    assert task.completed == 1
    assert re.fullmatch(r"epoch 2, loss \d\.\d\d, IoU \d+\.\d %", task.fields["says"])
    assert not bar.bar.live.is_started


def test_a_precision_that_is_none():
    with pytest.raises(ValueError, match="--precision is 'fp15', but it can be 16-mixed, 16-true"):
        Settings(precision="fp15")


@pytest.mark.parametrize("option", ["minutes", "learning_rate"])
def test_what_must_be_positive(option):
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')} must be greater than 0"):
        Settings(**{option: 0.0})


def test_training_is_quiet(tmp_path, capfd):
    train(new_run(), SCENES, Path(tmp_path), Settings(epochs=1))
    said = capfd.readouterr()
    assert said.out.strip() == ""
    assert said.err.strip() == ""
