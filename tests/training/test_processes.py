"""Two processes that train together, started as torchrun starts them, on this machine only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from short_runs import CLOUDS, new_run, train
from toys import TinyPoints, scene

import pointwise.networks
from pointwise.cloud.files import write_scan
from pointwise.training import processes
from pointwise.training.evaluate import evaluate
from pointwise.training.feed import Epochs, own_share, share
from pointwise.training.run import load_run
from pointwise.training.train import Settings

HERE = Path(__file__).parent


def start(script: str, folder: Path, *, count: int = 2) -> list[subprocess.Popen]:
    """``script`` in ``count`` processes that know their places."""
    file = folder / "script.py"
    file.write_text(f"import sys; sys.path.insert(0, {str(HERE)!r})\n{script}", encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    if sys.platform == "linux":
        common["GLOO_SOCKET_IFNAME"] = "lo"
    return [
        subprocess.Popen(
            [sys.executable, str(file)],
            cwd=folder,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def ended(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Code, output and errors of each; none may be left."""
    try:
        found = [process.communicate(timeout=280) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *said) for p, said in zip(started, found, strict=True)]


TRAINING = """
import json, os, signal
from pathlib import Path
import lightning.pytorch as lightning
import numpy as np
import torch
import pointwise.networks
from toys import TinyClouds, TinyImages, cloud, pictures, scene, TinyPoints
from pointwise.training import data, processes
from pointwise.training.evaluate import evaluate, evaluate_images
from pointwise.training.images import data as image_data
from pointwise.training.images.plan import plan_images
from pointwise.training.images.sources import ImageData
from pointwise.training.plan import plan
from pointwise.training.run import read_run
from pointwise.training.sources import Data
from pointwise.training.train import Settings, train

torch.set_num_threads(1)
for network in (TinyPoints, TinyClouds, TinyImages):
    setattr(pointwise.networks, network.__name__, network)
processes.take_place(None)
data.FEWEST = 16
rank = processes.rank()
out = {}

class After(lightning.Callback):
    '''Ctrl-C in the second process alone.'''
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 3 and rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

class DuringValidation(lightning.Callback):
    def on_validation_batch_end(self, *_):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

class Partly(TinyImages):
    '''With weights that no data use, and some that only the first process's do.'''
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.never, self.once = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    def forward(self, images):
        logits = super().forward(images)
        return logits if rank else logits + self.once.weight.sum()
pointwise.networks.Partly = Partly

def record(name, run, matrix):
    weights = [v.double().flatten() for v in run.network.state_dict().values()]
    out[name] = dict(weights=torch.cat(weights).tolist(), matrix=matrix.tolist())

scenes = Data("segmentation", [scene(0), scene(1)], [scene(2)], [scene(3), scene(4), scene(5)])
run = plan(scenes, network="TinyPoints", block=6.0, cell_size=0.5)
feed = lambda: data.feed(run.recipe, scenes.train, scenes.validation)
try:
    train(run, feed(), Path("scenes"), Settings(epochs=2), callbacks=[After()])
except KeyboardInterrupt:
    out["interrupted"] = torch.load("scenes/last.ckpt", weights_only=True)["global_step"]
run = read_run("scenes")
train(run, feed(), Path("scenes"), Settings(epochs=2), resume=True)
record("scenes", run, evaluate(run, scenes.test))

images = ImageData(pictures(9), pictures(3, 9), pictures(5, 12))
run = plan_images(images, network="Partly")
feed = lambda: image_data.feed(run.recipe, images.train, images.validation, batch=4)
try:
    train(run, feed(), Path("images"), Settings(epochs=1), callbacks=[DuringValidation()])
except KeyboardInterrupt:
    out["in validation"] = Path("images/weights.pt").exists()
run = read_run("images")
train(run, feed(), Path("images"), Settings(epochs=1), resume=True)
record("images", run, evaluate_images(run, images.test))
Path(f"{rank}.json").write_text(json.dumps(out))
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Clouds, interrupted in one process and resumed; then images, in the last validation."""
    for code, said, errors in ended(start(TRAINING, tmp_path)):
        assert code == 0, errors
        assert said == ""
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["interrupted"] == second["interrupted"] == 4
    assert first["in validation"] is second["in validation"] is False
    for name, tested in (("scenes", None), ("images", 10)):
        assert first[name] == second[name]  # weights, buffers and counts, to the bit
        written = torch.load(tmp_path / name / "weights.pt", weights_only=True)
        flat = torch.cat([value.double().flatten() for value in written.values()])
        assert flat.tolist() == first[name]["weights"]
        if tested:
            assert np.sum(first[name]["matrix"]) == tested
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"run.json", "best.ckpt", "last.ckpt", "weights.pt", "logs"}
    # What two count is what one counts with the same weights.
    assert pointwise.networks.TinyPoints is TinyPoints  # type: ignore[attr-defined]
    alone = evaluate(load_run(tmp_path / "scenes"), [scene(3), scene(4), scene(5)])
    assert alone.tolist() == first["scenes"]["matrix"]
    # A pass over the data is 6 blocks: 3 steps of one for each of two processes, twice.
    last = torch.load(tmp_path / "scenes" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6


CACHED = """
from pathlib import Path
import torch
import pointwise.networks
from toys import TinyPoints
from pointwise.cli import main
from pointwise.training import data, processes, sources

torch.set_num_threads(1)
pointwise.networks.TinyPoints = TinyPoints
data.FEWEST = 16
read = sources.read_clouds

def noted(file, columns=None):
    with open(f"read by {processes.rank()}.txt", "a") as out:
        print(file.name, file=out)
    return read(file, columns)

sources.read_clouds = noted
sys.argv = ["pointwise", *"train scans -o run --network TinyPoints --cell-size 0.5".split()]
sys.argv += "--block 6 --epochs 1 --cache cache".split()
main()
"""


@pytest.mark.slow
def test_two_processes_share_the_work_of_reading(tmp_path):
    for i in range(5):
        write_scan(scene(i), tmp_path / "scans" / f"{i}.npz")
    for code, _, errors in ended(start(CACHED, tmp_path)):
        assert code == 0, errors
    read = [(tmp_path / f"read by {rank}.txt").read_text().split() for rank in (0, 1)]
    assert read == [["0.npz", "2.npz", "4.npz"], ["1.npz", "3.npz"]]
    load_run(tmp_path / "run")


REFUSED = """
from pathlib import Path
from pointwise.cli import main
sys.argv = ["pointwise", "train", "digits", "-o", "run"]
main()
"""


@pytest.mark.slow
def test_a_refusal_ends_both_and_is_said_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (code, _, said), (other, _, silent) = ended(start(REFUSED, tmp_path))
    assert code == other == 1
    assert said.strip().endswith("--resume run")
    assert "holds a run already" in said
    assert silent == ""


@pytest.mark.slow
def test_ctrl_c_ends_all_and_torchrun_resumes(tmp_path):
    """The command itself, on the built-in images: ``--devices``, then the same run by torchrun."""
    run, program = tmp_path / "run", "from pointwise.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ["train", "digits", "-o", str(run), "--width", "0.25", "--epochs", "90"]
    command = subprocess.Popen(
        [sys.executable, "-c", program, *words, "--devices", "2"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (run / "last.ckpt").exists() and command.poll() is None:
        time.sleep(0.1)
    command.send_signal(signal.SIGINT)  # to it alone: it has to tell the others
    said, errors = command.communicate(timeout=60)
    assert command.returncode == 130, errors
    assert said.count("Continue with: pointwise train --resume") == 1
    assert errors.endswith("\npointwise: interrupted\n")  # behind what tells how far it is
    assert "Traceback" not in errors
    assert not (run / "weights.pt").exists()
    state = torch.load(run / "last.ckpt", weights_only=True)
    done = state["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"]

    script = tmp_path / "script.py"
    script.write_text(program, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    resumed = subprocess.run(
        [sys.executable, *launcher, str(script), "train", "--resume", str(run),
         "--epochs", str(done + 1)],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("s of training. To classify images with it") == 1
    assert {"weights.pt", "metrics.json", "confusion.png"} <= {p.name for p in run.iterdir()}


SLURM = {
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "123456",
}  # fmt: skip


def test_what_srun_says_is_understood():
    with patch.dict(os.environ, SLURM):
        processes._read_slurm()
        found = {name: os.environ[name] for name in ("RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")}
        assert found == {"RANK": "3", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node07"}
        assert processes.launched()
    uneven = {**SLURM, "SLURM_STEP_NUM_TASKS": "3"}
    with patch.dict(os.environ, uneven), pytest.raises(ValueError, match="--ntasks-per-node"):
        processes._read_slurm()


@pytest.fixture
def place(monkeypatch):
    """Says which process of how many this is."""

    def put(rank: int, count: int) -> None:
        monkeypatch.setattr(processes, "rank", lambda: rank)
        monkeypatch.setattr(processes, "count", lambda: count)

    return put


@pytest.mark.parametrize(("length", "count"), [(7, 1), (7, 2), (9, 4), (4, 4)])
def test_samples_are_shared_out(place, length, count):
    trained, validated = [], []
    for rank in range(count):
        place(rank, count)
        sampler = Epochs(length)
        sampler.set_epoch(2)
        trained.append(list(sampler))
        assert len(trained[-1]) == len(sampler) == length // count
        data = own_share([*range(length)])  # type: ignore[type-var]
        validated += [data[i] for i in range(len(data))]  # type: ignore[arg-type]
    numbers = sorted(number for each in trained for number in each)
    assert numbers == [*range(2 * length, 2 * length + length // count * count)]
    assert sorted(validated) == [*range(length)]  # each once: scores count none twice


def test_fewer_samples_than_processes(place):
    place(1, 4)
    with pytest.raises(ValueError, match=r"an epoch has 3 blocks, .* too few for 4 processes"):
        Epochs(3)
    assert len(own_share([1, 2, 3])) == 3  # type: ignore[arg-type, type-var]
    assert share([1]) == []


def test_a_number_of_devices_that_was_not_started(monkeypatch):
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"--devices is 3, but 2 processes were started"):
        processes.take_place(3)


def test_one_process_decides_and_counts_alone():
    assert processes.first(lambda: 3) == processes.together(lambda: 3) == 3
    assert processes.greatest(1.0, 2.0) == [1.0, 2.0]
    with pytest.raises(ValueError, match="no"):
        processes.together(lambda: (_ for _ in ()).throw(ValueError("no")))


def test_a_training_from_python_is_not_started_again(tmp_path):
    with pytest.raises(ValueError, match=r"--devices is 2, but this is one process"):
        train(new_run(CLOUDS), CLOUDS, tmp_path, Settings(devices=2))
