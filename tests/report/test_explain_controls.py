"""Each control of the page, used as a reader uses it: by mouse and by keys."""

from __future__ import annotations

import re

import pytest
from explain_pages import CLOUD_KINDS, IMAGE_KINDS, PLAN, choose, library_outputs, shown

from pointwise.report.explain import examples

STEP = "state.step"


def stop_the_clock(page) -> None:
    """Time goes on only where a test says so."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def shape(page) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", page.text_content("#shape"))]


@pytest.mark.parametrize("kind", [*IMAGE_KINDS, *CLOUD_KINDS])
def test_choosing_a_convolution_shows_its_fields(open_explain, kind):
    page = open_explain()
    page.locator(f'[name="kind"][value="{kind}"]').check(force=True)
    names = page.evaluate(
        "[...document.querySelectorAll('#settings [name]')]"
        ".filter(f => f.checkVisibility()).map(f => f.name)"
    )
    sizes, kernel = "height width channelsIn", "kernel stride padding dilation"
    expected = {
        "standard": f"{sizes} channelsOut {kernel}",
        "depthwise": f"{sizes} multiplier {kernel}",
        "pointwise": f"{sizes} channelsOut stride",
        "separable": f"{sizes} channelsOut multiplier {kernel}",
        "grouped": f"{sizes} channelsOut groups {kernel}",
        "cells": "points channelsIn channelsOut cellSize kernel dilation",
        "cellsSeparable": "points channelsIn channelsOut cellSize kernel dilation",
    }[kind]
    assert names == expected.split()
    assert page.locator("#view").count() == (kind in CLOUD_KINDS)
    assert page.evaluate("state.plan.kind") == kind


def test_a_fragment_chooses_a_convolution(open_explain):
    assert open_explain("#grouped").evaluate("state.kind") == "grouped"
    assert open_explain("#nothing").evaluate("state.kind") == "standard"


@pytest.mark.parametrize(
    ("kind", "field", "value", "expected"),
    [
        ("standard", "#set-height", "5", [4, 5, 8]),
        ("standard", "#set-width", "11", [4, 8, 11]),
        ("standard", "#set-in", "2", [4, 8, 8]),
        ("standard", "#set-out", "7", [7, 8, 8]),
        ("standard", "#set-stride", "3", [4, 3, 3]),
        ("depthwise", "#set-multiplier", "3", [12, 8, 8]),
        ("grouped", "#set-groups", "4", [4, 8, 8]),
        ("cells", "#set-points", "33", [33, 3]),
        ("cells", "#set-cloud-in", "4", [60, 3]),
        ("cells", "#set-cloud-out", "1", [60, 1]),
        ("cells", "#set-cell-size", "0.5", [60, 3]),
        ("cells", "#set-cells", "5", [60, 3]),
        ("cells", "#set-cloud-dilation", "2", [60, 3]),
    ],
)
def test_typing_into_a_field(open_explain, kind, field, value, expected):
    page = open_explain(f"#{kind}")
    before = page.text_content("#total") + page.text_content("#sum")
    page.fill(field, value)
    assert shape(page) == expected
    assert page.text_content("#total") + page.text_content("#sum") != before
    assert page.input_value("#example") == ""


def test_kernel_padding_and_dilation_change_the_output(open_explain):
    page = open_explain()
    page.select_option("#set-padding", "0")
    assert shape(page) == [4, 6, 6]
    page.fill("#set-kernel", "5")
    assert shape(page) == [4, 4, 4]
    page.select_option("#set-padding", "2")
    assert shape(page) == [4, 8, 8]
    page.fill("#set-dilation", "2")
    assert shape(page) == [4, 4, 4]


def test_the_buttons_of_a_field(open_explain):
    page = open_explain("#cells")
    for field, up, down in [
        ("#set-points", "61", "59"),
        ("#set-cell-size", "0.4", "0.3"),
        ("#set-cells", "5", "1"),
    ]:
        start = page.input_value(field)
        minus, plus = page.locator(f".stepper:has({field}) button").all()
        plus.click()
        assert page.input_value(field) == up
        minus.click()
        assert page.input_value(field) == start
        minus.click()
        assert page.input_value(field) == down
        assert not page.locator("#problem").is_visible()
        plus.click()


def test_every_example(open_explain):
    page = open_explain()
    for name, kind, given in examples.EXAMPLES:
        page.select_option("#example", name)
        settings = examples.settings_of(kind, given)
        plan = page.evaluate(PLAN, [kind, settings])
        assert page.locator('[name="kind"]:checked').get_attribute("value") == kind
        assert page.input_value("#example") == name
        page.click("#last")
        last = library_outputs(kind, settings, plan)[-1][-1, -1]
        assert page.text_content("#result") == shown(last)


def test_the_buttons_for_steps(open_explain):
    page = open_explain()
    assert page.evaluate(STEP) == 0
    for button, step in [("next", 1), ("next", 2), ("previous", 1), ("last", 255), ("next", 255),
                         ("first", 0), ("previous", 0)]:  # fmt: skip
        page.click(f"#{button}")
        assert page.evaluate(STEP) == step
        assert page.text_content("#step-shown") == f"{step + 1} of 256"


def test_the_slider_for_steps(open_explain):
    page = open_explain()
    page.fill("#step", "100")
    assert page.evaluate(STEP) == 99
    page.focus("#step")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(STEP) == 100
    page.keyboard.press("End")
    assert page.evaluate(STEP) == 255
    spoken = page.get_attribute("#step", "aria-valuetext")
    assert spoken == "256 of 256: output channel 3, row 7, column 7"


def test_arrow_keys_step_from_anywhere_but_fields(open_explain):
    page = open_explain()
    for key, step in [
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 255),
        ("Home", 0),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(STEP) == step
    page.focus("#next")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(STEP) == 1
    page.focus("#set-height")  # there, they are the field's
    page.keyboard.press("ArrowUp")
    assert page.input_value("#set-height") == "9"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(STEP) == 0  # a change of size starts again
    page.keyboard.press("Control+ArrowRight")
    assert page.evaluate(STEP) == 0


def test_keys_walk_over_the_outputs(open_explain):
    page = open_explain()
    page.evaluate("go(70)")  # channel 1, row 0, column 6
    outputs = page.locator("[data-walk]")
    outputs.focus()
    where = "(({channel, row, column}) => [channel, row, column])(placeOf(state.plan, state.step))"
    for key, place in [("ArrowDown", [1, 1, 6]), ("ArrowRight", [1, 1, 7]), ("PageDown", [2, 1, 7]),
                       ("ArrowUp", [2, 0, 7]), ("PageUp", [1, 0, 7]), ("PageUp", [0, 0, 7]),
                       ("PageUp", [0, 0, 7]), ("ArrowUp", [0, 0, 7])]:  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate(where) == place
    described = outputs.get_attribute("aria-describedby")
    assert page.locator(f"#{described}").inner_text()


def test_keys_walk_over_the_channels_of_a_cloud(open_explain):
    page = open_explain("#cells")
    page.evaluate("go(7)")
    page.locator("[data-walk]").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(STEP) == 67
    page.keyboard.press("PageUp")
    assert page.evaluate(STEP) == 7


@pytest.mark.parametrize("kind", ["standard", "separable", "cells"])
def test_a_click_on_an_output_goes_there(open_explain, kind):
    page = open_explain(f"#{kind}")
    page.evaluate("go(state.plan.steps - 1)")
    if kind == "cells":
        cell, tall = page.evaluate("[state.scene.strips[1].cell, state.scene.strips[1].tall]")
        page.locator("canvas.strip").nth(1).click(
            position={"x": 2 + 17.5 * cell, "y": 2 + 1.5 * tall}
        )
        assert page.evaluate(STEP) == 60 + 17
        return
    cell = page.evaluate("state.scene.bands[1].cell")
    plane = page.locator("canvas.pick").nth(2)  # channel 2 of the first layer
    plane.click(position={"x": 2 + 5.5 * cell, "y": 2 + 3.5 * cell})
    assert page.evaluate(STEP) == 2 * 64 + 3 * 8 + 5
    if kind == "separable":
        page.locator("canvas.pick").nth(4 + 1).click(
            position={"x": 2 + 0.5 * cell, "y": 2 + 0.5 * cell}
        )
        assert page.evaluate(STEP) == 4 * 64 + 64


def test_play_runs_to_the_end_and_starts_again(open_explain):
    page = open_explain()
    choose(page, "standard", height=2, width=3, channelsIn=1, channelsOut=1)
    stop_the_clock(page)
    page.select_option("#speed", "4")
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.clock.run_for(510)
    assert page.evaluate(STEP) == 2
    page.select_option("#speed", "0.5")  # takes effect at once
    page.clock.run_for(1990)
    assert page.evaluate(STEP) == 2
    page.clock.run_for(20)
    assert page.evaluate(STEP) == 3
    page.select_option("#speed", "32")
    page.clock.run_for(1000)
    assert page.evaluate(STEP) == 5
    assert page.get_attribute("#play", "aria-label") == "Play"
    page.click("#play")
    assert page.evaluate(STEP) == 0
    page.clock.run_for(40)
    page.click("#play")
    page.clock.run_for(1000)
    assert page.evaluate(STEP) == 1


def test_the_space_bar_plays_and_any_step_pauses(open_explain):
    page = open_explain()
    stop_the_clock(page)
    page.keyboard.press("Space")
    page.clock.run_for(600)
    assert page.evaluate(STEP) == 1
    # Nobody could follow: it is read out again when it rests.
    assert page.get_attribute("#words", "aria-live") == "off"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("[state.step, state.timer]") == [2, None]
    assert page.get_attribute("#words", "aria-live") == "polite"
    page.focus("#next")
    page.keyboard.press("Space")  # a button is pressed by it
    assert page.evaluate("[state.step, state.timer]") == [3, None]


def test_turning_the_cloud(open_explain):
    page = open_explain("#cells&step=1")
    view = "[state.scene.view.yaw, state.scene.view.pitch, state.scene.view.zoom]"
    start = page.evaluate(view)
    box = page.locator("#view").bounding_box()
    x, y = box["x"] + 300, box["y"] + 40
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30, steps=3)
    page.mouse.up()
    turned = page.evaluate(view)
    assert turned[0] - start[0] == pytest.approx(0.6)
    assert turned[1] - start[1] == pytest.approx(0.3)
    assert page.evaluate(STEP) == 0  # dragging chooses no point
    before = page.locator("#view").screenshot()
    for name, axis in [
        ("left", 0),
        ("right", 0),
        ("up", 1),
        ("down", 1),
        ("nearer", 2),
        ("farther", 2),
    ]:
        was = page.evaluate(view)
        page.click(f'[data-turn="{name}"]')
        now = page.evaluate(view)
        changed = [i for i in range(3) if now[i] != was[i]]
        assert changed == [axis]
    page.click('[data-turn="back"]')
    assert page.evaluate(view) == start
    assert page.locator("#view").screenshot() != before


def test_keys_turn_the_cloud_and_step(open_explain):
    page = open_explain("#cellsSeparable&step=1")
    view = "[state.scene.view.yaw, state.scene.view.pitch, state.scene.view.zoom]"
    start = page.evaluate(view)
    page.focus("#view")
    for key, axis, sign in [("ArrowLeft", 0, -1), ("ArrowRight", 0, 1), ("ArrowUp", 1, 1),
                            ("ArrowDown", 1, -1), ("+", 2, 1), ("-", 2, -1)]:  # fmt: skip
        was = page.evaluate(view)
        page.keyboard.press(key)
        assert sign * (page.evaluate(view)[axis] - was[axis]) > 0
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("0")
    assert page.evaluate(view) == start
    assert page.evaluate(STEP) == 0
    page.keyboard.press(".")
    page.keyboard.press(".")
    page.keyboard.press(",")
    assert page.evaluate(STEP) == 1


def test_the_cloud_stays_turned_while_sizes_change(open_explain):
    page = open_explain("#cells")
    page.click('[data-turn="left"]')
    turned = page.evaluate("state.scene.view.yaw")
    page.fill("#set-cell-size", "0.5")
    assert page.evaluate("state.scene.view.yaw") == turned


def test_a_click_on_a_point_goes_there(open_explain):
    page = open_explain("#cells")
    page.evaluate("go(65)")  # channel 1
    x, y = page.evaluate("[state.scene.view.seen[44].x, state.scene.view.seen[44].y]")
    page.click("#view", position={"x": x, "y": y})
    place = page.evaluate("placeOf(state.plan, state.step).position")
    near = page.evaluate(
        "p => (seen => Math.hypot(seen[p].x - seen[44].x, seen[p].y - seen[44].y))"
        "(state.scene.view.seen)",
        place,
    )
    assert near < 1
    assert page.evaluate("placeOf(state.plan, state.step).channel") == 1


def test_the_table_of_cells_is_the_librarys(open_explain):
    from explain_pages import PLAN, neighborhood

    page = open_explain("#cells")
    page.evaluate("go(27)")
    plan = page.evaluate(PLAN, ["cells", examples.CLOUD])
    query, cell, _ = neighborhood(examples.CLOUD, plan).decode()
    cells, counts = cell[query == 27].unique(return_counts=True)
    rows = [r.split() for r in page.locator("table.cells tbody tr").all_inner_texts()]
    assert [(int(row[0]), int(row[1])) for row in rows] == list(
        zip(cells.tolist(), counts.tolist(), strict=True)
    )
    assert page.text_content(".side .note").startswith(f"{27 - len(cells)} empty cells add nothing")


def test_the_comparison_for_other_sizes(open_explain):
    page = open_explain("#separable")
    rows = {
        row.get_attribute("data-kind"): row.locator("td").all_inner_texts()
        for row in page.locator("#costs tr").all()
    }
    assert rows["standard"] == ["144", "9,216", "100 %"]
    assert rows["separable"][:2] == ["52", "3,328"]
    assert page.locator("#costs tr[aria-current]").get_attribute("data-kind") == "separable"
    page.select_option("#job", "12 × 12 → 8 × 8, 3 → 256 channels, 5 × 5")
    texts = page.locator("#costs").inner_text()
    assert "1,228,800" in texts
    assert "53,952" in texts
    assert "no number of groups divides both" in texts
    page.fill("#set-height", "9")  # the job stays chosen
    assert "53,952" in page.locator("#costs").inner_text()


def test_all_products_as_a_table(open_explain):
    page = open_explain()
    page.click("#numbers summary")
    page.wait_for_selector("#products tbody tr", state="attached")  # written when it has opened
    cells = page.locator("#products tbody tr").first.locator("td").all_inner_texts()
    assert cells == ["0", "padding", "0", "0.25", "0"]
    assert page.locator("#products tbody tr").count() == 36
    page.click("#next")  # it follows the steps
    assert page.locator("#products caption").inner_text() == "What makes y[0, 0, 1]"


INVALID = [
    ("standard", {"#set-kernel": "7", "#set-dilation": "3", "padding": "0"},
     "A kernel of 7 × 7 with dilation 3 reaches over 19 × 19 pixels: the input has only 8 × 8 "
     "pixels. Choose a smaller kernel or dilation, more padding or a larger input."),
    ("depthwise", {"#set-kernel": "7", "#set-height": "2", "padding": "1"},
     "A kernel of 7 × 7 is too large: the input has only 4 × 10 pixels, padding included. "
     "Choose a smaller kernel, more padding or a larger input."),
    ("grouped", {"#set-groups": "3"},
     "3 groups do not divide 4 channels in and 4 channels out. These numbers do: 1, 2, 4."),
    ("grouped", {"#set-in": "3", "#set-out": "4"},
     "2 groups do not divide 3 channels in and 4 channels out. Only 1 group does: change the "
     "channels."),
    ("standard", {"#set-height": "0"}, "Height must be a whole number from 1 to 16."),
    ("standard", {"#set-width": "17"}, "Width must be a whole number from 1 to 16."),
    ("standard", {"#set-in": ""}, "Channels in must be a whole number from 1 to 8."),
    ("standard", {"#set-stride": "1.5"}, "Stride must be a whole number from 1 to 4."),
    ("cells", {"#set-cells": "2"}, "Cells a side must be an odd number from 1 to 5."),
    ("cells", {"#set-cell-size": "-1"}, "Cell size must be a number from 0.05 to 2."),
    ("cells", {"#set-points": "1e3"}, "Points must be a whole number from 1 to 96."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "sentence"), INVALID)
def test_what_does_not_go_is_said_and_breaks_nothing(open_explain, kind, given, sentence):
    page = open_explain(f"#{kind}")
    shown_before = page.text_content("#shape")
    before = {field: page.input_value(field) for field in given if field[0] == "#"}
    for field, value in given.items():
        if field == "padding":
            page.select_option("#set-padding", value)
        else:
            page.fill(field, value)
    alert = page.get_by_role("alert")
    assert alert.inner_text() == sentence
    assert not page.locator("#work").is_visible()
    assert page.locator('[aria-invalid="true"]').count() == 1
    for key in ("ArrowRight", "Space", "End"):  # nothing to step through, and no error
        page.locator("h1").click()
        page.keyboard.press(key)
    for field, value in before.items():
        page.fill(field, value)
    if "padding" in given:
        page.select_option("#set-padding", "same")
    assert not alert.is_visible()
    assert page.locator("#work").is_visible()
    assert page.text_content("#shape") == shown_before
    assert page.locator('[aria-invalid="true"]').count() == 0
    begun = page.evaluate(STEP)
    page.click("#next")
    assert page.evaluate(STEP) == begun + 1


def test_everything_by_keyboard_alone(open_explain):
    """From the top of the page: another convolution, another size, some steps, the table."""
    page = open_explain()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "lesson"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("state.kind") == "depthwise"
    visited = []
    for _ in range(30):
        page.keyboard.press("Tab")
        active = page.evaluate(
            "(e => [e.id || e.dataset.walk || e.tagName, getComputedStyle(e).outlineStyle,"
            " getComputedStyle(e.closest('.stepper') || e).outlineStyle])(document.activeElement)"
        )
        visited.append(active[0])
        assert "solid" in active[1:], active  # the focus is seen
        if active[0] == "set-kernel":
            page.keyboard.press("ArrowUp")
            page.keyboard.press("ArrowUp")
        elif active[0] == "next":
            page.keyboard.press("Enter")
        elif active[0] == "outputs":
            page.keyboard.press("ArrowDown")
        elif active[0] == "SUMMARY":
            page.keyboard.press("Enter")
            break
    assert visited == [
        "example", "set-height", "set-width", "set-in", "set-multiplier", "set-kernel",
        "set-stride", "set-padding", "set-dilation", "INPUT", "first", "previous", "play", "next",
        "last", "step", "speed", "outputs", "SUMMARY",
    ]  # fmt: skip
    assert page.evaluate("state.plan.settings.kernel") == 5
    assert page.evaluate(STEP) == 8 + 1
    assert page.locator("#products").is_visible()


def test_the_skip_link_leads_to_the_picture(open_explain):
    page = open_explain()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "picture"


def test_keys_are_listed(open_explain):
    page = open_explain()
    keys = page.locator("#keys").inner_text()
    for words in (
        "previous, next step",
        "play, pause",
        "first, last step",
        "previous, next channel",
    ):
        assert words in keys
    assert "3-d view" not in keys
    choose(page, "cells")
    assert "in the 3-d view: turn" in page.locator("#keys").inner_text()
