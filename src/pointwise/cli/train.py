"""``pointwise train``: learns the classes of points, or of whole clouds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pointwise.training.metrics import Scores
    from pointwise.training.run import Run
    from pointwise.training.sources import Data

DATA = "What belongs to the data"
NET = "What is learned, and how"
MACHINE = "The machine"


def train(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="'rooms' (built in), files, or folders: with labels, or named by class."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder.", show_default="runs/NAME")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run, with its own data and options.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Train this long, instead of --epochs.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Read the data this often.", show_default="100")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="segmentation or classification.", show_default="by labels", rich_help_panel=DATA
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="A file or folder to test on, never learned from.", rich_help_panel=DATA),
    ] = None,
    hold_out: Annotated[
        float, typer.Option(help="The share to test on, without --test.", rich_help_panel=DATA)
    ] = 0.25,
    split: Annotated[
        str | None,
        typer.Option(
            help="Hold out by group, or cut scenes in space.",
            show_default="a lone scene in space",
            rich_help_panel=DATA,
        ),
    ] = None,
    rooms: Annotated[
        int, typer.Option(min=1, help="How many rooms to learn from.", rich_help_panel=DATA)
    ] = 40,
    network: Annotated[
        str | None,
        typer.Option(
            help="A class of pointwise.networks.",
            show_default="CellUNet, or CellPyramid for clouds",
            rich_help_panel=NET,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="As in color,intensity,height,xyz.", show_default="known ones", rich_help_panel=NET
        ),
    ] = None,
    cell_size: Annotated[
        float | None,
        typer.Option(
            help="Edge of a kernel cell.", show_default="by the spacing", rich_help_panel=NET
        ),
    ] = None,
    block: Annotated[
        float | None,
        typer.Option(
            help="Side of the blocks that scenes are cut into.",
            show_default="by density",
            rich_help_panel=NET,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Blocks or clouds per step.", show_default="1 or 16", rich_help_panel=NET
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="The highest, after the warm-up.", rich_help_panel=NET)
    ] = 0.005,
    rotate: Annotated[
        float,
        typer.Option(help="Largest random turn about the vertical, degrees.", rich_help_panel=NET),
    ] = 180.0,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after so many epochs without a better one.", rich_help_panel=NET
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the split and all chance.", rich_help_panel=NET)
    ] = 0,
    devices: Annotated[int, typer.Option(min=1, help="How many.", rich_help_panel=MACHINE)] = 1,
    precision: Annotated[
        str | None,
        typer.Option(
            help="As Lightning's.", show_default="bf16-mixed on a GPU", rich_help_panel=MACHINE
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare data.", rich_help_panel=MACHINE)
    ] = 0,
) -> None:
    """Trains a network on labelled clouds, and tests it on clouds it has not seen."""
    options: dict[str, Any] = dict(locals())
    for name in ("out", "resume"):
        options.pop(name)

    from rich.console import Console

    from pointwise.extras import import_extra

    for module in ("lightning.pytorch", "torchmetrics", "tensorboard"):
        import_extra(module, "train")

    console = Console(highlight=False)
    if resume is not None:
        if data:
            raise ValueError("train: --resume takes the run's own data; leave DATA away")
        folder, options = resume, _resumed(resume, minutes, epochs, patience, devices, workers)
    elif not data:
        raise ValueError("train: give DATA (rooms, files or folders), or --resume RUN")
    else:
        folder = out or free(Path("runs") / Path(data[0]).stem)
        if (folder / "run.json").exists():
            raise ValueError(
                f"train: {folder} holds a run already; choose another --out, or --resume {folder}"
            )
    _run(folder, options, console, resume=resume is not None)


def _resumed(folder: Path, *changed: Any) -> dict[str, Any]:
    """The options of an earlier training, with those that may change from sitting to sitting."""
    from pointwise.training.run import read_run

    minutes, epochs, patience, devices, workers = changed
    options = read_run(folder).options
    if minutes is not None or epochs is not None:
        options.update(minutes=minutes, epochs=epochs)
    if patience is not None:
        options["patience"] = patience
    return {**options, "devices": devices, "workers": workers}


def free(folder: Path) -> Path:
    """``folder``, with a number behind its name if that exists already."""
    count = 1
    named = folder
    while named.exists():
        count += 1
        named = folder.with_name(f"{folder.name}-{count}")
    return named


def _run(folder: Path, options: dict[str, Any], console: Console, *, resume: bool) -> None:
    from pointwise.training.augment import Augmentation
    from pointwise.training.evaluate import evaluate, write_metrics
    from pointwise.training.plan import plan
    from pointwise.training.run import read_run
    from pointwise.training.sources import load_data
    from pointwise.training.train import Settings, check_resumable
    from pointwise.training.train import train as fit

    settings = Settings(
        epochs=options["epochs"] or 100,
        **{name: options[name] for name in _SETTINGS},
    )
    if resume:
        check_resumable(folder, settings)  # before the data are read, which takes a while
    with console.status("reading data") as status:
        data = load_data(
            options["data"],
            test=options["test"] or (),
            task=options["task"],
            held_out=options["hold_out"],
            split=options["split"],
            rooms=options["rooms"],
            seed=options["seed"],
            progress=lambda file: status.update(f"reading {file}"),
        )
        if resume:
            run = read_run(folder)
        else:
            run = plan(
                data,
                network=options["network"],
                features=_names(options["features"]),
                cell_size=options["cell_size"],
                block=options["block"],
                rotate=options["rotate"],
                seed=options["seed"],
                options=options,
            )
    _describe(console, run, data, folder)
    augmentation = Augmentation(rotate=options["rotate"], jitter=0.05 * run.arguments["cell_size"])
    try:
        seconds = fit(run, data, folder, settings, augmentation=augmentation, resume=resume)
    except KeyboardInterrupt:
        console.print(f"\nContinue with: pointwise train --resume {folder}", soft_wrap=True)
        raise
    with _bar(console, "testing") as advance:
        matrix = evaluate(run, data.test, advance)
    result = write_metrics(run, matrix, folder, seconds=seconds)
    console.print(_table(run, result))
    # Commands to copy are not wrapped.
    console.print(f"{seconds:.0f} s of training. To label scans with it:")
    console.print(f"  pointwise label {folder} SCAN -o OUT", soft_wrap=True)


_SETTINGS = (
    "minutes",
    "batch",
    "learning_rate",
    "patience",
    "workers",
    "devices",
    "precision",
    "seed",
)


def _names(features: str | None) -> list[str] | None:
    return None if features is None else [n for name in features.split(",") if (n := name.strip())]


def _describe(console: Console, run: Run, data: Data, folder: Path) -> None:
    from rich.table import Table

    recipe = run.recipe
    cut = f"blocks {recipe.block:g} wide" if recipe.task == "segmentation" else "whole clouds"
    if recipe.unit_sphere:
        cut += ", each brought to radius 1"
    parameters = sum(p.numel() for p in run.network.parameters())
    table = Table.grid(padding=(0, 2))
    for part in ("train", "validation", "test"):
        scans = getattr(data, part)
        points = sum(len(scan) for scan in scans)
        table.add_row(part, f"{len(scans):,} cloud{'s' * (len(scans) != 1)}, {points:,} points")
    table.add_row("classes", ", ".join(recipe.classes.names))
    table.add_row("features", ", ".join(recipe.features.names))
    table.add_row("cells", f"{run.arguments['cell_size']:g} wide, {cut}")
    table.add_row("network", f"{type(run.network).__name__}, {parameters:,} parameters")
    table.add_row("run", str(folder))
    console.print(table)


def _table(run: Run, result: Scores) -> Table:
    from rich import box
    from rich.table import Table

    segmentation = run.recipe.task == "segmentation"
    table = Table(
        box=box.SIMPLE_HEAD,
        title="On the test part, which was not learned from",
        title_justify="left",
        title_style="bold",
        show_footer=True,
    )
    table.add_column("class", "all", overflow="fold")
    table.add_column(
        "points" if segmentation else "clouds", f"{result.counts.sum():,}", justify="right"
    )
    table.add_column("accuracy", f"{_percent(result.overall_accuracy)}", justify="right")
    table.add_column("IoU", "", justify="right")
    for name, count, accuracy, iou in zip(
        run.recipe.classes.names, result.counts, result.class_accuracy, result.iou, strict=True
    ):
        table.add_row(name, f"{count:,}", _percent(accuracy), _percent(iou))
    table.columns[0].footer = "all\nmean over classes"
    table.columns[
        2
    ].footer = f"{_percent(result.overall_accuracy)}\n{_percent(result.mean_class_accuracy)}"
    table.columns[3].footer = f"\n{_percent(result.mean_iou)}"
    return table


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is gone when done, and silent where no terminal is."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)
