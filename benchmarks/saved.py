"""``pointwise bench saved``: from a saved model in a fresh process to the first result.

    pointwise bench saved --json saved.json
    pointwise bench saved --models mobilenet_v2 --rounds 10

Models are those of ``bench accelerate --models``, by the same names; without, MobileNetV2,
ResNet-50 and a U-Net. Each is saved by everyone in a form of its own, and then read and run once by
fresh processes (``first_result.py``), which take turns. What is timed is from the start of the
process to the result, Python and all imports included; files and kernels are in the system's cache
by then, as everyone has run once before. Results are compared with eager PyTorch's.

Who: ``pointwise`` is an accelerated model of ``torch.save``; ``torch_eager`` the pickled model;
``aotinductor`` a package of ``torch.export`` and ``aoti_compile_and_package``, read as PyTorch says
(``aoti_load_package``), and ``aotinductor_loader`` the same by its private loader alone, which
imports less; ``onnxruntime`` the ONNX file; ``openvino`` its own form of that, in float32, and
``openvino_cache`` the same with a folder for what it has compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate as contest
import field
import numpy as np
import runtimes
import torch
from first_result import WHO
from frame import OURS, progress
from kept import Kept
from planned import QUICK_NOTE
from rich.console import Console
from torch import Tensor, nn

import pointwise
from pointwise.costs.tables import table
from pointwise.extras import import_extra
from pointwise.messages import first_line, rounded
from pointwise.timing import Times, Watch, ratio
from pointwise.timing.load import verdict_of

USUAL, QUICK = "mobilenet_v2,resnet50,unet", "espcn"
COMPARISON = "saved"
NAMES = {
    OURS: "accelerate",
    "torch_eager": "PyTorch, pickled",
    "aotinductor": "AOTInductor",
    "aotinductor_loader": "AOTInductor, loader",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino_cache": "OpenVINO, cached",
}
# Files of each, in the folder of a model; what is compiled for ours is of the machine, not of it.
FILES = {
    OURS: "pointwise.pt*",
    "torch_eager": "torch_eager.pt*",
    "aotinductor": "aotinductor.pt2*",
    "aotinductor_loader": "aotinductor.pt2*",
    "onnxruntime": "onnxruntime.onnx*",
    "openvino": "openvino.*",
    "openvino_cache": "openvino[._]*",
}


def main(
    json: Path | None = None,
    rounds: int = 7,
    quick: bool = False,
    only: str | None = None,
    models: str | None = None,
    resume: bool = False,
) -> None:
    """Measures the chosen models one after the other; writes them to ``json`` if given."""
    if only is not None:
        raise ValueError("bench: saved takes its models from --models, not from --only")
    console = Console(highlight=False)
    kinds = field.chosen(models or (QUICK if quick else USUAL), quick)
    kept = Kept(COMPARISON, json)
    missing = lacking(quick)
    for who, why in missing.items():
        console.print(f"without {NAMES[who]}: {why}")
    for name in kept.missing(kinds, resume):
        record = measured(kinds[name], min(rounds, 2) if quick else rounds, missing)
        kept.put(name, record)
        show(console, name, record)
    if quick:
        console.print(f"\n{QUICK_NOTE}")


def lacking(quick: bool) -> dict[str, str]:
    """Who takes no part here, and why. AOTInductor needs a C++ compiler, as torch.compile does."""
    found = runtimes.missing(inference=True, quick=quick)
    compiler = found.pop(runtimes.COMPILE, None)
    if compiler is not None:
        found |= dict.fromkeys(("aotinductor", "aotinductor_loader"), compiler)
    if "openvino" in found:
        found["openvino_cache"] = found["openvino"]
    return found


def measured(
    make: Callable[[], field.Made], rounds: int, missing: dict[str, str]
) -> dict[str, Any]:
    """What is known of a model and everyone who has saved it, as JSON."""
    torch.manual_seed(0)
    model, given = make()
    (x,) = given if isinstance(given, tuple) else (given,)
    with torch.no_grad():
        right = model(x)
    with tempfile.TemporaryDirectory(prefix="pointwise-bench-") as place:
        folder = Path(place)
        np.save(folder / "input.npy", x.numpy())
        seconds, why_not = saved(model, x, folder, missing)
        errors: dict[str, float] = {}
        for who in [who for who in WHO if who not in missing and who not in why_not]:
            try:
                first_result(who, folder)  # which fills caches
                found = torch.from_numpy(np.load(folder / f"{who}.npy"))
            except (RuntimeError, OSError) as error:
                why_not[who] = first_line(error)
                continue
            errors[who] = contest.difference(right, found)
            if not errors[who] <= contest.TOLERANCE:
                why_not[who] = f"it differs from PyTorch by {errors.pop(who):.2g}"
        times, busy = in_turns(list(errors), folder, rounds)
        sizes = {who: _megabytes(folder, FILES[who]) for who in errors}
    return {
        "inputs": ["×".join(map(str, x.shape))],
        "busy": busy,
        "who": {
            who: {
                "median_s": round(each.median / 1e3, 4),
                "min_s": round(each.min / 1e3, 4),
                "p95_s": round(each.p95 / 1e3, 4),
                "ratio": ratio(each, times[OURS]).record() if OURS in times else None,
                "size_mb": sizes[who],
                "build_s": seconds.get(who),
                "error": errors[who],
            }
            for who, each in times.items()
        },
        "why_not": why_not,
    }


def saved(
    model: nn.Module, x: Tensor, folder: Path, missing: dict[str, str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Saves a model in everyone's form: the seconds of each, and why some cannot."""
    seconds: dict[str, float] = {}
    why_not: dict[str, str] = {}
    for who, save in _SAVED.items():
        if who in missing:
            continue
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                save(model, x, folder)
        except Exception as error:  # everyone has kinds of their own
            others = [other for other in WHO if FILES[other] == FILES[who] or who in other]
            why_not |= dict.fromkeys(others, f"{type(error).__name__}: {first_line(error)}")
        seconds[who] = round(time.perf_counter() - start, 3)
    return seconds, why_not


def _ours(model: nn.Module, x: Tensor, folder: Path) -> None:
    torch.save(pointwise.accelerate(model, x), folder / "pointwise.pt")


def _eager(model: nn.Module, x: Tensor, folder: Path) -> None:
    torch.save(model, folder / "torch_eager.pt")


def _aotinductor(model: nn.Module, x: Tensor, folder: Path) -> None:
    package = folder / "aotinductor.pt2"
    torch._inductor.aoti_compile_and_package(
        torch.export.export(model, (x,)), package_path=str(package)
    )


def _onnx(model: nn.Module, x: Tensor, folder: Path) -> None:
    (folder / "onnxruntime.onnx").write_bytes(runtimes.onnx_file(model, x))


def _openvino(model: nn.Module, x: Tensor, folder: Path) -> None:
    runtime = import_extra("openvino", "bench")
    source = folder / "onnxruntime.onnx"
    if not source.exists():
        _onnx(model, x, folder)
    read = runtime.Core().read_model(source)
    runtime.save_model(read, folder / "openvino.xml", compress_to_fp16=False)


_SAVED: dict[str, Callable[[nn.Module, Tensor, Path], None]] = {
    OURS: _ours,
    "torch_eager": _eager,
    "aotinductor": _aotinductor,
    "onnxruntime": _onnx,
    "openvino": _openvino,
}


def first_result(who: str, folder: Path) -> float:
    """Seconds from the start of a process to its result."""
    script = Path(__file__).with_name("first_result.py")
    command = [sys.executable, str(script), who, str(folder), str(torch.get_num_threads())]
    # As installed packages are: with modules that are compiled to bytecode.
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = ""
        for said in process.stdout:
            if said == "result\n":
                break
        seconds = time.perf_counter() - start
        _, errors = process.communicate()
    if said != "result\n" or process.returncode:
        lines = errors.strip().splitlines() or [f"exit status {process.returncode}"]
        raise RuntimeError(lines[-1])
    return seconds


def in_turns(who: list[str], folder: Path, rounds: int) -> tuple[dict[str, Times], str]:
    """Milliseconds of each in ``rounds`` rounds, and why they cannot be trusted if so."""
    taken: dict[str, list[float]] = {each: [] for each in who}
    with Watch() as watch, progress(Console(), "timing", rounds) as advance:
        for number in range(rounds):
            for place in range(len(who)):
                each = who[(number + place) % len(who)]
                taken[each].append(1e3 * first_result(each, folder))
            advance()
    times = {each: Times(tuple(found)) for each, found in taken.items()}
    return times, watch.busy(*times.values())


def _megabytes(folder: Path, pattern: str) -> float:
    files = [
        file for path in folder.glob(pattern) for file in (path, *path.rglob("*")) if file.is_file()
    ]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def show(console: Console, name: str, record: dict[str, Any]) -> None:
    """What was found of one model, in 80 columns."""
    console.print(f"\n[bold]{name}[/]  {', '.join(record['inputs'])}: seconds to a first result")
    rows = table("<", "least", "median", "over ours", "MB", "to save, s")
    for who, found in record["who"].items():
        over = found["ratio"] is not None and who != OURS and not record["busy"]
        rows.add_row(
            NAMES[who], *(f"{found[key]:.2f}" for key in ("min_s", "median_s")),
            str(field.ratio_of(found["ratio"])) if over else "–" if record["busy"] else "",
            f"{found['size_mb']:.1f}",
            "" if found["build_s"] is None else rounded(found["build_s"], 2))  # fmt: skip
    console.print(rows)
    for who, why in record["why_not"].items():
        console.print(f"not {NAMES[who]}: {why}", markup=False)
    if record["busy"]:
        console.print(verdict_of(record["busy"]))
