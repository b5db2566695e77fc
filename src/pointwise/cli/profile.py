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

    from pointwise.costs.alike import Alike
    from pointwise.costs.profiled import Profile

_SHOWN = 8  # reasons, at most
WITHHELD = "–"
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
    each: Annotated[
        bool,
        typer.Option("--each", help="Each layer by itself, where a deep network has many alike."),
    ] = False,
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
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:1; on a GPU, timed by CUDA events.")
    ] = "cpu",
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
    if device != "cpu":
        if html is not None or tree or threads is not None:
            raise ValueError("profile: --html, --tree and --threads are for the CPU")
        _profile_on_gpu(device, model, input_, set_, sort, top, rounds, json, trust)
        return

    console = terminal()
    found = _measure(model, input_, set_, threads, rounds, trust)
    if json is not None:
        write_json(json, found.as_dict())
    if html is not None:
        from pointwise.report.profile import write_page

        write_page(found, html)
    _show(found, console, sort or "order", tree, top, each)
    for path in (json, html):
        if path is not None:
            console.print(f"wrote {plain(path)}", markup=False)


def _profile_on_gpu(
    name: str,
    text: str,
    shapes: list[str] | None,
    arguments: list[str] | None,
    sort: str | None,
    top: int | None,
    rounds: int,
    json: Path | None,
    trust: bool,
) -> None:
    from pointwise.timing import gpu

    device = gpu.chosen("profile", name)

    from torch.utils import _pytree as pytree

    from pointwise.cli.inputs import inputs_of
    from pointwise.cli.model import load_model
    from pointwise.cli.network_arguments import network_arguments
    from pointwise.cli.outputs import write_json
    from pointwise.costs.on_gpu import profile as measured
    from pointwise.costs.tables import milliseconds, short, table

    loaded = load_model("profile", text, network_arguments(arguments), layers=True, trust=trust)
    inputs, words = inputs_of("profile", loaded, shapes)
    moved = pytree.tree_map(lambda x: x.to(device) if hasattr(x, "to") else x, tuple(inputs))
    found = measured(loaded.network.to(device).eval(), moved, {}, device, rounds)
    console = terminal()
    console.print(
        f"{found.device}, {words}: {milliseconds(found.whole.median)} ms; it reaches "
        f"{found.gflops / 1000:.0f} TFLOP/s, {found.gbs:,.0f} GB/s\n",
        markup=False,
    )
    made = table("<layer", "<type", "ms", "params", "mult-\nadds", "roof")
    by = {"time": lambda x: -x.times.median, "lost": lambda x: x.limit_ms - x.times.median}
    if sort not in (None, "order", *by):
        raise ValueError(f"profile: on a GPU, --sort is order, time or lost, got {sort!r}")
    rows = found.layers if sort in (None, "order") else sorted(found.layers, key=by[sort])  # type: ignore[index]
    for row in rows[:top]:
        made.add_row(
            shown(row.name),
            row.type,
            milliseconds(row.times.median),
            short(row.count.parameters),
            short(row.count.multiply_adds),
            percent(row.share if row.count.bytes else None),
        )
    console.print(made)
    if json is not None:
        write_json(json, found.as_dict())
        console.print(f"wrote {plain(json)}", markup=False)


def _measure(
    text: str,
    shapes: list[str] | None,
    arguments: list[str] | None,
    threads: int | None,
    rounds: int,
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
        with bar("measuring the machine and timing layers") as advance:
            done, total = itertools.count(1), runs(rounds)
            found = measured(
                model.network, *inputs, rounds=rounds, progress=lambda: advance(next(done), total)
            )
    finally:
        torch.set_num_threads(before)
    return replace(found, inputs=words)


# --- what is shown --------------------------------------------------------------------------------


def _show(
    found: Profile, console: Console, sort: str, tree: bool, top: int | None, each: bool
) -> None:
    from pointwise.costs.machine import threads_of
    from pointwise.costs.tables import bounded, short
    from pointwise.messages import duration
    from pointwise.timing.load import verdict_of

    count, machine, whole = found.count, found.machine, found.whole
    console.print(
        f"[bold]{shown(found.cost.network)}[/bold], {found.inputs}: {duration(whole.median)} "
        f"({duration(whole.min)} to {duration(whole.p95)}), {short(count.parameters)} parameters,\n"
        f"{bounded(count.multiply_adds, count.exact)} multiply-adds"
    )
    console.print(
        f"{machine.cpu}, {threads_of(machine)}: {machine.fma_gflops:.0f} GFLOP/s, "
        f"{machine.bandwidth_gbs:.0f} GB/s\n",
        markup=False,
    )
    if found.busy:
        console.print(f"{verdict_of(found.busy)}\n", markup=False)
    if tree:
        console.print(_tree(found))
    else:
        _layers(found, console, sort, top, each)
    said = f"\nThe layers take {duration(found.sum_ms)} together, the network "
    said += f"{duration(whole.median)} when nothing\ninside is timed"
    if not found.busy:
        said += f"; at their rooflines they would take {duration(found.limit_ms)}"
    console.print(f"{said}.")
    for line in found.cost.notes():
        console.print(line, markup=False)
    if not found.busy:
        _reasons(found, console)


def _layers(found: Profile, console: Console, sort: str, top: int | None, each: bool) -> None:
    from pointwise.costs.alike import MANY, Alike, alike

    rows = found.sorted_rows(sort)
    grouped = sort == "order" and not each and len(rows) > MANY
    groups = alike(rows) if grouped else [Alike((row,)) for row in rows]
    console.print(_table(groups[:top], bool(found.busy)))
    rest = sum(len(group.rows) for group in groups[top:]) if top is not None else 0
    if rest:
        console.print(f"and {rest} more layers")
    if grouped and len(groups) < len(rows):
        console.print("\n×: so many layers alike, and their times together; --each shows each")


def _table(groups: list[Alike], busy: bool) -> Table:
    from pointwise.costs.tables import bounded, milliseconds, short, table

    made = table("<layer", "<kind", "ms", "params", "mult-\nadds", "roof", "<bound by")
    for group in groups:
        row = group.rows[0]
        made.add_row(
            shown(group.name),
            row.kind if row.count.bytes else "",
            milliseconds(group.milliseconds),
            short(row.count.parameters),
            bounded(row.count.multiply_adds, row.count.exact),
            WITHHELD if busy else percent(group.share),
            WITHHELD if busy else group.bound,
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
    from rich.padding import Padding

    from pointwise.costs.alike import far
    from pointwise.costs.tables import milliseconds

    groups = far(found)
    if not groups:
        return
    console.print("\n[bold]Far from their rooflines[/bold], those that lose most first")
    for group in groups[:_SHOWN]:
        lose = "loses" if len(group.rows) == 1 else "lose"
        line = (
            f"[bold]{shown(group.names)}[/bold] {lose} {milliseconds(group.lost_ms)} ms"
            f" ({group.bound}): {shown(group.reason)}"
        )
        console.print(Padding(line, (0, 0, 0, 2)))
    if len(groups) > _SHOWN:
        console.print(f"  and {len(groups) - _SHOWN} more; --json and --html have all reasons")


def percent(share: float | None) -> str:
    """A share of the roofline; nothing where nothing is counted."""
    return "" if share is None else f"{100 * share:.0f} %" if share >= 0.0095 else "<1 %"
