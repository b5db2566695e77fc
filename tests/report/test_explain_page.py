"""The page as a file: complete, small, asking for nothing; and readable on any screen."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from colour_vision import VISION, nearest
from explain_pages import CLOUD_KINDS, IMAGE_KINDS, choose

from pointwise.report import explain

KINDS = (*IMAGE_KINDS, *CLOUD_KINDS)


class Elements(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def text(explain_file) -> str:
    return explain_file.read_text(encoding="utf-8")


def test_it_is_one_small_file_that_loads_nothing(text, explain_file):
    assert explain_file.stat().st_size < 500_000
    elements = Elements(text).found
    assert [a for _, a in elements if "src" in a or a.get("href", "#")[0] != "#"] == [
        {"rel": "icon", "href": "data:,"}
    ]
    policy = next(a["content"] for _, a in elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not re.search(r"https?://|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket", text)


def test_every_part_is_in_it_and_no_part_is_forgotten(text):
    folder = files("pointwise.report.explain")
    parts = {entry.name for entry in folder.iterdir() if entry.name.endswith((".js", ".css"))}
    assert parts == {*explain.SCRIPTS, "style.css"}
    for name in parts:
        assert folder.joinpath(name).read_text(encoding="utf-8") in text
    assert "{{" not in text


def test_ids_are_unique_and_labels_point_to_fields(text):
    elements = Elements(text).found
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    pointing = [a[name] for _, a in elements for name in ("for", "aria-labelledby") if name in a]
    assert len(pointing) > 15
    assert set(pointing) <= set(ids)
    # a fragment chooses a convolution, and must not make the browser scroll to a part of the page
    assert not set(KINDS) & set(ids)


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(open_explain, width):
    page = open_explain(width=width)
    outside = """() => [...document.querySelectorAll('main canvas, main table, button, select')]
        .filter(e => e.checkVisibility() && !e.closest('.scroll'))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
        .map(e => e.outerHTML.slice(0, 80))"""
    for kind in KINDS:
        choose(page, kind)
        page.evaluate("go(Math.floor(state.plan.steps / 2))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, kind
        assert page.evaluate(outside) == [], kind


def test_the_largest_settings_fit_on_a_phone(open_explain):
    page = open_explain(width=360)
    largest = {"height": 16, "width": 16, "channelsIn": 8, "channelsOut": 8, "kernel": 7}
    choose(page, "separable", **largest, multiplier=4, padding=4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("canvas.plane").count() == 8 + 32 + 8


def test_fingers_find_the_buttons(open_explain):
    page = open_explain("#cells", width=360, has_touch=True)
    page.click("#settings summary")
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        # at least 24 pixels, as WCAG 2.2 asks; those for the steps are larger
        assert min(box["width"], box["height"]) >= 24
    for name in ("first", "previous", "play", "next", "last"):
        box = page.locator(f"#{name}").bounding_box()
        assert min(box["width"], box["height"]) >= 40


CONTRAST = """() => {
    const parse = text => {
        const numbers = text.match(/[\\d.]+/g).map(Number);
        return {rgb: numbers.slice(0, 3), alpha: numbers.length > 3 ? numbers[3] : 1};
    };
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const {rgb, alpha} = parse(getComputedStyle(e).backgroundColor);
            if (alpha === 1) return rgb;
        }
        return parse(getComputedStyle(document.body).backgroundColor).rgb;
    };
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let checked = 0;
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        if (element.closest("script, style, option")) continue;
        checked++;
        const [front, back] = [parse(getComputedStyle(element).color).rgb, behind(element)];
        const [a, b] = [luminance(front), luminance(back)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) poor.push([walker.currentNode.data.trim(), ratio]);
    }
    return {checked, poor};
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["standard", "cells"])
def test_every_text_stands_out(open_explain, kind, scheme):
    page = open_explain(f"#{kind}", color_scheme=scheme)
    page.evaluate("go(40)")
    page.click("#numbers summary")
    page.wait_for_selector("#products tbody tr", state="attached")  # written when it has opened
    found = page.evaluate(CONTRAST)
    assert found["checked"] > 100
    assert found["poor"] == []
    page.fill("#set-height" if kind == "standard" else "#set-points", "0")
    found = page.evaluate(CONTRAST)
    assert found["poor"] == []


def test_black_and_white_stand_out_on_every_shade(open_explain):
    for scheme in ("light", "dark"):
        page = open_explain(color_scheme=scheme)
        least = page.evaluate(
            """() => Math.min(...Array.from({length: 401}, (_, i) => {
                const color = shade((i - 200) / 200, 1), white = textOn(color) === "#ffffff";
                const [a, b] = [luminance(color), white ? 1 : 0].sort((x, y) => y - x);
                return (a + 0.05) / (b + 0.05);
            }))"""
        )
        assert least >= 4.5


def test_frames_and_values_differ_for_colour_blind_eyes(open_explain):
    """Positive, negative, zero and the frame, as people without one kind of cone see them."""
    for scheme in ("light", "dark"):
        page = open_explain(color_scheme=scheme)
        colors = page.evaluate("({...COLORS, cells: null})")
        named = {key: colors[key] for key in ("positive", "negative", "surface", "mark")}
        for vision in VISION:  # 1 can just be seen; frames have a halo besides
            assert nearest(named, vision) > (9,), (scheme, vision)


def test_the_colours_follow_the_system_also_while_it_is_open(open_explain):
    page = open_explain(color_scheme="light")
    light = page.evaluate("[COLORS.surface, getComputedStyle(document.body).backgroundColor]")
    before = page.locator("canvas.plane").first.screenshot()
    page.emulate_media(color_scheme="dark")
    # the page is told with the next picture
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    dark = page.evaluate("[COLORS.surface, getComputedStyle(document.body).backgroundColor]")
    assert light == ["#ffffff", "rgb(246, 245, 241)"]
    assert dark == ["#1a2029", "rgb(17, 21, 27)"]
    assert page.locator("canvas.plane").first.screenshot() != before


def test_less_motion_for_those_who_ask_for_it(open_explain):
    moving = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    calm = open_explain(reduced_motion="reduce")
    assert calm.evaluate(moving) in ("0s", "none")
    assert calm.input_value("#speed") == "1"
    usual = open_explain(reduced_motion="no-preference")
    assert usual.evaluate(moving) != "0s"
    assert usual.input_value("#speed") == "2"


def test_every_control_and_picture_has_a_name(open_explain):
    for kind in KINDS:
        page = open_explain(f"#{kind}")
        tree = page.locator("body").aria_snapshot()
        for role in (
            "button",
            "combobox",
            "slider",
            "spinbutton",
            "radio",
            "img",
            "table",
            "region",
            "application",
        ):
            nameless = re.findall(rf"^\s*- {role}(?! \")(?=[:\s]|$).*", tree, re.MULTILINE)
            assert nameless == [], (kind, nameless)
        assert re.search(r'- radio "[^"]+" \[checked\]', tree)
        canvases = page.locator("canvas").all()
        assert canvases
        assert all(c.get_attribute("aria-label") and c.get_attribute("role") for c in canvases)


def test_headings_and_landmarks_are_in_order(open_explain):
    page = open_explain()
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].filter(h => h.checkVisibility())"
        ".map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert page.locator("main").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


def test_every_convolution_says_what_it_is(open_explain):
    page = open_explain()
    for kind in KINDS:
        choose(page, kind)
        about = page.locator("#about > .shown")
        assert about.count() == 1
        assert about.get_attribute("data-about") == kind
        assert about.locator("p").inner_text().endswith(".")
        formula = about.locator("math[display]").first.bounding_box()
        assert formula["height"] > 15
        assert formula["width"] > 100
