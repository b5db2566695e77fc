"""What ``pointwise train`` does once it knows what to do: it reads, trains, tests and tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich import box
from rich.table import Table

from pointwise.cli.network_arguments import network_arguments
from pointwise.cli.progress import bar, working
from pointwise.cli.train_clouds import CloudTraining, read_ahead
from pointwise.cli.train_images import ImageTraining
from pointwise.report.evaluation import Gallery
from pointwise.terminal import plain, shown
from pointwise.training import processes
from pointwise.training.data_kind import kind_of
from pointwise.training.evaluate import write_metrics, write_page
from pointwise.training.label import VOTES
from pointwise.training.options import Options
from pointwise.training.parts import means_over
from pointwise.training.run import Run, load_run, read_run
from pointwise.training.train import Settings, check_resumable
from pointwise.training.train import train as fit

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from pointwise.cloud.scan import Scan
    from pointwise.training.clock import Spent
    from pointwise.training.feed import Feed
    from pointwise.training.metrics import Scores


Seen = Callable[["Scan", "np.ndarray", "np.ndarray"], object]  # of clouds: what, truth, prediction
PAGE = "test.html"
TESTED = "On the test part, which was not learned from"


class Training(Protocol):
    """What differs between clouds and images: the data, the network, and what is said of them."""

    counted: str  # what the classes are of: "points", "clouds" or "images"
    data: Any  # with its parts: ``train``, ``validation``, ``test``

    def plan(self, arguments: dict[str, Any], start: Run | None) -> Run: ...

    def prepare(self, run: Run) -> None: ...

    def feed(self, run: Run) -> Feed: ...

    def evaluate(
        self, run: Run, progress: Callable[[int, int], object], seen: Seen, votes: int = VOTES
    ) -> np.ndarray: ...

    def not_counted(self, run: Run) -> dict[str, int]: ...

    def describe(self, run: Run) -> list[tuple[str, str]]: ...

    def next_step(self, folder: Path) -> tuple[str, str]: ...


def run(folder: Path, options: Options, console: Console, *, resume: bool) -> None:
    """Reads the data, trains or goes on, tests, and says what came of it."""
    settings = processes.together(lambda: _settings(options))
    start = None if resume else options.start
    begin = None if start is None else processes.together(lambda: load_run(start))
    if resume:
        # Before the data are read, which takes a while.
        processes.first(lambda: check_resumable(folder, settings))

    def reading(file: str) -> None:
        say(f"reading {plain(file)}")

    def read() -> tuple[Training, Run]:
        training = _training(options, reading)
        say("choosing what fits the data")
        arguments = network_arguments(options.set)
        planned = read_run(folder) if resume else training.plan(arguments, begin)
        say("preparing the data")
        return training, planned

    with working("reading data") as say:
        if options.cache is not None and processes.count() > 1:
            # Each process its share of what all of them will find in the cache.
            processes.together(lambda: read_ahead(options, reading))
            training, planned = processes.together(read)
            processes.together(lambda: training.prepare(planned))
        else:
            training, planned = processes.together(read)
        feed = processes.together(lambda: training.feed(planned))
    console.print(_description(training, planned, folder, _length(settings, feed)))
    try:
        spent = fit(planned, feed, folder, settings, resume=resume)
    except KeyboardInterrupt:
        if (folder / "last.ckpt").exists():
            said = f"\nContinue with: pointwise train --resume {shown(folder)}"
            console.print(said, soft_wrap=True)
        raise
    try:
        _test(training, planned, folder, spent, console)
    except KeyboardInterrupt:
        if processes.rank() == 0 and not (folder / "metrics.json").exists():
            console.print(_cut_short(folder), soft_wrap=True)
        raise


def _test(training: Training, planned: Run, folder: Path, spent: Spent, console: Console) -> None:
    """Tests on the part that was held out, and writes and says the scores."""
    if processes.rank() == 0:
        for name in ("metrics.json", "confusion.png", PAGE):
            (folder / name).unlink(missing_ok=True)  # of the weights before a --resume
    gallery = Gallery()
    with bar("testing") as advance:
        matrix = training.evaluate(planned, advance, gallery.add)
    if processes.rank() > 0:
        return
    rest = training.not_counted(planned)
    result = write_metrics(planned, matrix, folder, spent=spent, not_counted=rest)
    console.print(score_table(planned, result, training.counted, TESTED))
    if said := means_over(result.counts, planned.recipe.classes.names):
        console.print(shown(said))
    if rest:
        each = "; ".join(f"{count:,} {why}" for why, count in rest.items())
        console.print(f"Of the test part, not counted among these {training.counted}: {each}")
    title = f"{folder.name}: on its test part"
    write_page(planned, matrix, rest, gallery, title, folder / PAGE)
    console.print(f"To see this in a browser: {PAGE}, in the run's folder")
    # Commands to copy are not wrapped.
    purpose, command = training.next_step(folder)
    console.print(f"{spent.steps:,} steps, {spent.seconds:.0f} s of training. {purpose}")
    console.print(f"  {shown(command)}", soft_wrap=True)


def _cut_short(folder: Path) -> str:
    command = f"pointwise evaluate {folder} --json {folder / 'metrics.json'}"
    command += f" --html {folder / PAGE}"
    return "\nThe weights are saved, the final test was cut short. Make it up with: " + shown(
        command
    )


def held_out(options: Options, say: Callable[[str], object]) -> Training:
    """What a run was tested on, as its options say, with the data read and cut in the same way."""
    training = _training(options, lambda file: say(f"reading {plain(file)}"))
    if not training.data.test:
        raise ValueError("evaluate: the run has no test part; give LABELLED data")
    return training


def _settings(options: Options) -> Settings:
    return Settings(
        steps=options.steps,
        epochs=options.epochs,
        minutes=options.minutes,
        learning_rate=options.learning_rate,
        patience=options.patience,
        devices=options.devices,
        precision=options.precision,
        seed=options.seed,
    )


_OF_CLOUDS = (
    *("split", "rooms", "columns", "features", "optional", "cell_size", "block", "cache"),
    *("map", "ignore", "names"),
)
_OF_IMAGES = ("size", "width", "flip")


def _training(options: Options, progress: Callable[[str], object]) -> Training:
    """The training on clouds or on images, with its data read.

    Raises ValueError for an option of the other kind.
    """
    kind = kind_of([*options.data, *(options.test or ())])
    others = _OF_CLOUDS if kind == "images" else _OF_IMAGES
    for name in others:
        if getattr(options, name):
            raise ValueError(
                f"train: --{name.replace('_', '-')} is not for {kind}, and these are {kind}"
            )
    if kind == "images":
        return ImageTraining(options, progress)
    return CloudTraining(options, progress)


def _length(settings: Settings, feed: Feed) -> str:
    """How long the training is: its steps, what they are of the data, and the most minutes."""
    steps = settings.length(feed)
    epochs = feed.epochs_of(steps)
    passes = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    said = f"{steps:,} steps, {passes} pass{'es' * (passes != '1')} over the data"
    return said if settings.minutes is None else f"{said}; at most {settings.minutes:g} min"


def _description(training: Training, run: Run, folder: Path, length: str) -> Table:
    parameters = sum(p.numel() for p in run.network.parameters())
    table = Table.grid(padding=(0, 2))
    for row in training.describe(run):
        table.add_row(*map(shown, row))
    table.add_row("network", f"{type(run.network).__name__}, {parameters:,} parameters")
    if (start := run.options.get("start")) is not None:
        table.add_row("from", shown(start))
    table.add_row("length", length)
    table.add_row("run", shown(folder))
    return table


def score_table(run: Run, result: Scores, counted: str, title: str) -> Table:
    """The scores of each class, and those of all."""
    areas = counted != "images"  # whose overlap can be measured
    overall = f"{_percent(result.overall_accuracy)}\n{_percent(result.mean_class_accuracy)}"
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", show_footer=True
    )
    table.add_column("class", "all\nmean over classes", overflow="fold")
    table.add_column(counted, f"{result.counts.sum():,}", justify="right")
    table.add_column("accuracy", overall, justify="right")
    table.add_column("precision", "", justify="right")
    if areas:
        table.add_column("IoU", f"\n{_percent(result.mean_iou)}", justify="right")
    values = result.class_accuracy, result.precision, result.iou
    for name, count, *shares in zip(run.recipe.classes.names, result.counts, *values, strict=True):
        row = shown(name), f"{count:,}", *map(_percent, shares)
        table.add_row(*row[: len(table.columns)])
    return table


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"
