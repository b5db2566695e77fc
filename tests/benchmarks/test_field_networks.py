"""The networks that people bring are what they are in PyTorch, and run as kernels."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

import pointwise

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from field_networks import MODELS


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_all_calls_are_kernels(name):
    model, x = MODELS[name](64)
    faster = pointwise.accelerate(model, copy.deepcopy(x))
    with torch.no_grad():
        wanted = model(x)
    for given in (faster(x), faster(x.contiguous(memory_format=torch.channels_last))):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4 * scale)
    # What YOLO gives back is joined of lists of boxes, which are no images.
    assert {entry.what for entry in faster.reports()[-1].plain} <= {"aten.cat"}
