"""What troubleshooting.md says of ``unexpected keyword argument 'stride'``."""

from __future__ import annotations

import inspect

import pytest
import torch

import pointwise
from pointwise import CellConv, PointCloud, cell_conv

ON_GRIDS = [
    name
    for name in pointwise.__all__
    if name.rstrip("123d").lower().endswith("conv") and name[-1] == "d"
]
ON_CLOUDS = [name for name in pointwise.__all__ if name.lower().startswith("cell")]


def test_both_lists_are_complete():
    assert len(ON_GRIDS) == 16  # eleven functions, five layers
    assert {"conv2d", "pointwise_conv1d", "shift_conv2d", "PointwiseConv2d"} < set(ON_GRIDS)
    assert len(ON_CLOUDS) == 8


@pytest.mark.parametrize("name", [*ON_GRIDS, "ConvNormAct", "InvertedResidual", "Bottleneck"])
def test_every_convolution_on_a_grid_takes_a_stride(name):
    assert "stride" in inspect.signature(getattr(pointwise, name)).parameters


@pytest.mark.parametrize("name", ON_CLOUDS)
def test_no_convolution_on_a_cloud_takes_one(name):
    assert "stride" not in inspect.signature(getattr(pointwise, name)).parameters


def test_python_says_so():
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        CellConv(3, 4, cell_size=0.1, stride=2)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_what_the_authors_call_stride_is_dilation(stride):
    """Their loop: cells of ``filter_full = (filter - 1) * stride + 1``, of which those count whose
    number is a multiple of the stride (``tf_conv3p_atrous.cpp``, ``neighbor``)."""
    torch.manual_seed(0)
    size, points = 0.1, torch.rand(80, 3, dtype=torch.float64)
    features, weight = torch.rand(80, 2).double(), torch.rand(5, 2, 3, 3, 3).double()
    full = 2 * stride + 1
    expected = torch.zeros(80, 5, dtype=torch.float64)
    for q in range(80):
        number = torch.floor((points - points[q]) / size + full / 2).long()  # of the cell, x y z
        seen = ((number >= 0) & (number < full) & (number % stride == 0)).all(1)
        cells = number // stride
        for x, y, z in torch.unique(cells[seen], dim=0).tolist():
            inside = seen & (cells == torch.tensor([x, y, z])).all(1)
            expected[q] += weight[:, :, z, y, x] @ features[inside].mean(0)
    table = PointCloud(points).neighborhood(size, dilation=stride)
    torch.testing.assert_close(cell_conv(features, table, weight), expected)
