"""``pointwise bench accelerate --models NAMES``: the kinds of models that people bring.

    pointwise bench accelerate --models all --json field.json
    pointwise bench accelerate --models unet,ghostnet,tcn
    pointwise bench accelerate --models all --json field.json --resume

Each kind is a network in plain PyTorch (``field_networks.py``, ``field_mobile.py``, …) for one
picture, sound or video; any model that ``pointwise speedup`` knows can be named too (of timm, say),
and ``timm`` is a choice of timm's own of the same kinds. Everyone gets a model built and runs it
once; who gives something else than eager PyTorch is not timed, and who cannot run it is named with
the reason. The others run in turns (``frame.py``).

Who: as in ``accelerate.py``, but for our backend of torch.compile. ``build_s`` is what it takes
from the model (for the runtimes: from its ONNX file) to the first result. What compiles is built
twice, since both keep what they have compiled on disk: ``first_build_s`` is the first time in this
process, ``build_s`` the second, with all of it there.
"""

from __future__ import annotations

import fnmatch
import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import accelerate as contest
import field_attention
import field_detection
import field_mobile
import field_networks
import field_sequences
import mobile_runtimes
import plain_networks
import runtimes
import torch
from field_networks import made
from frame import OURS, Case, Contestant, Row, measure, progress
from kept import Kept
from planned import QUICK_NOTE
from rich.console import Console
from torch import Tensor, nn

import pointwise
from pointwise.acceleration.watch import KERNELS
from pointwise.costs.tables import milliseconds, table
from pointwise.messages import first_line, rounded
from pointwise.timing import Ratio
from pointwise.timing.load import verdict_of
from pointwise.timing.ratio import factor

Made = tuple[nn.Module, Any]
WHO = tuple(who for who in contest.ALL if who != contest.OURS_COMPILED)
PEERS = (*contest.RUNTIMES, *mobile_runtimes.WHO)  # who does nothing but run models
COMPARISON = "accelerate --models"


def _plain(make: Callable[[], nn.Module], size: int = 224) -> Made:
    return made(make(), 3, size, size)


KINDS: dict[str, Callable[..., Made]] = {
    **{
        name: partial(_plain, make)
        for name, make in contest.PLAIN.items()
    },
    **field_mobile.MODELS, **field_networks.MODELS, **field_detection.MODELS,
    **field_attention.MODELS, **field_sequences.MODELS,
}  # fmt: skip
TIMM = (
    "ghostnet_100", "mobileone_s0", "repvgg_a0", "efficientformerv2_s0", "fastvit_t8",
    "convnextv2_atto", "mobilenetv3_large_100", "efficientnet_b0", "vit_small_patch16_224",
    "swin_tiny_patch4_window7_224")  # fmt: skip
SMALL = {"vocoder": 2, "wavenet": 1100, "crnn": 32, "swin_t": 224}  # the others: 64


def run(names: str, json: Path | None, rounds: int, quick: bool, resume: bool) -> None:
    """Measures the chosen models one after the other, each as soon as it is built."""
    console = Console(highlight=False)
    kinds = chosen(names, quick)
    kept = Kept(COMPARISON, json)
    missing = runtimes.missing(inference=True, quick=quick) | mobile_runtimes.missing()
    for who, why in missing.items():
        console.print(f"without {contest.NAMES[who]}: {why}")
    wanted = kept.missing(kinds, resume)
    with progress(console, "models", len(wanted)) as advance:
        for name in wanted:
            record = measured(name, kinds[name], min(rounds, 2) if quick else rounds, missing)
            kept.put(name, record)
            show(console, name, record)
            advance()
    if len(kinds) > 1:
        summary(console, {name: kept.cases[name] for name in kinds})
    if quick:
        console.print(f"\n{QUICK_NOTE}")
    if failed := [name for name in wanted if OURS in kept.cases[name]["why_not"]]:
        raise ValueError(f"bench: {', '.join(failed)}: accelerate fails; why is said above")


def chosen(names: str, quick: bool = False) -> dict[str, Callable[[], Made]]:
    """What makes the models that are meant: ``all`` kinds, some by parts of their names, others."""
    found: dict[str, Callable[[], Made]] = {}
    for part in filter(None, map(str.strip, names.split(","))):
        pattern = part if set(part) & set("*?[") else f"*{part}*"
        kinds = [part] if part in KINDS else fnmatch.filter(KINDS, pattern)
        if part == "all":
            kinds = list(KINDS)
        small = {kind: (SMALL.get(kind, 64),) if quick else () for kind in kinds}
        found |= {kind: partial(KINDS[kind], *small[kind]) for kind in kinds}
        if not kinds:
            found |= {name: _other(name) for name in (TIMM if part == "timm" else (part,))}
    if not found:
        raise ValueError(f"bench: --models {names!r} names no model; there are {_known()}")
    return found


def _known() -> str:
    return f"all, timm, {', '.join(KINDS)}"


def _other(name: str) -> Callable[[], Made]:
    """A model of somebody else, as ``pointwise speedup`` knows it; it is made at once."""
    from pointwise.cli.speedup import Wanted, find

    try:
        model, inputs, _ = find(Wanted(name))
    except ValueError as error:
        raise ValueError(f"bench: no kind is called {name!r}: {_known()}. And {error}") from error
    if len(inputs) == 1 and inputs[0].dim() == 4:
        model = plain_networks.settle(model, torch.randn(2, *inputs[0].shape[1:])).eval()
    return lambda: (model, inputs)


# --- one model ------------------------------------------------------------------------------------


class Built(NamedTuple):
    run: Callable[[object], Any]
    seconds: list[float]  # of each time that it was built, the first result included
    error: float
    module: Any = None  # of ours


def measured(
    name: str, make: Callable[[], Made], rounds: int, missing: dict[str, str]
) -> dict[str, Any]:
    """What is known of a model and everyone who runs it, as JSON."""
    torch.manual_seed(0)
    model, given = make()
    inputs = given if isinstance(given, tuple) else (given,)
    file, why_no_file, exported = _exported(model, inputs)
    missing = missing | dict.fromkeys(BY_FILE, why_no_file) if file is None else missing
    built: dict[str, Built] = {}
    why_not = {who: why_no_file for who in BY_FILE if file is None}
    with torch.no_grad():
        right = model(*inputs)
    for who in WHO:
        if who in missing or not mobile_runtimes.takes(who, inputs[0]):
            continue
        try:
            found = _built(who, model, inputs, right, file)
        except Exception as error:  # everyone has kinds of their own
            why_not[who] = f"{type(error).__name__}: {first_line(error)}"
            continue
        if found.error <= contest.TOLERANCE:
            built[who] = found
        else:
            why_not[who] = f"it differs from {contest.NAMES[contest.EAGER]} by {found.error:.2g}"
    contestants = [Contestant(who, each.run, steady=True) for who, each in built.items()]
    rows = measure([Case(name, contestants, contest.same)], rounds)
    record = {
        "inputs": ["×".join(map(str, x.shape)) for x in inputs if isinstance(x, Tensor)],
        "parameters": sum(x.numel() for x in model.parameters()),
        "export_s": exported,
        "busy": rows[0].busy,
        "who": {row.who: _record(row, rows, built[row.who]) for row in rows},
        "why_not": why_not,
        **(_parts(built[OURS].module) if OURS in built else {}),
    }
    torch._dynamo.reset()
    return record


BY_FILE: dict[str, Callable[..., Any]] = {**contest.RUNTIMES, **mobile_runtimes.BY_FILE}


def _exported(model: nn.Module, inputs: tuple) -> tuple[bytes | None, str, float]:
    """The ONNX file, or why there is none, and the seconds that took."""
    start = time.perf_counter()
    try:
        if len(inputs) != 1:
            raise ValueError(f"runtimes take models of one input here, got {len(inputs)}")
        file, why = runtimes.onnx_file(model, inputs[0]), ""
    except Exception as error:  # torch.onnx.export has many kinds
        file, why = None, f"there is no ONNX file of it: {first_line(error)}"
    return file, why, round(time.perf_counter() - start, 3)


def _built(
    who: str, model: nn.Module, inputs: tuple[Any, ...], right: Any, file: bytes | None
) -> Built:
    seconds, faster = [], None
    for _ in range(2 if who in (OURS, runtimes.COMPILE) else 1):
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what ours says is in its reports
            if who == OURS:
                faster = pointwise.accelerate(model, inputs)
                run = contest.infer(faster, inputs)
            elif who in BY_FILE:
                run = BY_FILE[who](file, inputs[0])
            else:
                run = contest.run(who, model, inputs)
            result = run(None)
        seconds.append(time.perf_counter() - start)
    return Built(run, seconds, contest.difference(right, result), faster)


def _record(row: Row, rows: Sequence[Row], built: Built) -> dict[str, Any]:
    found = row.record(rows)
    kept = {key: found[key] for key in ("median_ms", "min_ms", "p95_ms")}
    return {
        **{key: round(value, 4) for key, value in kept.items()},
        "ratio": found["ratio"],  # its time over that of ours
        "error": built.error,
        "build_s": round(built.seconds[-1], 3),
        "first_build_s": round(built.seconds[0], 3),
    }


def _parts(faster: Any) -> dict[str, Any]:
    """What of an accelerated model runs as kernels, and the share of its time that does not."""
    plain: dict[str, int] = {}
    times: dict[str, float] = {}
    kernels = 0
    for report in faster.reports():
        kernels += len(report.fused)
        for entry in report.plain:
            plain[entry.what] = plain.get(entry.what, 0) + 1
        for what, seconds in report.times.items():
            times[what] = times.get(what, 0.0) + seconds
    whole = sum(times.values())
    return {
        "kernels": kernels,
        "calls": kernels + sum(plain.values()),
        "plain": plain,
        "share_of_pytorch": 1 - times.get(KERNELS, 0.0) / whole if whole else None,
        "in_pieces": getattr(faster, "why", ""),
    }


# --- what is shown --------------------------------------------------------------------------------


def show(console: Console, name: str, record: dict[str, Any]) -> None:
    """What was found of one model, in 80 columns."""
    console.print(f"\n[bold]{name}[/]  {', '.join(record['inputs'])}{_in_words(record)}")
    rows = table("<", "least", "median ms", "time over ours", "error", "build s", "first")
    for who, found in record["who"].items():
        compiles = who in (OURS, runtimes.COMPILE)
        rows.add_row(
            contest.NAMES[who], milliseconds(found["min_ms"]), milliseconds(found["median_ms"]),
            "" if who == OURS or found["ratio"] is None else "–" if record["busy"] else
            str(ratio_of(found["ratio"])),
            f"{found['error']:.0e}", rounded(found["build_s"], 2),
            rounded(found["first_build_s"], 2) if compiles else "")  # fmt: skip
    console.print(rows)
    for who, why in record["why_not"].items():
        console.print(f"not {contest.NAMES[who]}: {why}", markup=False)
    if record["busy"]:
        console.print(verdict_of(record["busy"]))


def _in_words(record: dict[str, Any]) -> str:
    if "calls" not in record:
        return ""
    share = record["share_of_pytorch"]
    words = f": {record['kernels']} of {record['calls']} calls are kernels"
    if share is not None:
        words += f", {100 * share:.0f} % of the time is PyTorch's"
    return words + (", compiled in pieces" if record["in_pieces"] else "")


def ratio_of(record: dict[str, Any]) -> Ratio:
    """A ratio that JSON has kept."""
    low, high = record["low"], record["high"]
    return Ratio(record["ratio"], 0 if low is None else low, math.inf if high is None else high)


def best(record: dict[str, Any]) -> str | None:
    """The fastest of the runtimes, if there is one."""
    there = [who for who in PEERS if who in record["who"]]
    return min(there, key=lambda who: record["who"][who]["median_ms"], default=None)


def over(record: dict[str, Any], who: str | None) -> str:
    """How many times as long as ours somebody takes."""
    found = record["who"].get(who, {}).get("ratio")
    return "–" if found is None or record["busy"] else factor(found["ratio"])


def summary(console: Console, cases: dict[str, dict[str, Any]]) -> None:
    """A line for each model."""
    rows = table("<", "kernels", "PyTorch's", "eager", "runtime", "ours", "of eager", "of runtime")
    for name, record in cases.items():
        share = record.get("share_of_pytorch")
        first = best(record)
        rows.add_row(
            name, f"{record['kernels']}/{record['calls']}" if "calls" in record else "–",
            "–" if share is None else f"{100 * share:.0f} %",
            *(_ms(record, who) for who in (contest.EAGER, first, OURS)),
            over(record, contest.EAGER), over(record, first))  # fmt: skip
    console.print()
    console.print(rows)
    console.print(
        "\nkernels: calls of the model that are kernels; PyTorch's: the share of time\n"
        "spent in others; median ms of eager PyTorch, the fastest runtime and ours; of eager,\n"
        "of runtime: the time of these over that of ours"
    )


def _ms(record: dict[str, Any], who: str | None) -> str:
    found = record["who"].get(who)
    return "–" if found is None else milliseconds(found["median_ms"])
