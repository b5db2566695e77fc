"""The decomposition of a weight: exact at full rank, best at every other, whatever the groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointwise.separation.expand import composed, expand

SHAPES = {
    "3 × 3": ((10, 6, 3, 3), 1),
    "few outputs": ((4, 6, 3, 3), 1),
    "one channel": ((5, 1, 3, 3), 1),
    "1 × 7": ((12, 3, 1, 7), 1),
    "5 × 3, groups": ((12, 4, 5, 3), 3),
}
EACH = pytest.mark.parametrize(("sizes", "groups"), SHAPES.values(), ids=SHAPES)


def weight_of(sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def singular_values(weight, groups) -> list[np.ndarray]:
    """Of the matrix [C_out/groups, kh·kw] of every input channel, by loops."""
    outputs, per_group = weight.shape[:2]
    found = []
    for group in range(groups):
        rows = range(group * outputs // groups, (group + 1) * outputs // groups)
        for channel in range(per_group):
            matrix = np.stack([weight[row, channel].numpy().ravel() for row in rows])
            found.append(np.linalg.svd(matrix, compute_uv=False))
    return found


@EACH
def test_full_rank_is_exact_and_convolves_alike(sizes, groups):
    weight = weight_of(sizes)
    found = expand(weight, groups)
    full = min(sizes[0] // groups, sizes[2] * sizes[3])
    assert found.full_rank == full
    assert found.error(full) == 0
    depthwise, pointwise = found.depthwise(full), found.pointwise(full)
    channels = sizes[1] * groups
    assert depthwise.shape == (channels * full, 1, *sizes[2:])
    assert pointwise.shape == (sizes[0], sizes[1] * full, 1, 1)
    rebuilt = composed(depthwise, pointwise, full, groups)
    torch.testing.assert_close(rebuilt, weight, rtol=0, atol=1e-12)
    x = weight_of((2, channels, 9, 11), seed=1)
    expected = F.conv2d(x, weight, groups=groups)
    between = F.conv2d(x, depthwise, groups=channels)
    torch.testing.assert_close(
        F.conv2d(between, pointwise, groups=groups), expected, rtol=0, atol=1e-11
    )


@EACH
def test_every_rank_leaves_out_the_smallest_singular_values(sizes, groups):
    weight = weight_of(sizes)
    found = expand(weight, groups)
    values = singular_values(weight, groups)
    whole = sum(float((each**2).sum()) for each in values)
    before = 1.0
    for rank in range(1, found.full_rank + 1):
        rebuilt = composed(found.depthwise(rank), found.pointwise(rank), rank, groups)
        error = float((rebuilt - weight).norm() / weight.norm())
        tail = sum(float((each[rank:] ** 2).sum()) for each in values)
        assert error == pytest.approx((tail / whole) ** 0.5, abs=1e-12)
        assert found.error(rank) == pytest.approx(error, abs=1e-12)
        assert found.error(rank) < before
        before = found.error(rank)


def test_no_change_of_the_halves_is_better():
    weight = weight_of((8, 5, 3, 3))
    found = expand(weight)
    depthwise, pointwise = found.depthwise(2), found.pointwise(2)
    best = float((composed(depthwise, pointwise, 2) - weight).norm())
    for seed in range(20):
        moved = depthwise + 0.05 * weight_of(depthwise.shape, seed)
        # With other filters, the best pointwise weight is that of least squares, for each channel.
        shares = torch.zeros_like(pointwise)
        for channel in range(5):
            filters = moved[2 * channel : 2 * channel + 2].flatten(1)  # [2, 9]
            own = torch.linalg.lstsq(filters.T, weight[:, channel].flatten(1).T).solution  # [2, 8]
            shares[:, 2 * channel : 2 * channel + 2, 0, 0] = own.T
        assert float((composed(moved, shares, 2) - weight).norm()) > best


def test_a_separable_weight_needs_its_own_rank_only():
    depthwise, pointwise = weight_of((6 * 2, 1, 3, 3)), weight_of((16, 6 * 2, 1, 1), seed=1)
    found = expand(composed(depthwise, pointwise, 2))
    assert found.error(1) > 0.1
    assert found.error(2) < 1e-12


def test_filters_have_length_one_and_zeros_stay_zero():
    weight = weight_of((6, 3, 3, 3))
    weight[:, 1] = 0
    found = expand(weight)
    lengths = found.depthwise(4).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(12, dtype=torch.float64))
    assert found.pointwise(4)[:, 4:8].abs().max() == 0
    assert expand(torch.zeros(4, 2, 3, 3)).error(1) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_precisions_are_decomposed_in_double(dtype):
    weight = weight_of((4, 3, 3, 3)).to(dtype).requires_grad_()
    found = expand(weight)
    assert found.filters.dtype == torch.float64
    assert not found.filters.requires_grad
    rebuilt = composed(found.depthwise(4), found.pointwise(4), 4)
    torch.testing.assert_close(rebuilt, weight.detach().double(), rtol=0, atol=1e-12)
