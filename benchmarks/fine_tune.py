r"""What does starting from a run bring, with one, two and five labelled scans?

    python benchmarks/fine_tune.py --from rooms --json docs/measured/fine_tune.json

The same training twice, for as many steps: from random weights, as ``pointwise train`` begins, and
from a run, as ``pointwise train --from`` does. Tested on scans that neither has seen:

``rooms``  built-in rooms as a plainer scanner would see them: one station, a tenth of the rays,
           ranges 1 cm less exact, no colour, and six classes instead of eleven. Simulated, as what
           ``rooms`` was trained on is.
``town``   an aerial scan (laspy's ``town_6_classes.las``), cut into eight tiles of as many points,
           three of which are the test. Real, and nothing like a room.

Each repetition has rooms, or a choice of tiles, of its own. Lengths are counted in steps and
nothing is timed, so a busy machine changes no figure. What is in the JSON already is not done
again, so that a run that was stopped goes on.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from json import loads as read
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pointwise.cli.outputs import check_output, write_json
from pointwise.cloud.files import read_scan
from pointwise.cloud.scan import Scan
from pointwise.rooms.generate import room, room_numbers
from pointwise.training.augment import Augmentation
from pointwise.training.data import feed
from pointwise.training.evaluate import evaluate
from pointwise.training.metrics import scores
from pointwise.training.plan import plan
from pointwise.training.relabel import relabelling
from pointwise.training.run import Run, load_run
from pointwise.training.sources import Data
from pointwise.training.train import Settings, train

COUNTS = (1, 2, 5)  # labelled scans
TESTED = {"rooms": 6, "town": 3}  # scans
CELLS = {"rooms": 0.1, "town": None}  # None: by the spacing
MERGED = ("wall,column,board=wall", "table,chair,sofa,bookcase=furniture")
NOISE = 0.01  # metres, of a range


@dataclass(frozen=True)
class Scans:
    """What may be learned from, the first of it first, and what is tested on."""

    labelled: list[Scan]
    test: list[Scan]


def plain_room(number: int, rays: int) -> Scan:
    """A room as a scanner with one station and without a camera would see it."""
    scan = room(number, stations=1, rays=rays)
    noise = np.random.default_rng(number).normal(0, NOISE, size=scan.points.shape)
    return replace(scan, points=scan.points + noise, fields={})


def rooms(seed: int, rays: int) -> Scans:
    """Rooms of a seed from 100 on, which no other experiment has."""
    parts = ("train", max(COUNTS)), ("test", TESTED["rooms"])
    learned, tested = (
        [plain_room(number, rays) for number in room_numbers(count, part, 100 + seed)]
        for part, count in parts
    )
    wanted = relabelling([*learned, *tested], MERGED)
    return Scans([*map(wanted.applied, learned)], [*map(wanted.applied, tested)])


def town(file: Path, seed: int) -> Scans:
    """Tiles of as many points each, four by two, in an order that the seed decides."""
    scan = read_scan(file)
    parts = np.array_split(np.argsort(scan.points[:, 0], kind="stable"), 4)
    halves = [
        half
        for part in parts
        for half in np.array_split(part[np.argsort(scan.points[part, 1], kind="stable")], 2)
    ]
    tiles = [scan.select(half) for half in halves]
    order = np.random.default_rng(seed).permutation(len(tiles))
    chosen = [tiles[i] for i in order]
    return Scans(chosen[TESTED["town"] :], chosen[: TESTED["town"]])


def trained(scans: Scans, count: int, start: Run | None, steps: int, seed: int, what: str) -> Run:
    """A run that has learned from the first ``count`` scans; the test's classes are known to it."""
    data = Data("segmentation", scans.labelled[:count], [], scans.test)
    run = plan(data, cell_size=CELLS[what], start=start, seed=seed)
    jitter = Augmentation(jitter=0.05 * run.arguments["cell_size"])
    read = feed(run.recipe, data.train, augmentation=jitter, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        train(run, read, Path(folder), Settings(steps=steps, seed=seed))
    return run


def trainings(start: Run) -> Iterator[tuple[str, int, Run | None]]:
    """What each is called, how many scans it learns from, and where it starts."""
    for count in COUNTS:
        for name, begin in (("from scratch", None), ("from the run", start)):
            yield f"{count} scan{'s' * (count > 1)}, {name}", count, begin


def command(
    start: Annotated[str, typer.Option("--from", help="The run to start from.")] = "rooms",
    what: Annotated[str, typer.Option("--what", help="rooms, town, or both: rooms,town.")] = (
        "rooms,town"
    ),
    file: Annotated[
        Path, typer.Option("--town", help="The aerial scan, town_6_classes.las.")
    ] = Path("../shared/data/las/town_6_classes.las"),
    rays: Annotated[int, typer.Option(help="Of each room's scan.")] = 10_000,
    steps: Annotated[int, typer.Option(help="Of each training.")] = 100,
    seeds: Annotated[int, typer.Option(help="Repetitions, each with scans of its own.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Also write the numbers here.")] = None,
) -> None:
    check_output("fine_tune", "--json", json, (".json",))
    begin, chosen = load_run(start), what.split(",")
    if unknown := set(chosen) - TESTED.keys():
        raise typer.BadParameter(f"--what knows rooms and town, not {', '.join(unknown)}")
    settings = {"from": start, "steps": steps, "rays": rays}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in chosen}
    if json is not None and json.exists():  # goes on where it was stopped
        there = read(json.read_text(encoding="utf-8"))
        if there | settings != there:
            raise typer.BadParameter(f"{json} has other settings than {settings}; remove it")
        found |= there["mean_iou"]
    for seed in range(seeds):
        for name in chosen:
            scans = rooms(seed, rays) if name == "rooms" else town(file, seed)
            for said, count, run in trainings(begin):
                values = found[name].setdefault(said, [])
                if len(values) > seed:
                    continue
                made = trained(scans, count, run, steps, seed, name)
                values.append(round(scores(evaluate(made, scans.test)).mean_iou, 4))
                print(f"{name}, seed {seed}, {said}: {100 * values[-1]:.1f} %", flush=True)
                if json is not None:
                    write_json(json, settings | {"mean_iou": found})
    for name, each_training in found.items():
        print(f"\n{name}: mean IoU after {steps} steps")
        for said, values in each_training.items():
            each = ", ".join(f"{100 * v:.1f}" for v in values)
            print(f"  {said:22} {100 * statistics.mean(values):5.1f} %  ({each})")


if __name__ == "__main__":
    typer.run(command)
