"""The matrix product under every convolution against NumPy: odd shapes, strides, starts."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gemm import (
    FROM_BIAS,
    FROM_NOTHING,
    FROM_ROWS,
    ROWS,
    multiply,
    multiply_turned,
)
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.pack import pack, pack_kernels, pad_row, padded_columns
from pointwise.engine.cpu.product import TILE_ROW
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of, number

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
STARTS = pytest.mark.parametrize(
    "start",
    [FROM_NOTHING, FROM_ROWS, FROM_BIAS, FROM_ROWS | FROM_BIAS],
    ids=["nothing", "rows", "bias", "rows and bias"],
)
EVERYTHING = (-float("inf"), float("inf"))


PRODUCT = Layout(
    "Product",
    "*a *b *c *source *bias turned a_stride b_stride depth c_row rows columns start "
    "source_row low:real high:real",
)


@device
def _multiply(arguments, program, thread, like):
    """``multiply``, or ``multiply_turned``, with its arguments from a table."""
    own = PRODUCT(arguments)
    low, high = number(own.low, like), number(own.high, like)
    if own.turned:
        multiply_turned(own.a, own.a_stride, ROWS * bytes_of(like), own.b, own.b_stride, own.depth,
                        own.c, own.c_row, own.rows, own.columns, own.start, own.source,
                        own.source_row, low, high, 0, 0, 0, like)  # fmt: skip
    else:
        multiply(own.a, own.a_stride, own.a_stride == TILE_ROW, own.b, own.b_stride, own.depth,
                 own.c, own.c_row, own.rows, own.columns, own.start, own.source, own.source_row,
                 own.bias, low, high, 0, 0, 0, like)  # fmt: skip


KERNELS = by_dtype(_multiply, "product_of_a_test")


class Matrices:
    """A, B, bias and C for one product, with NaN wherever nothing may be read or kept."""

    def __init__(self, rows, columns, depth, dtype, row_bytes=None, turned=False) -> None:
        generator = np.random.default_rng(rows * 10_000 + columns * 100 + depth)
        size = dtype.itemsize
        self.dtype, self.rows, self.columns, self.depth = dtype, rows, columns, depth
        self.turned = turned
        a = torch.from_numpy(generator.standard_normal((rows, depth))).to(dtype)
        b = torch.from_numpy(generator.standard_normal((depth, columns))).to(dtype)
        # Rows past the last one are read and dropped: a whole block of ROWS is there, full of NaN.
        whole = -(-rows // ROWS) * ROWS
        if turned:  # A's rows are the columns of what lies in memory
            self.stored_a = torch.full((depth, whole), float("nan"), dtype=dtype)
            self.stored_a[:, :rows] = a.t()
            self.a_stride = whole * size
        else:
            self.a_stride = row_bytes or max(1, depth) * size
            self.stored_a = torch.full((whole, self.a_stride // size), float("nan"), dtype=dtype)
            self.stored_a[:rows, :depth] = a
        self.b, self.b_stride = pack(b), depth * REGISTER_BYTES
        if turned:  # and B's, with room for a whole register behind
            self.b_stride = (columns * size // REGISTER_BYTES + 2) * REGISTER_BYTES
            self.b = torch.full((depth, self.b_stride // size), float("nan"), dtype=dtype)
            self.b[:, :columns] = b
        self.bias = torch.from_numpy(generator.standard_normal(columns)).to(dtype)
        self.padded_bias = pad_row(self.bias)
        # C lies inside a larger array: a guard column behind each row and a guard row behind all.
        self.c = torch.from_numpy(generator.standard_normal((rows + 1, columns + 1))).to(dtype)
        # What is added lies in C itself, or elsewhere, with three numbers between its rows.
        apart = torch.from_numpy(generator.standard_normal((rows, columns))).to(dtype)
        self.source = torch.full((rows, columns + 3), float("nan"), dtype=dtype)
        self.source[:, :columns] = apart
        self.exact = a.double().numpy() @ b.double().numpy()

    def run(self, start: int, own: bool = True, bounds=EVERYTHING) -> np.ndarray:
        """C after the product, added to itself or (not ``own``) to other rows; checks that the
        guards are untouched."""
        size = self.dtype.itemsize
        c = self.c.clone()
        source = c if own else self.source
        arguments = PRODUCT(
            a=self.stored_a,
            b=self.b,
            c=c,
            source=source if start & FROM_ROWS else None,
            bias=self.padded_bias if start & FROM_BIAS else None,
            turned=self.turned,
            a_stride=self.a_stride,
            b_stride=self.b_stride,
            depth=self.depth,
            c_row=(self.columns + 1) * size,
            rows=self.rows,
            columns=self.columns,
            start=start,
            source_row=source.stride(0) * size,
            low=bounds[0],
            high=bounds[1],
        )
        launch(KERNELS[self.dtype], arguments, 1)
        assert torch.equal(c[-1], self.c[-1]), "wrote below the last row"
        assert torch.equal(c[:, -1], self.c[:, -1]), "wrote behind the last column"
        return c[:-1, :-1].numpy()

    def expected(self, start: int, own: bool = True) -> np.ndarray:
        total = self.exact
        if start & FROM_ROWS:
            rows = self.c[:-1, :-1] if own else self.source[:, : self.columns]
            total = total + rows.double().numpy()
        return total + (self.bias.double().numpy() if start & FROM_BIAS else 0)


@DTYPES
@pytest.mark.parametrize("start", [FROM_NOTHING, FROM_ROWS | FROM_BIAS], ids=["nothing", "both"])
@pytest.mark.parametrize("rows", [1, ROWS // 2, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5])
@pytest.mark.parametrize("columns", [1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 70])
def test_against_numpy(rows, columns, start, dtype):
    for depth in (1, 2, 27, 65):
        case = Matrices(rows, columns, depth, dtype)
        for own in (True, False):
            oracle.assert_close(case.run(start, own), case.expected(start, own), terms=depth + 2)


@DTYPES
@STARTS
@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 3])
@pytest.mark.parametrize("columns", [5, 16, 40])
def test_every_stride_of_a(rows, columns, start, dtype):
    for case in (
        Matrices(rows, columns, 30, dtype, row_bytes=TILE_ROW),
        Matrices(rows, columns, 30, dtype, row_bytes=31 * 64),
        *([] if start & FROM_BIAS else [Matrices(rows, columns, 30, dtype, turned=True)]),
    ):
        oracle.assert_close(case.run(start), case.expected(start), terms=32)


@DTYPES
@STARTS
@pytest.mark.parametrize("columns", [5, 16, 40])
def test_results_are_kept_within_bounds(columns, start, dtype):
    for turned in (False,) if start & FROM_BIAS else (False, True):
        case = Matrices(ROWS + 3, columns, 30, dtype, turned=turned)
        free = case.run(start)
        for low, high in ((0, np.inf), (-np.inf, 1.5), (0, 6), (0.25, 0.25)):
            kept = case.run(start, bounds=(low, high))
            np.testing.assert_array_equal(kept, free.clip(low, high).astype(free.dtype))


@DTYPES
def test_bounds_let_nan_through(dtype):
    # As in PyTorch, whose relu of NaN is NaN: a network that diverged must not look sound.
    case = Matrices(ROWS + 1, 20, 3, dtype)
    case.stored_a[2, 1] = float("nan")
    kept = case.run(FROM_NOTHING, bounds=(0, 6))
    assert np.isnan(kept[2]).all()
    assert np.isfinite(np.delete(kept, 2, axis=0)).all()


@DTYPES
def test_nothing_to_add_up(dtype):
    case = Matrices(5, 9, 0, dtype)
    np.testing.assert_array_equal(case.run(FROM_NOTHING), np.zeros((5, 9)))
    np.testing.assert_array_equal(case.run(FROM_ROWS), case.c[:-1, :-1])
    np.testing.assert_array_equal(case.run(FROM_ROWS, own=False), case.source[:, :9])
    np.testing.assert_array_equal(case.run(FROM_BIAS), np.broadcast_to(case.bias, (5, 9)))


@DTYPES
@pytest.mark.parametrize("columns", [1, 7, 8, 16, 17, 70])
def test_pack_puts_each_register_of_columns_together(columns, dtype):
    matrix = torch.rand(5, columns, dtype=dtype)
    width = REGISTER_BYTES // dtype.itemsize
    packed = pack(matrix)
    padded = padded_columns(columns, dtype)
    assert packed.shape == (padded // width, 5, width)
    assert packed.is_contiguous()
    assert padded % width == 0
    assert 0 <= padded - columns < width
    wide = packed.permute(1, 0, 2).reshape(5, padded)
    assert torch.equal(wide[:, :columns], matrix)
    assert not wide[:, columns:].any()
    row = pad_row(matrix[0])
    assert torch.equal(row[:columns], matrix[0])
    assert len(row) == padded
    assert not row[columns:].any()


@DTYPES
def test_pack_reads_any_strides(dtype):
    matrix = torch.rand(40, 9, dtype=dtype)
    assert torch.equal(pack(matrix.t()), pack(matrix.t().contiguous()))
    assert torch.equal(pack(matrix[::2, 1::3]), pack(matrix[::2, 1::3].contiguous()))


@DTYPES
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("columns", [1, 7, 8, 16, 17, 40])
def test_kernels_are_packed_tap_by_tap(columns, groups, dtype, poisoned):
    weight = torch.rand(groups * columns, 5, 2, 3, dtype=dtype)
    expected = torch.stack([
        pack(part.permute(2, 3, 1, 0).reshape(30, columns)) for part in weight.chunk(groups)
    ])  # fmt: skip
    for order in ((0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 1, 0), (3, 1, 0, 2)):  # slowest to fastest
        back = [order.index(axis) for axis in range(4)]
        laid = weight.permute(order).contiguous().permute(back)
        assert torch.equal(pack_kernels(laid, groups), expected)
    turned = weight.flip(3)[:, ::2]
    again = pack_kernels(turned.flip(3), groups)
    assert torch.equal(again, pack_kernels(weight[:, ::2], groups))
