"""The page of a profile: whole, self-contained, true to the profile, and usable in a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

from pointwise.costs.machine import Machine
from pointwise.costs.measure import ModuleTimes
from pointwise.costs.network import cost
from pointwise.costs.profiled import Profile, Row, profile
from pointwise.messages import duration, rounded
from pointwise.report.profile import write_page
from pointwise.report.roofline import drawing, plotted
from pointwise.timing import Times

TOY = Machine("a processor <of ours>", 2, 100.0, 10.0, caches=((2**17, 50.0), (2**20, 40.0)))


class Odd(nn.Module):
    """Every kind of sign, and a name that must not become HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "<b>": nn.Conv2d(4, 4, 3, padding=1),
                "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
                "grouped": nn.Conv2d(4, 4, 3, padding=1, groups=2),
                "pointwise": nn.Conv2d(4, 4, 1),
                "last": nn.Linear(8, 8),
            }
        )

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return x.relu()


@pytest.fixture
def found(monkeypatch) -> Profile:
    from pointwise.costs import measure

    monkeypatch.setattr(measure, "_call_ms", lambda: 0.002)
    monkeypatch.setattr(measure, "_launch_ms", lambda: 0.005)
    return profile(Odd(), (2, 4, 8, 8), rounds=1, machine=TOY)


@pytest.fixture
def page(found, tmp_path) -> Path:
    write_page(found, tmp_path / "page.html")
    return tmp_path / "page.html"


class Checker(HTMLParser):
    """Elements are closed in order, and ids are unique."""

    VOID = ("meta", "link", "br", "wbr", "path", "line", "polygon", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        if tag == "a":
            self.links.append(given["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(page, found):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\{\{\w+\}\}", text)
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", text)
    assert "default-src 'none'" in text
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    assert {link[1:] for link in checker.links} <= set(checker.ids)
    assert len(checker.links) == 2 * len(plotted(found.rows))
    assert "layers.<b>" not in text
    assert "layers.<wbr>&lt;b&gt;" in text
    assert "a processor &lt;of ours&gt;" in text
    assert [entry.name for entry in page.parent.iterdir()] == ["page.html"]


def test_it_can_be_read_without_eyes_and_without_a_script(page):
    text = page.read_text(encoding="utf-8")
    assert '<html lang="en">' in text
    assert text.count("<h1>") == 1
    assert text.count('scope="row"') > 6
    assert text.count('scope="col"') == 12 + 6
    assert len(re.findall(r"<caption>", text)) == 2
    for drawn in re.findall(r"<svg viewBox=\"0 0 (?:1040|370).*?</svg>", text, re.DOTALL):
        assert "aria-labelledby" in drawn
        assert "The table of layers has the same numbers" in drawn
    shown = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "layers.<wbr>depthwise" in shown


def test_a_kind_has_a_color_and_a_form_of_its_own():
    from pointwise.report import roofline

    signs = [*roofline._SIGNS.values(), roofline._OTHER]
    assert len({form for _, form in signs}) >= 5
    # Where two kinds share a color or a form, the other one tells them apart, or they do not meet.
    images = [roofline._SIGNS[kind] for kind in
              ("standard", "separable", "pointwise", "depthwise", "grouped", "linear")]  # fmt: skip
    assert len(set(images)) == len(images)


def test_signs_are_where_their_numbers_are(found):
    drawn = drawing(found, 1000, 500, "wide")
    places = re.findall(r'<a href="#layer-(\d+)"', drawn)
    assert {int(number) for number in places} == {number for number, _ in plotted(found.rows)}
    for number, row in plotted(found.rows):
        label = re.search(rf'#layer-{number}" aria-label="([^"]+)"', drawn).group(1)
        assert f"{rounded(row.count.intensity)} operations per byte" in label
        assert duration(row.milliseconds) in label


def test_a_profile_of_next_to_nothing_can_be_drawn(tmp_path):
    module = nn.Identity()
    seen = profile(nn.Sequential(module), (2, 3), rounds=1, machine=TOY)
    write_page(seen, tmp_path / "page.html")
    assert isinstance(seen.rows[0], Row)
    assert cost(module, (2, 3)).layers == []
    assert ModuleTimes(Times((1.0,)), {}, {}, {}, {}, 0.0, 0.0).launches == {}


def test_on_a_busy_machine_the_page_says_so_and_gives_no_reasons(found, tmp_path):
    rows = [replace(row, bound="", reason="") for row in found.rows]
    busy = replace(found, rows=rows, busy="other programs use 1.4 of its 2 processors")
    write_page(busy, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("This machine is busy: other programs use 1.4 of its 2 processors.") == 2
    assert " loses " not in text
    assert "<dt>of the roofline</dt><dd>–</dd>" in text


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_in_a_browser(page, found, width, scheme, chromium):
    opened = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text))
    opened.goto(page.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    visible = opened.locator("figure svg[role=group]:visible")
    assert visible.count() == 1
    names = opened.locator("#table tbody th")
    assert names.count() == len(found.rows)
    opened.get_by_role("button", name="ms", exact=True).click()
    times = opened.evaluate(
        "[...document.querySelectorAll('#table tbody tr')].map(r => +r.cells[2].dataset.value)"
    )
    assert times == sorted(times, reverse=True)
    head = opened.locator("#table thead th").nth(2)
    assert head.get_attribute("aria-sort") == "descending"
    opened.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    before = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.get_by_role("button", name="Dark or light").click()
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert (before == "rgb(255, 255, 255)") == (scheme == "light")
    number = plotted(found.rows)[0][0]
    visible.locator(f'a[href="#layer-{number}"]').focus()
    opened.keyboard.press("Enter")
    opened.wait_for_url(f"**#layer-{number}")  # a browser follows a link when it comes to it
    assert not wrong
    opened.close()


def test_numbers_in_the_page_are_the_profile_s(page, found):
    text = page.read_text(encoding="utf-8")
    rows = re.findall(r'<tr id="layer-(\d+)">(.*?)</tr>', text, re.DOTALL)
    assert len(rows) == len(found.rows)
    for (number, cells), row in zip(rows, found.rows, strict=True):
        values = re.findall(r'data-value="([^"]+)"', cells)
        assert int(number) == found.rows.index(row)
        assert float(values[0]) == pytest.approx(row.milliseconds, rel=1e-5)
        assert float(values[3]) == pytest.approx(row.count.multiply_adds, rel=1e-5)
    assert torch.get_num_threads() >= 1
