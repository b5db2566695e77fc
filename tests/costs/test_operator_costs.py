"""Every operator of ours has a formula; PyTorch's are counted as its own counter counts them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import pointwise.operators
from pointwise import PointCloud, cost
from pointwise.costs import trace
from pointwise.functional import depthwise_separable_conv2d


def test_no_operator_of_ours_is_without_a_formula():
    every = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("pointwise::")
    }
    every -= {"pointwise::fixed_norm", "pointwise::resize"}  # of graphs that are being traced
    assert len(every) >= 18
    assert every <= set(trace._FORMULAS)
    assert {n for n in trace._FORMULAS if n.startswith("pointwise::")} == every


def theirs(function, *inputs) -> float:
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (F.conv1d, [(2, 4, 20), (6, 4, 3)]),
        (F.conv2d, [(2, 4, 9, 9), (6, 4, 3, 3)]),
        (F.conv3d, [(2, 4, 5, 6, 7), (6, 4, 2, 3, 1)]),
        (lambda x, w: F.conv2d(x, w, groups=2, stride=2, padding=1), [(2, 4, 9, 9), (6, 2, 3, 3)]),
        (lambda x, w: F.conv2d(x, w, padding="same"), [(2, 4, 9, 9), (6, 4, 3, 3)]),
        (F.conv2d, [(4, 9, 9), (6, 4, 3, 3)]),
        (lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), [(2, 4, 9, 9), (4, 6, 4, 4)]),
        (lambda x, w: F.conv_transpose2d(x, w, groups=2), [(2, 4, 9, 9), (4, 3, 4, 4)]),
        (F.linear, [(5, 7), (3, 7)]),
        (F.linear, [(2, 5, 7), (3, 7), (3,)]),
        (torch.matmul, [(2, 3, 5, 7), (7, 4)]),
        (torch.matmul, [(2, 3, 5, 7), (2, 3, 7, 4)]),
        (torch.bmm, [(3, 5, 7), (3, 7, 4)]),
        (torch.baddbmm, [(3, 5, 4), (3, 5, 7), (3, 7, 4)]),
        (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [(2, 5, 7), (2, 4, 7)]),
        (torch.addmm, [(5, 4), (5, 7), (7, 4)]),
    ],
)
def test_products_agree_with_pytorch_s_counter(function, shapes):
    tensors = [torch.rand(shape) for shape in shapes]
    with torch.no_grad():
        found = cost(function, *shapes)
        assert found.totals.multiply_adds == theirs(function, *tensors) > 0
    assert not found.not_counted
    out = function(*tensors)
    assert max(count.bytes_written for count in found.by_kind().values()) >= 4 * out.numel()


def test_vectors_have_products_too():
    """Which PyTorch's counter leaves out."""
    assert cost(torch.mv, (5, 7), (7,)).totals.multiply_adds == 35
    assert cost(torch.dot, (7,), (7,)).totals.multiply_adds == 7
    assert cost(torch.addmv, (5,), (5, 7), (7,)).totals.multiply_adds == 35


def test_gradients_that_a_network_computes_as_it_runs():
    def penalty(x, w):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = F.conv2d(x, w.detach().requires_grad_(), padding=1).sum()
            return torch.autograd.grad(y, x)[0]

    found = cost(penalty, torch.rand(1, 2, 6, 6), torch.rand(3, 2, 3, 3)).totals
    assert found.multiply_adds == theirs(penalty, torch.rand(1, 2, 6, 6), torch.rand(3, 2, 3, 3))


def recorded(run) -> dict[str, int]:
    """Multiply-adds of each of our operators in ``run``, forward and backward."""
    seen: dict[str, int] = {}
    recorder = trace._Recorder(torch.nn.Module(), {}, None)
    count = recorder._count

    def spy(func, formula, given, out):
        before = sum(c.multiply_adds for c in recorder.place("").parts.values())
        count(func, formula, given, out)
        after = sum(c.multiply_adds for c in recorder.place("").parts.values())
        if after > before:
            seen[func._schema.name] = seen.get(func._schema.name, 0) + after - before

    recorder._count = spy
    with recorder:
        run()
    return seen


def test_gradients_of_ours_take_as_many_multiply_adds_as_the_convolution():
    x = torch.rand(2, 4, 6, 6, requires_grad=True)
    w = torch.rand(8, 2, 3, 3, requires_grad=True)
    ours = pointwise.functional.conv2d

    found = recorded(lambda: ours(x, w, padding=1, groups=2).sum().backward())
    products = 2 * 8 * 36 * 18
    assert found == {
        "pointwise::conv2d": products,
        "pointwise::conv2d_grad_input": products,
        "pointwise::conv2d_grad_weight": products,
    }
    cloud = PointCloud(torch.rand(50, 3))
    table = cloud.neighborhood(0.3)
    features = torch.rand(50, 3, requires_grad=True)
    weight = torch.rand(4, 3, 3, 3, 3, requires_grad=True)

    def cell_conv():
        pointwise.functional.cell_conv(features, table, weight).sum().backward()

    both = recorded(cell_conv)
    once = both["pointwise::cell_conv"]
    assert both == {"pointwise::cell_conv": once, "pointwise::cell_conv_grads": 2 * once}
    weight.requires_grad_(False)
    assert recorded(cell_conv)["pointwise::cell_conv_grad_input"] == once
    weight.requires_grad_(True)
    features.requires_grad_(False)
    assert recorded(cell_conv)["pointwise::cell_conv_grad_weight"] == once
    features.requires_grad_(True)
    depthwise = torch.rand(3, 1, 3, 3, 3, requires_grad=True)
    found = recorded(
        lambda: (
            pointwise.functional.cell_depthwise_conv(features, table, depthwise).sum().backward()
        )
    )
    assert len(set(found.values())) == 1
    matrix = torch.rand(4, 3, requires_grad=True)
    found = recorded(lambda: pointwise.functional.pointwise_conv(features, matrix).sum().backward())
    assert found == {
        "pointwise::pointwise_conv": 2 * 600,  # and the gradient of its input
        "pointwise::pointwise_conv_grad_weight": 600,
    }


def test_training_with_batch_norm():
    operator = torch.ops.pointwise.norm_conv2d
    z = torch.rand(2, 4, 6, 6, requires_grad=True)
    weight = torch.rand(8, 4, 3, 3, requires_grad=True)
    row = torch.rand(4)
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 1)

    def run():
        out, mean, _ = operator(z, row, row, row, 0.0, 6.0, weight, *geometry)
        scale = torch.ones_like(mean)
        torch.ops.pointwise.norm_act(out, mean, scale, scale, None, "relu").sum().backward()

    products = 2 * 8 * 36 * 36
    found = recorded(run)
    assert found["pointwise::norm_conv2d"] == products
    assert found["pointwise::norm_conv2d_backward"] == 2 * products


def test_the_separable_operator_is_both_halves():
    found = cost(
        lambda x, d, p: depthwise_separable_conv2d(x, d, p, padding=1, activation="relu"),
        (1, 8, 9, 9), (8, 1, 3, 3), (16, 8),
    ).by_kind()  # fmt: skip
    assert found["depthwise"].multiply_adds == 8 * 9 * 81
    assert found["pointwise"].multiply_adds == 16 * 8 * 81
    assert found["depthwise"].bytes_written == 0  # what lies between stays in cache
    assert found["pointwise"].bytes_read == 4 * 16 * 8
    assert found["activation"].others == 16 * 81


@pytest.mark.parametrize(
    ("function", "shapes", "kind", "work"),
    [
        (lambda x: x + 1, [(4, 5)], "element-wise", (0, 20, 0)),
        (lambda x, y: torch.add(x, y, alpha=3), [(4, 5), (4, 5)], "element-wise", (20, 20, 0)),
        (lambda x: x * x, [(4, 5)], "element-wise", (20, 0, 0)),
        (lambda x: x / 3, [(4, 5)], "element-wise", (0, 0, 20)),
        (torch.exp, [(4, 5)], "element-wise", (0, 0, 20)),
        (lambda x: x.add_(1), [(4, 5)], "element-wise", (0, 20, 0)),
        (F.gelu, [(4, 5)], "activation", (0, 0, 20)),
        (lambda x: torch.softmax(x, 1), [(4, 5)], "softmax", (0, 40, 60)),
        (lambda x: x.sum(1), [(4, 5)], "reduction", (0, 16, 0)),
        (lambda x: x.mean(), [(4, 5)], "reduction", (1, 19, 0)),
        (lambda x: x.amax(1), [(4, 5)], "reduction", (0, 0, 20)),
        (lambda x: F.max_pool2d(x, 3, 2, 1), [(1, 2, 8, 8)], "pooling", (0, 0, 32 * 8)),
        (lambda x: F.avg_pool2d(x, 2), [(1, 2, 8, 8)], "pooling", (32, 32 * 3, 0)),
        (lambda x: F.adaptive_avg_pool2d(x, 2), [(1, 2, 8, 8)], "pooling", (8, 120, 0)),
        (lambda x: F.layer_norm(x, (5,)), [(4, 5)], "norm", (40, 60, 0)),
        (lambda x, w: F.layer_norm(x, (5,), w, w), [(4, 5), (5,)], "norm", (60, 80, 0)),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [(1, 2, 4, 4)], "pooling",
         (4 * 128, 3 * 128, 0)),
        (lambda x, y: torch.cat((x, y)), [(4, 5), (3, 5)], "moving", (0, 0, 0)),
        (lambda x: F.pad(x, (1, 1)), [(4, 5)], "moving", (0, 0, 0)),
    ],
)  # fmt: skip
def test_what_works_number_by_number(function, shapes, kind, work):
    found = cost(function, *shapes)
    count = found.by_kind()[kind]
    assert (count.multiplications, count.additions, count.others) == work
    assert count.multiply_adds == 0
    assert count.bytes_read > 0
    assert count.bytes_written > 0
    assert not found.not_counted


def test_views_cost_nothing():
    found = cost(lambda x: x.view(5, 4).t().unsqueeze(0).expand(3, 4, 5)[:, 1:], (4, 5))
    assert found.layers == []
    expanded = cost(lambda x: x.expand(1000, 5) + 1, (1, 5)).totals
    assert expanded.bytes_read == 20  # each number once
