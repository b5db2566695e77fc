"""What a network says of a scan beside the truth: three views of the same points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.messages import shortened
from pointwise.report.coloring import (
    RIGHT_COLOR,
    WRONG_COLOR,
    Group,
    called,
    ceiling,
    groups,
    number,
    share,
    shown,
    wrong_labels,
)
from pointwise.report.figure import figure, save
from pointwise.report.palette import UNLABELLED_COLOR, class_colors, rgb
from pointwise.report.picture import draw, write_legend

WIDTH, HEIGHT = 1600, 720  # pixels
TOP, BOTTOM, SIDE = 100, 104, 520  # pixels: above and below the views, and their width


def write_prediction(truth: Scan, predicted: np.ndarray, path: str | Path) -> None:
    """Writes truth, prediction and errors side by side, PNG or what the suffix of ``path`` says.

    ``truth`` has the true labels, ``predicted`` ``[N]`` those of a network for the same points.
    Behind each class stands the part of its points that are labelled as they should be; points
    without a true label count for nothing. A ceiling is left out, since it would hide its room.
    """
    if truth.labels is None:
        raise ValueError(f"{called(truth)} has no labels to compare a prediction with")
    if predicted.shape != truth.labels.shape:
        raise ValueError(
            f"predicted must have a label for each of {number(len(truth), 'point')},"
            f" got shape {list(predicted.shape)}"
        )
    # as a field, it is selected with the points
    whole = shown(replace(truth, fields={**truth.fields, "predicted": predicted}))
    every = _wrong(whole)
    above = ceiling(whole)
    hidden = 0 if above.all() else int(above.sum())
    scan = whole.select(~above) if hidden else whole
    wrong = _wrong(scan)

    classes = groups(scan)
    # one colour for a name in all three, also for what only the network sees
    guessed = groups(replace(scan, labels=scan.fields["predicted"]))
    colors = _colors_by_name(classes, guessed)
    page = figure(WIDTH / 100, HEIGHT / 100)
    _write(page, 0.5, HEIGHT - 28, shortened(called(truth), 90), size=17, weight="bold")
    painted = (
        ("Truth", _paint(scan, classes, colors)),
        ("Prediction", _paint(scan, guessed, colors)),
        (
            f"Errors: {share(int(every.sum()), max(_known(whole), 1))} of the points",
            _two_colors(wrong),
        ),
    )
    for column, (title, points) in enumerate(painted):
        left = 10 + column * (SIDE + 10)
        place = (left, BOTTOM, SIDE, HEIGHT - TOP - BOTTOM)
        draw(page, scan, points, place, around=-60, above=55 if hidden else 35)
        _write(page, (left + SIDE / 2) / WIDTH, HEIGHT - 70, title, size=14)
    real = {group.code for group in classes}
    listed = classes + [group for group in guessed if group.code not in real]
    notes = [_right(g, wrong) if g.code in real else "only predicted" for g in listed]
    write_legend(page, [replace(g, color=colors[g.name]) for g in listed], notes, at=62)
    _write(page, 0.5, 16, _caption(whole, every, hidden), size=11, color="#666")
    save(page, path)


def _wrong(scan: Scan) -> np.ndarray:
    assert scan.labels is not None
    return wrong_labels(scan.labels, scan.fields["predicted"])


def _known(scan: Scan) -> int:
    assert scan.labels is not None
    return int((scan.labels != UNLABELLED).sum())


def _colors_by_name(*lists: list[Group]) -> dict[str, str]:
    names = sorted({group.name for one in lists for group in one if group.code != UNLABELLED})
    colors = dict(zip(names, class_colors(names), strict=True))
    return {**colors, "unlabelled": UNLABELLED_COLOR}


def _paint(scan: Scan, classes: list[Group], colors: dict[str, str]) -> np.ndarray:
    painted = np.empty((len(scan), 3), np.float32)
    for group in classes:
        painted[group.mask] = np.array(rgb(colors[group.name])) / 255
    return painted


def _two_colors(wrong: np.ndarray) -> np.ndarray:
    both = np.array([rgb(RIGHT_COLOR), rgb(WRONG_COLOR)], np.float32) / 255
    return both[wrong.astype(np.int64)]


def _right(group: Group, wrong: np.ndarray) -> str:
    """The part of a class that is labelled as it should be."""
    if group.code == UNLABELLED:
        return ""
    return share(int((group.mask & ~wrong).sum()), int(group.mask.sum()))


def _caption(whole: Scan, wrong: np.ndarray, hidden: int) -> str:
    known = _known(whole)
    parts = [
        f"{known - int(wrong.sum()):,} of {number(known, 'point')} labelled as they should be",
        "behind each class, the part of it that is",
    ]
    if hidden:
        parts.append(f"ceiling left out of the picture ({number(hidden, 'point')})")
    return " · ".join(parts)


def _write(page: Any, x: float, y: float, text: str, **style: Any) -> None:
    page.text(x, y / HEIGHT, text, ha="center", va="center", **style)
