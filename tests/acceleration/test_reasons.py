"""Where nothing runs as a kernel, one warning for each reason says so, and so do the reports."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from both_ways import compiled
from random_networks import settle
from torch import Tensor, nn

import pointwise
from pointwise.acceleration import plans, reports
from pointwise.acceleration.compiled import Compiled
from pointwise.acceleration.module import Accelerated


class Own(Tensor):
    pass


class Choice(nn.Module):
    """Control flow inside of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (self.conv(x),))


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4).to_sparse_csr(), requires_grad=False)

    def forward(self, x):
        return self.weight @ x


def stem() -> nn.Module:
    return settle(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))


X = torch.rand(2, 3, 8, 8)
CASES = [
    (stem, torch._neg_view(X), "conjugated or negated"),
    (lambda: stem().to("meta"), X.to("meta"), "an input on meta"),
    (lambda: stem().bfloat16(), X.bfloat16(), r"computes in torch\.bfloat16"),
    (lambda: stem().half(), X.half(), r"computes in torch\.float16"),
    (lambda: nn.Embedding(5, 3).eval(), torch.zeros(2, dtype=torch.int64), "aten.embedding"),
    (lambda: Choice().eval(), X, "control flow"),
]


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    plans._warned.clear()


@pytest.mark.parametrize(("make", "x", "why"), CASES, ids=[why for *_, why in CASES])
def test_compiled(make, x, why):
    faster = compiled(make())
    with torch.no_grad():
        with pytest.warns(UserWarning, match=f"runs as plain PyTorch: .*{why}"):
            faster(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            faster(x)  # said already
    (report,) = reports()
    assert not report.fused
    assert re.search(why, report.why)
    assert str(report).startswith("all as plain PyTorch: ")


def test_a_second_reason_is_heard_too():
    model = stem()
    faster = compiled(model)
    with pytest.warns(UserWarning, match="gradients are wanted"):
        faster(X)
    model.train()
    with torch.no_grad(), pytest.warns(UserWarning, match="in training mode"):
        faster(X)
    model.eval()
    with torch.no_grad(), pytest.warns(UserWarning, match="conjugated or negated"):
        faster(torch._neg_view(X))
    found = [report.why for report in reports()]
    assert len(found) == 3
    assert {why.partition(";")[0] for why in found} == {
        "gradients are wanted",
        "the model is in training mode",
        "an input that is to be conjugated or negated",
    }


def test_accelerated_models_say_so_as_well():
    model = stem()
    faster = pointwise.accelerate(model, X)
    assert isinstance(faster, Accelerated)
    with torch.no_grad(), pytest.warns(UserWarning, match="Own is no plain tensor"):
        faster(X.as_subclass(Own))
    assert [report.why for report in faster.reports()] == ["Own is no plain tensor", ""]
    with pytest.raises(ValueError, match="do not fit"):  # also where there is no plan
        faster(torch.rand(2, 4, 8, 8).as_subclass(Own))
    with pytest.warns(UserWarning, match=r"computes in torch\.float16"):
        half = pointwise.accelerate(stem().half(), X.half())
    assert "float16" in half.reports()[0].why


def test_what_is_not_traced_says_so():
    with pytest.warns(
        UserWarning, match=r"compiled in pieces with torch\.compile instead; it said"
    ):
        faster = pointwise.accelerate(Sparse().eval(), torch.rand(4, 3))
    assert isinstance(faster, Compiled)
    with pytest.warns(UserWarning, match=r"torch\.compile made no graph of it"):
        faster(torch.rand(4, 3))
    assert [report.why for report in faster.reports()] == ["torch.compile made no graph of it"]


def test_nothing_is_said_where_kernels_run():
    model = stem()
    faster = compiled(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        faster(X)
    assert [report.why for report in reports()] == [""]


def test_an_example_that_is_no_number_is_traced_all_the_same():
    x = X.clone()
    x[0, 0, 0, 0] = float("nan")
    assert isinstance(pointwise.accelerate(stem(), x), Accelerated)
