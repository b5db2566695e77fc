"""Truth, prediction and errors side by side, and in the page to turn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_picture import count, pixels, texts_written_by
from test_scene import Page, decode

from pointwise.report import prediction, scene
from pointwise.report.coloring import WRONG_COLOR, wrong_labels
from pointwise.report.palette import class_colors
from pointwise.report.prediction import write_prediction


@pytest.fixture
def guess(room) -> np.ndarray:
    """Chairs taken for sofas, half of the wall for floor; the unknown for anything."""
    labels = room.labels.copy()
    labels[labels == 8] = 7
    labels[np.flatnonzero(labels == 2)[:250]] = 1
    labels[labels == -1] = 1
    return labels


@pytest.fixture
def furnished(room):
    return replace(room, classes={**room.classes, 7: "sofa"})


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    return texts_written_by(prediction, monkeypatch)


def test_each_panel_shows_its_own(furnished, guess, tmp_path, texts):
    write_prediction(furnished, guess, tmp_path / "p.png")
    image = pixels(tmp_path / "p.png")
    assert image.shape == (720, 1600, 3)
    truth, predicted, errors = (image[90:610, 10 + 530 * i : 530 + 530 * i] for i in range(3))
    chair, sofa = class_colors(["chair", "sofa"])
    assert count(truth, chair) > 300
    assert count(truth, sofa) < 20
    assert count(predicted, sofa) > 300
    assert count(predicted, chair) < 20
    assert count(errors, WRONG_COLOR) > 600
    assert count(errors, chair) < count(truth, chair) / 2
    assert count(truth, WRONG_COLOR) < 100
    # 90 chairs and 250 of the wall, of 2,090 points with a label
    assert {"Truth", "Prediction", "Errors: 16.3 % of the points"} <= set(texts)
    assert any(
        text.startswith("1,750 of 2,090 points labelled as they should be") for text in texts
    )
    assert any("ceiling left out of the picture (600 points)" in text for text in texts)
    legend = {"floor 100.0 %", "wall 50.0 %", "chair 0.0 %", "sofa only predicted", "unlabelled"}
    assert legend <= set(texts)


def test_points_without_truth_are_no_errors():
    truth, predicted = np.array([0, 1, -1, 2]), np.array([0, 2, 1, -1])
    assert wrong_labels(truth, predicted).tolist() == [False, True, False, True]


def test_what_cannot_be_compared_is_said(furnished, guess, tmp_path):
    with pytest.raises(ValueError, match=r"room 12 has no labels to compare a prediction with"):
        write_prediction(replace(furnished, labels=None), guess, tmp_path / "p.png")
    with pytest.raises(ValueError, match=r"a label for each of 2,100 points, got shape \[3\]"):
        write_prediction(furnished, guess[:3], tmp_path / "p.png")
    with pytest.raises(ValueError, match="truth needs a scan with labels, and one true label for"):
        scene.write_page(furnished, tmp_path / "p.html", truth=guess[:3])
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_buttons_for_truth_and_errors(furnished, guess, tmp_path):
    labelled = replace(furnished, labels=guess)
    labelled.points[:3] = np.nan  # left out, with their labels
    scene.write_page(labelled, tmp_path / "p.html", truth=furnished.labels)
    page = Page(tmp_path / "p.html").scene
    assert list(page["ways"]) == ["label", "truth", "errors", "color", "intensity", "height"]
    kept = np.isfinite(labelled.points).all(1)
    truth, said = furnished.labels[kept], guess[kept]
    names = {**labelled.classes, -1: "unlabelled"}
    assert page["classNames"] == ["ceiling", "floor", "wall", "sofa"]
    for code, which, errors in zip(
        (0, 1, 2, 7), page["truth"], page["ways"]["errors"]["values"], strict=True
    ):
        own = said == code
        assert [page["truthNames"][int(i)] for i in decode(which)] == [
            names[one] for one in truth[own]
        ]
        np.testing.assert_array_equal(decode(errors), wrong_labels(truth, said)[own])
    scale = page["ways"]["truth"]["scale"]
    colors = [color for _, color in scale["colorscale"][::2]]
    assert colors[:4] == class_colors(["ceiling", "floor", "wall", "chair"])
    assert (scale["cmin"], scale["cmax"]) == (-0.5, len(page["truthNames"]) - 0.5)
    assert "16.3 % labelled wrongly" in page["about"]
    json.dumps(page)  # nothing that is no JSON


def test_without_truth_the_page_is_as_before(furnished, tmp_path):
    scene.write_page(furnished, tmp_path / "p.html")
    page = Page(tmp_path / "p.html").scene
    assert list(page["ways"]) == ["label", "color", "intensity", "height"]
    assert "truth" not in page
    assert "wrongly" not in page["about"]
