"""The engine under all convolutions: tiles, splits, threads; and would these tests notice?"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from cases import Case, uniform, walls
from hypothesis import given
from hypothesis import strategies as st

from pointwise.engine.cpu import launch
from pointwise.engine.cpu.gathers import cells
from pointwise.engine.cpu.gathers.points import CELLS, IDENTITY, Gather
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.loops.points import mixed_points
from pointwise.engine.cpu.loops.weight_gradient import points_weight_gradient
from pointwise.functional import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    pointwise_conv,
)
from pointwise.operators import cells as operators

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def random(*shape, dtype=torch.float32, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(values).to(dtype)


@DTYPES
@pytest.mark.parametrize("rows", [1, ROWS, 8 * ROWS - 1, 8 * ROWS, 8 * ROWS + 1, 40 * ROWS + 3])
@pytest.mark.parametrize("depth", [1, 33, 700])
def test_forward_at_every_size_of_tile(rows, depth, dtype, poisoned):
    x, weight, bias = random(rows, depth, dtype=dtype), random(depth, 19, dtype=dtype), random(19)
    bias = bias.to(dtype)
    found = mixed_points(Gather(IDENTITY, x, rows), weight, bias)
    exact = x.double() @ weight.double() + bias.double()
    oracle.assert_close(found.numpy(), exact.numpy(), depth + 1)


@DTYPES
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 127, 129, 64 * 64, 64 * 64 + 1, 9000])
def test_weight_gradient_at_every_number_of_splits(rows, dtype, poisoned):
    for depth, columns in ((1, 1), (17, 33), (70, 64)):
        x, grad = random(rows, depth, dtype=dtype), random(rows, columns, dtype=dtype, seed=1)
        found, sums = points_weight_gradient(Gather(IDENTITY, x, rows), grad)
        oracle.assert_close(found.numpy(), (x.double().t() @ grad.double()).numpy(), rows + 1)
        oracle.assert_close(sums.numpy(), grad.double().sum(0).numpy(), rows + 1)


def test_nothing_to_gather():
    assert mixed_points(Gather(IDENTITY, torch.zeros(0, 3), 0), torch.ones(3, 2), None).shape == (
        0,
        2,
    )
    assert mixed_points(Gather(IDENTITY, torch.zeros(4, 3), 4), torch.ones(3, 0), None).shape == (
        4,
        0,
    )
    no_input = Gather(IDENTITY, torch.zeros(2, 0), 2)
    assert mixed_points(no_input, torch.ones(0, 2), None).tolist() == [[0, 0], [0, 0]]
    bias = torch.tensor([1.0, 2.0])
    assert mixed_points(no_input, torch.ones(0, 2), bias).tolist() == [[1, 2], [1, 2]]
    total, sums = points_weight_gradient(no_input, torch.ones(2, 3))
    assert total.shape == (0, 3)
    assert sums.tolist() == [2, 2, 2]
    total, sums = points_weight_gradient(Gather(IDENTITY, torch.zeros(0, 2), 0), torch.ones(0, 3))
    assert total.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert sums.tolist() == [0, 0, 0]


def everything(case: Case) -> list[torch.Tensor]:
    """The outputs and gradients of all convolutions."""
    neighborhood = case.neighborhood()
    x, weight, depthwise, pointwise, bias = (
        a.detach().requires_grad_()
        for a in (case.features(), case.weight(), case.depthwise_weight(), case.pointwise_weight(),
                  case.random("bias", case.channels[1]))
    )  # fmt: skip
    results = []
    for out in (
        cell_conv(x, neighborhood, weight, bias),
        cell_depthwise_conv(x, neighborhood, depthwise),
        cell_separable_conv(x, neighborhood, depthwise, pointwise, bias),
        pointwise_conv(x, pointwise, bias),
    ):
        grad = case.random("gradient", *out.shape)
        inputs = [x, weight, bias, depthwise, pointwise]
        slopes = torch.autograd.grad(out, inputs, grad, allow_unused=True)
        results += [out.detach(), *(s for s in slopes if s is not None)]
    with torch.no_grad():
        results.append(cell_separable_conv(x, neighborhood, depthwise, pointwise, bias))
    return results


@pytest.mark.parametrize(
    "case",
    [
        Case("mirrored", walls(3000), (9, 20), 0.05),
        Case("other queries", walls(2000), (5, 18), 0.06, queries=walls(3000, 1)),
        Case("float64", walls(1500), (4, 9), 0.08, dtype=torch.float64),
    ],
    ids=lambda case: case.name,
)
def test_any_number_of_threads_gives_the_same_bits(case, threads):
    threads(1)
    alone = everything(case)
    assert len(alone) == 1 + 4 + 3 + 5 + 4
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, everything(case), strict=True):
            assert torch.equal(a, b)


def test_the_order_of_the_points_does_not_matter():
    case = Case("shuffled", walls(300), (7, 9), 0.1)
    order = np.random.default_rng(3).permutation(case.rows)
    x, weight, bias = case.features(), case.weight(), case.bias_values()
    shuffled = Case("shuffled", case.points[order], (7, 9), 0.1)
    out = cell_conv(x, case.neighborhood(), weight, bias)
    again = cell_conv(x[order], shuffled.neighborhood(), weight, bias)
    terms = oracle.terms(np.stack(case.neighborhood().decode(), 1), 9, 27)
    oracle.assert_close(again.numpy(), out[order].double().numpy(), terms)


@given(st.data())
def test_any_convolution_is_the_oracle(data):
    draw = data.draw
    count, asked = draw(st.integers(0, 40)), draw(st.none() | st.integers(0, 30))
    seed = draw(st.integers(0, 99))
    case = Case(
        f"drawn {seed}",
        uniform(count, seed=seed),
        (draw(st.integers(1, 40)), draw(st.integers(1, 40))),
        draw(st.sampled_from([0.1, 0.25, 0.6])),
        draw(st.sampled_from([1, 3])),
        draw(st.integers(1, 2)),
        draw(st.sampled_from(["mean", "sum"])),
        draw(st.sampled_from([torch.float32, torch.float64])),
        queries=None if asked is None else uniform(asked, seed=seed + 1),
        layout=draw(st.sampled_from(["contiguous", "sliced", "transposed"])),
    )
    x, weight = (a.detach().requires_grad_() for a in (case.features(), case.weight()))
    out = cell_conv(x, case.neighborhood(), weight, reduction=case.reduction)
    grad = case.gradient(case.channels[1])
    out.backward(grad)
    a, w, g = x.detach().numpy(), weight.detach().numpy(), grad.numpy()
    expected = oracle.cell_conv(a, case.table, case.rows, w, None, case.mean)
    d_x, d_weight, _ = oracle.cell_conv_gradients(g, a, case.table, w, case.mean)
    oracle.assert_close(out.detach().numpy(), expected, case.terms)
    assert x.grad is not None
    assert weight.grad is not None
    oracle.assert_close(x.grad.numpy(), d_x, case.terms)
    oracle.assert_close(weight.grad.numpy(), d_weight, case.terms + case.rows)


# --- would these tests notice? -------------------------------------------------------------------

BROKEN = Case("broken on purpose", walls(60), (5, 7), 0.2, dtype=torch.float32)


def sound() -> Gather:
    neighborhood = BROKEN.neighborhood()
    table = (neighborhood.row_start, neighborhood.pairs)
    return operators.gather_over_table(CELLS, BROKEN.features(), *table, BROKEN.cells, True)


def compare(gather: Gather) -> None:
    weight = BROKEN.weight()
    found = mixed_points(gather, operators._matrix(weight), None)
    table = BROKEN.table
    expected = oracle.cell_conv(
        BROKEN.features().numpy(), table, BROKEN.rows, weight.numpy(), None, True
    )
    oracle.assert_close(found.numpy(), expected, BROKEN.terms)


def _sums(gather):
    gather.mode = cells.SUM


def _turned(gather):
    gather.mirrored = True


def _cell_flipped(gather):
    gather.pairs = gather.pairs.clone()
    gather.pairs[100] ^= 1 << gather.bits


def _neighbour_swapped(gather):
    gather.pairs = gather.pairs.clone()
    gather.pairs[100] ^= 1


def _pair_lost(gather):
    gather.row_start = gather.row_start.clone()
    gather.row_start[-1] -= 1


def _one_feature_off(gather):
    gather.x = gather.x.clone()
    gather.x[7, 3] *= 1.001


def test_a_sound_kernel_passes():
    compare(sound())


@pytest.mark.parametrize(
    "damage", [_sums, _turned, _cell_flipped, _neighbour_swapped, _pair_lost, _one_feature_off]
)
def test_a_broken_kernel_is_noticed(damage):
    gather = sound()
    damage(gather)
    with pytest.raises(AssertionError, match="wrong"):
        compare(gather)


def test_an_element_that_nobody_writes_is_noticed(poisoned, monkeypatch):
    gather, run = sound(), launch.launch
    monkeypatch.setattr(launch, "launch", lambda *given: run(*given[:2], given[2] - 1))
    with pytest.raises(AssertionError, match="is nan"):
        compare(gather)


def test_a_table_with_a_wrong_pair_is_noticed():
    neighborhood = BROKEN.neighborhood()
    row_start, pairs = neighborhood.row_start.numpy(), neighborhood.pairs.numpy().copy()
    oracle.assert_same_table(row_start, pairs, BROKEN.table, BROKEN.rows, BROKEN.rows)
    pairs[50] ^= 1 << 6
    with pytest.raises(AssertionError, match="recall: 1 of"):
        oracle.assert_same_table(row_start, pairs, BROKEN.table, BROKEN.rows, BROKEN.rows)
