from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

from pointwise.report import confusion
from pointwise.report.confusion import write_confusion


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures written during a test."""
    kept: list = []
    save = confusion.save

    def spy(figure, path):
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(confusion, "save", spy)
    return kept


def cells(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_cells_say_shares_of_the_truth_and_counts(tmp_path, figures):
    matrix = np.array([[900, 100, 0], [1, 1999, 0], [0, 0, 0]])
    write_confusion(matrix, ["ground", "building", "noise"], tmp_path / "c.png")
    (figure,) = figures
    assert cells(figure) == [
        "90 %\n900", "10 %\n100", "", "< 1 %\n1", "100 %\n1,999", "", "–", "–", "–",
    ]  # fmt: skip
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["ground", "building", "noise"]
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "ground (1,000)",
        "building (2,000)",
        "noise (0)",
    ]
    assert axes.get_title() == "96.6% of 3,000 right"
    shares = np.array([[0.9, 0.1, 0], [0.0005, 0.9995, 0], [0, 0, 0]])
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), shares)


def test_the_picture_is_dark_on_the_diagonal(tmp_path):
    write_confusion(np.eye(4, dtype=int) * 50, list("abcd"), tmp_path / "c.png")
    image = imread(tmp_path / "c.png")[..., :3]
    dark = (np.abs(image * 255 - (8, 48, 107)) < 2).all(-1)  # the end of the scale of blues
    rows, columns = np.nonzero(dark)
    assert len(rows) > 4 * 40 * 40
    assert np.corrcoef(rows[columns < 500], columns[columns < 500])[0, 1] > 0.8


@pytest.mark.parametrize("many", [1, 2, 20])
def test_names_stay_inside_and_apart(many, tmp_path, figures):
    names = [f"a rather long name of a class {i}" for i in range(many)]
    matrix = np.random.default_rng(0).integers(0, 90, (many, many))
    write_confusion(matrix, names, tmp_path / "c.png")
    (figure,) = figures
    whole = figure.bbox
    axes = figure.axes[0]
    boxes = [t.get_window_extent() for t in axes.get_xticklabels() + axes.get_yticklabels()]
    for box in [*boxes, axes.title.get_window_extent(), axes.xaxis.label.get_window_extent()]:
        assert box.x0 >= whole.x0
        assert box.y0 >= whole.y0
        assert box.x1 <= whole.x1
        assert box.y1 <= whole.y1
    heights = sorted(t.get_window_extent().y0 for t in axes.get_yticklabels())
    assert all(b - a > 12 for a, b in pairwise(heights))
    assert max(len(text.get_text()) for text in axes.get_xticklabels()) <= 30


def test_an_empty_matrix_is_drawn(tmp_path, figures):
    write_confusion(np.zeros((2, 2), int), ["a", "b"], tmp_path / "c.png")
    assert cells(figures[0]) == ["–"] * 4
    assert (tmp_path / "c.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("matrix", "classes", "match"),
    [
        (np.zeros((2, 3)), ["a", "b"], r"matrix must be \[K, K\].*got \[2, 3\]"),
        (np.zeros((0, 0)), [], r"matrix must be \[K, K\]"),
        (np.zeros((2, 2)), ["a"], "matrix has 2 classes, but 1 names"),
        (np.array([[1, -1], [0, 1]]), ["a", "b"], "none of them negative"),
        (np.array([[1, np.nan], [0, 1]]), ["a", "b"], "finite numbers"),
    ],
)
def test_what_is_no_confusion_matrix(matrix, classes, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write_confusion(matrix, classes, tmp_path / "c.png")
    assert list(tmp_path.iterdir()) == []
