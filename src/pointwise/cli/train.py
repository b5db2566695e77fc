"""``pointwise train``: learns the classes of points, of whole clouds, or of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pointwise.cli.run_folder import free
from pointwise.terminal import terminal
from pointwise.training.options import Options

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
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from the weights of this run, as far as they fit: its folder, or 'rooms'"
            " (built in).",
            metavar="RUN",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How many steps to train.", show_default="10,000")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data, instead of --steps.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="At most this long; the learning rate is fitted to what that holds."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="A file or folder to test on, never learned from.", rich_help_panel=DATA),
    ] = None,
    hold_out: Annotated[
        float, typer.Option(help="Share to test on, without --test.", rich_help_panel=DATA)
    ] = Options.hold_out,
    task: Annotated[
        str | None,
        typer.Option(
            help="segmentation or classification.", show_default="by labels", rich_help_panel=CLOUDS
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="group: hold out whole groups; space: cut scenes apart.",
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
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Codes (or names) that are one class, written as the first of them; can be"
            " repeated.",
            metavar="3,4,5=NAME",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            help="Codes (or names) that nothing is learned of.",
            metavar="0,7",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            help='JSON with the names of your codes: {"2": "ground", "6": "roof"}.',
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
            help="An argument of the network's class, as in convolution=standard; can be repeated.",
            metavar="NAME=VALUE",
            rich_help_panel=NET,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="What is read, as in color,intensity,height,xyz.",
            show_default="known ones",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
    optional: Annotated[
        str | None,
        typer.Option(
            help="Features that scans may lack, as in color,intensity; in training they are"
            " withheld from blocks by chance.",
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
            help="Mirror images at random; not for classes that differ by side.",
            rich_help_panel=IMAGES,
        ),
    ] = Options.flip,
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
        float, typer.Option(help="The highest rate, after the warm-up.", rich_help_panel=NET)
    ] = Options.learning_rate,
    rotate: Annotated[
        float | None,
        typer.Option(
            help="Largest random rotation, degrees; of clouds about the vertical.",
            show_default="180, or 10 of images",
            rich_help_panel=NET,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after this many validations without a better score.",
            rich_help_panel=NET,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the split and of all that is random.", rich_help_panel=NET)
    ] = Options.seed,
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
            help="By Lightning's names.",
            show_default="bf16-mixed on a GPU",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare data.", rich_help_panel=MACHINE)
    ] = Options.workers,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep scans in files in this folder instead of in memory, for more of them than it"
            " holds; what is there already is not read again.",
            show_default="in memory",
            rich_help_panel=CLOUDS,
        ),
    ] = None,
) -> None:
    """Trains a network on labelled clouds or images, and tests it on some it has not seen.

    With --devices, or under torchrun or srun, several processes share the data and the work.
    """
    from pointwise.extras import import_extra

    for module in ("lightning.pytorch", "torchmetrics", "tensorboard"):
        import_extra(module, "train")
    for module in ("matplotlib", "plotly"):  # of what it ends with, after minutes or days
        import_extra(module, "report")

    from pointwise.training import processes
    from pointwise.training.relabel import read_names

    def place() -> tuple[Path, Options]:
        if resume is not None:
            if data:
                raise ValueError("train: --resume takes the run's own data; leave out DATA")
            if start is not None:
                raise ValueError(
                    "train: --resume goes on with a run's own weights; leave out --from"
                )
            options = _resumed(resume, steps, epochs, minutes, patience)
            if cache is not None:
                options = replace(options, cache=str(cache))
            return resume, replace(options, devices=devices, workers=workers)
        if not data:
            raise ValueError("train: give DATA (rooms, digits, files or folders), or --resume RUN")
        folder = out or free(Path("runs") / Path(data[0]).stem)
        if (folder / "run.json").exists():
            raise ValueError(
                f"train: {folder} holds a run already; choose another --out, or --resume {folder}"
            )
        return folder, Options(
            data=data,
            start=start,
            steps=steps,
            epochs=epochs,
            minutes=minutes,
            test=test,
            hold_out=hold_out,
            task=task,
            split=split,
            rooms=rooms,
            columns=columns,
            map=map_,
            ignore=ignore,
            names=None if names is None else read_names(names),
            network=network,
            features=features,
            optional=optional,
            cell_size=cell_size,
            block=block,
            size=size,
            width=width,
            flip=flip,
            batch=batch,
            learning_rate=learning_rate,
            rotate=rotate,
            patience=patience,
            seed=seed,
            devices=devices,
            precision=precision,
            workers=workers,
            set=set_,
            cache=None if cache is None else str(cache),
        )

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
        from pointwise.cli.train_run import run

        run(folder, options, console, resume=resume is not None)
    except RuntimeError as error:
        if not processes.lost_another(error):
            raise
        raise OSError(
            "train: another process of this training has ended; see what it said"
        ) from error
    processes.leave()


def _resumed(
    folder: Path,
    steps: int | None,
    epochs: int | None,
    minutes: float | None,
    patience: int | None,
) -> Options:
    """The options of an earlier training, with what may change as it goes on, where it is given."""
    from pointwise.training.run import read_run
    from pointwise.training.run_schema import check_options

    options = Options.from_plain(check_options(folder / "run.json", read_run(folder).options))
    if steps is not None or epochs is not None:
        options = replace(options, steps=steps, epochs=epochs)
    if (steps or epochs or minutes) is not None:  # whoever gives more steps means all of them
        options = replace(options, minutes=minutes)
    return options if patience is None else replace(options, patience=patience)
