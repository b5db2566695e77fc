"""The parts of our own networks."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from torch import nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.networks import CellUNet
from pointwise.networks.blocks import BatchNorm, CloudNorm, Describe, Encoder

ANY = PointCloud(torch.zeros(0, 3))  # batch norm takes all clouds together


def norms(channels=5):
    """Ours and PyTorch's, with the same state."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm(channels), nn.BatchNorm1d(channels)
    for tensor in (ours.weight, ours.bias, ours.running_mean):
        nn.init.normal_(tensor)
    ours.running_var.uniform_(0.2, 3.0)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_norm_is_batch_norm(count):
    ours, theirs = norms()
    x = torch.randn(count, 5)
    expected = theirs.eval()(x).detach().double()
    oracle.assert_close(ours.eval()(x, ANY).detach().numpy(), expected.numpy(), 4)
    if count > 1:
        assert torch.equal(ours.train()(x, ANY), theirs.train()(x))
        assert torch.equal(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("count", [0, 1])
def test_norm_of_too_few_points_for_statistics(count):
    ours, theirs = norms()
    x = torch.randn(count, 5)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    expected = theirs.eval()(x).detach().double()
    oracle.assert_close(ours.train()(x, ANY).detach().numpy(), expected.numpy(), 4)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("sizes", [(50,), (20, 30), (1,), (0, 3, 1), ()])
@pytest.mark.parametrize("grad", [True, False])
def test_cloud_norm_is_instance_norm(sizes, grad):
    torch.manual_seed(0)
    norm = CloudNorm(4).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    parts = [torch.randn(size, 4, dtype=torch.float64) * 3 + 1 for size in sizes]
    x = torch.cat([torch.zeros(0, 4, dtype=torch.float64), *parts])
    offsets = torch.tensor([0, *np.cumsum(sizes, dtype=np.int64)])
    with torch.set_grad_enabled(grad):
        out = norm(x, PointCloud(torch.zeros(len(x), 3), offsets))
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    for part, found in zip(parts, out.detach().split(sizes) if sizes else [], strict=True):
        if not len(part):
            continue
        a = part.numpy()
        expected = (a - a.mean(0)) / np.sqrt(a.var(0) + norm.eps) * weight + bias
        # Where all values are alike, what rounding leaves is divided by √eps.
        rounding = np.finfo(np.float64).eps / np.sqrt(norm.eps)
        oracle.assert_close(found.numpy(), expected, len(part), rounding)


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 6)])
def test_gradients_of_cloud_norm(sizes):
    torch.manual_seed(0)
    norm = CloudNorm(3).double()
    cloud = PointCloud(torch.zeros(7, 3), torch.tensor([0, *np.cumsum(sizes)]))
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: norm(x, cloud), (x, norm.weight, norm.bias))


def test_each_point_is_described_by_where_it_lies_in_its_voxel():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.0, 0.125], [3.0, 0.0, 0.0]])
    cloud = PointCloud(points)
    voxels, parent = cloud.voxels(0.5)
    assert parent.tolist() == [0, 0, 1]
    out = Describe(0.5)(torch.tensor([[4.0], [5.0], [6.0]]), cloud, voxels, parent)
    assert out.shape == (3, 1 + Describe.MORE)
    # The feature, one, the place about the voxel's mean in cells, and its products.
    x, z = 0.25, 0.125
    assert out.tolist() == [
        [4, 1, -x, 0, -z, x * x, 0, z * z, 0, 0, x * z],
        [5, 1, x, 0, z, x * x, 0, z * z, 0, 0, x * z],
        [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_encoder_doubles_the_voxels_from_level_to_level():
    encoder = Encoder(2, (4, 8, 12), (1, 2, 0), 0.1, BatchNorm).eval()
    cloud = PointCloud(torch.rand(300, 3), torch.tensor([0, 200, 300]))
    levels = encoder(torch.rand(300, 2), cloud)
    finer = cloud
    for level, channels, size in zip(levels, (4, 8, 12), (0.1, 0.2, 0.4), strict=True):
        x, voxels, parent = level.x, level.voxels, level.parent
        assert x.shape == (len(voxels), channels)
        assert len(voxels) < len(finer)
        assert parent.shape == (len(finer),)
        assert torch.equal(voxels.batch[parent], finer.batch)
        assert float((finer.points - voxels.points[parent]).abs().max()) < size
        finer = voxels
    assert [len(level) for level in encoder.levels] == [1, 2, 0]


def test_points_of_one_finest_voxel_share_a_score():
    torch.manual_seed(0)
    network = CellUNet(2, 3, cell_size=0.25, width=8, depths=(1, 1)).eval()
    cloud = PointCloud(torch.rand(200, 3))
    _, parent = cloud.voxels(0.25)
    out = network(cloud.points, torch.rand(200, 2), cloud.offsets)
    first = torch.full((int(parent.max()) + 1,), 200).scatter_reduce(
        0, parent, torch.arange(200), "amin"
    )
    assert len(first) < 100
    assert torch.equal(out, out[first][parent])
    assert len(out[first].unique(dim=0)) == len(first)


def test_a_unet_sees_beyond_a_kernel():
    # What lies at the other end of the room reaches a point through the coarse levels.
    torch.manual_seed(0)
    network = CellUNet(1, 2, cell_size=0.05, width=8, depths=(1, 1, 1, 1)).eval()
    generator = torch.Generator().manual_seed(0)
    points, features = torch.rand(600, 3, generator=generator), torch.ones(600, 1)
    features.requires_grad_()
    corner = int(points.sum(1).argmin())
    network(points, features, torch.tensor([0, 600]))[corner].sum().backward()
    assert features.grad is not None
    reach = (points - points[corner]).abs().amax(1)[features.grad[:, 0] != 0].max()
    assert float(reach) > 0.5
