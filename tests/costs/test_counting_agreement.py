"""docs/counting.md: where torchinfo, fvcore and PyTorch's own counter agree with ours, and not."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pointwise import cost
from pointwise.networks import MobileNetV1, MobileNetV2, ResNet50

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import plain_networks

ROOT = Path(__file__).parents[2]
torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")
fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is not installed")

IMAGE = (1, 3, 224, 224)


class Attention(nn.Module):
    def forward(self, q):
        return F.scaled_dot_product_attention(q, q, q)


class Products(nn.Module):
    def forward(self, q):
        return torch.softmax(q @ q.transpose(-1, -2), -1) @ q


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 3, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight)


CASES = {
    "MobileNetV1 of plain modules": (plain_networks.mobilenet_v1, IMAGE),
    "MobileNetV2 of plain modules": (plain_networks.mobilenet_v2, IMAGE),
    "ResNet-50 of plain modules": (plain_networks.resnet50, IMAGE),
    "our MobileNetV1": (MobileNetV1, IMAGE),
    "our ResNet-50": (ResNet50, IMAGE),
    "`Conv2d(3, 64, 3, padding=1)`, with bias": (lambda: nn.Conv2d(3, 64, 3, padding=1), IMAGE),
    "`ConvTranspose2d(8, 4, 4, 2, 1)` on 10×10": (
        lambda: nn.ConvTranspose2d(8, 4, 4, 2, 1), (1, 8, 10, 10)),
    "`Linear(64, 10)` on 2×5 vectors": (lambda: nn.Linear(64, 10), (2, 5, 64)),
    "`BatchNorm2d(8)` on 10×10": (lambda: nn.BatchNorm2d(8), (1, 8, 10, 10)),
    "`LSTM(8, 16)`, 5 steps of 2": (lambda: nn.LSTM(8, 16), (5, 2, 8)),
    "`GRU(8, 16)`, 5 steps of 2": (lambda: nn.GRU(8, 16), (5, 2, 8)),
    "`scaled_dot_product_attention`, 2×4×50×16": (Attention, (2, 4, 50, 16)),
    "the same, of matrix products": (Products, (2, 4, 50, 16)),
    "`TransformerEncoderLayer(32, 4)`, 2×50 words": (
        lambda: nn.TransformerEncoderLayer(32, 4, batch_first=True), (2, 50, 32)),
    "a convolution as a function, 3 to 8 channels on 10×10": (Functional, (1, 3, 10, 10)),
}  # fmt: skip


def table() -> dict[str, list[str]]:
    """The rows of the table in the docs, by their first cell."""
    text = (ROOT / "docs/counting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    cells = [row.split(" | ") for row in rows]
    return {first: rest for first, *rest in cells if len(rest) == 4 and first != "model"}


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def by_torchinfo(model, x) -> int:
    return torchinfo.summary(model, input_data=x, verbose=0).total_mult_adds


def by_fvcore(model, x):
    analysis = fvcore.FlopCountAnalysis(model, x)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis


def by_pytorch(model, x) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


def test_the_table_has_every_case():
    assert set(table()) == set(CASES)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_table_is_true(name):
    make, shape = CASES[name]
    model, x = make().eval(), torch.rand(shape)
    try:
        traced = f"{by_fvcore(model, x).total():,}"
    except (ValueError, RuntimeError):
        traced = "fails"
    found = [
        f"{cost(model, shape).totals.multiply_adds:,}",
        f"{by_torchinfo(model, x):,}",
        traced,
        f"{by_pytorch(model, x):,}",
    ]
    assert found == table()[name]


@pytest.mark.parametrize(
    ("make", "ours"),
    [
        (plain_networks.mobilenet_v1, MobileNetV1),
        (plain_networks.mobilenet_v2, MobileNetV2),
        (plain_networks.resnet50, ResNet50),
    ],
)
@torch.no_grad()
def test_networks_agree_where_the_tools_are_right(make, ours):
    """Operator by operator and module by module, not only in total."""
    model, x = make().eval(), torch.rand(IMAGE)
    found = cost(model, IMAGE)
    kinds = found.by_kind()
    convolutions = sum(
        kinds[kind].multiply_adds for kind in ("standard", "depthwise", "pointwise")
        if kind in kinds
    )  # fmt: skip
    operators = by_fvcore(model, x).by_operator()
    assert operators["conv"] == convolutions
    assert operators["linear"] == kinds["linear"].multiply_adds
    assert operators["batch_norm"] == kinds["norm"].operations
    assert by_pytorch(model, x) == found.totals.multiply_adds
    summary = torchinfo.summary(model, input_data=x, verbose=0)
    assert summary.total_params == found.totals.parameters
    plain = {layer.path: layer.count.multiply_adds for layer in found.layers}
    names = {id(module): path for path, module in model.named_modules()}
    compared = 0
    for info in summary.summary_list:
        if isinstance(info.module, nn.Conv2d):  # without bias, and with images as results
            assert info.macs == plain[names[id(info.module)]]
            compared += 1
    assert compared > 25
    same = cost(ours(), IMAGE)
    assert same.totals.multiply_adds == found.totals.multiply_adds
    assert same.totals.parameters == found.totals.parameters
    for kind in ("standard", "depthwise", "pointwise", "linear", "norm"):
        assert same.by_kind().get(kind) == kinds.get(kind)
