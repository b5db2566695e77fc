"""No kernel reads or writes beyond its tensors: the machine itself looks after that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("image_fences.py")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="forbids pages with Linux's mprotect")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True,
                          timeout=500, cwd=PROGRAM.parent)  # fmt: skip


@LINUX
@pytest.mark.parametrize("side", ["end", pytest.param("start", marks=pytest.mark.slow)])
def test_nothing_beyond_a_tensor_is_touched(side):
    done = run(side)
    last = done.stdout.splitlines()[-1] if done.stdout else "nothing"
    assert done.returncode == 0, f"stopped at {last!r}: {done.stderr[-2000:]}"
    assert last == "all"


@LINUX
def test_the_fences_are_there():
    done = run("touch")
    assert done.stdout == "inside\n"
    assert done.returncode < 0  # a signal
