from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
import typer
from test_evaluate import labelled
from test_label import ByHeight, WholeByHeight, save, scan
from typer.testing import CliRunner

import pointwise.networks
from pointwise.cli.suggest import suggest
from pointwise.cloud.files import read_scan, write_scan
from pointwise.training.sources import Data


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for network in (ByHeight, WholeByHeight):
        monkeypatch.setattr(pointwise.networks, network.__name__, network, raising=False)


@pytest.fixture
def segmenter(tmp_path):
    return save(Data("segmentation", [labelled(0)], [], []), "ByHeight", tmp_path / "run")


@pytest.fixture
def folder(tmp_path):
    """Two clouds, with one corner each where heights are such that the run is unsure."""
    (tmp_path / "in").mkdir()
    for number, suffix in enumerate((".ply", ".npz")):
        cloud = scan(number)
        corner = (cloud.points[:, :2] < 3).all(1)
        cloud.points[corner, 2] = np.where(np.arange(corner.sum()) % 10 == 0, 0, 0.56)
        write_scan(cloud, tmp_path / "in" / f"cloud{number}{suffix}")
    return tmp_path / "in"


def run(*arguments):
    app = typer.Typer()
    app.command()(suggest)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_the_unsure_corners_come_first(segmenter, folder, tmp_path, suffix):
    out = tmp_path / f"list.{suffix}"
    done = run(segmenter, folder, "-o", out, "--side", 3, "--regions", 4)
    assert done.exit_code == 0, done.output
    text = out.read_text(encoding="utf-8")
    rows = json.loads(text)["regions"] if suffix == "json" else [*csv.DictReader(text.splitlines())]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4]
    assert {row["file"] for row in rows[:2]} == {str(file) for file in folder.iterdir()}
    for row in rows[:2]:
        assert float(row["x_max"]) == pytest.approx(3, abs=0.1)
        assert float(row["y_min"]) == pytest.approx(0, abs=0.1)
    unsure = [float(row["uncertainty"]) for row in rows]
    assert min(unsure[:2]) > max(unsure[2:])
    assert rows[0]["between"] == "ground or building"
    assert "of 18 regions 3 wide" in done.output
    said = done.output.replace(f"{tmp_path}/", "")  # a folder of any length
    assert max(map(len, said.splitlines())) <= 80


def test_the_points_of_the_clouds_have_their_rank(segmenter, folder, tmp_path):
    out = tmp_path / "points"
    done = run(segmenter, folder, "--points", out, "--side", 3, "--regions", 2)
    assert done.exit_code == 0, done.output
    ranks = set()
    for file in folder.iterdir():
        found, original = read_scan(out / file.name), read_scan(file)
        np.testing.assert_allclose(found.points, original.points)
        (rank,) = set(np.unique(found.fields["suggested"]).tolist()) - {0}
        ranks.add(rank)
        low = original.points.min(0)
        cubes = np.floor((original.points - low) / 3)
        marked = cubes[found.fields["suggested"] == rank]
        assert len(np.unique(marked, axis=0)) == 1
        assert ((found.fields["suggested"] == rank) == (cubes == marked[0]).all(1)).all()
        assert (marked[0, :2] == 0).all()
    assert ranks == {1, 2}


def test_what_has_labels_is_not_suggested(segmenter, tmp_path):
    cloud = labelled(1)
    cloud.labels[cloud.points[:, 0] > 3] = -1
    write_scan(cloud, tmp_path / "part.ply")
    out = tmp_path / "list.json"
    done = run(segmenter, tmp_path / "part.ply", "-o", out, "--side", 3)
    assert done.exit_code == 0, done.output
    assert all(row["x_min"] > 2.9 for row in json.loads(out.read_text())["regions"])
    write_scan(labelled(1), tmp_path / "all.ply")
    done = run(segmenter, tmp_path / "all.ply")
    assert str(done.exception) == "suggest: there is no point without a label"


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("town_6_classes.las", "LASF_Projection"),  # WKT and GeoTIFF keys, LAS 1.4
        ("interesting.las", "LASF_Projection"),  # GeoTIFF keys, LAS 1.2
        ("extrabytes.las", None),  # LAS 1.4 with fields of its own
        ("simple.copc.laz", "LASF_Projection"),  # WKT; what is written is LAZ
    ],
)
def test_las_keeps_its_coordinate_system_and_everything_else(
    segmenter, shared_data, tmp_path, name, system
):
    laspy = pytest.importorskip("laspy")
    source = shared_data / "las" / name
    out = tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of extra dimensions, of COPC's octree
        before = laspy.read(source)
        if ".copc" not in name:
            before.classification[:] = 1  # "unclassified", which is to stay another code than 0
            source = tmp_path / name
            before.write(source)
        done = run(segmenter, source, "--points", out, "--side", 300, "--regions", 2)
    assert done.exit_code == 0, done.output
    after = laspy.read(out / name.replace(".copc", ""))
    assert after.suggested.max() > 0
    assert after.point_format.id == before.point_format.id
    assert after.header.version == before.header.version
    np.testing.assert_array_equal(after.header.scales, before.header.scales)
    np.testing.assert_array_equal(after.header.offsets, before.header.offsets)
    for dimension in before.point_format.dimension_names:  # whole steps X, Y, Z among them
        np.testing.assert_array_equal(after[dimension], before[dimension])
    told = [
        [v.record_data_bytes() for v in las.header.vlrs if v.user_id == "LASF_Projection"]
        for las in (before, after)
    ]
    assert told[0] == told[1]
    assert bool(told[1]) == (system is not None)
    assert after.header.global_encoding.wkt == before.header.global_encoding.wkt


def test_a_second_round_replaces_the_first_ranks(segmenter, tmp_path):
    write_scan(scan(0), tmp_path / "a.las")
    for source, out in (("a.las", "one"), ("one/a.las", "two")):
        done = run(segmenter, tmp_path / source, "--points", tmp_path / out, "--regions", 1)
        assert done.exit_code == 0, done.output
    first, second = (read_scan(tmp_path / out / "a.las") for out in ("one", "two"))
    assert first.fields.keys() == second.fields.keys()
    np.testing.assert_array_equal(first.fields["suggested"], second.fields["suggested"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "list.txt"], "--out must end in .csv or .json"),
        (["--side", "-1"], "--side must be greater than 0, got -1"),
        (["--points", "run/run.json"], "--points must be a folder"),
    ],
)
def test_options_that_cannot_be(segmenter, folder, monkeypatch, tmp_path, options, said):
    monkeypatch.chdir(tmp_path)
    done = run(segmenter, folder, *options)
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)


def test_formats_that_cannot_hold_a_field(segmenter, tmp_path):
    (tmp_path / "a.off").write_text("OFF\n2 0 0\n1 2 3\n4 5 6\n")
    done = run(segmenter, tmp_path / "a.off", "--points", tmp_path / "out")
    assert "--points keeps the format" in str(done.exception)


def test_a_run_that_classifies_clouds(tmp_path):
    clouds = [scan(i, 4.0 * (i % 2), label=i % 2, classes={0: "low", 1: "high"}) for i in range(4)]
    trained = save(Data("classification", clouds, [], []), "WholeByHeight", tmp_path / "run")
    write_scan(scan(0), tmp_path / "a.ply")
    done = run(trained, tmp_path / "a.ply")
    assert "gives one class to a whole cloud or image" in str(done.exception)
