"""``pointwise compare``: what each kind of convolution would cost for the same job, here."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.cli.progress import bar
from pointwise.terminal import plain, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from pointwise.cli.progress import Advance
    from pointwise.comparison import Budget, Comparison, Job

SWEEP = (64, 128, 256)
PICTURES = (".png", ".svg", ".pdf")


def compare(
    in_: Annotated[
        str | None,
        typer.Option(
            "--in",
            help="Height, width and channels of the input.",
            metavar="56x56x128",
            show_default="224x224x3, to 64, 128 and 256",
        ),
    ] = None,
    out: Annotated[int | None, typer.Option(min=1, help="Channels of the result.")] = None,
    kernel: Annotated[int, typer.Option(min=1, help="Kernel size, an odd number.")] = 3,
    stride: Annotated[int, typer.Option(min=1, help="Pixels from one result to the next.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 1,
    groups: Annotated[int, typer.Option(min=2, help="Groups of the grouped convolution.")] = 4,
    expand: Annotated[
        int, typer.Option(min=1, help="Inside the inverted residual, so many times the channels.")
    ] = 6,
    norm: Annotated[
        bool, typer.Option("--norm", help="Batch norm behind every convolution.")
    ] = False,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may take at most, such as 2ms, 20k-parameters, 50M-multiply-adds, or"
            " 30%-time of the standard one's; any number.",
            metavar="2ms",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 50,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:1; on a GPU, timed by CUDA events.")
    ] = "cpu",
    json: Annotated[Path | None, typer.Option(help="Also write all numbers to this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw them: FILE.png, .svg or .pdf.")
    ] = None,
) -> None:
    """Counts and times standard, depthwise, separable and other convolutions; recommends one."""
    from pointwise.cli.outputs import check_output, write_json
    from pointwise.comparison import budget_of, recommend

    jobs = _jobs(in_, out, kernel, stride, batch)
    budgets = [budget_of(text) for text in budget or ()]
    check_output("compare", "--json", json, (".json",))
    check_output("compare", "--picture", picture, PICTURES)
    if picture is not None:
        from pointwise.extras import import_extra

        import_extra("matplotlib", "report")  # before minutes of measuring

    from pointwise.timing import gpu

    there = None if device == "cpu" else gpu.chosen("compare", device)

    from pointwise.comparison import compare as compared
    from pointwise.comparison.tables import LEGEND
    from pointwise.costs.machine import cpu_name

    console = terminal()
    found = []
    for job in jobs:
        with bar(str(job)) as advance:
            found.append(
                compared(
                    job,
                    groups=groups,
                    expand=expand,
                    norm=norm,
                    samples=rounds,
                    progress=partial(_tell, advance),
                    device=there,
                )
            )
        _show(console, found[-1], budgets)
    where = f"{cpu_name()}, {found[0].threads} threads" if there is None else gpu.name_of(there)
    console.print(f"{LEGEND} {where}.")
    if json is not None:
        comparisons = [
            {**each.as_dict(), "recommendation": recommend(each, budgets).as_dict()}
            for each in found
        ]
        machine = {"cpu": cpu_name()} if there is None else {"gpu": gpu.name_of(there)}
        write_json(json, {**machine, "comparisons": comparisons})
    if picture is not None:
        from pointwise.report.comparison import write_comparison

        write_comparison(found, picture)
    for path in (json, picture):
        if path is not None:
            console.print(f"wrote {plain(path)}", markup=False)


def _jobs(in_: str | None, out: int | None, kernel: int, stride: int, batch: int) -> list[Job]:
    from pointwise.comparison import Job

    if in_ is None and out is not None:
        raise ValueError(f"compare: --out {out} needs --in, such as --in 56x56x128")
    sizes = (224, 224, 3)
    if in_ is not None:
        if out is None:
            raise ValueError(f"compare: --in {in_} needs --out, the channels of the result")
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", in_.strip().lower())
        if match is None:
            raise ValueError(
                f"compare: --in must be height, width and channels, as in 56x56x128, got {in_!r}"
            )
        sizes = tuple(map(int, match.groups()))  # type: ignore[assignment]
    outputs = SWEEP if out is None else (out,)
    return [Job(*sizes, each, kernel, stride, batch) for each in outputs]


def _show(console: Console, found: Comparison, budgets: list[Budget]) -> None:
    from rich.padding import Padding

    from pointwise.comparison import recommend
    from pointwise.comparison.tables import detail_table, main_table, remarks

    console.print(main_table(found))
    for line in remarks(found):
        console.print(line, markup=False)
    console.print()
    console.print(detail_table(found))
    console.print()
    head, *reasons = recommend(found, budgets).lines()
    console.print(head, style="bold", markup=False)
    for line in reasons:
        console.print(Padding(line.strip(), (0, 0, 0, 2)), markup=False)
    console.print()


def _tell(advance: Advance, what: str, done: int, total: int) -> None:
    """Forward and backward are a half each."""
    advance(done + (what == "backward") * total, 2 * total)
