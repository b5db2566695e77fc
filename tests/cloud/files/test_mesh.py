from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.files import read_scan, sample_surface

SQUARE = "OFF\n# a unit square of one face\n4 1 0\n0 0 5\n1 0 5\n1 1 5\n0 1 5\n4 0 1 2 3\n"


def test_vertices(data, tmp_path):
    path = data("ply/ballA.off")
    lines = path.read_text().splitlines()[2 : 2 + 1900]
    np.testing.assert_array_equal(read_scan(path).points, np.loadtxt(lines))


def test_counts_behind_the_word(tmp_path):
    (tmp_path / "a.off").write_text("OFF3 1 0\n0 0 0\n1 0 0\n0 2 0\n3 0 1 2\n")  # as in ModelNet
    assert read_scan(tmp_path / "a.off").points.tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0]]


@pytest.mark.parametrize(
    ("head", "rest", "field", "expected"),
    [
        ("OFF # a triangle", ("", "", ""), None, None),
        ("\ufeffoff", ("", "", ""), None, None),
        ("  # of someone\nOFF", (" # a", "", ""), None, None),
        ("NOFF", (" 0 0 1", " 0 1 0", " 1 0 0"), "normal", [[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
        ("COFF", (" 9 8 7 6", " 0 0 0 6", " 1 1 1 6"), "color", [[9, 8, 7], [0, 0, 0], [1, 1, 1]]),
        (
            "COFF",
            (" 1. 0 0 1", " 0 0 0 1", " 0 0 .2 1"),
            "color",
            [[255, 0, 0], [0] * 3, [0, 0, 51]],
        ),
    ],
)
def test_kinds_of_off(tmp_path, head, rest, field, expected):
    lines = [a + b for a, b in zip(("0 0 0", "1 0 0", "0 2 0"), rest, strict=True)]
    path = tmp_path / "a.off"
    path.write_text(
        "\r\n".join([head, "3 1 0", *lines, "3 0 1 2", ""]), encoding="utf-8", newline=""
    )
    scan = read_scan(path)
    assert scan.points.tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0]]
    assert scan.fields.keys() == ({field} if field else set())
    if field:
        assert scan.fields[field].tolist() == expected
    assert len(sample_surface(path, 5)) == 5


def test_sampling_is_even_and_on_the_surface(tmp_path):
    (tmp_path / "a.off").write_text(SQUARE)
    scan = sample_surface(tmp_path / "a.off", 4000, seed=1)
    assert (len(scan), scan.name, scan.source) == (4000, "a", tmp_path / "a.off")
    assert (scan.points[:, 2] == 5).all()
    counts, _, _ = np.histogram2d(scan.points[:, 0], scan.points[:, 1], bins=2, range=[[0, 1]] * 2)
    assert abs(counts - 1000).max() < 5 * np.sqrt(750)  # five standard deviations
    np.testing.assert_array_equal(scan.fields["normal"], np.float32([[0, 0, 1]] * 4000))


def test_a_seed_repeats(tmp_path):
    (tmp_path / "a.off").write_text(SQUARE)
    one, same, other = (sample_surface(tmp_path / "a.off", 9, seed=s).points for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_sampling_a_real_ply(data):
    scan = sample_surface(data("ply/suzanne.ply"), 500)
    vertices = read_scan(data("ply/suzanne.ply")).points
    assert (scan.points >= vertices.min(axis=0) - 1e-9).all()
    assert (scan.points <= vertices.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("4OFF\n1 0 0\n0 0 0 1\n", "4OFF has points of another space than x, y, z"),
        ("COFF\n1 0 0\n0 0 0\n", "COFF has 6 numbers a vertex, the lines have 3"),
        ("OFF\n2 0 0\n0 0 0\n0 0\n", "line 4 has 2 columns, the first of the points has 3"),
        ("hello\n", "not an OFF file: its first line does not say OFF"),
        ("OFF\nmany\n", "an OFF file begins with its counts, got 'many'"),
        (SQUARE.rpartition("4 0")[0], "the header says 4 vertices and 1 faces, 4 lines follow"),
        ("OFF\n1000000000000 0 0\n0 0 0\n", "truncated: the header says 1000000000000 vertices"),
    ],
)
def test_broken(tmp_path, content, message):
    (tmp_path / "a.off").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.off: .*{message}"):
        read_scan(tmp_path / "a.off")


def test_what_cannot_be_sampled(tmp_path):
    path = tmp_path / "a.off"
    path.write_text("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n")
    with pytest.raises(ValueError, match=r"a\.off: has no faces to sample; read its points"):
        sample_surface(path, 5)
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n")
    with pytest.raises(ValueError, match="has faces without any area"):
        sample_surface(path, 5)
    with pytest.raises(ValueError, match="sample_surface: n must be 1 or more, got 0"):
        sample_surface(path, 0)
    with pytest.raises(ValueError, match=r"surfaces are sampled from \.off and \.ply, not '\.las'"):
        sample_surface(tmp_path / "a.las", 5)
    with pytest.raises(FileNotFoundError, match=r"b\.off: no such file"):
        sample_surface(tmp_path / "b.off", 5)


@pytest.mark.parametrize("form", ["ascii", "binary_big_endian"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_surfaces_of_ply_with_any_line_ends(tmp_path, form, end):
    lines = ["ply", f"format {form} 1.0", "comment Größe", "element vertex 4"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header", ""]
    corners = np.array([[0, 0, 5], [1, 0, 5], [1, 1, 5], [0, 1, 5]], ">f4")
    body = corners.tobytes() + b"\4" + np.arange(4, dtype=">i4").tobytes()
    if form == "ascii":
        rows = [" ".join(map(str, row)) for row in corners.astype(int).tolist()]
        body = end.join([*rows, "4 0 1 2 3", ""]).encode()
    (tmp_path / "a.ply").write_bytes(end.join(lines).encode("latin-1") + body)
    points = sample_surface(tmp_path / "a.ply", 100).points
    assert (points[:, 2] == 5).all()
    assert np.ptp(points[:, :2], axis=0) == pytest.approx(1, abs=0.2)
