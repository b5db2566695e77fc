"""What ``pointwise train`` does with point clouds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.cloud.scan import Scan
from pointwise.training.augment import Augmentation
from pointwise.training.data import feed
from pointwise.training.evaluate import evaluate, not_counted
from pointwise.training.feed import Feed
from pointwise.training.options import Options
from pointwise.training.plan import plan
from pointwise.training.recipe import Recipe
from pointwise.training.run import Run
from pointwise.training.sources import load_data


class CloudTraining:
    """The data, the network and the words of a training on clouds, as the options say."""

    def __init__(self, options: Options, progress: Callable[[str], object]) -> None:
        self.options = options
        self.data = load_data(
            options.data,
            test=options.test or (),
            task=options.task,
            held_out=options.hold_out,
            split=options.split,
            rooms=options.rooms or 40,
            columns=options.columns,
            seed=options.seed,
            progress=progress,
        )
        self.counted = "points" if self.data.task == "segmentation" else "clouds"
        self.rotate = 180.0 if options.rotate is None else options.rotate

    def plan(self, arguments: dict[str, Any]) -> Run[Recipe]:
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
        )

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
        )

    def evaluate(
        self,
        run: Run[Recipe],
        progress: Callable[[int, int], object],
        seen: Callable[[Scan, np.ndarray, np.ndarray], object],
    ) -> np.ndarray:
        return evaluate(run, self.data.test, progress, seen=seen)

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
            ("assumed", "z points up; all clouds are in one unit of length"),
            *((kind, said) for line in run.notes for kind, _, said in [line.partition(": ")]),
        ]

    def next_step(self, folder: Path) -> tuple[str, str]:
        """What to do with the run now, and the command for it."""
        return "To label scans with it:", f"pointwise label {folder} SCAN -o OUT"


def _names(features: str | None) -> list[str] | None:
    return None if features is None else [n for name in features.split(",") if (n := name.strip())]
