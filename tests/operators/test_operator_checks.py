"""What operators refuse when they are called directly: none follows a table it cannot trust."""

from __future__ import annotations

import pytest
import torch
from cases import named
from cell_calls import OPERATORS, calls
from norm_cases import FEW, operands

TABLES = {
    "cell_conv": 3, "cell_conv_grad_input": 2, "cell_conv_grad_weight": 3,
    "cell_conv_grads": 3,
    "cell_depthwise_conv": 2, "cell_depthwise_conv_grad_input": 2,
    "cell_depthwise_conv_grad_weight": 3, "cell_separable_conv": 4,
}  # fmt: skip
"""Where each operator's row_start is; its pairs are next."""


def changed(name, place, value, case="batch, down"):
    arguments = list(calls(named(case)[0])[name])
    arguments[place] = value(arguments[place])
    return lambda: getattr(OPERATORS, name)(*arguments)


def written(place, value):
    def write(table):
        table = table.clone()
        table[place] = value
        return table

    return write


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("of", "change"),
    [
        (0, written(-1, 10**6)), (0, written(0, -1)), (0, written(3, 10**9)), (0, written(3, -4)),
        (0, lambda table: table[:-1]),
        (1, written(0, 2**31 - 1)), (1, written(-1, -1)), (1, written(5, 1 << 26)),
        (1, lambda table: table[:-1]), (1, lambda table: table.flip(0)),
    ],
)  # fmt: skip
def test_a_table_of_others(name, of, change):
    message = f"^{name}: (row_start .* no table of|grad must be|.*rows in the table for)"
    with pytest.raises(ValueError, match=message):
        changed(name, TABLES[name] + of, change)()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_type(name):
    for of, change in ((0, torch.Tensor.int), (1, torch.Tensor.long)):
        with pytest.raises(ValueError, match=f"{name}: .* of a table must be int"):
            changed(name, TABLES[name] + of, change)()


@pytest.mark.parametrize("write", [
    lambda pairs: pairs.data.__setitem__(0, 2**31 - 1),
    lambda pairs: pairs.numpy().__setitem__(0, 2**31 - 1),
])  # fmt: skip
def test_a_table_written_to_without_a_trace(write):
    arguments = calls(named("batch, down")[0])["cell_depthwise_conv"]
    OPERATORS.cell_depthwise_conv(*arguments)
    write(arguments[3])
    with pytest.raises(ValueError, match="no table of 90 points and 27 kernel cells"):
        OPERATORS.cell_depthwise_conv(*arguments)


def test_a_transposed_table():
    for name in ("cell_conv_grad_input", "cell_depthwise_conv_grad_input"):
        with pytest.raises(ValueError, match="no table of 20 points"):
            changed(name, 5, written(0, -1))()
        with pytest.raises(ValueError, match="give both back_row_start and back_pairs"):
            changed(name, 5, lambda _: None)()
        with pytest.raises(ValueError, match=r"back_row_start must be \[92\], one more than"):
            changed(name, 7, lambda points: points + 1)()
        for points in (-1, 2**62):
            with pytest.raises(ValueError, match="points must be a whole number from 0"):
                changed(name, 7, lambda _, points=points: points)()


@pytest.mark.parametrize("name", [*TABLES, "pointwise_conv", "pointwise_conv_grad_weight"])
def test_tensors_of_other_shapes_types_and_devices(name):
    for place, given in enumerate(calls(named("batch, down")[0])[name]):
        if not isinstance(given, torch.Tensor) or not given.is_floating_point():
            continue
        wrong = [given.half(), given.double(), given.to("meta"), given.to_sparse(), given[None]]
        for value in wrong:
            with pytest.raises((ValueError, TypeError), match=name):
                changed(name, place, lambda _, value=value: value)()
        for device in ("cpu", "meta"):  # shapes alone are refused in the same words
            arguments = [
                a.to(device) if isinstance(a, torch.Tensor) else a
                for a in calls(named("batch, down")[0])[name]
            ]
            arguments[place] = arguments[place][..., None]
            with pytest.raises(ValueError, match=f"{name}: .* must be "):
                getattr(OPERATORS, name)(*arguments)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, lambda z: z[0], "z must be a tensor .N, C, H, W."),
        (0, lambda z: z[:0], "there is no mean of no pixels"),
        (1, lambda row: row[:-1], "mean must be .3."),
        (2, lambda row: None, "give all of mean, scale and shift, or none"),
        (3, lambda row: row.double(), "shift is .3,. float64"),
        (4, lambda low: float("nan"), "low must be a number up to high"),
        (6, lambda weight: weight[:, :-1], "a weight of .* does not fit input"),
        (7, lambda stride: [0, 1], "stride must be a whole number from 1"),
        (7, lambda stride: [2**62, 1], "stride must be at most 2,147,483,647"),
        (8, lambda padding: [-1, 0, 0, 0], "padding must be four whole numbers from 0"),
        (10, lambda groups: 2, "groups must be a whole number that divides"),
    ],
)
def test_operators_of_training(place, value, message):
    arguments = list(operands(FEW[0]).given)
    arguments[place] = value(arguments[place])
    with pytest.raises((ValueError, TypeError), match=f"norm_conv2d: {message}"):
        OPERATORS.norm_conv2d(*arguments)


def test_an_activation_that_nobody_knows_in_training():
    o = operands(FEW[0])
    for activation in ("", "bogus"):
        with pytest.raises(ValueError, match="norm_act: activation must be one of 'none'"):
            OPERATORS.norm_act(o.z, o.mean, o.scale, o.shift, None, activation)
    with pytest.raises(ValueError, match="norm_act: residual must be like z"):
        OPERATORS.norm_act(o.z, o.mean, o.scale, o.shift, o.z[:1], "relu")


def test_no_channels():
    arguments = list(calls(named("batch, down")[0])["cell_conv"])
    arguments[0], arguments[1] = arguments[0][:, :0], arguments[1][:, :0]
    with pytest.raises(ValueError, match="cell_conv: no size of weight may be 0"):
        OPERATORS.cell_conv(*arguments)


def test_none_for_a_tensor():
    arguments = calls(named("batch, down")[0])
    for name in (*TABLES, "pointwise_conv", "voxel_grid", "cell_search"):
        with pytest.raises(TypeError, match=f"^{name}: .* must be a tensor, got None$"):
            getattr(OPERATORS, name)(None, *arguments[name][1:])


def test_a_size_that_is_none_of_an_image():
    grad, weight = torch.zeros(1, 2, 3, 3), torch.zeros(2, 2, 1, 1)
    for size in ([-1, 2, 3, 3], [2, 3, 3]):
        with pytest.raises(ValueError, match=r"conv2d_grad_input: size must be \[N, C, H, W\]"):
            OPERATORS.conv2d_grad_input(grad, weight, size, [1, 1], [0] * 4, [1, 1], 1)


PLACED = ([1, 1], [1, 1, 1, 1], [1, 1])


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("conv2d", ((1, 3, 5, 5), (4, 2, 3, 3), None, None, *PLACED, 1, "none"), "does not fit"),
        (
            "separable_conv2d",
            ((1, 3, 5, 5), (3, 1, 3, 3), (4, 2, 1, 1), *[None] * 3, *PLACED, "none", "none"),
            "does not fit",
        ),
        ("conv2d_grad_input", ((1, 5, 5, 5), (4, 3, 3, 3), [1, 3, 5, 5], *PLACED, 1), "grad must"),
        ("conv2d_grad_weight", ((1, 4, 5, 5), (1, 3, 5, 5), [4, 2, 3, 3], *PLACED, 1), "fit"),
    ],
)
def test_images_are_checked_whoever_calls(name, arguments, message, device):
    """In every form of the operator: also where shapes alone are computed."""
    given = [torch.zeros(x, device=device) if isinstance(x, tuple) else x for x in arguments]
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        getattr(OPERATORS, name)(*given)


def test_images_on_several_devices():
    weight = torch.zeros(4, 3, 3, 3, device="meta")
    with pytest.raises(ValueError, match="conv2d: weight is on meta but input is on cpu"):
        OPERATORS.conv2d(torch.zeros(1, 3, 5, 5), weight, None, None, *PLACED, 1, "none")
