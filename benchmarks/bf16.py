"""``pointwise bench bf16``: networks whose products are of bfloat16, beside float32.

``resnet50_b8`` is the network on eight images of 224 × 224 pixels; weights and images are random.
Processors with AVX512-BF16 only: elsewhere the command says so and ends.

Who: ``pointwise`` is ``pointwise.accelerate`` in float32, ``pointwise_bf16`` the same with
``precision="bf16"``, ``torch_bf16`` the model in bfloat16 and channels_last as PyTorch runs it,
``torch_compile_bf16`` that one compiled, ``openvino_bf16`` the ONNX file with bfloat16 as the
inference precision. ``onnxruntime`` has no bfloat16 on CPUs and runs in float32. Before anything is
timed, everyone's scores are compared with PyTorch's in float32: √(Σ(other − float32)² / Σ float32²)
may be twice what PyTorch's own bfloat16 has, which is 10 to 30 % with weights at random.
The limit is that of multiply-adds in float32, of which products of bfloat16 make up to twice as
many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import accelerate as contest
import plain_networks
import planned
import runtimes
import torch
from frame import OURS, Case, Contestant
from planned import Planned
from torch import Tensor, nn

import pointwise
from pointwise.engine.cpu.pairs import WHY_NOT

BATCHES = (1, 8)
TIMES_PYTORCH = 2
OURS_BF16, PYTORCH = f"{OURS}_bf16", "torch_bf16"
COMPILED, OPENVINO = f"{runtimes.COMPILE}_bf16", f"{runtimes.OPENVINO}_bf16"
NAMES = {
    OURS_BF16: "pointwise, bf16",
    PYTORCH: "PyTorch, bf16",
    COMPILED: "torch.compile, bf16",
    OPENVINO: "OpenVINO, bf16",
}


def main(
    json: Path | None = None, rounds: int = 7, quick: bool = False, only: str | None = None
) -> None:
    """Times the chosen cases and prints a table; writes it to ``json`` if given."""
    if WHY_NOT is not None:
        raise ValueError(f"bench: bf16 has nothing to time on this processor: {WHY_NOT}")
    missing = runtimes.missing(inference=True, quick=quick)
    notes = [f"without {who}: {reason}" for who, reason in missing.items()]
    planned.run(plan(frozenset(missing), quick), json, rounds, quick, only, notes)


def plan(missing: frozenset[str] = frozenset(), quick: bool = False) -> list[Planned]:
    """All cases, in the order of the table, without those of the peers that are ``missing``."""
    if quick:
        make = partial(plain_networks.mobilenet_v1, 0.25, 10)
        return [Planned("mobilenet_v1_b1", partial(case, "mobilenet_v1_b1", make, 1, 32, missing))]
    return [
        Planned(f"{name}_b{batch}", partial(case, f"{name}_b{batch}", make, batch, 224, missing))
        for name, make in contest.PLAIN.items()
        for batch in BATCHES
    ]


def case(
    name: str, make: Callable[[], nn.Module], batch: int, size: int,
    missing: frozenset[str] = frozenset(),
) -> Case:  # fmt: skip
    """A network on ``batch`` images of ``size`` pixels along both sides, with weights at random."""
    model, images, expected, work = contest.job(make, batch, size)
    runs = _runs(model, images, missing)
    contestants = [Contestant(who, run, steady=True) for who, run in runs.items()]
    return Case(name, contestants, partial(same, expected), *work)


def _runs(
    model: nn.Module, images: Tensor, missing: frozenset[str]
) -> dict[str, Callable[[object], Any]]:
    half = contest.in_channels_last(copy.deepcopy(model).bfloat16(), (images.bfloat16(),))
    runs = {
        OURS: contest.infer(pointwise.accelerate(model, images), (images,)),
        OURS_BF16: contest.infer(pointwise.accelerate(model, images, precision="bf16"), (images,)),
        PYTORCH: contest.infer(*half),
    }
    if runtimes.COMPILE not in missing:
        runs[COMPILED] = contest.infer(runtimes.compiled(half[0]), half[1])
    engines = {runtimes.ONNXRUNTIME, runtimes.OPENVINO} - missing
    file = runtimes.onnx_file(model, images) if engines else b""
    if runtimes.ONNXRUNTIME in engines:
        runs[runtimes.ONNXRUNTIME] = runtimes.by_onnxruntime(file, images)
    if runtimes.OPENVINO in engines:
        runs[OPENVINO] = runtimes.by_openvino(file, images, "bf16")
    return runs


def same(expected: Tensor, results: dict[str, Any]) -> str | None:
    """What is wrong with results, whose errors are to be about those of PyTorch in bfloat16."""
    errors = {
        who: ((torch.as_tensor(result).float() - expected).norm() / expected.norm()).item()
        for who, result in results.items()
    }
    for who, error in errors.items():
        if not error <= TIMES_PYTORCH * errors[PYTORCH]:
            return (
                f"{who} is {100 * error:.1f} % away from PyTorch in float32, and PyTorch in "
                f"bfloat16 {100 * errors[PYTORCH]:.1f} %"
            )
    return None


if __name__ == "__main__":
    import typer

    typer.run(main)
