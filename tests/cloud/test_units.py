"""Units are read where files state them, kept with a run, and never mixed without a word."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointwise.cloud.files import read_scan, write_scan
from pointwise.cloud.scan import Scan
from pointwise.cloud.units import METRES, in_unit, usual_unit


def scan(unit: str | None, name: str = "a scan") -> Scan:
    return Scan(np.array([[1.0, 2.0, 3.0]]), name=name, unit=unit)


def test_a_foot_is_a_foot():
    assert in_unit(scan("ft"), "m").points.tolist() == [[0.3048, 2 * 0.3048, 3 * 0.3048]]
    np.testing.assert_allclose(in_unit(scan("m"), "US ft").points[0, 0], 3937 / 1200)
    there = in_unit(in_unit(scan("US ft"), "m"), "US ft")
    np.testing.assert_allclose(there.points, scan(None).points, rtol=1e-15)
    assert there.unit == "US ft"


def test_what_is_not_known_stays():
    for found, wanted in ((None, "m"), ("m", None), ("ft", "ft")):
        given = scan(found)
        assert in_unit(given, wanted) is given


def test_angles_are_no_lengths():
    with pytest.raises(ValueError, match="a scan has coordinates in degree, the others in m"):
        in_unit(scan("degree"), "m")


def test_the_usual_one():
    assert usual_unit([scan(None), scan("ft"), scan("m"), scan("m")]) == "m"
    assert usual_unit([scan(None)]) is None
    assert set(METRES) == {"m", "ft", "US ft"}


def test_a_part_of_a_scan_has_its_unit():
    assert scan("ft").select(np.array([0])).unit == "ft"


@pytest.mark.parametrize(("name", "unit"), [("las/town_6_classes.las", "US ft"),
                                            ("las/interesting.las", "ft"),
                                            ("las/simple.copc.laz", "m"),
                                            ("las/simple.las", None)])  # fmt: skip
def test_files_state_it(shared_data, name, unit):
    assert read_scan(shared_data / name).unit == unit


def wkt(horizontal: str, vertical: str) -> str:
    """A compound system, as surveys in the United States have it."""
    return (
        'COMPD_CS["both",PROJCS["plane",GEOGCS["g",UNIT["degree",0.0174532925199433]],'
        f'UNIT["x",{horizontal}]],VERT_CS["up",UNIT["y",{vertical}]]]'
    )


@pytest.mark.parametrize(("vertical", "said"), [("1", True), ("0.3048006096012192", False)])
def test_heights_in_another_unit_are_said(vertical, said, tmp_path):
    import laspy
    from laspy.vlrs.known import WktCoordinateSystemVlr

    header = laspy.LasHeader(point_format=6, version="1.4")
    header.vlrs.append(WktCoordinateSystemVlr(wkt("0.3048006096012192", vertical)))
    las = laspy.LasData(header)
    las.x = las.y = las.z = np.arange(3.0)
    las.write(tmp_path / "a.las")
    found = read_scan(tmp_path / "a.las")
    assert found.unit == "US ft"
    line = "heights are in US ft as positions are, though the file states m"
    assert (line in found.assumed) == said


def hilly(unit: str | None, seed: int = 0) -> Scan:
    """Ground of 40 by 20 m and trees on it, in the unit."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((0, 0, 0), (40, 20, 0.2), size=(4000, 3))
    labels = np.where(rng.random(4000) < 0.3, 5, 2)
    points[labels == 5, 2] += 6
    made = Scan(points, labels=labels, classes={2: "ground", 5: "trees"}, unit="m")
    return replace(in_unit(made, unit or "m"), unit=unit)


def test_a_run_keeps_its_unit_and_converts(tmp_path):
    from pointwise.training.plan import plan
    from pointwise.training.run import read_run, save_run
    from pointwise.training.sources import Data

    metres, feet = hilly("m"), hilly("ft")
    run = plan(Data("segmentation", [metres], [], []), network="Hua2018Segmentation")
    save_run(run, tmp_path)
    recipe = read_run(tmp_path).recipe
    assert recipe.unit == json.loads((tmp_path / "run.json").read_text())["recipe"]["unit"] == "m"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = recipe.prepare(metres)
    with pytest.warns(UserWarning, match="a scan: is in ft, and read in m, as was learned"):
        other = recipe.prepare(feet)
    np.testing.assert_allclose(other.scan.points, own.scan.points, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        recipe.sample(other, np.arange(50))[1], recipe.sample(own, np.arange(50))[1], atol=1e-4
    )
    with pytest.warns(UserWarning, match="scans that do not state their unit are taken to be in m"):
        recipe.prepare(hilly(None))
    with pytest.warns(UserWarning, match="scans in ft are read as what was learned from"):
        replace(recipe, unit=None).prepare(feet)


def test_training_data_are_brought_to_one_unit(tmp_path, monkeypatch):
    from pointwise.training import sources

    for name in "abcd":
        write_scan(hilly("m", ord(name)), tmp_path / f"{name}.npz")
    units = {"a": "m", "b": "m", "c": "ft", "d": None}

    def read(file: Path, columns: str | None) -> list[Scan]:
        made = hilly(units[file.stem], ord(file.stem))
        return [replace(made, source=file, name=file.stem)]

    monkeypatch.setattr(sources, "read_clouds", read)
    data = sources.load_data([str(tmp_path)])
    scans = [*data.train, *data.validation, *data.test]
    assert {each.unit for each in scans} == {"m"}
    for each in scans:
        assert np.ptp(each.points[:, 1]) <= 20.1  # of feet, 65
    assert "note: converted from ft to m: c.npz" in data.notes
    assert "assumed: in m, as others state: d.npz" in data.notes


def test_a_unit_that_is_none_is_refused(tmp_path):
    from pointwise.training.run_schema import UNIT

    assert UNIT.holds("ft")
    assert UNIT.or_null().holds(None)
    assert not UNIT.holds("furlong")
    assert not UNIT.holds(["m"])
