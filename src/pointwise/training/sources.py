"""Where training data comes from: the built-in rooms, files, or folders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pointwise.cloud.extent import set_aside
from pointwise.cloud.scan import Scan
from pointwise.messages import shortened
from pointwise.training.classes import codes_of
from pointwise.training.conventions import conventions
from pointwise.training.recipe import TASKS, Task
from pointwise.training.split import HOWS, hold_out
from pointwise.training.split_names import SPLITS, split_of

SURFACE_POINTS = 4096  # drawn on a mesh
MOST_LINES = 5  # said of single clouds
VALIDATION = 0.15  # of what is left for training; never of the test part


@dataclass(frozen=True)
class Data:
    """What a training learns from, what it is validated on, and what it is tested on."""

    task: Task
    train: list[Scan]
    validation: list[Scan]
    test: list[Scan]
    notes: list[str] = field(default_factory=list)  # what is left out, and what was assumed


def load_data(
    data: Sequence[str],
    *,
    test: Sequence[str] = (),
    task: str | None = None,
    held_out: float = 0.25,
    split: str | None = None,
    rooms: int = 40,
    columns: str | None = None,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Data:
    """Reads ``rooms``, files or folders, and divides what they hold into three parts.

    In a folder, subfolders or file names that say ``train``, ``test`` or ``validation`` are taken
    at their word; without labels in the files, folders are classes. ``test`` is never learned from,
    and without it ``held_out`` of the data are not. ``columns`` is for ``read_scans``. Raises
    ValueError where no labels are found.
    """
    if task not in (None, *TASKS):
        raise ValueError(f"train: --task must be {' or '.join(TASKS)}, got {task!r}")
    if split not in (None, *HOWS):
        raise ValueError(f"train: --split must be {' or '.join(HOWS)}, got {split!r}")
    parts: dict[str, list[Scan]] = {"train": [], "validation": [], "test": []}
    folders: dict[str, int] = {}  # the class codes that folders have been given
    for name in data:
        if name == "rooms" and not Path(name).exists():
            found = _rooms(rooms, held_out, seed)
        else:
            found = _read_all(Path(name), progress, folders, columns)
        for part, scans in found.items():
            parts[part] += scans
    if not parts["train"]:
        parts["train"], parts["test"] = parts["test"], []  # a folder that happens to be called test
    for name in test:
        parts["test"] += [
            scan
            for scans in _read_all(Path(name), progress, folders, columns).values()
            for scan in scans
        ]

    found_task = _task(parts["train"], task)
    notes = conventions([scan for scans in parts.values() for scan in scans], found_task)
    parts = {part: _labelled(scans, found_task) for part, scans in parts.items()}
    _warn_of_strays([scan for scans in parts.values() for scan in scans])
    if not parts["train"]:
        raise ValueError(f"train: no labelled {found_task} data in {', '.join(data)}")
    if test and not parts["test"]:
        raise ValueError(f"train: no labelled {found_task} data in --test {', '.join(test)}")
    if not parts["test"]:
        parts["train"], parts["test"] = hold_out(
            parts["train"], found_task, held_out, seed=seed, how=split
        )
    if not parts["validation"]:
        parts["train"], parts["validation"] = _validation(parts["train"], found_task, split, seed)
    return Data(found_task, parts["train"], parts["validation"], parts["test"], notes)


def _warn_of_strays(scans: Sequence[Scan]) -> None:
    said = [line for scan in scans if (line := set_aside(scan))]
    for line in said[:MOST_LINES]:
        warnings.warn(line, stacklevel=3)
    if len(said) > MOST_LINES:
        more = len(said) - MOST_LINES
        warnings.warn(f"so it is in {more:,} more clouds: points far from the others", stacklevel=3)


def files_of(path: Path) -> list[Path]:
    """The readable files at ``path``: itself, or what lies in the folder, subfolders included.

    Raises OSError where there is nothing, ValueError where nothing is readable.
    """
    from pointwise.cloud.files import SUFFIXES

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file():
        return [path]
    rooms = {folder.parent for folder in path.rglob("Annotations") if folder.is_dir()}
    files = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not file.name.startswith(".")
        and not rooms.intersection(file.parents)
    ]
    files = _without_notes(files)
    if not files and not rooms:
        raise ValueError(
            f"{path} holds no readable file; readable are {', '.join(sorted(SUFFIXES))}"
        )
    return sorted([*files, *rooms])


def _without_notes(files: list[Path]) -> list[Path]:
    """The files without text that is about the data beside it, in a line that names it.

    ``shape_names.txt`` of ModelNet40, ``Area_1_alignmentAngle.txt`` of S3DIS, KITTI's
    ``calib.txt``.
    """
    folders = {file.parent for file in files if file.suffix.lower() == ".txt"}
    noted = {folder for folder in folders if _holds_a_data_set(folder)}
    notes = {file for file in files if file.suffix.lower() == ".txt" and file.parent in noted}
    if notes:
        names = ", ".join(sorted({file.name for file in notes}))
        warnings.warn(f"taken for notes, not for clouds: {shortened(names)}", stacklevel=3)
    return [file for file in files if file not in notes]


def _holds_a_data_set(folder: Path) -> bool:
    """Whether a folder directly holds HDF5, rooms of S3DIS, or KITTI's sweeps."""
    return any(
        each.suffix.lower() in (".h5", ".hdf5")
        or each.name == "velodyne"
        or (each / "Annotations").is_dir()
        for each in folder.iterdir()
    )


def read_clouds(file: Path, columns: str | None = None) -> list[Scan]:
    """The clouds of a file; of a mesh, ``SURFACE_POINTS`` points drawn evenly on its surface."""
    from pointwise.cloud.files import read_scans, sample_surface

    if file.suffix.lower() == ".off":
        return [sample_surface(file, SURFACE_POINTS)]
    return read_scans(file, columns=columns)


def _rooms(count: int, held_out: float, seed: int) -> dict[str, list[Scan]]:
    from pointwise.rooms import rooms

    return {
        "train": rooms(count, split="train", seed=seed),
        "validation": rooms(max(4, count // 8), split="validation", seed=seed),
        "test": test_rooms(count, held_out, seed),
    }


def test_rooms(count: int, held_out: float, seed: int) -> list[Scan]:
    """The rooms that a training on ``count`` rooms is tested on."""
    from pointwise.rooms import rooms

    return rooms(max(8, round(count * held_out / (1 - held_out))), split="test", seed=seed)


def read_by_folder(
    path: Path, progress: Callable[[str], object] | None = None, columns: str | None = None
) -> list[Scan]:
    """All clouds at ``path``, whatever part they are of; without labels, folders are classes."""
    found = _read_all(path, progress, {}, columns)
    return [scan for scans in found.values() for scan in scans]


def _read_all(
    path: Path,
    progress: Callable[[str], object] | None,
    folders: dict[str, int],
    columns: str | None = None,
) -> dict[str, list[Scan]]:
    found: dict[str, list[tuple[Path, Scan]]] = {"train": [], "validation": [], "test": []}
    files = files_of(path)
    for file in files:
        if progress is not None:
            progress(str(file))
        scans = [scan for scan in read_clouds(file, columns) if len(scan)]
        found[split_of(file, path)] += [(file, scan) for scan in scans]
    everything = [pair for pairs in found.values() for pair in pairs]
    if not any(scan.label is not None or len(codes_of(scan)) for _, scan in everything):
        names = _folder_classes(path, files)
        if len(names) > 1 or any(name in folders for name in names):
            for class_name in names:
                folders.setdefault(class_name, len(folders))
        found = {
            part: [(file, _named_by_folder(scan, file, path, folders)) for file, scan in pairs]
            for part, pairs in found.items()
        }
    return {part: [scan for _, scan in pairs] for part, pairs in found.items()}


def _folder_of(file: Path, root: Path) -> str | None:
    """The folder below ``root`` that names the file's class: the first that is no part's name."""
    folders = file.relative_to(root).parts[:-1] if file != root else ()
    return next((name for name in folders if name.lower() not in SPLITS), None)


def _folder_classes(root: Path, files: Sequence[Path]) -> list[str]:
    return sorted({name for file in files if (name := _folder_of(file, root)) is not None})


def _named_by_folder(scan: Scan, file: Path, root: Path, codes: dict[str, int]) -> Scan:
    code = codes.get(_folder_of(file, root) or "")
    if code is None:
        return scan
    return replace(scan, label=code, labels=None, classes={c: name for name, c in codes.items()})


def _task(scans: Sequence[Scan], task: str | None) -> Task:
    points = any(scan.labels is not None and len(codes_of(scan)) for scan in scans)
    clouds = any(scan.label is not None for scan in scans)
    if task == "segmentation" or (task is None and points and not clouds):
        return "segmentation"
    if task == "classification" or (task is None and clouds and not points):
        return "classification"
    if points and clouds:
        raise ValueError(
            "train: some clouds have a label and some have labelled points; give --task"
        )
    raise ValueError(
        "train: no labels in the data; label the points, or sort the files into folders by class"
    )


def _labelled(scans: Sequence[Scan], task: Task) -> list[Scan]:
    if task == "classification":
        return [scan for scan in scans if scan.label is not None]
    return [scan for scan in scans if scan.labels is not None and len(codes_of(scan))]


def _validation(
    train: list[Scan], task: Task, split: str | None, seed: int
) -> tuple[list[Scan], list[Scan]]:
    """Takes a validation part out of the training part; none where that cannot be divided."""
    try:
        kept, held = hold_out(train, task, VALIDATION, seed=seed + 1, how=split)
    except ValueError:
        return train, []
    whole, left = _codes(train), _codes(kept)
    return (kept, held) if len(left) == len(whole) and held else (train, [])


def _codes(scans: Sequence[Scan]) -> np.ndarray:
    return np.unique(np.concatenate([codes_of(scan) for scan in scans]))
