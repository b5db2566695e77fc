r"""Do labels help more where ``pointwise suggest`` asks for them than where chance does?

    python benchmarks/suggest.py --json docs/measured/suggest.json

The pool is of built-in rooms, of which only some cubes have labels; ``budget`` is the share of all
points that chance labels. By chance with all of the budget, and with half of it; by suggestion with
half of it: a part by chance, from which a first run is trained, and the rest by what that run
suggests, in ``rounds``, each by a run that has learned from all before. A point is one for each
cube of 5 cm, as the network reads them: what stands near the scanner costs no more than the same
thing further away. Every run is trained from the same weights, for as many steps, and tested on the
same rooms, which are in no pool. With ``--whole`` there is one more, from all labels, which says
what there is to gain. Nothing here is timed, so a busy machine changes no figure. Seeds that the
JSON has already are not done again.

Short, some two minutes of one core for each seed, and too short for labels to decide much:

    python benchmarks/suggest.py --rooms 16 --test 10 --rays 15000 --block 4 --width 16 --steps 300
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from json import loads as read
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch.utils.data import DataLoader

from pointwise.cli.outputs import check_output, write_json
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.rooms import rooms
from pointwise.training.augment import Augmentation
from pointwise.training.classes import codes_of
from pointwise.training.data import RandomBlocks, label_counts, pack
from pointwise.training.evaluate import evaluate
from pointwise.training.feed import Feed
from pointwise.training.metrics import Scores, scores
from pointwise.training.plan import plan
from pointwise.training.run import Run
from pointwise.training.sources import Data
from pointwise.training.suggest import choose, cubes, regions
from pointwise.training.thin import thin
from pointwise.training.train import Settings, train

CELL, SIDE = 0.1, 1.6  # metres: of the finest cells, of a cube that is labelled
FIRST = 0.5  # of the half budget: drawn by chance, for the first run


@dataclass(frozen=True)
class Pool:
    """Rooms with all their labels, and the cube of each of their points."""

    scans: list[Scan]
    cube: list[np.ndarray]  # [N] each; -1 for strays
    cubes: list[tuple[int, int]]  # all of them: room, cube

    @classmethod
    def of(cls, scans: list[Scan]) -> Pool:
        scans = [thin(scan, CELL / 2, tuple(scan.fields))[0] for scan in scans]
        cube = [cubes(scan, SIDE)[0] for scan in scans]
        pairs = [
            (room, int(c)) for room, each in enumerate(cube) for c in np.unique(each[each >= 0])
        ]
        return cls(scans, cube, pairs)

    def labelled(self, chosen: Sequence[tuple[int, int]]) -> list[Scan]:
        """The rooms with the labels of some cubes only."""
        out = []
        for room, scan in enumerate(self.scans):
            own = [cube for where, cube in chosen if where == room]
            assert scan.labels is not None
            known = np.isin(self.cube[room], own)
            out.append(replace(scan, labels=np.where(known, scan.labels, UNLABELLED)))
        return out

    def points(self, chosen: Sequence[tuple[int, int]]) -> int:
        return sum(int((self.cube[room] == cube).sum()) for room, cube in chosen)


class Experiment:
    """Trains on parts of the pool's labels, always alike, and tests on the same rooms."""

    def __init__(
        self,
        pool: Pool,
        test: list[Scan],
        steps: int,
        seed: int,
        *,
        block: float | None = None,
        width: int | None = None,
    ) -> None:
        self.pool, self.test, self.steps, self.seed = pool, test, steps, seed
        self.block, self.arguments = block, None if width is None else {"width": width}

    def run(self, chosen: Sequence[tuple[int, int]]) -> Run:
        """A run that has learned from the labels of the cubes ``chosen``."""
        known = [scan for scan in self.pool.labelled(chosen) if len(codes_of(scan))]
        whole = Data("segmentation", self.pool.scans, [], self.test)
        # The same classes and weights each time.
        run = plan(
            whole, cell_size=CELL, seed=self.seed, block=self.block, arguments=self.arguments
        )
        blocks = RandomBlocks(run.recipe, known, Augmentation(jitter=0.05 * CELL), self.seed)
        # One epoch of so many blocks: the number of steps is the same however many have labels.
        loader = DataLoader(blocks, sampler=range(self.steps), batch_size=1, collate_fn=pack)
        settings = Settings(epochs=1, seed=self.seed)
        with tempfile.TemporaryDirectory() as folder:
            train(run, Feed(loader, None, label_counts(run.recipe, known)), Path(folder), settings)
        return run

    def scores(self, run: Run) -> Scores:
        return scores(evaluate(run, self.test))

    def chance(self) -> list[tuple[int, int]]:
        order = np.random.default_rng(self.seed).permutation(len(self.pool.cubes))
        return [self.pool.cubes[i] for i in order]

    def suggested(
        self, run: Run, chosen: list[tuple[int, int]], points: int
    ) -> list[tuple[int, int]]:
        """``chosen`` and what the run suggests beside it, to as many points as ``points``."""
        looked = regions(run, self.pool.labelled(chosen), side=SIDE)
        out = list(chosen)
        for place in choose(looked):
            if self.pool.points(out) >= points:
                break
            out.append((looked.found[place].scan, looked.found[place].cube))
        return out


def compare(
    experiment: Experiment,
    budget: float,
    rounds: int,
    every: bool,
    told: Callable[[str], object],
) -> dict[str, dict]:
    """Mean IoU by how the labels were chosen, and how many points were labelled for it."""
    pool, order = experiment.pool, experiment.chance()
    whole = int(budget * pool.points(pool.cubes))
    record: dict[str, dict] = {}

    def tell(name: str, run: Run, chosen: Sequence[tuple[int, int]]) -> None:
        result = experiment.scores(run)
        record[name] = {
            "points": pool.points(chosen),
            "cubes": len(chosen),
            "mean_iou": round(result.mean_iou, 4),
            "iou": dict(zip(run.recipe.classes.names, map(_rounded, result.iou), strict=True)),
        }
        told(f"seed {experiment.seed}, {name}: {100 * result.mean_iou:.1f} % mean IoU from"
             f" {len(chosen)} cubes, {pool.points(chosen):,} points")  # fmt: skip

    chosen = up_to(pool, order, int(FIRST * whole / 2))
    for done in range(1, rounds + 1):
        share = FIRST + (1 - FIRST) * done / rounds
        chosen = experiment.suggested(experiment.run(chosen), chosen, int(share * whole / 2))
    run = experiment.run(chosen)
    tell("half, suggested", run, chosen)
    for name, points in (("half, by chance", whole // 2), ("whole, by chance", whole)):
        chosen = up_to(pool, order, points)
        tell(name, experiment.run(chosen), chosen)
    if every:
        tell("all labels", experiment.run(pool.cubes), pool.cubes)
    return record


def up_to(pool: Pool, order: Sequence[tuple[int, int]], points: int) -> list[tuple[int, int]]:
    """The first cubes that hold ``points`` together."""
    total = np.cumsum([pool.points([cube]) for cube in order])
    return list(order[: int(np.searchsorted(total, points)) + 1])


def _done(json: Path | None, settings: dict) -> list[dict[str, dict]]:
    """What the file holds already; raises ValueError where that is of other settings."""
    if json is None or not json.exists():
        return []
    record = read(json.read_text(encoding="utf-8"))
    if {name: record.get(name) for name in settings} != settings:
        raise ValueError(f"suggest: {json} holds another experiment's numbers; choose another file")
    return record["seeds"]


def _rounded(value: float) -> float | None:
    return None if value != value else round(float(value), 4)


def command(
    count: Annotated[int, typer.Option("--rooms", help="In the pool.")] = 24,
    test: Annotated[int, typer.Option(help="Rooms to test on.")] = 12,
    rays: Annotated[int, typer.Option(help="Of each room's scan.")] = 40_000,
    budget: Annotated[float, typer.Option(help="Share of all points that chance labels.")] = 0.15,
    rounds: Annotated[int, typer.Option(min=1, help="Of suggestions.")] = 1,
    steps: Annotated[int, typer.Option(help="Of each training.")] = 600,
    block: Annotated[float | None, typer.Option(help="Side of training's blocks, metres.")] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the network's finest level.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions, each with rooms of its own.")] = 3,
    whole: Annotated[bool, typer.Option("--whole", help="Also with all labels.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the numbers here.")] = None,
) -> None:
    check_output("suggest", "--json", json, (".json",))
    settings = {
        "rooms": count,
        "test": test,
        "rays": rays,
        "budget": budget,
        "rounds": rounds,
        "steps": steps,
        "block": block,
        "width": width,
    }
    found = _done(json, settings)
    held_out = rooms(test, "test", rays=rays)
    for seed in range(len(found), seeds):
        pool = Pool.of(rooms(count, "train", seed=seed, rays=rays))
        experiment = Experiment(pool, held_out, steps, seed, block=block, width=width)
        found.append(compare(experiment, budget, rounds, whole, partial(print, flush=True)))
        if json is not None:
            write_json(json, {**settings, "seeds": found})
    for name in found[0]:
        values = [100 * each[name]["mean_iou"] for each in found]
        print(
            f"{name:18} {statistics.mean(values):5.1f} %  ({', '.join(f'{v:.1f}' for v in values)})"
        )


if __name__ == "__main__":
    typer.run(command)
