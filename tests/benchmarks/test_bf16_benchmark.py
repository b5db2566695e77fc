"""``pointwise bench bf16``: errors are held against PyTorch's own, and other processors refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bf16

from pointwise.engine.cpu.pairs import WHY_NOT


def test_errors_may_be_twice_those_of_pytorch_in_bfloat16():
    expected = torch.ones(1, 4)
    results = {"torch_bf16": expected * 1.01, "pointwise_bf16": expected * 1.019}
    assert bf16.same(expected, results) is None
    results["pointwise_bf16"] = expected * 1.03
    assert bf16.same(expected, results) == (
        "pointwise_bf16 is 3.0 % away from PyTorch in float32, and PyTorch in bfloat16 1.0 %"
    )
    results["pointwise_bf16"] = expected * float("nan")
    assert "pointwise_bf16 is nan" in str(bf16.same(expected, results))


def test_a_processor_without_such_products_is_told(monkeypatch):
    monkeypatch.setattr(bf16, "WHY_NOT", "products of bfloat16 need AVX512-BF16")
    with pytest.raises(ValueError, match="nothing to time on this processor: products of bfloat16"):
        bf16.main(quick=True)


@pytest.mark.slow
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_quick_run_has_a_row_for_each(tmp_path, capsys):
    bf16.main(json=tmp_path / "bf16.json", quick=True)
    out = capsys.readouterr().out
    assert all(who in out for who in ("pointwise_bf16", "torch_bf16", "mobilenet_v1_b1"))
    assert (tmp_path / "bf16.json").is_file()
