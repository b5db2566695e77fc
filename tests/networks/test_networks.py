"""What holds for every network: shapes, any number of points, batches, symmetries, learning."""

from __future__ import annotations

import copy

import oracle
import pytest
import torch
from torch import nn

from pointwise.layers import CellConv, CellDepthwiseConv, CellSeparableConv
from pointwise.networks import CellPyramid, CellUNet, Hua2018Classification, Hua2018Segmentation
from pointwise.networks.blocks import BatchNorm, Describe, Encoder

SEGMENTATION = {
    "Hua2018Segmentation": lambda: Hua2018Segmentation(4, 5, cell_size=0.25),
    "CellUNet": lambda: CellUNet(4, 5, cell_size=0.125, width=8, depths=(1, 1)),
}
CLASSIFICATION = {
    "Hua2018Classification": lambda: Hua2018Classification(4, 5, cell_size=0.25, sample=16),
    "CellPyramid": lambda: CellPyramid(4, 5, cell_size=0.125, width=8, depths=(1, 1)),
}
NETWORKS = SEGMENTATION | CLASSIFICATION
EVERY = pytest.mark.parametrize("name", NETWORKS)
# Layers of a network; each may add as many roundings as one sum over a cell's channels.
TERMS = 100_000


def made(name: str) -> nn.Module:
    """Always the same network, in evaluation mode, with batch norms that have seen something."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def batch(*sizes: int, seed=0):
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    points, features = (torch.rand(count, n, generator=generator).double() for n in (3, 4))
    return points, features.float(), torch.tensor([0, *sizes]).cumsum(0)


def close(found, expected):
    oracle.assert_close(found.detach().numpy(), expected.detach().double().numpy(), TERMS)


@EVERY
def test_shapes(name):
    points, features, offsets = batch(40, 25, 1)
    out = made(name)(points, features, offsets)
    assert out.shape == ((3, 5) if name in CLASSIFICATION else (66, 5))
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    assert float(out.detach().std()) > 0


FEW_POINTS = [(1,), (2,), (1, 1), (1, 30)]
EMPTY_CLOUDS = [(3, 0, 2), (0, 1, 0), (0, 0)]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *[(name, sizes) for name in NETWORKS for sizes in FEW_POINTS],
        # The paper's fully connected layers need points to read: see test_hua2018.py.
        *[(name, sizes) for name in NETWORKS if name != "Hua2018Classification"
          for sizes in EMPTY_CLOUDS],
    ],
)  # fmt: skip
def test_any_number_of_points(name, sizes, training):
    network = made(name).train(training)
    points, features, offsets = batch(*sizes)
    out = network(points, features.requires_grad_(), offsets)
    assert len(out) == (len(sizes) if name in CLASSIFICATION else sum(sizes))
    assert bool(out.isfinite().all())
    out.sum().backward()
    assert bool(features.grad.isfinite().all())
    for parameter in network.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@EVERY
def test_a_cloud_in_a_batch_is_the_cloud_alone(name):
    network = made(name)
    points, features, offsets = batch(50, 1, 35)
    whole = network(points, features, offsets)
    for number in range(3):
        first, last = offsets[number : number + 2].tolist()
        alone = network(points[first:last], features[first:last], torch.tensor([0, last - first]))
        expected = whole[first:last] if name in SEGMENTATION else whole[number : number + 1]
        close(alone, expected)


@EVERY
def test_the_order_of_the_points_does_not_matter(name):
    network = made(name)
    points, features, offsets = batch(60, 40)
    order = torch.cat((torch.randperm(60), 60 + torch.randperm(40)))
    out = network(points, features, offsets)
    again = network(points[order], features[order], offsets)
    close(again, out[order] if name in SEGMENTATION else out)


@EVERY
def test_moved_far_away_it_sees_the_same(name):
    network = made(name)
    points, features, offsets = batch(60, 40)
    # On a grid of 2^-20, so that nothing is lost far from the origin.
    points = (points * 2**20).round() / 2**20
    moved = points + torch.tensor([524_288.0, 4_194_304.0, 256.0], dtype=torch.float64)
    close(network(moved, features, offsets), network(points, features, offsets))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_in_another_unit_it_sees_the_same(name):
    network, larger = made(name), made(name)
    for module in larger.modules():
        if isinstance(module, (CellConv, CellDepthwiseConv, CellSeparableConv, Describe)):
            module.cell_size *= 8
        elif isinstance(module, Encoder):
            module.sizes = [8 * size for size in module.sizes]
    points, features, offsets = batch(60, 40)
    assert torch.equal(larger(8 * points, features, offsets), network(points, features, offsets))


@EVERY
def test_far_clouds_of_a_batch_do_not_meet(name):
    network = made(name)
    points, features, offsets = batch(30, 30)
    out = network(points, features, offsets)
    changed = features.clone()
    changed[30:] += 1
    again = network(points, changed, offsets)
    first, second = (30, 60) if name in SEGMENTATION else (1, 2)
    assert torch.equal(again[:first], out[:first])
    assert not torch.equal(again[first:second], out[first:second])


@EVERY
def test_a_few_steps_of_training_make_the_loss_smaller(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    points, features, offsets = batch(40, 40, 40, 40)
    # What to learn can be seen: the first feature says it.
    if name in SEGMENTATION:
        target = (features[:, 0] > 0.5).long()
    else:
        target = torch.tensor([0, 1, 0, 1])
        features[:, 0] = target.repeat_interleave(40)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(network(points, features, offsets), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert min(losses[-3:]) < 0.75 * losses[0], losses


@EVERY
def test_the_same_training_twice_gives_the_same_bits(name):
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        network = NETWORKS[name]().train()
        arguments = batch(50, 30)
        network(*arguments).square().mean().backward()
        results.append([parameter.grad for parameter in network.parameters()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@EVERY
def test_copied_with_its_state(name):
    network = made(name)
    other = NETWORKS[name]().eval()
    arguments = batch(30)
    assert not torch.equal(other(*arguments), network(*arguments))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(*arguments), network(*arguments))
    assert torch.equal(copy.deepcopy(network)(*arguments), network(*arguments))


@EVERY
def test_in_double_precision_as_in_single(name):
    network = made(name)
    points, features, offsets = batch(40, 20)
    single = network(points, features, offsets)
    double = network.double()(points, features.double(), offsets)
    assert double.dtype == torch.float64
    close(single, double)


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "name", ["Hua2018Segmentation", pytest.param("CellUNet", marks=pytest.mark.slow)]
)
def test_compiled(name, compiler):
    network = made(name)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)
        for sizes in ((40, 20), (5, 2, 60)):
            arguments = batch(*sizes)
            close(compiled(*arguments), network(*arguments))


@pytest.mark.parametrize("name", NETWORKS)
def test_exported(name):
    network = made(name)
    count, clouds = torch.export.Dim("count", min=2), torch.export.Dim("clouds", min=3)
    shapes = ({0: count}, {0: count}, {0: clouds})
    with torch.no_grad():
        program = torch.export.export(network, batch(40, 20), dynamic_shapes=shapes).module()
        for sizes in ((40, 20), (1, 33), (5, 1, 60)):
            arguments = batch(*sizes)
            close(program(*arguments), network(*arguments))
