"""``pointwise label --ray``: a cluster of two workers on this machine, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from pointwise import __version__
from pointwise.cli import label_cluster
from pointwise.cli.label import label as label_command
from pointwise.cli.label_cluster import Cluster, Outcome, Replica
from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan
from pointwise.training.plan import plan
from pointwise.training.run import save_run, save_weights
from pointwise.training.sources import Data

POINTS = 15_000  # of a tile


def tile(column: int, row: int) -> Scan:
    """Boxes on a slope, 20 m by 20 m of a survey."""
    rng = np.random.default_rng((column, row))
    low = (20 * column, 20 * row, 0)
    points = rng.uniform(low, np.add(low, (20, 20, 0.05)), size=(POINTS, 3))
    box = ((points[:, 0] // 3 + points[:, 1] // 3) % 3 == 0) & (rng.random(POINTS) < 0.7)
    points[box, 2] += rng.uniform(1, 3, box.sum())
    points[:, 2] += 0.05 * points[:, 0]
    points = points.round(3) + (500_000, 5_400_000, 100)
    return Scan(points, labels=np.where(box, 6, 2), classes={2: "ground", 6: "building"})


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> Path:
    """A folder with a run, four tiles, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "tiles" / "west").mkdir(parents=True)
    for column, row, name in ((0, 0, "west/a"), (0, 1, "west/b"), (1, 0, "c"), (1, 1, "d")):
        write_scan(tile(column, row), folder / "tiles" / f"{name}.laz")
    torch.manual_seed(0)
    run = plan(Data("segmentation", [tile(0, 0)], [], []), block=8.0)
    save_run(run, folder / "run")
    save_weights(run, folder / "run")
    alone = label(folder, "tiles", "alone")
    said, errors = alone.communicate(timeout=280)
    assert alone.returncode == 0, errors
    assert "4 files lie side by side" in said
    return folder


def label(folder: Path, *words: str) -> subprocess.Popen:
    source, target, *more = words
    code = "from pointwise.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "label", "run", source, "-o", target, *more],
        cwd=folder, env={**os.environ, "COLUMNS": "80"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def on_two_workers(folder: Path, source: str, target: str, *more: str) -> subprocess.Popen:
    return label(folder, source, target, "--ray", "local", "--workers", "2", *more)


def written(folder: Path) -> dict[str, int]:
    """The files that are there by now, and when each was written."""
    files = [file for file in folder.rglob("*.laz") if not file.name.startswith(".")]
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}


def same_bytes(one: Path, other: Path) -> bool:
    names = written(one).keys()
    assert names == written(other).keys() == {"west/a.laz", "west/b.laz", "c.laz", "d.laz"}
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def working(command: subprocess.Popen) -> list[int]:
    """The workers of the command's own cluster that label a file at this moment."""
    parents, names = {}, {}
    for process in Path("/proc").iterdir():
        try:
            number = int(process.name)
            parents[number] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            names[number] = (process / "cmdline").read_bytes().split(b"\0")[0]
        except (ValueError, OSError):  # no process, or one that has ended
            continue

    def is_own(number: int) -> bool:
        while number in parents and number != command.pid:
            number = parents[number]
        return number == command.pid

    return [number for number, name in names.items() if name == b"ray::_label" and is_own(number)]


def wait_for(what, command: subprocess.Popen, seconds: float = 240):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert command.poll() is None, command.communicate()
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError(f"nothing came in {seconds} s")


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")


@needs_linux
@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_tile(campaign):
    # Of a URL, fetched and sent by fsspec: here from a disk, and to one.
    source, target = f"file://{campaign}/tiles", f"file://{campaign}/killed"
    command = on_two_workers(campaign, source, target)
    wait_for(lambda: written(campaign / "killed"), command)
    killed, *_ = wait_for(lambda: working(command), command)
    before = written(campaign / "killed")
    os.kill(killed, signal.SIGKILL)
    said, errors = command.communicate(timeout=280)
    assert command.returncode == 0, errors
    assert said.count("points") >= 4
    assert f"file://{campaign}/killed/west/a.laz" in said.replace("\n", "")
    after = written(campaign / "killed")
    assert 0 < len(before) < 4
    # What was done is not done again, but for the tile of a worker that had not said so yet.
    assert sum(after[name] != when for name, when in before.items()) <= 1
    assert same_bytes(campaign / "alone", campaign / "killed")


@needs_linux
@pytest.mark.slow
def test_a_campaign_that_is_interrupted_goes_on(campaign):
    out = campaign / "interrupted"
    command = on_two_workers(campaign, "tiles", "interrupted")
    wait_for(lambda: written(out), command)
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 130, errors
    done = written(out)
    assert 0 < len(done) < 4
    for part in out.rglob(".*.part*"):
        raise AssertionError(f"{part} was left behind")
    again = on_two_workers(campaign, "tiles", "interrupted", "--skip-existing")
    said, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors
    assert f"{len(done)} of 4 files are labelled already" in said
    assert done.items() <= written(out).items()
    assert same_bytes(campaign / "alone", out)


@pytest.mark.slow
def test_no_cluster_where_there_is_said_to_be_one(campaign):
    command = label(campaign, "tiles", "nowhere", "--ray", "auto")
    said, errors = command.communicate(timeout=120)
    assert command.returncode == 1
    assert errors.startswith("pointwise: label: --ray auto cannot be reached: ")
    assert errors.count("\n") == 1
    assert said == ""


@pytest.mark.slow
def test_the_command_reads_and_writes_an_object_store(campaign, tmp_path):
    """Here in this process's memory, and without a cluster."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name in ("c", "d"):
        store.put_file(str(campaign / "tiles" / f"{name}.laz"), f"/survey/tiles/east/{name}.laz")
    app = typer.Typer()
    app.command()(label_command)

    def run(target: str, *more: str):
        words = [str(campaign / "run"), "memory://survey/tiles", "-o", target, "--votes", "1"]
        return CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words, *more])

    result = run("memory://survey/labelled")
    assert result.exit_code == 0, result.output
    assert "2 files lie side by side" in result.output
    assert "memory://survey/labelled/east/c.laz  15,000 points" in result.output
    assert run(str(tmp_path / "here")).exit_code == 0
    for name in ("c", "d"):
        written = store.cat(f"/survey/labelled/east/{name}.laz")
        assert written == (tmp_path / "here" / "east" / f"{name}.laz").read_bytes()
    refused = run("memory://survey/labelled")
    assert "label: memory://survey/labelled/east/c.laz exists" in str(refused.exception)
    store.rm("/survey/labelled/east/d.laz")
    again = run("memory://survey/labelled", "--skip-existing")
    assert "1 of 2 files are labelled already" in again.output
    assert store.exists("/survey/labelled/east/d.laz")
    inside = run("memory://survey/tiles")
    assert "is an input, which is never written to" in str(inside.exception)
    store.store.clear()


class Lost(Exception):
    """What Ray raises of a task that nobody could do."""


def test_a_file_that_costs_every_worker_is_said_and_the_others_go_on():
    results = {"a": Outcome("labelled", ["b.laz: is odd"]), "b": Lost("gone")}

    def get(task):
        if isinstance(results[task], Exception):
            raise results[task]
        return results[task]

    exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=Lost)
    cluster = Cluster.__new__(Cluster)
    cluster.ray = SimpleNamespace(
        get=get, exceptions=exceptions, wait=lambda left: (left[:1], left[1:])
    )
    told: list[tuple[int, int]] = []

    def advance(done: int, total: int, words: str = "") -> None:
        told.append((done, total))

    started = {"a": (Path("a.laz"), 30), "b": (Path("s3://bucket/b.laz"), 70)}
    with pytest.warns(UserWarning, match=r"^b\.laz: is odd$"):
        first, second = cluster._as_they_end(started, advance)
    assert first == "labelled"
    assert isinstance(second, OSError)
    assert str(second).startswith("s3://bucket/b.laz: lost 4 workers, perhaps for want of memory")
    assert told == [(0, 100), (30, 100), (100, 100)]


def test_a_worker_with_another_version_is_refused():
    replica = Replica({}, "cpu", 1, "0.0.1")
    with pytest.raises(ValueError, match=rf"pointwise {__version__}, and this machine 0\.0\.1"):
        label_cluster._run_of(replica)


def test_a_worker_makes_one_replica_of_a_run(campaign, monkeypatch):
    made = []
    monkeypatch.setattr(label_cluster, "_run_of", lambda replica: made.append(replica) or "run")
    monkeypatch.setattr("pointwise.training.labelling.label_anywhere", lambda run, job, how: run)
    monkeypatch.setattr(label_cluster, "_worker", {})
    files = {name: (campaign / "run" / name).read_bytes() for name in label_cluster.RUN_FILES}
    one, other = Replica(files, "cpu", 1, __version__), Replica(files, "cpu", 2, __version__)
    for replica in (one, one, other, one):
        outcome = label_cluster._label(replica, replica.name, None, None)  # type: ignore[arg-type]
        assert outcome == Outcome("run", [])
    assert made == [one, other]
