from __future__ import annotations

import struct

import numpy as np
import pytest

from pointwise.cloud.files import read_scan

HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z rgb _ label normal_x normal_y normal_z descriptor
SIZE 4 4 4 4 1 2 4 4 4 8
TYPE F F F {rgb} U U F F F F
COUNT 1 1 1 1 3 1 1 1 1 2
WIDTH 4
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 4
DATA {encoding}
"""
COLORS = np.array([[255, 128, 1], [0, 0, 0], [1, 2, 3], [200, 0, 255]], np.uint8)
RECORD = np.dtype(
    [("xyz", "<f4", 3), ("rgb", "<u4"), ("_", "u1", 3), ("label", "<u2"), ("n", "<f4", 3)]
    + [("d", "<f8", 2)]
)


@pytest.fixture
def table() -> np.ndarray:
    random = np.random.default_rng(0)
    table = np.zeros(4, RECORD)
    table["xyz"] = random.random((4, 3))
    table["rgb"] = COLORS.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    table["label"] = [0, 3, 5, 60_000]
    table["n"] = [0, 0, 1]
    table["d"] = random.random((4, 2))
    return table


def body(table: np.ndarray, encoding: str) -> bytes:
    if encoding == "binary":
        return table.tobytes()
    if encoding == "binary_compressed":
        columns = b"".join(
            np.ascontiguousarray(part).tobytes()
            for name in table.dtype.names
            # each field on its own: x, y, z are three, the padding and the descriptor one of many
            for part in (table[name].T if name in ("xyz", "n") else [table[name]])
        )
        packed = b"".join(  # LZF of literals only
            bytes([len(run) - 1]) + run
            for run in (columns[i : i + 32] for i in range(0, len(columns), 32))
        )
        return struct.pack("<II", len(packed), len(columns)) + packed
    rows = [
        [*row["xyz"], row["rgb"], *row["_"], row["label"], *row["n"], *row["d"]] for row in table
    ]
    return "\n".join(" ".join(repr(value.item()) for value in row) for row in rows).encode()


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_every_encoding(tmp_path, table, encoding):
    path = tmp_path / "a.pcd"
    path.write_bytes(HEADER.format(rgb="U", encoding=encoding).encode() + body(table, encoding))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.points, table["xyz"])
    np.testing.assert_array_equal(scan.fields["color"], COLORS)
    np.testing.assert_array_equal(scan.labels, [0, 3, 5, 60_000])
    np.testing.assert_array_equal(scan.fields["normal"], np.float32([[0, 0, 1]] * 4))
    np.testing.assert_array_equal(scan.fields["descriptor"], table["d"])
    assert scan.fields.keys() == {"color", "normal", "descriptor"}


def test_colours_packed_into_the_bits_of_a_float(tmp_path, table):
    path = tmp_path / "a.pcd"
    path.write_bytes(HEADER.format(rgb="F", encoding="binary").encode() + table.tobytes())
    np.testing.assert_array_equal(read_scan(path).fields["color"], COLORS)
    rows = [[*row["xyz"], row["rgb"].view(np.float32), 0, 0, 0, 0, 0, 0, 1, 0, 0] for row in table]
    text = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in rows)
    path.write_text(HEADER.format(rgb="F", encoding="ascii") + text)
    np.testing.assert_array_equal(read_scan(path).fields["color"], COLORS)


def test_real_files(data):
    bunny = read_scan(data("pcd/bunny.pcd"))
    np.testing.assert_allclose(bunny.points[0], [0.0054216, 0.11349, 0.040749], rtol=1e-6)
    assert len(bunny) == 397
    assert len(read_scan(data("pcd/lamppost.pcd"))) == 1771
    car = read_scan(data("pcd/car6.pcd"))
    assert len(car) == 10_031
    assert np.ptp(car.points, axis=0).max() < 20  # a car, so the compressed floats came out whole
    milk = read_scan(data("pcd/milk_color.pcd"))
    assert len(milk) == 13_704
    assert np.ptp(milk.points, axis=0).max() < 0.5
    brightness = milk.fields["color"].mean(axis=1)
    assert np.corrcoef(brightness[:-1], brightness[1:])[0, 1] > 0.8  # neighbours look alike


def test_points_without_coordinates_are_dropped_with_a_warning(data):
    with pytest.warns(UserWarning, match=r"five_people\.pcd: dropped 68125 of 307200 points"):
        scan = read_scan(data("pcd/five_people.pcd"))
    assert len(scan) == len(scan.fields["color"]) == 239_075
    assert np.isfinite(scan.points).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("POINTS 4", "POINTS 1000000000000"), "truncated: the header says 1000000000000 points"),
        (("POINTS 4", "POINTS 5"), "truncated: the header says 5 points, .* bytes follow"),
        (("POINTS 4", "POINTS x"), "POINTS in the PCD header must be whole numbers, got 'x'"),
        (("DATA binary", "DATA zip"), "PCD data are ascii, binary or .*, the header says 'zip'"),
        (("TYPE F F", "TYPE Q F"), "a PCD field cannot have TYPE Q of SIZE 4"),
        (("SIZE 4 4", "SIZE 4"), "the PCD header needs one SIZE for every field"),
        (("COUNT 1", "COUNT 0"), "a COUNT of 0 makes 180 bytes of 4 points, 196 follow"),
        (("COUNT 1", "COUNT"), "the PCD header needs one COUNT for every field"),
        (("COUNT 1", "COUNT 4000000000"), "truncated: the header says 4 points, 196 of 640000"),
        (("WIDTH 4", "WIDTH 5"), "the header says POINTS 4, and WIDTH × HEIGHT 5"),
        (("FIELDS x y", "FIELDS u v"), r"no columns x, y, z \(it has: u, v, z"),
        (("DATA binary\n", ""), "its header has no line DATA"),
        (("VERSION 0.7\n", "ply\n"), "not a PCD file: it begins with b'ply"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_broken_headers(tmp_path, table, change, message):
    path = tmp_path / "a.pcd"
    header = HEADER.format(rgb="U", encoding="binary").replace(*change)
    path.write_bytes(header.encode() + table.tobytes())
    with pytest.raises(ValueError, match=rf"a\.pcd: .*{message}"):
        read_scan(path)


def test_broken_ascii(tmp_path, table):
    path = tmp_path / "a.pcd"
    header, lines = HEADER.format(rgb="U", encoding="ascii"), body(table, "ascii").decode()
    path.write_text(header + "\n".join(lines.splitlines()[:3]))
    with pytest.raises(ValueError, match="truncated: the header says 4 points, 3 lines follow"):
        read_scan(path)
    path.write_text(header + "\n".join("1 " + line for line in lines.splitlines()))
    with pytest.raises(ValueError, match="the header says 13 numbers a point, the lines have 14"):
        read_scan(path)


def test_broken_compression(tmp_path, table, data):
    path = tmp_path / "a.pcd"
    header = HEADER.format(rgb="U", encoding="binary_compressed").encode()
    whole = body(table, "binary_compressed")
    path.write_bytes(header + whole[:-1])
    with pytest.raises(ValueError, match="truncated: the header says 4 points"):
        read_scan(path)
    path.write_bytes(header + whole[:4])
    with pytest.raises(ValueError, match="truncated: the header says 4 points, 4 bytes follow"):
        read_scan(path)
    # a reference to before the beginning, and a run that ends before the output is full
    for packed in (bytes([32, 0]) * 100, bytes([0, 7]) * 3):
        path.write_bytes(header + struct.pack("<II", len(packed), table.nbytes) + packed)
        with pytest.raises(ValueError, match="the LZF-compressed data are broken"):
            read_scan(path)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_whole_numbers_of_64_bits_are_exact(tmp_path, encoding):
    record = np.dtype([("xyz", "<f4", 3), ("stamp", "<u8"), ("offset", "<i8")])
    table = np.zeros(2, record)
    table["xyz"] = [[1, 2, 3], [4, 5, 6]]
    table["stamp"] = [1_700_000_000_123_456_789, 2**64 - 1]
    table["offset"] = [-(2**53) - 1, -(2**63)]
    header = (
        "VERSION .7\r\nFIELDS x y z stamp offset\r\nSIZE 4 4 4 8 8\r\nTYPE F F F U I\r\n"
        f"WIDTH 2\r\nHEIGHT 1\r\nPOINTS 2\r\nDATA {encoding}\r\n"
    )
    if encoding == "ascii":
        rows = [[*row["xyz"].tolist(), row["stamp"], row["offset"]] for row in table]
        content = "\r\n".join(" ".join(map(str, row)) for row in rows).encode()
    else:
        content = body(table, encoding) if encoding == "binary" else packed_columns(table)
    (tmp_path / "a.pcd").write_bytes(header.encode() + content)
    scan = read_scan(tmp_path / "a.pcd")
    np.testing.assert_array_equal(scan.points, table["xyz"])
    assert scan.fields["stamp"].tolist() == table["stamp"].tolist()
    assert scan.fields["offset"].tolist() == table["offset"].tolist()


def packed_columns(table: np.ndarray) -> bytes:
    columns = b"".join(
        np.ascontiguousarray(part).tobytes()
        for name in table.dtype.names
        for part in (table[name].T if table[name].ndim > 1 else [table[name]])
    )
    runs = [columns[i : i + 32] for i in range(0, len(columns), 32)]
    packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return struct.pack("<II", len(packed), len(columns)) + packed


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_padding(tmp_path, encoding):
    """Several fields called ``_``, of no elements and of many; and an empty one with a name."""
    header = (
        "# of someone\nFIELDS _ x y _ z none _ label\nSIZE 1 4 4 2 4 4 1 1\nTYPE U F F U F F U U\n"
        f"COUNT 0 1 1 2 1 0 3 1\nWIDTH 2\nHEIGHT 1\n# more\nPOINTS 2\nDATA {encoding}\n"
    )
    record = np.dtype([("x", "<f4", 2), ("a", "<u2", 2), ("z", "<f4"), ("b", "u1", 3), ("l", "u1")])
    table = np.array([((1, 2), (9, 9), 3, (9, 9, 9), 7), ((4, 5), (9, 9), 6, (9, 9, 9), 8)], record)
    content = b"1 2 9 9 3 9 9 9 7\n4 5 9 9 6 9 9 9 8\n" if encoding == "ascii" else table.tobytes()
    path = tmp_path / "a.pcd"
    path.write_bytes(header.encode() + content)
    scan = read_scan(path)
    assert scan.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert scan.labels.tolist() == [7, 8]
    assert not scan.fields
    if encoding == "binary":  # as writers leave it that mean one element
        path.write_bytes(header.encode() + content + bytes(10))
        with pytest.raises(ValueError, match="a COUNT of 0 makes 40 bytes of 2 points, 50 follow"):
            read_scan(path)


def test_version_5(tmp_path):
    header = "# .PCD v.5\nVERSION .5\nCOLUMNS x y z rgb\nPOINTS 1\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(header + "1 2 3 nan\n")
    scan = read_scan(tmp_path / "a.pcd")
    assert scan.points.tolist() == [[1, 2, 3]]
    assert scan.fields["color"].tolist() == [[0, 0, 0]]  # not the bits of a NaN
    (tmp_path / "a.pcd").write_text("FIELDS x y z\nWIDTH 2\nDATA ascii\n1 2 3\n4 5 6\n")
    assert read_scan(tmp_path / "a.pcd").points.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ("x y z x", "1 2 3 4", "two columns are named 'x'; rename one, or leave it out"),
        ("x y z label", "1 2 3 -1", "'label' holds -1, the header says TYPE U of SIZE 1"),
        ("x y z label", "1 2 3 256", "'label' holds 256, the header says TYPE U of SIZE 1"),
        ("x y z label", "1 2 3 1.5", "'label' holds 1.5, the header says TYPE U of SIZE 1"),
        ("x y z label", "1 2 3 nan", "'label' holds nan, the header says TYPE U of SIZE 1"),
        ("x y z label", "1 2 3 a", "line 8, column 4: 'a' is no number"),
    ],
)
def test_ascii_is_checked(tmp_path, fields, line, message):
    header = f"VERSION 0.7\nFIELDS {fields}\nSIZE 4 4 4 1\nTYPE F F F U\nCOUNT 1 1 1 1\n"
    (tmp_path / "a.pcd").write_text(f"{header}POINTS 1\nDATA ascii\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "a.pcd")


@pytest.mark.parametrize(
    ("more", "left"), [(b"7 8 9\n", "left out 1 lines"), (bytes(25), "left out 25 bytes")]
)
def test_more_than_the_header_says(tmp_path, more, left):
    encoding, first = ("binary", np.arange(3.0, dtype="<f4").tobytes())
    if left.endswith("lines"):
        encoding, first = ("ascii", b"0 1 2\n")
    header = f"VERSION 0.7\nFIELDS x y z\nPOINTS 1\nDATA {encoding}\n"
    (tmp_path / "a.pcd").write_bytes(header.encode() + first + more)
    with pytest.warns(UserWarning, match=rf"a\.pcd: the header says 1 points; {left} behind them"):
        assert read_scan(tmp_path / "a.pcd").points.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(("kind", "value"), [("F", 0xFF8040), ("U", 0xFF8040), ("I", -0x7FC0)])
def test_whole_numbers_in_text_are_packed_colours(tmp_path, kind, value):
    header = f"VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F {kind}\nCOUNT 1 1 1 1\n"
    (tmp_path / "a.pcd").write_text(f"{header}POINTS 1\nDATA ascii\n0 0 0 {value}\n")
    assert read_scan(tmp_path / "a.pcd").fields["color"].tolist() == [[255, 128, 64]]
