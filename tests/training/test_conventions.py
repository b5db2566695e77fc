from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.files import read_scan, write_scan
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.classes import Classes
from pointwise.training.conventions import assumed, conventions, left_out
from pointwise.training.evaluate import not_counted
from pointwise.training.plan import plan
from pointwise.training.relabel import AS_IS
from pointwise.training.run import read_run, save_run
from pointwise.training.sources import load_data

laspy = pytest.importorskip("laspy")
POINTS = np.random.default_rng(0).random((60, 3)) * 10


def las(path, codes, point_format=3, names=None, red=0):
    header = laspy.LasHeader(point_format=point_format, version="1.4")
    header.scales = [0.001] * 3
    data = laspy.LasData(header)
    data.x, data.y, data.z = POINTS.T
    data.classification = np.resize(codes, 60).astype(np.uint8)
    data.red = np.full(60, red)
    if names:
        lookup = laspy.vlrs.known.ClassificationLookupVlr()
        for code, name in names.items():
            lookup[code] = name
        data.header.vlrs.append(lookup)
    data.write(path)
    return path


def test_codes_0_and_1_are_left_out_with_a_line(tmp_path):
    for name, codes in (("a.las", [0, 1, 1, 2, 2, 5]), ("b.las", [1, 2, 5])):
        las(tmp_path / name, codes)
    data = load_data([str(tmp_path)])
    assert data.notes[:2] == [
        "left out: 10 points of code 0 (never classified in the ASPRS standard) in a.las",
        "left out: 40 points of code 1 (unclassified in the ASPRS standard) in a.las, b.las",
    ]
    assert "assumed: codes 0 and 1 are no class and class names are the ASPRS" in data.notes[2]
    run = plan(data, network="TinyPoints")
    save_run(run, tmp_path)
    assert read_run(tmp_path).notes == run.notes
    assert run.notes[: len(data.notes)] == data.notes


@pytest.mark.parametrize(
    ("point_format", "named"),
    [
        (3, {2: "ground", 9: "water", 12: "overlap", 10: "class 10", 13: "class 13"}),
        (7, {2: "ground", 10: "rail", 18: "high noise", 19: "class 19", 64: "class 64"}),
    ],
)
def test_names_are_given_to_codes_that_the_point_format_defines(tmp_path, point_format, named):
    scan = read_scan(las(tmp_path / "a.las", list(named), point_format))
    assert {code: scan.classes[code] for code in named} == named
    assert len(assumed([scan])) == 1


def test_names_in_the_file_are_not_assumed(tmp_path):
    scan = read_scan(las(tmp_path / "a.las", [2, 5], names={2: "soil", 5: "tree"}))
    assert (scan.classes[2], scan.classes[5]) == ("soil", "tree")
    assert assumed([scan]) == []


def test_colours_of_eight_bits_are_assumed_with_a_line(tmp_path):
    files = [las(tmp_path / f"{red}.las", [2, 5], red=red) for red in (0, 200, 60_000)]
    said = [" ".join(assumed([read_scan(file)])) for file in files]
    assert ["colours are 8 bits" in line for line in said] == [False, True, False]


def test_a_name_that_was_read_comes_back(tmp_path):
    scan = Scan(POINTS, labels=np.resize([19, 2], 60), classes={19: "overhead structure", 2: "x"})
    write_scan(scan, tmp_path / "a.las")
    again = read_scan(tmp_path / "a.las")
    assert again.classes[19].startswith("overhead")
    assert again.classes[2] == "x"


def test_points_and_clouds_without_a_label_are_counted():
    some = np.where(np.arange(60) < 15, UNLABELLED, np.arange(60) % 2)
    scans = [Scan(POINTS, labels=some, name="a"), Scan(POINTS, name="b"), Scan(POINTS, name="c")]
    assert left_out(scans) == [
        "15 points of code -1 (no label) in a",
        "2 of 3 clouds without a class: b, c",
    ]
    clouds = [Scan(POINTS, label=1, name="a"), Scan(POINTS, name="b")]
    assert left_out(clouds, "classification") == ["1 of 2 clouds without a label: b"]


def test_doubts():
    def scan(name, codes, top=1.0, **classes):
        fields = {"intensity": np.linspace(0, top, 60, dtype=np.float32)}
        return Scan(POINTS, fields, np.resize(codes, 60), classes.get("classes", {}), name=name)

    lines = conventions(
        [
            scan("a", [1, 255], 1.0, classes={1: "road"}),
            scan("b", [1, 2], 65_535, classes={1: "roof"}),
        ],
        "segmentation",
    )
    assert lines == [
        "note: code 255 is learned as a class like any other, though it often means 'ignore'",
        "note: code 1 has several names and is one class: 'road' in a, 'roof' in b",
        "note: intensity reaches 0.95 in a and 62,258 in b; it is read as one scale",
    ]


def test_kitti_says_what_it_leaves_out(tmp_path):
    np.zeros((6, 4), "<f4").tofile(tmp_path / "0.bin")
    labels = np.array([0, 0, 10, 40, 40 | 7 << 16, 300], "<u4")
    labels.tofile(tmp_path / "0.label")
    scan = read_scan(tmp_path / "0.bin")
    assert scan.labels.tolist() == [-1, -1, 10, 40, 40, 300]
    assert left_out([scan]) == ["2 points of code 0 (unlabelled in SemanticKITTI) in 0.bin"]
    assert assumed([scan]) == ["class names are SemanticKITTI's: 0.bin"]


def test_scores_say_which_part_they_are_of():
    labels = np.repeat([UNLABELLED, 2, 5, 9], 15)
    scan = Scan(POINTS, labels=labels, classes={2: "ground", 9: "water"})
    classes = Classes((2, 5), ("ground", "b"))
    known = {"task": "segmentation", "classes": classes, "relabelling": AS_IS}
    recipe = type("R", (), known)
    run = type("Run", (), {"recipe": recipe})
    assert not_counted(run, [scan]) == {
        "without a class": 15,
        "of water, which was not learned": 15,
    }


def test_folders_of_the_test_have_the_codes_of_the_training(tmp_path):
    """A class that the folder for testing lacks does not shift those behind it."""
    for folder in ("data/ash", "data/elm", "data/oak", "other/elm", "other/oak"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(4):
            np.savez(tmp_path / folder / f"{i}.npz", points=POINTS)
    data = load_data([str(tmp_path / "data")], test=[str(tmp_path / "other")])
    assert {scan.classes[scan.label]: scan.label for scan in data.train} == {
        "ash": 0,
        "elm": 1,
        "oak": 2,
    }
    assert {(scan.source.parent.name, scan.label) for scan in data.test} == {("elm", 1), ("oak", 2)}
