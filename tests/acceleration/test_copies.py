"""Tensors put beside or into one another, along any dimension, are copied by kernels."""

from __future__ import annotations

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from random_networks import Then
from torch import Tensor, nn

WAYS = pytest.mark.parametrize("way", [exported, compiled])


def _boxes(x: Tensor) -> Tensor:
    """What a detector does behind its last convolutions."""
    levels = [x.flatten(2), x[:, :, ::2, ::2].flatten(2)]
    parts = [torch.cat((level.sigmoid(), level * 2), 1) for level in levels]
    return torch.cat(parts, 2)


def _written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1:3] = x[:, :2] * 2
    x[:, :, ::2] = 0.5
    x[:, 0] = x[:, 1].abs()
    return x


class Token(nn.Module):
    """A token before all others, as ViTs have it."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.norm = nn.Parameter(torch.randn(1, 1, 12)), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.norm(torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1))


CASES = {
    "boxes": _boxes,
    "rows": lambda x: torch.cat((x.relu(), x, x.abs()), 2),
    "columns": lambda x: torch.cat((x.relu(), x[..., :3]), -1),
    "images": lambda x: torch.cat((x, x.relu()), 0),
    "stacked": lambda x: torch.stack((x, x.relu()), 1),
    "of two orders": lambda x: torch.cat((x.flatten(2), x.relu().contiguous().flatten(2).mT.mT), 1),
    "written to": _written,
    "rolled, channels last": lambda x: x.permute(0, 2, 3, 1).roll((1, -2), (1, 2)).relu(),
    "turned, channels last": lambda x: x.permute(0, 2, 3, 1).flip(2).mul(0.5),
    "rolled rows of channels": lambda x: x.permute(0, 2, 3, 1).roll((1, 2), (1, 3)).relu(),
}


@WAYS
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name, way):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), Then(CASES[name])).eval()
    faster = way(model, torch.randn(2, 3, 9, 8))
    for sizes in ((2, 3, 9, 8), (1, 3, 9, 8), (3, 3, 5, 11)):
        x = torch.randn(sizes)
        assert_as_eager(model, faster, x)
        assert_as_eager(model, faster, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("name", ["boxes", "rows", "columns", "written to",
                                  "rolled, channels last"])  # fmt: skip
def test_by_kernels(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), Then(CASES[name])).eval()
    x = torch.randn(2, 3, 9, 8)
    faster = exported(model, x)
    faster(x)
    assert not faster.reports()[-1].plain, faster.reports()[-1]


@WAYS
def test_constants_among_them(way):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), Token()).eval()
    faster = way(model, torch.randn(2, 3, 9, 8))
    for count in (1, 2, 3):
        assert_as_eager(model, faster, torch.randn(count, 3, 9, 8))
    if way is exported:
        report = faster.reports()[-1]
        assert not report.plain, report
