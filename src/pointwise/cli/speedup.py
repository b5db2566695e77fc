"""``pointwise speedup``: how much faster a model becomes here, and what of it could be fused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from pointwise.messages import first_line
from pointwise.terminal import shown, terminal

if TYPE_CHECKING:
    from torch import nn


def speedup(
    model: Annotated[
        str,
        typer.Argument(
            help="A network of ours, such as MobileNetV1; the name of one of torchvision or timm; "
            "FILE.py:FUNCTION, which returns a model, or a model and its inputs; a run's folder; "
            "FILE.onnx; or a program that torch.export has saved as FILE.pt2."
        ),
    ],
    batch: Annotated[
        int | None, typer.Option(min=1, help="How many images at once.", show_default="1")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels along both sides of an image.", show_default="the model's, or 224"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An argument of the network's class; can be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 7,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Skip torch.compile, other runtimes and memory, which take long."
        ),
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let a FILE.pt2 run code of its own.")
    ] = False,
) -> None:
    """Times a model in PyTorch, ONNX Runtime, OpenVINO and accelerated; says what was fused."""

    _find_benchmarks()
    import accelerate as contest
    import frame
    import runtimes

    console = terminal()
    wanted = Wanted(model, batch, size, tuple(set_ or ()), trust)
    found = find(wanted)
    missing = runtimes.missing(inference=True, quick=quick)
    if quick:
        missing |= dict.fromkeys(contest.WHO[2:5], "not quick")
    runs: dict[str, Callable[[object], Any]] = {}
    with frame.progress(console, "preparing", len(contest.WHO)) as advance:
        for who in contest.WHO:
            if who not in missing:
                try:
                    runs[who] = _run(who, found)
                    runs[who](None)
                except Exception as error:
                    if who.startswith(("torch_eager", frame.OURS)):
                        raise
                    missing[who] = first_line(error)
                    runs.pop(who, None)
            advance()
    apart: dict[str, float] = {}

    def compare(results: dict[str, Any]) -> None:
        first = results["torch_eager"]
        apart.update({who: contest.difference(first, result) for who, result in results.items()})

    faster = _accelerated(found)
    people = [frame.Contestant(who, run, steady=True) for who, run in runs.items()]
    rows = frame.measure([frame.Case(model, people, compare)], rounds, console)
    peaks: dict[str, float | None] = {}
    if not quick:
        with (
            frame.progress(console, "memory", len(rows)) as advance,
            TemporaryDirectory() as folder,
        ):
            files = _deployed(found, faster, missing, Path(folder))
            for row in rows:
                peaks[row.who] = _peak(wanted, row.who, files.get(row.who))
                advance()
    _show(console, rows, apart, peaks)
    if found.file is not None and not quick:
        console.print(f"ONNX Runtime and OpenVINO run {shown(found.file)} itself", soft_wrap=True)
    for who, why in missing.items():
        if not quick:
            console.print(f"without {contest.NAMES[who]}: {shown(why)}")
    _show_parts(console, faster)


class Wanted(NamedTuple):
    """A model as a user asks for it."""

    text: str
    batch: int | None = None
    size: int | None = None
    arguments: tuple[str, ...] = ()
    trust: bool = False


class Found(NamedTuple):
    """A model in inference mode, what to run it on, and the ONNX file that it came from."""

    model: nn.Module
    inputs: tuple
    file: Path | None


def find(wanted: Wanted) -> Found:
    """The model and its inputs, with weights as its maker makes them (mostly at random)."""
    import torch

    from pointwise.cli.inputs import inputs_of
    from pointwise.cli.model import load_model
    from pointwise.cli.network_arguments import network_arguments

    torch.manual_seed(0)
    given = list(wanted.arguments) or None
    model = load_model("speedup", wanted.text, network_arguments(given), trust=wanted.trust)
    if model.image is None:
        model = replace(model, image=(3, 224, 224))
    inputs, _ = inputs_of("speedup", model, None, wanted.batch, wanted.size)
    made = tuple(torch.randn(x) if isinstance(x, tuple) else x for x in inputs)
    return Found(model.network, made, model.file)


def _run(who: str, found: Found) -> Callable[[object], Any]:
    """What one does with a model; the runtimes take the ONNX file itself where there is one."""
    import accelerate as contest

    if found.file is not None and who in contest.RUNTIMES and len(found.inputs) == 1:
        return contest.by_runtime(who, found.file, found.inputs[0])
    return contest.run(who, found.model, found.inputs)


def _find_benchmarks() -> None:
    """The benchmarks' files import one another by their plain names."""
    import sys

    from pointwise.cli.bench import benchmarks

    folder = str(benchmarks())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _show(console: Any, rows: Any, apart: dict[str, float], peaks: dict[str, float | None]) -> None:
    import accelerate as contest
    from rich import box
    from rich.table import Table

    from pointwise.timing.load import verdict_of

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("")
    heads = ("\nleast", "ms\nmedian", "\n95th", "times\nas fast", "\ndifference")
    for name in (*heads, *(["peak\nMB"] if peaks else [])):
        table.add_column(name, justify="right", no_wrap=True)
    eager = next(row for row in rows if row.who == "torch_eager")
    for row in rows:
        peak = peaks.get(row.who)
        table.add_row(
            contest.NAMES[row.who],
            *(f"{each:.2f}" for each in (row.min_ms, row.median_ms, row.times.p95)),
            "" if row is eager else "–" if row.busy else str(eager.over(row)),
            f"{apart[row.who]:.1g}" if row.who != "torch_eager" else "",
            *([] if not peaks else ["" if peak is None else f"{peak:,.0f}"]),
        )
    console.print(table)
    console.print(
        "\ntimes as fast as PyTorch, in brackets where that lies with a confidence of 95 %;\n"
        "difference: the largest from PyTorch's results, over the largest of these"
        + (";\npeak: a whole process with Python and all libraries" if peaks else "")
    )
    if eager.busy:
        console.print(f"\n{verdict_of(eager.busy)}")


def _accelerated(found: Found) -> Any:
    import torch

    import pointwise

    faster = pointwise.accelerate(found.model, found.inputs)
    with torch.no_grad():
        for _ in range(4):  # of which the later ones say where the time goes
            faster(*found.inputs)
    return faster


def _show_parts(console: Any, faster: Any) -> None:
    """What runs as kernels, and what does not."""
    why = getattr(faster, "why", "")
    if why:
        console.print(
            f"\ncompiled in pieces, because torch.export said: {shown(why)}", soft_wrap=True
        )
    for report in faster.reports():
        console.print()
        console.print(str(report), markup=False, soft_wrap=True)


def _deployed(found: Found, faster: Any, missing: Any, folder: Path) -> dict[str, Path]:
    """Files that a process can run without making them: so memory is what the model needs."""
    import accelerate as contest
    import runtimes
    import torch

    files = {}
    if not hasattr(faster, "why"):
        with suppress(ValueError):  # a call that has no name to be saved by
            torch.save(faster, folder / "accelerated.pt")
            files[contest.OURS] = folder / "accelerated.pt"
    others = [who for who in contest.RUNTIMES if who not in missing]
    if others and len(found.inputs) == 1:
        file = found.file or folder / "model.onnx"
        if found.file is None:
            file.write_bytes(runtimes.onnx_file(found.model, found.inputs[0]))
        files |= dict.fromkeys(others, file)
    return files


def _peak(wanted: Wanted, who: str, file: Path | None) -> float | None:
    """MB of a fresh process at the highest, as one of them runs the model."""
    from functools import partial

    from memory import resident_peak

    return resident_peak(partial(prepared, wanted, who, file))


def prepared(wanted: Wanted, who: str, file: Path | None = None) -> Callable[[], Any]:
    """The work of one, in a process of its own; it has run once. It may be read from a ``file``."""
    _find_benchmarks()
    import gc

    import accelerate as contest
    import torch

    import pointwise.acceleration  # noqa: F401  (torch.load knows its class then)

    found = find(wanted)
    if file is None:
        run = _run(who, found)
    elif who == contest.OURS:
        run = contest.infer(torch.load(file, weights_only=True), found.inputs)
    else:
        run = contest.by_runtime(who, file, found.inputs[0])
    run(None)
    del found
    gc.collect()
    return lambda: run(None)
