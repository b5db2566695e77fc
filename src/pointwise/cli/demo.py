"""``pointwise demo``: the whole way from labelled clouds to a labelled scan, on built-in rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointwise.terminal import shown, terminal

STEPS, ROOMS = 600, 60
MINUTES, MACHINE = 3, "two cores of an AMD EPYC with AVX-512"  # measured when nothing else ran


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The folder for everything it makes.", show_default="demo"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How many steps to train.")] = STEPS,
    minutes: Annotated[
        float | None, typer.Option(help="At most this long.", show_default=False)
    ] = None,
    rooms: Annotated[int, typer.Option(min=1, help="How many rooms to learn from.")] = ROOMS,
) -> None:
    """Trains on simulated rooms, tests on unseen ones, labels one more, and shows it."""
    from dataclasses import replace

    import numpy as np

    from pointwise.cli.label import label
    from pointwise.cli.run_folder import free
    from pointwise.cli.train import train
    from pointwise.cloud.files import read_scan, write_scan
    from pointwise.report.prediction import write_prediction
    from pointwise.report.scene import write_page
    from pointwise.rooms import room
    from pointwise.rooms.generate import room_numbers

    console = terminal()
    out = out or free(Path("demo"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"demo: {out} is not an empty folder; choose another --out")
    run, new, labelled = out / "run", out / "room.ply", out / "room-labelled.ply"

    console.rule(f"Training on {rooms} rooms for {steps:,} steps", align="left")
    if (steps, rooms, minutes) == (STEPS, ROOMS, None):
        console.print(f"All of the demo takes about {MINUTES} minutes on {MACHINE}.")
    # Coarser cells than train would choose: a step takes less time, and more of them are worth more
    # than detail.
    train(["rooms"], out=run, rooms=rooms, steps=steps, minutes=minutes, cell_size=0.1)

    console.rule("Labelling a room it has never seen", align="left")
    # A room of another seed, that neither training, validation nor test has had.
    scan = room(room_numbers(1, "test", seed=1)[0])
    write_scan(replace(scan, labels=None), new)
    label(run, [new], out=labelled)
    found = read_scan(labelled)
    assert found.labels is not None
    assert scan.labels is not None
    right = np.mean(found.labels == scan.labels)
    console.print(f"{100 * right:.1f} % of its points are labelled as they should be.")

    console.rule("Pictures", align="left")
    write_page(found, out / "room.html", truth=scan.labels)
    write_prediction(scan, found.labels, out / "room.png")
    for what, where in (
        ("The run", run),
        ("The labelled scan", labelled),
        ("Truth, prediction and errors side by side", out / "room.png"),
        ("The same to turn, in a browser", out / "room.html"),
    ):
        console.print(f"{what}: {shown(where)}", soft_wrap=True)
