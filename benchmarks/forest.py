r"""What hand-made features with trees reach on the data of ``pointwise train``.

    python benchmarks/forest.py radhar_train.npz
    python benchmarks/forest.py town_6_classes.las
    python benchmarks/forest.py rooms --rooms 60

The data are read and divided as ``pointwise train`` does with the same options, and the scores are
taken of the same points or clouds, so that the two can be compared. A cloud to classify becomes the
mean, standard deviation, least, greatest and quartiles of each coordinate, each field and each
field's size, which a random forest learns from. A point to label becomes the shape of its
surroundings (Weinmann et al., 2015: linearity, planarity, scattering, change of curvature,
verticality of the covariance of its neighbours) at several scales, each a thinned cloud twice as
coarse as the one before (Hackel et al., 2016), with its height and its fields, which gradient
boosting learns from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from pointwise.cli.outputs import check_output, write_json
from pointwise.cli.train_run import score_table
from pointwise.cloud.scan import Scan
from pointwise.training.classes import IGNORED
from pointwise.training.evaluate import count, score_record
from pointwise.training.metrics import scores
from pointwise.training.plan import plan
from pointwise.training.recipe import Recipe
from pointwise.training.run import Run
from pointwise.training.sources import load_data
from pointwise.training.thin import thin

NEIGHBOURS = 10  # that a point's surroundings are seen in, at each scale
SCALES = 6
MOST = 400_000  # points that the trees learn from, drawn evenly from those with labels


def statistics(recipe: Recipe, scan: Scan) -> np.ndarray:
    """A cloud as ``[6·(3 + 2·F)]`` numbers for F channels of fields."""
    scan = recipe.prepare(scan, "train").scan
    fields = [
        scan.fields[name].reshape(len(scan), -1)
        for name in recipe.features.names
        if name in scan.fields
    ]
    values = np.concatenate([scan.points, *fields, *map(np.abs, fields)], axis=1)
    quartiles = np.quantile(values, [0, 0.25, 0.75, 1], axis=0)
    return np.concatenate([values.mean(axis=0), values.std(axis=0), *quartiles])


def surroundings(recipe: Recipe, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """``[n, C]`` numbers of the points of a scan thinned as the network reads it, and the one that
    stands for each of the scan's own points ``[N]``."""
    prepared = recipe.prepare(scan, "train")
    points, cube = prepared.scan.points, prepared.cube
    names = [name for name in recipe.features.names if name in prepared.scan.fields]
    fields = [prepared.scan.fields[name].reshape(len(points), -1) for name in names]
    columns = [prepared.ground.height(points)[:, None], *fields]
    for scale in range(SCALES):
        coarse = thin(scan, 2**scale * recipe.spacing)[0].points
        columns.append(shapes(points, coarse))
    found = np.concatenate(columns, axis=1).astype(np.float32)
    return found, np.arange(len(points)) if cube is None else cube


def shapes(points: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Of each point ``[n, 8]``: the shape of its nearest neighbours in a coarser cloud."""
    from scipy.spatial import cKDTree  # of the extra 'bench'

    distance, index = cKDTree(coarse).query(points, k=min(NEIGHBOURS, len(coarse)), workers=-1)
    near = coarse[index.reshape(len(points), -1)]
    middle = near.mean(axis=1)
    offsets = near - middle[:, None]
    covariance = np.einsum("nki,nkj->nij", offsets, offsets) / near.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    small, medium, large = np.maximum(values, 0).T
    whole = np.maximum(large, np.finfo(float).tiny)
    return np.stack(
        [
            (large - medium) / whole,  # linearity
            (medium - small) / whole,  # planarity
            small / whole,  # scattering
            small / np.maximum(large + medium + small, np.finfo(float).tiny),
            1 - np.abs(vectors[:, 2, 0]),  # verticality: of the normal
            distance.reshape(len(points), -1)[:, -1],  # how far they lie: density
            points[:, 2] - middle[:, 2],
            np.ptp(near[..., 2], axis=1),
        ],
        axis=1,
    )


def classified(run: Run, train: Sequence[Scan], test: Sequence[Scan], seed: int) -> np.ndarray:
    """The confusion matrix of a random forest over whole clouds."""
    recipe = run.recipe
    seen = np.stack([statistics(recipe, scan) for scan in train])
    labels = np.concatenate([recipe.targets(scan) for scan in train])
    known = labels != IGNORED
    forest = RandomForestClassifier(500, class_weight="balanced", random_state=seed, n_jobs=-1)
    forest.fit(seen[known], labels[known])
    matrix = np.zeros((len(recipe.classes),) * 2, dtype=np.int64)
    for scan in test:
        count(matrix, recipe.targets(scan), forest.predict(statistics(recipe, scan)[None]))
    return matrix


def labelled(run: Run, train: Sequence[Scan], test: Sequence[Scan], seed: int) -> np.ndarray:
    """The confusion matrix of gradient boosting over every point."""
    recipe, rng = run.recipe, np.random.default_rng(seed)
    seen, labels = [], []
    for scan in train:
        found, _ = surroundings(recipe, scan)
        target = recipe.targets(recipe.prepare(scan, "train").scan)
        seen.append(found[target != IGNORED])
        labels.append(target[target != IGNORED])
    every, target = np.concatenate(seen), np.concatenate(labels)
    kept = rng.permutation(len(target))[:MOST]
    trees = HistGradientBoostingClassifier(
        max_iter=200, class_weight="balanced", random_state=seed, early_stopping=False
    )
    trees.fit(every[kept], target[kept])
    matrix = np.zeros((len(recipe.classes),) * 2, dtype=np.int64)
    for scan in test:
        found, cube = surroundings(recipe, scan)
        count(matrix, recipe.targets(scan), trees.predict(found)[cube])
    return matrix


def command(
    data: Annotated[list[str], typer.Argument(help="As of 'pointwise train'.")],
    test: Annotated[list[str] | None, typer.Option(help="To test on.")] = None,
    task: Annotated[str | None, typer.Option(help="segmentation or classification.")] = None,
    hold_out: Annotated[float, typer.Option(help="Share to test on, without --test.")] = 0.25,
    rooms: Annotated[int, typer.Option(help="How many rooms to learn from.")] = 40,
    cell_size: Annotated[float | None, typer.Option(help="Twice the spacing of points.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split and of the trees.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Also write the numbers here.")] = None,
) -> None:
    check_output("forest", "--json", json, (".json",))
    found = load_data(data, test=test or (), task=task, held_out=hold_out, rooms=rooms, seed=seed)
    run = plan(found, cell_size=cell_size, seed=seed)
    # Trees have no use for a validation part, which the networks choose their best weights by.
    train = [*found.train, *found.validation]
    start = time.perf_counter()
    judge = labelled if found.task == "segmentation" else classified
    matrix = judge(run, train, found.test, seed)
    counted = "points" if found.task == "segmentation" else "clouds"
    title = f"Trees, after {time.perf_counter() - start:.0f} s"
    Console().print(score_table(run, scores(matrix), counted, title))
    if json is not None:
        write_json(json, score_record(run, matrix, {}))


if __name__ == "__main__":
    typer.run(command)
