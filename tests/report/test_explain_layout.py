"""At the sizes of common screens nothing lies under anything else, and what is computed is seen."""

from __future__ import annotations

import pytest
from explain_pages import CLOUD_KINDS, IMAGE_KINDS, PASSES, choose

SIZES = [(1366, 768), (1400, 1000), (1920, 1080), (390, 844)]

# Pairs of visible elements that overlap, none of which is inside the other.
OVERLAPS = """() => {
    const shown = [...document.querySelectorAll(
        "canvas, button, select, input:not([type=radio]), .chips span, h1, h2, #bar, #words, #sum,"
        + "#about p, #about math[display], figcaption, .partial, .side, .side .scroll, .note,"
        + "#counts dd, #compare table, #lesson-panel p")]
        .filter(one => one.checkVisibility());
    const boxes = shown.map(one => one.getBoundingClientRect());
    const found = [];
    for (let i = 0; i < shown.length; i++)
        for (let j = i + 1; j < shown.length; j++) {
            const [a, b] = [boxes[i], boxes[j]];
            if (shown[i].contains(shown[j]) || shown[j].contains(shown[i])) continue;
            const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (across > 1 && down > 1)
                found.push([shown[i], shown[j]].map(e => e.id || e.className || e.tagName));
        }
    return found;
}"""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
def test_nothing_lies_under_anything(open_explain, size):
    page = open_explain(width=size[0], height=size[1])
    for kind in (*IMAGE_KINDS, *CLOUD_KINDS):
        for way in PASSES:
            choose(page, kind, way)
            page.evaluate("go(Math.floor(0.6 * state.plan.steps))")
            assert page.evaluate(OVERLAPS) == [], (kind, way)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], (kind, way)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
def test_nothing_lies_under_anything_in_a_lesson(open_explain, size):
    page = open_explain(width=size[0], height=size[1])
    for number in range(5):
        page.evaluate("number => openLesson(number, 2)", number)
        page.locator("#answers label").first.click()
        assert page.evaluate(OVERLAPS) == [], number
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], number


@pytest.mark.parametrize("size", SIZES[:3], ids=lambda size: "{}x{}".format(*size))
def test_the_whole_picture_is_in_the_window(open_explain, size):
    page = open_explain(width=size[0], height=size[1])
    for kind in (*IMAGE_KINDS, *CLOUD_KINDS):
        choose(page, kind)
        foot = page.locator("#stage").bounding_box()
        assert foot["y"] + foot["height"] <= size[1], kind


def test_outputs_show_their_numbers(open_explain):
    """In every cell where there is room, rounded to fit; else beside the cell of the step."""
    page = open_explain(width=1920, height=1080)
    for kind in IMAGE_KINDS:
        choose(page, kind)
        fonts = page.evaluate("state.scene.bands.map(band => band.font)")
        assert min(fonts) >= 7.5, kind
    small = open_explain(width=390, height=844)
    choose(small, "standard", channelsIn=8, channelsOut=8, height=16, width=16)
    small.evaluate("go(5)")
    assert small.evaluate("state.scene.bands[1].font") == 0
    canvas = small.locator(".band").nth(1).locator("canvas.plane").first
    labelled = canvas.screenshot()
    small.evaluate("drawLabel = () => {}")  # strict mode: a function declaration may be assigned
    small.evaluate("show()")
    assert canvas.screenshot() != labelled


def test_numbers_are_rounded_only_as_far_as_needed(open_explain):
    page = open_explain()
    written = "([value, room]) => written(value, room, 8)"
    wide = [page.evaluate(written, [-12.346, room]) for room in (60, 26, 20, 5)]
    assert wide == ["−12.346", "−12.3", "−12", "−12"]
    # Weights are never rounded: half a weight is another convolution.
    assert page.evaluate("fittingFont([[-0.25, 1]], 14, true)") == 0
    assert page.evaluate("fittingFont([[-0.25, 1]], 34, true)") > 10


def test_channels_have_scales_of_their_own(open_explain):
    page = open_explain()
    bands = page.evaluate("state.scene.bands.map(({most, planes}) => [most, planes])")
    for most, planes in bands:
        own = [max(abs(value) for row in plane for value in row) for plane in planes]
        assert most == own
    assert len(set(bands[1][0])) > 1
    captions = page.locator(".band").nth(1).locator("figcaption").all_inner_texts()
    assert [caption.split("±")[1] for caption in captions] == [f"{m:g}" for m in bands[1][0]]


INSIDE = """() => {
    const {view} = state.scene, width = view.canvas.clientWidth, height = view.canvas.clientHeight;
    const corners = [...view.seen, ...view.cubes.flatMap(cube => cube.corners)];
    return corners.every(({x, y}) => x >= 0 && y >= 0 && x <= width && y <= height);
}"""


@pytest.mark.parametrize("size", [(1366, 768), (390, 844)])
def test_cloud_and_kernel_are_inside_the_view_at_every_step(open_explain, size):
    page = open_explain(width=size[0], height=size[1])
    for given in ({}, {"dilation": 4, "cellSize": 0.6}, {"kernel": 5, "points": 1}):
        choose(page, "cells", **given)
        for point in range(0, page.evaluate("state.plan.settings.points"), 7):
            page.evaluate("point => go(point)", point)
            assert page.evaluate(INSIDE), (given, point)
            page.click('[data-turn="left"]')
            page.click('[data-turn="up"]')
            assert page.evaluate(INSIDE), (given, point)
            page.click('[data-turn="back"]')


def test_a_cloud_begins_at_a_point_with_neighbours(open_explain):
    for kind in CLOUD_KINDS:
        page = open_explain(f"#{kind}")
        cells = page.evaluate("state.plan.layers[0].table.map(cells => cells.length)")
        assert cells[page.evaluate("placeOf(state.plan, state.step).position")] == max(cells) > 8


def test_the_controls_stay_when_the_page_is_scrolled(open_explain):
    for size in SIZES:
        page = open_explain("#separable", width=size[0], height=size[1])
        page.evaluate("window.scrollTo(0, document.getElementById('stage').offsetTop + 60)")
        box = page.locator("#play").bounding_box()
        assert 0 <= box["y"] < size[1] / 3
