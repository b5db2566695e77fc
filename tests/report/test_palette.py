from __future__ import annotations

import colorsys
import itertools

import pytest
from colour_vision import VISION, ciede2000, lab, nearest

from pointwise.report.palette import UNLABELLED_COLOR, class_colors, rgb


def hue(color: str) -> float:
    return 360 * colorsys.rgb_to_hsv(*(byte / 255 for byte in rgb(color)))[0]


def test_rgb_reads_the_three_bytes():
    assert rgb("#0a80ff") == (10, 128, 255)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("low vegetation", 70, 160),
        ("High_Vegetation", 70, 160),
        ("ground", 20, 55),
        ("Building", 5, 40),
        ("water", 200, 240),
        ("chair", -10, 10),
    ],
)
def test_conventional_hues(name, low, high):
    found = hue(class_colors([name])[0])
    assert low <= (found + 180) % 360 - 180 <= high or low <= found <= high


def test_a_known_term_inside_a_longer_name_counts():
    assert class_colors(["low point (noise)"]) == class_colors(["noise"])
    assert class_colors(["medium-vegetation 3"]) == class_colors(["medium vegetation"])
    assert class_colors(["groundhog"]) != class_colors(["ground"])  # whole words only


def test_a_name_keeps_its_colour_in_any_company():
    alone = class_colors(["scaffold"])[0]
    for others in (["ground"], ["ground", "building", "water"], ["chair", "sofa"]):
        assert class_colors([*others, "scaffold"])[-1] == alone
    assert class_colors(["b", "a"]) == class_colors(["a", "b"])[::-1]


def test_no_two_classes_look_alike():
    for names in (
        ["tree", "high vegetation", "ground", "terrain"],
        [f"class {i}" for i in range(15)],
        [f"kind {i} of thing" for i in range(120)],
        [f"vegetation {i}" for i in range(40)],
    ):
        assert len(set(class_colors(names))) == len(names)


def test_numbered_classes_are_told_apart_by_eye():
    colors = [rgb(color) for color in class_colors([f"class {i}" for i in range(8)])]
    nearest = min(
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for one, other in itertools.combinations(colors, 2)
    )
    assert nearest > 60


ROOMS = ["ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa",
         "bookcase", "board", "clutter"]  # fmt: skip
OUTDOORS = ["ground", "low vegetation", "medium vegetation", "high vegetation", "building", "water",
            "noise", "rail", "road surface", "bridge deck", "wire conductor", "transmission tower",
            "car", "fence", "person"]  # fmt: skip
NUMBERS = [f"class {i}" for i in range(12)]


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("names", [ROOMS, OUTDOORS, NUMBERS], ids=["rooms", "outdoors", "numbers"])
def test_classes_are_told_apart_whatever_eyes_look(names, vision):
    """Before they were searched, the nearest two stood 1.4 apart without red or green cones."""
    colors = dict(zip(names, class_colors(names), strict=True), unlabelled=UNLABELLED_COLOR)
    least = 18.9 if vision == "normal" else 11.6
    assert nearest(colors, vision) > (least,)


def test_the_built_in_rooms_have_colours_of_that_set():
    from pointwise.rooms import CLASSES

    assert set(CLASSES) <= set(ROOMS)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [  # of the table of Sharma, Wu and Dalal
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.1848, -84.8006), (50, 0, -82.7485), 1.0000),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_the_published_one(one, other, distance):
    assert ciede2000(one, other) == pytest.approx(distance, abs=5e-5)
    assert ciede2000(other, one) == pytest.approx(distance, abs=5e-5)


def test_a_grey_stays_grey_for_all_eyes():
    for vision in VISION:
        assert abs(lab("#808080", vision)[1:]).max() < 0.2


def test_unlabelled_is_grey():
    red, green, blue = rgb(UNLABELLED_COLOR)
    assert red == green == blue
