"""A link restores what was seen."""

from __future__ import annotations

import pytest
from explain_pages import CLOUD_KINDS, IMAGE_KINDS, choose

SEEN = """() => ({
    kind: state.kind, pass: state.pass, step: state.step, settings: state.plan.settings,
    lesson: [lesson.number, lesson.page], result: document.getElementById("result").textContent,
})"""


def used(page, seen: dict) -> dict:
    """What is seen, but for settings that the convolution does not use."""
    names = page.evaluate("USED[state.kind]")
    return {**seen, "settings": {name: seen["settings"][name] for name in names}}


@pytest.mark.parametrize("way", ["forward", "input", "weight"])
@pytest.mark.parametrize("kind", [*IMAGE_KINDS, *CLOUD_KINDS])
def test_the_address_restores_what_is_seen(open_explain, kind, way):
    page = open_explain()
    given = (
        {"points": 40, "cellSize": 0.45, "dilation": 2, "channelsOut": 2}
        if kind in CLOUD_KINDS
        else {"height": 7, "channelsIn": 2, "channelsOut": 6, "stride": 2, "padding": 1}
    )
    choose(page, kind, way, **given)
    page.evaluate("go(Math.floor(0.7 * state.plan.steps))")
    fragment = page.evaluate("location.hash")
    assert page.locator("#link").get_attribute("href") == fragment
    other = open_explain(fragment)
    assert used(other, other.evaluate(SEEN)) == used(page, page.evaluate(SEEN))
    assert other.evaluate("location.hash") == fragment


def test_a_lesson_is_part_of_the_link(open_explain):
    page = open_explain()
    page.evaluate("openLesson(2, 3)")
    other = open_explain(page.evaluate("location.hash"))
    assert used(other, other.evaluate(SEEN)) == used(page, page.evaluate(SEEN))
    assert other.locator("#lesson-page").inner_text() == "4 of 6"
    assert other.text_content("#question") == page.text_content("#question")


def test_an_address_that_is_typed_is_followed(open_explain):
    page = open_explain()
    page.evaluate("location.hash = '#depthwise&height=5&multiplier=3&step=20'")
    page.wait_for_function("state.kind === 'depthwise'")
    assert page.evaluate("[state.step, state.plan.settings.height]") == [19, 5]
    assert page.text_content("#shape") == "[12, 5, 8]"


def test_what_an_address_has_wrong_is_left_out_or_said(open_explain):
    page = open_explain("#nothing&height=5")
    assert page.evaluate("[state.kind, state.plan.settings.height]") == ["standard", 8]
    page = open_explain("#standard&padding=17&colour=red&pass=up&step=0.5&lesson=9.9&stride")
    assert page.evaluate("[state.pass, state.step, state.plan.settings.padding]") == [
        "forward",
        0,
        "same",
    ]
    assert not page.locator("#lesson-panel").is_visible()
    page = open_explain("#standard&height=99")
    assert page.get_by_role("alert").inner_text() == "Height must be a whole number from 1 to 16."
    page = open_explain("#standard&step=9999")
    assert page.evaluate("state.step") == 255


def test_playing_leaves_the_address_alone_until_it_rests(open_explain):
    page = open_explain()
    before = page.evaluate("location.hash")
    page.evaluate("play()")
    page.evaluate("go(9)")
    assert page.evaluate("location.hash") == before
    page.evaluate("pause()")
    assert page.evaluate("location.hash") == before + "&step=10"
    assert page.evaluate("history.length") <= 2


def test_a_click_on_the_link_copies_it_or_says_where_it_is(open_explain):
    page = open_explain("#grouped&step=7")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#link")
    page.wait_for_function("document.getElementById('link-told').textContent !== ''")
    said = page.text_content("#link-told")
    if said == "Copied.":
        assert page.evaluate("navigator.clipboard.readText()") == page.url
    else:
        assert said == "It stands in the address bar."
    assert page.url.endswith("&step=7")
