from __future__ import annotations

import numpy as np
import pye57
import pytest

from pointwise.cloud.files import read_scan


def cloud(n, seed, **more):
    points = np.random.default_rng(seed).random((n, 3))
    return dict(zip(("cartesianX", "cartesianY", "cartesianZ"), points.T, strict=True)) | more


def test_real_file(data):
    scan = read_scan(data("e57/bunnyInt32.e57"))
    assert scan.points.shape == (30_571, 3)
    np.testing.assert_allclose(np.ptp(scan.points, axis=0), [0.156, 0.147, 0.121], atol=1e-3)


@pytest.mark.parametrize("name", ["ZeroPoints", "InvalidCVHeader"])
def test_no_points_are_an_empty_cloud(data, name):
    # The second has a damaged header before its data, of which there are none.
    assert read_scan(data(f"e57/{name}.e57")).points.shape == (0, 3)


def test_scans_are_merged_in_the_global_frame(tmp_path):
    first = cloud(5, 0, intensity=np.arange(5.0), colorRed=np.full(5, 200.0))
    first |= {"colorGreen": np.full(5, 100.0), "colorBlue": np.arange(5.0)}
    second = cloud(4, 1, intensity=np.arange(4.0))
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        file.write_scan_raw(first)
        quarter = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])  # about z
        file.write_scan_raw(second, rotation=quarter, translation=np.array([10, 0, 0]))
    with pytest.warns(UserWarning, match=r"left out blue, green, red, which not all of its 2 scan"):
        scan = read_scan(tmp_path / "a.e57")
    x, y, z = second["cartesianX"], second["cartesianY"], second["cartesianZ"]
    np.testing.assert_allclose(scan.points[5:], np.stack([10 - y, x, z], axis=1), atol=1e-6)
    assert scan.fields["scan"].tolist() == [0] * 5 + [1] * 4
    assert scan.fields["intensity"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert "color" not in scan.fields  # which only one of them has


def test_colours(tmp_path):
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        colors = {"colorRed": np.array([1.0, 255]), "colorGreen": np.array([2.0, 0])}
        file.write_scan_raw(cloud(2, 0, **colors, colorBlue=np.array([3.0, 9])))
    scan = read_scan(tmp_path / "a.e57")
    assert scan.fields["color"].tolist() == [[1, 2, 3], [255, 0, 9]]
    assert scan.fields.keys() == {"color"}


def test_invalid_points_are_dropped_with_a_warning(tmp_path):
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        file.write_scan_raw(cloud(4, 0, cartesianInvalidState=np.array([0, 2, 1, 0])))
    with pytest.warns(
        UserWarning, match=r"a\.e57: dropped 2 of 4 points, which have no finite .* at index 1$"
    ):
        scan = read_scan(tmp_path / "a.e57")
    np.testing.assert_allclose(scan.points[:, 0], cloud(4, 0)["cartesianX"][[0, 3]], atol=1e-6)


def test_colours_as_the_header_bounds_them(tmp_path):
    """Nearly black bytes are no fractions of 1, as numbers up to 1 are elsewhere."""
    dark = {name: np.array([0.0, 1]) for name in ("colorRed", "colorGreen", "colorBlue")}
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        file.write_scan_raw(cloud(2, 0, **dark))
    assert read_scan(tmp_path / "a.e57").fields["color"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_more_points_than_bytes(tmp_path, monkeypatch):
    with pye57.E57(str(tmp_path / "a.e57"), mode="w") as file:
        file.write_scan_raw(cloud(4, 0))
    size = (tmp_path / "a.e57").stat().st_size
    many = size * 8 // (3 * 32) + 1  # of three floats
    monkeypatch.setattr(pye57.scan_header.ScanHeader, "point_count", many)
    with pytest.raises(ValueError, match=rf"truncated: a scan says {many} points in {size} bytes"):
        read_scan(tmp_path / "a.e57")


def test_damaged_files(data, tmp_path):
    content = bytearray(data("e57/bunnyInt32.e57").read_bytes())
    path = tmp_path / "a.e57"
    path.write_bytes(content[:200_000])
    with pytest.raises(ValueError, match=r"a\.e57: not a readable E57 file \(.*BadFileLength"):
        read_scan(path)
    content[5_000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.e57: not a readable E57 file \(checksum mismatch"):
        read_scan(path)
    path.write_bytes(b"LASF" + bytes(1000))
    with pytest.raises(ValueError, match=r"a\.e57: not an E57 file: it does not begin with ASTM"):
        read_scan(path)
    assert path.exists()


def test_no_scan(tmp_path):
    with pye57.E57(str(tmp_path / "a.e57"), mode="w"):
        pass
    with pytest.raises(ValueError, match=r"a\.e57: holds no scan"):
        read_scan(tmp_path / "a.e57")
