"""``pointwise classify``: what images or clouds are, by a run or a network with given weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.cli.class_files import Classified, check_class_file, write_class_file
from pointwise.cli.run_options import VOTES, Device, device_of
from pointwise.terminal import plain, shown, terminal

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
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
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Images or clouds, or folders of them.", metavar="INPUT..."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A .csv or .json to write: file, class, and the probability of each class.",
        ),
    ] = None,
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
    columns: Annotated[
        str | None,
        typer.Option(
            help="Of clouds: names of the columns of text, NPY and .bin, as in 'x y z intensity'."
        ),
    ] = None,
    votes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of clouds: how many rotated views vote on each; 1 is fastest.",
            show_default=str(VOTES),
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="How many classes to name.", show_default="5, or 3 of clouds"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that -o names.")] = False,
    device: Device = None,
) -> None:
    """Says what images show, or what clouds are of: the most likely classes of each."""

    from pointwise.training.image_recipe import IMAGES
    from pointwise.training.images.classify import classify_pictures
    from pointwise.training.images.sources import read_pictures

    device = device_of(device)
    trained = _load(run, weights, labels, size, set_, device)
    if trained.recipe.task != IMAGES:
        classify_clouds(
            terminal(),
            trained,
            inputs,
            columns=columns,
            out=out,
            force=force,
            json=json,
            top=top or 3,
            votes=votes or VOTES,
            caller="classify",
        )
        return
    for option, given in (("--columns", columns), ("--votes", votes)):
        if given is not None:
            raise ValueError(f"classify: {option} is for clouds, and {run} was trained on images")
    check_class_file("classify", out, force=force)
    pictures = [(path, picture) for path in inputs for picture in read_pictures(path)]
    each = classify_pictures(trained, [picture for _, picture in pictures])
    found, written = [], []
    for (path, picture), probabilities in zip(pictures, each, strict=True):
        order = probabilities.argsort()[::-1][: top or 5]
        found.append((picture.name, order, probabilities[order]))
        item = "" if picture.file is not None else picture.name
        written.append(Classified(str(picture.file or path), item, probabilities))
    names = trained.recipe.classes.names
    if out is not None:
        write_class_file(out, written, names)
    if json:
        typer.echo(_json("image", found, names))
    else:
        terminal().print(_table(found, names))
    if out is not None:
        typer.echo(plain(out), err=json)


Found = tuple[str, "np.ndarray", "np.ndarray"]  # an image, its likeliest classes, how likely


def _load(
    run: str,
    weights: Path | None,
    labels: Path | None,
    size: int | None,
    arguments: list[str] | None,
    device: str,
) -> Run:
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
    if trained.recipe.task == "segmentation":
        raise ValueError(
            f"classify: {run} was trained on point clouds; use: pointwise label {run} CLOUD -o OUT"
        )
    return trained


def classify_clouds(
    console: Console,
    run: Run,
    inputs: Sequence[Path],
    *,
    columns: str | None = None,
    out: Path | None = None,
    force: bool = False,
    json: bool = False,
    top: int = 3,
    votes: int = VOTES,
    caller: str = "label",
) -> None:
    """Says which class each cloud is of; a file that cannot be read is said, and left out."""
    from pointwise.cli.progress import bar
    from pointwise.training.label import classify_scans
    from pointwise.training.sources import files_of, read_clouds

    check_class_file(caller, out, force=force)
    files = [file for path in inputs for file in files_of(path)]
    names = run.recipe.classes.names
    found: list[Found] = []
    written: list[Classified] = []
    failed = 0
    with bar("classifying") as advance:
        for done, file in enumerate(files, 1):
            try:
                scans = read_clouds(file, columns)
                if without := {n for scan in scans for n in run.recipe.features.lacking(scan)}:
                    said = f"{file} has no {' and no '.join(sorted(without))}; it is classified"
                    warnings.warn(f"{said} without", stacklevel=2)
                each = list(classify_scans(run, scans, votes=votes))
            except (ValueError, OSError) as error:
                if len(files) == 1:
                    raise
                failed += 1
                typer.echo(f"pointwise: {plain(error)}", err=True)
                continue
            for scan, probabilities in zip(scans, each, strict=True):
                order = probabilities.argsort()[::-1][:top]
                several = len(scans) > 1
                name = scan.name if several else file.name
                found.append((name, order, probabilities[order]))
                written.append(Classified(str(file), scan.name if several else "", probabilities))
            advance(done, len(files))
    if out is not None and written:
        write_class_file(out, written, names)
    if json:
        typer.echo(_json("cloud", found, names))
    elif found:
        console.print(_cloud_table(found, names))
    if out is not None and written:
        typer.echo(plain(out), err=json)
    if failed:
        raise ValueError(f"{caller}: {failed:,} of {len(files):,} files could not be classified")


def _cloud_table(found: Sequence[Found], names: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cloud", overflow="fold")
    table.add_column("class", style="bold")
    table.add_column("probability", justify="right")
    table.add_column("next", style="dim")
    for cloud, (best, *others), (share, *rest) in found:
        following = ", ".join(
            f"{shown(names[place])} {100 * p:.0f} %" for place, p in zip(others, rest, strict=True)
        )
        table.add_row(shown(cloud), shown(names[best]), f"{100 * share:.1f} %", following)
    return table


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


def _json(kind: str, found: Sequence[Found], names: Sequence[str]) -> str:
    import json

    return json.dumps(
        [
            {
                kind: name,
                "top": [
                    {"class": names[place], "index": int(place), "probability": round(float(p), 6)}
                    for place, p in zip(order, probabilities, strict=True)
                ],
            }
            for name, order, probabilities in found
        ],
        indent=2,
        ensure_ascii=False,
    )
