from __future__ import annotations

import struct

import numpy as np
import plyfile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointwise.cloud.files import check_labels, read_scan, write_labels, write_scan
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


HEADER = """ply
format {} 1.0
comment made by Müller & Söhne
comment end_header is not here
obj_info num_cols 3
comment class 6 building
element face 1
property list uchar int vertex_indices

element  vertex\t3
property float32 x
property   double y
property float z
property uchar red
property uint8 green
property uchar blue
element edge 2
property int vertex1
property int vertex2
end_header
"""
POINTS = np.array([[0, 1, 2], [10.5, -4, 13], [0.25, 6, 26]])
COLORS = [[1, 2, 3], [10, 13, 10], [255, 0, 32]]


def exported(form, line_end, encoding="utf-8", empty_lines=False):
    """A file as other programs write it: faces first, then vertices, then something else."""
    header = HEADER.format(form).encode(encoding).replace(b"\n", line_end)
    if form == "ascii":
        rows = ["3 0 1 2", *(f"{x:g}\t{y:g}  {z:g} " for x, y, z in POINTS), "0 1", "1 2"]
        for k, color in enumerate(COLORS):
            rows[k + 1] += " ".join(map(str, color)) + " "
        if empty_lines:
            rows = [line for row in rows for line in (row, "", "  ")]
        return header + line_end.join(row.encode() for row in rows) + line_end
    order = "<" if form == "binary_little_endian" else ">"
    vertices = np.zeros(3, [*zip("xyz", (order + "f4", order + "f8", order + "f4"), strict=True)]
                        + [(name, "u1") for name in ("red", "green", "blue")])  # fmt: skip
    for name, values in zip("xyz", POINTS.T, strict=True):
        vertices[name] = values
    for name, values in zip(("red", "green", "blue"), np.transpose(COLORS), strict=True):
        vertices[name] = values
    face = b"\x03" + np.array([0, 1, 2], order + "i4").tobytes()
    return header + face + vertices.tobytes() + np.array([0, 1, 1, 2], order + "i4").tobytes()


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_files_of_other_programs(tmp_path, form, line_end, encoding):
    source, out = tmp_path / "in.ply", tmp_path / "out.ply"
    content = exported(form, line_end, encoding)
    source.write_bytes(content)
    scan = read_scan(source)
    np.testing.assert_array_equal(scan.points, POINTS)
    assert scan.fields["color"].tolist() == COLORS
    assert scan.classes == {6: "building"}

    scan.classes = {}
    write_labels(scan, np.array([6, -1, 70_000]), out)
    back = read_scan(out)
    assert back.labels.tolist() == [6, -1, 70_000]
    np.testing.assert_array_equal(back.points, POINTS)
    assert back.fields["color"].tolist() == COLORS
    end = b"vertex2" + line_end + b"end_header" + line_end
    header, _, body = content.partition(end)
    new_header, _, new_body = out.read_bytes().partition(end)
    assert new_header.replace(line_end + b"property int label", b"") == header
    assert new_body[:7] == body[:7]  # the face
    assert new_body[-8:] == body[-8:]  # the edges


def test_numbers_that_look_like_a_line_end(tmp_path):
    """The first byte of the body is LF, behind a header whose lines end in CR."""
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 1\n" + "".join(
        f"property uchar {name}\n" for name in "xyz"
    )
    for line_end in (b"\r", b"\n", b"\r\n"):
        start = (header + "end_header\n").encode().replace(b"\n", line_end)
        (tmp_path / "a.ply").write_bytes(start + b"\n\r\n")
        assert read_scan(tmp_path / "a.ply").points.tolist() == [[10, 13, 10]]


def ascii_file(path, properties, rows, element="vertex", more=""):
    lines = ["ply", "format ascii 1.0", f"element {element} {len(rows)}"]
    lines += [f"property {each}" for each in properties] + [*more.splitlines(), "end_header", *rows]
    path.write_text("\n".join(lines) + "\n")
    return path


XYZ = ["float x", "float y", "float z"]


def test_ascii_in_the_wild(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(exported("ascii", b"\r\n", empty_lines=True))
    np.testing.assert_array_equal(read_scan(path).points, POINTS)
    ascii_file(path, [*XYZ, "uchar label"], ["0 0 0 2.0", "1 1 1 3.0e0"], element="vertices")
    scan = read_scan(path)
    assert scan.labels.tolist() == [2, 3]
    write_labels(scan, np.array([7, 8]), path)
    assert path.read_text().splitlines()[-2:] == ["0 0 0 7", "1 1 1 8"]
    ascii_file(path, [*XYZ, "float mass"], ["0 0 0 -1.#IND", "1 1 1 nan(ind)", "2 2 2 .1"])
    np.testing.assert_array_equal(read_scan(path).fields["mass"], np.float32([np.nan, np.nan, 0.1]))
    ascii_file(path, XYZ, [])
    assert len(read_scan(path)) == 0


def test_numbers_of_text_stay_as_they_are_written(tmp_path):
    path = ascii_file(tmp_path / "a.ply", XYZ, ["0.1 1e3 -0", "+.5 1. 00"])
    write_labels(read_scan(path), np.array([4, 5]), path)
    assert path.read_text().splitlines()[-2:] == ["0.1 1e3 -0 4", "+.5 1. 00 5"]


LISTS = """ply
format {} 1.0
element before 2
property list ushort int near
element vertex 2
property list uchar int near
property float x
property float y
property float z
property uchar label
property list uchar short far
end_header
"""


@pytest.mark.parametrize("order", ["", "<", ">"], ids=["ascii", "little", "big"])
def test_lists_among_the_properties(tmp_path, order):
    forms = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}
    header = LISTS.format(forms[order]).encode()

    def content(first, second):
        if not order:
            return header + f"2 5 6\n0\n2 1 2 3 0 0 {first} 0\n0 4 0 0 {second} 1 7\n".encode()
        rows = [("HiiH", 2, 5, 6, 0), ("BiifffBB", 2, 1, 2, 3, 0, 0, first, 0)]
        rows.append(("BfffBBh", 0, 4, 0, 0, second, 1, 7))
        return header + b"".join(struct.pack(order + form, *values) for form, *values in rows)

    (tmp_path / "a.ply").write_bytes(content(8, 9))
    scan = read_scan(tmp_path / "a.ply")
    assert (scan.points[:, 0].tolist(), scan.labels.tolist()) == ([3, 4], [8, 9])
    write_labels(scan, np.array([250, 0]), tmp_path / "b.ply")
    assert (tmp_path / "b.ply").read_bytes() == content(250, 0)
    write_labels(scan, np.array([-1, 300]), tmp_path / "b.ply")
    assert read_scan(tmp_path / "b.ply").labels.tolist() == [-1, 300]


def test_labels_of_cloudcompare_are_replaced(tmp_path):
    path = ascii_file(tmp_path / "a.ply", [*XYZ, "float scalar_Label"], ["0 0 0 4", "1 1 1 5"])
    write_labels(read_scan(path), np.array([8, 9]), path)
    assert read_scan(path).labels.tolist() == [8, 9]
    assert "property float scalar_Label" in path.read_text()
    write_labels(read_scan(path), np.array([8, 2**24 + 1]), path)
    assert read_scan(path).labels.tolist() == [8, 2**24 + 1]


def test_damaged_faces_do_not_matter_to_labels(tmp_path):
    faces = "element face 3\nproperty list uchar int vertex_indices"
    path = ascii_file(tmp_path / "a.ply", XYZ, ["0 0 0", "1 1 1"], more=faces)
    path.write_text(path.read_text() + "9 0 1 2\nnonsense")
    write_labels(read_scan(path), np.array([4, 5]), tmp_path / "b.ply")
    assert read_scan(tmp_path / "b.ply").labels.tolist() == [4, 5]
    assert (tmp_path / "b.ply").read_text().endswith("1 1 1 5\n9 0 1 2\nnonsense")


@pytest.mark.parametrize(
    ("properties", "rows", "message"),
    [
        ([*XYZ, "float x"], ["0 0 0 0"], "the PLY header has two properties 'x'; rename one"),
        (XYZ, ["0 0 0", "0 0"], "element 'vertex': the number of columns changed from 3 to 2"),
        (XYZ, ["0 0 0 0"], "element 'vertex' has 3 properties, its lines have 4 numbers"),
        (XYZ, ["0 0 a"], "element 'vertex': could not convert string 'a' to float64"),
        ([*XYZ, "uchar red"], ["0 0 0 300"], "property 'red' is uchar, which cannot be 300"),
        ([*XYZ, "int red"], ["0 0 0 nan"], "property 'red' is int, which cannot be nan"),
        ([*XYZ, "half red"], ["0 0 0 0"], "a PLY property cannot have the type 'half'"),
        ([*XYZ, "list float int a"], ["0 0 0 0"], "cannot have the type 'list float int'"),
        ([*XYZ, "float my red"], ["0 0 0 0"], "line 7 of the PLY header is none: 'property float"),
        ([*XYZ, "list uchar int a"], ["0 0 0 2 1"], "element 'vertex', row 0: early end-of-line"),
    ],
)
def test_vertices_that_cannot_be_read(tmp_path, properties, rows, message):
    path = ascii_file(tmp_path / "a.ply", properties, rows)
    with pytest.raises(ValueError, match=rf"a\.ply: .*{message}"):
        read_scan(path)


def test_headers_that_cannot_be_read(tmp_path):
    path = ascii_file(tmp_path / "a.ply", XYZ, ["0 0 0", "1 1 1"])
    whole = path.read_text()
    for old, new, message in (
        ("end_header", "", "line 8 of the PLY header is none: '0 0 0'"),
        ("end_header\n0 0 0\n1 1 1\n", "", "truncated: its header has no line end_header"),
        ("format ascii 1.0\n", "", "the PLY header has no line format"),
        ("ascii 1.0", "ascii 2.0", "line 2 of the PLY header is none: 'format ascii 2.0'"),
        ("vertex 2", "vertex -2", "line 3 of the PLY header is none: 'element vertex -2'"),
        ("element vertex 2", "", "line 4 of the PLY header is none: 'property float x'"),
        ("vertex 2", "vertex 3", "truncated: the header says 3 of 'vertex', 2 follow"),
        ("element", "element vertex 0\nelement", "the PLY header has two elements 'vertex'"),
        ("ply", "plain", "not a PLY file: its first line does not say ply"),
    ):
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(ValueError, match=message):
            read_scan(path)
    list_label = ascii_file(path, [*XYZ, "list uchar int label"], ["0 0 0 1 4"])
    with pytest.raises(ValueError, match="property 'label' is a list, which no label can replace"):
        write_labels(read_scan(list_label), np.array([1]), tmp_path / "b.ply")


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


def test_truncated_and_longer_binary_files(tmp_path):
    content = exported("binary_little_endian", b"\n")
    content = content.replace(b"element edge 2\nproperty int vertex1\nproperty int vertex2\n", b"")
    (tmp_path / "a.ply").write_bytes(content)  # 16 bytes more than the header says
    np.testing.assert_array_equal(read_scan(tmp_path / "a.ply").points, POINTS)
    (tmp_path / "a.ply").write_bytes(content[:-17])
    with pytest.raises(ValueError, match="truncated: the header says 3 of 'vertex', 2 follow"):
        read_scan(tmp_path / "a.ply")
    (tmp_path / "a.ply").write_bytes(content.replace(b"face 1", b"face 40"))
    with pytest.raises(ValueError, match=r"element 'face', row \d+: early end-of-file"):
        read_scan(tmp_path / "a.ply")


def test_a_line_without_end_is_read_once(tmp_path):
    """Not in the square of its length, which takes hours."""
    (tmp_path / "a.ply").write_bytes(b"ply\nformat ascii 1.0\n" + bytes(20_000_000))
    with pytest.raises(ValueError, match="truncated: its header has no line end_header"):
        read_scan(tmp_path / "a.ply")
    rows = [" " * 20_000_000, "0 0 0"]
    path = ascii_file(tmp_path / "a.ply", XYZ, rows)
    path.write_text(path.read_text().replace("vertex 2", "vertex 1"))
    assert len(read_scan(path)) == 1


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


@pytest.mark.parametrize(
    ("form", "body"), [("ascii", b"0 1 2\n3 4 5\n"), ("binary_little_endian", bytes(24))]
)
def test_points_that_the_header_does_not_count_are_said(tmp_path, form, body):
    header = f"ply\nformat {form} 1.0\nelement vertex 1\n"
    header += "property float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    with pytest.warns(UserWarning, match=r"a\.ply: the header says 1 points; left out \d+ bytes"):
        assert len(read_scan(tmp_path / "a.ply")) == 1


@pytest.mark.filterwarnings("ignore:the labels are column 'label'; '")
@pytest.mark.parametrize("other", ["scalar_Label", "Label", "class"])
@pytest.mark.parametrize("first", [True, False])
def test_the_labels_that_are_read_are_those_that_are_written(tmp_path, other, first):
    names = [other, "label"] if first else ["label", other]
    properties = "".join(f"property float {name}\n" for name in ["x", "y", "z", *names])
    header = f"ply\nformat ascii 1.0\nelement vertex 2\n{properties}end_header\n"
    (tmp_path / "a.ply").write_text(f"{header}0 1 2 7 8\n3 4 5 7 8\n")
    scan = read_scan(tmp_path / "a.ply")
    assert scan.labels.tolist() == ([8, 8] if first else [7, 7])
    write_labels(scan, np.array([5, 6]), tmp_path / "b.ply")
    back = read_scan(tmp_path / "b.ply")
    assert back.labels.tolist() == [5, 6]
    assert back.fields[other].tolist() == ([7, 7] if first else [8, 8])


@pytest.mark.parametrize("encoding", ["ascii", "<", ">"])
def test_fields_are_written_beside_the_labels(data, tmp_path, encoding):
    original = plyfile.PlyData.read(data("ply/suzanne.ply"))
    original.text = encoding == "ascii"
    original.byte_order = "=" if original.text else encoding
    source, out = tmp_path / "in.ply", tmp_path / "out.ply"
    original.write(source)
    sure = np.random.default_rng(0).random(1966).astype(np.float32)
    labels = np.arange(1966)
    write_labels(read_scan(source), labels, out, {"confidence": sure})
    after = plyfile.PlyData.read(out)
    for prop in original["vertex"].properties:
        np.testing.assert_array_equal(after["vertex"][prop.name], original["vertex"][prop.name])
    found = read_scan(out)
    np.testing.assert_array_equal(found.fields["confidence"], sure)
    np.testing.assert_array_equal(found.labels, labels)
    # Again, where both are there already.
    with pytest.warns(UserWarning, match="the field 'confidence' is replaced"):
        write_labels(found, labels[::-1], tmp_path / "b.ply", {"confidence": sure[::-1]})
    again = read_scan(tmp_path / "b.ply")
    np.testing.assert_array_equal(again.fields["confidence"], sure[::-1])
    np.testing.assert_array_equal(again.labels, labels[::-1])
    assert len(plyfile.PlyData.read(tmp_path / "b.ply")["vertex"].properties) == len(
        after["vertex"].properties
    )


def test_fields_behind_lists_in_lines(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty list uchar int n\n"
        "property float y\nproperty float sure\nproperty float z\nend_header\n"
        "1 2 7 8 2 0.5 3\n4 0 5 0.5 6\n"
    )
    scan = read_scan(tmp_path / "a.ply")
    with pytest.warns(UserWarning, match="replaced"):
        write_labels(scan, np.array([8, 9]), tmp_path / "b.ply", {"sure": np.array([0.25, 1.0])})
    lines = (tmp_path / "b.ply").read_text().splitlines()
    assert lines[-2:] == ["1 2 7 8 2 0.25 3 8", "4 0 5 1.0 6 9"]


def test_a_list_is_no_field(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nproperty list uchar int sure\nend_header\n1 2 3 1 4\n"
    )
    with pytest.raises(ValueError, match="'sure' is a list, which no field can replace"):
        check_labels(
            read_scan(tmp_path / "a.ply"), [1], tmp_path / "b.ply", {"sure": np.ones(1, "f4")}
        )
