"""Attention in accelerated models: PyTorch's own call, and what models write out by hand."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, compiled, exported
from torch import nn

from pointwise.acceleration import reports

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import field_attention
import field_mobile

WAYS = [compiled, exported]


class Heads(nn.Module):
    """``attend(q, k, v, *more)`` of two heads with eight channels each."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.attend, self.qkv, self.last = attend, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x, *more):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.last(self.attend(q, k, v, *more).transpose(1, 2).flatten(2))


def _by_hand(change=lambda scores, *more: scores):
    def attend(q, k, v, *more):
        return change(q @ k.transpose(2, 3), *more).softmax(-1) @ v

    return attend


def _shared(q, k, v):
    return F.scaled_dot_product_attention(q, k[:, :1], v[:, 1:], enable_gqa=True)


def _of_windows(scores, mask):
    scores = scores.view(scores.shape[0] // 2, 2, 2, 7, 7) + mask[:, None]
    return scores.view(-1, 2, 7, 7)


def _of_rows(seen):
    return torch.where(seen, 0.0, -math.inf)


torch.manual_seed(0)
SEEN = torch.rand(7, 7) < 0.7
SEEN[:, 2] = True
NOTHING = SEEN.clone()
NOTHING[3] = False
x = torch.randn(4, 7, 16)
sdpa = F.scaled_dot_product_attention

CASES = {
    "named": (sdpa, x),
    "one token": (sdpa, x[:, :1]),
    "a scale": (lambda q, k, v: sdpa(q, k, v, scale=0.7), x),
    "causal": (lambda q, k, v: sdpa(q, k, v, is_causal=True), x),
    "fewer queries": (lambda q, k, v: sdpa(q[:, :, :3], k, v), x),
    "fewer keys": (lambda q, k, v: sdpa(q, k[:, :, :3], v[:, :, :3], is_causal=True), x),
    "a mask": (sdpa, x, _of_rows(SEEN)),
    "a mask of images": (sdpa, x, torch.randn(4, 1, 7, 7)),
    "a mask of keys": (sdpa, x, torch.randn(4, 1, 1, 7)),
    "a mask of bools": (sdpa, x, SEEN),
    "queries that see nothing": (sdpa, x, NOTHING),
    "none at all": (sdpa, x, _of_rows(NOTHING)),
    "heads that share keys": (_shared, x),
    "by hand": (_by_hand(), x),
    "by hand, scaled": (_by_hand(lambda s: 0.5 * s / 3), x),
    "by hand, queries scaled": (lambda q, k, v: (q * 0.3 @ (k / 2).mT).softmax(3) @ v, x),
    "by hand, permuted": (lambda q, k, v: (q @ k.permute(0, 1, 3, 2)).softmax(3) @ v, x),
    "by hand, a bias": (_by_hand(lambda s, b: s * 0.5 + b), x, torch.randn(2, 7, 7)),
    "by hand, a bias first": (_by_hand(lambda s, b: b + s), x, torch.randn(4, 2, 7, 7)),
    "by hand, a bias and a mask": (
        _by_hand(lambda s, b, m: s + b + m), x, torch.randn(2, 7, 7), _of_rows(SEEN)),
    "by hand, three terms": (
        _by_hand(lambda s, b, m, n: s + b + m + n), x, torch.randn(2, 7, 7), torch.randn(7, 7),
        torch.randn(7)),
    "by hand, scaled in the end": (
        _by_hand(lambda s, b: (s + b) * 0.5), x, torch.randn(2, 7, 7)),
    "by hand, filled": (_by_hand(lambda s, m: s.masked_fill(~m, -math.inf)), x, SEEN),
    "by hand, nothing is seen": (_by_hand(lambda s, m: s.masked_fill(~m, -math.inf)), x, NOTHING),
    "by hand, filled with less": (_by_hand(lambda s, m: s.masked_fill(~m, -9.0)), x, SEEN),
    "by hand, chosen": (_by_hand(lambda s, m: torch.where(m, s, -math.inf)), x, SEEN),
    "by hand, in windows": (_by_hand(_of_windows), x, torch.randn(2, 7, 7)),
    "scores that others read": (lambda q, k, v: (s := q @ k.mT).softmax(3) @ v + s.mean(), x),
    "a softmax over queries": (lambda q, k, v: (q @ k.mT).softmax(2) @ v, x),
    "in float64": (sdpa, x.double(), torch.randn(7, 7).double()),
    "queries as weights": (lambda q, k, v: sdpa(torch.ones(2, 7, 8), k, v), x),
}  # fmt: skip
LEFT = {"scores that others read", "a softmax over queries", "by hand, filled with less",
        "by hand, scaled in the end", "by hand, three terms"}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_calls(case, way):
    attend, *inputs = CASES[case]
    torch.manual_seed(0)
    model = Heads(attend).eval().to(inputs[0].dtype)
    faster = way(model, *inputs)
    assert_as_eager(model, faster, *inputs)
    for report in reports() if way is compiled else faster.reports():
        assert not report.why
        kernels = [entry.what for entry in report.fused]
        assert kernels.count("attention") == (case not in LEFT)
        known = ("attention", "matmul", "bmm", "softmax")
        assert not [entry for entry in report.plain if any(name in entry.what for name in known)]


def test_masks_that_are_constants():
    torch.manual_seed(0)
    model = Heads(lambda q, k, v: sdpa(q, k, v, model.seen)).eval()
    model.register_buffer("seen", NOTHING)
    faster = exported(model, x)
    assert_as_eager(model, faster, x)
    (report,) = faster.reports()
    assert not report.plain


@pytest.mark.parametrize(
    ("attend", "why"),
    [(lambda q, k, v: sdpa(q, k, v, dropout_p=0.0).bfloat16().float(), ""),
     (lambda q, k, v: sdpa(q.bfloat16(), k.bfloat16(), v.bfloat16()).float(), "PyTorch's own")],
)  # fmt: skip
def test_what_is_left_to_pytorch(attend, why):
    model = Heads(attend).eval()
    faster = exported(model, x)
    with torch.no_grad():
        torch.testing.assert_close(faster(x), model(x), rtol=0.02, atol=0.02)
    (report,) = faster.reports()
    found = [entry.why for entry in report.plain if "attention" in entry.what]
    assert found == ([why] if why else [])


@pytest.mark.parametrize("way", WAYS)
def test_layers_of_pytorch(way):
    torch.manual_seed(0)
    model = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True, norm_first=True).eval()
    inputs = x, torch.randn(4, 5, 16)
    faster = way(model, *inputs)
    assert_as_eager(model, faster, *inputs)
    (report,) = reports() if way is compiled else faster.reports()
    assert [entry.what for entry in report.fused].count("attention") == 2


MODELS = {
    "vit": (lambda: field_attention.ViT(48, 64, 2, 2), (3, 48, 48), 2),
    "swin": (lambda: field_attention.Swin(224, 24, 7), (3, 224, 224), 12),
    "fastvit": (lambda: field_mobile.Attention(64), (64, 7, 5), 1),
    # Its heads are mixed between scores and softmax: two products, and no single call.
    "efficientformer": (lambda: field_mobile.Mixed(48, 35, 4, 16), (48, 7, 5), 0),
}


@pytest.mark.filterwarnings("ignore:accelerate. this model cuts its inputs")
@pytest.mark.parametrize("name", MODELS)
def test_networks_leave_nothing_to_pytorch(name):
    torch.manual_seed(0)
    make, shape, count = MODELS[name]
    model = make().eval()
    image = torch.randn(1, *shape)
    faster = exported(model, image)
    assert_as_eager(model, faster, image)
    assert_as_eager(model, faster, torch.randn(3, *shape))
    for report in faster.reports():
        assert not report.why
        assert not report.plain, str(report)
        kernels = [entry.what for entry in report.fused]
        assert kernels.count("attention") == count
        assert kernels.count("aten.matmul") == (0 if count else 2)


@pytest.mark.parametrize("case", ["causal", "a mask of bools", "by hand, in windows"])
def test_it_is_saved(case):
    attend, *inputs = CASES[case]
    torch.manual_seed(0)
    model = Heads(attend).eval()
    read = pickle.loads(pickle.dumps(exported(model, *inputs)))
    assert_as_eager(model, read, *inputs)
    for report in read.reports():
        assert "attention" in [entry.what for entry in report.fused]
