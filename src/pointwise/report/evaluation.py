"""What a network got right and wrong, as a page: scores, confusions, and scans side by side in 3-d.

One HTML file that works offline. Truth, prediction and errors are seen from one camera.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra
from pointwise.report.coloring import RIGHT_COLOR, WRONG_COLOR, number
from pointwise.report.palette import UNLABELLED_COLOR, class_colors
from pointwise.report.scene import frame, thin

MOST_POINTS = 150_000  # on a page, of all scans together
SHOWN = 6  # scans on a page
KEPT = 60  # scans from which they are chosen


@dataclass(frozen=True)
class Tested:
    """A scan with its true classes and those that were predicted, thinned for showing.

    ``truth`` and ``predicted`` are places in the list of classes, ``[n]`` of the points or ``[1]``
    of the whole cloud; -1 in ``truth`` is not counted. ``right`` of ``counted`` is over all points.
    """

    name: str
    points: np.ndarray  # [n, 3] float64
    truth: np.ndarray
    predicted: np.ndarray
    right: int
    counted: int

    @property
    def share(self) -> float:
        """How much of it is right; 1 where nothing is counted."""
        return self.right / self.counted if self.counted else 1.0

    @property
    def whole(self) -> bool:
        """Whether it has one class for all of its points."""
        return len(self.truth) != len(self.points)

    @property
    def called(self) -> str:
        """Its name, and how much of it is right."""
        if self.whole:
            return f"{self.name} · {'right' if self.right else 'wrong'}"
        return f"{self.name} · {100 * self.share:.1f} % right"


@dataclass
class Gallery:
    """Keeps some points of the scans of an evaluation, in memory that does not grow with them.

    Of more than ``KEPT`` scans every second is kept, then every fourth, and so on; of clouds with
    one class each the first that are wrong, and a few that are right.
    """

    kept: list[Tested] = field(default_factory=list)
    seen: int = 0
    every: int = 1

    def add(self, scan: Scan, truth: np.ndarray, predicted: np.ndarray) -> None:
        """To be called with each scan; ``truth`` and ``predicted`` as ``Tested`` has them."""
        place, self.seen = self.seen, self.seen + 1
        known = truth >= 0
        each = len(truth) == len(scan) and len(scan) > 1
        if not len(scan) or (place % self.every if each else not self._wanted(truth, predicted)):
            return
        finite = np.isfinite(scan.points).all(axis=1) & ~find_extent(scan.points).stray
        kept = Scan(scan.points[finite], labels=truth[finite] if each else None)
        few = np.flatnonzero(finite)[thin(kept, MOST_POINTS // SHOWN)]
        self.kept.append(
            Tested(
                name=scan.name or f"scan {place + 1}",
                points=scan.points[few],
                truth=truth[few] if each else truth,
                predicted=predicted[few] if each else predicted,
                right=int((truth[known] == predicted[known]).sum()),
                counted=int(known.sum()),
            )
        )
        if each and len(self.kept) > KEPT:
            self.kept, self.every = self.kept[::2], 2 * self.every

    def _wanted(self, truth: np.ndarray, predicted: np.ndarray) -> bool:
        """Whether a cloud with one class is kept."""
        alike = sum(each.right == int(truth[0] == predicted[0]) for each in self.kept)
        return bool(alike < SHOWN)

    def shown(self) -> list[Tested]:
        """At most ``SHOWN``, the worst first; scans evenly over the ranks down to the best."""
        order = sorted((each for each in self.kept if each.counted), key=lambda each: each.share)
        if len(order) <= SHOWN or order[0].whole:
            return order[:SHOWN]
        return [order[round(i * (len(order) - 1) / (SHOWN - 1))] for i in range(SHOWN)]


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a page; shares in 0..1, NaN where there is none."""

    title: str
    counted: str  # what the matrix counts: "points", "clouds" or "images"
    classes: Sequence[str]  # K names
    matrix: np.ndarray  # [K, K] truth (rows) against prediction
    recall: np.ndarray  # [K]
    precision: np.ndarray  # [K]
    iou: np.ndarray  # [K]
    overall: Sequence[tuple[str, float]]  # such as ("mean IoU", 0.8)
    not_counted: dict[str, int]
    remarks: Sequence[str] = ()


def write_evaluation(evaluation: Evaluation, gallery: Gallery, path: str | Path) -> None:
    """Writes the scores, the confusion matrix and some scans as one page that works offline.

    ``plotly.js`` is inside where there are scans to show.
    """
    tested = gallery.shown()
    colors = class_colors(list(evaluation.classes))
    scenes = [_scene(each, len(evaluation.classes)) for each in tested]
    content = {
        "scans": scenes,
        "classes": list(evaluation.classes),
        "colors": colors,
        "rest": UNLABELLED_COLOR,
        "right": RIGHT_COLOR,
        "wrong": WRONG_COLOR,
        "hidden": [i for i, name in enumerate(evaluation.classes) if name.lower() == "ceiling"],
    }
    offline = import_extra("plotly.offline", "report") if scenes else None
    parts = {
        "title": html.escape(evaluation.title),
        "plotly": offline.get_plotlyjs() if offline else "",
        "about": _about(evaluation),
        "overall": "".join(
            f"<div><b>{_percent(value)}</b><span>{html.escape(name)}</span></div>"
            for name, value in evaluation.overall
        ),
        "chosen": _chosen(gallery, tested),
        "scores": _scores(evaluation, colors),
        "matrix": _matrix(evaluation),
        "counted": evaluation.counted,
        "data": json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
    }
    template = files("pointwise.report").joinpath("evaluation.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


def _scene(tested: Tested, classes: int) -> dict:
    low, high = frame(tested.points)
    origin = np.floor((low + high) / 2)  # float32 keeps every digit near zero, not at UTM scale
    rest = classes  # the place behind the classes is that of what is not counted
    truth = np.where(tested.truth < 0, rest, tested.truth)
    return {
        "name": tested.called,
        "origin": origin.tolist(),
        "low": (low - origin).tolist(),
        "high": (high - origin).tolist(),
        "digits": int(np.clip(4 - np.floor(np.log10(max((high - low).max(), 1e-6))), 0, 6)),
        **{
            axis: _encode((tested.points[:, i] - origin[i]).clip(-1e30, 1e30), "<f4")
            for i, axis in enumerate("xyz")
        },
        "truth": _encode(truth, "<u2"),
        "predicted": _encode(tested.predicted, "<u2"),
    }


def _encode(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode("ascii")


def _about(evaluation: Evaluation) -> str:
    lines = [f"{int(evaluation.matrix.sum()):,} {evaluation.counted} with a true class"]
    if evaluation.not_counted:
        each = "; ".join(f"{count:,} {why}" for why, count in evaluation.not_counted.items())
        lines.append(f"not counted: {each}")
    lines += evaluation.remarks
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _chosen(gallery: Gallery, tested: Sequence[Tested]) -> str:
    if not tested:
        return ""
    if tested[0].whole:
        return f"{len(tested)} of {number(gallery.seen, 'cloud')}, wrong ones first"
    if len(tested) < gallery.seen:
        return (
            f"{len(tested)} of {number(gallery.seen, 'scan')}, from the one with the largest share"
            " of errors to the one with the smallest"
        )
    return f"{number(len(tested), 'scan')}, the one with the largest share of errors first"


def _scores(evaluation: Evaluation, colors: Sequence[str]) -> str:
    areas = evaluation.counted == "points"
    head = ["class", evaluation.counted, "recall", "precision", *(["IoU"] if areas else [])]
    rows = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
    counts = evaluation.matrix.sum(axis=1)
    for i, name in enumerate(evaluation.classes):
        values = [evaluation.recall[i], evaluation.precision[i]]
        values += [evaluation.iou[i]] if areas else []
        cells = "".join(_bar(value) for value in values)
        swatch = f'<i style="background:{colors[i]}"></i>'
        rows.append(
            f"<tr><th>{swatch}{html.escape(name)}</th><td>{int(counts[i]):,}</td>{cells}</tr>"
        )
    return "".join(rows)


def _bar(value: float) -> str:
    width = 0 if value != value else 100 * value
    return f'<td class="bar"><span style="width:{width:.1f}%"></span><b>{_percent(value)}</b></td>'


def _matrix(evaluation: Evaluation) -> str:
    """Rows of the truth, coloured by the share of the row; each cell is a button of the page."""
    matrix = evaluation.matrix
    names = [html.escape(name) for name in evaluation.classes]
    head = "".join(f'<th><span title="{name}">{name}</span></th>' for name in names)
    rows = [f"<tr><td></td>{head}</tr>"]
    for i, name in enumerate(names):
        total = int(matrix[i].sum())
        cells = "".join(
            _cell(i, j, int(matrix[i, j]), total, name if i == j else f"{name} taken for {other}")
            for j, other in enumerate(names)
        )
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return "".join(rows)


def _cell(i: int, j: int, count: int, total: int, words: str) -> str:
    if not count:
        return f"<td>{'–' if not total else ''}</td>"
    share = count / total
    text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
    kind = "right" if i == j else "wrong"
    style = f'style="--share:{100 * share**0.5:.0f}%"'
    return (
        f'<td class="{kind}" {style} title="{words}: {count:,} of {total:,}"'
        f' data-pair="{i},{j}">{html.escape(text)}</td>'
    )


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f} %"
