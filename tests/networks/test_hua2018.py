"""The paper's networks: sizes counted by hand, layers as printed, points in their order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cell_conv
from pointwise.networks import Hua2018Classification, Hua2018Segmentation


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_segmentation_has_as_many_parameters_as_counted_by_hand():
    # Nine channels: 27 cells × 9 × 9 in each of four layers; 27 × 36 × 13 in the last; no bias.
    assert parameters(Hua2018Segmentation(9, 13)) == 4 * 2187 + 12_636
    # Three channels in: 27 × 3 × 9, then three layers of 27 × 9 × 9; 27 × 36 × 40 in the last.
    assert parameters(Hua2018Segmentation(3, 40)) == 729 + 3 * 2187 + 38_880


def test_classification_has_as_many_parameters_as_counted_by_hand():
    with torch.device("meta"):
        network = Hua2018Classification(3, 40)
    convolutions = 729 + 3 * 2187
    hidden = 2048 * 36 * 512 + 512
    assert parameters(network) == convolutions + hidden + 512 * 40 + 40


def test_segmentation_is_the_four_dilations_side_by_side_and_one_more():
    torch.manual_seed(0)
    network = Hua2018Segmentation(4, 5, cell_size=0.2)
    points, features = torch.rand(50, 3), torch.rand(50, 4)
    cloud = PointCloud(points)
    x, outputs = features, []
    for dilation, weight in enumerate(list(network.parameters())[:4], start=1):
        assert weight.shape == (9, 4 if dilation == 1 else 9, 3, 3, 3)
        x = F.selu(cell_conv(x, cloud.neighborhood(0.2, 3, dilation), weight))
        outputs.append(x)
    together = torch.cat(outputs, dim=1)
    last = list(network.parameters())[4]
    assert last.shape == (5, 36, 3, 3, 3)
    expected = F.selu(cell_conv(together, cloud.neighborhood(0.2), last))
    assert torch.equal(network(points, features, torch.tensor([0, 50])), expected)


def test_initialised_as_the_authors_framework_does():
    torch.manual_seed(0)
    network = Hua2018Classification(9, 40, sample=64)
    # Glorot: uniform up to sqrt(6 / (fan in + fan out)).
    for weight, bound in (
        (network.trunk.layers[1].weight, (6 / (27 * 9 + 27 * 9)) ** 0.5),
        (network.hidden.weight, (6 / (64 * 36 + 512)) ** 0.5),
    ):
        assert 0.95 * bound < float(weight.detach().abs().max()) <= bound
    assert not network.hidden.bias.any()
    assert not network.head.bias.any()


def test_points_are_read_in_the_order_of_x_then_y_then_z():
    network = Hua2018Classification(3, 2, sample=4)
    points = torch.tensor(
        [[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 9], [7, 0, 0], [3, 0, 0]], dtype=torch.float32
    )
    cloud = PointCloud(points, torch.tensor([0, 4, 6]))
    # Four points are read as they are; of two points each is read twice.
    assert network._places(cloud).tolist() == [[3, 2, 1, 0], [5, 5, 4, 4]]
    # Eight points at four evenly spaced places.
    line = torch.zeros(8, 3)
    line[:, 0] = torch.tensor([7.0, 6, 5, 4, 3, 2, 1, 0])
    assert network._places(PointCloud(line)).tolist() == [[7, 5, 3, 1]]


@pytest.mark.parametrize("sizes", [(3, 0), (0,), (0, 3)])
def test_classification_of_nothing_is_refused(sizes):
    network = Hua2018Classification(2, 2, sample=4)
    count, offsets = sum(sizes), torch.tensor([0, *sizes]).cumsum(0)
    message = f"Hua2018Classification: cloud {sizes.index(0)} is empty; .* leave such clouds out"
    with pytest.raises(ValueError, match=message):
        network(torch.rand(count, 3), torch.rand(count, 2), offsets)


def test_no_clouds_at_all():
    network = Hua2018Classification(2, 5, sample=4)
    none = torch.zeros(0, 3), torch.zeros(0, 2), torch.tensor([0])
    assert network(*none).shape == (0, 5)


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(ValueError, match="Hua2018Classification: sample must be at least 1, got 0"):
        Hua2018Classification(2, 2, sample=0)
