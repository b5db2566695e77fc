"""What a kernel raises reaches who launched it: nothing is lost, and nothing printed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointwise.engine.cpu.launch import Launch, Program, array, kernel, launch
from pointwise.engine.cpu.layout import Arguments, Layout

FAIL = Layout("Fail", "*done how size too_much")


@kernel
def _fail(arguments, program, thread):
    """Program 3 fails, in the way that the table asks for; others note that they ran."""
    own = FAIL(arguments)
    how, done = own.how, array(own.done, own.size, np.int64)
    if program == 3:
        if how == 1:
            raise MemoryError("none left")
        if how == 2:
            raise ValueError("program", program)
        if how == 3:
            raise IndexError
        if how == 4:
            np.empty(own.too_much, np.int8)[0] = 1
    done[program] = 1


WAYS = [
    (0, None, ""),
    (1, MemoryError, "kernel _fail: none left"),
    (2, ValueError, r"kernel _fail: \('program', 3\)"),
    (3, IndexError, "kernel _fail: IndexError"),
    (4, MemoryError, "kernel _fail: Allocation failed"),
]


def _table(how: int, done: np.ndarray) -> Arguments:
    return FAIL(done=done, how=how, size=len(done), too_much=1 << 60)


@pytest.mark.parametrize("team", [1, 2, 3])
@pytest.mark.parametrize(("how", "kind", "words"), WAYS)
def test_a_launch_raises_what_its_kernel_raises(how, kind, words, team, threads, capfd):
    threads(team)
    done = np.zeros(9, np.int64)
    if kind is None:
        launch(_fail, _table(how, done), 9)
        assert (done == 1).all()
    else:
        for _ in range(3):
            with pytest.raises(kind, match=words):
                launch(_fail, _table(how, done), 9)
        assert done[3] == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("team", [1, 2, 3])
@pytest.mark.parametrize(("how", "kind", "words"), WAYS[1:3])
@pytest.mark.parametrize("which", [None, slice(1, 3)])
def test_a_program_stops_at_the_launch_that_raises(which, how, kind, words, team, threads):
    threads(team)
    done = np.zeros((3, 9), np.int64)
    tables = [_table(each, row) for each, row in zip((0, how, 0), done, strict=True)]
    program = Program([Launch(_fail, table, 9, torch.empty(0)) for table in tables])
    with pytest.raises(kind, match=words), program.lock:
        program.run(which)
    assert done[0].all() == (which is None)
    assert not done[2].any()
    program.tables[1][FAIL.places["how"]] = 0  # a failure is not remembered
    with program.lock:
        program.run()
    assert done.all()
