"""What ``pointwise train`` does with images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.training.evaluate import evaluate_images, images_not_counted
from pointwise.training.feed import Feed
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.images.augment import ImageAugmentation
from pointwise.training.images.data import feed
from pointwise.training.images.plan import plan_images
from pointwise.training.images.sources import load_images
from pointwise.training.options import Options
from pointwise.training.run import Run

ROTATE = 10.0  # degrees


class ImageTraining:
    """The data, the network and the words of a training on images, as the options say."""

    counted = "images"

    def __init__(self, options: Options, progress: Callable[[str], object]) -> None:
        if options.task not in (None, "classification"):
            raise ValueError(
                f"train: images are classified; there is no --task {options.task} for them"
            )
        self.options = options
        self.data = load_images(
            options.data,
            test=options.test or (),
            held_out=options.hold_out,
            seed=options.seed,
            progress=progress,
        )

    def plan(self, arguments: dict[str, Any], start: Run | None) -> Run[ImageRecipe]:
        if self.options.width is not None:
            arguments = {"width": self.options.width, **arguments}
        return plan_images(
            self.data,
            network=self.options.network,
            size=self.options.size,
            arguments=arguments,
            seed=self.options.seed,
            options=self.options.as_plain(),
            start=start,
        )

    def prepare(self, run: Run[ImageRecipe]) -> None:
        """Nothing: pictures are read from their files as they are needed."""

    def feed(self, run: Run[ImageRecipe]) -> Feed:
        rotate = ROTATE if self.options.rotate is None else self.options.rotate
        return feed(
            run.recipe,
            self.data.train,
            self.data.validation,
            augmentation=ImageAugmentation(rotate=rotate, flip=self.options.flip),
            batch=self.options.batch,
            workers=self.options.workers,
            seed=self.options.seed,
        )

    def evaluate(
        self,
        run: Run[ImageRecipe],
        progress: Callable[[int, int], object],
        seen: object,
        votes: object = None,
    ) -> np.ndarray:
        """``seen`` and ``votes`` are of clouds only: a page of images has their scores."""
        return evaluate_images(run, self.data.test, progress)

    def not_counted(self, run: Run[ImageRecipe]) -> dict[str, int]:
        return images_not_counted(run, self.data.test)

    def describe(self, run: Run[ImageRecipe]) -> list[tuple[str, str]]:
        """What is learned from, and how it is read: a word and what to say of it."""
        height, width = run.recipe.size
        colour = "grey" if run.recipe.channels == 1 else "in colour"
        rows = [
            (part, f"{len(getattr(self.data, part)):,} images")
            for part in ("train", "validation", "test")
        ]
        return [
            *rows,
            ("classes", ", ".join(run.recipe.classes.names)),
            ("read", f"at {width} × {height} pixels, {colour}"),
            *((kind, said) for line in self.data.notes for kind, _, said in [line.partition(": ")]),
        ]

    def next_step(self, folder: Path) -> tuple[str, str]:
        """What to do with the run now, and the command for it."""
        return "To classify images with it:", f"pointwise classify {folder} IMAGE"
