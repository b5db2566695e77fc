"""What PyTorch knows about the operators: plain forms, shapes, gradients, opcheck."""

from __future__ import annotations

import subprocess
import sys

import oracle
import pytest
import torch
from cases import Case, each, lattice, named, uniform, walls
from cell_calls import OPERATORS, PLAIN_FORMS, calls
from torch.library import opcheck

from pointwise.engine.cpu.search.neighbours import grid_search
from pointwise.engine.cpu.search.voxels import voxel_grid
from pointwise.functional import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    pointwise_conv,
)
from pointwise.operators import cells as operators

F64 = torch.float64

FEW = named(
    "no points",
    "queries of nothing",
    "batch, down",
    "batch, up, sum",
    "kernel 5, dilation 2, sum",
    "sliced, float64",
    "transposed",
    "duplicates",
    "lattice, half a cell apart",
    "17 channels, float64",
)


PLAIN = {"cell_search": operators._search_anywhere, "voxel_grid": voxel_grid, **PLAIN_FORMS}


# Tested in test_image_operators.py, test_image_training.py and test_shift_operators.py.
ON_IMAGES = (
    "conv2d",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "separable_conv2d",
    "shift_conv2d",
    "shift_conv2d_grad_input",
    "shift_conv2d_grad_weight",
    "norm_conv2d",
    "norm_conv2d_backward",
    "norm_act",
    "norm_act_backward",
)


def test_every_operator_is_here_and_has_a_form_for_other_devices():
    known = torch._C._dispatch_get_all_op_names()
    # What graphs are traced with is there once something has been accelerated.
    traced = {"pointwise::fixed_norm", "pointwise::resize"}
    assert {f"pointwise::{name}" for name in (*PLAIN, *ON_IMAGES)} == {
        name for name in known if name.startswith("pointwise::") and name not in traced
    }
    for name in (*PLAIN, *ON_IMAGES):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(
            f"pointwise::{name}", "CompositeExplicitAutograd"
        )


@pytest.mark.parametrize("name", PLAIN)
@each(FEW)
def test_kernel_and_plain_form_agree(case, name, poisoned):
    arguments = calls(case)[name]
    found, plain = getattr(OPERATORS, name)(*arguments), PLAIN[name](*arguments)
    if isinstance(found, torch.Tensor):
        found, plain = (found,), (plain,)
    for a, b in zip(found, plain, strict=True):
        assert a.dtype == b.dtype
        if a.dtype.is_floating_point:
            oracle.assert_close(a.numpy(), b.double().numpy(), case.terms + case.rows)
        else:
            assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("name", PLAIN)
def test_on_a_gpu(name):
    (case,) = named("batch, down")
    arguments = calls(case)[name]
    found = getattr(OPERATORS, name)(
        *(a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments)
    )
    expected = getattr(OPERATORS, name)(*arguments)
    if isinstance(found, torch.Tensor):
        found, expected = (found,), (expected,)
    for a, b in zip(found, expected, strict=True):
        assert a.is_cuda
        if a.dtype.is_floating_point:
            oracle.assert_close(a.cpu().numpy(), b.double().numpy(), case.terms + case.rows)
        else:
            assert torch.equal(a.cpu(), b)


def wanting_gradients(arguments: tuple) -> tuple:
    return tuple(
        a.detach().clone().requires_grad_()
        if isinstance(a, torch.Tensor) and a.dtype.is_floating_point
        else a
        for a in arguments
    )


@pytest.mark.parametrize("name", PLAIN)
def test_opcheck(name):
    (case,) = named("batch, down")
    arguments = calls(case)[name]
    if name in ("cell_conv", "cell_depthwise_conv", "cell_shift_conv", "pointwise_conv"):
        arguments = wanting_gradients(arguments)
    opcheck(getattr(OPERATORS, name).default, arguments)


SMALL = [
    Case("batch", uniform(12), (2, 3), 0.4, dtype=F64, offsets=(0, 5, 5, 12)),
    Case("borders", lattice(2, 0.25), (1, 2), 0.5, dtype=F64, reduction="sum"),
    Case("dilated, other queries", walls(9), (3, 1), 0.3, 3, 2, dtype=F64, queries=walls(7, 1)),
    Case("wide", walls(6), (9, 17), 0.4, kernel_size=1, dtype=F64, layout="sliced"),
    Case("nobody", walls(3), (2, 2), dtype=F64, queries=walls(2) + 9.0),
]


@each(SMALL)
def test_gradients_are_exact(case):
    neighborhood, how = case.neighborhood(), case.reduction
    x, weight, bias, depthwise, pointwise = (
        a.detach().requires_grad_()
        for a in (case.features(), case.weight(), case.bias_values(), case.depthwise_weight(),
                  case.pointwise_weight())
    )  # fmt: skip
    check = torch.autograd.gradcheck
    assert check(lambda x, w, b: cell_conv(x, neighborhood, w, b, reduction=how), (x, weight, bias))
    assert check(
        lambda x, w: cell_depthwise_conv(x, neighborhood, w, reduction=how), (x, depthwise)
    )
    assert check(
        lambda *a: cell_separable_conv(a[0], neighborhood, *a[1:], reduction=how),
        (x, depthwise, pointwise, bias),
    )
    assert check(pointwise_conv, (x, pointwise, bias))


@pytest.mark.parametrize(
    "name", ["cell_conv", "cell_depthwise_conv", "cell_shift_conv", "pointwise_conv"]
)
def test_only_the_gradients_asked_for(name):
    (case,) = named("batch, down")
    plain = calls(case)[name]
    every = [i for i, a in enumerate(wanting_gradients(plain)) if getattr(a, "requires_grad", 0)]
    assert len(every) >= 2

    def gradients(asked):
        given = [a.clone().requires_grad_() if i in asked else a for i, a in enumerate(plain)]
        out = getattr(OPERATORS, name)(*given)
        out.sum().backward()
        return {i: given[i].grad for i in asked}

    whole = gradients(every)
    for i in every:
        if name == "cell_conv":  # both gradients from one gather add up in another order
            torch.testing.assert_close(gradients([i])[i], whole[i])
        else:
            assert torch.equal(gradients([i])[i], whole[i])


@pytest.mark.parametrize(
    "name", ["cell_conv", "cell_depthwise_conv", "cell_shift_conv", "pointwise_conv"]
)
def test_second_derivatives_are_refused_not_wrong(name):
    (case,) = named("batch, down")
    arguments = wanting_gradients(calls(case)[name])
    out = getattr(OPERATORS, name)(*arguments)
    (slope,) = torch.autograd.grad(out.square().sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


def test_search_knows_its_points_are_its_queries_through_the_dispatcher():
    (case,) = named("UTM")
    arguments = calls(case)["cell_search"]
    assert bool(OPERATORS.cell_search(*arguments)[2])
    assert bool(operators._search_anywhere(*arguments)[2])
    assert bool(grid_search(*arguments)[2])


@pytest.mark.slow
def test_the_compiler_is_not_imported_for_a_convolution():
    # torch._dynamo takes as long to import as the rest of torch.
    code = """if True:
        import sys, torch
        from pointwise import CellConv, PointCloud
        features = torch.rand(30, 3, requires_grad=True)
        CellConv(3, 4, cell_size=0.3)(features, PointCloud(torch.rand(30, 3))).sum().backward()
        sys.exit("torch._dynamo" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
