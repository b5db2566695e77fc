"""What ``pointwise train`` does with point clouds."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.scan import Scan
from pointwise.messages import rounded
from pointwise.training import processes
from pointwise.training.augment import Augmentation
from pointwise.training.data import feed, prepare
from pointwise.training.evaluate import evaluate, not_counted
from pointwise.training.feed import Feed
from pointwise.training.label import VOTES
from pointwise.training.options import Options
from pointwise.training.plan import plan
from pointwise.training.recipe import Recipe
from pointwise.training.run import Run
from pointwise.training.shelf import MEMORY, Memory, Shelf
from pointwise.training.sources import files_of, held_clouds, load_data

MUCH = 0.25  # of memory, in files: scans are larger in it, and LAZ by some ten times


class CloudTraining:
    """The data, the network and the words of a training on clouds, as the options say."""

    def __init__(self, options: Options, progress: Callable[[str], object]) -> None:
        self.options = options
        self.memory = _memory(options)
        if options.cache is None and (said := _too_much(_files(options))):
            warnings.warn(said, stacklevel=1)
        self.data = load_data(
            options.data,
            test=options.test or (),
            task=options.task,
            held_out=options.hold_out,
            split=options.split,
            rooms=options.rooms or 40,
            columns=options.columns,
            merge=options.map or (),
            ignore=options.ignore,
            names=options.names,
            seed=options.seed,
            progress=progress,
            memory=self.memory,
        )
        self.counted = "points" if self.data.task == "segmentation" else "clouds"
        self.rotate = 180.0 if options.rotate is None else options.rotate

    def plan(self, arguments: dict[str, Any], start: Run | None) -> Run[Recipe]:
        options = self.options
        return plan(
            self.data,
            network=options.network,
            features=_names(options.features),
            optional=_names(options.optional) or (),
            cell_size=options.cell_size,
            block=options.block,
            rotate=self.rotate,
            arguments=arguments,
            seed=options.seed,
            options=options.as_plain(),
            memory=self.memory,
            start=start,
        )

    def prepare(self, run: Run[Recipe]) -> None:
        share = processes.here_share([*self.data.train, *self.data.validation])
        prepare(run.recipe, share, self.memory)

    def feed(self, run: Run[Recipe]) -> Feed:
        jitter = 0.05 * run.arguments["cell_size"]
        return feed(
            run.recipe,
            self.data.train,
            self.data.validation,
            augmentation=Augmentation(rotate=self.rotate, jitter=jitter),
            batch=self.options.batch,
            workers=self.options.workers,
            seed=self.options.seed,
            memory=self.memory,
        )

    def evaluate(
        self,
        run: Run[Recipe],
        progress: Callable[[int, int], object],
        seen: Callable[[Scan, np.ndarray, np.ndarray], object],
        votes: int = VOTES,
    ) -> np.ndarray:
        return evaluate(run, self.data.test, progress, votes=votes, seen=seen)

    def not_counted(self, run: Run[Recipe]) -> dict[str, int]:
        return not_counted(run, self.data.test)

    def describe(self, run: Run[Recipe]) -> list[tuple[str, str]]:
        """What is learned from, and how it is read: a word and what to say of it."""
        recipe = run.recipe
        cut = f"blocks {recipe.block:g} wide" if recipe.task == "segmentation" else "whole clouds"
        if recipe.unit_sphere:
            cut += ", each brought to radius 1"
        rows = []
        for part in ("train", "validation", "test"):
            scans = getattr(self.data, part)
            points = sum(len(scan) for scan in scans)
            rows.append((part, f"{len(scans):,} cloud{'s' * (len(scans) != 1)}, {points:,} points"))
        return [
            *rows,
            ("classes", ", ".join(recipe.classes.names)),
            ("features", ", ".join(recipe.features.names)),
            *(
                [("optional", ", ".join(optional))]
                if (optional := recipe.features.optional)
                else []
            ),
            ("cells", f"{run.arguments['cell_size']:g} wide, {cut}"),
            ("unit", recipe.unit or "not stated; taken to be the same for all clouds"),
            ("assumed", "z points up"),
            *((kind, said) for line in run.notes for kind, _, said in [line.partition(": ")]),
        ]

    def next_step(self, folder: Path) -> tuple[str, str]:
        """What to do with the run now, and the command for it."""
        if self.data.task == "classification":
            return "To classify clouds with it:", f"pointwise classify {folder} CLOUD"
        return "To label scans with it:", f"pointwise label {folder} SCAN -o OUT"


def read_ahead(options: Options, progress: Callable[[str], object]) -> None:
    """Puts this process's share of the files into the cache, where all will find them."""
    memory = _memory(options)
    for file in processes.here_share(_files(options)):
        progress(str(file))
        held_clouds(file, options.columns, memory)


def _files(options: Options) -> list[Path]:
    names = [name for name in (*options.data, *(options.test or ())) if Path(name).exists()]
    return [file for name in names for file in files_of(Path(name))]


def _too_much(files: Sequence[Path]) -> str:
    """What to say where the files' scans may not fit into memory; nothing where they do."""
    size, memory = sum(file.stat().st_size for file in files), _memory_of_machine()
    if size <= MUCH * memory:
        return ""
    return (
        f"the data are {rounded(size / 1e9)} GB in files, and {rounded(memory / 1e9)} GB of memory"
        " may not hold them; with --cache FOLDER they are read from there as they are needed"
    )


def _memory_of_machine() -> float:
    """Bytes, or of the container that this runs in; ∞ where nobody tells."""
    try:
        found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(found, float(text)) if text.isdigit() else found


def _memory(options: Options) -> Memory:
    return MEMORY if options.cache is None else Shelf(Path(options.cache))


def _names(features: str | None) -> list[str] | None:
    return None if features is None else [n for name in features.split(",") if (n := name.strip())]
