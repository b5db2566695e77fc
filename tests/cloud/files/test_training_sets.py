"""KITTI, HDF5 and S3DIS: the forms in which data sets for training are published."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from pointwise.cloud.files import read_scan, read_scans


@pytest.fixture
def sweep():
    return np.random.default_rng(0).random((6, 4), np.float32)


def test_kitti(tmp_path, sweep, recwarn):
    folder = tmp_path / "sequences" / "08"
    (folder / "velodyne").mkdir(parents=True)
    (folder / "labels").mkdir()
    path = folder / "velodyne" / "000001.bin"
    sweep.tofile(path)
    scan = read_scan(path)  # without a warning: the folder says what it is
    assert not recwarn
    np.testing.assert_array_equal(scan.points, sweep[:, :3])
    np.testing.assert_array_equal(scan.fields["intensity"], sweep[:, 3])
    assert (scan.group, scan.name, scan.labels) == ("08", "000001", None)

    values = np.array([0, 40, 10 | 7 << 16, 252, 99, 40], "<u4")
    values.tofile(folder / "labels" / "000001.label")
    scan = read_scan(path)
    assert scan.labels.tolist() == [-1, 40, 10, 252, 99, 40]
    assert scan.fields["instance"].tolist() == [0, 0, 7, 0, 0, 0]
    assert (scan.classes[10], scan.classes[252]) == ("car", "moving-car")

    values[:5].tofile(path.with_suffix(".label"))  # beside the file comes first
    with pytest.raises(ValueError, match=r"000001\.label has 5 labels for 6 points"):
        read_scan(path)


def test_nuscenes(tmp_path):
    table = np.arange(10, dtype=np.float32).reshape(2, 5)
    table.tofile(tmp_path / "a.pcd.bin")
    scan = read_scan(tmp_path / "a.pcd.bin")
    assert scan.points.tolist() == [[0, 1, 2], [5, 6, 7]]
    assert scan.fields["ring"].tolist() == [4, 9]


def test_kitti_of_another_size(tmp_path, sweep):
    (tmp_path / "a.bin").write_bytes(sweep.tobytes()[:-2])
    with pytest.raises(ValueError, match=r"not a \.bin of 16 bytes a point, .* it has 94 bytes"):
        read_scan(tmp_path / "a.bin")


SIGNED = np.random.default_rng(0).normal(0, 20, (40, 3))
OTHERS = {
    "doubles": SIGNED,
    "whole doubles": np.arange(24.0),
    "x y z": SIGNED.astype("f4"),
    "six floats": np.repeat(SIGNED, 2, axis=1).astype("f4"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_bin_that_is_no_sweep(tmp_path, kind):
    OTHERS[kind].tofile(tmp_path / "a.bin")
    with pytest.raises(
        ValueError, match=r"a\.bin: its 32-bit floats are neither 'x y z intensity'"
    ):
        read_scan(tmp_path / "a.bin")


def test_a_bin_is_read_by_its_numbers(tmp_path):
    sweep = np.hstack([SIGNED, SIGNED[:, :1] ** 2, np.arange(40)[:, None] % 32]).astype("f4")
    for width, names in ((4, "x y z intensity"), (5, "x y z intensity ring")):
        sweep[:, :width].tofile(tmp_path / "a.bin")  # 640 and 800 bytes, which both divide
        with pytest.warns(UserWarning, match=rf"\*\.bin: no header, .* taken for {names};"):
            scan = read_scan(tmp_path / "a.bin")
        np.testing.assert_array_equal(scan.points, sweep[:, :3])
        np.testing.assert_array_equal(scan.fields["intensity"], sweep[:, 3])
        assert ("ring" in scan.fields) == (width == 5)


def test_a_bin_of_two_readings(tmp_path):
    np.arange(80, dtype="f4").tofile(tmp_path / "a.bin")
    message = r"two readings fit, 'x y z intensity' and 'x y z intensity ring'; say which"
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / "a.bin")
    scan = read_scan(tmp_path / "a.bin", columns="x y z intensity ring")
    assert scan.points[1].tolist() == [5, 6, 7]
    assert read_scan(tmp_path / "a.bin", columns="x y z _ label").labels[:2].tolist() == [4, 9]


def test_modelnet(tmp_path):
    random = np.random.default_rng(0)
    data = random.random((3, 20, 3), np.float32)
    with h5py.File(tmp_path / "train0.h5", "w") as file:
        file["data"] = data
        file["label"] = np.array([[2], [0], [2]], np.uint8)
        file["normal"] = data
        file["faceId"] = np.zeros((3, 20), np.int32)
    (tmp_path / "shape_names.txt").write_text("airplane\nbathtub\nbed\n")
    scans = read_scans(tmp_path / "train0.h5")
    assert [scan.label for scan in scans] == [2, 0, 2]
    assert [scan.name for scan in scans] == ["train0[0]", "train0[1]", "train0[2]"]
    assert scans[0].classes == {0: "airplane", 1: "bathtub", 2: "bed"}
    np.testing.assert_array_equal(scans[1].points, data[1])
    np.testing.assert_array_equal(scans[1].fields["normal"], data[1])
    assert scans[1].fields["faceId"].shape == (20,)


def test_shapenet_parts(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 4, 3), np.float32)
        file["label"] = np.array([5, 6])
        file["pid"] = np.arange(8).reshape(2, 4)
    scans = read_scans(tmp_path / "a.h5")
    assert [scan.label for scan in scans] == [5, 6]
    assert scans[1].labels.tolist() == [4, 5, 6, 7]


def test_s3dis_blocks(tmp_path):
    random = np.random.default_rng(0)
    data = random.random((2, 8, 9), np.float32)
    data[..., 3:6] = np.array([1.0, 0.5, 0.0])
    labels = random.integers(0, 13, (2, 8))
    for number, blocks in ((0, 1), (1, 2), (10, 2)):
        with h5py.File(tmp_path / f"ply_data_all_{number}.h5", "w") as file:
            file["data"] = data[:blocks]
            file["label"] = labels[:blocks].astype(np.uint8)
    path = tmp_path / "ply_data_all_1.h5"
    scans = read_scans(path)
    assert [scan.group for scan in scans] == ["", ""]
    np.testing.assert_array_equal(scans[1].points, data[1, :, :3])
    np.testing.assert_array_equal(scans[1].fields["color"], [[255, 128, 0]] * 8)
    np.testing.assert_array_equal(scans[1].fields["room_position"], data[1, :, 6:])
    np.testing.assert_array_equal(scans[1].labels, labels[1])
    assert (len(scans[0].classes), scans[0].classes[12]) == (13, "clutter")

    rooms = [f"Area_{area}_office_1" for area in (1, 2, 5, 6, 6)]
    (tmp_path / "room_filelist.txt").write_text("\n".join(rooms))
    assert [scan.group for scan in read_scans(path)] == ["Area_2", "Area_5"]
    (tmp_path / "room_filelist.txt").write_text("\n".join(rooms[:2]))
    with pytest.raises(ValueError, match=r"room_filelist\.txt ends before block 3"):
        read_scans(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "needs a dataset 'data' .*, got none"),
        ({"data": np.zeros((2, 4))}, r"needs a dataset 'data' .*, got float64 \[2, 4\]"),
        (
            {"data": np.zeros((2, 4, 3)), "label": np.zeros((2, 3), np.int64)},
            r"label must be whole numbers \[2\], \[2, 1\] or \[2, 4\], got int64 \[2, 3\]",
        ),
    ],
)
def test_other_hdf5(tmp_path, arrays, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    with pytest.raises(ValueError, match=rf"a\.h5: {message}"):
        read_scans(tmp_path / "a.h5")


def test_hdf5_reads_its_own_file_alone(tmp_path, monkeypatch):
    """Neither links to other files, nor datasets that lie in them, nor what is not used."""
    data = np.arange(24, dtype=">f4").reshape(2, 4, 3)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = data
    (tmp_path / "secret.bin").write_bytes(data.tobytes())
    path = tmp_path / "a.h5"

    def written(**more):
        with h5py.File(path, "w") as file:
            for name, value in more.items():
                if callable(value):
                    value(file, name)
                else:
                    file[name] = value

    external = h5py.ExternalLink("other.h5", "/data")
    written(data=data, more=external, loop=h5py.SoftLink("/loop"), label=np.array([1, 2]))
    first, second = read_scans(path)
    assert (first.fields, second.label) == ({}, 2)
    np.testing.assert_array_equal(second.points, data[1])
    written(data=external)
    with pytest.raises(ValueError, match=r"needs a dataset 'data' .*, got none"):
        read_scans(path)

    layout = h5py.VirtualLayout((2, 4, 3), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "data", (2, 4, 3))
    where = [(str(tmp_path / "secret.bin"), 0, data.nbytes)]
    for lying in (
        lambda file, name: file.create_virtual_dataset(name, layout),
        lambda file, name: file.create_dataset(name, (2, 4, 3), ">f4", external=where),
    ):
        written(data=lying)
        with pytest.raises(ValueError, match="dataset '/data' lies in other files, which are not"):
            read_scans(path)

    monkeypatch.setattr("pointwise.cloud.files.unpack.LARGE", 10_000)
    packed = lambda file, name: file.create_dataset(  # noqa: E731
        name, (2, 100_000, 3), "f4", compression="gzip", fillvalue=0
    )
    written(data=data, more=packed)
    assert len(read_scans(path)) == 2
    written(data=packed)
    with pytest.raises(ValueError, match=r"dataset '/data' would unpack 0 MB to 0\.0024 GB, more"):
        read_scans(path)


@pytest.fixture
def room(tmp_path):
    annotations = tmp_path / "Area_5" / "hallway_6" / "Annotations"
    annotations.mkdir(parents=True)
    (annotations / "chair_1.txt").write_text("1 2 3 10 20 30\n4 5 6 40 50 60\n")
    (annotations / "ceiling_1.txt").write_text("0 0 3 185\x10187 182\n")  # as published
    (annotations / "stairs_1.txt").write_text("7 8 9 0 0 0\n")
    (annotations / "._chair_1.txt").write_bytes(b"\0\1\2")
    return annotations.parent


def test_s3dis_room(room):
    scan = read_scan(room)
    assert (scan.name, scan.group, scan.source) == ("Area_5_hallway_6", "Area_5", room)
    assert [scan.classes[code] for code in scan.labels] == ["ceiling", "chair", "chair", "clutter"]
    assert scan.fields["instance"].tolist() == [0, 1, 1, 2]
    assert scan.points.tolist() == [[0, 0, 3], [1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert scan.fields["color"][:2].tolist() == [[185, 187, 182], [10, 20, 30]]


def plant(folder, *objects):
    """A room of the user's own, with an object of one point for each name."""
    annotations = folder / "Annotations"
    annotations.mkdir(parents=True)
    for i, name in enumerate(objects):
        (annotations / f"{name}.txt").write_text(f"{i} 0 0 10 20 30\n")
    return folder


def test_other_names_are_classes_of_their_own(tmp_path, room):
    scan = read_scan(
        plant(tmp_path / "plant" / "hall", "wall_1", "pump_1", "fire_hose_12", "pump_2")
    )
    assert [scan.classes[code] for code in scan.labels] == ["fire_hose", "pump", "pump", "wall"]
    assert scan.labels.tolist() == [13, 14, 14, 2]
    assert scan.assumed == ()
    assert scan.unit == "m"
    assert read_scan(room).assumed == ("stairs are clutter, as is usual for S3DIS",)
    assert max(read_scan(room).classes) == 12


def test_names_of_all_rooms_have_one_number_each(tmp_path):
    """However few of them a room has: code 13 is not a pump here and a valve there."""
    from pointwise.training.plan import plan
    from pointwise.training.sources import load_data

    for i, names in enumerate((("floor", "pump"), ("floor", "valve"), ("pump", "tank"))):
        plant(tmp_path / "train" / f"Area_{i}" / "hall", *names)
    plant(tmp_path / "test" / "Area_9" / "hall", "valve", "floor")
    data = load_data([str(tmp_path / "train")], test=[str(tmp_path / "test")])
    found = {
        (scan.source.parent.name, scan.classes[code]): code
        for scan in (*data.train, *data.validation, *data.test)
        for code in scan.labels.tolist()
    }
    assert {name: code for (_, name), code in found.items()} == {
        "floor": 1, "pump": 13, "tank": 14, "valve": 15
    }  # fmt: skip
    assert {name for area, name in found if area == "Area_9"} == {"valve", "floor"}
    assert not [line for line in data.notes if "several names" in line]
    run = plan(data, cell_size=0.5, block=5.0)
    assert run.recipe.classes.names == ("floor", "pump", "tank", "valve")
    # A room that is read by itself has other numbers, and the same names.
    alone = read_scan(tmp_path / "test" / "Area_9" / "hall")
    assert alone.labels.tolist() == [1, 13]
    index = run.recipe.targets(alone).tolist()
    assert [run.recipe.classes.names[i] for i in index] == ["floor", "valve"]


def test_s3dis_room_with_a_broken_object(room):
    (room / "Annotations" / "wall_1.txt").write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"wall_1\.txt: a line must be x y z r g b, got 3 numbers"):
        read_scan(room)
    (room / "Annotations" / "wall_1.txt").write_text("1 2 3 a b c\n")
    with pytest.raises(ValueError, match=r"hallway_6: wall_1\.txt: line 1, column 4: 'a' is no"):
        read_scan(room)


@pytest.mark.parametrize("colors", ["10 20 256", "-1 0 0", "0.5 0 1"])
def test_s3dis_colours_are_bytes(room, colors):
    (room / "Annotations" / "wall_1.txt").write_text(f"1 2 3 {colors}\n")
    with pytest.raises(ValueError, match=r"wall_1\.txt: colours must be whole numbers 0 to 255"):
        read_scan(room)
    with pytest.raises(ValueError, match=r"columns names what .* hold; a room of S3DIS names its"):
        read_scan(room, columns="x y z")


def test_folders_that_are_no_room(tmp_path):
    with pytest.raises(ValueError, match="is a folder without a folder Annotations, so no room"):
        read_scan(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(ValueError, match=r"has no object files \(chair_1\.txt …\)"):
        read_scan(tmp_path)


def test_labels_and_fields_of_hdf5_have_their_types(tmp_path):
    data = np.random.default_rng(0).random((2, 3, 3), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = data
        file["label"] = np.array([[1.0], [2.0]])
        file["pid"] = np.arange(6).reshape(2, 3, 1)
        file["seg"] = np.arange(6).reshape(2, 3)
        file["color"] = np.full((2, 3, 3), 0.2)
        file["intensity"] = np.arange(6).reshape(2, 3, 1)
    scans = read_scans(tmp_path / "a.h5")
    assert [scan.label for scan in scans] == [1, 2]
    assert [scan.labels.tolist() for scan in scans] == [[0, 1, 2], [3, 4, 5]]
    assert scans[1].fields["extra_seg"].tolist() == [3, 4, 5]
    assert scans[1].fields["color"].tolist() == [[51, 51, 51]] * 3
    assert scans[1].fields["color"].dtype == np.uint8
    assert scans[1].fields["intensity"].tolist() == [3, 4, 5]
