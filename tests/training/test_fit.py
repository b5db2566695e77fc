from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from short_runs import CLOUDS, SCENES, new_run, train

from pointwise import interruption
from pointwise.training import bar
from pointwise.training import data as training_data
from pointwise.training.augment import Augmentation
from pointwise.training.clock import STEPS, Clock
from pointwise.training.evaluate import evaluate, write_metrics
from pointwise.training.metrics import scores
from pointwise.training.run import load_run, read_run
from pointwise.training.sources import Data
from pointwise.training.train import Settings

PASS = 6  # steps in which SCENES are read once
EPOCH = 18  # between two validations: as many passes as 16 blocks take, the fewest here


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
    settings = Settings(epochs=36, learning_rate=0.02)
    train(run, data, tmp_path, settings, augmentation=Augmentation(), batch=2)
    matrix = evaluate(load_run(tmp_path), data.test)
    assert scores(matrix).overall_accuracy > 0.9
    assert scores(matrix).mean_class_accuracy > 0.9
    assert before < 0.9
    assert (matrix == evaluate(run, data.test)).all()  # the run in hand is the one on disk


def test_a_run_leaves_what_it_should(tmp_path):
    run = new_run()
    spent = train(run, SCENES, tmp_path, Settings(steps=2 * EPOCH))
    result = write_metrics(run, evaluate(run, SCENES.test), tmp_path, spent=spent)
    names = {"run.json", "best.ckpt", "last.ckpt", "weights.pt", "metrics.json", "confusion.png"}
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert list((tmp_path / "logs").glob("events.out.tfevents.*"))
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]
    assert 0 <= result.mean_iou <= 1
    assert spent.seconds > 0
    assert spent.steps == 2 * EPOCH


def test_training_is_repeatable(tmp_path):
    weights = []
    for name in ("a", "b"):
        train(
            new_run(),
            SCENES,
            tmp_path / name,
            Settings(steps=2 * EPOCH),
            augmentation=Augmentation(),
        )
        weights.append(load_run(tmp_path / name).network.state_dict())
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
def test_any_precision_trains(precision, tmp_path):
    run = new_run()
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    train(run, SCENES, tmp_path, Settings(steps=EPOCH, precision=precision))
    for name, value in load_run(tmp_path).network.named_parameters():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, before[name]), name


def test_an_interruption_leaves_a_run_that_resumes(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(
            new_run(), SCENES, tmp_path, Settings(steps=3 * EPOCH), callbacks=[After(20, interrupt)]
        )
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
        Settings(steps=3 * EPOCH),
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
    spent = train(new_run(), SCENES, tmp_path, settings, callbacks=[Rates()])
    assert 1.5 <= spent.seconds <= time.monotonic() - start < 6
    assert spent.steps == len(rates) < STEPS
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
    spent = train(read_run(tmp_path), SCENES, tmp_path, settings, resume=True)
    assert spent.seconds >= 1.5
    assert spent.seconds - 0.9 > time.monotonic() - start - 1.5  # a second less was left


@pytest.mark.parametrize(("length", "said"), [
    (lambda n: {"steps": n * EPOCH}, "has done its 18 steps; give more with --steps"),
    (lambda n: {"epochs": n * 3}, "has done its 3 epochs; give more with --epochs"),
])  # fmt: skip
def test_what_is_done_is_not_done_again(length, said, tmp_path):
    train(new_run(), SCENES, tmp_path, Settings(**length(1)))
    with pytest.raises(ValueError, match=said):
        train(read_run(tmp_path), SCENES, tmp_path, Settings(**length(1)), resume=True)
    spent = train(read_run(tmp_path), SCENES, tmp_path, Settings(**length(2)), resume=True)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2 * EPOCH
    assert spent.steps == 2 * EPOCH


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_an_epoch_is_a_pass_over_the_data(epochs, tmp_path):
    """Of few blocks as of many: a validation after several passes is nothing that one counts."""
    assert train(new_run(), SCENES, tmp_path, Settings(epochs=epochs)).steps == epochs * PASS
    load_run(tmp_path)


def test_steps_end_a_training_anywhere_fully_annealed(tmp_path):
    rates: list[float] = []

    class Rates(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    settings = Settings(steps=EPOCH + 7, learning_rate=0.01, minutes=60)
    assert train(new_run(), SCENES, tmp_path, settings, callbacks=[Rates()]).steps == EPOCH + 7
    assert len(rates) == EPOCH + 7
    assert max(rates) > 0.009
    assert rates[-1] < 0.0005
    assert (tmp_path / "best.ckpt").exists()


def test_without_a_length_it_is_the_usual_one():
    run = new_run()
    feed = training_data.feed(run.recipe, SCENES.train)
    assert Settings().length(feed) == Settings(minutes=3).length(feed) == STEPS
    assert Settings(epochs=7).length(feed) == 7 * PASS
    assert feed.epochs_of(7 * PASS) == 7


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no last.ckpt to resume from"):
        train(new_run(), SCENES, tmp_path, Settings(), resume=True)


def test_patience_ends_a_training_that_does_not_get_better(tmp_path):
    data = Data("segmentation", SCENES.train, SCENES.validation, [])
    settings = Settings(steps=50 * EPOCH, learning_rate=1e-9, patience=2)
    train(new_run(), data, tmp_path, settings)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] < 8


def test_without_validation_the_last_weights_are_kept(tmp_path):
    run = new_run()
    train(
        run,
        Data("segmentation", SCENES.train, [], SCENES.test),
        tmp_path,
        Settings(steps=2 * EPOCH),
    )
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in load_run(tmp_path).network.state_dict().items():
        torch.testing.assert_close(value, state[f"average.module.{name}"])


def test_a_signal_ends_a_training_as_ctrl_c_does(tmp_path):
    """SIGTERM is what batch queues and containers send."""

    def terminate(trainer, module) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(new_run(), SCENES, tmp_path, Settings(steps=60), callbacks=[After(20, terminate)])
    assert interruption.exit_code() == 143
    assert interruption.word() == "ended by SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 20
    assert train(read_run(tmp_path), SCENES, tmp_path, Settings(steps=60), resume=True).steps == 60


class SomeClock(Clock):
    """Half a second for each step."""

    @property
    def seconds(self) -> float:
        return self.before + 0.5 * (self.done - self.began)


def clocked(clock: Clock, steps: int) -> list[str]:
    said: list[str] = []
    clock.say = said.append
    trainer = SimpleNamespace(should_stop=False)
    clock.on_train_start(trainer, None)
    for _ in range(steps):
        clock.on_train_batch_end(trainer)
    return said


def test_how_long_it_takes_is_said_after_the_first_steps():
    assert clocked(SomeClock(1000), 11) == []
    assert clocked(SomeClock(1000), 13) == ["1,000 steps take about 8 min here"]
    capped = "2 min hold about 240 of 1,000 steps here; the learning rate is fitted to them"
    assert clocked(SomeClock(1000, minutes=2), 13) == [capped]
    resumed = SomeClock(1000, minutes=10)
    resumed.load_state_dict({"seconds": 300.0, "steps": 800})
    assert clocked(resumed, 13) == ["the other 200 steps take about 2 min here"]
    assert resumed.left() == pytest.approx(0.5 * 187)
    assert resumed.progress() == pytest.approx(0.813)


def test_time_that_is_left_and_the_share_that_is_done():
    clock = SomeClock(1000, minutes=2)
    assert clock.left() is None
    clocked(clock, 60)
    assert clock.progress() == pytest.approx(30 / 120)  # of the time, which ends first
    assert clock.left() == pytest.approx(90)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar(tmp_path, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    train(new_run(), SCENES, tmp_path, Settings(steps=2 * EPOCH))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "training" in text
    assert re.search(r"100%\s+step 36/36, loss \d\.\d\d, IoU \d+\.\d %", text)
    assert max(map(len, re.split(r"[\r\n]", text))) <= 80


def test_elsewhere_there_is_a_line_now_and_then(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bar, "FIRST", 0.0)
    monkeypatch.setattr(bar, "EVERY", 0.0)
    monkeypatch.setattr(bar, "SHARE", 0.0)
    train(new_run(), SCENES, tmp_path, Settings(steps=2 * EPOCH))
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert "36 steps take about 1 s here" in lines
    lines = [line for line in lines if line.startswith("training: ")]
    assert re.fullmatch(r"training: 3 %, step 1/36, loss \d\.\d\d", lines[0])
    assert re.fullmatch(
        r"training: 83 %, step 30/36, loss \d\.\d\d, IoU \d+\.\d %, 1 s left", lines[29]
    )
    assert len(lines) == 35


def test_a_precision_that_is_none():
    with pytest.raises(ValueError, match="--precision is 'fp15', but it can be 16-mixed, 16-true"):
        Settings(precision="fp15")


def test_one_length_only():
    with pytest.raises(ValueError, match="--steps and --epochs both say how long; give one"):
        Settings(steps=5, epochs=5)


def test_patience_without_a_validation_part(tmp_path):
    data = Data("segmentation", SCENES.train, [], SCENES.test)
    with pytest.raises(ValueError, match="--patience waits for better scores on a validation part"):
        train(new_run(), data, tmp_path, Settings(patience=2))


@pytest.mark.parametrize("option", ["steps", "epochs", "minutes", "learning_rate"])
def test_what_must_be_positive(option):
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')} must be greater than 0"):
        Settings(**{option: 0.0})


def test_training_is_quiet(tmp_path, capfd):
    train(new_run(), SCENES, Path(tmp_path), Settings(steps=EPOCH))
    said = capfd.readouterr()
    assert said.out.strip() == ""
    assert said.err.strip() == ""


@pytest.mark.parametrize(
    ("given", "task", "expected"),
    [
        (None, "classification", 0.1),
        (None, "segmentation", 0.0),
        (0.0, "classification", 0.0),
        (0.3, "segmentation", 0.3),
    ],
)
def test_labels_of_whole_clouds_are_smoothed(tmp_path, given, task, expected):
    data = SCENES if task == "segmentation" else CLOUDS
    seen = []

    class Look(lightning.Callback):
        def on_train_start(self, trainer, module):
            seen.append((module.label_smoothing, module.overlap))

    settings = Settings(steps=1, label_smoothing=given)
    train(new_run(data), data, tmp_path, settings, callbacks=[Look()])
    assert seen == [(expected, task == "segmentation")]
