"""``pointwise bench int8``: 8-bit integers, ours beside ONNX Runtime's and OpenVINO's.

    pointwise bench int8 --json int8.json
    pointwise bench int8 --only digits

Everyone calibrates on the same data and is asked the same questions. ``digits`` is MobileNetV1 of
half width, trained here on scikit-learn's handwritten digits, enlarged to 64×64 pixels: accuracy is
of a quarter of the images, which nobody has learned or calibrated on. ``mobilenet_v2`` and
``resnet50`` have weights and images at random, of 224×224 pixels: they show errors and times. All
run one image at a time, in turns.

Who: ``pointwise`` is the accelerated model in float32, ``pointwise_int8`` with
``precision="int8"``, ``pointwise_mixed`` with ``precision="mixed"``, which keeps the error within
0.01; ``onnxruntime_int8`` what ``quantize_static`` makes of the ONNX file (QDQ, uint8 activations,
int8 weights by channels, the file preprocessed as recommended); ``openvino_int8`` what NNCF makes
of it where that is installed, and otherwise ONNX Runtime's quantised file in OpenVINO.

On processors without VNNI (those with AVX2 alone, say), sums of two products of bytes are made in
16 bits by an instruction that saturates (``vpmaddubsw``); ONNX Runtime's guide says to give weights
7 bits there (``reduce_range``), which is done. Ours widens bytes to 16 bits and is exact
(``engine/cpu/dots.py``). Neither gains much over float32, whose multiplications are as many for
each instruction; with VNNI both gain two to four times.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import accelerate as contest
import field
import numpy as np
import plain_networks
import planned
import runtimes
import torch
import torch.nn.functional as F
from frame import OURS, Case, Contestant, measure
from kept import Kept
from rich.console import Console
from torch import Tensor, nn

import pointwise
from pointwise.costs.tables import milliseconds, table
from pointwise.engine.cpu.dots import DOTS
from pointwise.extras import import_extra
from pointwise.messages import first_line, rounded
from pointwise.timing.load import verdict_of

EAGER, ORT, OPENVINO = contest.EAGER, runtimes.ONNXRUNTIME, runtimes.OPENVINO
OURS_INT8, OURS_MIXED = "pointwise_int8", "pointwise_mixed"
ORT_INT8, OPENVINO_INT8 = "onnxruntime_int8", "openvino_int8"
IN_FLOAT = {OURS_INT8: OURS, OURS_MIXED: OURS, ORT_INT8: ORT, OPENVINO_INT8: OPENVINO}
NAMES = {
    **contest.NAMES,
    OURS: "accelerate",
    OURS_INT8: "accelerate, int8",
    OURS_MIXED: "accelerate, mixed",
    ORT_INT8: "ONNX Runtime, int8",
    OPENVINO_INT8: "OpenVINO, int8",
}
COMPARISON = "int8"
CALIBRATION = 64  # images
EPOCHS, BATCH = 8, 32


class Task(NamedTuple):
    """A network, images to calibrate on, and images to ask about, with labels if there are any."""

    network: nn.Module
    calibration: Tensor
    images: Tensor
    labels: Tensor | None = None


def main(
    json: Path | None = None,
    rounds: int = 7,
    quick: bool = False,
    only: str | None = None,
    resume: bool = False,
) -> None:
    """Measures the chosen cases one after the other; writes them to ``json`` if given."""
    console = Console(highlight=False)
    tasks = {"digits": partial(digits, quick)}
    if not quick:
        tasks |= {name: partial(at_random, contest.PLAIN[name])
                  for name in ("mobilenet_v2", "resnet50")}  # fmt: skip
    wanted = [*tasks] if only is None else planned.matching([*tasks], only)
    names = [name for name in tasks if name in wanted]
    kept = Kept(COMPARISON, json)
    missing = {
        who: why for who, why in runtimes.missing(inference=True, quick=True).items()
        if who != runtimes.COMPILE
    }  # fmt: skip
    for who, why in missing.items():
        console.print(f"without {NAMES[who]}: {why}")
    console.print(f"bytes are multiplied by {DOTS.title} here")
    if not has_vnni():
        console.print(_WITHOUT)
    for name in kept.missing(names, resume):
        record = measured(name, tasks[name](), min(rounds, 2) if quick else rounds, missing)
        kept.put(name, record)
        show(console, name, record)
    if quick:
        console.print(f"\n{planned.QUICK_NOTE}")


_WITHOUT = (
    "without VNNI int8 gains little over float32; ONNX Runtime's weights have 7 bits,\n"
    "as its guide asks for on such processors"
)


def has_vnni() -> bool:
    return "VNNI" in DOTS.title


# --- what is asked --------------------------------------------------------------------------------


def digits(quick: bool = False) -> Task:
    """A network that has learned handwritten digits."""
    found = import_extra("sklearn.datasets", "train").load_digits()
    images = torch.from_numpy(found.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    images = F.interpolate(images, size=(32, 32) if quick else (64, 64), mode="bilinear")
    labels = torch.from_numpy(found.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    asked, learned = order[: len(order) // 4], order[len(order) // 4 :]
    if quick:
        asked, learned = asked[:32], learned[:256]
    torch.manual_seed(0)
    network = plain_networks.mobilenet_v1(0.25 if quick else 0.5, 10)
    _train(network, images[learned], labels[learned], 1 if quick else EPOCHS)
    return Task(network, images[learned[:CALIBRATION]], images[asked], labels[asked])


def _train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    steps = -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, epochs * steps)
    network.train()
    for _ in range(epochs):
        for some in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(network(images[some]), labels[some]).backward()
            optimiser.step()
            schedule.step()
    network.eval()


def at_random(make: Callable[[], nn.Module]) -> Task:
    torch.manual_seed(0)
    network = plain_networks.settle(make(), torch.randn(4, 3, 224, 224)).eval()
    return Task(network, torch.randn(8, 3, 224, 224), torch.randn(8, 3, 224, 224))


# --- who answers ----------------------------------------------------------------------------------


def measured(name: str, task: Task, rounds: int, missing: dict[str, str]) -> dict[str, Any]:
    """Answers, errors and times of everyone, as JSON."""
    image = task.images[:1].clone()  # all read it, and what is asked is written into it
    seconds: dict[str, float] = {}
    why_not: dict[str, str] = {}
    runs: dict[str, Callable[[object], Any]] = {}
    answers: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory(prefix="pointwise-bench-") as place:
        for who, make in makers(task, image, Path(place)).items():
            if who in missing or IN_FLOAT.get(who) in missing:
                continue
            start = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    runs[who] = make()
                    seconds[who] = time.perf_counter() - start
                    answers[who] = _answers(runs[who], task.images, image)
            except Exception as error:  # everyone has kinds of their own
                runs.pop(who, None)
                why_not[who] = f"{type(error).__name__}: {first_line(error)}"
        image.copy_(task.images[:1])
        contestants = [Contestant(who, run, steady=True) for who, run in runs.items()]
        rows = {
            row.who: row
            for row in measure([Case(name, contestants, lambda _: None)], rounds)
        }  # fmt: skip
    found = {}
    for who, row in rows.items():
        base = rows.get(IN_FLOAT.get(who, ""))
        found[who] = {
            **{key: round(row.record([])[key], 4) for key in ("median_ms", "min_ms", "p95_ms")},
            "of_float": None if base is None else row.over(base).record(),
            "build_s": round(seconds[who], 3),
            **_compared(answers[EAGER], answers[who], task.labels),
        }
    return {
        "images": len(task.images),
        "inputs": ["×".join(map(str, image.shape))],
        "calibration": len(task.calibration),
        "instructions": DOTS.title,
        "weights": 8 if has_vnni() else 7,  # bits of ONNX Runtime's
        "openvino_by": "NNCF" if _has_nncf() else "ONNX Runtime's QDQ file",
        "busy": next(iter(rows.values())).busy,
        "who": found,
        "why_not": why_not,
    }


def makers(
    task: Task, image: Tensor, folder: Path
) -> dict[str, Callable[[], Callable[[object], Any]]]:
    """What builds each, in the order of the table; runtimes share files in the ``folder``."""
    model, batches = task.network, [*task.calibration.split(1)]

    def file() -> Path:
        path = folder / "model.onnx"
        if not path.exists():
            path.write_bytes(runtimes.onnx_file(model, image))
        return path

    def qdq() -> Path:
        path = folder / "qdq.onnx"
        if not path.exists():
            quantise(file(), path, batches)
        return path

    def ours(precision: str | None) -> Callable[[object], Any]:
        data = None if precision is None else batches
        return contest.infer(pointwise.accelerate(model, image, precision, data), (image,))

    def openvino_int8() -> Callable[[object], Any]:
        if _has_nncf():
            return by_nncf(file(), image, batches)
        return runtimes.by_openvino(qdq(), image)

    return {
        EAGER: lambda: contest.infer(model, (image,)),
        OURS: lambda: ours(None),
        OURS_INT8: lambda: ours("int8"),
        OURS_MIXED: lambda: ours("mixed"),
        ORT: lambda: runtimes.by_onnxruntime(file(), image),
        ORT_INT8: lambda: runtimes.by_onnxruntime(qdq(), image),
        OPENVINO: lambda: runtimes.by_openvino(file(), image),
        OPENVINO_INT8: openvino_int8,
    }


def quantise(source: Path, target: Path, batches: Sequence[Tensor]) -> None:
    """An ONNX file with static quantisation, as ONNX Runtime's guide recommends for this CPU."""
    quantization = import_extra("onnxruntime.quantization", "bench")
    shapes = import_extra("onnxruntime.quantization.shape_inference", "bench")
    prepared = target.with_name("prepared.onnx")
    name = import_extra("onnx", "bench").load(source).graph.input[0].name

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.feeds = ({name: x.numpy()} for x in batches)

        def get_next(self) -> Any:
            return next(self.feeds, None)

    with _hushed():
        shapes.quant_pre_process(source, prepared)
        quantization.quantize_static(
            prepared, target, Reader(), quant_format=quantization.QuantFormat.QDQ,
            per_channel=True, reduce_range=not has_vnni(),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8)  # fmt: skip


def by_nncf(source: Path, image: Tensor, batches: Sequence[Tensor]) -> Callable[[object], Any]:
    """An ONNX file quantised by NNCF as it comes, in OpenVINO."""
    nncf = import_extra("nncf", "bench")
    runtime = import_extra("openvino", "bench")
    with _hushed(), contextlib.redirect_stdout(io.StringIO()):  # which gets its progress
        model = nncf.quantize(
            runtime.Core().read_model(source), nncf.Dataset([x.numpy() for x in batches])
        )
    path = source.with_name("nncf.xml")
    runtime.save_model(model, path, compress_to_fp16=False)
    return runtimes.by_openvino(path, image)


def _has_nncf() -> bool:
    return importlib.util.find_spec("nncf") is not None


class _hushed:
    """Without what the quantisers log about themselves."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._before)


def _answers(run: Callable[[object], Any], images: Tensor, image: Tensor) -> Tensor:
    found = []
    for x in images.split(1):
        image.copy_(x)
        found.append(torch.as_tensor(np.array(run(None))))
    return torch.cat(found)


def _compared(right: Tensor, given: Tensor, labels: Tensor | None) -> dict[str, float | None]:
    """The relative error of scores, how often the best class is the same, and the right one."""
    best = given.argmax(1)
    error = (given.double() - right.double()).norm() / right.double().norm()
    return {
        "error": float(f"{error.item():.3g}"),
        "same_class": (best == right.argmax(1)).double().mean().item(),
        "accuracy": None if labels is None else (best == labels).double().mean().item(),
    }


# --- what is shown --------------------------------------------------------------------------------


def show(console: Console, name: str, record: dict[str, Any]) -> None:
    """What was found of one case, in 80 columns."""
    console.print(
        f"\n[bold]{name}[/]  {record['images']} images of {record['inputs'][0]}, calibrated on "
        f"{record['calibration']}"
    )
    rows = table("<", "ms", "of float32", "error", "same", "right", "build s")
    for who, found in record["who"].items():
        rows.add_row(
            NAMES[who], milliseconds(found["median_ms"]), _of_float(record, found),
            f"{100 * found['error']:.2g} %", _percent(found["same_class"]),
            _percent(found["accuracy"]), rounded(found["build_s"], 2))  # fmt: skip
    console.print(rows)
    for who, why in record["why_not"].items():
        console.print(f"not {NAMES[who]}: {why}", markup=False)
    console.print(
        "ms: median; of float32: the time over that of the same library in float32;\n"
        "error: of all scores; same, right: how often the best class is that of PyTorch,\n"
        "and the label"
    )
    if OPENVINO_INT8 in record["who"]:
        own = "" if _has_nncf() else "; for its own: pip install nncf"
        console.print(f"OpenVINO's int8 is by {record['openvino_by']}{own}")
    if record["busy"]:
        console.print(verdict_of(record["busy"]))


def _of_float(record: dict[str, Any], found: dict[str, Any]) -> str:
    if found["of_float"] is None:
        return ""
    return "–" if record["busy"] else str(field.ratio_of(found["of_float"]))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
