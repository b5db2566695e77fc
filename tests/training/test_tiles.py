"""Tiles that see each other have the labels of the merged scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import scene

from pointwise.cloud.files import read_scan, write_scan
from pointwise.cloud.frame import Frame
from pointwise.cloud.scan import Scan
from pointwise.rooms import room
from pointwise.training.ground import Ground
from pointwise.training.label import label_scan, label_tile
from pointwise.training.labelling import How, Job, label_file
from pointwise.training.plan import plan
from pointwise.training.run import Run
from pointwise.training.sources import Data
from pointwise.training.survey import ALONE, Place, find_place, surroundings
from pointwise.training.thin import thin


def field(width: float, depth: float, seed: int = 0) -> Scan:
    """Hills with boxes on them, whose coordinates are whole centimetres as files have them."""
    rng = np.random.default_rng(seed)
    count = int(40 * width * depth)
    points = rng.uniform((0, 0, 0), (width, depth, 0.05), size=(count, 3))
    points[:, 2] += 2 * np.sin(points[:, 0] / 7) + np.cos(points[:, 1] / 5)
    boxes = (points[:, 0] % 5 < 1.5) & (points[:, 1] % 4 < 1.5)
    points[boxes, 2] += rng.uniform(0, 1.5, boxes.sum())
    labels = np.where(boxes, 6, 2)
    intensity = rng.normal(100, 20, count).astype(np.float32)
    return Scan((points + (500_000, 5_400_000, 300)).round(2), {"intensity": intensity}, labels)


def quarters(scan: Scan, x: float = 0.5, y: float = 0.4) -> tuple[list[Scan], np.ndarray]:
    """Four tiles, and the tile of each point."""
    low, extent = scan.points[:, :2].min(axis=0), np.ptp(scan.points[:, :2], axis=0)
    east, north = (scan.points[:, :2] >= low + extent * (x, y)).T
    tile = 2 * east + north
    return [scan.select(tile == k) for k in range(4)], tile


def agreement(run: Run, scan: Scan, **more) -> tuple[float, float]:
    """The share of points whose labels are those of the merged scan: of tiles together, alone."""
    merged = label_scan(run, scan, votes=1)
    tiles, tile = quarters(scan, **more)
    frame = Frame.around(Frame.of(each.points) for each in tiles)
    together = alone = 0
    for k, each in enumerate(tiles):
        found = label_tile(run, each, tiles[:k] + tiles[k + 1 :], frame, votes=1)
        together += (found.codes == merged[tile == k]).sum()
        alone += (label_scan(run, each, votes=1) == merged[tile == k]).sum()
    return together / len(scan), alone / len(scan)


@pytest.fixture
def run() -> Run:
    """An untrained network: of all, the one whose answers a change of its input shakes most."""
    torch.manual_seed(0)
    return plan(Data("segmentation", [field(30, 20)], [], []), block=12.0, cell_size=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("ground", [None, 4.0])
def test_labels_are_those_of_the_merged_scan(run, ground):
    recipe = run.recipe if ground is None else replace(run.recipe, ground=ground)
    together, alone = agreement(replace(run, recipe=recipe), field(60, 45, seed=1))
    assert together >= 0.999
    assert alone < 0.97  # or there is nothing that neighbours could mend


@pytest.mark.slow
def test_so_it_is_where_all_tiles_are_one_block(run):
    together, alone = agreement(run, field(11, 10, seed=2))
    assert together >= 0.999
    assert alone < 0.97


@pytest.mark.slow
def test_so_it_is_of_a_town_and_of_a_room(shared_data):
    for scan in (read_scan(shared_data / "las" / "town_6_classes.las"), room(3)):
        torch.manual_seed(0)
        run = plan(Data("segmentation", [scan], [], []))
        run = replace(run, recipe=replace(run.recipe, block=run.recipe.block / 3,
                                          margin=run.recipe.margin / 3))  # fmt: skip
        together, alone = agreement(run, scan)
        assert together >= 0.999, scan.name
        assert alone < 0.97


def test_only_what_can_be_seen_is_read(run):
    run = replace(run, recipe=replace(run.recipe, block=3.0, margin=0.4, ground=1.0))
    read: list[int] = []
    run.network.forward = lambda points, features, offsets: (
        read.append(len(points)) or (torch.zeros(len(points), 2))
    )
    west, east = field(10, 10), field(200, 10, seed=1)
    east.points[:, 0] += 10
    frame = Frame.around([Frame.of(west.points), Frame.of(east.points)])
    label_tile(run, west, [east], frame, votes=1)
    blocks = len(read)
    label_tile(run, west, votes=1)
    # A block that holds a point of the tile is read once; of the others none.
    assert blocks <= len(read) - blocks + 8


def test_a_tile_alone_is_a_scan(run):
    scan = field(20, 10, seed=4)
    codes, confidence = label_scan(run, scan, confidence=True, votes=1)
    for neighbours in ([], [field(5, 5)]):  # which is far away
        for other in neighbours:
            other.points[:, 0] += 1e4
        found = label_tile(run, scan, neighbours, votes=1)
        np.testing.assert_array_equal(found.codes, codes)
        np.testing.assert_array_equal(found.confidence, confidence)


def test_nothing_to_label(run):
    found = label_tile(run, field(3, 3).select(np.arange(0)), [field(3, 3)])
    assert len(found.codes) == len(found.confidence) == 0


def test_cubes_of_a_tile_are_those_of_the_whole():
    whole = field(9, 9)
    tiles, tile = quarters(whole)
    frame = Frame.of(whole.points)
    cubes, cube = thin(whole, 0.7, ["intensity"])
    for k, each in enumerate(tiles):
        part, of = thin(each, 0.7, ["intensity"], frame)
        assert of.min() == 0
        assert of.max() == len(part) - 1
        own = cube[tile == k]
        shared = np.isin(own, cube[tile != k])  # with another tile, whose points are not here
        np.testing.assert_allclose(part.points[of[~shared]], cubes.points[own[~shared]], rtol=1e-14)
        assert len(part) == len(np.unique(own))


def test_ground_of_a_tile_is_that_of_the_whole():
    whole = field(60, 40)
    frame = Frame.of(whole.points)
    middle = (np.abs(whole.points[:, :2] - np.mean(whole.points[:, :2], axis=0)) < (12, 9)).all(1)
    near = (np.abs(whole.points[:, :2] - np.mean(whole.points[:, :2], axis=0)) < (21, 18)).all(1)
    expected = Ground(whole.points, side=3.0).height(whole.points[middle])
    found = Ground(whole.points[near], side=3.0, frame=frame).height(whole.points[middle])
    np.testing.assert_array_equal(found, expected)


def test_ground_in_a_wrong_unit_needs_no_more_memory():
    points = field(30, 20).points * 1e6
    assert max(Ground(points, side=1.0).parts[0].shape) <= 1025


def place(name: str, x: float, y: float, width: float = 100, depth: float = 100) -> Place:
    return Place(Path(name), Frame((x, y, 0), (x + width, y + depth, 9)), 1000)


def test_tiles_are_found():
    tiles = [place("a", 0, 0), place("b", 100, 0), place("c", 205, 3), place("d", 0, 98)]
    far = [place("far", 1000, 0), Place(Path("empty"), None, 0)]
    a, b, c, d, *others = surroundings([*tiles, *far], reach=10)
    assert {file.name for file in a.neighbours} == {"b", "d"}
    assert {file.name for file in b.neighbours} == {"a", "c", "d"}
    assert {file.name for file in c.neighbours} == {"b"}
    assert a.frame == b.frame == c.frame == d.frame == Frame((0, 0, 0), (305, 198, 9))
    assert others == [ALONE, ALONE]


def test_what_covers_the_same_place_is_no_tile():
    rooms = [place("room 1", 0, 0), place("room 2", 0.5, 0.2, 80, 90)]
    pair = [place("left", 500, 0), place("right", 595, 0)]  # which overlap by a seam
    found = surroundings([*rooms, *pair], reach=1000)
    assert found[:2] == [ALONE, ALONE]
    assert [len(each.neighbours) for each in found[2:]] == [1, 1]


def test_many_tiles_are_found_soon():
    tiles = [place(f"{x} {y}", 100 * x, 100 * y) for x in range(40) for y in range(40)]
    found = surroundings(tiles, reach=20)
    assert sorted({len(each.neighbours) for each in found}) == [3, 5, 8]


def test_files_of_tiles(run, tmp_path):
    """The same through files, whose formats differ, and a neighbour that cannot be read as one."""
    whole = field(24, 16, seed=5)
    tiles, _ = quarters(whole)
    tiles[3].fields.clear()
    files = [tmp_path / f"{k}.{suffix}" for k, suffix in enumerate(("las", "ply", "npz", "ply"))]
    for each, file in zip(tiles, files, strict=True):
        write_scan(replace(each, labels=None), file)
    places = [find_place(file) for file in files]
    around = surroundings(places, run.recipe.reach)
    with pytest.warns(UserWarning, match="has no intensity as .* does not see it"):
        result = label_file(run, Job(files[0], tmp_path / "o.las", around[0]), How(votes=1))
    assert result.points == len(tiles[0])
    frame = Frame.around(Frame.of(each.points) for each in tiles)
    expected = label_tile(run, tiles[0], tiles[1:3], frame, votes=1)
    found = read_scan(tmp_path / "o.las")
    assert (found.labels == expected.codes).mean() >= 0.999
    assert result.counts == dict(zip(*np.unique(found.labels, return_counts=True), strict=True))


def test_a_file_that_cannot_be_written_is_known_before(run, tmp_path):
    write_scan(field(3, 3), tmp_path / "in.las")
    run = replace(
        run, recipe=replace(run.recipe, classes=replace(run.recipe.classes, codes=(2, 300)))
    )
    run.network.forward = None  # never called
    with pytest.raises(ValueError, match=r"in\.las: LAS holds class codes 0 to 255, got 300"):
        label_file(run, Job(tmp_path / "in.las", tmp_path / "out.las"), How())
    assert [path.name for path in tmp_path.iterdir()] == ["in.las"]


def test_runs_say_how_wide_they_look_for_the_ground():
    scans = [scene(i) for i in range(3)]
    run = plan(Data("segmentation", scans, [], []), network="TinyPoints")
    assert run.recipe.ground > 0
    assert run.recipe.reach > run.recipe.block
