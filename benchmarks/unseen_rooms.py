"""How good is a run on rooms that it has not seen: with colour, without, by a plainer scanner?

    python benchmarks/unseen_rooms.py rooms

The rooms are those that a training on ``rooms --rooms 60`` is tested on. The plainer scanner has
one station, a quarter of the rays, ranges 1 cm less exact, and no colour. Nothing here is timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer
from fine_tune import plain_room

from pointwise.cloud.scan import Scan
from pointwise.rooms import rooms
from pointwise.rooms.generate import room_numbers
from pointwise.training.evaluate import evaluate
from pointwise.training.metrics import scores
from pointwise.training.run import load_run


def seen(count: int, rays: int) -> Iterator[tuple[str, list[Scan]]]:
    """The same rooms, as three scanners see them."""
    scans = rooms(count, "test", rays=rays)
    yield "with colour", scans
    yield "without", [replace(scan, fields={}) for scan in scans]
    yield "plainer scanner", [plain_room(n, rays // 4) for n in room_numbers(count, "test")]


def command(
    run: Annotated[str, typer.Argument(help="A run that has learned the classes of rooms.")],
    count: Annotated[int, typer.Option("--rooms", help="How many.")] = 20,
    rays: Annotated[int, typer.Option(help="Of each room's scan.")] = 100_000,
) -> None:
    loaded = load_run(run)
    for what, scans in seen(count, rays):
        found = scores(evaluate(loaded, scans))
        print(
            f"{what}: mean IoU {found.mean_iou:.1%}, overall accuracy {found.overall_accuracy:.1%},"
            f" mean class accuracy {found.mean_class_accuracy:.1%}"
        )
        for name, iou in zip(loaded.recipe.classes.names, found.iou, strict=True):
            print(f"  {name} {iou:.1%}")


if __name__ == "__main__":
    typer.run(command)
