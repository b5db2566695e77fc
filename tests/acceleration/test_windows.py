"""Models that cut images into windows are traced for one size of image, and any number of them."""

from __future__ import annotations

import warnings

import pytest
import torch
from both_ways import assert_as_eager, exported
from torch import Tensor, nn

from pointwise.acceleration.windows import cuts_windows, divided


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ((2, 56, 56, 96), (2, 8, 7, 8, 7, 96), 2),  # into windows
        ((1, 56, 56, 96), (1, 8, 7, 8, 7, 96), 2),
        ((128, 49, 96), (2, 8, 8, 7, 7, 96), 2),  # and back
        ((128, 49, 288), (128, 49, 3, 3, 32), 1),  # queries, keys and values
        ((2, 12, 8, 8), (2, 3, 4, 8, 8), 1),
        ((2, 3, 49, 49), (6, 49, 49), 0),
        ((2, 3), (2, 3), 0),
    ],
)
def test_dimensions_that_a_view_divides(before, after, wanted):
    assert divided(before, after) == wanted


class Windows(nn.Module):
    """Shifted windows, mixed each, several times; as Swin does."""

    def __init__(self, depth: int, size: int = 2) -> None:
        super().__init__()
        self.size = size
        self.mixes = nn.ModuleList(nn.Linear(size * size, size * size) for _ in range(depth))
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        k = self.size
        x = x.permute(0, 2, 3, 1)
        for i, mix in enumerate(self.mixes):
            y = self.norm(x).roll((-(i % 2), -(i % 2)), (1, 2))
            y = y.view(n, h // k, k, w // k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, k * k, c)
            y = mix(y.transpose(1, 2)).softmax(-1).transpose(1, 2)
            y = y.reshape(n, h // k, w // k, k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
            x = x + y.roll((i % 2, i % 2), (1, 2))
        return x.permute(0, 3, 1, 2)


def test_windows_are_for_one_size_and_it_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 2, 2), Windows(3)).eval()
    with pytest.warns(UserWarning, match="cuts its inputs into windows"):
        faster = exported(model, torch.randn(1, 3, 16, 24))
    for count in (1, 2, 5):
        assert_as_eager(model, faster, torch.randn(count, 3, 16, 24))
    with pytest.raises(ValueError, match=r"asks for sizes\[0\]\[2\] == 16"):
        faster(torch.randn(1, 3, 24, 24))
    report = faster.reports()[0]
    assert not report.plain, report


def test_a_few_cuts_leave_sizes_open():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 2, 2), Windows(1)).eval()
    assert not cuts_windows(model, ((torch.randn(2, 3, 16, 24),), {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faster = exported(model, torch.randn(2, 3, 16, 24))
    for high, wide in ((16, 24), (8, 32)):
        assert_as_eager(model, faster, torch.randn(2, 3, high, wide))
