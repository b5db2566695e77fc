"""The data set: the same rooms every time, apart by split, with labels that fit the geometry."""

from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.scan import Scan
from pointwise.rooms import CLASSES, SPLITS, room, rooms
from pointwise.rooms.furnish import furnished
from pointwise.rooms.generate import room_numbers
from pointwise.rooms.solids import BALL, Solid

CODE = {name: code for code, name in enumerate(CLASSES)}
NOISE = 0.05  # metres: five times the largest range noise


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return [room(seed) for seed in range(12)]


def test_a_room_is_a_scan(scans):
    for seed, scan in enumerate(scans):
        n = len(scan)
        assert 60_000 < n < 120_000
        assert scan.points.dtype == np.float64
        assert scan.points.shape == (n, 3)
        assert scan.labels is not None
        assert scan.labels.dtype == np.int64
        assert scan.labels.shape == (n,)
        assert scan.fields["color"].dtype == np.uint8
        assert scan.fields["color"].shape == (n, 3)
        assert scan.fields["intensity"].dtype == np.float32
        assert scan.fields["intensity"].shape == (n,)
        assert scan.classes == dict(enumerate(CLASSES))
        assert scan.name == scan.group == f"room-{seed}"
        assert np.isfinite(scan.points).all()


def test_the_same_seed_gives_the_same_scan(scans):
    again = room(3)
    np.testing.assert_array_equal(again.points, scans[3].points)
    np.testing.assert_array_equal(again.labels, scans[3].labels)
    for name, values in scans[3].fields.items():
        np.testing.assert_array_equal(again.fields[name], values)
    assert again.points.shape != scans[4].points.shape or (again.points != scans[4].points).any()


def test_stations_and_rays_change_the_scan_and_not_the_room():
    one, two = room(5, stations=1, rays=20_000), room(5, stations=2, rays=40_000)
    assert 15_000 < len(one) < 21_000
    assert 30_000 < len(two) < 42_000
    for a, b in zip(one.points.max(axis=0), two.points.max(axis=0), strict=True):
        assert a == pytest.approx(b, abs=0.1)


def test_no_room_is_in_two_splits():
    numbers = [room_numbers(10_000, split, seed) for split in SPLITS for seed in range(3)]
    assert len(set().union(*numbers)) == sum(len(block) for block in numbers)
    names = [rooms(2, split, rays=1000)[1].name for split in SPLITS]
    assert names == ["room-1", "room-10001", "room-20001"]
    assert rooms(1, "test", seed=1, rays=1000)[0].name == "room-50000"


@pytest.mark.parametrize("split", SPLITS)
def test_eight_rooms_of_a_split_hold_every_class(split):
    seen = np.concatenate([scan.labels for scan in rooms(8, split, rays=50_000)])
    assert (np.bincount(seen, minlength=len(CLASSES)) > 100).all()


def test_most_rooms_have_most_classes():
    labels = [{solid.label for solid in furnished(seed)[1]} for seed in range(40)]
    share = {name: np.mean([code in room for room in labels]) for name, code in CODE.items()}
    for name in ("ceiling", "floor", "wall", "door", "clutter"):
        assert share[name] == 1.0
    for name in ("table", "chair", "bookcase"):
        assert share[name] > 0.85, name
    for name in ("column", "sofa", "board"):
        assert 0.4 <= share[name] < 0.95, name


def test_class_shares_are_those_of_scanned_rooms(scans):
    labels = np.concatenate([scan.labels for scan in scans])
    share = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    for name in ("ceiling", "wall"):
        assert 0.2 < share[CODE[name]] < 0.45
    assert 0.08 < share[CODE["floor"]] < 0.25
    for name in ("column", "door", "table", "chair", "sofa", "bookcase", "board", "clutter"):
        assert 0.004 < share[CODE[name]] < 0.12, name


def test_labels_agree_with_geometry(scans):
    for seed, scan in enumerate(scans):
        plan, _ = furnished(seed)
        points = {name: scan.points[scan.labels == code] for name, code in CODE.items()}
        x, y, z = scan.points.T
        assert plan.inside(x, y, plan.thickness + NOISE).all()
        assert z.min() > -NOISE
        assert z.max() < plan.height + NOISE
        assert np.abs(points["floor"][:, 2]).max() < NOISE
        assert np.abs(points["ceiling"][:, 2] - plan.height).max() < NOISE
        # Walls and boards are at the edge of the floor plan, boards hang (7 cm with their tray).
        for name, depth in (("wall", 0.0), ("board", 0.07)):
            px, py, _ = points[name].T
            assert not plan.inside(px, py, -depth - NOISE).any(), name
        if len(points["board"]):
            assert points["board"][:, 2].min() > 0.7
            assert points["board"][:, 2].max() < 2.4
        assert points["table"][:, 2].max() < 0.8 + NOISE
        assert points["door"][:, 2].max() < 2.3
        for name in ("chair", "sofa", "bookcase"):
            assert 0.5 < points[name][:, 2].max() < 2.3 if len(points[name]) else True
        if len(points["column"]) > 50:
            assert np.ptp(points["column"][:, 2]) > 0.6 * plan.height


def voxels(solids: list[Solid], size: float = 0.05) -> np.ndarray:
    """The keys of the voxels that solids fill, found by sampling each of them inside."""
    keys = [np.zeros(0, dtype=np.int64)]
    for solid in solids:
        counts = np.ceil(2 * np.linalg.norm(solid.axes, axis=0) / size).astype(int) + 1
        grid = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, n) for n in counts]), axis=-1)
        local = grid.reshape(-1, 3)
        if solid.kind == BALL:
            local = local[(local**2).sum(axis=1) <= 1.0]
        cell = np.floor((local @ solid.axes.T + solid.centre) / size).astype(np.int64) + 1000
        keys.append(np.unique(cell @ np.array([100_000_000, 10_000, 1])))
    return np.unique(np.concatenate(keys))


def test_furniture_stands_in_the_room_on_the_floor_and_not_in_other_furniture():
    names = ("column", "door", "board", "table", "chair", "sofa", "bookcase")
    corners = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(8, 3)
    for seed in range(12):
        plan, solids = furnished(seed)
        for solid in solids:
            if CLASSES[solid.label] in ("table", "chair", "sofa", "bookcase", "clutter"):
                x, y, z = (corners @ solid.axes.T + solid.centre).T
                assert plan.inside(x, y, 0.03).all(), (seed, CLASSES[solid.label])
                assert z.min() > -0.03
                assert z.max() < plan.height + 0.03
        filled = {name: voxels([s for s in solids if s.label == CODE[name]]) for name in names}
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                if {one, other} == {"table", "chair"}:
                    continue  # chairs are drawn up to tables
                shared = len(np.intersect1d(filled[one], filled[other]))
                assert shared <= 0.01 * min(len(filled[one]), len(filled[other])), (one, other)


def test_color_and_intensity_do_not_give_the_class_away(scans):
    def samples(part: list[Scan]) -> tuple[np.ndarray, np.ndarray]:
        rng, values, codes = np.random.default_rng(0), [], []
        for scan in part:
            assert scan.labels is not None
            for code in np.unique(scan.labels):
                index = rng.choice(np.flatnonzero(scan.labels == code), 30)
                brightness = 255 * np.sqrt(scan.fields["intensity"][index, None])
                values.append(np.hstack([scan.fields["color"][index], brightness]))
                codes.append(scan.labels[index])
        return np.concatenate(values).astype(float), np.concatenate(codes)

    known, known_codes = samples(scans[:8])
    asked, asked_codes = samples(scans[8:])
    nearest = ((asked[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)
    accuracy = (known_codes[nearest] == asked_codes).mean()  # balanced by the sampling
    assert 1 / len(CLASSES) < accuracy < 0.4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: room(-1), "room: seed must be 0 or more, got -1"),
        (lambda: room(0, stations=0), "room: stations must be 1 to 16, or None .*, got 0"),
        (lambda: room(0, rays=10), "room: rays must be at least 1000, got 10"),
        (lambda: rooms(2, "val"), "rooms: split must be one of train, validation, test, got 'val'"),
        (lambda: rooms(0), "rooms: count must be 1 to 10000, got 0"),
        (lambda: rooms(1, seed=-2), "rooms: seed must be 0 or more, got -2"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
