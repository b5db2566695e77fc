"""Every message a user can get from a check, as the whole sentence they read."""

from __future__ import annotations

import re

import pytest
import torch

from pointwise import checks
from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    pointwise_conv,
)


def refuses(kind, message, check, *arguments, **named):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        check("here", *arguments, **named)


def test_describe():
    assert checks.describe(torch.zeros(2, 3, dtype=torch.int16)) == "(2, 3) int16 on cpu"
    assert checks.describe([1, 2]) == "list"
    assert checks.describe(None) == "NoneType"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (torch.zeros(3), "(3,) float32 on cpu"),
        (torch.zeros(4, 2), "(4, 2) float32 on cpu"),
        (torch.zeros(1, 4, 3), "(1, 4, 3) float32 on cpu"),
        ([[0.0, 0.0, 0.0]], "list"),
    ],
)
def test_positions_of_another_shape(given, shown):
    message = f"here: points must be a tensor [N, 3], got {shown}"
    refuses(ValueError, message, checks.positions, "points", given)


def test_positions_of_another_type():
    for dtype, shown in ((torch.float16, "float16"), (torch.int64, "int64")):
        message = (
            f"here: points must be float32 or float64, got (2, 3) {shown} on cpu; "
            "convert with points.float()"
        )
        given = torch.zeros(2, 3, dtype=dtype)
        refuses(TypeError, message, checks.positions, "points", given)
    for dtype in (torch.float32, torch.float64):
        checks.positions("here", "points", torch.zeros(0, 3, dtype=dtype))


def test_offsets():
    def check(given, count=5):
        return checks.offsets, "offsets", given, count

    form = "here: offsets must be an int64 tensor [B+1], got "
    refuses(ValueError, form + "list", *check([0, 5]))
    refuses(ValueError, form + "(2,) int32 on cpu", *check(torch.tensor([0, 5]).int()))
    refuses(ValueError, form + "(1, 2) int64 on cpu", *check(torch.tensor([[0, 5]])))
    none = torch.zeros(0, dtype=torch.int64)
    refuses(ValueError, "here: offsets is empty; one cloud of N points is [0, N]", *check(none))
    rule = "here: offsets must start at 0, never fall and end at the number of points 5, got "
    for wrong in ([1, 5], [0, 4], [0, 6], [0, 3, 2, 5], [5, 0], [0]):
        refuses(ValueError, rule + str(wrong), *check(torch.tensor(wrong)))
    long = torch.tensor([0, 1, 2, 3, 4, 4, 4, 9])
    refuses(ValueError, rule + "[0, 1, 2, '…', 9]", *check(long))
    for right in ([0, 5], [0, 0, 5, 5], [0, 1, 2, 3, 4, 5]):
        checks.offsets("here", "offsets", torch.tensor(right), 5)
    checks.offsets("here", "offsets", torch.tensor([0]), 0)


def test_finite():
    row = torch.tensor([1.0, float("nan"), float("-inf")])
    message = (
        "here: points[7] is [1.0, nan, -inf]; coordinates must be finite: drop such points first, "
        "as in points[points.isfinite().all(1)]"
    )
    refuses(ValueError, message, checks.finite, "points", 7, row)
    checks.finite("here", "points", -1, row)


@pytest.mark.parametrize("given", [0, -1.0, float("nan"), float("inf"), "0.1", None])
def test_cell_size(given):
    message = "here: cell_size must be a positive length in the unit of the points, got " + repr(
        given
    )
    refuses(ValueError, message, checks.kernel, given, 3, 1)


@pytest.mark.parametrize("given", [0, 2, -3, 3.0, "3", None])
def test_kernel_size(given):
    message = (
        "here: kernel_size must be an odd whole number, so that a cell lies on the point itself, "
        f"got {given!r}"
    )
    refuses(ValueError, message, checks.kernel, 0.1, given, 1)


@pytest.mark.parametrize("given", [0, -1, 1.5, None])
def test_dilation(given):
    message = f"here: dilation must be a whole number from 1, got {given!r}"
    refuses(ValueError, message, checks.kernel, 0.1, 3, given)


def test_kernels_that_are_right():
    for kernel in ((0.1, 1, 1), (1, 3, 2), (1e-30, 15, 9)):
        checks.kernel("here", *kernel)


def test_table_width():
    # 27 cells take 5 bits and leave 27 for the index.
    checks.table_width("here", 1 << 27, 3)
    checks.table_width("here", 0, 3)
    message = (
        "here: 134,217,729 points with kernel_size=3 need 33 bits per neighbour and there are 32; "
        "cut the cloud into blocks or use a smaller kernel"
    )
    refuses(ValueError, message, checks.table_width, (1 << 27) + 1, 3)
    checks.table_width("here", 1 << 25, 5)
    with pytest.raises(ValueError, match="need 33 bits"):
        checks.table_width("here", 1 << 26, 5)


def test_features():
    form = "here: features must be a tensor [N=5, C], got "
    refuses(ValueError, form + "ndarray", checks.features, torch.zeros(5, 2).numpy(), 5)
    refuses(ValueError, form + "(5,) float32 on cpu", checks.features, torch.zeros(5), 5)
    message = (
        "here: features must be floating point, got (5, 2) int64 on cpu; "
        "convert with features.float()"
    )
    refuses(TypeError, message, checks.features, torch.zeros(5, 2).long(), 5)
    message = "here: features must have one row for each of the 5 points, got (4, 2) float32 on cpu"
    refuses(ValueError, message, checks.features, torch.zeros(4, 2), 5)
    for dtype in checks.FLOATS:
        checks.features("here", torch.zeros(5, 0, dtype=dtype), 5)


def test_weight():
    words = "[C_out, C_in=2]"
    for given, shown in (
        (torch.zeros(3, 4), "(3, 4) float32 on cpu"),
        (torch.zeros(3, 2, 1), "(3, 2, 1) float32 on cpu"),
        (None, "NoneType"),
    ):
        message = f"here: weight must be {words}, got {shown}"
        refuses(ValueError, message, checks.weight, "weight", given, (None, 2), words)
    checks.weight("here", "weight", torch.zeros(9, 2), (None, 2), words)


def test_alike():
    a = torch.zeros(2)
    message = (
        "here: b is (2,) float64 on cpu but a is (2,) float32 on cpu; "
        "convert one, as in b.to(a.dtype)"
    )
    refuses(TypeError, message, checks.alike, a=a, b=a.double())
    message = "here: b is on meta but a is on cpu; move one, as in b.to(a.device)"
    refuses(ValueError, message, checks.alike, a=a, b=torch.zeros(2, device="meta"))
    checks.alike("here", a=a, b=None, c=torch.ones(3))


def test_one_of():
    message = "here: reduction must be one of 'mean', 'sum', got 'max'"
    refuses(ValueError, message, checks.one_of, "reduction", "max", ("mean", "sum"))
    checks.one_of("here", "reduction", "sum", ("mean", "sum"))


# --- and through the functions that call them ---------------------------------------------------

CLOUD = PointCloud(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
X = torch.ones(5, 2)
KERNEL = torch.ones(4, 2, 3, 3, 3)
OWN = torch.ones(2, 1, 3, 3, 3)
MIX = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("function", "arguments", "kind", "message"),
    [
        (cell_conv, (X[:4], KERNEL), ValueError, "features must have one row for each of the 5"),
        (cell_conv, (None, KERNEL), ValueError, "features must be a tensor [N=5, C], got NoneType"),
        (cell_conv, (X, MIX), ValueError,
         "weight must be [C_out, C_in=2, 3, 3, 3], got (4, 2) float32 on cpu"),
        (cell_conv, (X, torch.ones(4, 2, 5, 5, 5)), ValueError,
         "weight must be [C_out, C_in=2, 3, 3, 3], got (4, 2, 5, 5, 5)"),
        (cell_conv, (X, KERNEL, torch.ones(3)), ValueError, "bias must be [C_out=4], got (3,)"),
        (cell_conv, (X, KERNEL, torch.ones(4).double()), TypeError,
         "bias is (4,) float64 on cpu but weight is"),
        (cell_conv, (X.double(), KERNEL), TypeError,
         "weight is (4, 2, 3, 3, 3) float32 on cpu but features is (5, 2) float64"),
        (cell_depthwise_conv, (X.long(), OWN), TypeError, "features must be floating point"),
        (cell_depthwise_conv, (X, KERNEL), ValueError, "weight must be [C=2, 1, 3, 3, 3], got (4,"),
        (cell_depthwise_conv, (X, OWN.double()), TypeError, "weight is (2, 1, 3, 3, 3) float64"),
        (cell_separable_conv, (X[0], OWN, MIX), ValueError, "features must be a tensor [N=5, C]"),
        (cell_separable_conv, (X, KERNEL, MIX), ValueError, "depthwise must be [C_in=2, 1, "),
        (cell_separable_conv, (X, OWN, MIX.t()), ValueError, "pointwise must be [C_out, C_in=2]"),
        (cell_separable_conv, (X, OWN, MIX, MIX), ValueError, "bias must be [C_out=4], got (4, 2)"),
        (cell_separable_conv, (X, OWN, MIX.double()), TypeError, "pointwise is (4, 2) float64"),
        (cell_separable_conv, (X.double(), OWN, MIX), TypeError, "depthwise is (2, 1, 3, 3, 3)"),
    ],
)  # fmt: skip
def test_the_message_begins_with_the_function(function, arguments, kind, message):
    features, *parameters = arguments
    neighborhood = CLOUD.neighborhood(0.5)
    whole = re.escape(f"{function.__name__}: {message}")
    with pytest.raises(kind, match=f"^{whole}"):
        function(features, neighborhood, *parameters)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [(cell_conv, (KERNEL,)), (cell_depthwise_conv, (OWN,)), (cell_separable_conv, (OWN, MIX))],
)
def test_an_unknown_reduction(function, parameters):
    message = f"^{function.__name__}: reduction must be one of 'mean', 'sum', got 'max'$"
    with pytest.raises(ValueError, match=message):
        function(X, CLOUD.neighborhood(0.5), *parameters, reduction="max")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((X[0], MIX), ValueError, "features must be a tensor [N, C_in], got (2,) float32 on cpu"),
        (([1.0], MIX), ValueError, "features must be a tensor [N, C_in], got list"),
        ((X.long(), MIX), TypeError, "features must be floating point"),
        ((X, MIX.t()), ValueError, "weight must be [C_out, C_in=2], got (2, 4) float32 on cpu"),
        ((X, MIX, torch.ones(1)), ValueError, "bias must be [C_out=4], got (1,) float32 on cpu"),
        ((X, MIX, torch.ones(4).half()), TypeError, "bias is (4,) float16 on cpu but weight is"),
        ((X.double(), MIX), TypeError, "weight is (4, 2) float32 on cpu but features is"),
    ],
)
def test_messages_of_pointwise_conv(arguments, kind, message):
    with pytest.raises(kind, match="^" + re.escape(f"pointwise_conv: {message}")):
        pointwise_conv(*arguments)
