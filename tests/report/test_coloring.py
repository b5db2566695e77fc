from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.scan import Scan
from pointwise.messages import shortened
from pointwise.report.coloring import (
    called,
    ceiling,
    choose,
    groups,
    number,
    share,
    shown,
    size,
    stretch,
    ways,
)
from pointwise.report.palette import UNLABELLED_COLOR


def test_ways_are_those_that_would_show_something(room):
    assert ways(room) == ["label", "color", "intensity", "height"]
    room.labels[:] = -1
    room.fields["color"][:] = 0  # what LAS writers leave where there was no camera
    room.fields["intensity"][:] = np.nan
    assert ways(room) == ["height"]
    room.fields["intensity"][:] = 5
    assert ways(room) == ["height"]
    assert ways(Scan(points=np.zeros((3, 3)))) == ["height"]


def test_choose(room):
    assert choose(room, None) == "label"
    assert choose(room, "height") == "height"
    with pytest.raises(ValueError, match="by must be one of label, color, intensity, height, got"):
        choose(room, "altitude")
    del room.fields["color"]
    with pytest.raises(ValueError, match=r"by='color': this scan has no color.*label or intensity"):
        choose(room, "color")


def test_groups_are_the_classes_that_occur_and_the_unlabelled_last(room):
    room.classes = {1: "floor", 2: "wall", 5: "window", 8: ""}
    found = groups(room)
    assert [group.name for group in found] == ["class 0", "floor", "wall", "class 8", "unlabelled"]
    assert [int(group.mask.sum()) for group in found] == [600, 900, 500, 90, 10]
    assert found[-1].color == UNLABELLED_COLOR
    assert len({group.color for group in found}) == 5
    room.labels = None
    assert groups(room) == []


def test_ceiling_goes_by_its_name(room):
    assert ceiling(room).sum() == 600
    room.classes[0] = " Ceiling"
    assert ceiling(room).sum() == 600
    room.classes[0] = "roof"
    assert ceiling(room).sum() == 0
    room.labels = None
    assert ceiling(room).shape == (2100,)


def test_shown_leaves_out_points_without_coordinates(room):
    assert shown(room) is room
    room.points[3, 1] = np.nan
    room.points[4, 2] = np.inf
    kept = shown(room)
    assert len(kept) == 2098
    assert np.isfinite(kept.points).all()
    assert kept.labels is not None
    assert len(kept.labels) == 2098


def test_shown_needs_a_point(room):
    with pytest.raises(ValueError, match="room 12 holds no points"):
        shown(room.select(np.zeros(len(room), bool)))
    room.points[:, 0] = np.nan
    with pytest.raises(ValueError, match="none of its 2,100 points has finite coordinates"):
        shown(room)


def test_stretch():
    low, high = stretch(np.r_[np.linspace(0, 100, 1001), 1e9, np.nan])
    assert low == pytest.approx(1, abs=0.2)
    assert high == pytest.approx(99, abs=0.2)
    assert stretch(np.full(5, 3.0)) == (2.5, 3.5)
    assert stretch(np.r_[np.zeros(1000), 8.0]) == (0, 8)  # nearly all the same: the whole range


def test_words(room, tmp_path):
    assert called(room) == "room 12"
    assert called(Scan(np.zeros((1, 3)), source=tmp_path / "a.las")) == "a.las"
    assert called(Scan(np.zeros((1, 3)))) == "the scan"
    assert size(Scan(np.array([[0, 0, 0], [12000, 1.25, 0]]))) == "12,000 × 1.25 × 0"
    assert [share(n, 2000) for n in (0, 1, 2, 2000)] == ["0.0 %", "< 0.1 %", "0.1 %", "100.0 %"]
    assert (number(1, "point"), number(1200, "point")) == ("1 point", "1,200 points")
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefghi", 8) == "abcdefg…"
