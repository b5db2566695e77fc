"""``pointwise evaluate``: how good a run is on labelled data."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.cli.outputs import check_output, write_json
from pointwise.cli.run_options import VOTES, Device, Votes, device_of
from pointwise.terminal import plain, shown, terminal

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from pointwise.report.evaluation import Gallery
    from pointwise.training.run import Run

MOST_IN_A_TABLE = 12  # classes whose confusions fit into 80 columns
MOST_CONFUSIONS = 10
HELD_OUT = "its test part"


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run, from 'pointwise train'.")],
    labelled: Annotated[
        list[str] | None,
        typer.Argument(
            help="Labelled clouds or images, or folders of them; 'rooms': those held out.",
            metavar="[LABELLED...]",
            show_default="what the run's training held out",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a page: scores, confusions, and clouds to turn in 3-d."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Also write the scores and the confusions as JSON.")
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(help="Fields to leave out, such as color, which the run has as --optional."),
    ] = None,
    votes: Votes = VOTES,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns of text, NPY and .bin, as in 'x y z label'."),
    ] = None,
    device: Device = None,
) -> None:
    """Labels data whose classes are known, and says how much of them is right."""

    from pointwise.cli.train_run import score_table
    from pointwise.report.evaluation import Gallery
    from pointwise.training.evaluate import score_record, write_page
    from pointwise.training.image_recipe import IMAGES
    from pointwise.training.labelled import learned_from
    from pointwise.training.metrics import scores
    from pointwise.training.run import load_run

    check_output("evaluate", "--html", html, (".html", ".htm"))
    check_output("evaluate", "--json", json, (".json",))
    trained = load_run(run, device_of(device))
    own = labelled is None or not labelled
    labelled = list(labelled or [])
    if own and (without or columns):
        raise ValueError("evaluate: --without and --columns need LABELLED data")
    remarks = [
        f"{name} is among what the run was trained with: what it has learned by heart scores too"
        " high"
        for name in learned_from(trained, labelled)
    ]
    for remark in remarks:
        warnings.warn(remark, stacklevel=1)
    gallery = Gallery()
    if own:
        counted, matrix, rest = _held_out(run, trained, votes, gallery)
    elif trained.recipe.task == IMAGES:
        if without or columns:
            raise ValueError("evaluate: --without and --columns are for clouds, these are images")
        counted = "images"
        matrix, rest = _images(trained, labelled)
    else:
        counted = "points" if trained.recipe.task == "segmentation" else "clouds"
        dropped = [name for part in (without or "").split(",") if (name := part.strip())]
        matrix, rest = _clouds(trained, labelled, dropped, votes, columns, gallery)
    if not matrix.sum():
        why = "; ".join(f"{count:,} {reason}" for reason, count in rest.items()) or "none at all"
        raise ValueError(f"evaluate: no {counted} with a class that the run has learned: {why}")

    console, result = terminal(), scores(matrix)
    title = f"On {matrix.sum():,} {counted}"
    console.print(score_table(trained, result, counted, title))
    for line in _remarks(trained, result.counts, matrix):
        console.print(line)
    if rest:
        each = "; ".join(f"{count:,} {why}" for why, count in rest.items())
        console.print(f"Not counted: {shown(each)}")
    console.print(_confusions(trained, matrix))
    if json is not None:
        record = {
            "run": str(run),
            "data": labelled or HELD_OUT,
            **score_record(trained, matrix, rest),
        }
        write_json(json, record | ({"remarks": remarks} if remarks else {}))
        console.print(shown(json), soft_wrap=True)
    if html is not None:
        title = f"{run.name} on {', '.join(Path(name).name for name in labelled) or HELD_OUT}"
        write_page(trained, matrix, rest, gallery, title, html, remarks)
        console.print(shown(html), soft_wrap=True)


def _held_out(
    folder: Path, run: Run, votes: int, gallery: Gallery
) -> tuple[str, np.ndarray, dict[str, int]]:
    """What the training has tested on, or would have: of what kind, truth and prediction, rest."""
    from pointwise.cli.progress import bar, working
    from pointwise.cli.train_run import held_out
    from pointwise.training.options import Options
    from pointwise.training.run_schema import check_options

    if not run.options.get("data"):
        raise ValueError(
            f"evaluate: {folder} does not say what it was trained with; give LABELLED data"
        )
    options = Options.from_plain(check_options(folder / "run.json", run.options))
    with working("reading data") as say:
        training = held_out(options, say)
    with bar("testing") as advance:
        matrix = training.evaluate(run, advance, gallery.add, votes)
    return training.counted, matrix, training.not_counted(run)


def _clouds(
    run: Run,
    labelled: list[str],
    without: list[str],
    votes: int,
    columns: str | None,
    gallery: Gallery,
) -> tuple[np.ndarray, dict[str, int]]:
    """Truth against prediction, and what is not counted."""
    import numpy as np

    from pointwise.cli.progress import working
    from pointwise.training.evaluate import evaluate as counts_of
    from pointwise.training.evaluate import not_counted
    from pointwise.training.labelled import labelled_clouds

    known = run.recipe.features
    for name in without:
        if name not in known.names:
            raise ValueError(
                f"evaluate: --without {name}: the run reads {', '.join(known.names)}, not {name}"
            )
    matrix = np.zeros((len(run.recipe.classes),) * 2, dtype=np.int64)
    rest: Counter[str] = Counter()
    lacking: Counter[str] = Counter()  # optional features, and how many clouds are without
    count = 0
    with working("reading") as say:
        for scan in labelled_clouds(
            run, labelled, columns, lambda file: say(f"evaluating {plain(file)}")
        ):
            if not len(scan):
                continue
            kept = {name: v for name, v in scan.fields.items() if name not in without}
            scan = replace(scan, fields=kept)
            lacking.update(known.lacking(scan))
            count += 1
            rest.update(not_counted(run, [scan]))
            if (run.recipe.targets(scan) >= 0).any():
                matrix += counts_of(run, [scan], votes=votes, seen=gallery.add)
    for name, number in lacking.items():
        warnings.warn(f"{number:,} of {count:,} clouds are labelled without {name}", stacklevel=1)
    return matrix, dict(rest)


def _images(run: Run, labelled: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    from pointwise.cli.progress import bar
    from pointwise.training.evaluate import evaluate_images, images_not_counted
    from pointwise.training.images.sources import read_pictures

    pictures = [picture for name in labelled for picture in read_pictures(Path(name))]
    known = [picture for picture in pictures if picture.label in run.recipe.classes.names]
    with bar("evaluating") as advance:
        matrix = evaluate_images(run, known, advance)
    return matrix, images_not_counted(run, pictures)


def _remarks(run: Run, counts: np.ndarray, matrix: np.ndarray) -> list[str]:
    """What the means do not show: classes that have no point in the data."""
    names = run.recipe.classes.names
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if not absent:
        return []
    taken = sum(int(matrix[:, names.index(name)].sum()) for name in absent)
    return [
        f"Not in the data, so in no mean: {shown(', '.join(absent))}"
        + (f" ({taken:,} were taken for them)" if taken else "")
    ]


def _confusions(run: Run, matrix: np.ndarray) -> Table:
    """The whole matrix in per cent of its rows, or the most frequent confusions of many classes."""
    from rich import box
    from rich.table import Table

    names = [shown(name) for name in run.recipe.classes.names]
    if len(names) > MOST_IN_A_TABLE:
        return _most_frequent(names, matrix)
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Where each class went, in per cent of its row",
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    table.add_column("true class", overflow="ellipsis", no_wrap=True, max_width=18)
    for number in range(1, len(names) + 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, (name, row) in enumerate(zip(names, matrix, strict=True), start=1):
        cells = [_cell(int(count), int(row.sum())) for count in row]
        cells[number - 1] = f"[bold]{cells[number - 1]}[/bold]"
        table.add_row(f"{number} {name}", *cells)
    return table


def _cell(count: int, total: int) -> str:
    if not count:
        return "·" if total else "–"
    return f"{100 * count / total:.0f}" if count >= 0.005 * total else "<1"


def _most_frequent(names: list[str], matrix: np.ndarray) -> Table:
    import numpy as np
    from rich import box
    from rich.table import Table

    wrong = matrix - np.diag(np.diag(matrix))
    table = Table(
        box=box.SIMPLE_HEAD,
        title="The most frequent confusions (all of them: --json, --html)",
        title_justify="left",
        title_style="bold",
    )
    for heading in ("true class", "taken for", "count", "of the class"):
        left = heading in ("true class", "taken for")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    order = np.argsort(wrong, axis=None)[::-1][:MOST_CONFUSIONS]
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            share = f"{100 * wrong[i, j] / matrix[i].sum():.1f} %"
            table.add_row(names[i], names[j], f"{wrong[i, j]:,}", share)
    return table
