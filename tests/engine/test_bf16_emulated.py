"""The kernels of bfloat16 of other processors, their instructions written in other words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pointwise.engine.cpu import pairs
from pointwise.engine.cpu.isa import has

HERE = Path(__file__).parent
RUN = """
import os, sys
os.environ["NUMBA_NUM_THREADS"] = "4"
sys.path.insert(0, {tests!r})
import witness_engine
witness_engine.emulate(("avx512bf16", "avx512vl"))
from pointwise.engine.cpu import pairs
assert pairs.WHY_NOT is None
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *{files!r}]))
"""


@pytest.mark.slow
def test_results_by_instructions_that_this_machine_lacks():
    if not has("avx2"):
        pytest.skip("this machine has no AVX2")
    if pairs.WHY_NOT is None:
        pytest.skip("this machine has them, and the tests beside this one use them")
    files = [
        str(HERE / "test_bf16_kernels.py"),
        str(HERE.parent / "acceleration/test_bf16_models.py"),
    ]
    code = RUN.format(tests=str(HERE.parent), files=files)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "100%" in done.stdout
    assert "s" not in done.stdout.split("[100%]")[0]
