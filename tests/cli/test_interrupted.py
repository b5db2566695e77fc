from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import typer

from pointwise import cli, interruption

PROGRAM = "from pointwise.cli import main; main()"


@pytest.mark.parametrize(("raised", "said"), [(KeyboardInterrupt(), "pointwise: interrupted\n"),
                                              (typer.Exit(3), "")])  # fmt: skip
def test_ctrl_c_is_one_plain_line(raised, said, monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise raised

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["pointwise"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == (130 if said else 3)
    assert capsys.readouterr().err.strip("\n") == said.strip("\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_end_any_command_the_same_way(name, monkeypatch, capsys):
    number = getattr(signal, name)
    app, undone = typer.Typer(), []

    @app.command()
    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)  # what is put in order is not disturbed by another one
            undone.append(name)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["pointwise"])
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err.strip("\n") == f"pointwise: ended by {name}"
    assert undone == [name]
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so():
    """``nohup`` starts a command so that a lost connection does not end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.as_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) is interruption.interrupt
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_batch_queue_ends_a_training_that_goes_on_later(devices, tmp_path):
    run = tmp_path / "run"
    words = ["train", "digits", "-o", str(run), "--width", "0.25", "--devices", str(devices)]
    command = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (run / "last.ckpt").exists() and command.poll() is None:
            time.sleep(0.1)
        command.terminate()
        said, errors = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 143, errors
    assert said.count(f"Continue with: pointwise train --resume {run}") == 1
    assert errors.count("pointwise: ended by SIGTERM") == 1
    assert errors.splitlines()[-1] == "pointwise: ended by SIGTERM"
    assert not (run / "weights.pt").exists()
    done = torch.load(run / "last.ckpt", weights_only=True)["callbacks"]["Clock"]["steps"]
    resumed = subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", "--resume", str(run), "--steps", str(done + 5)],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert f"{done + 5:,} steps, " in resumed.stdout
