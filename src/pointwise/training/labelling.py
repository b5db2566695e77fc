"""A file with the labels that a run gives its points: read, labelled, written whole or not at all.

``label_file`` is all that happens to one file, wherever it runs: here, in another process, on
another machine. What it is given and what it returns can be pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pointwise.cloud.extent import set_aside
from pointwise.cloud.files import check_labels, read_scan, write_labels
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training import remote
from pointwise.training.label import VOTES, Progress, label_tile, lacking
from pointwise.training.recipe import Recipe
from pointwise.training.run import Run
from pointwise.training.survey import ALONE, Place, Surroundings, find_place

CONFIDENCE = "confidence"  # the name of the field


@dataclass(frozen=True)
class How:
    """How files are labelled.

    ``confidence`` writes a field with the probability of each point's class. Points below
    ``unclassified_below`` get no class. Points that have a code of ``keep`` already keep it, and
    are certain. ``columns`` is for ``read_scan``.
    """

    votes: int = VOTES
    confidence: bool = False
    unclassified_below: float = 0.0
    keep: tuple[int, ...] = ()
    columns: str | None = None


@dataclass(frozen=True)
class Job:
    """A file to label, the one to write, and what it sees of the files beside it."""

    source: Path
    target: Path
    around: Surroundings = ALONE


@dataclass(frozen=True)
class Labelled:
    """What came of a job: how many points have each code (``UNLABELLED``: none), and were kept."""

    target: Path
    counts: dict[int, int]
    classes: dict[int, str]
    kept: int = 0

    @property
    def points(self) -> int:
        return sum(self.counts.values())


def label_file(run: Run, job: Job, how: How, progress: Progress | None = None) -> Labelled:
    """Labels one file and writes it, in the place of another only when it is whole.

    That it can be written is tried before the work. Raises ValueError or OSError, in one line.
    """
    scan = read_scan(job.source, columns=how.columns)
    if said := set_aside(scan):
        warnings.warn(said, stacklevel=2)
    if without := run.recipe.features.lacking(scan):
        warnings.warn(
            f"{job.source} has no {' and no '.join(without)}; it is labelled without", stacklevel=2
        )
    if CONFIDENCE in scan.fields and not how.confidence:
        warnings.warn(
            f"{job.source}: its field {CONFIDENCE!r} stays as it is; --confidence writes that of"
            " the new labels",
            stacklevel=2,
        )
    labelled = replace(scan, classes=_classes(run, scan, how.keep))
    extra = {CONFIDENCE: np.zeros(len(scan), np.float32)} if how.confidence else {}
    check_labels(labelled, sorted(labelled.classes), job.target, extra)
    around = job.around.neighbours
    neighbours = [_neighbour(run.recipe, scan, file, how.columns) for file in around]
    found = label_tile(run, scan, neighbours, job.around.frame, votes=how.votes, progress=progress)
    codes = np.where(found.confidence < how.unclassified_below, UNLABELLED, found.codes)
    confidence = found.confidence
    kept = np.zeros(len(scan), dtype=bool)
    there = _codes_of(scan)
    if how.keep and there is None:
        warnings.warn(f"{job.source}: has no labels, so there are none to keep", stacklevel=2)
    elif there is not None:
        kept = np.isin(there, how.keep)
        codes = np.where(kept, there, codes)
        confidence = np.where(kept, np.float32(1), confidence)
    write_labels(labelled, codes, job.target, {CONFIDENCE: confidence} if how.confidence else {})
    values, counts = np.unique(codes, return_counts=True)
    each = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return Labelled(job.target, each, labelled.classes, int(kept.sum()))


def label_anywhere(run: Run, job: Job, how: How, progress: Progress | None = None) -> Labelled:
    """``label_file``, of files that may lie in object stores: fetched for it, and sent when whole.

    What is said of the copies is said of the files.
    """
    files = (job.source, job.target, *job.around.neighbours)
    if all(remote.url_of(file) is None for file in files):
        return label_file(run, job, how, progress)
    with TemporaryDirectory(prefix="pointwise-") as place, _of_the_files() as names:
        folder = Path(place)
        source, *beside = (
            remote.fetch(file, folder) for file in (job.source, *job.around.neighbours)
        )
        target = job.target
        if remote.url_of(target) is not None:
            (folder / "out").mkdir()
            target = folder / "out" / target.name
        names |= {str(source): job.source, str(target): job.target}
        names |= dict(zip(map(str, beside), job.around.neighbours, strict=True))
        around = replace(job.around, neighbours=tuple(beside))
        labelled = label_file(run, Job(source, target, around), how, progress)
        if target != job.target:
            remote.send(target, job.target)
    return replace(labelled, target=job.target)


def place_anywhere(file: Path, columns: str | None = None) -> Place:
    """``find_place``, of a file that may lie in an object store."""
    if remote.url_of(file) is None:
        return find_place(file, columns)
    with TemporaryDirectory(prefix="pointwise-") as place, _of_the_files() as names:
        local = remote.fetch(file, Path(place))
        names[str(local)] = file
        return replace(find_place(local, columns), file=file)


@contextmanager
def _of_the_files() -> Iterator[dict[str, Path]]:
    """Yields the names of copies; errors and warnings then name what they are copies of."""
    names: dict[str, Path] = {}

    def said(text: object) -> str:
        line = str(text)
        for copy, file in names.items():
            line = line.replace(copy, remote.name_of(file))
        return line

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        try:
            yield names
        except (ValueError, OSError) as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(said(error)) from error
    for warning in found:
        warnings.warn(said(warning.message), warning.category, stacklevel=4)


def _classes(run: Run, scan: Scan, keep: Sequence[int]) -> dict[int, str]:
    """The names of the codes that may be written: the run's, and the file's own of those kept."""
    kept = {code: name for code, name in scan.classes.items() if code in keep}
    return kept | dict(zip(run.recipe.classes.codes, run.recipe.classes.names, strict=True))


def _codes_of(scan: Scan) -> np.ndarray | None:
    """The codes that a file has, those that its format calls no class among them."""
    return scan.labels if scan.codes is None else scan.codes.astype(np.int64)


def _neighbour(recipe: Recipe, tile: Scan, file: Path, columns: str | None) -> Scan:
    """The points of a file beside the tile, with their features; says it where it lacks one."""
    scan = read_scan(file, columns=columns)
    if names := lacking(recipe, tile, scan):
        warnings.warn(
            f"{file} has no {' and no '.join(names)} as {tile.source} has, which does not see it",
            stacklevel=3,
        )
    fields = {name: scan.fields[name] for name in recipe.features.names if name in scan.fields}
    return replace(scan, fields=fields, labels=None, codes=None)
