"""``pointwise classify``: what images show, by a trained run or a network with given weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.terminal import shown, terminal

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from pointwise.training.run import Run


def classify(
    run: Annotated[
        str,
        typer.Argument(
            help="The folder of a run, from 'pointwise train', or a network with --weights.",
            metavar="RUN_OR_NETWORK",
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(help="Images, or folders of them.", metavar="IMAGE...")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="The weights of a network of pointwise.networks.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --weights: the classes' names, one on each line.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --weights: pixels to read images at.",
            show_default="by the file's name, or 224",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="With --weights: an argument of the network's class; can be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda if there is one")
    ] = None,
) -> None:
    """Says what images show: the most likely classes of each."""
    import torch

    from pointwise.training.images.classify import classify_pictures
    from pointwise.training.images.sources import read_pictures

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    trained = _load(run, weights, labels, size, set_, device)
    pictures = [picture for path in images for picture in read_pictures(path)]
    found = []
    for picture, probabilities in zip(pictures, classify_pictures(trained, pictures), strict=True):
        order = probabilities.argsort()[::-1][:top]
        found.append((picture.name, order, probabilities[order]))
    names = trained.recipe.classes.names
    if json:
        typer.echo(_json(found, names))
    else:
        terminal().print(_table(found, names))


Found = tuple[str, "np.ndarray", "np.ndarray"]  # an image, its likeliest classes, how likely


def _load(
    run: str,
    weights: Path | None,
    labels: Path | None,
    size: int | None,
    arguments: list[str] | None,
    device: str,
) -> Run:
    from pointwise.training.image_recipe import IMAGES
    from pointwise.training.images.pretrained import pretrained
    from pointwise.training.run import load_run, network_class

    if weights is not None:
        from pointwise.cli.network_arguments import network_arguments

        network_class(run)  # before the weights are read
        return pretrained(
            run,
            weights,
            labels=labels,
            size=size,
            arguments=network_arguments(arguments),
            device=device,
        )
    for name, value in (("--labels", labels), ("--size", size), ("--set", arguments)):
        if value:
            raise ValueError(f"classify: {name} goes with --weights; a run knows its own")
    if not Path(run).exists():
        raise ValueError(
            f"classify: there is no folder {run}; for a network of pointwise.networks, give its"
            " weights with --weights FILE"
        )
    trained = load_run(run, device)
    if trained.recipe.task != IMAGES:
        raise ValueError(
            f"classify: {run} was trained on point clouds; use: pointwise label {run} CLOUD"
        )
    return trained


def _table(found: Sequence[Found], names: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False)
    # Together 80 columns at most, whatever the names are.
    table.add_column("image", overflow="fold", max_width=20)
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=32)
    table.add_column("probability", justify="right", min_width=11)
    table.add_column("", no_wrap=True)
    for image, order, probabilities in found:
        for rank, (place, share) in enumerate(zip(order, probabilities, strict=True)):
            table.add_row(
                shown(image) if rank == 0 else "",
                shown(names[place]),
                f"{100 * share:.1f} %",
                "█" * round(8 * float(share)),
                style="bold" if rank == 0 else "",
                end_section=rank == len(order) - 1,
            )
    return table


def _json(found: Sequence[Found], names: Sequence[str]) -> str:
    import json

    return json.dumps(
        [
            {
                "image": image,
                "top": [
                    {"class": names[place], "index": int(place), "probability": round(float(p), 6)}
                    for place, p in zip(order, probabilities, strict=True)
                ],
            }
            for image, order, probabilities in found
        ],
        indent=2,
        ensure_ascii=False,
    )
