from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointwise.cloud.files import read_scan, read_scans, write_labels, write_scan
from pointwise.cloud.scan import Scan

POINTS = np.zeros((2, 3))


def test_writes_every_field(tmp_path, scan):
    scan.label, scan.group = 3, "Area_1"
    write_scan(scan, tmp_path / "a.npz")
    back = read_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.points, scan.points)
    np.testing.assert_array_equal(back.labels, scan.labels)
    assert (back.classes, back.label, back.group) == (scan.classes, 3, "Area_1")
    assert back.fields.keys() == scan.fields.keys()
    for name, values in scan.fields.items():
        np.testing.assert_array_equal(back.fields[name], values, err_msg=name)
        assert back.fields[name].dtype == values.dtype


@settings(max_examples=30, deadline=None)
@given(
    points=arrays.arrays(
        np.float64,
        st.tuples(st.integers(0, 20), st.just(3)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    dtype=st.sampled_from(["u1", "i8", "u8", "f2", "f8", "?"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_roundtrip(tmp_path_factory, points, dtype, seed):
    random = np.random.default_rng(seed)
    values = random.integers(0, 100, (len(points), 4)).astype(dtype)
    labels = random.integers(-1, 2**62, len(points))
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    write_scan(Scan(points, fields={"some": values}, labels=labels), path)
    back = read_scan(path)
    np.testing.assert_array_equal(back.points, points)
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_array_equal(back.fields["some"], values)
    assert back.fields["some"].dtype == values.dtype


def test_labels_are_written_and_everything_else_stays(tmp_path):
    given = {
        "points": np.random.default_rng(0).random((4, 5), np.float32),
        "columns": np.array(["x", "y", "z", "intensity", "speed"]),
        "calibration": np.eye(7),
        "remark": np.array("afternoon"),
    }
    np.savez(tmp_path / "in.npz", **given)
    scan = read_scan(tmp_path / "in.npz")
    scan.classes = {0: "car", 7: "tree"}
    write_labels(scan, np.array([0, 7, -1, 7]), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as out:
        assert set(out.files) == {*given, "labels", "classes", "class_codes"}
        for name, values in given.items():
            np.testing.assert_array_equal(out[name], values)
            assert out[name].dtype == values.dtype
    back = read_scan(tmp_path / "out.npz")
    assert back.labels.tolist() == [0, 7, -1, 7]
    assert back.classes == {0: "car", 7: "tree"}


def test_columns(tmp_path):
    table = np.arange(10.0).reshape(2, 5)
    np.save(tmp_path / "a.npy", table)
    scan = read_scan(tmp_path / "a.npy")
    assert scan.points.tolist() == [[0, 1, 2], [5, 6, 7]]
    assert {n: v.tolist() for n, v in scan.fields.items()} == {
        "feature0": [3, 8],
        "feature1": [4, 9],
    }
    np.savez(tmp_path / "a.npz", points=table, columns=["intensity", "x", "y", "z", "speed"])
    scan = read_scan(tmp_path / "a.npz")
    assert scan.points.tolist() == [[1, 2, 3], [6, 7, 8]]
    assert {n: v.tolist() for n, v in scan.fields.items()} == {"intensity": [0, 5], "speed": [4, 9]}


def test_a_batch_gives_many(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(
        path,
        points=np.arange(15.0).reshape(5, 3),
        offsets=[0, 2, 2, 5],
        label=[1, 0, 1],
        classes=["cat", "dog"],
        speed=np.arange(5),
    )
    scans = read_scans(path)
    assert [len(scan) for scan in scans] == [2, 0, 3]
    assert [scan.label for scan in scans] == [1, 0, 1]
    assert scans[2].fields["speed"].tolist() == [2, 3, 4]
    assert scans[2].name == "a[2]"
    assert scans[0].classes == {0: "cat", 1: "dog"}
    with pytest.raises(ValueError, match=r"a\.npz: holds 3 clouds, not one; use read_scans"):
        read_scan(path)


def test_recordings_are_cut_into_windows(tmp_path):
    frame = np.array([3, 0, 1, 1, 2, 5, 0, 1])
    np.savez(
        tmp_path / "a.npz",
        points=np.arange(24.0).reshape(8, 3),
        frame=frame,
        recording=[0, 0, 0, 0, 0, 0, 1, 1],
        label=[4, 2],
        recording_name=["run/one", "run/two"],
    )
    scans = read_scans(tmp_path / "a.npz", window=4, stride=2)
    assert [(s.group, s.label, len(s)) for s in scans] == [
        ("run/one", 4, 5),  # frames 0 to 3
        ("run/one", 4, 3),  # frames 2 to 5
        ("run/two", 2, 2),  # shorter than a window
    ]
    assert scans[0].points[:, 0].tolist() == [3, 6, 9, 12, 0]  # by frame
    np.testing.assert_array_equal(scans[0].fields["time"], np.float32([0, 0.25, 0.25, 0.5, 0.75]))
    np.testing.assert_array_equal(scans[1].fields["time"], np.float32([0, 0.25, 0.75]))
    assert scans[1].name == "run/one[2:6]"
    assert scans[0].fields.keys() == {"time"}


def test_real_recordings(data):
    path = data("radhar/radhar_train.npz")
    scans = read_scans(path, window=60, stride=30)
    with np.load(path) as file:
        frame, recording, label = file["frame"], file["recording"], file["label"]
        names = file["recording_name"]
        points = file["points"]
    lengths = [frame[recording == r].max() + 1 for r in range(len(label))]
    assert len(scans) == sum((n - 60) // 30 + 1 for n in lengths)
    assert {scan.group for scan in scans} == set(names.tolist())
    last = scans[-1]
    start = (lengths[-1] - 60) // 30 * 30
    inside = (recording == len(label) - 1) & (frame >= start) & (frame < start + 60)
    np.testing.assert_array_equal(last.points, points[inside][:, :3])
    np.testing.assert_array_equal(last.fields["velocity"], points[inside][:, 3])
    assert last.label == label[-1]
    assert last.classes[last.label] == "walk"
    assert last.fields["time"].min() == 0
    assert 0.95 < last.fields["time"].max() < 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"place": POINTS}, r"has no array 'points' \(it has: place\)"),
        (
            {"pos": POINTS, "xyz": POINTS},
            "has no array 'points', and several that may be: pos, xyz",
        ),
        ({"points": np.zeros((2, 2))}, r"points must be numbers \[N, 3\] .*, got float64 \[2, 2\]"),
        ({"points": np.array([["a"] * 3])}, r"points must be numbers \[N, 3\]"),
        ({"points": np.array([[None] * 3])}, "Object arrays cannot be loaded"),
        ({"points": POINTS, "columns": ["x"]}, r"columns must name 3 columns, got \[1\]"),
        ({"points": POINTS, "columns": ["a", "y", "z"]}, r"no columns x, y, z \(it has: a, y, z"),
        ({"points": POINTS, "labels": [1]}, r"labels must be whole numbers \[2\], got int64 \[1\]"),
        ({"points": POINTS, "labels": [1.5, 2]}, "labels must be whole numbers"),
        ({"points": POINTS, "offsets": [0, 1]}, "offsets must rise from 0 to .* points, 2"),
        ({"points": POINTS, "offsets": [0, 2], "label": [1, 2]}, r"label must be whole .* \[1\]"),
        ({"points": POINTS, "classes": ["a"], "class_codes": [1, 2]}, r"class_codes must be \[1\]"),
        (
            {"points": POINTS, "frame": [0, 1], "recording": [0, 1], "label": [3]},
            "recording must be 0 to 0, one label for each",
        ),
        (
            {"points": POINTS, "frame": [0, 1], "recording": [0, 0], "label": [3]}
            | {"recording_name": ["a", "b"]},
            r"recording_name must be \[1\], got \[2\]",
        ),
    ],
)
def test_what_is_not_a_cloud_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        read_scans(tmp_path / "a.npz")


def test_windows_must_be_positive(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.zeros((1, 3)), frame=[0], recording=[0], label=[0])
    with pytest.raises(ValueError, match="window and stride must be 1 or more, got 60 and 0"):
        read_scans(tmp_path / "a.npz", stride=0)


def test_a_field_cannot_have_the_name_of_a_part(tmp_path):
    scan = Scan(np.zeros((1, 3)), fields={"labels": np.zeros(1)})
    with pytest.raises(ValueError, match="a field is named 'labels', as a part of the file is"):
        write_scan(scan, tmp_path / "a.npz")
    scan = Scan(np.zeros((1, 3)), fields={"word": np.array(["a"])})
    with pytest.raises(
        ValueError, match=r"field 'word' must be numbers \[1\] or \[1, K\], got <U1"
    ):
        write_scan(scan, tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["pos", "positions", "xyz", "Coords"])
def test_other_names_of_points_and_labels(tmp_path, name):
    points = np.arange(12.0).reshape(4, 3)
    for labels in ("label", "y", "segment", "semantic_gt", "class"):
        for values in (np.array([[2], [0], [1], [1]]), np.array([2.0, 0, 1, 1]), [2, 0, 1, 1]):
            np.savez(tmp_path / "a.npz", **{name: points, labels: values})
            scan = read_scan(tmp_path / "a.npz")
            np.testing.assert_array_equal(scan.points, points)
            assert scan.labels.tolist() == [2, 0, 1, 1]
            assert (scan.label, scan.fields) == (None, {})
    write_labels(scan, np.array([5, 6, 7, 8]), tmp_path / "b.npz")
    back = read_scan(tmp_path / "b.npz")
    assert back.labels.tolist() == [5, 6, 7, 8]
    assert back.fields["extra_class"].tolist() == [2, 0, 1, 1]


def test_an_array_for_each_axis(tmp_path):
    np.savez(tmp_path / "a.npz", x=[1, 2], y=[3, 4], z=[5, 6], labels=[np.nan, 7.0])
    scan = read_scan(tmp_path / "a.npz")
    assert scan.points.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert (scan.labels.tolist(), scan.fields) == ([-1, 7], {})


def test_structured_arrays_and_orders(tmp_path):
    path = tmp_path / "a.npy"
    rows = np.zeros(2, [("x", ">f4"), ("y", ">f8"), ("z", ">i2"), ("label", ">i4"), ("w", ">f4")])
    rows["x"], rows["label"], rows["w"] = [1, 2], [3, 4], [5, 6]
    np.save(path, rows)
    scan = read_scan(path)
    assert scan.points.tolist() == [[1, 0, 0], [2, 0, 0]]
    assert scan.labels.tolist() == [3, 4]
    assert scan.fields["w"].dtype == np.float32
    table = np.arange(80).reshape(20, 4)
    for dtype in (">f4", "<f2", "i1", ">u2"):
        for written in (table.astype(dtype), np.asfortranarray(table.astype(dtype))):
            np.save(path, written)
            scan = read_scan(path)
            np.testing.assert_array_equal(scan.points, table[:, :3])
            assert scan.fields["feature0"].dtype.isnative
    np.save(path, table.T[:3])
    with pytest.warns(UserWarning, match=r"\[3, 20\] is read as three rows x, y, z of 20 points"):
        np.testing.assert_array_equal(read_scan(path).points, table[:, :3])
    np.save(path, table[:3])
    with pytest.warns(UserWarning, match=r"\[3, 4\] is read as 3 points of 4 columns"):
        np.testing.assert_array_equal(read_scan(path).points, table[:3, :3])
    np.save(path, np.array([[None] * 3]), allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_scan(path)


def test_what_is_not_used_is_not_unpacked(tmp_path, monkeypatch):
    """An array of zeros of a gigabyte has a megabyte, and is refused where it would be used."""
    monkeypatch.setattr("pointwise.cloud.files.unpack.LARGE", 10_000)
    bomb = np.zeros(10_000_000, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", points=POINTS, more=bomb)
    scan = read_scan(tmp_path / "a.npz")
    assert scan.fields == {}
    write_labels(scan, np.array([3, 4]), tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as file:
        assert file["more"].nbytes == bomb.nbytes
    np.savez_compressed(tmp_path / "a.npz", points=np.zeros((1_000_000, 3)))
    with pytest.raises(ValueError, match=r"array 'points' would unpack .* MB to 0\.024 GB, more"):
        read_scan(tmp_path / "a.npz")


def test_a_header_that_says_too_much(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((12, 3)))
    content = (tmp_path / "a.npy").read_bytes().replace(b"(12, 3), ", b"(9999999, 3), ", 1)
    (tmp_path / "a.npy").write_bytes(content.replace(b"     \n", b"\n", 1))
    with pytest.raises(ValueError, match="truncated: the header says 239999976 bytes of numbers"):
        read_scan(tmp_path / "a.npy")


def test_a_column_of_the_points_is_not_replaced_in_silence(tmp_path):
    table, path = np.arange(12.0).reshape(3, 4), tmp_path / "a.npz"
    np.savez(path, points=table, columns=["x", "y", "z", "x"])
    with pytest.raises(ValueError, match=r"a\.npz: two columns are named 'x'"):
        read_scan(path)
    np.savez(path, points=table, columns=["x", "y", "z", "label"])
    assert read_scan(path).labels.tolist() == [3, 7, 11]
    np.savez(path, points=table, columns=["x", "y", "z", "label"], labels=[5, 6, 7])
    with pytest.warns(UserWarning, match=r"'label' is a column .* the field 'extra_label'$"):
        scan = read_scan(path)
    assert scan.labels.tolist() == [5, 6, 7]
    assert scan.fields["extra_label"].tolist() == [3, 7, 11]
    np.savez(path, points=table, feature0=[5, 6, 7])
    with pytest.warns(UserWarning, match="the column is the field 'extra_feature0'$"):
        scan = read_scan(path)
    assert scan.fields["feature0"].tolist() == [5, 6, 7]
    assert scan.fields["extra_feature0"].tolist() == [3, 7, 11]


def test_three_rows_of_coordinates(tmp_path):
    points = np.arange(60.0).reshape(20, 3)
    np.savez(tmp_path / "a.npz", points=points.T, labels=np.arange(20))
    with pytest.warns(UserWarning, match=r"\[3, 20\] is read as three rows x, y, z of 20 points"):
        scan = read_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(scan.points, points)
    assert scan.labels.tolist() == [*range(20)]


def test_names_in_capitals_and_labels_that_are_said(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, Points=POINTS, Labels=np.array([4, 5]))
    assert read_scan(path).labels.tolist() == [4, 5]
    np.savez(path, points=POINTS, label=np.array([4, 5]), segment=np.array([6, 7]))
    with pytest.warns(UserWarning, match=r"the labels are array 'label'; 'segment', which could"):
        scan = read_scan(path)
    assert scan.labels.tolist() == [4, 5]
    assert scan.fields["extra_segment"].tolist() == [6, 7]
    np.savez(path, points=POINTS, x=np.arange(2), y=np.arange(2), z=np.arange(2))
    assert read_scan(path).labels is None  # coordinates in a grid, say
    np.savez(path, points=POINTS, labels=np.array([2**63, 0], np.uint64))
    with pytest.raises(ValueError, match=r"labels must be whole numbers \[2\], got uint64"):
        read_scan(path)
