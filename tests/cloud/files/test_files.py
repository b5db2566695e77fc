"""What holds for every format: dispatch, errors, and labels across formats."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pointwise.cloud.files import SUFFIXES, read_scan, read_scans, write_labels, write_scan
from pointwise.cloud.scan import Scan

BINARY = [
    "las/simple.las",
    "las/simple.laz",
    "las/simple.copc.laz",
    "las/extrabytes.las",
    "pcd/milk_color.pcd",
    "ply/suzanne.ply",
    "ply/ballA.off",
    "e57/bunnyInt32.e57",
    "xyz/points_agisoft.xyz",
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_files(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(ValueError, match=rf"a\{suffix}: is empty \(0 bytes\)"):
        read_scans(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_another_format(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3 + b"\xff")
    with pytest.raises((ValueError, OSError), match=rf"^\S*a\{suffix}: [^\n]+$"):
        read_scans(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_files(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=rf"a\{suffix}: no such file"):
        read_scans(tmp_path / f"a{suffix}")


def test_suffixes(tmp_path, scan):
    (tmp_path / "a.docx").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"unknown suffix '\.docx'; known are \.las, \.laz, \.ply"):
        read_scan(tmp_path / "a.docx")
    with pytest.raises(ValueError, match=r"cannot write '\.pcd'; use \.las, \.laz, \.ply, \.npz"):
        write_scan(scan, tmp_path / "a.pcd")
    write_scan(scan, tmp_path / "A.PLY")
    assert len(read_scan(str(tmp_path / "A.PLY"))) == len(scan)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.filterwarnings("ignore")
def test_damage_gives_one_line_or_points(data, tmp_path, name):
    """No error of a library comes through, whichever bytes are wrong or missing."""
    content = data(name).read_bytes()
    chance = random.Random(0)
    path = tmp_path / ("a" + name[name.rindex(".") :])
    messages = []
    for trial in range(30):
        damaged = bytearray(content)
        if trial % 3 == 0:
            damaged = damaged[: chance.randrange(1, len(damaged) * 9 // 10)]
        else:
            end = len(damaged) if trial % 3 == 1 else 1000  # headers are small
            for _ in range(chance.choice([1, 3, 20])):
                damaged[chance.randrange(end)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_scans(path)
        except (ValueError, OSError) as error:
            messages.append(str(error))
    assert len(messages) >= 3
    for message in messages:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


@pytest.mark.parametrize("target", [".las", ".laz", ".ply", ".npz"])
@pytest.mark.parametrize(
    "name", ["las/extrabytes.las", "las/simple.laz", "ply/bunny.ply", "xyz/points_agisoft.xyz"]
)
def test_labels_in_another_format(data, tmp_path, name, target):
    scan = read_scan(data(name))
    labels = np.random.default_rng(0).integers(2, 30, len(scan))
    write_labels(scan, labels, tmp_path / f"a{target}")
    back = read_scan(tmp_path / f"a{target}")
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_allclose(back.points, scan.points, atol=0.0005, rtol=0)
    for field, values in scan.fields.items():
        np.testing.assert_array_equal(back.fields[field], values, err_msg=field)


def test_labels_are_checked(scan, tmp_path):
    with pytest.raises(ValueError, match=r"write_labels: labels must be \[50\], got \[49\]"):
        write_labels(scan, np.zeros(49, np.int64), tmp_path / "a.ply")
    with pytest.raises(TypeError, match="labels must be whole numbers, got float64"):
        write_labels(scan, np.zeros(50), tmp_path / "a.ply")
    with pytest.raises(ValueError, match=r"cannot write '\.txt'"):
        write_labels(scan, np.zeros(50, np.int64), tmp_path / "a.txt")


def test_scans_are_checked(scan, tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(ValueError, match=r"write_scan: points must be \[N, 3\], got \[4, 2\]"):
        write_scan(Scan(np.zeros((4, 2))), path)
    with pytest.raises(ValueError, match="write_scan: points must be finite"):
        write_scan(Scan(np.full((4, 3), np.nan)), path)
    with pytest.raises(ValueError, match="field 'a' must have 1 rows, got 2"):
        write_scan(Scan(np.zeros((1, 3)), fields={"a": np.zeros(2)}), path)
    with pytest.raises(ValueError, match=r"write_scan: labels must be \[1\], got \[2\]"):
        write_scan(Scan(np.zeros((1, 3)), labels=np.zeros(2, np.int64)), path)
    with pytest.raises(
        ValueError, match=r"field 'word' must be numbers \[1\] or \[1, K\], got <U1"
    ):
        write_scan(Scan(np.zeros((1, 3)), fields={"word": np.array(["a"])}), path)
    with pytest.raises(ValueError, match=r"field 'color' must be \[1, 3\], got \[1, 4\]"):
        write_scan(Scan(np.zeros((1, 3)), fields={"color": np.zeros((1, 4))}), path)


def test_a_missing_library_names_the_extra(data, monkeypatch):
    path = data("ply/bunny.ply")
    monkeypatch.setitem(__import__("sys").modules, "plyfile", None)
    with pytest.raises(ImportError, match=r"pip install 'pointwise\[files\]'"):
        read_scan(path)
