"""The loop of a microkernel: a few rows of A times a few registers of B, sums in registers.

What a number is, how products are added to a sum, what sums begin with and what becomes of them is
said by the classes made of it: of floats in ``gemm``, of bytes in ``gemm_int8``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from llvmlite import ir

from pointwise.engine.cpu.flow import repeat
from pointwise.engine.cpu.vector import first_lanes, load_lanes, multiply_add, prefetch, splat

# Rows of a gathered tile lie this many bytes apart where they fit: an odd number of cache lines, so
# that rows do not share cache sets, and a constant, so that every operand of the inner loop is one
# register plus a number known to the assembler.
TILE_ROW = 65 * 64
# How A is walked: rows anywhere; rows TILE_ROW apart; columns as rows.
GENERAL, TILE, TURNED = 0, 1, 2

_I64 = ir.IntType(64)
_STEPS = 4  # of one turn of the loop


class Product:
    """The LLVM of Σ_k A[r, k] · B[k, :] for some rows r and registers of columns.

    Addresses and strides are in bytes. Rows of A lie ``a_stride`` apart and steps one element; with
    TILE, rows ``TILE_ROW``. Of B, the register of step k and vector v is at ``b + v·b_stride`` plus
    k registers. With TURNED, rows of A are one element apart and steps ``a_stride``; of B, steps
    are ``b_stride`` apart, and the vectors of a step follow one another. What is constant is part
    of a load, and each address that remains has a register of its own.

    Of ``some`` rows only ``valid_rows`` count: rows beyond are computed from the last valid one,
    but with TILE read where they are. One that ``asks`` wants, at each step, the cache lines at
    ``ahead``, which moves on by one, and ``apart`` from it.
    """

    a: ir.Value
    a_stride: ir.Value
    b: ir.Value
    b_stride: ir.Value
    depth: ir.Value
    valid_rows: ir.Value
    valid_columns: ir.Value
    ahead: ir.Value = _I64(0)
    apart: ir.Value = _I64(0)

    def __init__(self, builder, sizes: tuple[int, int], shape: ir.VectorType, size: int, walk: int,
                 some: bool, asks: bool) -> None:  # fmt: skip
        """``sizes`` are rows and vectors; an element of ``shape`` has ``size`` bytes."""
        self.builder, self.walk, self.some, self.asks = builder, walk, some, asks
        self.rows, self.vectors = sizes
        # The last rows of a tile are not worth the code; one or two alone are all of a product.
        self.unrolled = not some or walk == TILE or self.rows <= 2
        self.shape, self.scalar, self.width = shape, shape.element, shape.count
        self.size, self.register = size, size * shape.count
        self.places = [(r, v) for r in range(self.rows) for v in range(self.vectors)]

    def multiply_add(self, numbers, values, total):
        """``total`` plus the products of a register of A and one of B."""
        return multiply_add(self.builder, numbers, values, total)

    # --- the loop ---

    def multiplied(self, sums: list) -> list:
        """``sums`` plus the product."""
        builder = self.builder
        begins, rows = self.rows_of_a()
        count = len(begins)

        def turn(steps: int):
            def body(*state: Any):
                a, sums = list(state[:count]), list(state[count + 2 :])
                b, line = state[count : count + 2]
                for k in range(steps):
                    if self.walk == TURNED:
                        sums = self.step(a, rows, b, 0, sums)
                        a, b = self.moved(a, self.a_stride), self.plus(b, self.b_stride)
                    else:
                        sums = self.step(a, rows, b, k, sums)
                    if self.asks:
                        prefetch(builder, self.plus(line, _I64(64 * k)))
                        prefetch(builder, self.plus(self.plus(line, self.apart), _I64(64 * k)))
                if self.walk != TURNED:
                    a = self.moved(a, _I64(steps * self.size))
                    b = self.plus(b, _I64(steps * self.register))
                if self.asks:
                    line = self.plus(line, _I64(64 * steps))
                return *a, b, line, *sums

            return body

        state, left = [*begins, self.b, self.ahead, *sums], self.depth
        if self.unrolled:
            turns = builder.sdiv(self.depth, _I64(_STEPS))
            state = repeat(builder, turns, state, turn(_STEPS))
            left = builder.srem(self.depth, _I64(_STEPS))
        return repeat(builder, left, state, turn(1))[count + 2 :]

    def rows_of_a(self) -> tuple[list, list]:
        """Addresses that move on; for each row which one is its own, and what is added to it."""
        numbers = [_I64(r) for r in range(self.rows)]
        if self.some and self.walk != TILE:
            numbers = [self.valid(r) for r in range(self.rows)]
        if self.walk == GENERAL and not self.some:
            # One address for three rows: a load adds a register once or twice.
            begins = [self.plus(self.a, self.times(r, self.a_stride)) for r in numbers[::3]]
            added = [_I64(0), self.a_stride, self.times(_I64(2), self.a_stride)]
            return begins, [(r // 3, added[r % 3]) for r in range(self.rows)]
        between = {GENERAL: self.a_stride, TILE: _I64(TILE_ROW), TURNED: _I64(self.size)}[self.walk]
        return [self.a], [(0, self.times(r, between)) for r in numbers]

    def step(self, a, rows, b, k: int, sums) -> list:
        """``sums`` plus the outer product of step ``k`` from the addresses."""
        between = _I64(self.register) if self.walk == TURNED else self.b_stride
        values = []
        for v in range(self.vectors):
            place = self.plus(b, self.times(_I64(v), between))
            values.append(self.load(self.plus(place, _I64(k * self.register))))
        results = []
        for r, (number, added) in enumerate(rows):
            place = self.plus(self.plus(a[number], added), _I64(k * self.size))
            pointer = self.builder.inttoptr(place, self.scalar.as_pointer())
            lanes = splat(self.builder, self.builder.load(pointer, align=self.size), self.width)
            for v in range(self.vectors):
                total = sums[r * self.vectors + v]
                results.append(self.multiply_add(lanes, values[v], total))
        return results

    # --- addresses, and what is valid ---

    def plus(self, a, b):
        return self.builder.add(a, b)

    def times(self, a, b):
        return self.builder.mul(a, b)

    def moved(self, addresses, by) -> list:
        return [self.plus(address, by) for address in addresses]

    def column(self, v: int):
        return _I64(v * self.register)

    def left(self, v: int):
        """How many columns there are from vector ``v`` on."""
        return self.builder.sub(self.valid_columns, _I64(v * self.width))

    def mask(self, v: int):
        return first_lanes(self.builder, self.left(v), self.width)

    def valid(self, r: int):
        """Row ``r``, or the last valid one."""
        last = self.builder.sub(self.valid_rows, _I64(1))
        inside = self.builder.icmp_signed("<", _I64(r), self.valid_rows)
        return self.builder.select(inside, _I64(r), last)

    def if_valid(self, r: int):
        if not self.some:
            return nullcontext()
        return self.builder.if_then(self.builder.icmp_signed("<", _I64(r), self.valid_rows))

    def load(self, place, mask=None):
        return load_lanes(self.builder, place, mask, self.shape)
