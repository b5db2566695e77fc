"""The convolutions as modules: parameters, copies, and what PyTorch's compilers make of them."""

from __future__ import annotations

import copy
import io
import math
import pickle

import oracle
import pytest
import torch
from torch import nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cells as functional
from pointwise.layers import CellConv, CellDepthwiseConv, CellSeparableConv, PointwiseConv

LAYERS = {
    "CellConv": lambda: CellConv(4, 6, cell_size=0.3),
    "CellConv, 5, dilated": lambda: CellConv(4, 6, 0.2, 5, 2, bias=False, reduction="sum"),
    "CellDepthwiseConv": lambda: CellDepthwiseConv(4, cell_size=0.3),
    "CellSeparableConv": lambda: CellSeparableConv(4, 6, cell_size=0.3),
    "CellSeparableConv, no bias": lambda: CellSeparableConv(4, 6, 0.3, 1, bias=False),
    "PointwiseConv": lambda: PointwiseConv(4, 6),
    "PointwiseConv, no bias": lambda: PointwiseConv(4, 6, bias=False),
}
EVERY = pytest.mark.parametrize("name", LAYERS)


def inputs(layer: nn.Module, count=40):
    generator = torch.Generator().manual_seed(count)
    features = torch.rand(count, 4, generator=generator)
    if isinstance(layer, PointwiseConv):
        return (features,)
    offsets = torch.tensor([0, count // 3, count])
    return features, PointCloud(torch.rand(count, 3, generator=generator), offsets)


def test_each_layer_is_its_function():
    features, cloud = inputs(LAYERS["CellConv"]())
    queries = PointCloud(torch.rand(9, 3), torch.tensor([0, 4, 9]))
    for name in ("CellConv", "CellConv, 5, dilated"):
        conv = LAYERS[name]()
        for asked in (None, queries):
            kernel = (conv.cell_size, conv.kernel_size, conv.dilation, asked)
            expected = functional.cell_conv(
                features, cloud.neighborhood(*kernel), conv.weight, conv.bias,
                reduction=conv.reduction,
            )  # fmt: skip
            assert torch.equal(conv(features, cloud, asked), expected)
    neighborhood = cloud.neighborhood(0.3)
    depthwise, separable = LAYERS["CellDepthwiseConv"](), LAYERS["CellSeparableConv"]()
    expected = functional.cell_depthwise_conv(features, neighborhood, depthwise.weight)
    assert torch.equal(depthwise(features, cloud), expected)
    expected = functional.cell_separable_conv(
        features, neighborhood, separable.depthwise, separable.pointwise, separable.bias
    )
    assert torch.equal(separable(features, cloud), expected)
    pointwise = LAYERS["PointwiseConv"]()
    expected = functional.pointwise_conv(features, pointwise.weight, pointwise.bias)
    assert torch.equal(pointwise(features), expected)


def test_layers_of_one_kernel_share_a_neighborhood():
    features, cloud = inputs(CellConv(4, 4, 0.3))
    CellDepthwiseConv(4, 0.3)(CellConv(4, 4, 0.3)(features, cloud), cloud)
    CellConv(4, 4, 0.3, dilation=2)(features, cloud)
    assert len(cloud._built) == 2


@EVERY
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_copies_compute_the_same(name, way):
    layer = LAYERS[name]()
    if way == "deepcopy":
        other = copy.deepcopy(layer)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = LAYERS[name]()
        assert not torch.equal(next(other.parameters()), next(layer.parameters()))
        other.load_state_dict(torch.load(file))
    arguments = inputs(layer)
    assert torch.equal(other(*arguments), layer(*arguments))
    with torch.no_grad():
        next(layer.parameters()).add_(1)
    assert not torch.equal(other(*arguments), layer(*arguments))


def test_state_dicts_interchange_with_linear():
    ours, theirs = PointwiseConv(5, 3), nn.Linear(5, 3)
    features = torch.rand(20, 5)
    ours.load_state_dict(theirs.state_dict())
    oracle.assert_close(ours(features).detach().numpy(), theirs(features).detach().numpy(), 6)
    theirs.load_state_dict(PointwiseConv(5, 3).state_dict())
    PointwiseConv(5, 3, bias=False).load_state_dict(nn.Linear(5, 3, bias=False).state_dict())


def test_state_dicts_interchange_with_conv3d():
    CellConv(5, 3, 0.1).load_state_dict(nn.Conv3d(5, 3, 3).state_dict())
    depthwise = nn.Conv3d(5, 5, 3, groups=5, bias=False)
    CellDepthwiseConv(5, 0.1).load_state_dict(depthwise.state_dict())


def test_initialised_as_pytorch_does():
    torch.manual_seed(0)
    for layer, fan_in in (
        (CellConv(16, 64, 0.1), 16 * 27),
        (CellDepthwiseConv(512, 0.1), 27),
        (PointwiseConv(300, 400), 300),
    ):
        bound = 1 / math.sqrt(fan_in)
        for parameter in layer.parameters():
            assert float(parameter.detach().abs().max()) <= bound
            assert float(parameter.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.25)
    separable = CellSeparableConv(16, 64, 0.1)
    assert (
        0.9 / math.sqrt(27) < float(separable.depthwise.detach().abs().max()) <= 1 / math.sqrt(27)
    )
    assert (
        0.9 / math.sqrt(16) < float(separable.pointwise.detach().abs().max()) <= 1 / math.sqrt(16)
    )


def test_moved_to_float64():
    layer = LAYERS["CellConv"]().double()
    features, cloud = inputs(layer)
    out = layer(features.double(), cloud)
    assert out.dtype == torch.float64
    exact = layer.float()(features, cloud).detach().double()
    oracle.assert_close(out.detach().numpy(), exact.numpy(), 108, eps=1e-7)
    with pytest.raises(TypeError, match=r"weight is .* float32 on cpu but features is .* float64"):
        layer(features.double(), cloud)


def test_described():
    assert repr(CellConv(3, 16, 0.1, dilation=2)) == (
        "CellConv(3, 16, cell_size=0.1, kernel_size=3, dilation=2, reduction=mean)"
    )
    assert repr(CellDepthwiseConv(5, 1)).startswith("CellDepthwiseConv(5, cell_size=1, ")
    assert repr(CellSeparableConv(3, 16, 0.1)).startswith("CellSeparableConv(3, 16, cell_size=")
    assert repr(PointwiseConv(3, 16, bias=False)) == "PointwiseConv(3, 16, bias=False)"


@pytest.mark.parametrize(
    "make",
    [
        lambda **kernel: CellConv(2, 3, **kernel),
        lambda **kernel: CellDepthwiseConv(2, **kernel),
        lambda **kernel: CellSeparableConv(2, 3, **kernel),
    ],
    ids=["CellConv", "CellDepthwiseConv", "CellSeparableConv"],
)
def test_wrong_kernels_are_refused_by_name(make):
    name = type(make(cell_size=1.0)).__name__
    with pytest.raises(ValueError, match=f"^{name}: cell_size must be a positive length .* got 0"):
        make(cell_size=0)
    with pytest.raises(ValueError, match=f"^{name}: kernel_size must be an odd .* got 2"):
        make(cell_size=1.0, kernel_size=2)
    with pytest.raises(ValueError, match=f"^{name}: dilation must be a whole number .* got 0"):
        make(cell_size=1.0, dilation=0)
    with pytest.raises(ValueError, match=f"^{name}: reduction must be one of .* got 'max'"):
        make(cell_size=1.0, reduction="max")


def test_features_that_do_not_belong_to_the_cloud():
    layer = CellConv(4, 6, 0.3)
    _, cloud = inputs(layer)
    with pytest.raises(ValueError, match="CellConv: features must have one row for each of the 40"):
        layer(torch.rand(39, 4), cloud)
    with pytest.raises(ValueError, match=r"weight must be \[C_out, C_in=3, 3, 3, 3\], got \(6, 4,"):
        layer(torch.rand(40, 3), cloud)


# --- torch.compile and torch.export ---------------------------------------------------------------


class Small(nn.Module):
    """Search, both convolutions, down and up again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = CellConv(4, 8, 0.2)
        self.down = CellSeparableConv(8, 8, 0.3)
        self.up = CellDepthwiseConv(8, 0.5)
        self.last = PointwiseConv(8, 3)

    def forward(self, points, features, offsets):
        cloud = PointCloud(points, offsets)
        coarse, _ = cloud.voxels(0.3)
        x = torch.relu(self.first(features, cloud))
        x = torch.relu(self.down(x, cloud, coarse))
        return self.last(self.up(x, coarse, cloud))


def batch(count, *offsets):
    generator = torch.Generator().manual_seed(count)
    points, features = (torch.rand(count, n, generator=generator) for n in (3, 4))
    return points, features, torch.tensor([0, *offsets, count])


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield
    torch._dynamo.reset()


def assert_same(compiled, network, arguments):
    """The same outputs and gradients."""
    results = []
    for form in (compiled, network):
        out = form(*arguments)
        slopes = torch.autograd.grad(out.square().sum(), list(network.parameters()))
        results.append([t.detach().numpy() for t in (out, *slopes)])
    for found, expected in zip(*results, strict=True):
        oracle.assert_close(found, expected, 1000)


def test_compiled_as_one_graph_also_for_other_sizes(compiler):
    network = Small()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for arguments in (batch(60, 20), batch(45, 30), batch(80, 5)):
        assert_same(compiled, network, arguments)


def test_compiled_with_breaks_in_the_graph():
    # Around a break the operators run while the compiler watches: it must not look into them.
    torch._dynamo.reset()
    network = Small()
    assert_same(torch.compile(network, backend="aot_eager"), network, batch(60, 20))
    torch._dynamo.reset()


def test_a_size_that_is_traced_as_a_variable(compiler):
    # dynamic=True makes a variable of every number, the cell size too.
    layer = CellConv(4, 6, 0.3)

    def function(points, features):
        return layer(features, PointCloud(points))

    points, features, _ = batch(30)
    compiled = torch.compile(function, backend="aot_eager", dynamic=True)
    assert torch.equal(compiled(points, features), function(points, features))


def test_wrong_values_are_found_when_a_compiled_graph_runs(compiler):
    layer = CellConv(4, 6, 0.3)
    points, features, _ = batch(30)

    def function(points, features, offsets):
        return layer(features, PointCloud(points, offsets))

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    compiled(points, features, torch.tensor([0, 30]))
    with pytest.raises(ValueError, match="cell_search: point_offsets must start at 0"):
        compiled(points, features, torch.tensor([0, 31]))
    points[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"cell_search: points\[3\] is .*nan"):
        compiled(points, features, torch.tensor([0, 30]))


def test_exported_for_any_number_of_points(tmp_path):
    network = Small().eval()
    count, clouds = torch.export.Dim("count", min=2), torch.export.Dim("clouds", min=2)
    with torch.no_grad():
        program = torch.export.export(
            network, batch(60, 20), dynamic_shapes=({0: count}, {0: count}, {0: clouds})
        )
    torch.export.save(program, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    for arguments in (batch(60, 20), batch(33), batch(70, 1, 1, 50)):
        expected = network(*arguments).detach()
        oracle.assert_close(loaded(*arguments).detach().numpy(), expected.double().numpy(), 1000)
