"""Labelled clouds to test a run on, their classes brought to those of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.classes import Classes
from pointwise.training.options import Options
from pointwise.training.run import Run
from pointwise.training.sources import files_of, read_by_folder, read_clouds, test_rooms


def labelled_clouds(
    run: Run,
    names: Sequence[str],
    columns: str | None = None,
    progress: Callable[[str], object] | None = None,
) -> Iterator[Scan]:
    """The clouds of ``rooms`` (its test part), files or folders, with the codes of the run.

    For segmentation one file after the other is read; for classification all of a folder, whose
    folders may be the classes. Clouds without a label are yielded too. Raises ValueError, OSError.
    """
    for name in names:
        for scan in _read(run, name, columns, progress):
            yield in_classes_of(run.recipe.classes, run.recipe.relabelling.applied(scan))


def _read(
    run: Run, name: str, columns: str | None, progress: Callable[[str], object] | None
) -> Iterator[Scan]:
    path = Path(name)
    if name == "rooms" and not path.exists():
        options = Options.from_plain({"data": [name], **run.options})
        yield from test_rooms(options.rooms or 40, options.hold_out, options.seed)
    elif run.recipe.task == "classification":
        yield from read_by_folder(path, progress, columns)
    else:
        for file in files_of(path):
            if progress is not None:
                progress(str(file))
            yield from read_clouds(file, columns)


def in_classes_of(classes: Classes, scan: Scan) -> Scan:
    """The scan with the codes of ``classes``.

    A class that has a name in the scan and among ``classes`` is found by its name, whatever its
    code; where either has none, by the code. A code whose name is not among ``classes`` becomes one
    that is not theirs.
    """
    found = np.unique(scan.labels).tolist() if scan.labels is not None else [scan.label]
    places = {code: _code(classes, code, scan) for code in found if code not in (None, UNLABELLED)}
    if all(code == place for code, place in places.items()):
        return scan
    free = max(*classes.codes, *places) + 1  # codes from here on are nobody's
    codes: dict[int, int] = {}
    for number, (code, place) in enumerate(places.items()):
        codes[code] = free + number if place is None else place
    names = {own: scan.classes.get(code, f"class {code}") for code, own in codes.items()}
    if scan.label is not None and scan.labels is None:
        return replace(scan, label=codes[scan.label], classes=names)
    assert scan.labels is not None
    labels = np.full(len(scan), UNLABELLED, dtype=np.int64)
    for code, own in codes.items():
        labels[scan.labels == code] = own
    return replace(scan, labels=labels, classes=names)


def _code(classes: Classes, code: int, scan: Scan) -> int | None:
    """The code among ``classes`` of a scan's code; None where it is none of them."""
    name = scan.classes.get(code)
    by_code = dict(zip(classes.codes, classes.names, strict=True))
    own = by_code.get(code)
    if name is None or own in (name, f"{name} ({code})", str(code)):
        return code
    by_name = dict(zip(classes.names, classes.codes, strict=True))
    if name in by_name:
        return by_name[name]
    return None if own is not None else code


def learned_from(run: Run, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that hold, or lie in, what the run was trained with."""
    options = run.options
    given = [Path(name).resolve() for name in options.get("data", ()) if Path(name).exists()]
    tests = [Path(name).resolve() for name in options.get("test") or () if Path(name).exists()]

    def within(path: Path, folders: Sequence[Path]) -> bool:
        return any(path == folder or folder in path.parents for folder in folders)

    out = []
    for name in names:
        path = Path(name).resolve()
        overlaps = within(path, given) or any(within(folder, [path]) for folder in given)
        if overlaps and not within(path, tests):
            out.append(name)
    return out
