"""``pointwise profile``: what a network costs and how long it takes, layer by layer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointwise.cli.progress import bar
from pointwise.terminal import plain, shown, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pointwise.costs.profiled import Profile, Row

_SHOWN = 8  # reasons, at most
_SORTS = "order, time, lost, multiply_adds, parameters, bytes, share"


def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A network of pointwise.networks, torchvision or timm; FILE.py:FUNCTION_OR_CLASS; "
            "a run's folder; FILE.onnx; or a program of torch.export, FILE.pt2."
        ),
    ],
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="Sizes of an input; once for each input. 1x16:int for indices.",
            metavar="1x3x224x224",
            show_default="one image, or a room's points",
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
    sort: Annotated[
        str | None, typer.Option(help=f"{_SORTS}.", show_default="order", metavar="BY")
    ] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show nested modules instead of layers.")
    ] = False,
    top: Annotated[
        int | None, typer.Option(min=1, help="Show only this many layers.", show_default="all")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="How many threads.", show_default="all cores")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is timed.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Also write everything to this file.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with a roofline plot.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let a FILE.pt2 run code of its own.")
    ] = False,
) -> None:
    """Counts and times a network layer by layer, beside the best this machine could do."""
    from pointwise.cli.outputs import check_output, write_json
    from pointwise.costs.profiled import SORTS

    if sort is not None and tree:
        raise ValueError("profile: --sort orders layers, and --tree shows modules; choose one")
    if sort is not None and sort != "order" and sort not in SORTS:
        raise ValueError(f"profile: --sort is one of {_SORTS}, got {sort!r}")
    check_output("profile", "--json", json, (".json",))
    check_output("profile", "--html", html, (".html", ".htm"))

    console = terminal()
    found = _measure(model, input_, set_, threads, rounds, console, trust)
    if json is not None:
        write_json(json, found.as_dict())
    if html is not None:
        from pointwise.report.profile import write_page

        write_page(found, html)
    _show(found, console, sort or "order", tree, top)
    for path in (json, html):
        if path is not None:
            console.print(f"wrote {plain(path)}", markup=False)


def _measure(
    text: str,
    shapes: list[str] | None,
    arguments: list[str] | None,
    threads: int | None,
    rounds: int,
    console: Console,
    trust: bool,
) -> Profile:
    from dataclasses import replace

    import torch

    from pointwise.cli.inputs import inputs_of
    from pointwise.cli.model import load_model
    from pointwise.cli.network_arguments import network_arguments
    from pointwise.costs.measure import runs
    from pointwise.costs.profiled import profile as measured

    model = load_model("profile", text, network_arguments(arguments), layers=True, trust=trust)
    inputs, words = inputs_of("profile", model, shapes)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with bar(console, "timing") as advance:
            done, total = itertools.count(1), runs(rounds)
            found = measured(
                model.network, *inputs, rounds=rounds, progress=lambda: advance(next(done), total)
            )
    finally:
        torch.set_num_threads(before)
    return replace(found, inputs=words)


# --- what is shown --------------------------------------------------------------------------------


def _show(found: Profile, console: Console, sort: str, tree: bool, top: int | None) -> None:
    from pointwise.costs.machine import threads_of
    from pointwise.costs.tables import bounded, short
    from pointwise.messages import duration

    count, machine = found.count, found.machine
    console.print(
        f"[bold]{shown(found.cost.network)}[/bold], {found.inputs}: "
        f"{duration(found.milliseconds)}, {short(count.parameters)} parameters, "
        f"{bounded(count.multiply_adds, count.exact)} multiply-adds"
    )
    console.print(
        f"{machine.cpu}, {threads_of(machine)}: {machine.fma_gflops:.0f} GFLOP/s, "
        f"{machine.bandwidth_gbs:.0f} GB/s\n",
        markup=False,
    )
    rows = found.sorted_rows(sort)
    if tree:
        console.print(_tree(found))
    else:
        console.print(_table(rows[:top]))
        if top is not None and top < len(rows):
            console.print(f"and {len(rows) - top} more layers")
    console.print(
        f"\nThe layers take {duration(found.sum_ms)} together, the network "
        f"{duration(found.milliseconds)} when nothing\ninside is timed; at their rooflines they "
        f"would take {duration(found.limit_ms)}."
    )
    for line in found.cost.notes():
        console.print(line, markup=False)
    _reasons(found, console)


def _table(rows: list[Row]) -> Table:
    from pointwise.costs.tables import bounded, milliseconds, short, table

    made = table("<layer", "<kind", "ms", "params", "mult-\nadds", "roof", "<bound by")
    for row in rows:
        made.add_row(
            shown(row.name),
            row.kind if row.count.bytes else "",
            milliseconds(row.milliseconds),
            short(row.count.parameters),
            bounded(row.count.multiply_adds, row.count.exact),
            percent(row.share),
            row.bound,
        )
    return made


def _tree(found: Profile) -> Table:
    from pointwise.costs.tables import bounded, milliseconds, short, table

    made = table("<module", "<type", "ms", "%", "params", "mult-\nadds")
    for branch in found.tree():
        made.add_row(
            "  " * branch.depth + shown(branch.name),
            branch.type,
            milliseconds(branch.milliseconds),
            f"{100 * branch.milliseconds / found.sum_ms:.1f}",
            short(branch.count.parameters),
            bounded(branch.count.multiply_adds, branch.count.exact),
        )
    return made


def _reasons(found: Profile, console: Console) -> None:
    """The layers that lose most against their rooflines, and why."""

    from pointwise.costs.tables import milliseconds

    far = [row for row in found.rows if row.is_far or (row.share is None and row.lost_ms > 0)]
    far.sort(key=lambda row: -row.lost_ms)
    far = [row for row in far if row.lost_ms > 0.01 * found.sum_ms]
    if not far:
        return
    console.print("\n[bold]Far from their rooflines[/bold], those that lose most first")
    for row in far[:_SHOWN]:
        console.print(
            f"  [bold]{shown(row.name)}[/bold] loses {milliseconds(row.lost_ms)} ms"
            f" ({row.bound}): {shown(row.reason)}"
        )
    if len(far) > _SHOWN:
        console.print(f"  and {len(far) - _SHOWN} more; --json and --html have all reasons")


def percent(share: float | None) -> str:
    """A share of the roofline; nothing where nothing is counted."""
    return "" if share is None else f"{100 * share:.0f} %" if share >= 0.0095 else "<1 %"
