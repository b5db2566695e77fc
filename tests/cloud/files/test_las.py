from __future__ import annotations

import os
import signal
import struct

import laspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointwise.cloud.files import check_labels, read_scan, write_labels, write_scan
from pointwise.cloud.files.las import linear_unit
from pointwise.cloud.scan import UNLABELLED, Scan

FILES = [
    "4_6_crop.las",
    "autzen_trim.laz",
    "extrabytes.las",
    "interesting.las",
    "sample_8_classes.las",
    "simple.copc.laz",
    "simple.las",
    "simple.laz",
    "simple1_3.las",
    "test1_4.las",
    "town_6_classes.las",
]
HEADER = ("scales", "offsets", "uuid", "system_identifier", "generating_software")


def dimensions(path, without=("classification",)):
    las = laspy.read(path)
    return {n: np.array(las[n]) for n in las.point_format.dimension_names if n not in without}


def assert_same_dimensions(a, b):
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


@pytest.mark.parametrize("name", FILES)
def test_reads_what_laspy_reads(data, name):
    path = data(f"las/{name}")
    las, scan = laspy.read(path), read_scan(path)
    np.testing.assert_array_equal(scan.points, np.array(las.xyz))
    np.testing.assert_array_equal(scan.fields["intensity"], np.array(las.intensity))
    codes = np.array(las.classification)
    np.testing.assert_array_equal(scan.labels == UNLABELLED, codes <= 1)
    np.testing.assert_array_equal(scan.labels[codes > 1], codes[codes > 1])
    assert set(codes[codes > 1].tolist()) <= scan.classes.keys()
    assert scan.source == path


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("name", FILES)
def test_labels_are_written_and_everything_else_stays(data, tmp_path, name, suffix):
    path, out = data(f"las/{name}"), tmp_path / f"out{suffix}"
    scan = read_scan(path)
    labels = np.random.default_rng(0).integers(-1, 31, len(scan))
    labels[labels < 2] = UNLABELLED
    write_labels(scan, labels, out)

    np.testing.assert_array_equal(read_scan(out).labels, labels)
    assert_same_dimensions(dimensions(path), dimensions(out))
    before, after = laspy.read(path), laspy.read(out)
    assert after.header.point_format == before.header.point_format
    for attribute in HEADER:
        np.testing.assert_array_equal(
            getattr(after.header, attribute), getattr(before.header, attribute), err_msg=attribute
        )
    assert before.header.creation_date in (None, after.header.creation_date)
    assert after.header.global_encoding.value == before.header.global_encoding.value
    for one, other in ((before.header.vlrs, after.header.vlrs), (before.evlrs, after.evlrs)):
        kept = [v for v in one or [] if v.user_id != "copc"]
        assert [v.record_id for v in kept] == [v.record_id for v in other or []]
        for v, w in zip(kept, other or [], strict=True):
            if v.record_id != 4:  # extra bytes, whose own bounds laspy computes anew
                assert v.record_data_bytes() == w.record_data_bytes()


def test_an_uncompressed_file_differs_in_the_class_bits_alone(data, tmp_path):
    path, out = data("las/simple1_3.las"), tmp_path / "out.las"  # with waveforms, which laspy drops
    write_labels(read_scan(path), np.full(999, 6), out)
    before, after = (np.frombuffer(p.read_bytes(), np.uint8) for p in (path, out))
    assert len(before) == len(after)
    header = laspy.open(path).header
    bodies = [
        b[header.offset_to_point_data :][: 999 * header.point_format.size].reshape(999, -1)
        for b in (before, after)
    ]
    assert set(np.flatnonzero((bodies[0] != bodies[1]).any(axis=0))) == {15}
    assert ((bodies[1][:, 15] & 31) == 6).all()
    assert (bodies[0][:, 15] >> 5 == bodies[1][:, 15] >> 5).all()
    assert (before != after).sum() == (bodies[0] != bodies[1]).sum()


@pytest.mark.parametrize("name", ["simple.las", "simple1_3.las", "extrabytes.las", "simple.laz"])
def test_a_class_above_31_moves_to_the_larger_point_format(data, tmp_path, name):
    path, out = data(f"las/{name}"), tmp_path / f"out{path_suffix(name)}"
    scan = read_scan(path)
    write_labels(scan, np.full(len(scan), 200), out)
    las = laspy.read(out)
    assert las.point_format.id == {3: 7, 4: 9}[laspy.open(path).header.point_format.id]
    assert (np.array(las.classification) == 200).all()
    before, after = dimensions(path), dimensions(out)
    angles = before.pop("scan_angle_rank")
    assert_same_dimensions(before, {n: after[n] for n in before})
    np.testing.assert_allclose(after["scan_angle"] * 0.006, angles, atol=0.003)


def path_suffix(name):
    return name[name.rindex(".") :]


def test_a_file_can_be_labelled_in_place(data, tmp_path):
    path = tmp_path / "here.las"
    path.write_bytes(data("las/simple.las").read_bytes())
    scan = read_scan(path)
    write_labels(scan, np.full(len(scan), 9), path)
    assert (read_scan(path).labels == 9).all()


def test_class_names_travel_in_the_classification_lookup(data, tmp_path, scan):
    write_scan(scan, tmp_path / "a.laz")
    classes = read_scan(tmp_path / "a.laz").classes
    assert classes[2] == "ground"
    assert classes[3] == "shrub"
    assert classes[29] == "street lamp"
    town = read_scan(data("las/town_6_classes.las"))
    town.classes = {40: "fence"}
    write_labels(town, np.full(len(town), 40), tmp_path / "b.las")
    assert read_scan(tmp_path / "b.las").classes[40] == "fence"


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_writes_every_field(tmp_path, scan, suffix):
    write_scan(scan, tmp_path / f"a{suffix}")
    back = read_scan(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(back.points, scan.points, atol=0.0005, rtol=0)
    np.testing.assert_array_equal(back.labels, scan.labels)
    for name, values in scan.fields.items():
        np.testing.assert_array_equal(back.fields[name], values, err_msg=name)
        assert back.fields[name].dtype == values.dtype


coordinates = st.floats(-1e7, 1e7)


@settings(max_examples=40, deadline=None)
@given(
    points=arrays.arrays(
        np.float64, st.tuples(st.integers(0, 20), st.just(3)), elements=coordinates
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_roundtrip(tmp_path_factory, points, seed):
    random = np.random.default_rng(seed)
    n = len(points)
    scan = Scan(
        points,
        fields={
            "intensity": random.choice([random.random(n), random.integers(0, 65536, n)]).astype(
                "f4"
            ),
            "color": random.integers(0, 256, (n, 3), dtype=np.uint8),
            "mass": random.normal(size=n),
            "number": random.integers(-(2**40), 2**40, n),
        },
        labels=random.choice([UNLABELLED, *range(2, 256)], n),
    )
    path = tmp_path_factory.mktemp("las") / "a.laz"
    write_scan(scan, path)
    back = read_scan(path)
    extent = np.ptp(points, axis=0).max() if len(points) else 0
    # Half a step of a 32-bit grid, or half a millimetre if coarser, and float64's rounding.
    tolerance = max(5 * extent / 2**32, min(5e-4, extent / 1e6)) + 4e-9
    np.testing.assert_allclose(back.points, points, atol=tolerance, rtol=0)
    np.testing.assert_array_equal(back.labels, scan.labels)
    for name, values in scan.fields.items():
        np.testing.assert_array_equal(back.fields[name], values, err_msg=name)


def test_colours_of_eight_and_sixteen_bits_read_alike(tmp_path):
    for scale in (1, 256, 257):
        las = laspy.create(point_format=2)
        las.x = las.y = las.z = np.arange(3.0)
        las.red = np.array([0, 100, 255]) * scale
        las.write(tmp_path / "a.las")
        red = read_scan(tmp_path / "a.las").fields["color"][:, 0]
        assert red.tolist() == [0, 100, 255]


def test_scaled_extra_bytes_are_read_in_their_unit(tmp_path):
    las = laspy.create(point_format=6)
    las.add_extra_dim(laspy.ExtraBytesParams("height", "i4", offsets=[10], scales=[0.5]))
    las.x = las.y = las.z = np.arange(2.0)
    las.height = [10.5, 20.0]
    las.write(tmp_path / "a.las")
    assert read_scan(tmp_path / "a.las").fields["height"].tolist() == [10.5, 20.0]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("town_6_classes.las", "US ft"),
        ("autzen_trim.laz", "ft"),
        ("simple.copc.laz", "m"),
        ("interesting.las", "ft"),
        ("simple.las", None),
    ],
)
def test_the_unit_is_read_from_the_coordinate_system(data, name, unit):
    assert linear_unit(data(f"las/{name}")) == unit


def test_a_changed_cloud_is_written_as_it_is_with_a_warning(data, tmp_path):
    scan = read_scan(data("las/simple.las"))
    half = scan.select(np.arange(500))
    with pytest.warns(UserWarning, match="is not what .*simple.las holds now"):
        write_labels(half, np.full(500, 5), tmp_path / "half.las")
    back = read_scan(tmp_path / "half.las")
    np.testing.assert_allclose(back.points, half.points, atol=0.0005, rtol=0)
    np.testing.assert_array_equal(back.fields["color"], half.fields["color"])
    assert (back.labels == 5).all()


def test_codes_that_las_takes_for_unclassified_give_a_warning(tmp_path):
    scan = Scan(np.zeros((3, 3)), labels=np.array([0, 1, 2]))
    with pytest.warns(UserWarning, match="class codes 0 and 1 mean unclassified in LAS"):
        write_scan(scan, tmp_path / "a.las")
    assert read_scan(tmp_path / "a.las").labels.tolist() == [UNLABELLED, UNLABELLED, 2]


def test_what_las_cannot_hold_is_refused(data, tmp_path, scan):
    town = read_scan(data("las/town_6_classes.las"))
    with pytest.raises(ValueError, match=r"a\.las: LAS holds class codes 0 to 255, got 256"):
        write_labels(town, np.full(len(town), 256), tmp_path / "a.las")
    with pytest.raises(ValueError, match="LAS holds class codes 0 to 255, got -2"):
        write_labels(town, np.full(len(town), -2), tmp_path / "a.las")
    with pytest.raises(ValueError, match=r"COPC is read but not written; name the file \.laz"):
        write_labels(town, town.labels, tmp_path / "a.copc.laz")
    scan.fields = {"a" * 33: np.zeros(50)}
    with pytest.raises(ValueError, match="field names of 32 bytes, got 'aaa"):
        write_scan(scan, tmp_path / "a.las")
    assert list(tmp_path.iterdir()) == []


def test_headers_that_say_too_much(data, tmp_path):
    """Each of these would make a library reserve all memory or read for hours."""
    las, laz = data("las/simple.las").read_bytes(), data("las/simple.laz").read_bytes()
    path = tmp_path / "a.laz"
    billions = b"\xff\xff\xff\x7e"

    path.write_bytes(las[:100] + billions + las[104:])
    with pytest.raises(ValueError, match="damaged: the header says 2130706431 VLRs and 0 EVLRs"):
        read_scan(path)
    path.write_bytes(las[:107] + billions + las[111:])
    with pytest.raises(ValueError, match=r"truncated: the header says 2130706431 points, .* 1065"):
        read_scan(path)
    path.write_bytes(laz[:107] + billions + laz[111:])
    with pytest.raises(ValueError, match=r"truncated: the header says 2130706431 points, .* 50000"):
        read_scan(path)
    chunk_size = laz.index(b"laszip encoded") + 16 + 36 + 12
    path.write_bytes(laz[:chunk_size] + billions + laz[chunk_size + 4 :])
    with pytest.raises(ValueError, match="damaged: a LAZ chunk says 2130706431 points"):
        read_scan(path)
    points = laspy.open(data("las/simple.laz")).header.offset_to_point_data
    table = int.from_bytes(laz[points : points + 8], "little")
    path.write_bytes(laz[: table + 4] + billions + laz[table + 8 :])
    with pytest.raises(ValueError, match="damaged: its chunk table says 2130706431 chunks"):
        read_scan(path)
    path.write_bytes(laz[: table // 2])
    with pytest.raises(ValueError, match=r"a\.laz: not a readable LAZ file"):
        read_scan(path)


@pytest.mark.parametrize("keep", [0.9, 0.5])
def test_truncated(data, tmp_path, keep):
    content = data("las/simple.las").read_bytes()
    (tmp_path / "a.las").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"a\.las: truncated: the header says 1065 points"):
        read_scan(tmp_path / "a.las")


def made(path, point_format, version, n=3, extra=(), **values):
    """A file with its coordinate system in an EVLR where it can have one, else in GeoTIFF keys."""
    las = laspy.create(point_format=point_format, file_version=version)
    las.header.offsets, las.header.scales = [100, 200, 0], [0.01, 0.01, 0.001]
    las.add_extra_dims([laspy.ExtraBytesParams(name, "f4") for name in extra])
    las.x = las.y = las.z = np.arange(n) + 100.0
    for name, value in values.items():
        las[name] = value
    if version == "1.4":
        wkt = laspy.VLR("LASF_Projection", 2112, "wkt", b'PROJCS["somewhere"]\0')
        las.evlrs = laspy.vlrs.vlrlist.VLRList([wkt])
    else:
        keys = struct.pack("<8H", 1, 1, 0, 1, 3076, 0, 1, 9002)
        las.header.vlrs.append(laspy.VLR("LASF_Projection", 34735, "keys", keys))
    las.write(path)
    return path


FORMATS = [(k, "1.4") for k in range(11)] + [(0, "1.1"), (1, "1.2"), (2, "1.2"), (3, "1.3")]


@pytest.mark.filterwarnings("ignore:.*GeoTIFF keys")
@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(("point_format", "version"), FORMATS)
def test_records_stay_where_the_format_changes(tmp_path, point_format, version, suffix):
    if suffix == ".laz" and point_format in (4, 5):
        pytest.skip("lazrs does not compress these point formats")
    path = made(tmp_path / f"in{suffix}", point_format, version, extra=["height"], height=[1, 2, 3])
    scan = read_scan(path)
    for target in (".las", ".laz"):
        out = tmp_path / f"out{target}"
        for codes in ([7, 8, 9], [7, 31, 200]):
            check_labels(scan, codes, out)
            write_labels(scan, np.array(codes), out)
            las = laspy.read(out)
            np.testing.assert_array_equal(las.classification, codes)
            np.testing.assert_array_equal(las.height, [1, 2, 3])
            np.testing.assert_array_equal(las.xyz, scan.points)
            assert las.header.scales.tolist() == [0.01, 0.01, 0.001]
            assert las.header.offsets.tolist() == [100, 200, 0]
            larger = codes[-1] > 31 and point_format < 6
            assert las.point_format.id == (
                {0: 6, 1: 6, 2: 7, 3: 7, 4: 9, 5: 10}[point_format] if larger else point_format
            )
            if version == "1.4":
                assert [v.string for v in las.evlrs] == ['PROJCS["somewhere"]']
                assert las.header.global_encoding.wkt == larger
            else:
                assert linear_unit(out) == "ft"
                assert not las.header.global_encoding.wkt


def test_a_coordinate_system_that_stays_in_geotiff_keys_is_said(tmp_path):
    scan = read_scan(made(tmp_path / "a.las", 3, "1.2"))
    with pytest.warns(UserWarning, match="coordinate system stays in GeoTIFF keys"):
        write_labels(scan, np.array([2, 3, 200]), tmp_path / "b.las")


def test_new_files_say_that_their_coordinate_system_is_wkt(tmp_path, scan):
    write_scan(scan, tmp_path / "a.laz")
    assert laspy.open(tmp_path / "a.laz").header.global_encoding.wkt


def test_an_extra_dimension_with_labels(tmp_path):
    path = made(tmp_path / "a.las", 6, "1.4", extra=["label"], label=[0, 1, 300])
    with pytest.warns(UserWarning, match="labels are those of the extra dimension 'label'"):
        scan = read_scan(path)
    assert scan.labels.tolist() == [0, 1, 300]
    assert scan.classes == {0: "class 0", 1: "class 1", 300: "class 300"}
    write = {"label": [0, 1, 0.5], "classification": [2, 0, 3]}
    path = made(tmp_path / "a.las", 6, "1.4", extra=["label"], **write)
    with pytest.warns(UserWarning, match="its extra dimension 'label' is the field 'extra_label'"):
        scan = read_scan(path)
    assert scan.labels.tolist() == [2, UNLABELLED, 3]
    for suffix in (".ply", ".npz"):
        write_labels(scan, np.array([4, 5, 6]), tmp_path / f"a{suffix}")
        assert read_scan(tmp_path / f"a{suffix}").fields["extra_label"].tolist() == [0, 1, 0.5]


def test_what_cannot_be_written_is_known_before(tmp_path, data):
    scan = read_scan(made(tmp_path / "a.las", 6, "1.4"))
    with pytest.raises(ValueError, match=r"a\.las: LAS holds class codes 0 to 255, got 256"):
        check_labels(scan, [2, 256], tmp_path / "b.las")
    with pytest.raises(ValueError, match="COPC is read but not written"):
        check_labels(scan, [2], tmp_path / "b.copc.laz")
    with pytest.raises(ValueError, match=r"cannot write '\.pts'"):
        check_labels(scan, [2], tmp_path / "b.pts")
    scan.fields["a" * 40] = np.zeros(3)
    scan.source = None
    with pytest.raises(ValueError, match="LAS holds field names of 32 bytes"):
        check_labels(scan, [2], tmp_path / "b.las")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_labels(scan, [2], tmp_path / "file" / "b.ply")
    check_labels(scan, [2], tmp_path / "b.ply")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.las", "file"]


def test_chunks_that_say_too_much(tmp_path):
    """Space for what a chunk says is reserved before any of it is read."""
    path = made(tmp_path / "a.laz", 7, "1.4")
    header, content = laspy.open(path).header, path.read_bytes()
    layers = header.offset_to_point_data + 8 + header.point_format.size + 4
    path.write_bytes(content[:layers] + b"\xff\xff\xff\x7e" + content[layers + 4 :])
    with pytest.raises(ValueError, match=r"damaged: a LAZ chunk of \d+ bytes says layers of 21307"):
        read_scan(path)
    content = made(path, 3, "1.2").read_bytes()
    path.write_bytes(content[:107] + struct.pack("<I", 50_000) + content[111:])
    with pytest.raises(ValueError, match=r"damaged: the header says 50000 points in \d+ bytes"):
        read_scan(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_laz_is_read_and_written_after_a_fork(tmp_path):
    """The threads of the parent are not in the child, which would wait for them for ever."""
    path = made(tmp_path / "a.laz", 6, "1.4", n=200_000)
    scan = read_scan(path)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        write_labels(read_scan(path), np.full(len(scan), 9), tmp_path / "b.laz")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (read_scan(tmp_path / "b.laz").labels == 9).all()


@pytest.mark.parametrize(
    ("stray", "steps"),
    [
        ([0, 0, 0], [1, 2, 1]),
        ([690_000, 1_100_000, 0], [1, 1, 1]),
        ([690_000, -5_300_000, 0], [1, 5, 1]),
        ([1e9, 5_300_000, -9999], [500, 1, 1]),
    ],
)
@pytest.mark.filterwarnings("ignore:. spans")
def test_a_stray_point_costs_its_own_axis_alone(tmp_path, stray, steps):
    near = np.random.default_rng(0).random((200, 3)) * [300, 300, 50] + [690_000, 5_300_000, 400]
    points = np.concatenate([near, [stray]])
    write_scan(Scan(points=points), tmp_path / "a.las")
    error = np.abs(read_scan(tmp_path / "a.las").points - points).max(axis=0)
    assert (error <= np.array(steps) / 2 * 1.001e-3).all()
    assert laspy.read(tmp_path / "a.las").header.scales.tolist() == [k / 1000 for k in steps]


def test_coordinates_that_cannot_keep_a_millimetre_are_said(tmp_path):
    points = np.array([[690_000, 5_300_000, 400], [0, 0, 0]], np.float64)
    message = r"y spans 5.3e\+06, so LAS's 32 bits keep it to 0.002 and not to 0.001; leave out"
    with pytest.warns(UserWarning, match=message):
        write_scan(Scan(points=points), tmp_path / "a.las")
    with pytest.raises(ValueError, match=r"a\.las: LAS holds no coordinates of -1e\+308 beside"):
        write_scan(Scan(points=np.array([[-1e308] * 3, [1e308] * 3])), tmp_path / "a.las")


def test_labels_of_extra_dimensions(tmp_path):
    las = laspy.create(point_format=6, file_version="1.4")
    las.x, las.y, las.z = np.eye(3)
    for name, values in (("scalar_label", [1, np.nan, 3]), ("class", [4, 5, 6])):
        las.add_extra_dim(laspy.ExtraBytesParams(name, "f4"))
        las[name] = values
    las.write(tmp_path / "a.las")
    message = "the labels are extra dimension 'scalar_label'; the extra dimension 'class' is the"
    with pytest.warns(UserWarning, match=message):
        scan = read_scan(tmp_path / "a.las")
    assert scan.labels.tolist() == [1, UNLABELLED, 3]
    assert scan.fields["extra_class"].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (25, b"\x09", r"LAS 1\.9, point format 3: known are LAS 1\.0 to 1\.4"),
        (104, b"\x0d", "point format 13: known are .* point formats 0 to 10"),
        (139, bytes(8), "damaged: its header scales coordinates by 0"),
    ],
)
def test_a_header_that_says_nonsense_is_refused(tmp_path, at, value, message):
    las = laspy.create(point_format=3, file_version="1.2")
    las.x, las.y, las.z = np.eye(3)
    las.write(tmp_path / "a.las")
    content = bytearray((tmp_path / "a.las").read_bytes())
    content[at : at + len(value)] = value
    (tmp_path / "a.las").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "a.las")


@pytest.mark.filterwarnings("ignore:.*(GeoTIFF keys|waveforms)")
@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(("point_format", "version"), [(k, "1.4") for k in (0, 1, 3, 6, 7, 8)])
def test_fields_become_extra_bytes(tmp_path, point_format, version, suffix):
    path = made(tmp_path / f"in{suffix}", point_format, version, extra=["height"], height=[1, 2, 3])
    sure = np.array([0.25, 0.1, 1], np.float32)
    for codes in ([7, 8, 9], [7, 31, 200]):
        scan, out = read_scan(path), tmp_path / f"out{suffix}"
        check_labels(scan, codes, out, {"confidence": sure})
        write_labels(scan, np.array(codes), out, {"confidence": sure})
        las = laspy.read(out)
        assert las["confidence"].dtype == np.float32
        np.testing.assert_array_equal(las["confidence"], sure)
        np.testing.assert_array_equal(las.height, [1, 2, 3])
        np.testing.assert_array_equal(las.classification, codes)
        np.testing.assert_array_equal(las.xyz, scan.points)
        with pytest.warns(UserWarning, match="replaced"):
            write_labels(read_scan(out), np.array(codes), tmp_path / "b.las", {"confidence": -sure})
        np.testing.assert_array_equal(laspy.read(tmp_path / "b.las")["confidence"], -sure)


def test_a_dimension_of_whole_numbers_is_no_confidence(tmp_path):
    las = laspy.read(made(tmp_path / "a.las", 6, "1.4"))
    las.add_extra_dim(laspy.ExtraBytesParams("confidence", "u1"))
    las.write(tmp_path / "a.las")
    scan = read_scan(tmp_path / "a.las")
    with pytest.raises(ValueError, match="dimension 'confidence' holds whole numbers"):
        check_labels(scan, [2], tmp_path / "b.las", {"confidence": np.ones(3, np.float32)})


def test_codes_of_no_class_are_known(tmp_path):
    path = made(tmp_path / "a.las", 6, "1.4", classification=[1, 0, 5])
    scan = read_scan(path)
    assert scan.labels.tolist() == [UNLABELLED, UNLABELLED, 5]
    assert scan.codes.tolist() == [1, 0, 5]
