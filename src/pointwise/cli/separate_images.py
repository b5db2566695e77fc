"""The images of ``pointwise separate``: to fit to, to compare outputs on, to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pointwise.cli.model import Model
from pointwise.cli.train_images import ImageTraining
from pointwise.training.classes import Classes
from pointwise.training.clock import Spent
from pointwise.training.evaluate import evaluate_images, write_metrics
from pointwise.training.image_recipe import IMAGES, ImageRecipe
from pointwise.training.images.pretrained import IMAGENET
from pointwise.training.images.sources import read_pictures
from pointwise.training.metrics import scores
from pointwise.training.options import Options
from pointwise.training.picture import Picture
from pointwise.training.run import Run
from pointwise.training.train import Settings
from pointwise.training.train import train as fit

COMPARED = 64  # images whose outputs are compared
FEWEST = 8  # images in all: some to fit to, some to compare


@dataclass
class Images:
    """Images as a network reads them; with ``training``, their classes too."""

    calibration: Tensor | None
    compared: Tensor
    said: str
    training: ImageTraining | None = None


def of_run(
    model: Model, data: Sequence[str] | None, count: int, progress: Callable[[str], object]
) -> Images | None:
    """The images that a run was trained and tested on, or others of the same classes.

    None where they are no longer there, and no others are given.
    """
    run = model.run
    assert run is not None
    options = Options.from_plain({"data": [], **run.options})
    options = replace(options, devices=1, precision=None, workers=0)
    if data:
        options = replace(options, data=list(data), test=None)
    if not options.data or (not data and not all(map(_exists, options.data))):
        return None
    training = ImageTraining(options, progress)
    known = set(run.recipe.classes.names)
    if not known & set(training.data.classes()):
        raise ValueError(
            f"separate: {', '.join(options.data)} has none of the classes of {model.folder},"
            f" which are {', '.join(sorted(known))}"
        )
    train, test = training.data.train, training.data.test
    return Images(
        _read(run.recipe, train, count, seed=0) if count else None,
        _read(run.recipe, test, COMPARED, seed=1),
        _said(min(count, len(train)), min(COMPARED, len(test)), "training ", "test "),
        training,
    )


def of_folder(model: Model, data: Sequence[str], count: int, shape: tuple[int, ...]) -> Images:
    """Any images, for a network that no training of ours knows."""
    pictures = [picture for name in data for picture in read_pictures(Path(name))]
    if len(pictures) < FEWEST:
        raise ValueError(
            f"separate: {', '.join(data)} has {len(pictures)} images; {FEWEST} are needed at least"
        )
    if model.run is not None:
        recipe = model.run.recipe
    else:
        mean, std = (values[: shape[1]] for values in IMAGENET)
        recipe = ImageRecipe(Classes((), ()), (shape[2], shape[3]), mean, std)
    held = min(COMPARED, len(pictures) // 4)
    order = np.random.default_rng(0).permutation(len(pictures))
    mixed = [pictures[place] for place in order]
    count = min(count, len(pictures) - held)
    return Images(
        _read(recipe, mixed[held:], count, seed=0) if count else None,
        _read(recipe, mixed[:held], held, seed=1),
        _said(count, held, "", "other "),
    )


def _said(fitted: int, compared: int, of_fitted: str, of_compared: str) -> str:
    first = f"{fitted:,} {of_fitted}images to fit to, " if fitted else "nothing is fitted; "
    return f"{first}{compared} {of_compared}images to compare outputs on"


def _exists(name: str) -> bool:
    return name == "digits" or Path(name).exists()


def _read(recipe: ImageRecipe, pictures: Sequence[Picture], count: int, seed: int) -> Tensor:
    """Some of the pictures, at random: files are often sorted by class."""
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:count]
    return recipe.batch([recipe.pixels(pictures[place]) for place in chosen])


def accuracy(run: Run, images: Images, progress: Callable[[int, int], object]) -> float:
    """The share of the test part that a run's network gets right."""
    assert images.training is not None
    return scores(evaluate_images(run, images.training.data.test, progress)).overall_accuracy


def fine_tuned(run: Run, images: Images, folder: Path, epochs: int, learning_rate: float) -> Spent:
    """Trains on in the frame that all trainings have; returns the steps and seconds it took."""
    assert images.training is not None
    options = replace(
        images.training.options,
        epochs=epochs,
        steps=None,
        minutes=None,
        learning_rate=learning_rate,
    )
    run.options = options.as_plain()
    settings = Settings(epochs=epochs, learning_rate=learning_rate, seed=options.seed)
    return fit(run, images.training.feed(run), folder, settings)


def written_metrics(
    run: Run, images: Images, folder: Path, spent: Spent, progress: Callable[[int, int], object]
) -> float:
    """Tests a run, writes ``metrics.json`` and ``confusion.png``; returns the accuracy."""
    assert images.training is not None
    matrix = evaluate_images(run, images.training.data.test, progress)
    rest = images.training.not_counted(run)
    return write_metrics(run, matrix, folder, spent=spent, not_counted=rest).overall_accuracy


def is_of_images(run: Run) -> bool:
    return run.recipe.task == IMAGES
