"""The kernels of bytes of other processors, their instructions written in other words, exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pointwise.engine.cpu.dots import DOTS
from pointwise.engine.cpu.isa import has

HERE = Path(__file__).parent
RUN = """
import sys
sys.path.insert(0, {tests!r})
import witness_engine
witness_engine.emulate({features!r})
from pointwise.engine.cpu.dots import DOTS
assert DOTS.title == {title!r}, DOTS
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {file!r}]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("title", "isa", "features"), [
    ("AVX512-VNNI", None, ("avx512vnni", "avx512bw", "avx512vl")),
    ("AVX-VNNI", "avx2", ("avxvnni",)),  # AVX-512's are taken where a machine has both
])  # fmt: skip
def test_bits_are_the_same_by_instructions_that_this_machine_lacks(title, isa, features):
    if not has("avx2"):
        pytest.skip("this machine has no AVX2")
    if DOTS.title == title:
        pytest.skip("this machine has these, and the tests beside this one use them")
    code = RUN.format(tests=str(HERE.parent), features=features, title=title,
                      file=str(HERE / "test_int8_kernels.py"))  # fmt: skip
    environment = os.environ | ({"POINTWISE_ISA": isa} if isa else {})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "100%" in done.stdout
