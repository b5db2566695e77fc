"""``pointwise train``: learns the classes of points, of whole clouds, or of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from pointwise.terminal import shown, terminal

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from pointwise.training.feed import Feed
    from pointwise.training.metrics import Scores
    from pointwise.training.run import Run


class Training(Protocol):
    """What differs between clouds and images: the data, the network, and what is said of them."""

    counted: str  # what the classes are of: "points", "clouds" or "images"

    def plan(self, arguments: dict[str, Any]) -> Run: ...

    def feed(self, run: Run) -> Feed: ...

    def evaluate(self, run: Run, progress: Callable[[int, int], object]) -> np.ndarray: ...

    def not_counted(self, run: Run) -> dict[str, int]: ...

    def describe(self, run: Run) -> list[tuple[str, str]]: ...

    def next_step(self, folder: Path) -> tuple[str, str]: ...


DATA = "What belongs to the data"
NET = "What is learned, and how"
CLOUDS = "Clouds only"
IMAGES = "Images only"
MACHINE = "The machine"


def train(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="'rooms' or 'digits' (built in), files, or folders: clouds with labels, or"
            " clouds or images in folders named by class."
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
    test: Annotated[
        list[str] | None,
        typer.Option(help="A file or folder to test on, never learned from.", rich_help_panel=DATA),
    ] = None,
    hold_out: Annotated[
        float, typer.Option(help="The share to test on, without --test.", rich_help_panel=DATA)
    ] = 0.25,
    task: Annotated[
        str | None,
        typer.Option(
            help="segmentation or classification.", show_default="by labels", rich_help_panel=CLOUDS
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Hold out by group, or cut scenes in space.",
            show_default="a lone scene in space",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    rooms: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many rooms to learn from.", show_default="40", rich_help_panel=CLOUDS
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Names of the columns of text, NPY and .bin, as in 'x y z intensity label'.",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="A class of pointwise.networks.",
            show_default="CellUNet, CellPyramid, or MobileNetV1 for images",
            rich_help_panel=NET,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An argument of the network's class, as in convolution=standard; any number.",
            metavar="NAME=VALUE",
            rich_help_panel=NET,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="As in color,intensity,height,xyz.",
            show_default="known ones",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    cell_size: Annotated[
        float | None,
        typer.Option(
            help="Edge of a kernel cell.", show_default="by the spacing", rich_help_panel=CLOUDS
        ),
    ] = None,
    block: Annotated[
        float | None,
        typer.Option(
            help="Side of the blocks that scenes are cut into.",
            show_default="by density",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Height and width that images are read at, in pixels.",
            show_default="their own, up to 224",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            help="The network's number of channels, as a share of the usual one.",
            show_default="1",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    flip: Annotated[
        bool,
        typer.Option(
            "--flip",
            help="Mirror images at random, where left and right make no other class.",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Blocks, clouds or images per step.",
            show_default="1 block, or 16",
            rich_help_panel=NET,
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="The highest, after the warm-up.", rich_help_panel=NET)
    ] = 0.005,
    rotate: Annotated[
        float | None,
        typer.Option(
            help="Largest random turn, degrees; of clouds about the vertical.",
            show_default="180, or 10 of images",
            rich_help_panel=NET,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after so many epochs without a better one.", rich_help_panel=NET
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the split and all chance.", rich_help_panel=NET)
    ] = 0,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many GPUs, or processes on the CPU; each reads --batch per step.",
            show_default="1, or as torchrun or srun started",
            rich_help_panel=MACHINE,
        ),
    ] = None,
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
    """Trains a network on labelled clouds or images, and tests it on some it has not seen.

    With --devices, or under torchrun or srun, several processes share the data and the work.
    """
    options: dict[str, Any] = dict(locals())
    for name in ("out", "resume"):
        options.pop(name)
    options["set"] = options.pop("set_")

    from pointwise.extras import import_extra

    for module in ("lightning.pytorch", "torchmetrics", "tensorboard"):
        import_extra(module, "train")

    from pointwise.training import processes

    def place() -> tuple[Path, dict[str, Any]]:
        if resume is not None:
            if data:
                raise ValueError("train: --resume takes the run's own data; leave DATA away")
            return resume, _resumed(resume, minutes, epochs, patience, devices, workers)
        if not data:
            raise ValueError("train: give DATA (rooms, digits, files or folders), or --resume RUN")
        folder = out or free(Path("runs") / Path(data[0]).stem)
        if (folder / "run.json").exists():
            raise ValueError(
                f"train: {folder} holds a run already; choose another --out, or --resume {folder}"
            )
        return folder, options

    processes.take_place(devices)
    if (devices or 1) > 1 and not processes.launched():
        place()  # said before any process is started
        if code := processes.launch(devices or 1):
            raise typer.Exit(code)
        return
    processes.watch_parent()
    console = terminal(quiet=processes.rank() > 0)
    try:
        folder, options = processes.first(place)
        _run(folder, options, console, resume=resume is not None)
    except RuntimeError as error:
        if not processes.lost_another(error):
            raise
        raise OSError(
            "train: another process of this training has ended; see what it said"
        ) from error
    processes.leave()


def _resumed(folder: Path, *changed: Any) -> dict[str, Any]:
    """The options of an earlier training, with those that may change from sitting to sitting."""
    from pointwise.training.run import read_run
    from pointwise.training.run_schema import check_options

    minutes, epochs, patience, devices, workers = changed
    # The runs of an earlier version do not have all options.
    options = default_options() | check_options(folder / "run.json", read_run(folder).options)
    if minutes is not None or epochs is not None:
        options.update(minutes=minutes, epochs=epochs)
    if patience is not None:
        options["patience"] = patience
    return {**options, "devices": devices, "workers": workers}


def default_options() -> dict[str, Any]:
    """What a training is told where nothing is said."""
    import inspect

    found = {name: each.default for name, each in inspect.signature(train).parameters.items()}
    found["set"] = found.pop("set_")
    return {name: value for name, value in found.items() if name not in ("out", "resume")}


def free(folder: Path) -> Path:
    """``folder``, with a number behind its name if that exists already."""
    count = 1
    named = folder
    while named.exists():
        count += 1
        named = folder.with_name(f"{folder.name}-{count}")
    return named


def _run(folder: Path, options: dict[str, Any], console: Console, *, resume: bool) -> None:
    from pointwise.training import processes
    from pointwise.training.evaluate import write_metrics
    from pointwise.training.run import read_run
    from pointwise.training.train import Settings, check_resumable
    from pointwise.training.train import train as fit

    chosen = {name: options[name] for name in _SETTINGS}
    settings = processes.together(lambda: Settings(epochs=options["epochs"] or 100, **chosen))
    if resume:
        # Before the data are read, which takes a while.
        processes.first(lambda: check_resumable(folder, settings))

    def read() -> tuple[Training, Run, Feed]:
        training = _training(options, lambda file: status.update(f"reading {shown(file)}"))
        run = read_run(folder) if resume else training.plan(network_arguments(options["set"]))
        return training, run, training.feed(run)

    with console.status("reading data") as status:
        training, run, feed = processes.together(read)
    console.print(_description(training, run, folder))
    try:
        seconds = fit(run, feed, folder, settings, resume=resume)
    except KeyboardInterrupt:
        console.print(f"\nContinue with: pointwise train --resume {shown(folder)}", soft_wrap=True)
        raise
    with bar(console, "testing") as advance:
        matrix = training.evaluate(run, advance)
    if processes.rank() > 0:
        return
    rest = training.not_counted(run)
    result = write_metrics(run, matrix, folder, seconds=seconds, not_counted=rest)
    console.print(_table(run, result, training.counted))
    if rest:
        each = "; ".join(f"{count:,} {why}" for why, count in rest.items())
        console.print(f"Of the test part, not counted among these {training.counted}: {each}")
    # Commands to copy are not wrapped.
    purpose, command = training.next_step(folder)
    console.print(f"{seconds:.0f} s of training. {purpose}")
    console.print(f"  {shown(command)}", soft_wrap=True)


_SETTINGS = ("minutes", "learning_rate", "patience", "devices", "precision", "seed")
_OF_CLOUDS = ("split", "rooms", "columns", "features", "cell_size", "block")
_OF_IMAGES = ("size", "width", "flip")


def _training(options: dict[str, Any], progress: Callable[[str], object]) -> Training:
    """The training on clouds or on images, with its data read.

    Raises ValueError for an option of the other kind.
    """
    from pointwise.cli.train_clouds import CloudTraining
    from pointwise.cli.train_images import ImageTraining
    from pointwise.training.data_kind import kind_of

    kind = kind_of([*options["data"], *(options["test"] or ())])
    others = _OF_CLOUDS if kind == "images" else _OF_IMAGES
    for name in others:
        if options.get(name):  # the runs of an earlier version do not have all
            raise ValueError(
                f"train: --{name.replace('_', '-')} is not for {kind}, and these are {kind}"
            )
    if kind == "images":
        return ImageTraining(options, progress)
    return CloudTraining(options, progress)


def network_arguments(given: list[str] | None) -> dict[str, Any]:
    """The arguments of ``--set NAME=VALUE``: numbers and such where they are, else words."""
    import json

    arguments = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"train: --set takes NAME=VALUE, such as width=0.25, got {text!r}")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


def _description(training: Training, run: Run, folder: Path) -> Table:
    from rich.table import Table

    parameters = sum(p.numel() for p in run.network.parameters())
    table = Table.grid(padding=(0, 2))
    for row in training.describe(run):
        table.add_row(*map(shown, row))
    table.add_row("network", f"{type(run.network).__name__}, {parameters:,} parameters")
    table.add_row("run", shown(folder))
    return table


def _table(run: Run, result: Scores, counted: str) -> Table:
    from rich import box
    from rich.table import Table

    areas = counted != "images"  # whose overlap can be measured

    table = Table(
        box=box.SIMPLE_HEAD,
        title="On the test part, which was not learned from",
        title_justify="left",
        title_style="bold",
        show_footer=True,
    )
    table.add_column("class", "all", overflow="fold")
    table.add_column(counted, f"{result.counts.sum():,}", justify="right")
    table.add_column("accuracy", f"{_percent(result.overall_accuracy)}", justify="right")
    if areas:
        table.add_column("IoU", "", justify="right")
    for name, count, accuracy, iou in zip(
        run.recipe.classes.names, result.counts, result.class_accuracy, result.iou, strict=True
    ):
        row = shown(name), f"{count:,}", _percent(accuracy), _percent(iou)
        table.add_row(*row[: len(table.columns)])
    table.columns[0].footer = "all\nmean over classes"
    table.columns[
        2
    ].footer = f"{_percent(result.overall_accuracy)}\n{_percent(result.mean_class_accuracy)}"
    if areas:
        table.columns[3].footer = f"\n{_percent(result.mean_iou)}"
    return table


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"


@contextmanager
def bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is gone when done, and silent where no terminal is."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(title)
        yield lambda done, total: shown.update(task, completed=done, total=total)
