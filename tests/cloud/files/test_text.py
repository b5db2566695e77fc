from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.files import columns, read_scan


def read(tmp_path, content, name="a.xyz"):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return read_scan(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*no header")
def test_real_files(data):
    agisoft = read_scan(data("xyz/points_agisoft.xyz"))
    assert agisoft.points[0].tolist() == [665187.522077, 5648349.895035, 241.767693]
    assert agisoft.fields.keys() == {"color"}
    assert agisoft.fields["color"][0].tolist() == [117, 73, 49]
    compare = read_scan(data("xyz/points_cloudcompare.xyz"))
    np.testing.assert_array_equal(compare.points[:100], agisoft.points)
    np.testing.assert_array_equal(compare.fields["color"][:100], agisoft.fields["color"])
    assert (compare.fields["alpha"] == 255).all()


@pytest.mark.filterwarnings("ignore:.*no header")
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


@pytest.mark.filterwarnings("ignore:.*no header")
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
        ("1 2 3 10 20 30 4000", {"color", "feature0"}),
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


@pytest.mark.filterwarnings("ignore:.*no header")
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
        ("1 2 3\n1 2\n", "line 2 has 2 columns, the first of the points has 3$"),
        ("1,2,3\n# note\n\n4,5\n", "line 4 has 2 columns, the first of the points has 3$"),
        ("1 2 3\n# note\n\n4 5 6 7\n", "line 4 has 4 columns, the first of the points has 3$"),
        ("1 2 3\n1 x 3\n", "line 2, column 2: 'x' is no number$"),
        ("1 2 3\n// note\n1 2 0x10\n", "line 3, column 3: '0x10' is no number$"),
        ("1 2 3\n1 2 1_0\n", "line 2, column 3: '1_0' is no number$"),
        ("x y z i\n1 2 3 4\n1 2 3 four\n", "line 3, column 4: 'four' is no number$"),
        ("1,5;2,5;3\n1.5;2;3\n", "line 2, column 1: '1.5' is no number where commas are decimal"),
        ('"1,234.5";2;3\n', "line 1, column 1: '1,234.5' is no number; nothing may stand between"),
        ("1,234 5,678 9,012\n", "two readings fit: '1,234' is 1.234 or 1234; write decimal points"),
        ('1 2 "3\n4 5 6\n', "line 1 opens a quote that nothing closes"),
        ("x,y,z,x\n1,2,3,4\n", "two columns are named 'x'; rename one"),
        ("X,Y,Z,x\n1,2,3,4\n", "two columns are named 'X' and 'x'; rename one"),
        ("x,y,z,a,a\n1,2,3,4,5\n", "two columns are named 'a'; rename one"),
        ("4\n7\n1\n", "is no table of points: its first lines hold a number each, .* PTX"),
        ("1 2 3\0\n", "is no text: it has bytes that are 0"),
        ("1" * 2**20 + " 2 3\n", "line 1 is longer than 1,048,576 characters"),
        ("x y z\nfoo bar baz\n", "a point is numbers, got 'foo bar baz'"),
        ("x y z intensity\n1 2 3\n", "the header names 4 columns, the lines have 3"),
        ("3\n1 2 3\n1 2 3\n", "truncated: its first line says 3 points, 2 follow"),
        ("3\n", "truncated: its first line says 3 points, 0 follow"),
        ("1\n1 2 3\n1 2 3\n", "its first line says 1 points, and more follow"),
        ("1\n1 2 3\n2\n1 2 3\n", "truncated: its next count says 2 points, 1 follow"),
    ],
)
def test_what_is_not_points_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"a\.xyz: {message}|a\.xyz: .*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        '"x" "y" "z" "i"\n"1" 1 2.5 3 4\n"2" 5 6 7 8\n',  # R's write.table
        '"","x","y","z","i"\n"a",1,2.5,3,4\n"b",5,6,7,8\n',  # write.csv
        ",x,y,z,i\n0,1,2.5,3,4\n1,5,6,7,8\n",  # pandas
        ";x;y;z;i\n0;1;2,5;3;4\n1;5;6;7;8\n",
        "x,y,z,i,\n1,2.5,3,4,\n5,6,7,8,\n",
        "x,y,z,i\n1,2.5,3,4,\n5,6,7,8,\n",
        "x;y;z;i;\n1;2.5;3;4\n5;6;7;8\n",
        "x\ty\tz\ti\n1\t2,5\t3\t4\n5\t6\t7\t8\n",
        "x y z i\n1 2,5 3 4\n5 6 7 8\n",
        "x y z i\n1.0D+00 25.0d-1 3 4\n5 6 0.7D1 8\n",
        "x y z i\n1 \t2.5 3\t4\n\t5 6\t 7 8 \n",
        "X [m],Y [m],Z [m],i\n1,2.5,3,4\n5,6,7,8\n",
        "X [m] Y [m] Z [m] i\n1 2.5 3 4\n5 6 7 8\n",
        "x(m)\ty (m)\tz(m)\ti\n1\t2.5\t3\t4\n5\t6\t7\t8\n",
        "x,y,z,i\nm,m,m,-\n1,2.5,3,4\n5,6,7,8\n",
        "Exported on a Monday\n\nx y z i\n1 2.5 3 4\n5 6 7 8\n",
        "% x y z of a survey\n; x y z i\n1 2.5 3 4\n; between\n5 6 7 8\n",
        "//X Y Z i\n2\n1 2.5 3 4\n// between\n5 6 7 8 # behind\n",
        "'x';'y';'z';'i'\r\n'1';'2.5';'3';'4'\r\n'5';'6';'7';'8'",
    ],
)
def test_as_other_programs_write_it(tmp_path, content):
    scan = read(tmp_path, content)
    assert scan.points.tolist() == [[1, 2.5, 3], [5, 6, 7]]
    assert {name: values.tolist() for name, values in scan.fields.items()} == {"i": [4, 8]}


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
def test_encodings(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("x,y,z,Höhe\r\n1,2,3,4\r\n5,6,7,8\r\n".encode(encoding))
    scan = read_scan(tmp_path / "a.csv")
    assert scan.points.tolist() == [[1, 2, 3], [5, 6, 7]]
    # Without a mark, UTF-16 is known by its zeros, which this letter still has.
    assert scan.fields["Höhe"].tolist() == [4, 8]


def test_empty_cells_and_words_for_nan(tmp_path):
    scan = read(tmp_path, "x,y,z,i\n1,2,3,\n4,5,6,NA\n7,8,9,-1.#IND\n1,1,1,-nan(ind)\n2,2,2,5\n")
    np.testing.assert_array_equal(scan.fields["i"], [np.nan] * 4 + [5])


def test_numbers_are_exact(tmp_path):
    random = np.random.default_rng(0)
    points = random.normal(size=(200, 3)) * 10.0 ** random.integers(-300, 300, (200, 3))
    stamps = [2**63 - 1, 2**53 + 1, -(2**53) - 1] * 66 + [1, 2]
    rows = zip(points.tolist(), stamps, strict=True)
    lines = [f"{x!r} {y!r} {z!r} {stamp} {2**64 - 1}" for (x, y, z), stamp in rows]
    scan = read(tmp_path, "x y z stamp largest\n" + "\n".join(lines))
    np.testing.assert_array_equal(scan.points, points)
    assert scan.fields["stamp"].tolist() == stamps
    assert scan.fields["largest"].tolist() == [2**64 - 1] * 200


def test_in_pieces(tmp_path, monkeypatch):
    """Types differ from piece to piece, and a short row is in the last."""
    monkeypatch.setattr("pointwise.cloud.files.tables._CELLS_AT_ONCE", 15)
    lines = [
        f"{i} {i + 0.5} 0 {2**63 + i if i > 7 else i} {0.5 if i == 9 else i}" for i in range(10)
    ]
    scan = read(tmp_path, "x y z big half\n" + "\n".join(lines))
    assert scan.points[:, 0].tolist() == list(range(10))
    assert scan.fields["big"].tolist() == [*range(8), 2**63 + 8, 2**63 + 9]
    assert scan.fields["half"].tolist() == [*range(9), 0.5]
    with pytest.raises(ValueError, match="line 11 has 1 columns, the first of the points has 5"):
        read(tmp_path, "\n".join([*lines, "1"]))


def test_columns_of_words_are_left_out(tmp_path):
    with pytest.warns(UserWarning, match=r"a\.xyz: left out column 'kind', .* words such as 'a;b'"):
        scan = read(tmp_path, 'x;y;z;kind\n1;2;3;"a;b"\n4;5;6;c\n')
    assert scan.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not scan.fields


WHOLE = "1 2 3 100 10 20 30\n4 5 6 200 40 50 60\n"


@pytest.mark.parametrize("content", [WHOLE, "2\n" + WHOLE])
def test_pts_says_what_its_columns_are(tmp_path, content, recwarn):
    scan = read(tmp_path, content, "a.pts")
    assert scan.fields["intensity"].tolist() == [100, 200]
    assert scan.fields["color"].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert not recwarn


def test_several_scans_of_pts(tmp_path):
    content = "2\r\n1 2 3 7\r\n4 5 6 8\r\n1\r\n7 8 9 9\r\n"
    scan = read(tmp_path, content, "a.pts")
    assert scan.points.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert scan.fields["intensity"].tolist() == [7, 8, 9]
    assert scan.fields["scan"].tolist() == [0, 0, 1]


def test_lines_of_pts_are_counted_through_the_scans(tmp_path):
    begin = "1\n1 2 3 7\n2\n4 5 6 nan\n"
    assert len(read(tmp_path, begin + "7 8 9 nan\n", "a.pts")) == 3
    with pytest.raises(ValueError, match="line 5 has 3 columns, the first of the points has 4"):
        read(tmp_path, begin + "7 8 9\n", "a.pts")
    with pytest.raises(ValueError, match="line 5, column 2: 'x' is no number"):
        read(tmp_path, begin + "7 x 9 1\n", "a.pts")


def test_scans_of_pts_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("pointwise.cloud.files.text._MOST_SCANS", 2)
    with pytest.raises(ValueError, match="has more than 2 scans, each with a count of points"):
        read(tmp_path, "1\n1 2 3\n" * 3, "a.pts")


def test_where_two_readings_fit_neither_is_taken(tmp_path):
    both = "'x y z red green blue feature0' and 'x y z intensity red green blue'"
    with pytest.raises(ValueError, match=rf"a\.txt: two readings of its columns fit, {both}"):
        read(tmp_path, WHOLE, "a.txt")
    (tmp_path / "a.txt").write_text(WHOLE)
    scan = read_scan(tmp_path / "a.txt", columns="x y z intensity r g b")
    assert scan.fields["color"].tolist() == [[10, 20, 30], [40, 50, 60]]
    scan = read_scan(tmp_path / "a.txt", columns=["x", "y", "z", "r", "g", "b", "label"])
    assert scan.labels.tolist() == [30, 60]
    (tmp_path / "a.txt").write_text(WHOLE.replace(" ", ";").replace("\n", ";\n"))
    scan = read_scan(tmp_path / "a.txt", columns="_,y,x,z,_,_,label")
    assert (scan.points.tolist(), scan.fields) == ([[3, 2, 100], [6, 5, 200]], {})


def test_what_is_assumed_is_said(tmp_path, recwarn):
    with pytest.warns(UserWarning, match=r"\*\.xyz: no header, .* for x y z intensity feature0;"):
        read(tmp_path, "1 2 3 0.5 7\n")
    read(tmp_path, "1 2 3\n")
    assert not recwarn


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("x y z", "columns names 3 columns, the lines have 7"),
        ("x y z a b c c", "two columns are named 'c'"),
        ("x y w a b c d", "columns must name x, y and z, got 'x y w a b c d'"),
    ],
)
def test_columns_are_checked(tmp_path, columns, message):
    (tmp_path / "a.txt").write_text(WHOLE)
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "a.txt", columns=columns)


def test_columns_must_be_names(tmp_path):
    (tmp_path / "a.txt").write_text(WHOLE)
    with pytest.raises(TypeError, match=r"columns must be names such as .*, got \[0, 1, 2\]"):
        read_scan(tmp_path / "a.txt", columns=[0, 1, 2])


def test_xyzrgb_and_xyzn(tmp_path):
    scan = read(tmp_path, "1 2 3 0.5 0 1\n4 5 6 0 0 0\n", "a.xyzrgb")
    assert scan.fields["color"].tolist() == [[128, 0, 255], [0, 0, 0]]
    assert read(tmp_path, "1 2 3 0 1 0\n", "a.xyzrgb").fields["color"].tolist() == [[0, 255, 0]]
    scan = read(tmp_path, "1 2 3 0.1 0 2\n", "a.xyzn")
    np.testing.assert_array_equal(scan.fields["normal"], np.float32([[0.1, 0, 2]]))
    with pytest.warns(UserWarning, match="colours of .xyzrgb are 0 to 1, but some are more"):
        scan = read(tmp_path, "1 2 3 10 0 1\n", "a.xyzrgb")
    assert scan.fields["color"].tolist() == [[10, 0, 1]]
    with pytest.raises(ValueError, match=r"\.xyzn is x y z nx ny nz, the lines have 4 columns"):
        read(tmp_path, "1 2 3 4\n", "a.xyzn")


@pytest.mark.filterwarnings("ignore:.*no header")
def test_many_columns_take_time_in_proportion(tmp_path, monkeypatch):
    """Counted, not timed: a name is looked at a bounded number of times."""
    calls = 0
    plain = columns._plain

    def counted(name):
        nonlocal calls
        calls += 1
        return plain(name)

    monkeypatch.setattr(columns, "_plain", counted)
    scan = read(tmp_path, " ".join(map(str, range(5_000))) + "\n")
    assert len(scan.fields) == 4_997
    assert calls < 100 * 5_000


def test_one_of_two_columns_is_said(tmp_path):
    with pytest.warns(UserWarning, match="the labels are column 'label'; 'class', which could be"):
        scan = read(tmp_path, "x y z class label\n1 2 3 4 500\n1 2 4 5 600\n")
    assert scan.labels.tolist() == [500, 600]  # Paris-Lille-3D: the objects, not their classes
    assert scan.fields["class"].tolist() == [4, 5]
    with pytest.warns(UserWarning, match="the labels are column 'label'; 'Label', which could be"):
        assert read(tmp_path, "x y z Label label\n1 2 3 4 5\n").labels.tolist() == [5]
    with pytest.warns(UserWarning, match="intensity is column 'intensity'; 'Intensity' stays a"):
        scan = read(tmp_path, "x y z Intensity intensity\n1 2 3 4 5\n")
    assert (scan.fields["intensity"], scan.fields["Intensity"]) == ([5], [4])


def test_numbers_of_columns_are_no_point_in_silence(tmp_path):
    with pytest.raises(ValueError, match="no columns x, y, z"):
        read(tmp_path, ",0,1,2\n0,7.5,8,9\n1,7.5,8,9\n", "a.csv")  # pandas, of an array
    with pytest.warns(UserWarning, match="line 1 numbers the columns, as headers of pandas do"):
        scan = read(tmp_path, "0,1,2\n7.5,8,9\n", "a.csv")
    assert scan.points.tolist() == [[0, 1, 2], [7.5, 8, 9]]


def test_decimal_commas_in_quotes(tmp_path):
    scan = read(tmp_path, 'x,y,z,label\n"1,5","2,25",3,1\n"4,5",5,"6,5",2\n', "a.csv")
    assert scan.points.tolist() == [[1.5, 2.25, 3], [4.5, 5, 6.5]]
    assert scan.labels.tolist() == [1, 2]
