"""The scores of a run on scans with labels, and their record in the run's folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.report.evaluation import Evaluation, Gallery, write_evaluation
from pointwise.training.classes import IGNORED
from pointwise.training.clock import Spent
from pointwise.training.feed import share
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.images.classify import classify_pictures
from pointwise.training.label import VOTES, classify_scans, label_scan
from pointwise.training.metrics import Scores, scores
from pointwise.training.picture import Picture
from pointwise.training.processes import total
from pointwise.training.run import Run


def evaluate(
    run: Run,
    scans: Sequence[Scan],
    progress: Callable[[int, int], object] | None = None,
    *,
    votes: int = VOTES,
    seen: Callable[[Scan, np.ndarray, np.ndarray], object] | None = None,
) -> np.ndarray:
    """Counts truth against prediction int64 ``[K, K]``, over every labelled point or cloud.

    Of several processes each labels its share, and all return the whole count. Labels as
    ``pointwise label`` does. What has no class, or one the run does not know, is not
    counted. ``seen`` is called with each scan of the own share, its true class indices and the
    predicted ones, ``[N]`` of points or ``[1]`` of a cloud.
    """
    scans = share(scans)
    classes, matrix = run.recipe.classes, np.zeros((len(run.recipe.classes),) * 2, dtype=np.int64)
    if run.recipe.task == "classification":
        for i, probabilities in enumerate(classify_scans(run, scans, votes=votes)):
            truth, predicted = run.recipe.targets(scans[i]), np.atleast_1d(probabilities.argmax())
            count(matrix, truth, predicted)
            if seen is not None:
                seen(scans[i], truth, predicted)
            if progress is not None:
                progress(i + 1, len(scans))
        return total(matrix)
    done, points = 0, sum(len(scan) for scan in scans)
    for scan in scans:
        truth = run.recipe.targets(scan)
        predicted = classes.index(label_scan(run, scan, votes=votes))
        count(matrix, truth, predicted)
        if seen is not None:
            seen(scan, truth, predicted)
        done += len(scan)
        if progress is not None:
            progress(done, points)
    return total(matrix)


def not_counted(run: Run, scans: Sequence[Scan]) -> dict[str, int]:
    """How many points (or clouds) ``evaluate`` leaves out, by why: no class, or one not learned."""
    found: Counter[str] = Counter()
    for scan in map(run.recipe.relabelling.applied, scans):
        if run.recipe.task == "classification":
            labels = np.array([UNLABELLED if scan.label is None else scan.label])
        else:
            labels = scan.labels if scan.labels is not None else np.full(len(scan), UNLABELLED)
        codes, counts = np.unique(labels, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            if code not in run.recipe.classes.codes:
                name = scan.classes.get(code, f"class {code}")
                why = f"of {name}, which was not learned"
                found["without a class" if code == UNLABELLED else why] += count
    return dict(found)


def images_not_counted(run: Run[ImageRecipe], pictures: Sequence[Picture]) -> dict[str, int]:
    """How many pictures ``evaluate_images`` leaves out, by why."""
    labels = Counter(picture.label for picture in pictures)
    return {
        "without a class" if label is None else f"of {label}, which was not learned": count
        for label, count in labels.items()
        if label not in run.recipe.classes.names
    }


def evaluate_images(
    run: Run[ImageRecipe],
    pictures: Sequence[Picture],
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """Counts truth against prediction int64 ``[K, K]``, over the pictures of known classes.

    Of several processes each has its share, and all return the whole count. Classifies as
    ``pointwise classify`` does.
    """
    pictures = share(pictures)
    matrix = np.zeros((len(run.recipe.classes),) * 2, dtype=np.int64)
    truth = run.recipe.targets(pictures)
    for i, probabilities in enumerate(classify_pictures(run, pictures)):
        count(matrix, truth[i : i + 1], np.atleast_1d(probabilities.argmax()))
        if progress is not None:
            progress(i + 1, len(pictures))
    return total(matrix)


def count(matrix: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> None:
    """Adds class indices to a count ``[K, K]`` of truth against prediction; not what has none."""
    known = truth != IGNORED
    pairs = truth[known] * len(matrix) + predicted[known]
    matrix += np.bincount(pairs, minlength=matrix.size).reshape(matrix.shape)


def write_metrics(
    run: Run,
    matrix: np.ndarray,
    folder: Path,
    *,
    spent: Spent,
    not_counted: dict[str, int] | None = None,
) -> Scores:
    """Writes ``metrics.json`` and ``confusion.png``; returns the scores they hold.

    ``not_counted`` says how much of the test part the scores leave out, and why.
    """
    from pointwise.report.confusion import write_confusion

    result, names = scores(matrix), run.recipe.classes.names
    record = score_record(run, matrix, not_counted) | {
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "steps": spent.steps,
        "seconds": round(spent.seconds, 1),
    }
    with replacing(folder / "metrics.json") as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_confusion(matrix, list(names), folder / "confusion.png")
    return result


def score_record(
    run: Run, matrix: np.ndarray, not_counted: dict[str, int] | None = None
) -> dict[str, Any]:
    """All scores of a count ``[K, K]`` as JSON has them, with the count itself."""
    result, names = scores(matrix), run.recipe.classes.names

    def each(values: np.ndarray) -> dict[str, float | None]:
        return {name: _number(value) for name, value in zip(names, values, strict=True)}

    record: dict[str, Any] = {
        "overall_accuracy": _number(result.overall_accuracy),
        "mean_class_accuracy": _number(result.mean_class_accuracy),
        "mean_iou": _number(result.mean_iou),
        "iou": each(result.iou),
        "recall": each(result.class_accuracy),
        "precision": each(result.precision),
        "counts": {name: int(count) for name, count in zip(names, result.counts, strict=True)},
        "confusion": {"rows": "truth", "columns": "predicted", "counts": matrix.tolist()},
    }
    if untested := [name for name, n in zip(names, result.counts, strict=True) if not n]:
        record["not_tested"] = untested  # and in none of the means
    if not_counted:
        record["not_counted"] = not_counted
    return record


def write_page(
    run: Run,
    matrix: np.ndarray,
    not_counted: dict[str, int],
    gallery: Gallery,
    title: str,
    path: Path,
    remarks: Sequence[str] = (),
) -> None:
    """Writes the scores and what ``gallery`` has kept of the scans as a page."""
    result = scores(matrix)
    means = [("overall accuracy", result.overall_accuracy)]
    means.append(("mean class accuracy", result.mean_class_accuracy))
    if run.recipe.task == "segmentation":
        means.insert(0, ("mean IoU", result.mean_iou))
    counted = {"segmentation": "points", "classification": "clouds"}.get(run.recipe.task, "images")
    evaluation = Evaluation(
        title=title,
        counted=counted,
        classes=run.recipe.classes.names,
        matrix=matrix,
        recall=result.class_accuracy,
        precision=result.precision,
        iou=result.iou,
        overall=means,
        not_counted=not_counted,
        remarks=remarks,
    )
    write_evaluation(evaluation, gallery, path)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)  # JSON knows no NaN
