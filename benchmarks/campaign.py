"""A campaign of labelling: measured on this machine with one worker and two, simulated beyond.

    python benchmarks/campaign.py measure --json campaign.json
    python benchmarks/campaign.py simulate campaign.json     # 10,000 tiles, up to 1,024 workers
    python benchmarks/campaign.py workers                    # --workers 1 against 2, without Ray

**Measured** is the command itself, on a survey of square tiles (ground on a slope, boxes on it, no
two alike) with a network whose weights are random, which takes as long as one that has learned: the
time of a campaign on this machine alone, and on a Ray cluster on it with one worker and with two;
what the two spend on tiles, on passing arguments and results, and on waiting (for Ray to start
them, for a task, for the last tile), by Ray's own record; the parts of a tile in one worker, bytes
of a point in LAZ, how long a worker needs to be ready, and what Ray needs for a task that does
nothing. Tiles are few and small, so that it ends in minutes on two cores: what is spent on starting
is a larger share than in a campaign; ``--tiles``, ``--points`` and ``--width`` make them larger. A
worker with one core is timed by its processor, which other programs on the machine do not change;
whole campaigns are timed by the clock.

**Simulated** is a list schedule: whoever is free takes the next tile, the largest first, as the
command does. What is assumed:

- A tile's time is that of its points (log-normal, ``--spread``): read once to see where it lies, by
  a task of its own; then read again with its eight neighbours, labelled, written. Each part takes
  the seconds per point that were measured here, on one worker's cores; ``--faster`` is for the
  labelling alone, as on a GPU.
- A task fetches its files before it begins, and sends its file after it. Each worker has its share
  of its machine's link, and of what the store gives to all of them (``--link``, ``--store``).
- The head starts one task after the other, in the measured time for each.
- A worker lasts ``--lasts`` hours on average (exponential, as machines that may be taken back do);
  its tile is begun anew by the next who is free, and a new worker comes after ``--comes`` seconds
  and is ready after the measured time. Nothing else is lost.
- The machines' memory holds a tile with its neighbours; disks and stores do not fail.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.table import Table

from pointwise.atomic import replacing
from pointwise.terminal import terminal

NEIGHBOURS = 8
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Rates:
    """What was measured: seconds per point of one worker, unless it says otherwise."""

    processor: str
    cores: int  # of a worker
    read: float
    label: float  # of a tile's own points, those that it sees of others included in the time
    write: float
    bytes: float  # of a point in LAZ
    ready: float  # seconds until a worker has loaded everything, kernels from the cache
    task: float  # seconds of the head for a task that does nothing


@app.command()
def measure(
    tiles: Annotated[int, typer.Option(min=3, help="Along each side of the survey.")] = 3,
    points: Annotated[int, typer.Option(min=1000, help="In a tile.")] = 100_000,
    width: Annotated[float, typer.Option(help="Of a tile, metres.")] = 80.0,
    json_: Annotated[Path | None, typer.Option("--json", help="For 'simulate'.")] = None,
) -> None:
    """Labels a survey alone, with one worker and with two, and takes a worker's time apart."""
    from pointwise.costs.machine import cpu_name

    console = terminal()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_survey(folder, tiles, points, width)
        size = sum(file.stat().st_size for file in (folder / "tiles").iterdir())
        cores = max(1, (os.cpu_count() or 1) // 2)
        _alone(folder, "warm", ["--alone"])  # kernels are compiled, files are in the cache
        alone = _alone(folder, "alone")
        seconds, shares = {}, {}
        for n in (1, 2):
            seconds[n], shares[n] = _on_ray(folder, f"with {n}", n, cores)
        _check_same(folder, "with 1", "with 2")
        rates = Rates(
            cpu_name(), cores, **_parts(folder, cores), bytes=size / (points * tiles**2),
            ready=_ready(folder, cores), task=_task(),
        )  # fmt: skip
    table = Table("", "", box=box.SIMPLE_HEAD, title=f"{tiles**2} tiles of {points:,} points")
    table.add_row("this machine alone, no Ray", _each(alone, tiles))
    for workers, taken in seconds.items():
        table.add_row(f"Ray, {workers} worker{'s' * (workers > 1)}", _each(taken, tiles))
    table.add_row("two against one", f"{seconds[1] / seconds[2]:.2f} times")
    for what, share in shares[2].items():
        table.add_row(f"two workers, {what}", f"{100 * share:.1f} % of their time")
    for part in ("read", "label", "write"):
        table.add_row(
            f"{part}, one worker", f"{1e6 * getattr(rates, part):.2f} s per million points"
        )
    table.add_row("LAZ", f"{rates.bytes:.2f} bytes a point")
    table.add_row("a worker is ready after", f"{rates.ready:.1f} s")
    table.add_row("an empty task", f"{1e3 * rates.task:.2f} ms")
    table.add_row("processor", f"{rates.processor}, {cores} of its cores for each of two workers")
    console.print(table)
    if json_ is not None:
        with replacing(json_) as part_file:
            record = {
                **asdict(rates),
                "alone": alone,
                "seconds": seconds,
                "shares": shares,
                "tiles": tiles**2,
                "points": points,
            }
            part_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _each(seconds: float, tiles: int) -> str:
    return f"{seconds:.1f} s, {seconds / tiles**2:.2f} a tile"


@app.command()
def workers(
    tiles: Annotated[int, typer.Option(min=2, help="Along each side of the survey.")] = 3,
    points: Annotated[int, typer.Option(min=1000, help="In a tile.")] = 100_000,
    width: Annotated[float, typer.Option(help="Of a tile, metres.")] = 80.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of each, in turns; the least counts.")] = 2,
) -> None:
    """``label`` on a folder of tiles with ``--workers 1`` and with 2, by the clock."""
    console, taken = terminal(), {1: math.inf, 2: math.inf}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_survey(folder, tiles, points, width)
        _alone(folder, "warm", ["--alone"])
        for turn in range(rounds):
            for count in taken:
                seconds = _alone(folder, f"{count} in {turn}", ["--workers", str(count)])
                taken[count] = min(taken[count], seconds)
        _check_same(folder, "1 in 0", "2 in 0", exact=False)
    table = Table("", "", box=box.SIMPLE_HEAD, title=f"{tiles**2} tiles of {points:,} points")
    for count, seconds in taken.items():
        table.add_row(f"--workers {count}", _each(seconds, tiles))
    table.add_row("two against one", f"{taken[1] / taken[2]:.2f} times")
    console.print(table)


def _check_same(folder: Path, one: str, other: str, *, exact: bool = True) -> None:
    """Raises RuntimeError where two campaigns have not written the same files."""
    for file in (folder / one).iterdir():
        twin = folder / other / file.name
        if not twin.is_file() or (exact and file.read_bytes() != twin.read_bytes()):
            raise RuntimeError(f"{file.name} is another one in {other!r} than in {one!r}")


def _write_survey(folder: Path, tiles: int, points: int, width: float) -> None:
    import torch

    from pointwise.cloud.files import write_scan
    from pointwise.cloud.scan import Scan
    from pointwise.training.plan import plan
    from pointwise.training.run import save_run, save_weights
    from pointwise.training.sources import Data

    def tile(column: int, row: int) -> Scan:
        rng = np.random.default_rng((column, row))
        low = np.array((column, row, 0)) * (width, width, 1)
        where = rng.uniform(low, low + (width, width, 0.05), size=(points, 3))
        box = ((where[:, 0] // 12 + where[:, 1] // 12) % 3 == 0) & (rng.random(points) < 0.7)
        where[box, 2] += rng.uniform(3, 9, box.sum())
        where[:, 2] += 0.05 * where[:, 0]
        labels = np.where(box, 6, 2)
        return Scan(where.round(3), labels=labels, classes={2: "ground", 6: "building"})

    for column in range(tiles):
        for row in range(tiles):
            write_scan(tile(column, row), folder / "tiles" / f"{column}_{row}.laz")
    torch.manual_seed(0)
    run = plan(Data("segmentation", [tile(0, 0)], [], []))
    save_run(run, folder / "run")
    save_weights(run, folder / "run")


_ALONE = """
import sys, time
from pointwise.cli import main

out, *sys.argv[1:] = sys.argv[1:]
if __name__ == "__main__":  # the processes of --workers read this, too
    begin = time.perf_counter()
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    print(time.perf_counter() - begin, file=open(out, "w"))
"""

_ON_RAY = """
import collections, json, logging, sys, time
import ray
from pointwise.cli import main

workers, cores, out, *sys.argv[1:] = sys.argv[1:]
ray.init(num_cpus=int(workers) * int(cores), include_dashboard=False, logging_level=logging.ERROR)
begin = time.perf_counter()
try:
    main()
except SystemExit as end:
    if end.code:
        raise
seconds = time.perf_counter() - begin
time.sleep(3)  # until what workers have noted has arrived
parts = collections.Counter()
for event in ray.timeline():
    if event["ph"] == "X" and event["cat"].startswith("task:") and "::" not in event["cat"]:
        parts[event["cat"].removeprefix("task:")] += event["dur"] / 1e6
json.dump({"seconds": seconds, "parts": parts}, open(out, "w"))
"""


def _alone(folder: Path, out: str, options: Sequence[str] = ()) -> float:
    """Seconds of the labelling of all tiles by the command, without Ray."""
    script, taken = folder / "alone.py", folder / "seconds.txt"
    script.write_text(_ALONE)
    words = ["label", "run", "tiles", "-o", out, *options]
    subprocess.run(
        [sys.executable, str(script), str(taken), *words],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return float(taken.read_text())


def _on_ray(folder: Path, out: str, workers: int, cores: int) -> tuple[float, dict[str, float]]:
    """Seconds of all tiles by so many workers of a cluster that is up; what their time went into.

    The shares are of the workers' time from the command's beginning to its end.
    """
    taken = folder / "seconds.json"
    words = ["label", "run", "tiles", "-o", out, "--ray", "local", "--workers", str(workers)]
    subprocess.run(
        [sys.executable, "-c", _ON_RAY, str(workers), str(cores), str(taken), *words],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    found = json.loads(taken.read_text())
    seconds, parts = found["seconds"], found["parts"]
    whole = workers * seconds
    tasks = parts.get("execute", 0.0) / whole
    moved = (parts.get("deserialize_arguments", 0.0) + parts.get("store_outputs", 0.0)) / whole
    shares = {
        "tiles": tasks,
        "arguments and results": moved,
        "waiting, starting": max(0.0, 1 - tasks - moved),
    }
    return seconds, shares


def _parts(folder: Path, cores: int) -> dict[str, float]:
    """Seconds per point of a tile's parts, in this process: a tile in the middle."""
    import torch

    from pointwise.cloud.files import read_scan, write_labels
    from pointwise.training.label import label_tile
    from pointwise.training.run import load_run
    from pointwise.training.survey import find_place, surroundings

    torch.set_num_threads(cores)
    run = load_run(folder / "run")
    files = sorted((folder / "tiles").iterdir())
    around = surroundings([find_place(file) for file in files], run.recipe.reach, run.recipe.unit)
    middle = max(range(len(files)), key=lambda i: len(around[i].neighbours))
    scan, reading = _timed(lambda: read_scan(files[middle]), cores)
    beside = [read_scan(file) for file in around[middle].neighbours]
    frame = around[middle].frame
    label_tile(run, scan.select(slice(0, 2000)))  # what the first one loads is not a tile's
    found, labelling = _timed(lambda: label_tile(run, scan, beside, frame), cores)
    _, writing = _timed(lambda: write_labels(scan, found.codes, folder / "one.laz"), cores)
    own = len(scan)
    return {"read": reading / own, "label": labelling / own, "write": writing / own}


def _timed(work: Callable[[], Any], cores: int = 0) -> tuple[Any, float]:
    """What ``work`` returns, and its seconds: by the processor where it has one core."""
    clock = time.process_time if cores == 1 else time.perf_counter
    begin = clock()
    result = work()
    return result, clock() - begin


def _ready(folder: Path, cores: int) -> float:
    """Seconds until a new process has the run and has labelled a few points with it."""
    code = (
        "import sys, torch; from pointwise.training.run import load_run;"
        "from pointwise.training.label import label_scan;"
        "from pointwise.cloud.files import read_scan;"
        f"torch.set_num_threads({cores}); scan = read_scan(sys.argv[2]);"
        "label_scan(load_run(sys.argv[1]), scan.select(slice(0, 2000)))"
    )
    file = next((folder / "tiles").iterdir())
    return _timed(
        lambda: subprocess.run([sys.executable, "-c", code, folder / "run", file], check=True)
    )[1]


def _task(count: int = 2000) -> float:
    """Seconds that Ray needs for each of many tasks that do nothing."""
    import logging

    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    nothing = ray.remote(lambda: None)
    ray.get([nothing.remote() for _ in range(100)])
    _, seconds = _timed(lambda: ray.get([nothing.remote() for _ in range(count)]))
    ray.shutdown()
    return seconds / count


@dataclass(frozen=True)
class Survey:
    tiles: int
    points: float  # in a tile, on average
    spread: float  # the standard deviation of their logarithm


@dataclass(frozen=True)
class Place:
    """Where the campaign runs."""

    faster: float  # labelling itself, than what was measured, as on a GPU
    replicas: int  # workers on a machine
    link: float  # bytes/s of a machine
    store: float  # bytes/s that the store gives to all
    lasts: float  # hours of a worker
    comes: float  # seconds until there is another


@dataclass(frozen=True)
class Outcome:
    hours: float
    busy: float  # the share of the workers' time that went into tiles that were finished
    fetched: float  # bytes
    waiting: float  # the share of the work's time that was spent on fetching and sending
    lost: int  # tiles begun anew


def campaign(survey: Survey, rates: Rates, place: Place, workers: int, seed: int = 0) -> Outcome:
    """Both passes over all tiles: where they lie, then their labels."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(-(survey.spread**2) / 2, survey.spread, survey.tiles)
    points = np.sort(survey.points * np.exp(spread))[::-1]
    beside = NEIGHBOURS * survey.points
    speed = min(place.link / min(place.replicas, workers), place.store / workers)

    look = rates.read * points
    fetched = rates.bytes * points
    first = Schedule(rates, place, workers, rng).run(look + fetched / speed, 0.0)
    work = rates.read * (points + beside) + (rates.label / place.faster + rates.write) * points
    moved = rates.bytes * (2 * points + beside)
    second = Schedule(rates, place, workers, rng).run(work + moved / speed, first.end)
    useful = (look + work).sum() + (fetched + moved).sum() / speed
    return Outcome(
        hours=second.end / 3600,
        busy=float(useful / (workers * second.end)),
        fetched=float((2 * fetched + rates.bytes * beside).sum()),
        waiting=float((fetched + moved).sum() / speed / useful),
        lost=first.lost + second.lost,
    )


class Schedule:
    """Tasks given out one after the other to whoever is free first."""

    def __init__(self, rates: Rates, place: Place, workers: int, rng: np.random.Generator) -> None:
        self.rates, self.place, self.workers, self.rng = rates, place, workers, rng
        self.end, self.lost = 0.0, 0

    def run(self, durations: np.ndarray, begin: float) -> Schedule:
        lasts = 3600 * self.place.lasts
        free = [(begin + self.rates.ready, i) for i in range(self.workers)]
        until = begin + self.rng.exponential(lasts, self.workers)
        heapq.heapify(free)
        head, self.end = begin, begin
        waiting = deque((begin, float(duration)) for duration in durations)  # since when, how long
        while waiting:
            since, duration = waiting.popleft()
            at, worker = heapq.heappop(free)
            head = max(head, since) + self.rates.task
            start = max(at, head)
            while until[worker] <= start:  # it was lost when it had nothing to do
                back = until[worker] + self.place.comes
                until[worker] = back + self.rng.exponential(lasts)
                start = max(start, back + self.rates.ready)
            if start + duration <= until[worker]:
                heapq.heappush(free, (start + duration, worker))
                self.end = max(self.end, start + duration)
                continue
            self.lost += 1
            waiting.append((until[worker], duration))
            back = until[worker] + self.place.comes
            until[worker] = back + self.rng.exponential(lasts)
            heapq.heappush(free, (back + self.rates.ready, worker))
        return self


@app.command()
def simulate(
    measured: Annotated[Path, typer.Argument(help="What 'measure --json' wrote.")],
    tiles: Annotated[int, typer.Option(min=1)] = 10_000,
    points: Annotated[float, typer.Option(help="In a tile, on average.")] = 15e6,
    spread: Annotated[float, typer.Option(help="Of the logarithm of the points.")] = 0.5,
    faster: Annotated[float, typer.Option(help="Labelling, as on a GPU; not reading.")] = 1.0,
    replicas: Annotated[int, typer.Option(help="Workers on a machine.")] = 4,
    link: Annotated[float, typer.Option(help="Of a machine, Gbit/s.")] = 10.0,
    store: Annotated[float, typer.Option(help="Of the store to all, Gbit/s.")] = 400.0,
    lasts: Annotated[float, typer.Option(help="Hours of a worker, on average.")] = 24.0,
    comes: Annotated[float, typer.Option(help="Seconds until another comes.")] = 300.0,
) -> None:
    """The time of a campaign with 1 to 1,024 workers, by the assumptions of this file."""
    described = json.loads(measured.read_text(encoding="utf-8"))
    rates = Rates(**{name: described[name] for name in Rates.__dataclass_fields__})
    survey = Survey(tiles, points, spread)
    place = Place(faster, replicas, link * 1e9 / 8, store * 1e9 / 8, lasts, comes)
    table = Table(
        "workers", "time", "of the ideal", "fetching and sending", "tiles begun anew",
        box=box.SIMPLE_HEAD, title=f"{tiles:,} tiles of {points:,.0f} points, simulated",
        caption=f"{rates.processor}, {rates.cores} core(s) a worker, labelling × {faster:g}",
    )  # fmt: skip
    for workers in (1, 2, 4, 16, 64, 256, 1024):
        found = campaign(survey, rates, place, workers)
        table.add_row(
            f"{workers:,}", _time(found.hours), f"{100 * found.busy:.0f} %",
            f"{100 * found.waiting:.1f} %", f"{found.lost:,}",
        )  # fmt: skip
    console = terminal()
    console.print(table)
    console.print(f"{found.fetched / 1e12:.1f} TB are fetched, whoever does it")


def _time(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h"


if __name__ == "__main__":
    app()
