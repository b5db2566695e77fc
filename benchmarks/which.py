r"""Which convolution? Six kinds in one network, at equal parameters and at equal time.

    python benchmarks/which.py --signs signdigits64.npz --page docs/which.md \
        --kept docs/measured/which.json

One small network is built with each kind of convolution that ``pointwise compare`` knows and that
can stand alone in a network. The standard one at its usual width says how many parameters, and how
many milliseconds, there are; every other kind gets the width that comes nearest to the one, and the
largest that keeps to the other. All are trained by the library's own training of images, with
three seeds, and tested on images not learned from. What a width costs is measured on this machine,
in turns with the standard network; what a network knows does not depend on the machine, and with
``--kept`` is looked up where it has been trained before.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import pages
import torch
import typer
from torch import Tensor, nn

from pointwise.atomic import replacing
from pointwise.comparison.variants import VARIANTS, Job, made
from pointwise.costs import cost
from pointwise.costs.machine import cpu_name
from pointwise.costs.tables import milliseconds, short
from pointwise.layers import ConvNormAct
from pointwise.timing import BUSY, Watch, in_turns, ratio
from pointwise.timing.load import verdict_of
from pointwise.training.evaluate import evaluate_images
from pointwise.training.images.augment import ImageAugmentation
from pointwise.training.images.data import feed
from pointwise.training.images.plan import plan_images
from pointwise.training.images.sources import ImageData, load_images
from pointwise.training.metrics import scores
from pointwise.training.run import Run
from pointwise.training.train import Settings, train

KINDS = ("standard", "separable", "grouped", "bottleneck", "inverted residual", "shift")
REFERENCE = "standard"
PARAMETERS, TIME = "parameters", "time"
WIDTHS = range(4, 129, 4)  # of the first stage; four groups go into all of them
FINER = {"inverted residual": range(2, 129, 2)}  # which has six times as many inside
GROUPS, EXPAND = 4, 6
BATCH = 64  # images at once where time is taken: a single one is mostly the calls
LEARNED = 32  # images of a step in training
BY = "benchmarks/which.py"


@dataclass(frozen=True)
class Task:
    """Images to learn, the size they are read at, and how wide and how long the standard one is."""

    name: str
    data: str
    size: int
    width: int
    epochs: int


@dataclass(frozen=True)
class Network:
    """A kind at a width: what it has, and what a batch takes on this machine."""

    kind: str
    width: int
    parameters: int
    multiply_adds: int  # of one image
    milliseconds: float | None  # the median for a batch; None on a busy machine


@dataclass(frozen=True)
class Result:
    """A network for a task within a budget, and its accuracy with each seed."""

    task: str
    budget: str
    network: Network
    accuracies: tuple[float, ...]


class Stages(nn.Module):
    """A standard convolution, then blocks of one kind in three stages, the mean, the classes.

    A stage halves the image (but for the first) and doubles the channels, in a block; a second
    block follows with a residual, as networks have it. Without ``norm``, this is the network in
    inference, whose norms are part of the weights.
    """

    def __init__(self, kind: str, width: int, in_channels: int, classes: int, norm: bool = True):
        super().__init__()
        bn = nn.BatchNorm2d if norm else None
        self.stem = ConvNormAct(in_channels, width, 3, norm=bn, bias=False, activation="relu")
        self.blocks = nn.ModuleList()
        channels = width
        for stride, out in ((1, width), (2, 2 * width), (2, 4 * width)):
            self.blocks.append(_block(kind, channels, out, stride, norm))
            self.blocks.append(_block(kind, out, out, 1, norm))
            channels = out
        self.classifier = nn.Linear(channels, classes)
        # MobileNetV2's blocks end without an activation: they are narrow there.
        self.activation = nn.Identity() if kind == "inverted residual" else nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for number, block in enumerate(self.blocks):
            out = block(x)
            x = self.activation(out + x if number % 2 else out)
        return self.classifier(x.mean((2, 3)))


def _block(kind: str, c_in: int, c_out: int, stride: int, norm: bool) -> nn.Module:
    """The convolutions of a kind as ``pointwise compare`` has them."""
    variant = next(each for each in VARIANTS if each.name == kind)
    parts = variant.parts(Job(8, 8, c_in, c_out, stride=stride), GROUPS, EXPAND)
    assert not isinstance(parts, str), parts
    state = torch.get_rng_state()
    ours = made(parts, norm)[0]  # which seeds for itself, and all blocks would begin alike
    torch.set_rng_state(state)
    for module in ours.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return ours


# --- widths ---------------------------------------------------------------------------------------


def parameters_of(kind: str, width: int, channels: int, classes: int) -> int:
    return sum(p.numel() for p in Stages(kind, width, channels, classes).parameters())


def at_equal_parameters(kind: str, task: Task, channels: int, classes: int) -> int:
    """The width with which a kind has most nearly as many parameters as the standard network."""
    wanted = parameters_of(REFERENCE, task.width, channels, classes)
    return min(
        FINER.get(kind, WIDTHS),
        key=lambda width: abs(parameters_of(kind, width, channels, classes) - wanted),
    )


def at_equal_time(widths: Sequence[int], slower: Callable[[int], bool]) -> int:
    """The largest width that is not ``slower`` than the standard network, by halving."""
    low, high = 0, len(widths)  # the first is taken whatever it takes
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if slower(widths[middle]) else (middle, high)
    return widths[low]


class Clock:
    """What networks take for a batch of a task's images, in inference."""

    def __init__(self, task: Task, channels: int, classes: int, rounds: int) -> None:
        self.task, self.channels, self.classes, self.rounds = task, channels, classes, rounds
        self.images = torch.rand(BATCH, channels, task.size, task.size).contiguous(
            memory_format=torch.channels_last
        )

    def is_slower(self, kind: str, width: int) -> bool:
        """Whether a kind takes longer than the standard network, in turns with it."""
        runs = {"it": self._run(kind, width), "standard": self._run(REFERENCE, self.task.width)}
        found = in_turns(runs, samples=5 * self.rounds, seconds=1.0)
        return ratio(found["it"], found["standard"]).value > 1

    def measured(self, networks: Sequence[tuple[str, int]]) -> list[float]:
        """Median milliseconds of each, all in turns."""
        runs = {str(number): self._run(*each) for number, each in enumerate(networks)}
        found = in_turns(runs, samples=5 * self.rounds, seconds=1.0)
        return [found[str(number)].median for number in range(len(networks))]

    def _run(self, kind: str, width: int) -> Callable[[], Tensor]:
        network = Stages(kind, width, self.channels, self.classes, norm=False).eval()

        def run() -> Tensor:
            with torch.no_grad():
                return network(self.images)

        return run


# --- the experiment -------------------------------------------------------------------------------


class Experiment:
    """Chooses the widths, measures, and trains what was not trained before (``kept``)."""

    def __init__(
        self, seeds: int, rounds: int, kept: dict[str, float], told: Callable[[str], object]
    ) -> None:
        self.seeds, self.rounds, self.kept, self.told = seeds, rounds, kept, told
        self.busy = ""  # why times are not to be trusted

    def run(self, task: Task) -> list[Result]:
        data = load_images([task.data])
        plan = plan_images(data, size=task.size, arguments={"width": 0.25})
        channels, classes = plan.recipe.channels, len(plan.recipe.classes)
        clock = Clock(task, channels, classes, self.rounds)
        with Watch() as watch:
            chosen = self._chosen(task, clock, channels, classes)
            distinct = list(dict.fromkeys((kind, width) for _, kind, width in chosen))
            times = dict(zip(distinct, clock.measured(distinct), strict=True))
        busy = watch.busy()
        self.busy = self.busy or busy
        if busy:  # what is equal in time was decided by nothing
            self.told(f"{task.name}: {BUSY} ({busy}), so that nothing is compared at equal time")
            chosen = [each for each in chosen if each[0] == PARAMETERS]
            distinct = [(kind, width) for _, kind, width in chosen]
            times = {}
        found = {}
        for number, (kind, width) in enumerate(distinct):
            self.told(f"{task.name}: {kind}, {width} channels ({number + 1} of {len(distinct)})")
            network = Stages(kind, width, channels, classes).eval()
            count = cost(network, (1, channels, task.size, task.size)).totals
            found[kind, width] = (
                Network(
                    kind, width, count.parameters, count.multiply_adds, times.get((kind, width))
                ),
                tuple(self._accuracy(task, plan, data, kind, width, n) for n in range(self.seeds)),
            )
        return [Result(task.name, budget, *found[kind, width]) for budget, kind, width in chosen]

    def _chosen(
        self, task: Task, clock: Clock, channels: int, classes: int
    ) -> list[tuple[str, str, int]]:
        """Budget, kind and width of all that is compared."""
        found = []
        for kind in KINDS:
            if kind == REFERENCE:
                found += [(budget, kind, task.width) for budget in (PARAMETERS, TIME)]
                continue
            self.told(f"{task.name}: how wide {kind} may be")
            found.append((PARAMETERS, kind, at_equal_parameters(kind, task, channels, classes)))
            width = at_equal_time(FINER.get(kind, WIDTHS), partial(clock.is_slower, kind))
            found.append((TIME, kind, width))
        return found

    def _accuracy(
        self, task: Task, plan: Run, data: ImageData, kind: str, width: int, seed: int
    ) -> float:
        name = f"{task.name}, {task.size} pixels: {kind} {width}, {task.epochs} epochs, seed {seed}"
        if name not in self.kept:
            torch.manual_seed(seed)
            network = Stages(kind, width, plan.recipe.channels, len(plan.recipe.classes))
            self.kept[name] = trained(replace(plan, network=network), data, task.epochs, seed)
        return self.kept[name]


def trained(run: Run, data: ImageData, epochs: int, seed: int) -> float:
    """The accuracy on the test part after a training as ``pointwise train`` does it."""
    changes = ImageAugmentation(rotate=10)
    read = feed(run.recipe, data.train, data.validation, augmentation=changes, batch=LEARNED,
                seed=seed)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(run, read, Path(folder), Settings(epochs=epochs, seed=seed))
    return round(scores(evaluate_images(run, data.test)).overall_accuracy, 6)


# --- what is written ------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """The results in Markdown, a table for each task."""
    lines: list[str] = []
    for task in dict.fromkeys(each.task for each in results):
        for budget in (PARAMETERS, TIME):
            rows = [each for each in results if (each.task, each.budget) == (task, budget)]
            if not rows:
                continue
            best = max(statistics.mean(each.accuracies) for each in rows)
            lines += [
                f"**{task}, at equal {budget}**", "",
                "| | channels | parameters | multiply-adds | ms | accuracy | ± |",
                "|---|--:|--:|--:|--:|--:|--:|",
            ]  # fmt: skip
            for each in rows:
                mean, network = statistics.mean(each.accuracies), each.network
                several = len(each.accuracies) > 1
                spread = f"{100 * statistics.stdev(each.accuracies):.1f}" if several else ""
                said = f"{100 * mean:.1f} %"
                lines.append(
                    f"| {network.kind} | {network.width} | {short(network.parameters)}"
                    f" | {short(network.multiply_adds)} | {_time(network)}"
                    f" | {f'**{said}**' if mean == best else said} | {spread} |"
                )
            lines.append("")
    return "\n".join(lines)


def _time(network: Network) -> str:
    return "–" if network.milliseconds is None else milliseconds(network.milliseconds)


def command(
    signs: Annotated[
        Path | None, typer.Option(help="The photographs of hand signs; without, digits alone.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write the figures into.")] = None,
    kept: Annotated[
        Path | None, typer.Option(help="Where accuracies are kept, and not trained for again.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Of the clock.")] = 10,
    quick: Annotated[
        bool, typer.Option("--quick", help="One epoch each: to see that it runs.")
    ] = False,
) -> None:
    """Trains six kinds of convolution at equal parameters and at equal time."""
    tasks = [Task("digits", "digits", 8, 16, 12)]
    if signs is not None:
        tasks.append(Task("hand signs", str(signs), 32, 8, 8))
    if quick:
        tasks = [replace(task, width=8, epochs=1) for task in tasks]
    known = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    experiment = Experiment(seeds, rounds, known, lambda line: print(line, file=sys.stderr))
    results: list[Result] = []
    for task in tasks:
        results += experiment.run(task)
        if kept is not None:
            with replacing(kept) as part:
                part.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    machine = f"{cpu_name()}, {torch.get_num_threads()} threads; ms for {BATCH} images"
    text = f"{table(results)}\n{machine}.\n"
    if experiment.busy:
        text += f"\n{verdict_of(experiment.busy)}\n"
    print(text)
    if page is not None:
        pages.put(page, text, BY)


if __name__ == "__main__":
    typer.run(command)
