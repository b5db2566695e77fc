from __future__ import annotations

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import pointwise.networks
from pointwise.cli.label import label
from pointwise.cloud.files import read_scan, write_scan
from pointwise.cloud.scan import Scan
from pointwise.training.plan import plan
from pointwise.training.run import save_run, save_weights
from pointwise.training.sources import Data


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


def write(path, *more):
    write_scan(scan(*more), path)
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
    source = tmp_path / "in.xyz"
    np.savetxt(source, scan(1).points)
    result = run(segmenter, source, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert set(read_scan(tmp_path / "out" / "in.xyz.ply").labels) == {2, 6}
    refused = run(segmenter, source, "-o", tmp_path / "out.xyz")
    assert "out.xyz must end in .las, .laz, .ply, .npz" in str(refused.exception)


def test_whole_clouds(classifier, tmp_path):
    low, high = write(tmp_path / "low.ply", 5, 0.0), write(tmp_path / "high.ply", 6, 4.0)
    result = run(classifier, low, high)
    assert result.exit_code == 0, result.output
    lines = {
        line.split()[0]: line.split()[1] for line in result.output.splitlines() if ".ply" in line
    }
    assert lines == {"low.ply": "low", "high.ply": "high"}
    refused = run(classifier, low, "-o", tmp_path / "out.ply")
    assert "classifies whole clouds writes no file" in str(refused.exception)
