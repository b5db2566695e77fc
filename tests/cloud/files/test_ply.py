from __future__ import annotations

import numpy as np
import plyfile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointwise.cloud.files import read_scan, write_labels, write_scan
from pointwise.cloud.scan import Scan


@pytest.mark.parametrize("name", ["bunny.ply", "suzanne.ply"])
def test_reads_what_plyfile_reads(data, name):
    vertices = plyfile.PlyData.read(data(f"ply/{name}"))["vertex"]
    scan = read_scan(data(f"ply/{name}"))
    np.testing.assert_array_equal(scan.points, np.stack([vertices[a] for a in "xyz"], axis=1))


def test_names_of_the_field(data):
    assert read_scan(data("ply/suzanne.ply")).fields["normal"].shape == (1966, 3)
    bunny = read_scan(data("ply/bunny.ply"))
    assert bunny.fields.keys() == {"confidence", "intensity"}
    np.testing.assert_array_equal(bunny.fields["intensity"][:2], np.float32([0.5, 0.5]))


def test_faces_that_break_the_format_do_not_matter(data):
    scan = read_scan(data("ply/fuze_ascii.ply"))  # has more in a line of a face than it declares
    assert len(scan) == 502
    assert scan.fields["color"][0].tolist() == [192, 192, 192]


@pytest.mark.parametrize("encoding", ["ascii", "<", ">"])
def test_labels_are_written_and_everything_else_stays(data, tmp_path, encoding):
    original = plyfile.PlyData.read(data("ply/suzanne.ply"))
    original.text = encoding == "ascii"
    original.byte_order = "=" if original.text else encoding
    original.obj_info = ["a monkey"]
    source, out = tmp_path / "in.ply", tmp_path / "out.ply"
    original.write(source)
    labels = np.arange(1966) - 1
    write_labels(read_scan(source), labels, out)

    before, after = plyfile.PlyData.read(source), plyfile.PlyData.read(out)
    assert after.text == before.text
    assert after.text or after.byte_order == before.byte_order
    assert after.comments == before.comments
    assert after.obj_info == ["a monkey"]
    for prop in before["vertex"].properties:
        np.testing.assert_array_equal(after["vertex"][prop.name], before["vertex"][prop.name])
        assert after["vertex"].data.dtype[prop.name] == before["vertex"].data.dtype[prop.name]
    assert after["face"].properties == before["face"].properties or str(after["face"]) == str(
        before["face"]
    )
    faces = zip(before["face"]["vertex_indices"], after["face"]["vertex_indices"], strict=True)
    assert all(np.array_equal(a, b) for a, b in faces)
    np.testing.assert_array_equal(read_scan(out).labels, labels)


def test_labels_replace_labels_and_lists_stay(tmp_path):
    vertices = np.zeros(2, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("label", "u1"), ("near", "O")])
    vertices["near"] = [np.array([1, 2], "i4"), np.array([], "i4")]
    element = plyfile.PlyElement.describe(
        vertices, "vertex", val_types={"near": "i4"}, len_types={"near": "u1"}
    )
    plyfile.PlyData([element]).write(tmp_path / "in.ply")
    scan = read_scan(tmp_path / "in.ply")
    assert scan.labels.tolist() == [0, 0]
    write_labels(scan, np.array([-1, 70_000]), tmp_path / "out.ply")
    assert read_scan(tmp_path / "out.ply").labels.tolist() == [-1, 70_000]
    near = plyfile.PlyData.read(tmp_path / "out.ply")["vertex"]["near"]
    assert [values.tolist() for values in near] == [[1, 2], []]


@pytest.mark.parametrize("name", ["label", "class", "scalar_Label", "Classification"])
def test_names_that_labels_have(tmp_path, name):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
        f"property float z\nproperty float {name}\nend_header\n0 0 0 4\n1 1 1 nan\n"
    )
    assert read_scan(tmp_path / "a.ply").labels.tolist() == [4, -1]


def test_a_class_of_fractions_is_a_field(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nproperty float class\nend_header\n0 0 0 0.5\n"
    )
    scan = read_scan(tmp_path / "a.ply")
    assert scan.labels is None
    assert scan.fields["class"].tolist() == [0.5]


def test_writes_every_field(tmp_path, scan):
    write_scan(scan, tmp_path / "a.ply")
    back = read_scan(tmp_path / "a.ply")
    np.testing.assert_array_equal(back.points, scan.points)
    np.testing.assert_array_equal(back.labels, scan.labels)
    assert back.classes == scan.classes
    assert back.fields.keys() == scan.fields.keys()
    for name, values in scan.fields.items():
        np.testing.assert_array_equal(back.fields[name], values, err_msg=name)
        assert back.fields[name].dtype == values.dtype


@settings(max_examples=40, deadline=None)
@given(
    points=arrays.arrays(
        np.float64,
        st.tuples(st.integers(0, 20), st.just(3)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    dtype=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "?"]),
    width=st.integers(0, 3),
    labelled=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_roundtrip(tmp_path_factory, points, dtype, width, labelled, seed):
    random = np.random.default_rng(seed)
    shape = (len(points), width) if width > 1 else (len(points),)
    values = random.integers(0, 100, shape).astype(dtype)
    labels = random.integers(-1, 2**31, len(points)) if labelled else None
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_scan(Scan(points, fields={"some": values}, labels=labels), path)
    back = read_scan(path)
    np.testing.assert_array_equal(back.points, points)
    np.testing.assert_array_equal(back.fields["some"], values)
    np.testing.assert_array_equal(back.labels, labels)


def test_long_whole_numbers(tmp_path):
    scan = Scan(np.zeros((2, 3)), fields={"id": np.array([-(2**53), 2**53])})
    write_scan(scan, tmp_path / "a.ply")
    assert read_scan(tmp_path / "a.ply").fields["id"].tolist() == [-(2**53), 2**53]
    scan.fields["id"] = np.array([0, 2**53 + 1])
    with pytest.raises(
        ValueError, match=r"PLY holds whole numbers to 2\*\*53, field 'id' has 9007"
    ):
        write_scan(scan, tmp_path / "a.ply")


def test_what_ply_cannot_hold_is_refused(tmp_path):
    scan = Scan(np.zeros((1, 3)), fields={"red": np.zeros(1), "color": np.zeros((1, 3), np.uint8)})
    with pytest.raises(ValueError, match="two columns would be named 'red'"):
        write_scan(scan, tmp_path / "a.ply")
    scan = Scan(np.zeros((1, 3)), fields={"label": np.zeros(1)}, labels=np.array([1]))
    with pytest.raises(ValueError, match="a field is named 'label', as the labels are"):
        write_scan(scan, tmp_path / "a.ply")
    scan = Scan(np.zeros((1, 3)), labels=np.array([2**31]))
    with pytest.raises(ValueError, match="PLY holds 32-bit labels, got 2147483648"):
        write_scan(scan, tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []


def test_huge_header(tmp_path):
    header = "ply\nformat {} 1.0\nelement vertex 1000000000000\nproperty float x\nend_header\n"
    for encoding in ("ascii", "binary_little_endian"):
        (tmp_path / "a.ply").write_text(header.format(encoding))
        with pytest.raises(
            ValueError, match=r"truncated: the header says 1000000000000 of 'vertex'"
        ):
            read_scan(tmp_path / "a.ply")


def test_without_vertices(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement edge 1\nproperty int a\nend_header\n1\n"
    )
    with pytest.raises(ValueError, match="no element 'vertex'"):
        read_scan(tmp_path / "a.ply")
