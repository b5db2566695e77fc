"""Named argument tables: what Python writes by name is what a kernel reads by name."""

from __future__ import annotations

import ast
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import pointwise
from pointwise.engine.cpu.launch import Launch, Program, array, kernel, launch
from pointwise.engine.cpu.layout import Layout

_INNER = Layout("InnerOfTest", "*bias scale:real columns")
_MIDDLE = Layout("MiddleOfTest", "rows", inner=_INNER)
_OUTER = Layout("OuterOfTest", "*x *out *other low:real count", first=_INNER, middle=_MIDDLE)


@kernel
def _read(arguments, program, thread):
    """Writes what it was told: seven numbers, and the first number of each array."""
    own = _OUTER(arguments)
    found = array(own.out, 9, np.float64)
    found[0], found[1] = own.low, own.count
    found[2], found[3] = own.first.scale, own.first.columns
    found[4] = own.middle.rows
    found[5], found[6] = own.middle.inner.scale, own.middle.inner.columns
    found[7] = array(own.x, 1, np.float64)[0]
    if own.other != 0:  # a table inside a table
        other = _INNER(own.other)
        found[8] = other.scale + array(other.bias, 1, np.float64)[0]


def given(**changed):
    first = _INNER(bias=None, scale=0.1, columns=3)
    middle = _MIDDLE(rows=4, inner=_INNER(bias=None, scale=-1e300, columns=5))
    values = {"x": torch.tensor([7.5], dtype=torch.float64), "out": None, "other": None,
              "low": -float("inf"), "count": 2**62, "first": first, "middle": middle}  # fmt: skip
    return _OUTER(**{**values, **changed})


def test_a_kernel_reads_by_name_what_was_written_by_name():
    out = torch.zeros(9, dtype=torch.float64)
    other = _INNER(bias=np.array([0.5]), scale=2.0, columns=0)
    launch(_read, given(out=out, other=other), 1)
    assert out.tolist() == [-float("inf"), 2.0**62, 0.1, 3, 4, -1e300, 5, 7.5, 2.5]


def test_entries_follow_the_names():
    assert _OUTER.size == 5 + 3 + 1 + 3
    assert list(given(count=9))[3:] == [*_INNER(bias=None, scale=-float("inf"), columns=9)][1:] + [
        *_INNER(bias=None, scale=0.1, columns=3), 4, *_INNER(bias=None, scale=-1e300, columns=5)
    ]  # fmt: skip
    assert list(_INNER(bias=None, scale=0.0, columns=1)) == [0, 0, 1]


def test_a_missing_name_is_named():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'columns'"):
        _INNER(bias=None, scale=1.0)


def test_an_unknown_name_is_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'rows'"):
        _INNER(bias=None, scale=1.0, columns=1, rows=2)
    with pytest.raises(KeyError, match="rows"):
        _INNER(bias=None, scale=1.0, columns=1).patch(rows=None)


@pytest.mark.parametrize("names", ["*x size size:real", "*x size inner"])
def test_a_doubled_name_is_refused(names):
    with pytest.raises(ValueError, match=r"layout Doubled: (size|inner) more than once"):
        Layout("Doubled", names, inner=_INNER)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="layout Odd: an entry is a number or a real, not 'float'"):
        Layout("Odd", "*x low:float")


@pytest.mark.parametrize("read_before", [False, True])
def test_a_patch_keeps_the_table_in_step(read_before):
    arguments = given()
    if read_before:
        assert list(arguments.table) == list(arguments)
    at = arguments.address if read_before else None
    out = torch.zeros(9, dtype=torch.float64)
    x = torch.tensor([1.25], dtype=torch.float64)
    arguments.patch(out=out, x=x)
    assert arguments.get("out") is out
    assert list(arguments.table) == list(arguments)
    assert at in (None, arguments.address)
    launch(_read, arguments, 1)
    assert out[7] == 1.25


def test_a_program_runs_what_was_patched_last():
    first, second = (torch.zeros(9, dtype=torch.float64) for _ in range(2))
    one = Launch(_read, given(out=first), 1, first)
    program = Program([one])
    one.patch(out=second)
    program.run()
    assert (first.count_nonzero(), second[7]) == (0, 7.5)
    assert one.operand("out") is second
    assert one.operand("residual") is None


def test_operands_live_as_long_as_their_table():
    bias, x = np.ones(1), torch.ones(1)
    alive = weakref.ref(bias), weakref.ref(x)
    arguments = given(x=x, other=_INNER(bias=bias, scale=1.0, columns=1))
    del bias, x
    gc.collect()
    assert all(reference() is not None for reference in alive)
    arguments.patch(x=None, other=None)
    gc.collect()
    assert all(reference() is None for reference in alive)


def test_parts_keep_their_operands_alive():
    bias = np.ones(1)
    alive = weakref.ref(bias)
    arguments = given(first=_INNER(bias=bias, scale=1.0, columns=1))
    del bias
    gc.collect()
    assert alive() is not None
    del arguments
    gc.collect()
    assert alive() is None


def _counted(source: str) -> list[int]:
    """The lines that count in an argument table, instead of reading it by a layout."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.BinOp)
        and "arguments" in (getattr(part, "id", "") for part in ast.iter_child_nodes(node))
    ]


def test_what_counting_is():
    assert _counted("arguments + 8\nf(arguments)\n8 * i + arguments") == [1, 3]


def test_no_entry_of_a_table_is_read_by_a_number():
    root = Path(pointwise.__file__).parent / "engine"
    found = [
        f"{file.relative_to(root)}:{line}"
        for file in sorted(root.rglob("*.py"))
        for line in _counted(file.read_text(encoding="utf-8"))
        if file.name != "library.py"  # whose arguments are an operator's
    ]
    assert found == []
