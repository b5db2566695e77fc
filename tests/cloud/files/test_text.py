from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.files import read_scan


def read(tmp_path, content, name="a.xyz"):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return read_scan(tmp_path / name)


def test_real_files(data):
    agisoft = read_scan(data("xyz/points_agisoft.xyz"))
    assert agisoft.points[0].tolist() == [665187.522077, 5648349.895035, 241.767693]
    assert agisoft.fields.keys() == {"color"}
    assert agisoft.fields["color"][0].tolist() == [117, 73, 49]
    compare = read_scan(data("xyz/points_cloudcompare.xyz"))
    np.testing.assert_array_equal(compare.points[:100], agisoft.points)
    np.testing.assert_array_equal(compare.fields["color"][:100], agisoft.fields["color"])
    assert (compare.fields["alpha"] == 255).all()


@pytest.mark.parametrize(
    "content",
    [
        "1 2 3 9\n4 5 6 8\n",
        "1\t2\t3\t9\n4\t5\t6\t8",
        "1,2,3,9\n4,5,6,8\n",
        "1, 2, 3, 9\n4, 5, 6, 8\n",
        "1;2;3;9\n4;5;6;8\n",
        "1,0;2,0;3,0;9,0\n4,0;5,0;6,0;8,0\n",
        "# a comment\n// another\n\n  1  2  3  9\n# between\n4 5 6 8\n",
        "\ufeffx,y,z,intensity\n1,2,3,9\n4,5,6,8\n",
        '"X","Y","Z","Intensity"\n1,2,3,9\n4,5,6,8\n',
        "//X Y Z Scalar_Intensity\n1 2 3 9\n4 5 6 8\n",
        "// x y z of the old survey\n1 2 3 9\n4 5 6 8\n",
        "intensity z y x\n9 3 2 1\n8 6 5 4\n",
        "2\n1 2 3 9\n4 5 6 8\n",
    ],
)
def test_separators_and_headers(tmp_path, content):
    scan = read(tmp_path, content)
    assert scan.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert scan.fields.keys() == {"intensity"}
    assert scan.fields["intensity"].tolist() == [9, 8]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("1 2 3", set()),
        ("1 2 3 0.5 7", {"intensity", "feature0"}),
        ("1 2 3 10 20 30", {"color"}),
        ("1 2 3 0.6 0.8 0", {"normal"}),
        ("1 2 3 0 0 1", {"normal"}),
        ("1 2 3 0.5 0.5 0.5", {"intensity", "feature0", "feature1"}),
        ("1 2 3 -1200 10 20 30", {"intensity", "color"}),
        ("1 2 3 10 20 30 0.6 0.8 0", {"color", "normal"}),
        ("1 2 3 0.6 0.8 0 10 20 30", {"color", "normal"}),
        ("1 2 3 10 20 30 4", {"color", "feature0"}),
        ("1 2 3 10 20 30 255", {"color", "alpha"}),
    ],
)
def test_columns_without_names(tmp_path, line, fields):
    scan = read(tmp_path, f"{line}\n{line}\n")
    assert scan.fields.keys() == fields
    if "color" in fields:
        assert scan.fields["color"].tolist() == [[10, 20, 30]] * 2
    if "normal" in fields:
        np.testing.assert_allclose(np.linalg.norm(scan.fields["normal"], axis=1), 1)


def test_labels_need_a_name(tmp_path):
    assert read(tmp_path, "1 2 3 0.5 4\n").labels is None
    assert read(tmp_path, "x y z label\n1 2 3 4\n").labels.tolist() == [4]
    assert read(tmp_path, "x;y;z;Classification\n1;2;3;4\n", "a.csv").labels.tolist() == [4]


def test_a_header_without_points_is_an_empty_cloud(tmp_path):
    assert len(read(tmp_path, "x y z\n")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# nothing\n", "holds no points"),
        ("\n\n", "holds no points"),
        ("1 2\n", r"no columns x, y, z \(it has: x, y\)"),
        ("a b c\n1 2 3\n", r"no columns x, y, z \(it has: a, b, c\)"),
        ("1 2 3\n1 2\n", "the number of columns changed from 3 to 2 at row 2$"),
        ("1 2 3\n1 x 3\n", "could not convert string 'x' to float64 at row 1, column 2"),
        ("x y z\nfoo bar baz\n", "a point is numbers, got 'foo bar baz'"),
        ("x y z intensity\n1 2 3\n", "the header names 4 columns, the lines have 3"),
        ("3\n1 2 3\n1 2 3\n", "truncated: its first line says 3 points, 2 follow"),
        (
            "1 2 3\n4 nan 6\n",
            r"a has 1 points without finite .* first at index 1: \[4.0, nan, 6.0\]",
        ),
        ("1 2 3\n4 5 inf\n", "first at index 1"),
    ],
)
def test_what_is_not_points_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"a\.xyz: {message}|a\.xyz: .*{message}"):
        read(tmp_path, content)
