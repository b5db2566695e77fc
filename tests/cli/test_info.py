from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pointwise.cli.info import info, mean_spacing, occupied_cells
from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan

DATA = Path(__file__).parents[2] / "../shared/data"

app = typer.Typer()
app.command()(info)


def run(*paths) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(path) for path in paths])
    if result.exception is not None:
        raise result.exception
    return result.output


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"needs the real file {name} in ../shared/data")
    return DATA / name


def test_one_cloud(tmp_path):
    x, y = np.meshgrid(np.arange(20.0), np.arange(10.0))
    points = np.stack([x.ravel(), y.ravel(), np.full(200, 7.0)], axis=1)
    labels = np.array([2] * 150 + [6] * 40 + [-1] * 10)
    scan = Scan(points, {"intensity": np.linspace(0, 1, 200)}, labels, {2: "ground", 6: "roof [x]"})
    write_scan(scan, tmp_path / "a.ply")
    output = run(tmp_path / "a.ply")
    words = " ".join(output.split())
    assert "points 200" in words
    assert "x 0.00 to 19.00, 19 units" in words
    assert "z 7.000 to 7.000, 0 units" in words
    assert "spacing 1 units" in words
    assert "intensity float32 0 to 1" in words
    assert "ground 2 150 75.0% ███" in words
    assert "roof [x] 6 40 20.0%" in words
    assert "(unlabelled) -1 10 5.0%" in words
    assert max(len(line) for line in output.splitlines() if "a.ply" not in line) <= 80


def test_real_files():
    output = " ".join(run(real("las/town_6_classes.las"), real("e57/ZeroPoints.e57")).split())
    assert "points 25,408" in output
    assert "US ft" in output
    assert "high vegetation 5 10,956 43.1%" in output
    assert output.endswith("ZeroPoints.e57 points 0")


def test_many_clouds(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        points=np.zeros((7, 3)),
        offsets=[0, 1, 3, 7],
        label=[1, 0, 1],
        classes=["cat", "dog"],
        labels=[0, 0, 0, 1, 1, 1, 1],
        speed=np.zeros(7),
    )
    words = " ".join(run(tmp_path / "a.npz").split())
    assert "clouds 3 points 1 to 4 a cloud, median 2 fields speed" in words
    assert "dog 1 2 66.7%" in words
    assert "dog 1 4 57.1%" in words


def test_recordings():
    words = " ".join(run(real("radhar/radhar_train.npz")).split())
    assert "clouds 2,484" in words
    assert "groups 131, each kept whole" in words


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.las: no such file"):
        run(tmp_path / "a.las")


def test_spacing_is_that_of_all_pairs():
    points = np.random.default_rng(0).random((300, 3)) * [1, 50, 3] + [0, 5e6, 0]
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert mean_spacing(points) == pytest.approx(distances.min(axis=1).mean())


def test_spacing_of_duplicates():
    assert mean_spacing(np.full((5, 3), 1e6)) == 0


def test_cells_follow_the_density():
    random = np.random.default_rng(0)
    dense = random.random((10_000, 3)) * [20, 20, 1]
    edge, cells = occupied_cells(dense)
    assert (edge, cells) == (1.0, 400)
    edge, cells = occupied_cells(dense / 1000)
    assert edge < 0.002
    assert cells * edge**2 == pytest.approx(4e-4, rel=0.15)
    assert occupied_cells(np.zeros((3, 3))) == (0.0, 0)


def test_images(tmp_path):
    from PIL import Image

    for name, count in (("cat", 3), ("dog", 1)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.zeros((10 + i, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    words = " ".join(run(tmp_path / "pets").split())
    assert "images 4 height 10 to 12 pixels width 20 pixels colour yes" in words
    assert "cat 0 3 75.0%" in words
    words = " ".join(run(tmp_path / "pets" / "cat" / "2.png").split())
    assert "height 12 pixels width 20 pixels" in words
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 5, 6), np.uint8), labels=[0, 1, 1, 1])
    words = " ".join(run(tmp_path / "a.npz").split())
    assert "images 4 height 5 pixels width 6 pixels colour grey" in words
    assert "1 1 3 75.0%" in words


def test_columns(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3 7 10 20 30\n4 5 6 8 10 20 30\n")
    with pytest.raises(ValueError, match="two readings of its columns fit"):
        run(tmp_path / "a.txt")
    words = run(tmp_path / "a.txt", "--columns", "x y z intensity r g b").split()
    assert {"intensity", "color"} <= set(words)


def labelled(tmp_path) -> Path:
    points = np.random.default_rng(0).random((60, 3))
    labels = np.repeat([2, 3, 4], 20)
    write_scan(Scan(points, labels=labels, classes={2: "ground", 3: "low"}), tmp_path / "a.ply")
    return tmp_path / "a.ply"


def test_classes_as_the_user_wants_them(tmp_path):
    (tmp_path / "names.json").write_text('{"2": "soil"}')
    path = labelled(tmp_path)
    printed = run(path, "--map", "low,4=green", "--names", tmp_path / "names.json")
    rows = [line.split()[:3] for line in printed.splitlines()]
    assert ["soil", "2", "20"] in rows
    assert ["green", "3", "40"] in rows
    printed = run(path, "--ignore", "4")
    assert "no class: 20 points of code 4 (ignored, as asked) in a.ply" in printed


def test_runs(tmp_path, monkeypatch):
    from pointwise.training.plan import plan
    from pointwise.training.run import save_run
    from pointwise.training.sources import load_data

    path = labelled(tmp_path)
    data = load_data([str(path)], merge=["3,4=green"], ignore="7")
    save_run(plan(data, cell_size=0.1), tmp_path / "run")
    printed = run(tmp_path / "run")
    assert "ground (2), green (3)" in printed
    assert "3, 4 are green" in printed
    assert ["ignored", "7"] in [line.split() for line in printed.splitlines()]
    rows = [line.split()[:3] for line in run(path, "--run", tmp_path / "run").splitlines()]
    assert ["green", "3", "40"] in rows
