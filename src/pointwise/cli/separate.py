"""``pointwise separate``: a network's standard convolutions as depthwise separable ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointwise.terminal import plain, shown, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from pointwise.cli.model import Model
    from pointwise.cli.separate_images import Images
    from pointwise.separation import Separated
    from pointwise.training.run import Run

RANKS = "How far (one of them; half the multiply-adds if none)"
IMAGES = "With images"
NETWORK = "Networks of pointwise.networks"


def separate(
    model: Annotated[
        str,
        typer.Argument(
            help="The folder of a run, from 'pointwise train', or a checkpoint in it; a network of"
            " pointwise.networks, torchvision or timm; FILE.py:FUNCTION, which returns one; or"
            " FILE.onnx."
        ),
    ],
    budget: Annotated[
        float | None,
        typer.Option(
            help="For the whole network: up to 1, a share of what it has; above 1, a number.",
            rich_help_panel=RANKS,
        ),
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(help="Each layer's largest relative error, 0 to 1.", rich_help_panel=RANKS),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Filters for each input channel.", rich_help_panel=RANKS)
    ] = None,
    of: Annotated[
        str, typer.Option(help="What --budget counts: multiply-adds or parameters.")
    ] = "multiply-adds",
    only_faster: Annotated[
        bool, typer.Option("--only-faster", help="Keep what is not faster on this machine.")
    ] = False,
    input: Annotated[
        str | None,
        typer.Option(
            help="Images that are timed at once, channels, height, width.",
            metavar="1x3x224x224",
            show_default="one image as the run reads it, or 1x3x224x224",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The new run's folder; for a network that is no run, a file of weights.",
            show_default="not kept; with --finetune RUN-separated",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Images to fit to and to compare on; can be repeated.",
            show_default="the run's own",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    fit: Annotated[
        int,
        typer.Option(min=0, help="How many images to fit to; 0 for none.", rich_help_panel=IMAGES),
    ] = 256,
    finetune: Annotated[
        int | None,
        typer.Option(min=1, help="Train this many epochs more.", rich_help_panel=IMAGES),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="The highest rate of --finetune.", rich_help_panel=IMAGES)
    ] = 0.0003,
    weights: Annotated[
        Path | None, typer.Option(help="Weights to begin with.", rich_help_panel=NETWORK)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An argument of the network's class; can be repeated.",
            metavar="NAME=VALUE",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Also write all numbers to this JSON file.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let a FILE.pt2 run code of its own.")
    ] = False,
) -> None:
    """Replaces standard convolutions by depthwise separable ones, counts and measures them."""

    from pointwise.cli.network_arguments import network_arguments
    from pointwise.cli.outputs import check_output, write_json
    from pointwise.cli.progress import bar, working
    from pointwise.cli.run_folder import free
    from pointwise.separation import separate as separated_of
    from pointwise.training.run import Run

    console = terminal()
    check_output("separate", "--json", json, (".json",))
    found = _load(model, weights, network_arguments(set_), trust)
    _check(found, out, finetune)
    if finetune is not None and out is None and found.folder is not None:
        out = free(found.folder.with_name(f"{found.folder.name}-separated"))
    shape = _shape(found, input)
    with working("reading images") as say:
        images = _images(found, data, fit, shape, lambda file: say(f"reading {plain(file)}"))
    if finetune is not None and (images is None or images.training is None):
        raise ValueError("separate: --finetune needs images with classes; give --data")
    console.print(_heading(found, images, shape), soft_wrap=True)
    if error is budget is rank is None:
        budget = 0.5
    with bar("separating") as advance:
        result = separated_of(
            found.network,
            error=error,
            budget=budget,
            rank=rank,
            of=of.replace("-", "_"),
            input=shape if images is None else images.compared,
            calibration=None if images is None else images.calibration,
            only_faster=only_faster,
            timed=True,
            batch=shape[0],
            progress=lambda words, done, total: advance(done, total, words),
        )
    console.print()
    console.print(result.report)
    new = None
    if found.run is not None:
        old = found.run
        ranks = old.separated | result.report.ranks  # it may have been separated in part before
        new = Run(
            old.recipe, result.module, old.arguments, dict(old.options), ranks, list(old.notes)
        )
    scores = _tested(console, found, new, images, out, finetune, learning_rate)
    if out is not None and finetune is None:
        _write(found, new, result, out)
    if out is not None:
        console.print(f"\n{_next_step(found, out)}", soft_wrap=True)
    if json is not None:
        record = {"model": found.name, **result.report.as_dict(), "accuracy": scores}
        write_json(json, record)


def _load(model: str, weights: Path | None, arguments: dict[str, Any], trust: bool) -> Model:
    from pointwise.cli.model import Model, load_model

    if weights is None:
        return load_model("separate", model, arguments, trust=trust)
    from pointwise.training.images.pretrained import pretrained
    from pointwise.training.run import network_class

    network_class(model)  # before the weights are read
    run = pretrained(model, weights, arguments=arguments)
    return Model(model, run.network, run.arguments, run)


def _check(found: Model, out: Path | None, finetune: int | None) -> None:
    """What can be known before any work is done."""
    from torch import nn

    from pointwise.cli.outputs import check_output
    from pointwise.cli.separate_images import is_of_images

    if found.is_for_clouds or (found.run is not None and not is_of_images(found.run)):
        raise ValueError(
            f"separate: {found.name} is for point clouds, and only convolutions on images are"
            " separated"
        )
    if not any(isinstance(part, nn.Conv2d) for part in found.network.modules()):
        raise ValueError(
            f"separate: {found.name} has no torch.nn.Conv2d in it; programs of torch.export have"
            " functions only: give the model they were made from, or an ONNX file"
        )
    if finetune is not None and found.folder is None:
        raise ValueError(
            f"separate: --finetune needs a run of 'pointwise train' on images, and {found.name} is"
            " none"
        )
    if out is None:
        return
    if found.folder is not None and (out / "run.json").exists():
        raise ValueError(f"separate: {out} holds a run already; choose another --out")
    if found.folder is not None and out.is_file():
        raise ValueError(f"separate: {out} is a file, and a run is a folder; choose another --out")
    if found.folder is None and out.suffix not in (".pt", ".pth"):
        raise ValueError(
            f"separate: --out of a network that is no run is a file of weights, FILE.pt, got {out}"
        )
    if found.folder is None:
        check_output("separate", "--out", out, (".pt", ".pth"))


def _shape(found: Model, given: str | None) -> tuple[int, ...]:
    """Images at once, channels, height and width."""
    from pointwise.cli.inputs import inputs_of

    own = None
    if found.run is not None:
        own = (1, found.run.recipe.channels, *found.run.recipe.size)
    if given is None and own is not None:
        return own
    inputs, _ = inputs_of("separate", found, None if given is None else [given])
    shape = tuple(getattr(inputs[0], "shape", inputs[0]))
    if len(inputs) != 1 or len(shape) != 4:
        raise ValueError(
            "separate: --input must be images, channels, height and width, as in 1x3x224x224, got"
            f" {given or shape}"
        )
    if own is not None and shape[1:] != own[1:]:
        reads = "x".join(str(size) for size in own[1:])
        raise ValueError(f"separate: {found.name} reads images of {reads}, --input is {given}")
    return shape


def _images(found: Model, data, count: int, shape, progress) -> Images | None:
    from pointwise.cli.separate_images import of_folder, of_run

    if found.folder is not None:
        return of_run(found, data, count, progress)
    return of_folder(found, data, count, shape) if data else None


def _heading(found: Model, images: Images | None, shape: tuple[int, ...]) -> str:
    said = "no images: outputs are compared on noise" if images is None else images.said
    sizes = "×".join(str(size) for size in shape[1:])
    at_once = f"{shape[0]} image{'s' * (shape[0] > 1)} of {sizes}"
    name = found.name if found.folder is None else f"{found.name} of {found.folder}"
    name = shown(name)
    return f"{name}, timed on {at_once}\n{said}"


def _tested(
    console: Console,
    found: Model,
    new: Run | None,
    images: Images | None,
    out: Path | None,
    epochs: int | None,
    learning_rate: float,
) -> dict[str, float]:
    """Accuracies on the test part, before, after, and after fine-tuning; printed as they come."""
    from pointwise.cli.progress import bar
    from pointwise.cli.separate_images import accuracy, fine_tuned, written_metrics

    if found.run is None or new is None or images is None or images.training is None:
        return {}
    count = len(images.training.data.test)
    console.print(f"\nAccuracy on the test part ({count:,} images)")
    scores = {}
    for name, run in (("before", found.run), ("separated", new)):
        with bar("testing") as advance:
            scores[name] = accuracy(run, images, advance)
        console.print(f"  {name:<11}{100 * scores[name]:5.1f} %")
    if epochs is not None:
        assert out is not None
        try:
            spent = fine_tuned(new, images, out, epochs, learning_rate)
        except KeyboardInterrupt:
            console.print(f"\nContinue with: pointwise train --resume {shown(out)}", soft_wrap=True)
            raise
        with bar("testing") as advance:
            scores["fine_tuned"] = written_metrics(new, images, out, spent, advance)
        said = f"{epochs} epoch{'s' * (epochs > 1)}, {spent.seconds:.0f} s"
        console.print(f"  {'fine-tuned':<11}{100 * scores['fine_tuned']:5.1f} %  ({said})")
    return scores


def _write(found: Model, new: Run | None, result: Separated, out: Path) -> None:
    """A run as training writes it, or a file with the ranks and the weights."""
    import torch

    from pointwise.atomic import replacing
    from pointwise.training.run import save_run, save_weights

    if found.folder is not None and new is not None:
        out.mkdir(parents=True, exist_ok=True)
        save_run(new, out)
        save_weights(new, out)
        return
    kept: dict[str, Any] = {
        "separated": result.report.ranks,
        "weights": {name: value.cpu() for name, value in result.module.state_dict().items()},
    }
    with replacing(out) as part:
        torch.save(kept, part)


def _next_step(found: Model, out: Path) -> str:
    if found.folder is not None:
        return f"To classify images with it:\n  pointwise classify {shown(out)} IMAGE"
    return f"Ranks and weights are in {shown(out)}; docs/separate.md says how to load them."
