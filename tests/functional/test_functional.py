"""The public functions and their gradients against the oracle; half precision; tiles of queries."""

from __future__ import annotations

from functools import partial

import oracle
import pytest
import torch
from cases import Case, each, named, walls

from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cells as functional
from pointwise.functional.cells import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    over_queries,
    pointwise_conv,
)

HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)


def leaves(*tensors):
    return [None if t is None else t.detach().requires_grad_() for t in tensors]


def plain(tensor):
    return None if tensor is None else tensor.detach().numpy()


@each()
def test_cell_conv_and_its_gradients_are_the_oracle(case, poisoned):
    x, weight, bias = leaves(case.features(), case.weight(), case.bias_values())
    out = cell_conv(x, case.neighborhood(), weight, bias, reduction=case.reduction)
    grad = case.gradient(case.channels[1])
    out.backward(grad)
    x_, weight_, bias_ = plain(x), plain(weight), plain(bias)
    expected = oracle.cell_conv(x_, case.table, case.rows, weight_, bias_, case.mean)
    oracle.assert_close(plain(out), expected, case.terms)
    d_x, d_weight, d_bias = oracle.cell_conv_gradients(
        grad.numpy(), x_, case.table, weight_, case.mean
    )
    oracle.assert_close(x.grad.numpy(), d_x, case.terms, what="features")
    oracle.assert_close(weight.grad.numpy(), d_weight, case.terms + case.rows, what="weight")
    if bias is not None:
        oracle.assert_close(bias.grad.numpy(), d_bias, case.rows + 1, what="bias")


@each()
def test_separable_conv_and_its_gradients_are_the_oracle(case, poisoned):
    x, depthwise, pointwise, bias = leaves(
        case.features(), case.depthwise_weight(), case.pointwise_weight(), case.bias_values()
    )
    how = case.reduction
    out = cell_separable_conv(x, case.neighborhood(), depthwise, pointwise, bias, reduction=how)
    grad = case.gradient(case.channels[1])
    out.backward(grad)
    x_, depthwise_, pointwise_, grad_ = plain(x), plain(depthwise), plain(pointwise), grad.numpy()
    middle = oracle.depthwise(x_, case.table, case.rows, depthwise_, case.mean)
    expected = oracle.pointwise(middle, pointwise_, plain(bias))
    oracle.assert_close(plain(out), expected, case.terms)
    d_middle = grad_.astype("float64") @ pointwise_.astype("float64")
    d_x, d_depthwise = oracle.depthwise_gradients(d_middle, x_, case.table, depthwise_, case.mean)
    terms = case.terms + case.rows
    oracle.assert_close(x.grad.numpy(), d_x, terms, what="features")
    oracle.assert_close(depthwise.grad.numpy(), d_depthwise, terms, what="depthwise")
    oracle.assert_close(
        pointwise.grad.numpy(), grad_.astype("float64").T @ middle, terms, what="pointwise"
    )
    with torch.no_grad():  # both halves in one loop
        fused = cell_separable_conv(
            x, case.neighborhood(), depthwise, pointwise, bias, reduction=how
        )
    oracle.assert_close(plain(fused), expected, case.terms)


SOME = named("batch, down", "17 channels", "kernel 5, dilation 2, sum", "no points", "duplicates")


@each(SOME)
def test_depthwise_and_pointwise_conv_are_the_oracle(case):
    x, depthwise, pointwise, bias = (
        case.features(), case.depthwise_weight(), case.pointwise_weight(), case.bias_values()
    )  # fmt: skip
    out = cell_depthwise_conv(x, case.neighborhood(), depthwise, reduction=case.reduction)
    expected = oracle.depthwise(x.numpy(), case.table, case.rows, depthwise.numpy(), case.mean)
    oracle.assert_close(out.numpy(), expected, case.terms)
    out = pointwise_conv(x, pointwise, bias)
    expected = oracle.pointwise(x.numpy(), pointwise.numpy(), plain(bias))
    oracle.assert_close(out.numpy(), expected, case.terms)


def test_a_kernel_of_one_cell_that_holds_one_point_is_the_pointwise_conv():
    (case,) = named("alone in the own cell")
    x, weight, bias = case.features(), case.weight(), case.bias_values()
    out = cell_conv(x, case.neighborhood(), weight, bias)
    expected = pointwise_conv(x, weight[:, :, 1, 1, 1], bias)
    oracle.assert_close(out.numpy(), expected.double().numpy(), case.terms)


def test_on_a_full_lattice_it_is_conv3d():
    # One point in each voxel of a grid: an ordinary 3D convolution with zeros around.
    side = 4
    axes = torch.arange(side) * 0.5
    z, y, x = torch.meshgrid(axes, axes, axes, indexing="ij")
    points = torch.stack((x, y, z), dim=-1).reshape(-1, 3)
    features, weight = torch.randn(side**3, 3), torch.randn(5, 3, 3, 3, 3)
    for dilation in (1, 2):
        found = cell_conv(features, PointCloud(points).neighborhood(0.5, 3, dilation), weight)
        volume = features.t().reshape(1, 3, side, side, side).double()
        expected = torch.nn.functional.conv3d(
            volume, weight.double(), padding=dilation, dilation=dilation
        )
        oracle.assert_close(found.numpy(), expected[0].reshape(5, -1).t().numpy(), 81)


def functions(case: Case):
    """Every function as one of (features, parameters), with its parameters."""
    neighborhood, how = case.neighborhood(), {"reduction": case.reduction}
    depthwise, pointwise = case.depthwise_weight(), case.pointwise_weight()
    return {
        "cell_conv": (lambda x, *p: cell_conv(x, neighborhood, *p, **how),
                      (case.weight(), case.bias_values())),
        "cell_depthwise_conv": (lambda x, *p: cell_depthwise_conv(x, neighborhood, *p, **how),
                                (depthwise,)),
        "cell_separable_conv": (lambda x, *p: cell_separable_conv(x, neighborhood, *p, **how),
                                (depthwise, pointwise, case.bias_values())),
        "pointwise_conv": (pointwise_conv, (pointwise, case.bias_values())),
    }  # fmt: skip


NAMES = pytest.mark.parametrize(
    "name", ["cell_conv", "cell_depthwise_conv", "cell_separable_conv", "pointwise_conv"]
)


@HALVES
@NAMES
def test_half_precision_computes_in_float32(name, half):
    (case,) = named("17 channels")
    function, parameters = functions(case)[name]
    x = case.features().to(half).requires_grad_()
    parameters = [p.to(half).requires_grad_() for p in parameters]
    out = function(x, *parameters)
    assert out.dtype == half
    out.sum().backward()
    wide = [t.detach().float().requires_grad_() for t in (x, *parameters)]
    exact = function(*wide)
    assert torch.equal(out, exact.to(half))
    exact.sum().backward()
    for narrow, full in zip((x, *parameters), wide, strict=True):
        assert narrow.grad.dtype == half
        assert torch.equal(narrow.grad, full.grad.to(half))


@HALVES
@NAMES
def test_autocast_computes_in_float32(name, half):
    (case,) = named("17 channels")
    function, parameters = functions(case)[name]
    exact = function(case.features(), *parameters)
    with torch.autocast("cpu", dtype=half):
        assert torch.equal(function(case.features(), *parameters), exact)
        # What a half-precision layer hands on goes with float32 parameters.
        x = case.features().to(half)
        out = function(x, *parameters)
    assert torch.equal(out, function(x.float(), *parameters).to(half))


@NAMES
def test_half_precision_features_with_float32_weights(name):
    (case,) = named("17 channels")
    function, parameters = functions(case)[name]
    x = case.features().bfloat16()
    assert torch.equal(function(x, *parameters), function(x.float(), *parameters).bfloat16())


@pytest.mark.parametrize("name", ["cell_conv", "cell_depthwise_conv"])
def test_the_transposed_table_is_built_only_where_it_is_needed(name):
    (case,) = named("batch, down")
    for inputs, built in (("parameters", False), ("features", True)):
        neighborhood = case.neighborhood()
        function = {"cell_conv": cell_conv, "cell_depthwise_conv": cell_depthwise_conv}[name]
        weight = case.weight() if name == "cell_conv" else case.depthwise_weight()
        x = case.features()
        (x if inputs == "features" else weight).requires_grad_()
        function(x, neighborhood, weight).sum().backward()
        assert (neighborhood._transposed is not None) == built
    neighborhood = case.neighborhood()
    with torch.no_grad():
        function(x.requires_grad_(), neighborhood, weight)
    assert neighborhood._transposed is None


@each([*named("batch, down", "batch, up, sum"), Case("itself", walls(200), (3, 4), 0.1)])
def test_tiles_of_queries_give_the_same_result_and_gradients(case, monkeypatch):
    def run():
        x, weight = leaves(case.features(), case.weight())
        cloud, asked = case.clouds()
        built.clear()

        def function(features, neighborhood):
            built.append(neighborhood)
            return cell_conv(features, neighborhood, weight, reduction=case.reduction)

        out = over_queries(
            function, x, cloud, asked, case.cell_size, case.kernel_size, case.dilation,
        )  # fmt: skip
        tiles = len(built)
        out.backward(case.gradient(case.channels[1]))
        return tiles, len(built), out.detach(), x.grad, weight.grad

    built: list = []
    tiles, in_all, *whole = run()
    assert (tiles, in_all) == (1, 1)
    most = len(case.table) // 5
    monkeypatch.setattr(functional, "_PAIRS_AT_ONCE", max(1, most))
    tiles, in_all, *parts = run()
    assert tiles > 2
    assert in_all == 2 * tiles, "each neighbourhood is built again for the backward pass"
    assert torch.equal(parts[0], whole[0])
    for a, b in zip(parts[1:], whole[1:], strict=True):
        oracle.assert_close(a.numpy(), b.double().numpy(), case.terms + case.rows)


def test_tiles_without_gradients_and_without_queries(monkeypatch):
    monkeypatch.setattr(functional, "_PAIRS_AT_ONCE", 1)
    (case,) = named("17 channels")
    x, weight = case.features(), case.weight()
    cloud, _ = case.clouds()
    kernel = (case.cell_size, case.kernel_size, case.dilation)

    def function(features, neighborhood):
        return cell_conv(features, neighborhood, weight)

    with torch.no_grad():
        out = over_queries(function, x, cloud, None, *kernel)
        assert torch.equal(out, cell_conv(x, case.neighborhood(), weight))
        nobody = PointCloud(torch.zeros(0, 3, dtype=torch.float64))
        assert over_queries(function, x, cloud, nobody, *kernel).shape == (0, 9)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_what_does_not_fit_into_a_gpu_is_tried_again_in_smaller_tiles(with_gradients):
    (case,) = named("17 channels")
    x, weight = leaves(case.features(), case.weight())
    cloud, _ = case.clouds()
    kernel = (case.cell_size, case.kernel_size, case.dilation)
    asked = []

    def function(features, neighborhood, most=6):
        asked.append(len(neighborhood.queries))
        if len(neighborhood.queries) > most:
            raise torch.OutOfMemoryError("as a GPU says it")
        return cell_conv(features, neighborhood, weight)

    with torch.set_grad_enabled(with_gradients):
        out = over_queries(function, x, cloud, None, *kernel)
        whole = cell_conv(x, case.neighborhood(), weight)
    assert torch.equal(out, whole)
    assert asked == [40, 10, *[3] * 13, 1]
    if with_gradients:
        one = torch.autograd.grad(out.sum(), (x, weight))
        for a, b in zip(one, torch.autograd.grad(whole.sum(), (x, weight)), strict=True):
            torch.testing.assert_close(a, b)
    with pytest.raises(torch.OutOfMemoryError, match="as a GPU says it"):
        over_queries(partial(function, most=0), x, cloud, None, *kernel)


@pytest.mark.parametrize("points", [1, 2, 513, 40_000])
def test_the_number_of_tiles_follows_the_pairs(points, monkeypatch):
    cloud = PointCloud(torch.rand(points, 3, generator=torch.Generator().manual_seed(0)))
    pairs = len(cloud.neighborhood(0.05).pairs)
    monkeypatch.setattr(functional, "_PAIRS_AT_ONCE", max(1, pairs // 8))
    tiles = functional._tiles(cloud, cloud, 0.05, 3, 1)
    assert tiles == 1 if points < 3 else 4 <= tiles <= 16


def test_a_neighbourhood_is_one():
    features, weight = torch.rand(4, 2), torch.rand(3, 2, 3, 3, 3)
    for call in (
        lambda: functional.cell_conv(features, weight, None),
        lambda: functional.cell_depthwise_conv(features, None, weight),
        lambda: functional.cell_separable_conv(features, "near", weight, weight),
    ):
        with pytest.raises(TypeError, match="neighborhood must be a Neighborhood, as cloud"):
            call()
