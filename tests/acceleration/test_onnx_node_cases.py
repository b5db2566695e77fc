"""ONNX's own tests of its operators: what is read gives ONNX's results, the rest is refused."""

from __future__ import annotations

import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointwise.onnx.file import read
from pointwise.onnx.operators import OPERATORS

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

# As ONNX Runtime has it, which takes the size that the scale is rounded to.
OTHERWISE = {"test_resize_downsample_scales_linear_align_corners"}
# Which ONNX tests in forms only that PyTorch does not have, or with results that are not read.
NO_FORM = {"GRU", "LayerNormalization"}
_TYPES = {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    node = pytest.importorskip("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = node.collect_testcases(None)
    known = [case for case in found if {n.op_type for n in case.model.graph.node} <= set(OPERATORS)]
    return [case for case in known if case.data_sets]


def _read(case: Any, path: Path) -> tuple[Any, int] | None:
    """The network and how many inputs it has; all but the first may have to be constants."""
    model = case.model
    for count in (len(model.graph.input), 1):
        onnx.save(model, path)
        with suppress(ValueError):
            return read(path)[0], count
        if len(case.data_sets) > 1:
            return None
        model = onnx.ModelProto.FromString(model.SerializeToString())
        given = list(zip(model.graph.input, case.data_sets[0][0], strict=True))
        if not all(isinstance(array, (np.ndarray, np.generic)) for _, array in given):
            return None  # a type that numpy does not have
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(array), value.name)
            for value, array in given[1:]
        )
    return None


def _is_of_numbers(array: Any) -> bool:
    return isinstance(array, (np.ndarray, np.generic)) and array.dtype.name in _TYPES


@torch.no_grad()
def test_every_operator_as_onnx_itself_tests_it(cases, tmp_path):
    right: Counter[str] = Counter()
    wrong = []
    for case in cases:
        found = _read(case, tmp_path / "case.onnx")
        if found is None:
            continue
        network, count = found
        for inputs, outputs in case.data_sets:
            if not all(map(_is_of_numbers, (*inputs[:count], *outputs))):
                continue
            try:
                results = network(*(torch.from_numpy(np.array(x)) for x in inputs[:count]))
            except (RuntimeError, IndexError):  # PyTorch has no such sum: it says so
                continue
            results = results if isinstance(results, tuple) else (results,)
            if all(map(_is_same, results, outputs)):
                right.update({node.op_type for node in case.model.graph.node})
            elif case.name not in OTHERWISE:
                wrong.append(case.name)
    assert wrong == []
    tested = {node.op_type for case in cases for node in case.model.graph.node}
    assert tested - set(right) == NO_FORM
    assert sum(right.values()) > 1500


def _is_same(result: torch.Tensor, wanted: Any) -> bool:
    one, other = result.numpy(), np.asarray(wanted)
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
