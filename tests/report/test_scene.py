from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pointwise.cloud.scan import Scan
from pointwise.report.scene import frame, thin, ticks, write_page


class Page(HTMLParser):
    """The parts of a page that matter here: its elements' attributes, and the texts in them."""

    def __init__(self, path: Path):
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, str] = {}
        self.tag = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.scene = json.loads(self.texts["script#data"])

    def handle_starttag(self, tag, attrs):
        named = dict(attrs).get("id")
        self.tag = f"{tag}#{named}" if named else tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.texts[self.tag] = self.texts.get(self.tag, "") + data

    def handle_endtag(self, tag):
        self.tag = ""


def decode(array: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])


def positions(page: Page) -> list[np.ndarray]:
    """The true coordinates [N, 3] of each trace of points."""
    return [
        np.stack([decode(trace[axis]) for axis in "xyz"], 1) + np.array(page.scene["origin"])
        for trace in page.scene["figure"]["data"]
        if not trace["showlegend"]
    ]


def write(scan: Scan, folder: Path, **options) -> Page:
    write_page(scan, folder / "page.html", **options)
    return Page(folder / "page.html")


def test_the_page_loads_nothing_from_anywhere(room, tmp_path):
    page = write(room, tmp_path)
    loading = [
        (tag, name, value) for tag, name, value in page.attributes if name in ("src", "href")
    ]
    assert loading == [("link", "href", "data:,")]
    policy = [value for _, name, value in page.attributes if name == "content"]
    assert any("default-src 'none'" in value and "http" not in value for value in policy)
    own = (
        page.texts["script#data"]
        + page.texts["style"]
        + page.texts["script"].split("use strict")[-1]
    )
    assert not re.search(r"https?://|@import|\bimport\s*\(|url\(", own)


def test_the_points_are_the_scans(room, tmp_path):
    page = write(room, tmp_path)
    found = positions(page)
    assert [len(part) for part in found] == [600, 900, 500, 90, 10]
    for code, part in zip([0, 1, 2, 8, -1], found, strict=True):
        np.testing.assert_allclose(part, room.points[room.labels == code], rtol=0, atol=1e-6)


def test_every_class_is_in_the_legend_with_its_count_and_share(room, tmp_path):
    page = write(room, tmp_path)
    legend = [t for t in page.scene["figure"]["data"] if t["showlegend"]]
    assert [trace["name"] for trace in legend] == [
        "ceiling · 600 · 28.6 %",
        "floor · 900 · 42.9 %",
        "wall · 500 · 23.8 %",
        "chair · 90 · 4.3 %",
        "unlabelled · 10 · 0.5 %",
    ]
    assert [trace["marker"]["color"] for trace in legend] == page.scene["classColors"]
    assert page.scene["classNames"] == ["ceiling", "floor", "wall", "chair", "unlabelled"]
    groups = [trace["legendgroup"] for trace in page.scene["figure"]["data"]]
    assert groups == ["0", "1", "2", "3", "4"] * 2


def test_a_ceiling_starts_hidden(room, tmp_path):
    page = write(room, tmp_path)
    seen = [trace["visible"] for trace in page.scene["figure"]["data"]]
    assert seen == ["legendonly", True, True, True, True] * 2
    only = write(room.select(room.labels == 0), tmp_path)
    assert [trace["visible"] for trace in only.scene["figure"]["data"]] == [True, True]


def test_the_ways_carry_the_values_of_the_points(room, tmp_path):
    scene = write(room, tmp_path, by="intensity").scene
    assert scene["start"] == "intensity"
    assert list(scene["ways"]) == ["label", "color", "intensity", "height"]
    chair = room.labels == 8
    np.testing.assert_array_equal(
        decode(scene["ways"]["intensity"]["values"][3]), room.fields["intensity"][chair]
    )
    height = scene["ways"]["height"]["scale"]
    low, high = (height[end] + scene["origin"][2] for end in ("cmin", "cmax"))
    assert (low, high) == pytest.approx((120, 122.5), abs=0.1)


def test_colours_come_back_from_their_table(room, tmp_path):
    used = np.array([[250, 20, 30], [10, 200, 40], [5, 6, 220]], np.uint8)
    room.fields["color"] = used[np.arange(len(room)) % 3]
    way = write(room, tmp_path, by="color").scene["ways"]["color"]
    assert [stop for stop, _ in way["scale"]["colorscale"]] == [i / 255 for i in range(256)]
    table = np.array([re.findall(r"\d+", color) for _, color in way["scale"]["colorscale"]], int)
    found = np.concatenate([table[decode(values)] for values in way["values"]])
    wanted = np.concatenate([room.fields["color"][room.labels == c] for c in (0, 1, 2, 8, -1)])
    np.testing.assert_allclose(found, wanted, atol=4)  # a table of 256, as good as they allow


def test_missing_intensities_do_not_break_the_page(room, tmp_path):
    room.fields["intensity"][:1000] = np.nan
    way = write(room, tmp_path, by="intensity").scene["ways"]["intensity"]
    values = np.concatenate([decode(v) for v in way["values"]])
    assert np.isfinite(values).all()
    assert len(values) == len(room)


def test_a_plain_cloud_has_no_legend(tmp_path):
    scan = Scan(points=np.random.default_rng(0).random((50, 3)))
    page = write(scan, tmp_path)
    assert list(page.scene["ways"]) == ["height"]
    assert [trace["showlegend"] for trace in page.scene["figure"]["data"]] == [False]
    assert page.scene["about"].startswith("50 points · 0.9")


def test_a_large_cloud_is_thinned_and_says_so(room, tmp_path):
    page = write(room, tmp_path, most=500)
    assert page.scene["about"].startswith("showing 500 of 2,100 points")
    assert sum(len(part) for part in positions(page)) == 500
    names = [t["name"] for t in page.scene["figure"]["data"] if t["showlegend"]]
    assert names[1] == "floor · 900 · 42.9 %"  # of the whole scan, not of what is shown
    again = write(room, tmp_path, most=500)
    assert page.scene == again.scene
    with pytest.raises(ValueError, match="most must be at least 1 point, got 0"):
        write_page(room, tmp_path / "page.html", most=0)


def test_thin_keeps_the_rare_and_stays_in_proportion():
    labels = np.repeat([3, 4, 5], [80_000, 19_990, 10])
    scan = Scan(points=np.zeros((100_000, 3)), labels=labels)
    index = thin(scan, 10_000)
    assert len(index) == 10_000
    assert (np.diff(index) > 0).all()
    counts = np.bincount(labels[index])[3:]
    assert counts[2] == 10
    assert counts[0] / counts[1] > 2.5
    inside = index[labels[index] == 3]
    assert abs(inside.mean() - 40_000) < 1500  # from the whole length of the file
    np.testing.assert_array_equal(thin(scan, 100_000), np.arange(100_000))
    assert len(thin(scan, 1)) == 1


def test_equal_scale_on_all_axes(room, tmp_path):
    layout = write(room, tmp_path).scene["figure"]["layout"]["scene"]
    sides = [layout[f"{axis}axis"]["range"] for axis in "xyz"]
    ratio = [layout["aspectratio"][axis] for axis in "xyz"]
    scales = [(high - low) / r for (low, high), r in zip(sides, ratio, strict=True)]
    assert layout["aspectmode"] == "manual"
    assert scales == pytest.approx([scales[0]] * 3)
    assert max(ratio) == pytest.approx(1)


def test_ticks_are_round_and_true(room, tmp_path):
    values, texts = ticks(2_445_180.3, 2_445_240.1, 5)
    assert values == [2_445_200, 2_445_220, 2_445_240]
    assert texts == ["2,445,200", "2,445,220", "2,445,240"]
    assert ticks(0.1, 0.9, 3)[1] == ["0.25", "0.50", "0.75"]
    scene = write(room, tmp_path).scene
    axis = scene["figure"]["layout"]["scene"]["xaxis"]
    for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True):
        assert value + scene["origin"][0] == pytest.approx(float(text.replace(",", "")), abs=1e-6)


def test_strays_do_not_make_the_rest_tiny(tmp_path):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((5000, 3)) * 10, [[1e5, 0, 0], [0, 0, -4000]]])
    low, high = frame(points)
    assert (low > -3).all()
    assert (high < 13).all()
    assert "2 stray points outside the frame" in write(Scan(points=points), tmp_path).scene["about"]
    pole = np.concatenate([rng.random((5000, 3)) * (100, 100, 0.1), [[5, 5, 30.0]]])
    np.testing.assert_array_equal(frame(pole)[1], pole.max(0))  # tall, but within reason


def test_names_cannot_become_code(room, tmp_path):
    evil = "</script><script>alert(1)</script><b>&amp;"
    room.classes[1] = evil
    page = write(room, tmp_path, title=evil)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert page.texts["title"] == evil
    assert page.scene["classNames"][1] == evil
    names = [t["name"] for t in page.scene["figure"]["data"] if t["showlegend"]]
    assert names[1].startswith("&lt;/script&gt;")  # plotly would take it for its own markup
    assert names[1].count("<") == 0


def test_a_title_that_looks_like_a_placeholder_stays_text(room, tmp_path):
    assert write(room, tmp_path, title="{{plotly}} {{scene}}").texts["h1"] == "{{plotly}} {{scene}}"


@pytest.mark.parametrize(
    "points",
    [[[1.0, 2, 3]], [[1e6, 5e6, 10]] * 40, [[0, 0, 0], [0, 0, 9]], [[0, 0, 0], [1e-9, 0, 0]]],
    ids=["one point", "all the same", "a line", "nearly one"],
)
def test_clouds_without_extent(points, tmp_path):
    scan = Scan(points=np.array(points, float))
    page = write(scan, tmp_path)
    np.testing.assert_allclose(np.concatenate(positions(page)), scan.points, atol=1e-9)
    layout = page.scene["figure"]["layout"]["scene"]
    for axis in "xyz":
        low, high = layout[f"{axis}axis"]["range"]
        assert high > low


def test_what_cannot_be_shown(room, tmp_path):
    with pytest.raises(ValueError, match="room 12 holds no points"):
        write_page(room.select(np.arange(0)), tmp_path / "page.html")
    with pytest.raises(ValueError, match="by must be one of"):
        write_page(room, tmp_path / "page.html", by="x")
    assert list(tmp_path.iterdir()) == []


def test_points_without_coordinates_are_left_out_and_counted(room, tmp_path):
    room.points[:7] = np.nan
    page = write(room, tmp_path)
    assert page.scene["about"].startswith("2,093 points · 7 without finite coordinates left out")


def test_the_class_of_a_whole_cloud_is_told(tmp_path):
    scan = Scan(points=np.eye(3), label=1, classes={0: "walk", 1: "jump"})
    assert "class: jump" in write(scan, tmp_path).scene["about"]


def test_a_real_town(town, tmp_path):
    page = write(town, tmp_path)
    found = np.concatenate(positions(page))
    order = np.argsort(town.labels, kind="stable")
    np.testing.assert_allclose(found, town.points[order], rtol=0, atol=4e-6)
    legend = " ".join(t["name"] for t in page.scene["figure"]["data"] if t["showlegend"])
    for word in ("ground · 9,808", "building · 3,737", "high vegetation · 10,956"):
        assert word in legend.lower()


@pytest.mark.rare
def test_size_of_a_full_page(tmp_path):
    rng = np.random.default_rng(0)
    scan = Scan(
        points=rng.random((300_000, 3)) * 50,
        labels=rng.integers(0, 9, 300_000),
        fields={
            "color": rng.integers(0, 256, (300_000, 3)).astype(np.uint8),
            "intensity": rng.random(300_000).astype(np.float32),
        },
    )
    write_page(scan, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 10e6


@pytest.mark.rare
def test_a_browser_draws_it(room, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here to draw the page")
    write_page(room, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    # what a reader would do: look at the cloud by height, then ask for a point of the chair
    act = """<script>setTimeout(() => {
        document.querySelector('[data-way="height"]').click();
        plot.emit("plotly_hover", {points: [{curveNumber: 3, pointNumber: 0}]});
    }, 3000);</script></body>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", act), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=15000"]
    flags += ["--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    run = subprocess.run(
        [
            chromium,
            *flags,
            "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}",
            str(tmp_path / "page.html"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "gl-container" in run.stdout
    assert "<canvas" in run.stdout
    for name in ("ceiling", "floor", "wall", "chair", "unlabelled"):
        assert re.search(rf'class="legendtext"[^>]*>{name} · ', run.stdout), name
    assert re.search(r'data-way="height" aria-pressed="true"', run.stdout)
    assert "cbtitle" in run.stdout
    first = room.points[room.labels == 8][0]
    tip = re.search(r'<div id="tip"[^>]*>([^<]*)</div>', run.stdout)
    assert tip is not None
    told = [float(n) for n in re.findall(r"-?\d+\.\d+", tip.group(1))[:3]]
    assert tip.group(1).startswith("chair")
    assert told == pytest.approx(first, abs=1e-3)
