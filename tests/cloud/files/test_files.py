"""What holds for every format: dispatch, errors, and labels across formats."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import numpy as np
import plyfile
import pytest

from pointwise.cloud.files import SUFFIXES, read_scan, read_scans, write_labels, write_scan
from pointwise.cloud.scan import Scan

BINARY = [
    "las/simple.las",
    "las/simple.laz",
    "las/simple.copc.laz",
    "las/extrabytes.las",
    "pcd/milk_color.pcd",
    "ply/suzanne.ply",
    "ply/ballA.off",
    "e57/bunnyInt32.e57",
    "xyz/points_agisoft.xyz",
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_files(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(ValueError, match=rf"a\{suffix}: is empty \(0 bytes\)"):
        read_scans(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_another_format(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3 + b"\xff")
    with pytest.raises((ValueError, OSError), match=rf"^\S*a\{suffix}: [^\n]+$"):
        read_scans(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_files(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=rf"a\{suffix}: no such file"):
        read_scans(tmp_path / f"a{suffix}")


def test_suffixes(tmp_path, scan):
    (tmp_path / "a.docx").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"unknown suffix '\.docx'; known are \.las, \.laz, \.ply"):
        read_scan(tmp_path / "a.docx")
    with pytest.raises(ValueError, match=r"cannot write '\.pcd'; use \.las, \.laz, \.ply, \.npz"):
        write_scan(scan, tmp_path / "a.pcd")
    write_scan(scan, tmp_path / "A.PLY")
    assert len(read_scan(str(tmp_path / "A.PLY"))) == len(scan)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.filterwarnings("ignore")
def test_damage_gives_one_line_or_points(data, tmp_path, name):
    """No error of a library comes through, whichever bytes are wrong or missing."""
    content = data(name).read_bytes()
    chance = random.Random(0)
    path = tmp_path / ("a" + name[name.rindex(".") :])
    messages = []
    for trial in range(30):
        damaged = bytearray(content)
        if trial % 3 == 0:
            damaged = damaged[: chance.randrange(1, len(damaged) * 9 // 10)]
        else:
            end = len(damaged) if trial % 3 == 1 else 1000  # headers are small
            for _ in range(chance.choice([1, 3, 20])):
                damaged[chance.randrange(end)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_scans(path)
        except (ValueError, OSError) as error:
            messages.append(str(error))
    assert len(messages) >= 3
    for message in messages:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


@pytest.mark.parametrize("target", [".las", ".laz", ".ply", ".npz"])
@pytest.mark.parametrize(
    "name", ["las/extrabytes.las", "las/simple.laz", "ply/bunny.ply", "xyz/points_agisoft.xyz"]
)
def test_labels_in_another_format(data, tmp_path, name, target):
    scan = read_scan(data(name))
    labels = np.random.default_rng(0).integers(2, 30, len(scan))
    write_labels(scan, labels, tmp_path / f"a{target}")
    back = read_scan(tmp_path / f"a{target}")
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_allclose(back.points, scan.points, atol=0.0005, rtol=0)
    for field, values in scan.fields.items():
        np.testing.assert_array_equal(back.fields[field], values, err_msg=field)


def test_labels_are_checked(scan, tmp_path):
    with pytest.raises(ValueError, match=r"write_labels: labels must be \[50\], got \[49\]"):
        write_labels(scan, np.zeros(49, np.int64), tmp_path / "a.ply")
    with pytest.raises(TypeError, match="labels must be whole numbers, got float64"):
        write_labels(scan, np.zeros(50), tmp_path / "a.ply")
    with pytest.raises(ValueError, match=r"cannot write '\.pts'"):
        write_labels(scan, np.zeros(50, np.int64), tmp_path / "a.pts")
    with pytest.raises(ValueError, match=r"write_labels: sure must be floats \[50\]"):
        write_labels(scan, np.zeros(50, np.int64), tmp_path / "a.ply", {"sure": np.zeros(49)})


def test_scans_are_checked(scan, tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(ValueError, match=r"write_scan: points must be \[N, 3\], got \[4, 2\]"):
        write_scan(Scan(np.zeros((4, 2))), path)
    with pytest.raises(ValueError, match="write_scan: points must be finite"):
        write_scan(Scan(np.full((4, 3), np.nan)), path)
    with pytest.raises(ValueError, match="field 'a' must have 1 rows, got 2"):
        write_scan(Scan(np.zeros((1, 3)), fields={"a": np.zeros(2)}), path)
    with pytest.raises(ValueError, match=r"write_scan: labels must be \[1\], got \[2\]"):
        write_scan(Scan(np.zeros((1, 3)), labels=np.zeros(2, np.int64)), path)
    with pytest.raises(
        ValueError, match=r"field 'word' must be numbers \[1\] or \[1, K\], got <U1"
    ):
        write_scan(Scan(np.zeros((1, 3)), fields={"word": np.array(["a"])}), path)
    with pytest.raises(ValueError, match=r"field 'color' must be \[1, 3\], got \[1, 4\]"):
        write_scan(Scan(np.zeros((1, 3)), fields={"color": np.zeros((1, 4))}), path)


def test_a_missing_library_names_the_extra(data, monkeypatch):
    path = data("ply/bunny.ply")
    monkeypatch.setitem(__import__("sys").modules, "plyfile", None)
    with pytest.raises(ImportError, match=r"pip install 'pointwise\[files\]'"):
        read_scan(path)


def broken(points: np.ndarray) -> np.ndarray:
    points = points.copy()
    points[[0, 7], [2, 0]] = np.nan, -np.inf
    return points


def written(scan: Scan, path) -> None:
    """A file of the cloud's points, as other programs write those that are not finite."""
    points = broken(scan.points)
    columns = {"x": points[:, 0], "y": points[:, 1], "z": points[:, 2], "tree": scan.fields["tree"]}
    if path.suffix == ".ply":
        table = np.empty(len(scan), [(name, v.dtype) for name, v in columns.items()])
        for name, values in columns.items():
            table[name] = values
        plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write(path)
    elif path.suffix == ".npz":
        np.savez(path, points=points, tree=scan.fields["tree"])
    elif path.suffix == ".npy":
        np.save(path, np.stack(list(columns.values()), axis=1))
    elif path.suffix == ".bin":
        np.stack(list(columns.values()), axis=1).astype("f4").tofile(path)
    else:
        rows = "\n".join(
            " ".join(map(repr, row))
            for row in zip(*map(np.ndarray.tolist, columns.values()), strict=True)
        )
        header = "x y z tree\n"
        if path.suffix == ".pcd":
            header = "FIELDS x y z tree\nSIZE 8 8 8 4\nTYPE F F F I\nPOINTS 50\nDATA ascii\n"
        path.write_text(header + rows)


@pytest.mark.parametrize("suffix", [".ply", ".npz", ".npy", ".bin", ".xyz", ".csv", ".pcd"])
@pytest.mark.filterwarnings("ignore:.*no header")
def test_points_that_are_not_finite_are_dropped(scan, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    written(scan, path)
    columns = "x y z tree" if suffix in (".npy", ".bin") else None
    message = rf"a\{suffix}: dropped 2 of 50 points, which have no finite .* first at index 0$"
    with pytest.warns(UserWarning, match=message):
        back = read_scan(path, columns=columns)
    kept = np.setdiff1d(np.arange(50), [0, 7])
    np.testing.assert_allclose(back.points, scan.points[kept], rtol=1e-6)
    np.testing.assert_array_equal(back.fields["tree"], scan.fields["tree"][kept])
    np.testing.assert_array_equal(np.flatnonzero(back.kept), kept)
    assert back.select(np.arange(3)).kept is None


@pytest.mark.parametrize("suffix", [".ply", ".npz"])
@pytest.mark.filterwarnings("ignore:.*dropped 2 of 50 points")
def test_labels_go_to_the_rows_they_are_of(scan, tmp_path, suffix):
    source, path = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    written(scan, source)
    cloud = read_scan(source)
    labels = np.arange(100, 148)
    write_labels(replace(cloud, classes={100: "tree"}), labels, path)
    expected = np.insert(labels, [0, 6], -1)
    if suffix == ".ply":
        vertices = plyfile.PlyData.read(path)["vertex"]
        points = np.stack([vertices["x"], vertices["y"], vertices["z"]], axis=1)
        found = vertices["label"]
    else:
        with np.load(path) as file:
            points, found = file["points"], file["labels"]
    np.testing.assert_array_equal(points, broken(scan.points))
    np.testing.assert_array_equal(found, expected)
    assert read_scan(path).labels.tolist() == labels.tolist()


def test_a_file_without_a_finite_point(scan, tmp_path):
    write_scan(scan, tmp_path / "a.las")
    content = bytearray((tmp_path / "a.las").read_bytes())
    content[131:139] = struct.pack("<d", np.nan)  # the scale of x
    (tmp_path / "a.las").write_bytes(content)
    (tmp_path / "a.xyz").write_text("nan 0 0\n0 inf 0\n")
    for name, count in (("a.las", 50), ("a.xyz", 2)):
        with pytest.raises(ValueError, match=rf"{name}: none of its {count} points has finite"):
            read_scan(tmp_path / name)


def test_several_clouds_with_points_that_are_not_finite(tmp_path):
    """One line for them all; of a cloud without any finite point none is left."""
    points = np.zeros((9, 3))
    points[[4, 6, 7, 8]] = np.nan
    np.savez(tmp_path / "a.npz", points=points, offsets=[0, 3, 6, 9])
    message = r"dropped 4 of 9 points in 2 of 3 clouds, .* the first at index 1 of a\[1\]$"
    with pytest.warns(UserWarning, match=message):
        scans = read_scans(tmp_path / "a.npz")
    assert [len(scan) for scan in scans] == [3, 2, 0]


def test_what_is_not_finite_in_fields(tmp_path):
    """Fields keep it; what has no colour is black, and what has no label is unlabelled."""
    (tmp_path / "a.xyz").write_text(
        "x y z intensity r g b label\n"
        "0 0 0 nan nan inf 9 nan\n1 1 1 -inf 300 0 0 inf\n2 2 2 1 0 0 0 3\n"
    )
    scan = read_scan(tmp_path / "a.xyz")
    np.testing.assert_array_equal(scan.fields["intensity"], [np.nan, -np.inf, 1])
    assert scan.fields["color"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]  # of 16 bits
    assert scan.labels.tolist() == [-1, -1, 3]


@pytest.mark.parametrize("suffix", [".las", ".ply", ".npz", ".off"])
def test_columns_are_for_files_that_name_none(scan, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("OFF\n0 0 0\n") if suffix == ".off" else write_scan(scan, path)
    message = rf"a\{suffix}: columns names what text, \.npy and \.bin hold; \{suffix} names its own"
    with pytest.raises(ValueError, match=message):
        read_scan(path, columns="x y z")


def test_columns_of_npy(scan, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(10.0).reshape(2, 5))
    back = read_scan(tmp_path / "a.npy", columns="z y x _ label")
    assert (back.points.tolist(), back.labels.tolist()) == ([[2, 1, 0], [7, 6, 5]], [4, 9])
    with pytest.raises(ValueError, match="columns names 4 columns, the array has 5"):
        read_scan(tmp_path / "a.npy", columns="x y z _")


@pytest.mark.parametrize("suffix", [".las", ".ply"])
def test_a_field_in_capitals_is_no_coordinate(scan, tmp_path, suffix):
    scan.fields = {"X": np.arange(len(scan), dtype=np.float64)}
    write_scan(scan, tmp_path / f"a{suffix}")
    back = read_scan(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(back.points, scan.points, atol=1e-3)
    np.testing.assert_array_equal(back.fields["scalar_X"], scan.fields["X"])
