"""``pointwise label``: the classes of new scans, by a trained run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.cli.run_options import VOTES, Columns, Device, Votes, device_of
from pointwise.terminal import plain, shown, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from pointwise.cli.label_cluster import Cluster
    from pointwise.cli.label_workers import Here, Workers
    from pointwise.training.labelling import How, Labelled
    from pointwise.training.run import Run

WHAT = "What is written"
MANY = "Many files"


def label(
    run: Annotated[Path, typer.Argument(help="The folder of a run, from 'pointwise train'.")],
    inputs: Annotated[
        list[Path], typer.Argument(help="Clouds, or folders of them.", metavar="INPUT...")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The labelled file (.las, .laz, .ply, .npz, .xyz, .txt, .asc, .csv), or a folder"
            " for several; of whole clouds a .csv or .json.",
        ),
    ] = None,
    votes: Votes = VOTES,
    columns: Columns = None,
    device: Device = None,
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence",
            help="Write how probable each point's class is, as the field 'confidence'.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    unclassified_below: Annotated[
        float | None,
        typer.Option(
            help="Points less probable than this get no class (0 in LAS, else -1).",
            metavar="0.6",
            rich_help_panel=WHAT,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Points that have these codes (or classes) already keep them.",
            metavar="2,6",
            rich_help_panel=WHAT,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace files that exist.", rich_help_panel=MANY),
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave out what is labelled already, to go on after a stop.",
            rich_help_panel=MANY,
        ),
    ] = False,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone",
            help="Each file by itself, though others lie beside it.",
            rich_help_panel=MANY,
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes, each with a file and its share of cores; with --ray on each machine.",
            rich_help_panel=MANY,
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Label on a Ray cluster: 'local' starts one here, 'auto' is the one this machine"
            " belongs to.",
            metavar="local|auto|HOST:PORT",
            rich_help_panel=MANY,
        ),
    ] = None,
) -> None:
    """Labels every point of a cloud, or says which class a whole cloud is of.

    Files that lie side by side see each other across the seams; folders keep their structure.
    With the extra 'ray' files may lie in object stores, as s3://bucket/tiles.
    """

    from pointwise.training import remote
    from pointwise.training.image_recipe import IMAGES
    from pointwise.training.labelling import How
    from pointwise.training.run import load_run

    console = terminal()
    asked = device
    device = device_of(device)
    trained = load_run(run, device)
    if trained.recipe.task == IMAGES:
        raise ValueError(f"label: {run} was trained on images; use: pointwise classify {run} IMAGE")
    if trained.recipe.task == "classification":
        from pointwise.cli.classify import classify_clouds

        if confidence or unclassified_below is not None or keep or skip_existing or ray:
            raise ValueError(
                "label: a run that classifies whole clouds labels no points; leave out"
                " --confidence, --unclassified-below, --keep, --skip-existing and --ray"
            )
        classify_clouds(
            console, trained, inputs, columns=columns, out=out, force=force, votes=votes
        )
        return
    if out is None:
        raise ValueError("label: give the file, or the folder for several, to write with -o OUT")
    if unclassified_below is not None and not 0 <= unclassified_below <= 1:
        raise ValueError(
            f"label: --unclassified-below must lie between 0 and 1, got {unclassified_below:g}"
        )
    if force and skip_existing:
        raise ValueError("label: --force replaces what --skip-existing leaves; give one of them")
    how = How(
        votes=votes,
        confidence=confidence,
        unclassified_below=unclassified_below or 0.0,
        keep=_kept(trained, keep),
        columns=columns,
    )
    # All is checked before the first scan is read: labelling can take an hour.
    targets = _targets(inputs, out, may_exist=force or skip_existing)
    there = remote.present(targets.values(), out) if skip_existing else set()
    done = {file for file, target in targets.items() if target in there}
    if done:
        console.print(f"{len(done):,} of {len(targets):,} files are labelled already")
    if len(done) == len(targets):
        return
    hands = _hands(trained, run, device, asked, ray, workers)
    _label(console, trained, hands, targets, done, how, alone=alone)


def _hands(
    run: Run, folder: Path, device: str, asked: str | None, ray: str | None, workers: int
) -> Here | Workers | Cluster:
    """Who does the work: this process, several, or a cluster, whose device is only as ``asked``."""
    from pointwise.cli.label_cluster import Cluster
    from pointwise.cli.label_workers import Here, Workers

    if ray is not None:
        return Cluster(folder, ray, asked, workers)
    return Workers(folder, device, workers) if workers > 1 else Here(run)


def _kept(run: Run, keep: str | None) -> tuple[int, ...]:
    from pointwise.training.relabel import codes_in

    classes = run.recipe.classes
    known = dict(zip(classes.codes, classes.names, strict=True))
    return () if keep is None else codes_in(keep, known, f"label: --keep {keep}")


def _targets(inputs: list[Path], out: Path, *, may_exist: bool) -> dict[Path, Path]:
    """The file to write for each input; raises ValueError where one would be lost."""
    from pointwise.cloud.files import WRITABLE
    from pointwise.training import remote

    several = len(inputs) > 1 or remote.is_folder(inputs[0])
    into_folder = several or not out.suffix or remote.is_folder(out)
    if into_folder and remote.is_file(out):
        raise ValueError(f"label: {out} is a file, but several inputs need a folder")
    found = _files(inputs, out)
    targets = {file: out / _writable(place) if into_folder else out for file, place in found}
    times = Counter(targets.values())
    sources = {remote.whole(file) for file in targets}
    there = set() if may_exist else remote.present(targets.values(), out)
    for target in targets.values():
        name = remote.name_of(target)
        if target.suffix.lower() not in WRITABLE:
            raise ValueError(f"label: {name} must end in {', '.join(WRITABLE)}")
        if remote.whole(target) in sources:
            raise ValueError(
                f"label: {name} is an input, which is never written to; choose another -o"
            )
        if times[target] > 1:
            raise ValueError(
                f"label: two inputs are called {target.relative_to(out)}; label them one at a time"
            )
        if target in there:
            raise ValueError(
                f"label: {name} exists; choose another -o, or replace it with --force, or leave"
                " it out with --skip-existing"
            )
    return targets


def _files(inputs: list[Path], out: Path) -> list[tuple[Path, Path]]:
    """The files to read, each once, and where each stands below the input it was found in."""
    from pointwise.training import remote
    from pointwise.training.sources import files_of

    written = remote.whole(out)
    found: dict[Path, Path] = {}
    for path in inputs:
        # A folder for what is written may lie in the one that is read, and hold files by now.
        inside = remote.whole(path) in written.parents
        found_in = files_of if remote.url_of(path) is None else remote.files_of
        for file in found_in(path):
            if not (inside and written in remote.whole(file).parents):
                found[file] = Path(file.name) if file == path else file.relative_to(path)
    if not found:
        raise ValueError(f"label: {inputs[0]} holds nothing but what is in {out}")
    return list(found.items())


def _writable(file: Path) -> Path:
    """The file's own name where its format can hold labels, else that of a PLY file."""
    import re

    from pointwise.cloud.files import WRITABLE

    if file.suffix.lower() not in WRITABLE:
        return file.with_name(f"{file.name}.ply")
    # The octree of COPC is not written.
    return file.with_name(re.sub(r"(?i)\.copc\.laz$", ".laz", file.name))


def _label(
    console: Console,
    run: Run,
    hands: Here | Workers | Cluster,
    targets: dict[Path, Path],
    done: set[Path],
    how: How,
    *,
    alone: bool,
) -> None:
    """Labels one file, whose error is the command's, or many, where the others go on."""
    from pointwise.cli.progress import bar
    from pointwise.training import remote
    from pointwise.training.labelling import Job
    from pointwise.training.survey import ALONE, Place, surroundings

    several, failed = len(targets) > 1, 0
    labelled: list[Labelled] = []
    with hands:
        around = dict.fromkeys(targets, ALONE)
        if several and not alone:
            places: list[Place] = []
            with bar("reading where the files lie") as advance:
                for place in hands.places(list(targets), how.columns, advance):
                    if isinstance(place, Place):
                        places.append(place)
                    # What cannot be read is said when its turn to be labelled comes.
            # In one order, whoever was first: it decides that in which points are added up.
            order = {file: number for number, file in enumerate(targets)}
            places.sort(key=lambda place: order[place.file])
            found = surroundings(places, run.recipe.reach, run.recipe.unit)
            around |= {place.file: its for place, its in zip(places, found, strict=True)}
            _tell_of_tiles(console, [around[file].neighbours for file in targets])
        jobs = [Job(f, t, around[f]) for f, t in targets.items() if f not in done]
        with bar("labelling") as advance:
            for result in hands.labelled(jobs, how, advance):
                if isinstance(result, Exception):
                    if not several:
                        raise result
                    failed += 1
                    typer.echo(f"pointwise: {plain(result)}", err=True)
                    continue
                labelled.append(result)
                if several:
                    console.print(
                        f"{shown(remote.name_of(result.target))}  {result.points:,} points"
                    )
    _tell(console, labelled)
    if failed:
        raise ValueError(f"label: {failed:,} of {len(jobs):,} files could not be labelled")


def _tell_of_tiles(console: Console, neighbours: list[tuple[Path, ...]]) -> None:
    tiles = sum(bool(files) for files in neighbours)
    if tiles:
        rest = len(neighbours) - tiles
        others = f"; {rest:,} {'stands' if rest == 1 else 'stand'} alone" if rest else ""
        console.print(
            f"{tiles:,} files lie side by side, and see each other across the seams{others}"
        )


def _tell(console: Console, labelled: list[Labelled]) -> None:
    """How the points of all files are shared out among the classes."""
    from rich.table import Table

    from pointwise.cloud.scan import UNLABELLED
    from pointwise.training import remote

    counts: Counter[int] = Counter()
    names = {UNLABELLED: "(unclassified)"}
    for each in labelled:
        counts.update(each.counts)
        names |= each.classes
    total = sum(counts.values())
    if not labelled:
        return
    where = (
        shown(remote.name_of(labelled[0].target))
        if len(labelled) == 1
        else f"{len(labelled):,} files"
    )
    console.print(f"[bold]{where}[/bold]  {total:,} points")
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(justify="right")
    for code, count in counts.most_common():
        name = names.get(code, f"class {code}")
        table.add_row(f"  {100 * count / total:.1f} %", f"{count:,}", shown(name))
    console.print(table)
    if kept := sum(each.kept for each in labelled):
        console.print(f"{kept:,} points had a code that is kept")
