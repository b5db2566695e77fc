"""The shift convolutions as functions and layers: both targets, precision, refusals, counts."""

from __future__ import annotations

import image_oracle
import oracle
import pytest
import torch
from cases import Case, each, lattice, named, uniform, walls
from shift_cases import F64, FEW
from shift_cases import each as each_image
from torch import nn

from pointwise import CellShiftConv, PointCloud, ShiftConv2d, cell_shift_conv, cost, shift_conv2d

# --- on images ------------------------------------------------------------------------------------


@each_image(FEW)
def test_image_is_the_oracle(case):
    x, weight, bias = (case.tensor(role, F64) for role in ("input", "weight", "bias"))
    terms = case.channels[0] + 1
    for own in (weight, weight[:, :, None, None]):
        out = shift_conv2d(x, own, bias, *case.geometry)
        image_oracle.assert_close(out.numpy(), *case.expected(), terms)
    assert torch.equal(shift_conv2d(x[0], weight, bias, *case.geometry), out[0])


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_epilogue(activation):
    case = FEW[0]
    x, weight, bias = (case.tensor(role, F64) for role in ("input", "weight", "bias"))
    residual = case.tensor("grad", F64)
    plain = shift_conv2d(x, weight, bias) + residual
    expected = plain if activation is None else getattr(nn.functional, activation)(plain)
    for wants in (False, True):
        weight = weight.detach().clone().requires_grad_(wants)
        found = shift_conv2d(x, weight, bias, activation=activation, residual=residual)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype):
    x, weight = torch.randn(1, 20, 5, 5).to(dtype), torch.randn(3, 20).to(dtype)
    expected = shift_conv2d(x.float(), weight.float()).to(dtype)
    assert torch.equal(shift_conv2d(x, weight), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert shift_conv2d(x.float(), weight.float()).dtype == torch.bfloat16


def test_the_transforms_of_torch_func_see_through_it():
    x, weight = torch.randn(2, 1, 10, 4, 4, dtype=F64), torch.randn(3, 10, dtype=F64)
    mapped = torch.func.vmap(lambda one: shift_conv2d(one, weight))(x)
    torch.testing.assert_close(mapped[1], shift_conv2d(x[1], weight))


def test_layer_on_images():
    layer = ShiftConv2d(20, 6, stride=2, dilation=2, activation="relu")
    x = torch.randn(2, 20, 7, 8)
    expected = shift_conv2d(x, layer.weight, layer.bias, 3, 2, 2, "relu")
    torch.testing.assert_close(layer(x), expected)
    nn.Conv2d(20, 6, 1).load_state_dict(layer.state_dict())
    assert "20, 6, kernel_size=(3, 3), stride=(2, 2), dilation=(2, 2)" in repr(layer)


X, W = torch.ones(1, 9, 4, 4), torch.ones(2, 9)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[0, 0], W), {}, "shift_conv2d: input must be a tensor"),
        ((X, W[:, 1:]), {}, r"weight must be \[C_out, C_in/groups=9\]"),
        ((X, W, W[0]), {}, r"bias must be \[C_out=2\]"),
        ((X, W), {"kernel_size": 4}, "shift_conv2d: kernel_size must be odd, so that one offset"),
        ((X, W), {"kernel_size": 0}, "kernel_size must be a whole number from 1"),
        ((X, W), {"stride": 0}, "stride must be a whole number from 1"),
        ((X, W), {"dilation": (1, 2, 3)}, "dilation must be a whole number from 1"),
        ((X, W), {"dilation": 2**31 - 1, "kernel_size": 5}, "padding must be at most"),
        ((X, W), {"activation": "no"}, "activation must be one of"),
        ((X, W), {"residual": X}, "residual must be like the result"),
    ],
)
def test_image_refusals(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        shift_conv2d(*arguments, **options)


def test_layer_refusals():
    with pytest.raises(ValueError, match="ShiftConv2d: kernel_size must be odd"):
        ShiftConv2d(9, 2, kernel_size=2)
    with pytest.raises(ValueError, match="ShiftConv2d: in_channels must be a whole number from 1"):
        ShiftConv2d(0, 2)


def test_the_mix_is_all_that_is_counted():
    pixels, mix = 6 * 7, 20 * 5
    found = cost(ShiftConv2d(20, 5), (1, 20, 6, 7)).totals
    assert found.parameters == mix + 5
    assert found.multiplications == found.multiply_adds == pixels * mix
    # Two channels for each offset and two more at the centre; offsets miss a row, a column or both.
    outside = 2 * (2 * 7 + 2 * 6 + 4 * (6 + 7 - 1))
    assert found.on_padding == 5 * outside
    assert found.bytes_read == 4 * (20 * pixels - outside + mix + 5)
    assert found.bytes_written == 4 * 5 * pixels


# --- on clouds ------------------------------------------------------------------------------------


def wide(case: Case, channels: int = 60) -> Case:
    """The same cloud with channels for every cell."""
    return Case(f"{case.name}, shifted", case.points, (channels, 5), case.cell_size,
                case.kernel_size, case.dilation, case.reduction, case.dtype, case.coordinates,
                case.offsets, case.queries, case.query_offsets, case.layout)  # fmt: skip


CLOUDS = [
    wide(case)
    for case in named("1 points", "no points", "no queries", "queries of nothing", "batch, down",
                      "empty clouds in a batch", "duplicates", "lattice, half a cell apart",
                      "sliced, float64", "transposed", "kernel 3, dilation 2, mean",
                      "9 channels, float64")
] + [wide(case, 5) for case in named("2 points", "batch, up, sum")]  # fmt: skip


@each(CLOUDS)
def test_cloud_is_the_oracle(case, poisoned):
    x, weight, bias = case.features(), case.pointwise_weight(), case.bias_values()
    moved = oracle.shift(x.double().numpy(), case.table, case.rows, case.cells, case.mean)
    expected = moved @ weight.double().numpy().T + bias.double().numpy()
    grad = case.gradient(case.channels[1])
    back = grad.double().numpy() @ weight.double().numpy()
    x = x.detach().requires_grad_()
    out = cell_shift_conv(x, case.neighborhood(), weight, bias, reduction=case.reduction)
    oracle.assert_close(out.detach().numpy(), expected, case.terms)
    (d_x,) = torch.autograd.grad(out, x, grad)
    expected = oracle.shift_adjoint(back, case.table, len(x), case.cells, case.mean)
    oracle.assert_close(d_x.numpy(), expected, case.terms + case.rows, what="d features")


@each([case for case in CLOUDS if case.rows])
def test_cloud_adjoint(case, poisoned):
    """⟨Gx, a⟩ = ⟨x, Gᵀa⟩."""
    x = case.features().detach().requires_grad_()
    through = torch.eye(x.shape[1], dtype=case.dtype)
    out = cell_shift_conv(x, case.neighborhood(), through, reduction=case.reduction)
    a = case.gradient(x.shape[1])
    (back,) = torch.autograd.grad(out, x, a)
    pairs = (out.detach(), a), (x.detach(), back)
    forward, backward = ((one.double() * two.double()).sum() for one, two in pairs)
    size = sum((one.double() * two.double()).abs().sum() for one, two in pairs)
    assert abs(forward - backward) <= oracle.TOLERANCE * torch.finfo(case.dtype).eps * (
        case.terms**0.5
    ) * (1 + size)


SMALL = [
    Case("shift, batch", uniform(12), (29, 2), 0.4, dtype=F64, offsets=(0, 5, 5, 12)),
    Case("shift, borders", lattice(2, 0.25), (27, 2), 0.5, dtype=F64, reduction="sum"),
    Case("shift, queries", walls(9), (28, 1), 0.3, 3, 2, dtype=F64, queries=walls(7, 1)),
    Case("shift, centre", walls(6), (4, 3), 0.4, dtype=F64, layout="sliced"),
]


@each(SMALL)
def test_cloud_gradients_are_exact(case):
    given = (case.features(), case.pointwise_weight(), case.bias_values())
    neighborhood = case.neighborhood()
    assert torch.autograd.gradcheck(
        lambda x, w, b: cell_shift_conv(x, neighborhood, w, b, reduction=case.reduction),
        tuple(a.detach().requires_grad_() for a in given),
    )


@each(SMALL[:2])
def test_cloud_threads_change_no_bit(case, threads):
    found = []
    for count in (1, 2, 3):
        threads(count)
        x = case.features().detach().requires_grad_()
        out = cell_shift_conv(x, case.neighborhood(), case.pointwise_weight(), case.bias_values())
        out.square().sum().backward()
        found.append((out.detach(), x.grad))
    for results in zip(*found, strict=True):
        assert all(torch.equal(results[0], other) for other in results[1:])


def test_layer_on_clouds():
    cloud = PointCloud(torch.rand(50, 3))
    layer = CellShiftConv(60, 4, cell_size=0.3, reduction="sum")
    features = torch.randn(50, 60)
    where = cloud.neighborhood(0.3)
    expected = cell_shift_conv(features, where, layer.weight, layer.bias, reduction="sum")
    assert torch.equal(layer(features, cloud), expected)
    assert layer(features.bfloat16(), cloud).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features, cloud).dtype == torch.float32
    assert "60, 4, cell_size=0.3" in repr(layer)


def test_cloud_counts_are_exact():
    case = SMALL[0]
    x, rows, (c_in, c_out) = case.features(), case.rows, case.channels
    weight, bias, where = case.pointwise_weight(), case.bias_values(), case.neighborhood()
    found = cost(lambda x: cell_shift_conv(x, where, weight, bias), x).totals
    cells = {(int(q), int(m)) for q, m, _ in case.table}
    own = [c if c < 27 else 13 for c in range(c_in)]
    means = sum(1 for _, m in cells for cell in own if cell == m)
    assert found.multiply_adds == rows * c_in * c_out
    assert found.multiplications == rows * c_in * c_out + means


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (torch.ones(2, 8), {}, r"cell_shift_conv: weight must be \[C_out, C_in=9\]"),
        (torch.ones(0, 9), {}, "no size of weight may be 0"),
        (torch.ones(2, 9), {"bias": torch.ones(3)}, r"bias must be \[C_out=2\]"),
        (torch.ones(2, 9), {"reduction": "max"}, "reduction must be one of 'mean', 'sum'"),
    ],
)
def test_cloud_refusals(weight, options, message):
    cloud = PointCloud(torch.rand(4, 3))
    with pytest.raises(ValueError, match=message):
        cell_shift_conv(torch.ones(4, 9), cloud.neighborhood(0.3), weight, **options)
    with pytest.raises(TypeError, match="neighborhood must be a Neighborhood"):
        cell_shift_conv(torch.ones(4, 9), weight, weight)


def test_operators_on_clouds_refuse_what_does_not_fit():
    where = PointCloud(torch.rand(4, 3)).neighborhood(0.3)
    table, x, weight = (where.row_start, where.pairs), torch.ones(4, 9), torch.ones(2, 9)
    ops = torch.ops.pointwise
    with pytest.raises(ValueError, match="cell_shift_conv: kernel_size must be odd"):
        ops.cell_shift_conv(x, weight, None, *table, None, None, 2, True)
    with pytest.raises(ValueError, match="cell_shift_conv: features must be"):
        ops.cell_shift_conv(x[:, 1:], weight, None, *table, None, None, 3, True)
    with pytest.raises(ValueError, match="cell_shift_conv_grad_input: grad must be"):
        ops.cell_shift_conv_grad_input(x, weight, *table, None, None, 3, True, 4)
    with pytest.raises(ValueError, match="cell_shift_conv_grad_weight: grad must be"):
        ops.cell_shift_conv_grad_weight(x[1:], x, *table, 3, True)
