"""A chain of steps (``convolution/steps.py``) as one pass: a kernel is written for each chain.

Its source is a loop over rows, and in it, for one register at a time, a line for each step. Values
stay in registers from the first step to the last. Numbers are arguments, so that chains that differ
in a number alone share a kernel; like all kernels, those of chains are kept on disk, under a name
that says all that the source was written from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.convolution.steps import Step, check
from pointwise.engine.cpu import activation, elementary, vector
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.engine.cpu.cut import cut_rows
from pointwise.engine.cpu.launch import Launch, kernel, threads
from pointwise.engine.cpu.layout import Layout

_OUTER = 3  # dimensions around rows
MOST = _OUTER + 1
"""So many dimensions a loop goes through."""
_BLOCK = 4096  # numbers: rows that are longer are divided among programs

_FORMULAS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "quotient({0}, {1})",
    "maximum": "choose(equal({0}, {0}), choose(less({1}, {0}), {0}, {1}), {0})",  # NaN stays NaN
    "minimum": "choose(equal({0}, {0}), choose(less({0}, {1}), {0}, {1}), {0})",
    "negate": "negative({0})",
    "abs": "magnitude({0})",
    "sqrt": "root({0})",
    "exp": "full_exponential({0}, like)",
    "log": "logarithm({0})",
    "log1p_exp": "log1p_exp({0}, like)",
    "floor": "floor({0})",
    "ceil": "negative(floor(negative({0})))",
    "where": "choose({0}, {1}, {2})",
    "less": "less({0}, {1})",
    "at_most": "at_most({0}, {1})",
    "equal": "equal({0}, {1})",
    "unequal": "unequal({0}, {1})",
    "both": "{0} & {1}",
    "either": "{0} | {1}",
    "not": "inverted({0})",
}

_IDENTIFIERS = {
    name: f"activation_{place}"
    for place, (name, row) in enumerate(ACTIVATIONS.items())
    if row.bounds is None
}


def _formula(name: str) -> str:
    """A step as an expression of its operands."""
    if name in _FORMULAS:
        return _FORMULAS[name]
    bounds = ACTIVATIONS[name].bounds
    if bounds is None:
        return f"{_IDENTIFIERS[name]}({{0}}, like)"
    low, high = (f"number({bound}, like)".replace("inf", "infinity") for bound in bounds)
    return f"within({{0}}, {low}, {high})"


class Form(NamedTuple):
    """All that a kernel's source is written from."""

    steps: tuple[tuple, ...]  # numbers as their places among all numbers of the chain, "n0" …
    rows: tuple[bool, ...]  # whether an input has a number for each column of a row, or one for all
    numbers: int
    is_narrow: bool  # rows are shorter than a register


@lru_cache(maxsize=1024)
def _layout(inputs: int, numbers: int) -> Layout:
    """Addresses; how rows are divided; how many bytes each operand's rows lie apart."""
    operands = [f"x{i}" for i in range(inputs)] + ["out"]
    names = [f"*{name}" for name in operands]
    names += ["rows", "columns", "span", "block", "blocks", "inner", "middle"]
    names += [f"{name}_{dim}" for name in operands for dim in range(_OUTER)]
    names += [f"n{i}:real" for i in range(numbers)]
    return Layout(f"Chain{inputs}_{numbers}", " ".join(names))


def _source(form: Form) -> str:
    inputs = [f"x{i}" for i in range(len(form.rows))]
    operands = [*inputs, "out"]
    varied = [name for name, is_row in zip(inputs, form.rows, strict=True) if is_row]
    load = "load_first({0}{1}, columns, like)" if form.is_narrow else "load({0}{1}, like)"
    at = "" if form.is_narrow else " + k"
    lines = [f"n{i} = broadcast(number(own.n{i}, like))" for i in range(form.numbers)]
    for name in operands:
        place = f"own.{name} + h * own.{name}_0 + i * own.{name}_1 + j * own.{name}_2"
        lines.append(f"{name} = {place}{' + first * size' if name in (*varied, 'out') else ''}")
    row = [f"v{x[1:]} = broadcast(peek({x}, like))" for x in inputs if x not in varied]
    body = [f"v{x[1:]} = {load.format(x, at)}" for x in varied]
    for value, (step, *given) in enumerate(form.steps, len(inputs)):
        body.append(f"v{value} = {_formula(step).format(*given)}")
    last = f"v{len(inputs) + len(form.steps) - 1}"
    if form.is_narrow:
        row += [*body, f"store_first(out, {last}, columns)"]
    else:
        # The last register of a row ends with it, and repeats some of the one before.
        row += ["for c in range(0, columns, width):", "    k = min(c, columns - width) * size"]
        row += [f"    {line}" for line in [*body, f"store(out + k, {last})"]]
    row += ["j += 1", *(f"{name} += own.{name}_2" for name in operands), "if j == own.inner:"]
    row += ["    j = 0", "    i += 1"]
    row += [f"    {name} += own.{name}_1 - own.inner * own.{name}_2" for name in operands]
    row += ["    if i == own.middle:", "        i = 0"]
    row += [f"        {name} += own.{name}_0 - own.middle * own.{name}_1" for name in operands]
    indented = "\n".join(f"    {line}" for line in lines)
    rows = "\n".join(f"        {line}" for line in row)
    return f"""
def run(arguments, program, thread):
    own = LAYOUT(arguments)
    size, width = bytes_of(like), lanes_of(like)
    begin, first = program // own.blocks * own.span, program % own.blocks * own.block
    columns = min(own.block, own.columns - first)
    j, i, h = begin % own.inner, begin // own.inner % own.middle, begin // own.inner // own.middle
{indented}
    for r in range(min(own.span, own.rows - begin)):
{rows}
"""


@lru_cache(maxsize=1024)
def _kernel(form: Form, dtype: torch.dtype) -> kernel:
    space = {**vars(activation), **vars(elementary), **vars(vector), "infinity": float("inf"),
             "LAYOUT": _layout(len(form.rows), form.numbers), "like": ZEROS[dtype]}  # fmt: skip
    space |= {known: activation.formula(name) for name, known in _IDENTIFIERS.items()}
    source = _source(form)
    exec(compile(source, __file__, "exec"), space)
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    return kernel(space["run"], f"chain_{digest}_{dtype}")


class Strides(NamedTuple):
    """Dimensions of a result from the outermost to the innermost, and each operand's strides."""

    sizes: tuple[int, ...]
    operands: tuple[tuple[int, ...], ...]  # of the inputs, then of the result


def collapsed(sizes: Sequence[int], operands: Sequence[Sequence[int]]) -> Strides:
    """The same loop with as few dimensions as it needs; ``sizes`` from the outermost on."""
    kept: list[int] = [dim for dim, size in enumerate(sizes) if size > 1] or [len(sizes) - 1]
    merged: list[tuple[int, list[int]]] = []
    for dim in kept:
        size, own = sizes[dim], [strides[dim] for strides in operands]
        if merged and all(
            outer == inner * size for outer, inner in zip(merged[-1][1], own, strict=True)
        ):
            merged[-1] = (merged[-1][0] * size, own)
        else:
            merged.append((size, own))
    by_operand = zip(*(own for _, own in merged), strict=True)
    return Strides(tuple(size for size, _ in merged), tuple(by_operand))


def why_not(strides: Strides) -> str | None:
    """Why no kernel goes through its operands so; None where one does."""
    if len(strides.sizes) > MOST:
        return f"more than {MOST} dimensions that cannot be taken together"
    if strides.sizes[-1] > 1 and any(own[-1] not in (0, 1) for own in strides.operands):
        return "numbers that are neighbours in the result are not in an operand"
    return None


def chain(inputs: Sequence[Tensor], steps: Sequence[Step], out: Tensor, strides: Strides) -> Launch:
    """The result of a chain into ``out``, going through it and the ``inputs`` by ``strides``."""
    check(steps, len(inputs))
    assert why_not(strides) is None
    size, columns = out.element_size(), strides.sizes[-1]
    *around, middle, inner = (1,) * (_OUTER + 1 - len(strides.sizes)) + strides.sizes[:-1]
    rows = around[0] * middle * inner
    numbers = [x for _, *given in steps for x in given if type(x) is float]
    form = Form(
        _with_names(steps), tuple(own[-1] == 1 or columns == 1 for own in strides.operands[:-1]),
        len(numbers), columns < vector.lanes(ZEROS[out.dtype].dtype),
    )  # fmt: skip
    span = cut_rows(rows, columns * size)
    block = columns
    if columns > _BLOCK:
        block = max(_BLOCK, -(-columns // max(1, 8 * threads() // rows) // 64) * 64)
    blocks = -(-columns // block)
    entries: dict = {f"x{i}": x for i, x in enumerate(inputs)} | {"out": out}
    for name, own in zip([*entries], strides.operands, strict=True):
        outer = (0,) * (_OUTER + 1 - len(own)) + tuple(own[:-1])
        entries |= {f"{name}_{dim}": stride * size for dim, stride in enumerate(outer)}
    entries.update((f"n{i}", value) for i, value in enumerate(numbers))
    arguments = _layout(len(inputs), len(numbers))(
        **entries, rows=rows, columns=columns, span=span, block=block, blocks=blocks, inner=inner,
        middle=middle,
    )  # fmt: skip
    return Launch(_kernel(form, out.dtype), arguments, -(-rows // span) * blocks, out)


def _with_names(steps: Sequence[Step]) -> tuple[tuple, ...]:
    """Steps whose operands are names of the source: ``v0 …`` are values, ``n0 …`` numbers."""
    found, numbers = [], 0
    for name, *given in steps:
        names = [name]
        for x in given:
            names.append(f"v{x}" if type(x) is int else f"n{numbers}")
            numbers += type(x) is float
        found.append(tuple(names))
    return tuple(found)
