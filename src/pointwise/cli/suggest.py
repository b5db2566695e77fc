"""``pointwise suggest``: where labels would help a run most."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointwise.cli.outputs import check_output, write_json
from pointwise.cli.run_options import VOTES, Columns, Device, Votes, device_of
from pointwise.terminal import plain, shown, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from pointwise.cloud.scan import Scan
    from pointwise.training.run import Run
    from pointwise.training.suggest import Region


def suggest(
    run: Annotated[Path, typer.Argument(help="The folder of a run, from 'pointwise train'.")],
    scans: Annotated[
        list[Path],
        typer.Argument(
            help="Clouds, or folders of them; what has a label already is passed over.",
            metavar="SCAN...",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write the list, as .csv or .json."),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            help="Also write the clouds, into this folder, with a field 'suggested': 1 is the"
            " first region to label, 0 is in none."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--regions", min=1, help="How many regions to suggest.")
    ] = 20,
    side: Annotated[
        float | None,
        typer.Option(
            help="Side of a region, in the clouds' unit.", show_default="16 cells of the run"
        ),
    ] = None,
    votes: Votes = VOTES,
    columns: Columns = None,
    device: Device = None,
) -> None:
    """Says which regions of unlabelled clouds to label next: unsure, and unlike one another."""

    from pointwise.training.run import load_run
    from pointwise.training.sources import files_of
    from pointwise.training.suggest import choose, default_side, regions

    check_output("suggest", "--out", out, (".csv", ".json"))
    if points is not None and points.exists() and not points.is_dir():
        raise ValueError(f"suggest: --points must be a folder, and {points} is a file")
    if side is not None and not side > 0:
        raise ValueError(f"suggest: --side must be greater than 0, got {side:g}")
    trained = load_run(run, device_of(device))
    if trained.recipe.task != "segmentation":
        raise ValueError(
            f"suggest: {run} gives one class to a whole cloud or image, which has no regions; it"
            " takes runs that label points"
        )
    side = side or default_side(trained)
    files = [file for path in scans for file in files_of(path)]
    if points is not None:
        _check_targets(files, points)
    read: list[_Cloud] = []
    clouds = _each(files, columns, trained, read, alone=points is not None)
    looked = regions(trained, clouds, side=side, votes=votes)
    found = looked.found
    if not found:
        raise ValueError("suggest: there is no point without a label")
    chosen = [found[place] for place in choose(looked, count)]

    console = terminal()
    console.print(_table(trained, read, chosen, len(found)))
    if out is not None:
        _write_list(out, trained, read, chosen)
        console.print(shown(out), soft_wrap=True)
    if points is not None:
        for target in _write_points(points, read, chosen, side, columns):
            console.print(shown(target), soft_wrap=True)


@dataclass(frozen=True)
class _Cloud:
    """Where a cloud that was looked at came from."""

    file: Path
    number: int  # among those of its file
    name: str


def _each(
    files: list[Path], columns: str | None, run: Run, read: list[_Cloud], *, alone: bool
) -> Iterator[Scan]:
    """The clouds of the files, one file in memory at a time; ``read`` is told of each.

    Raises ValueError for a file of several clouds where each has to be ``alone``.
    """
    from pointwise.cli.progress import bar
    from pointwise.training.sources import read_clouds

    with bar("looking") as advance:
        for place, file in enumerate(files):
            advance(place, len(files), f"looking at {plain(file.name)}")
            clouds = read_clouds(file, columns)
            if alone and len(clouds) > 1:
                raise ValueError(
                    f"suggest: {file} holds {len(clouds)} clouds, which --points cannot write; use"
                    " -o FILE.csv"
                )
            for number, scan in enumerate(clouds):
                lacking = run.recipe.features.lacking(scan)
                if lacking:
                    without = f"{file} has no {' and no '.join(lacking)}; it is labelled without"
                    warnings.warn(without, stacklevel=1)
                read.append(_Cloud(file, number, file.name if len(clouds) == 1 else scan.name))
                yield scan


def _table(run: Run, read: list[_Cloud], chosen: list[Region], count: int) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Label these first, of {count:,} regions {chosen[0].side:g} wide",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("", justify="right")
    table.add_column("cloud", overflow="fold")
    table.add_column("middle: x, y, z", justify="right", no_wrap=True)
    table.add_column("points", justify="right")
    table.add_column("doubt", justify="right", no_wrap=True)
    table.add_column("between", overflow="fold")
    for rank, region in enumerate(chosen, start=1):
        x, y, z = (low + region.side / 2 for low in region.low)
        table.add_row(
            str(rank),
            shown(read[region.scan].name),
            f"{x:.1f}, {y:.1f}, {z:.1f}",
            f"{region.points:,}",
            f"{100 * region.uncertainty:.0f} %",
            shown(_between(run, region)),
        )
    return table


def _between(run: Run, region: Region) -> str:
    first, second = (run.recipe.classes.names[place] for place in region.between)
    return f"{first} or {second}"


def _write_list(path: Path, run: Run, read: list[_Cloud], chosen: list[Region]) -> None:
    from pointwise.atomic import replacing

    rows: list[dict[str, Any]] = [
        {
            "rank": rank,
            "file": str(read[region.scan].file),
            "cloud": read[region.scan].number + 1,
            **{f"{axis}_min": low for axis, low in zip("xyz", region.low, strict=True)},
            **{f"{axis}_max": high for axis, high in zip("xyz", region.high, strict=True)},
            "points": region.points,
            "uncertainty": round(region.uncertainty, 4),
            "between": _between(run, region),
        }
        for rank, region in enumerate(chosen, start=1)
    ]
    if path.suffix.lower() == ".json":
        write_json(path, {"side": chosen[0].side, "regions": rows})
        return
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _check_targets(files: list[Path], folder: Path) -> None:
    """Raises ValueError where a cloud with the field could not be written; before the work."""
    from pointwise.cloud.files import WRITABLE

    targets = [_target(folder, file) for file in files]
    for file, target in zip(files, targets, strict=True):
        if file.suffix.lower() not in WRITABLE:
            raise ValueError(
                f"suggest: --points keeps the format, and {file} is none of {', '.join(WRITABLE)};"
                " use -o FILE.csv"
            )
        if target.exists():
            raise ValueError(f"suggest: {target} exists; choose another folder for --points")
        if targets.count(target) > 1:
            raise ValueError(f"suggest: two clouds are called {target.name}; look at one at a time")


def _target(folder: Path, file: Path) -> Path:
    import re

    # The octree of COPC is not written.
    return folder / re.sub(r"(?i)\.copc\.laz$", ".laz", file.name)


def _write_points(
    folder: Path, read: list[_Cloud], chosen: list[Region], side: float, columns: str | None
) -> Iterator[Path]:
    """Writes the clouds that have a region among ``chosen``, each point with its rank."""
    import numpy as np

    from pointwise.cloud.files import read_scan, write_fields
    from pointwise.cloud.scan import UNLABELLED
    from pointwise.training.suggest import cubes

    for place, cloud in enumerate(read):
        own = {r.cube: rank for rank, r in enumerate(chosen, start=1) if r.scan == place}
        if not own:
            continue
        scan = read_scan(cloud.file, columns=columns)
        cube, corners = cubes(scan, side)
        ranks = np.zeros(len(corners) + 1, dtype=np.int32)  # the last is of strays, which have -1
        for number, rank in own.items():
            ranks[number] = rank
        rank_of_point = ranks[cube]
        if scan.labels is not None:
            rank_of_point[scan.labels != UNLABELLED] = 0
        target = _target(folder, cloud.file)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_fields(scan, target, {"suggested": rank_of_point})
        yield target
