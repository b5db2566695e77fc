from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import pointwise.networks
from pointwise.cli.classify import classify
from pointwise.cli.label import label
from pointwise.cloud.files import read_scan, write_scan
from pointwise.cloud.scan import Scan
from pointwise.training.label import classify_scan, label_scan
from pointwise.training.plan import plan
from pointwise.training.run import load_run, save_run, save_weights
from pointwise.training.sources import Data

BY_HEIGHT = np.where(np.arange(500) % 4 == 0, 6, 2)


class ByHeight(nn.Module):
    """Says the second class of what is high, of points and of clouds."""

    def __init__(self, in_channels: int, classes: int, cell_size: float, whole: bool = False):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([[0.0, 10.0]]))

    def forward(self, points, features, offsets):
        return (features[:, :1] - 0.25) @ self.slope


class WholeByHeight(ByHeight):
    def forward(self, points, features, offsets):
        each = super().forward(points, features, offsets).split(offsets.diff().tolist())
        return torch.stack([rows.mean(dim=0) for rows in each])


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for network in (ByHeight, WholeByHeight):
        monkeypatch.setattr(pointwise.networks, network.__name__, network, raising=False)


def scan(seed: int, height: float = 2.0, **more) -> Scan:
    rng = np.random.default_rng(seed)
    points = rng.uniform((0, 0, 0), (9, 9, 0.01), size=(500, 3))
    points[::4, 2] += height
    return Scan(points, **more)


@pytest.fixture
def segmenter(tmp_path):
    labels = np.where(np.arange(500) % 4 == 0, 6, 2)
    example = scan(0, labels=labels, classes={2: "ground", 6: "building"})
    return save(Data("segmentation", [example], [], []), "ByHeight", tmp_path / "run")


@pytest.fixture
def classifier(tmp_path):
    clouds = [scan(i, 4.0 * (i % 2), label=i % 2, classes={0: "low", 1: "high"}) for i in range(4)]
    return save(Data("classification", clouds, [], []), "WholeByHeight", tmp_path / "run")


def save(data, network, folder):
    run = plan(data, network=network, features=["height"])
    save_run(run, folder)
    save_weights(run, folder)
    return folder


def write(path, *more, **fields):
    write_scan(scan(*more, **fields), path)
    return path


def run(*arguments):
    app = typer.Typer()
    app.command()(label)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("suffix", ["las", "laz", "ply", "npz"])
def test_one_file(segmenter, tmp_path, suffix):
    source = write(tmp_path / f"in.{suffix}", 1)
    result = run(segmenter, source, "-o", tmp_path / f"out.{suffix}")
    assert result.exit_code == 0, result.output
    labelled = read_scan(tmp_path / f"out.{suffix}")
    np.testing.assert_array_equal(labelled.points, read_scan(source).points)
    np.testing.assert_array_equal(labelled.labels, np.where(np.arange(500) % 4 == 0, 6, 2))
    assert "75.0 %" in result.output
    assert "building" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_names_of_classes_are_written(segmenter, tmp_path):
    run(segmenter, write(tmp_path / "in.npz", 1), "-o", tmp_path / "out.npz")
    assert read_scan(tmp_path / "out.npz").classes == {2: "ground", 6: "building"}


def test_several_files_and_folders(segmenter, tmp_path):
    (tmp_path / "more").mkdir()
    files = [write(tmp_path / "a.ply", 1), write(tmp_path / "more" / "b.npz", 2)]
    result = run(segmenter, files[0], tmp_path / "more", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.ply", "b.npz"}


def test_nothing_is_lost(segmenter, tmp_path):
    one = write(tmp_path / "one.npz", 1)
    other = write(tmp_path / "other.npz", 2)
    (tmp_path / "sub").mkdir()
    twin = write(tmp_path / "sub" / "one.npz", 3)
    before = one.read_bytes(), other.read_bytes()

    def error(*arguments):
        result = run(segmenter, *arguments)
        assert isinstance(result.exception, ValueError), result.output
        return str(result.exception)

    assert "one.npz is an input, which is never written to" in error(one, "-o", one, "--force")
    assert "one.npz is an input" in error(one, "-o", tmp_path)
    assert "other.npz exists; choose another -o, or replace it" in error(one, "-o", other)
    assert "two inputs are called one.npz" in error(one, twin, "-o", tmp_path / "out")
    assert "other.npz is a file, but several inputs need a folder" in error(
        one, twin, "-o", other, "--force"
    )
    assert "give the file, or the folder for several" in error(one)
    assert (one.read_bytes(), other.read_bytes()) == before

    assert run(segmenter, one, "-o", other, "--force").exit_code == 0
    assert other.read_bytes() != before[1]


def test_formats_without_labels_become_ply(segmenter, tmp_path):
    source = tmp_path / "in.npy"
    np.save(source, scan(1).points)
    result = run(segmenter, source, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert set(read_scan(tmp_path / "out" / "in.npy.ply").labels) == {2, 6}
    refused = run(segmenter, source, "-o", tmp_path / "out.npy")
    assert "out.npy must end in .las, .laz, .ply, .npz, .xyz" in str(refused.exception)


@pytest.mark.parametrize("suffix", ["xyz", "txt", "asc", "csv"])
def test_text_stays_text(segmenter, tmp_path, suffix):
    source = tmp_path / "in.xyz"
    np.savetxt(source, scan(1).points)
    result = run(segmenter, source, "-o", tmp_path / f"out.{suffix}", "--confidence")
    assert result.exit_code == 0, result.output
    labelled = read_scan(tmp_path / f"out.{suffix}")
    np.testing.assert_array_equal(labelled.points, read_scan(source).points)
    np.testing.assert_array_equal(labelled.labels, BY_HEIGHT)
    assert labelled.fields["confidence"].min() > 0.5


def test_folders_keep_their_structure(segmenter, tmp_path):
    for place in ("one/a.ply", "two/deep/a.ply", "b.npz"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "in" / place, 1)
    out = tmp_path / "in" / "labelled"  # which is no input the second time
    for options in ((), ("--force",), ("--skip-existing",)):
        result = run(segmenter, tmp_path / "in", "-o", out, *options)
        assert result.exit_code == 0, result.output
        found = sorted(str(file.relative_to(out)) for file in out.rglob("*.*"))
        assert found == ["b.npz", "one/a.ply", "two/deep/a.ply"]
    assert "3 of 3 files are labelled already" in result.output


def test_what_is_labelled_already_is_skipped(segmenter, tmp_path):
    files = [write(tmp_path / f"{name}.ply", 1) for name in "ab"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.ply").write_bytes(b"mine")
    result = run(segmenter, *files, "-o", tmp_path / "out", "--skip-existing")
    assert result.exit_code == 0, result.output
    assert "1 of 2 files are labelled already" in result.output
    assert (tmp_path / "out" / "a.ply").read_bytes() == b"mine"
    assert read_scan(tmp_path / "out" / "b.ply").labels is not None
    both = run(segmenter, *files, "-o", tmp_path / "out", "--skip-existing", "--force")
    assert "--force replaces what --skip-existing leaves" in str(both.exception)


@pytest.mark.parametrize("suffix", ["las", "laz", "ply", "npz"])
def test_confidence(segmenter, tmp_path, suffix):
    source = write(tmp_path / f"in.{suffix}", 1)
    result = run(segmenter, source, "-o", tmp_path / f"out.{suffix}", "--confidence")
    assert result.exit_code == 0, result.output
    found = read_scan(tmp_path / f"out.{suffix}").fields["confidence"]
    expected = label_scan(load_run(segmenter), read_scan(source), confidence=True)[1]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert 0.5 < found.min() < found.max() <= 1


def test_the_doubtful_have_no_class(segmenter, tmp_path):
    source = write(tmp_path / "in.npz", 1)
    codes, sure = label_scan(load_run(segmenter), read_scan(source), confidence=True)
    limit = float(np.quantile(sure, 0.3))
    out = tmp_path / "out.npz"
    result = run(segmenter, source, "-o", out, "--unclassified-below", limit)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read_scan(out).labels, np.where(sure < limit, -1, codes))
    assert "(unclassified)" in result.output
    wrong = run(segmenter, source, "-o", out, "--unclassified-below", 60, "--force")
    assert "--unclassified-below must lie between 0 and 1, got 60" in str(wrong.exception)


@pytest.mark.parametrize("suffix", ["las", "ply"])
def test_codes_that_are_kept(segmenter, tmp_path, suffix):
    there = np.tile([9, 6, 3, 6, 5], 100)  # 9 and 5 are none of the run's
    source = write(tmp_path / f"in.{suffix}", 1, 2.0, labels=there, classes={9: "water", 5: "tree"})
    result = run(segmenter, source, "-o", tmp_path / f"out.{suffix}", "--keep", "9,building",
                 "--unclassified-below", 1.0, "--confidence")  # fmt: skip
    assert result.exit_code == 0, result.output
    labelled = read_scan(tmp_path / f"out.{suffix}")
    kept = np.isin(there, (9, 6))
    np.testing.assert_array_equal(labelled.labels[kept], there[kept])
    assert (labelled.fields["confidence"][kept] == 1).all()
    assert not np.isin(labelled.labels[~kept], (3, 5)).any()
    assert labelled.classes[9] == "water"
    assert "300 points had a code that is kept" in result.output
    unknown = run(segmenter, source, "-o", tmp_path / "o.ply", "--keep", "pond")
    assert "--keep pond: no class is called 'pond'; there are ground (2)" in str(unknown.exception)


def test_nothing_to_keep_is_said(segmenter, tmp_path):
    with pytest.warns(UserWarning, match="has no labels, so there are none to keep"):
        run(segmenter, write(tmp_path / "in.ply", 1), "-o", tmp_path / "out.ply", "--keep", "2")


def test_a_stale_confidence_is_said(segmenter, tmp_path):
    source = write(tmp_path / "in.ply", 1, 2.0, fields={"confidence": np.ones(500, np.float32)})
    with pytest.warns(UserWarning, match="'confidence' stays as it is"):
        run(segmenter, source, "-o", tmp_path / "out.ply")
    with pytest.warns(UserWarning, match="the field 'confidence' is replaced"):
        run(segmenter, source, "-o", tmp_path / "new.ply", "--confidence")
    assert read_scan(tmp_path / "new.ply").fields["confidence"].min() < 1


def test_one_broken_file_of_many(segmenter, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.las", 1)
    write(folder / "c.las", 2)
    (folder / "b.las").write_bytes((folder / "a.las").read_bytes()[:900])
    result = run(segmenter, folder, "-o", tmp_path / "out")
    assert "1 of 3 files could not be labelled" in str(result.exception)
    assert "b.las: truncated" in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.las", "c.las"}
    alone = run(segmenter, folder / "b.las", "-o", tmp_path / "b.las")
    assert "b.las: truncated" in str(alone.exception)
    assert not (tmp_path / "b.las").exists()


def test_tiles_are_told(segmenter, tmp_path):
    for place in range(3):
        tile = scan(place)
        tile.points[:, 0] += (0, 9.1, 500)[place]
        write_scan(tile, tmp_path / f"{place}.ply")
    files = [tmp_path / f"{place}.ply" for place in range(3)]
    result = run(segmenter, *files, "-o", tmp_path / "out")
    assert "2 files lie side by side, and see each other" in " ".join(result.output.split())
    assert "1 stands alone" in " ".join(result.output.split())
    alone = run(segmenter, *files, "-o", tmp_path / "out", "--force", "--alone")
    assert "side by side" not in alone.output


def test_whole_clouds(classifier, tmp_path):
    low, high = write(tmp_path / "low.ply", 5, 0.0), write(tmp_path / "high.ply", 6, 4.0)
    result = run(classifier, low, high)
    assert result.exit_code == 0, result.output
    lines = {
        line.split()[0]: line.split()[1] for line in result.output.splitlines() if ".ply" in line
    }
    assert lines == {"low.ply": "low", "high.ply": "high"}
    refused = run(classifier, low, "-o", tmp_path / "out.ply")
    assert "-o must end in .csv or .json" in str(refused.exception)
    refused = run(classifier, low, "--confidence")
    assert "classifies whole clouds labels no points" in str(refused.exception)


def classified(*arguments):
    app = typer.Typer()
    app.command()(classify)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


def test_classes_of_whole_clouds_in_files(classifier, tmp_path):
    low, high = write(tmp_path / "low.ply", 5, 0.0), write(tmp_path / "high.ply", 6, 4.0)
    for name in ("out.csv", "out.json"):
        result = classified(classifier, low, high, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert name in result.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(one["file"], one["class"]) for one in found] == [
        (str(low), "low"),
        (str(high), "high"),
    ]
    trained = load_run(classifier)
    for one, file in zip(found, (low, high), strict=True):
        expected = classify_scan(trained, read_scan(file))
        assert list(one["probabilities"]) == ["low", "high"]
        assert list(one["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert one["probability"] == max(one["probabilities"].values())
    with open(tmp_path / "out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["low", "high"]
    assert [float(row["high"]) for row in rows] == pytest.approx(
        [one["probabilities"]["high"] for one in found]
    )


def test_clouds_of_one_file_are_named(classifier, tmp_path):
    points = np.concatenate([scan(1, 0.0).points, scan(2, 4.0).points])
    np.savez(tmp_path / "two.npz", points=points, offsets=np.array([0, 500, 1000]))
    result = classified(classifier, tmp_path / "two.npz", "-o", tmp_path / "o.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "o.json").read_text())
    assert [(one["item"], one["class"]) for one in found] == [("two[0]", "low"), ("two[1]", "high")]


def test_a_broken_cloud_is_left_out_of_the_classes(classifier, tmp_path):
    (tmp_path / "b.ply").write_bytes(b"ply\n")
    low = write(tmp_path / "low.ply", 5, 0.0)
    result = classified(classifier, tmp_path / "b.ply", low, "-o", tmp_path / "o.csv")
    assert "1 of 2 files could not be classified" in str(result.exception)
    assert "b.ply" in result.output
    assert "low.ply" in (tmp_path / "o.csv").read_text()
    again = classified(classifier, low, "-o", tmp_path / "o.csv")
    assert "o.csv exists; choose another -o, or replace it with --force" in str(again.exception)


def started(*arguments) -> subprocess.Popen:
    """The command in a process of its own, which Ctrl-C can stop as on a terminal."""
    begin = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pointwise.cli import main\n"
        "if __name__ == '__main__': main()"
    )
    words = [sys.executable, "-c", begin, "label", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, **pipes)


@pytest.fixture
def unet(tmp_path):
    """A run whose network other processes know."""
    labels = np.where(np.arange(500) % 4 == 0, 6, 2)
    data = Data("segmentation", [scan(0, labels=labels)], [], [])
    trained = plan(data, features=["height"], cell_size=0.5)
    save_run(trained, tmp_path / "run")
    save_weights(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_workers_write_what_one_process_writes(unet, tmp_path):
    (tmp_path / "in").mkdir()
    for place in range(4):
        tile = scan(place)
        tile.points[:, 0] += 9 * place
        write_scan(tile, tmp_path / "in" / f"{place}.las")
    (tmp_path / "in" / "9.las").write_bytes(b"LASF")
    for name, workers in (("one", 1), ("two", 2)):
        process = started(unet, tmp_path / "in", "-o", tmp_path / name, "--workers", workers)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 1, printed
        assert "4 files lie side by side" in printed
        assert "9.las: not a LAS file" in printed
        assert "1 of 5 files could not be labelled" in printed
        assert "Traceback" not in printed
    for place in range(4):
        one, two = (tmp_path / name / f"{place}.las" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_whole_files_alone(unet, tmp_path, workers):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for place in range(12):
        points = rng.uniform((0, 0, 0), (40, 40, 1), (100_000, 3))
        write_scan(Scan(points), tmp_path / "in" / f"{place:02}.laz")
    out = tmp_path / "out"
    process = started(unet, tmp_path / "in", "-o", out, "--workers", workers, "--votes", 1)
    begin = time.monotonic()
    while process.poll() is None and not [*out.glob("[0-9]*.laz")]:
        assert time.monotonic() < begin + 300
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert "pointwise: interrupted" in printed
    left = [*out.iterdir()]
    assert 1 <= len(left) < 12
    for file in left:
        assert file.name[0] in "01", file  # no half of one
        assert len(read_scan(file)) == 100_000
