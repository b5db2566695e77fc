from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from pointwise.cloud.scan import Scan
from pointwise.report.evaluation import KEPT, SHOWN, Evaluation, Gallery, write_evaluation

CLASSES = ["floor", "wall", "<b>board"]


def numbers(matrix, **more):
    matrix = np.array(matrix)
    with np.errstate(invalid="ignore"):
        recall, precision = (np.diag(matrix) / matrix.sum(axis) for axis in (1, 0))
    given = {"title": "run on town", "counted": "points", "not_counted": {}, **more}
    return Evaluation(
        classes=CLASSES, matrix=matrix, recall=recall, precision=precision, iou=recall / 2,
        overall=[("mean IoU", 0.5), ("overall accuracy", 0.75)], **given,
    )  # fmt: skip


def scan(seed=0, count=300):
    points = np.random.default_rng(seed).random((count, 3)) + (500_000, 5_400_000, 100)
    return Scan(points, name=f"room {seed}")


def written(tmp_path, evaluation, gallery=None):
    path = tmp_path / "page.html"
    write_evaluation(evaluation, gallery or Gallery(), path)
    text = path.read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', text)
    return text, json.loads(found[1])


MATRIX = [[90, 10, 0], [20, 80, 0], [0, 7, 0]]


def test_every_number_stands_in_the_page(tmp_path):
    text, _ = written(tmp_path, numbers(MATRIX, not_counted={"without a class": 1234}))
    for said in (
        "run on town",
        "207 points with a true class",
        "1,234 without a class",
        "mean IoU",
    ):
        assert said in text
    assert "&lt;b&gt;board taken for wall: 7 of 7" in text
    assert "floor taken for wall: 10 of 100" in text
    assert "<b>90.0 %</b>" in text  # floor's recall
    assert "<b>81.8 %</b>" in text  # floor's precision, 90 of 110
    assert "<b>–</b>" in text  # of the class that was never predicted
    assert "<b>board" not in text.replace("&lt;", "")


def test_without_scans_there_is_no_plotly(tmp_path):
    text, content = written(tmp_path, numbers(MATRIX))
    assert content["scans"] == []
    assert len(text) < 100_000


def test_points_and_classes_are_those_of_the_scan(tmp_path):
    gallery, cloud = Gallery(), scan()
    truth = np.arange(300) % 3
    truth[:50] = -1
    predicted = np.where(np.arange(300) % 5 == 0, 1, np.maximum(truth, 0))
    gallery.add(cloud, truth, predicted)
    _, content = written(tmp_path, numbers(MATRIX), gallery)
    (one,) = content["scans"]
    decode = lambda key, kind: np.frombuffer(base64.b64decode(one[key]), kind)  # noqa: E731
    points = np.stack([decode(axis, "<f4") for axis in "xyz"], 1) + np.array(one["origin"])
    np.testing.assert_allclose(points, cloud.points, rtol=0, atol=1e-5)
    assert (decode("truth", "<u2") == np.where(truth < 0, 3, truth)).all()
    assert (decode("predicted", "<u2") == predicted).all()
    known = truth >= 0
    share = 100 * (truth == predicted)[known].mean()
    assert one["name"] == f"room 0 · {share:.1f} % right"


def test_a_thinned_scan_keeps_its_whole_score_and_its_rare_classes(tmp_path):
    gallery, cloud = Gallery(), scan(count=100_000)
    truth = np.zeros(100_000, np.int64)
    truth[:40] = 2
    gallery.add(cloud, truth, np.zeros(100_000, np.int64))
    (kept,) = gallery.kept
    assert len(kept.points) == 25_000
    assert (kept.truth == 2).sum() == 40
    assert (kept.right, kept.counted) == (99_960, 100_000)


def test_of_many_scans_those_shown_reach_from_the_worst_to_the_best():
    gallery = Gallery()
    for seed in range(300):
        truth = np.zeros(50, np.int64)
        gallery.add(scan(seed, 50), truth, (np.arange(50) < seed % 50).astype(np.int64))
    assert gallery.seen == 300
    assert len(gallery.kept) <= KEPT
    shares = [each.share for each in gallery.shown()]
    assert len(shares) == SHOWN
    assert shares == sorted(shares)
    every = sorted(each.share for each in gallery.kept)
    assert (shares[0], shares[-1]) == (every[0], every[-1])


def test_scans_without_a_true_class_are_not_shown():
    gallery = Gallery()
    gallery.add(scan(), np.full(300, -1), np.zeros(300, np.int64))
    assert gallery.shown() == []


def test_of_whole_clouds_the_wrong_ones_come_first(tmp_path):
    gallery = Gallery()
    for seed in range(200):
        gallery.add(scan(seed, 20), np.array([1]), np.array([0 if seed in (90, 150) else 1]))
    _, content = written(tmp_path, numbers(MATRIX, counted="clouds"), gallery)
    names = [each["name"] for each in content["scans"]]
    assert names[:3] == ["room 90 · wrong", "room 150 · wrong", "room 0 · right"]
    assert len(names) == SHOWN
    assert "6 of 200 clouds, wrong ones first" in (tmp_path / "page.html").read_text("utf-8")


@pytest.fixture
def opened(chromium, tmp_path):
    """The page of two rooms, in a browser; fails where it raises an error or asks for a file."""
    gallery = Gallery()
    for seed in range(2):
        truth = np.arange(300) % 3
        gallery.add(scan(seed), truth, np.where(np.arange(300) % (7 + seed) == 0, 1, truth))
    write_evaluation(numbers(MATRIX), gallery, tmp_path / "page.html")
    context = chromium.new_context(viewport={"width": 1000, "height": 700})
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    address = (tmp_path / "page.html").as_uri()
    page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:"))
            or wrong.append(asked.url))  # fmt: skip
    page.goto(address)
    page.wait_for_function("document.querySelectorAll('#plot .gl-container, #plot canvas').length")
    yield page
    context.close()
    assert wrong == []


CAMERAS = (
    "['scene','scene2','scene3'].map(k => document.getElementById('plot').layout[k].camera.eye.x)"
)


@pytest.mark.slow
def test_one_camera_for_three_views(opened):
    opened.evaluate("Plotly.relayout('plot', {'scene2.camera': {eye: {x: 2.5, y: 0.5, z: 1}}})")
    opened.wait_for_function(f"new Set({CAMERAS}).size === 1")
    assert opened.evaluate(CAMERAS)[0] == 2.5


@pytest.mark.slow
def test_a_chosen_confusion_is_all_that_is_red(opened):
    red = "document.getElementById('plot').data[3].x.length"
    wrong = (np.arange(300) % 7 == 0) & (np.arange(300) % 3 != 1)
    assert opened.evaluate(red) == wrong.sum()
    opened.click("[data-pair='0,1']")
    opened.wait_for_function(f"{red} === {(wrong & (np.arange(300) % 3 == 0)).sum()}")
    opened.click("#legend button >> nth=0")  # the true floor is hidden
    opened.wait_for_function(f"{red} === 0")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1000])
def test_nothing_sticks_out_of_the_page(opened, width):
    opened.set_viewport_size({"width": width, "height": 700})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
