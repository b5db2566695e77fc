"""Where training data comes from: the built-in rooms, files, or folders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pointwise.cloud.extent import set_aside
from pointwise.cloud.scan import Scan
from pointwise.cloud.units import in_unit, usual_unit
from pointwise.messages import shortened
from pointwise.training.classes import codes_of, count_classes, name_classes
from pointwise.training.conventions import conventions, units_of
from pointwise.training.parts import doubts, without_validation
from pointwise.training.recipe import TASKS, Task
from pointwise.training.relabel import AS_IS, Relabelling, relabelling
from pointwise.training.shelf import MEMORY, Memory
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
    relabelling: Relabelling = AS_IS  # what was made of the files' codes


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
    merge: Sequence[str] = (),
    ignore: str | None = None,
    names: Mapping[str, str] | None = None,
    memory: Memory = MEMORY,
) -> Data:
    """Reads ``rooms``, files or folders, and divides what they hold into three parts.

    In a folder, subfolders or file names that say ``train``, ``test`` or ``validation`` are taken
    at their word; without labels in the files, folders are classes. ``test`` is never learned from,
    and without it ``held_out`` of the data are not. ``columns`` is for ``read_scans``; ``merge``,
    ``ignore`` and ``names`` say what becomes of the codes, and ``memory`` where scans are held.
    Raises ValueError where no labels are found.
    """
    if task not in (None, *TASKS):
        raise ValueError(f"train: --task must be {' or '.join(TASKS)}, got {task!r}")
    if split not in (None, *HOWS):
        raise ValueError(f"train: --split must be {' or '.join(HOWS)}, got {split!r}")
    parts: dict[str, list[Scan]] = {"train": [], "validation": [], "test": []}
    folders: dict[str, int] = {}  # the class codes that folders have been given
    for name in data:
        if name == "rooms" and not Path(name).exists():
            found = _rooms(rooms, held_out, seed, progress, memory)
        else:
            found = _read_all(Path(name), progress, folders, columns, memory)
        for part, scans in found.items():
            parts[part] += scans
    if not parts["train"]:
        parts["train"], parts["test"] = parts["test"], []  # a folder that happens to be called test
    for name in test:
        parts["test"] += [
            scan
            for scans in _read_all(Path(name), progress, folders, columns, memory).values()
            for scan in scans
        ]

    parts, notes_of_units = _agreed(parts, memory)
    every = [scan for scans in parts.values() for scan in scans]
    wanted = relabelling(every, merge, ignore, names)
    parts = {
        part: [memory.scan(wanted.applied(scan)) for scan in scans] for part, scans in parts.items()
    }

    found_task = _task(parts["train"], task)
    notes = conventions([scan for scans in parts.values() for scan in scans], found_task)
    notes += notes_of_units
    parts = {part: _labelled(scans, found_task) for part, scans in parts.items()}
    _warn_of_strays([scan for scans in parts.values() for scan in scans])
    if not parts["train"]:
        raise ValueError(f"train: no labelled {found_task} data in {', '.join(data)}")
    if test and not parts["test"]:
        raise ValueError(f"train: no labelled {found_task} data in --test {', '.join(test)}")
    if not parts["test"]:
        parts["train"], parts["test"] = hold_out(
            parts["train"], found_task, held_out, seed=seed, how=split, memory=memory
        )
    if not parts["validation"]:
        parts["train"], parts["validation"], why = _validation(
            parts["train"], found_task, split, seed, memory
        )
        notes += [f"note: {without_validation(why)}"] * bool(why)
    notes += [f"note: {line}" for line in _doubts(parts, found_task)]
    return Data(found_task, parts["train"], parts["validation"], parts["test"], notes, wanted)


def _agreed(
    parts: dict[str, list[Scan]], memory: Memory
) -> tuple[dict[str, list[Scan]], list[str]]:
    """The parts with all scans in one unit and with one numbering of classes; lines on units."""
    from pointwise.cloud.files.s3dis import one_numbering

    counts = [len(scans) for scans in parts.values()]
    scans = one_numbering([scan for scans in parts.values() for scan in scans])
    unit, lines = usual_unit(scans), []
    if unit is not None:
        lines = units_of(scans, unit)
        scans = [memory.scan(replace(in_unit(scan, unit), unit=unit)) for scan in scans]
    starts = np.cumsum([0, *counts])
    return {
        part: scans[first:last]
        for part, first, last in zip(parts, starts, starts[1:], strict=False)
    }, lines


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


def held_clouds(file: Path, columns: str | None, memory: Memory) -> list[Scan]:
    """The clouds of a file, held in ``memory``."""
    return memory.scans_of(file, columns, lambda: read_clouds(file, columns))


def _rooms(
    count: int,
    held_out: float,
    seed: int,
    progress: Callable[[str], object] | None,
    memory: Memory,
) -> dict[str, list[Scan]]:
    from pointwise.rooms.generate import room, room_numbers

    counts = {
        "train": count,
        "validation": max(4, count // 8),
        "test": _test_count(count, held_out),
    }
    found: dict[str, list[Scan]] = {}
    done, total = 0, sum(counts.values())
    for part, wanted in counts.items():
        found[part] = []
        for number in room_numbers(wanted, part, seed):
            done += 1
            if progress is not None:
                progress(f"room {done} of {total}")
            found[part].append(memory.scan(room(number)))
    return found


def test_rooms(count: int, held_out: float, seed: int) -> list[Scan]:
    """The rooms that a training on ``count`` rooms is tested on."""
    from pointwise.rooms import rooms

    return rooms(_test_count(count, held_out), split="test", seed=seed)


def _test_count(count: int, held_out: float) -> int:
    return max(8, round(count * held_out / (1 - held_out)))


def read_by_folder(
    path: Path, progress: Callable[[str], object] | None = None, columns: str | None = None
) -> list[Scan]:
    """All clouds at ``path``, whatever part they are of; without labels, folders are classes."""
    found = _read_all(path, progress, {}, columns, MEMORY)
    return [scan for scans in found.values() for scan in scans]


def _read_all(
    path: Path,
    progress: Callable[[str], object] | None,
    folders: dict[str, int],
    columns: str | None,
    memory: Memory,
) -> dict[str, list[Scan]]:
    found: dict[str, list[tuple[Path, Scan]]] = {"train": [], "validation": [], "test": []}
    files = files_of(path)
    for file in files:
        if progress is not None:
            progress(str(file))
        scans = [scan for scan in held_clouds(file, columns, memory) if len(scan)]
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
    train: list[Scan], task: Task, split: str | None, seed: int, memory: Memory
) -> tuple[list[Scan], list[Scan], str]:
    """Takes a validation part out of the training part, which keeps every class.

    Where no whole groups can be spared, scenes are cut. Returns what is left, the part, and why
    there is none, if so.
    """
    hows = [split] if split or task == "classification" else [None, "space"]
    why = ""
    for how in hows:
        try:
            kept, held = hold_out(train, task, VALIDATION, seed=seed + 1, how=how, memory=memory)
        except ValueError as error:
            why = why or str(error).removeprefix("train: ").partition(";")[0]
            continue
        lost = set(_codes(train)) - set(_codes(kept))
        if held and not lost:
            return kept, held, ""
        classes = name_classes(train)
        names = [classes.names[classes.codes.index(code)] for code in sorted(lost)]
        why = f"it would take all that is learned of {', '.join(names)}" if lost else (
            "every class is in one group only"
        )  # fmt: skip
    return train, [], why


def _codes(scans: Sequence[Scan]) -> list[int]:
    """The codes that occur in any of the scans."""
    return np.unique(np.concatenate([codes_of(scan) for scan in scans])).tolist()


def _doubts(parts: dict[str, list[Scan]], task: Task) -> list[str]:
    classes = name_classes(scan for scans in parts.values() for scan in scans)
    counts = {part: count_classes(scans, classes) for part, scans in parts.items()}
    counted = "points" if task == "segmentation" else "clouds"
    return doubts(counts["train"], counts["validation"], counts["test"], counted)
