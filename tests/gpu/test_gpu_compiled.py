"""What Triton's interpreter cannot tell: kernels compile for GPUs, and fit onto them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "ahead_of_time.py"
KERNELS = {
    "cells._find_bounds",
    "points._mixed",
    "points._gathered",
    "points._separable",
    "points_gradient._of_mixed",
    "points_gradient._of_depthwise",
}
TYPES = {"float64", "float32", "bfloat16", "float16"}
SHARED = 99 * 1024  # what a program may have of it on compute capability 8.6 and 8.9, the least
SPILLED = 160  # bytes of a thread's registers that go through memory: some, where products unroll


@pytest.mark.slow
def test_every_kernel_compiles_for_every_type():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "80", "90", "--only", "cell"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(each["kernel"], each["type"], each["target"]) for each in found} == {
        (kernel, type, target)
        for kernel in KERNELS
        for type in (TYPES if "bounds" not in kernel else {"int32"})
        for target in (80, 90)
    }
    for each in found:
        assert each["shared"] <= SHARED, each
        assert each["spilled"] <= SPILLED, each
