from __future__ import annotations

import colorsys
import itertools

import pytest

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
        ("ground", 20, 45),
        ("Building", 5, 40),
        ("water", 200, 240),
        ("chair", 0, 10),
    ],
)
def test_conventional_hues(name, low, high):
    assert low <= hue(class_colors([name])[0]) <= high


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


def test_unlabelled_is_grey():
    red, green, blue = rgb(UNLABELLED_COLOR)
    assert red == green == blue
