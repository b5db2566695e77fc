from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.files import read_scan, write_labels, write_scan
from pointwise.cloud.scan import UNLABELLED, Scan


def cloud(count: int = 50, **more) -> Scan:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (count, 3)) * (1, 1e-3, 1) + (500_000.125, 5_400_000, 0)
    return Scan(points, **more)


@pytest.mark.parametrize("suffix", ["xyz", "txt", "asc", "csv", "XYZ"])
def test_numbers_are_kept_to_the_bit(tmp_path, suffix):
    rng = np.random.default_rng(1)
    fields = {
        "color": rng.integers(0, 256, (50, 3)).astype(np.uint8),
        "intensity": rng.random(50).astype(np.float32),
        "normal": rng.normal(size=(50, 3)).astype(np.float32),
        "gps time": rng.random(50) * 1e8,
        "echo": rng.integers(0, 5, 50).astype(np.uint8),
    }
    labels = rng.integers(-1, 300, 50)
    given = cloud(fields=fields, labels=labels)
    write_scan(given, tmp_path / f"a.{suffix}")
    found = read_scan(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found.points, given.points)
    np.testing.assert_array_equal(found.labels, labels)
    assert list(found.fields) == ["color", "normal", "intensity", "gps_time", "echo"]
    for name, values in fields.items():
        read = found.fields[name.replace(" ", "_")]
        np.testing.assert_array_equal(read.astype(values.dtype), values)


def test_columns_are_named_in_the_first_line(tmp_path):
    given = Scan(np.array([[1.5, 2, 3]]), {"i": np.array([0.1], np.float32)}, np.array([-1]))
    write_scan(given, tmp_path / "a.xyz")
    assert (tmp_path / "a.xyz").read_text() == "# x y z i label\n1.5 2.0 3.0 0.1 -1\n"
    write_scan(given, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "x,y,z,i,label\n1.5,2.0,3.0,0.1,-1\n"


def test_many_points_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("pointwise.cloud.files.text_writer._LINES", 7)
    given = cloud(50)
    write_scan(given, tmp_path / "a.csv")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.csv").points, given.points)


def test_no_points(tmp_path):
    write_scan(cloud(0, labels=np.empty(0, np.int64)), tmp_path / "a.csv")
    assert len(read_scan(tmp_path / "a.csv")) == 0


def test_a_field_is_not_read_as_the_labels(tmp_path):
    given = cloud(3, fields={"class": np.array([7.0, 8, 9])}, labels=np.array([1, 2, 3]))
    write_scan(given, tmp_path / "a.txt")
    found = read_scan(tmp_path / "a.txt")
    assert found.labels.tolist() == [1, 2, 3]
    assert found.fields["extra_class"].tolist() == [7, 8, 9]


def test_labels_of_text_are_written_with_what_was_read(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z,Intensity,class\n1,2,3,0.25,4\nnan,2,3,1,4\n5,6,7,8,4\n")
    with pytest.warns(UserWarning, match="dropped 1 of 3 points"):
        scan = read_scan(tmp_path / "a.csv")
    write_labels(scan, np.array([6, UNLABELLED]), tmp_path / "b.csv", {"sure": np.array([0.5, 1])})
    found = read_scan(tmp_path / "b.csv")
    assert found.points.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert found.labels.tolist() == [6, UNLABELLED]
    assert found.fields["intensity"].tolist() == [0.25, 8]
    assert found.fields["sure"].tolist() == [0.5, 1]


def test_a_failure_leaves_nothing(tmp_path):
    given = cloud(2, fields={"word": np.array(["a", "b"])})
    with pytest.raises(ValueError, match=r"a\.csv: field 'word' must be numbers"):
        write_scan(given, tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())
