"""Convolutions on point clouds as kernels for GPUs: against their plain forms in float64."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import oracle
import pytest
import torch
from cases import Case, each, lattice, named, uniform, walls

sys.path.insert(0, str(Path(__file__).parents[1] / "operators"))

from cell_calls import OPERATORS, PLAIN_FORMS, calls
from torch.library import opcheck

from pointwise.cloud.point_cloud import PointCloud
from pointwise.engine import gpu
from pointwise.functional import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    cell_shift_conv,
    pointwise_conv,
)

F64 = torch.float64
HALVES = (torch.float16, torch.bfloat16)

MIXES = ("cell_conv", "cell_depthwise_conv", "cell_shift_conv", "pointwise_conv")
"""The operators that have a gradient."""

# Each occupied cell costs the interpreter ten milliseconds, however many points there are.
FEW = [
    *named("1 points", "no points", "no queries", "queries of nothing"),
    Case("batch, down", walls(14), (3, 7), 0.3, offsets=(0, 8, 14), queries=walls(5, 1),
         query_offsets=(0, 2, 5)),
    Case("empty clouds", uniform(9), (3, 4), 0.4, offsets=(0, 0, 3, 3, 9)),
    Case("dilated", walls(12), (4, 5), 0.2, 3, 2),
    Case("dilated, sum", walls(12), (4, 5), 0.2, 3, 3, "sum"),
    Case("sliced, sum", walls(9), (5, 18), 0.3, dtype=F64, layout="sliced", reduction="sum"),
    Case("transposed, other queries", walls(9), (5, 3), 0.3, dtype=F64, layout="transposed",
         queries=uniform(7, seed=3)),
    Case("borders", lattice(2, 0.25), (3, 7), 0.5),
    Case("two tiles of rows", uniform(65, 0.3), (2, 3), 0.05, kernel_size=1),
    Case("tiles of channels", walls(6), (33, 65), 0.5, 1, dtype=F64),
    Case("too wide for one kernel", walls(6), (5, 65), 0.5, 1),
    Case("kernel 5", uniform(4, 0.3), (3, 2), 0.1, 5),
]  # fmt: skip
SLABS = Case("three slabs", walls(140), (2, 3), 0.1, 1)


@pytest.fixture
def halves(device, monkeypatch):
    """Where operators take half precision, as on GPUs."""
    monkeypatch.setattr(gpu, "runs_on", lambda device: True)
    return device


@pytest.fixture(scope="module")
def few():
    """Arguments of every operator for every case, by the case's name.

    Tables are the CPU's, made before its search is another, which takes the interpreter seconds.
    """
    return {case.name: calls(case) for case in (*FEW, SLABS)}


def there(arguments: tuple, device: str, dtype=None) -> tuple:
    """Arguments on a device, in another type if wanted."""

    def moved(x):
        if not isinstance(x, torch.Tensor):
            return x
        return x.to(device, dtype) if x.is_floating_point() else x.to(device)

    return tuple(map(moved, arguments))


def given(case: Case, name: str, device: str, dtype=None) -> tuple:
    """Arguments of an operator, in another type if wanted."""
    return there(calls(case)[name], device, dtype)


def in_double(name: str, arguments: tuple):
    """The plain form of an operator, in float64 and on the CPU."""
    return PLAIN_FORMS[name](
        *(
            (x.double() if x.is_floating_point() else x).cpu() if isinstance(x, torch.Tensor) else x
            for x in arguments
        )
    )


def compare(name: str, arguments: tuple, terms: int) -> None:
    """What an operator's form for GPUs gives, and what it has to."""
    found, plain = getattr(OPERATORS, name)(*arguments), in_double(name, arguments)
    if isinstance(found, torch.Tensor):
        found, plain = (found,), (plain,)
    for a, b in zip(found, plain, strict=True):
        assert a.dtype == arguments[0].dtype
        eps = torch.finfo(a.dtype).eps
        oracle.assert_close(a.double().cpu().numpy(), b.numpy(), terms, eps, name)


@pytest.mark.parametrize("name", PLAIN_FORMS)
@each(FEW)
def test_kernels_compute_what_the_plain_form_does(case, name, few, device):
    compare(name, there(few[case.name][name], device), case.terms + case.rows)


@pytest.mark.parametrize("name", PLAIN_FORMS)
@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_added_up_in_float32(name, dtype, halves):
    case = Case("halves", uniform(9, 0.4), (5, 7), 0.3)
    compare(name, given(case, name, halves, dtype), case.terms + case.rows)


@pytest.mark.parametrize("dtype", HALVES)
def test_many_halves_are_not_lost(dtype, halves):
    # One and forty quarters of its last digit: a sum in half precision would stay at one.
    eps, many = torch.finfo(dtype).eps, 40
    x = torch.tensor([1.0] + [eps / 4] * many, dtype=dtype, device=halves)[:, None]
    row_start = torch.tensor([0, 1 + many], device=halves)
    pairs = torch.arange(1 + many, dtype=torch.int32, device=halves)
    weight = torch.ones(1, 1, 1, 1, 1, dtype=dtype, device=halves)
    for name in ("cell_conv", "cell_depthwise_conv"):
        bias = (None,) if name == "cell_conv" else ()
        out = getattr(OPERATORS, name)(x, weight, *bias, row_start, pairs, None, None, False)
        assert out.item() == 1 + eps * many / 4


def test_functions_keep_halves_and_compute_mixed_types_in_float32(halves):
    case = Case("halves", uniform(5, 0.3), (3, 2), 0.4, 1)
    neighborhood, x, weight = case.neighborhood(), case.features().half(), case.weight()
    assert cell_conv(x, neighborhood, weight.half()).dtype == torch.float16
    mixed = cell_conv(x, neighborhood, weight)
    assert torch.equal(mixed, cell_conv(x.float(), neighborhood, weight).half())


def test_float32_is_rounded_where_pytorch_may(device):
    from pointwise.engine.gpu.mix import precision

    before = torch.get_float32_matmul_precision()
    try:
        for allowed, expected in (("high", "tf32"), ("highest", "ieee")):
            torch.set_float32_matmul_precision(allowed)
            assert precision(torch.float32) == expected
            assert precision(torch.float64) == precision(torch.float16) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)


SMALL = [
    Case("batch", uniform(5, 0.3), (2, 3), 0.4, dtype=F64, offsets=(0, 2, 2, 5)),
    Case("sum, other queries", walls(4), (3, 1), 0.3, 3, 2, "sum", F64, queries=walls(2, 1)),
]


@each(SMALL)
def test_gradients_are_exact(case, device):
    cloud, asked = (
        PointCloud(cloud.points.to(device), cloud.offsets.to(device)) for cloud in case.clouds()
    )
    where = case.cell_size, case.kernel_size, case.dilation
    queries = None if case.queries is None else asked
    neighborhood, reduction = cloud.neighborhood(*where, queries), case.reduction
    x, weight, bias, depthwise, pointwise = (
        a.to(device).detach().requires_grad_()
        for a in (case.features(), case.weight(), case.bias_values(), case.depthwise_weight(),
                  case.pointwise_weight())
    )  # fmt: skip

    def check(function, *inputs):  # one direction, where each number would take minutes
        how = {"fast_mode": True, "check_undefined_grad": False}
        assert torch.autograd.gradcheck(function, inputs, **how)

    check(lambda x, w, b: cell_conv(x, neighborhood, w, b, reduction=reduction), x, weight, bias)
    check(lambda x, w: cell_depthwise_conv(x, neighborhood, w, reduction=reduction), x, depthwise)
    check(
        lambda x, *w: cell_separable_conv(x, neighborhood, *w, reduction=reduction),
        x, depthwise, pointwise, bias,
    )  # fmt: skip
    check(
        lambda x, *w: cell_shift_conv(x, neighborhood, *w, reduction=reduction), x, pointwise, bias
    )
    check(pointwise_conv, x, pointwise, bias)


def wanting_gradients(arguments: tuple) -> tuple:
    return tuple(
        a.detach().clone().requires_grad_()
        if isinstance(a, torch.Tensor) and a.is_floating_point()
        else a
        for a in arguments
    )


@pytest.mark.parametrize("name", PLAIN_FORMS)
def test_opcheck(name, device):
    case = Case("opcheck", walls(6), (3, 2), 0.5, 1, queries=walls(4, 1))
    arguments = given(case, name, device)
    opcheck(
        getattr(OPERATORS, name).default,
        wanting_gradients(arguments) if name in MIXES else arguments,
    )


@pytest.mark.parametrize("name", ["cell_conv_grad_weight", "cell_depthwise_conv_grad_weight"])
def test_slabs_of_rows_add_up(name, few, device, monkeypatch):
    from pointwise.engine.gpu.loops import points_gradient

    monkeypatch.setattr(points_gradient, "_LEAST", points_gradient.ROWS)
    assert points_gradient._slabs(SLABS.rows, SLABS.cells) == (3, 64)
    compare(name, there(few[SLABS.name][name], device), SLABS.terms + SLABS.rows)


def test_the_table_read_from_the_other_side_is_its_transpose(device):
    case = Case("nobody on a border", walls(12) + 0.001 * uniform(12, seed=9), (3, 2), 0.3)
    assert case.neighborhood().symmetric
    arguments = calls(case)
    for name in ("cell_conv_grad_input", "cell_depthwise_conv_grad_input",
                 "cell_shift_conv_grad_input"):  # fmt: skip
        whole = there(arguments[name], device)
        mirrored = [None if x is whole[4] or x is whole[5] else x for x in whole]
        found = (getattr(OPERATORS, name)(*each) for each in (whole, mirrored))
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


# --- what is said of tables, of autocast, and to compilers ----------------------------------------


@pytest.fixture
def asserting(device, monkeypatch):
    """Where ``device_assert`` does what it does on a GPU."""
    if torch.cuda.is_available():
        pytest.skip("it would stop the device for all other tests")
    from triton.runtime import interpreter

    options = interpreter.InterpreterOptions(debug=True, sanitize_overflow=False)
    monkeypatch.setattr(interpreter.interpreter_builder, "options", options)


@pytest.mark.parametrize(
    ("of", "place", "value"),
    [(0, -1, 10**6), (0, 0, -1), (0, 0, 1), (0, 3, 10**9), (0, 3, -4), (1, 0, 2**31 - 1),
     (1, -1, -1), (1, 5, 26 << 7 | 89)],
)  # fmt: skip
def test_a_table_of_others_stops_the_device(of, place, value, asserting):
    from pointwise.engine.gpu.gathers.cells import bounds

    (case,) = named("batch, down")
    neighborhood = case.neighborhood()
    table = [neighborhood.row_start.clone(), neighborhood.pairs.clone()]
    bounds(*table, len(case.points), case.cells)
    table[of][place] = value
    with pytest.raises(Exception, match="no table of these points and kernel cells"):
        bounds(*table, len(case.points), case.cells)


@pytest.mark.parametrize("name", MIXES)
def test_autocast_on_gpus_is_followed(name, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    (case,) = named("batch, down")
    arguments = given(case, name, "cpu")
    shapes = [x.to("meta") if isinstance(x, torch.Tensor) else x for x in arguments]
    with FakeTensorMode() as mode:
        there = [
            FakeTensor(mode, x, torch.device("cuda", 0)) if isinstance(x, torch.Tensor) else x
            for x in shapes
        ]
        for kernels, expected in ((True, torch.bfloat16), (False, torch.float32)):
            monkeypatch.setattr(gpu, "runs_on", lambda device, kernels=kernels: kernels)
            before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            try:
                out = getattr(OPERATORS, name)(*there)
            finally:
                torch.set_autocast_enabled("cuda", before[0])
                torch.set_autocast_dtype("cuda", before[1])
            assert (out.dtype, out.device.type) == (expected, "cuda")


def test_whether_kernels_run_is_a_constant_to_the_compiler(device):
    @torch.compile(backend="eager", fullgraph=True)
    def function(x):
        return x + gpu.runs_on(torch.device("cuda"))

    assert function(torch.zeros(1)).item() == gpu.runs_on(torch.device("cuda"))


@pytest.mark.gpu
def test_no_form_waits_for_the_device(device):
    (case,) = named("batch, down")
    for name in PLAIN_FORMS:
        arguments = given(case, name, device)
        getattr(OPERATORS, name)(*arguments)  # compiled
        torch.cuda.set_sync_debug_mode("error")
        try:
            getattr(OPERATORS, name)(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_graph_holds_forward_and_backward(device):
    (case,) = named("batch, down")
    x, weight, bias, *rest = given(case, "cell_conv", device)
    leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias)]

    def step():
        out = OPERATORS.cell_conv(*leaves, *rest)
        return out, *torch.autograd.grad(out.square().sum(), leaves)

    eager = step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = step()
    graph.replay()
    for a, b in zip(held, eager, strict=True):
        assert torch.equal(a, b)


# --- would these tests notice? -------------------------------------------------------------------

BROKEN = Case("broken on purpose", walls(12), (5, 7), 0.5)


def _changed(points, monkeypatch, **change):
    over_table = points.over_table

    def changed(*arguments):
        return replace(over_table(*arguments), **change)

    monkeypatch.setattr(points, "over_table", changed)


def _sound(points, gathers, monkeypatch):
    pass


def _sums(points, gathers, monkeypatch):
    _changed(points, monkeypatch, mode=gathers.SUM.value)


def _turned(points, gathers, monkeypatch):
    _changed(points, monkeypatch, mirrored=True)


def _one_border_off(points, gathers, monkeypatch):
    bounds = gathers.bounds

    def off(*arguments):
        found = bounds(*arguments)
        found[7, 13] += 1  # where its middle cell begins
        return found

    monkeypatch.setattr(gathers, "bounds", off)


def _last_forgotten(points, gathers, monkeypatch):
    fill = gathers.fill

    def forgetful(x, pairs, counts, start, count, *rest):
        return fill(x, pairs, counts, start, count - (count > 1).to(count.dtype), *rest)

    monkeypatch.setattr(gathers, "fill", forgetful)


def _largest_left_out(points, gathers, monkeypatch):
    product = points.product

    def missed(a, b, total, *how):
        return product(a * (a < 2).to(a.dtype), b, total, *how)

    monkeypatch.setattr(points, "product", missed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are changed in the interpreter")
@pytest.mark.parametrize(
    "damage", [_sound, _sums, _turned, _one_border_off, _last_forgotten, _largest_left_out]
)
def test_a_broken_kernel_is_noticed(damage, device, monkeypatch):
    from pointwise.engine.gpu.gathers import cells as gathers
    from pointwise.engine.gpu.loops import points

    damage(points, gathers, monkeypatch)
    with (
        nullcontext()
        if damage is _sound
        else pytest.raises(AssertionError, match=r"wrong; .* expected .* allowed error")
    ):
        compare("cell_conv", given(BROKEN, "cell_conv", device), BROKEN.terms)
