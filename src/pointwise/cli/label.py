"""``pointwise label``: the classes of new scans, by a trained run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.terminal import shown, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from pointwise.training.run import Run


def label(
    run: Annotated[Path, typer.Argument(help="The folder of a run, from 'pointwise train'.")],
    inputs: Annotated[
        list[Path], typer.Argument(help="Clouds, or folders of them.", metavar="INPUT...")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The labelled file, or a folder for several."),
    ] = None,
    votes: Annotated[
        int,
        typer.Option(min=1, help="How many rotated views vote on each point; 1 is fastest."),
    ] = 3,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns of text, NPY and .bin, as in 'x y z intensity'."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda if there is one")
    ] = None,
) -> None:
    """Labels every point of a cloud, or says which class a whole cloud is of."""
    import torch

    from pointwise.training.image_recipe import IMAGES
    from pointwise.training.run import load_run
    from pointwise.training.sources import files_of

    console = terminal()
    trained = load_run(run, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if trained.recipe.task == IMAGES:
        raise ValueError(f"label: {run} was trained on images; use: pointwise classify {run} IMAGE")
    files = [file for path in inputs for file in files_of(path)]
    if trained.recipe.task == "classification":
        if out is not None:
            raise ValueError(
                "label: a run that classifies whole clouds writes no file; leave out -o"
            )
        _classify(console, trained, files, columns)
        return
    if out is None:
        raise ValueError("label: give the file, or the folder for several, to write with -o OUT")
    # All is checked before the first scan is read: labelling can take an hour.
    targets = _targets(files, out, several=len(inputs) > 1 or inputs[0].is_dir(), force=force)
    for file, target in zip(files, targets, strict=True):
        _label_file(console, trained, file, target, votes, columns)


def _targets(files: Sequence[Path], out: Path, *, several: bool, force: bool) -> list[Path]:
    """The file to write for each input; raises ValueError where one would be lost."""
    from pointwise.cloud.files import WRITABLE

    into_folder = several or out.is_dir() or not out.suffix
    targets = [out / _writable(file).name if into_folder else out for file in files]
    if into_folder and out.is_file():
        raise ValueError(f"label: {out} is a file, but several inputs need a folder")
    inputs = {file.resolve() for file in files}
    for target in targets:
        if target.suffix.lower() not in WRITABLE:
            raise ValueError(f"label: {target} must end in {', '.join(WRITABLE)}")
        if target.resolve() in inputs:
            raise ValueError(
                f"label: {target} is an input, which is never written to; choose another -o"
            )
        if targets.count(target) > 1:
            raise ValueError(
                f"label: two inputs are called {target.name}; label them one at a time"
            )
        if target.exists() and not force:
            raise ValueError(
                f"label: {target} exists; choose another -o, or replace it with --force"
            )
    return targets


def _writable(file: Path) -> Path:
    """The file's own name where its format can hold labels, else that of a PLY file."""
    from pointwise.cloud.files import WRITABLE

    if file.suffix.lower() not in WRITABLE:
        return file.with_name(f"{file.name}.ply")
    # The octree of COPC is not written.
    return file.with_name(re.sub(r"(?i)\.copc\.laz$", ".laz", file.name))


def _label_file(
    console: Console, run: Run, file: Path, target: Path, votes: int, columns: str | None
) -> None:
    from dataclasses import replace

    import numpy as np
    from rich.progress import Progress

    from pointwise.cloud.extent import set_aside
    from pointwise.cloud.files import check_labels, read_scan, write_labels
    from pointwise.training.label import label_scan

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(shown(file.name), total=None)
        scan = read_scan(file, columns=columns)
        if said := set_aside(scan):
            warnings.warn(said, stacklevel=1)
        if lacking := run.recipe.features.lacking(scan):
            without = f"{file} has no {' and no '.join(lacking)}; it is labelled without"
            warnings.warn(without, stacklevel=1)
        classes = dict(zip(run.recipe.classes.codes, run.recipe.classes.names, strict=True))
        labelled = replace(scan, classes=classes)
        check_labels(labelled, run.recipe.classes.codes, target)
        codes = label_scan(
            run,
            scan,
            lambda done, total: bar.update(task, completed=done, total=total),
            votes=votes,
        )
        write_labels(labelled, codes, target)
    console.print(f"[bold]{shown(target)}[/bold]  {len(scan):,} points")
    found, counts = np.unique(codes, return_counts=True)
    console.print(_shares([classes[int(c)] for c in found], counts.tolist()))


def _shares(names: Sequence[str], counts: Sequence[int]):
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(justify="right")
    for count, name in sorted(zip(counts, names, strict=True), reverse=True):
        table.add_row(f"  {100 * count / sum(counts):.1f} %", f"{count:,}", shown(name))
    return table


def _classify(console: Console, run: Run, files: Sequence[Path], columns: str | None) -> None:
    from rich import box
    from rich.table import Table

    from pointwise.training.label import classify_scans
    from pointwise.training.sources import read_clouds

    names = run.recipe.classes.names
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cloud", overflow="fold")
    table.add_column("class", style="bold")
    table.add_column("probability", justify="right")
    table.add_column("next", style="dim")
    for file in files:
        scans = read_clouds(file, columns)
        if lacking := {name for scan in scans for name in run.recipe.features.lacking(scan)}:
            without = f"{file} has no {' and no '.join(sorted(lacking))}; it is classified without"
            warnings.warn(without, stacklevel=1)
        for scan, probabilities in zip(scans, classify_scans(run, scans), strict=True):
            order = probabilities.argsort()[::-1]
            rest = ", ".join(
                f"{shown(names[i])} {100 * probabilities[i]:.0f} %" for i in order[1:3]
            )
            cloud = file.name if len(scans) == 1 else scan.name
            best = f"{100 * probabilities[order[0]]:.1f} %"
            table.add_row(shown(cloud), shown(names[order[0]]), best, rest)
    console.print(table)
