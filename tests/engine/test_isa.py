"""Which instructions kernels are compiled to, and that fewer of them give the same results."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pointwise.engine.cpu import isa
from pointwise.engine.cpu.isa import ISA, available, chosen

RESULTS = """
import torch, pointwise as pw
from pointwise.engine.cpu.isa import ISA
from pointwise.engine.cpu.vector import REGISTER_BYTES
torch.manual_seed(0)
x, cloud = torch.rand(2, 20, 9, 7), pw.PointCloud(torch.rand(60, 3))
whole, own, mix = torch.rand(13, 20, 3, 3), torch.rand(20, 1, 3, 3), torch.rand(13, 20)
near, cells = cloud.neighborhood(0.2), torch.rand(5, 11, 3, 3, 3)
for found, expected in (
    (pw.conv2d(x, whole), torch.conv2d(x, whole)),
    (pw.depthwise_conv2d(x, own), torch.conv2d(x, own, groups=20)),
    (pw.pointwise_conv2d(x, mix, activation="silu"),
     torch.nn.functional.silu(torch.conv2d(x, mix[:, :, None, None]))),
    (pw.cell_conv(torch.ones(60, 11), near, torch.ones_like(cells)).double(),
     pw.cell_conv(torch.ones(60, 11).double(), near, torch.ones_like(cells).double())),
):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
print(ISA.name, REGISTER_BYTES)
"""


def run(program: str, wanted: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "POINTWISE_ISA": wanted}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )


def test_the_best_is_taken():
    assert chosen(None) == chosen("") == available()[0]
    sizes = [each.register_bytes for each in available()]
    assert sizes == sorted(sizes, reverse=True)


def test_by_name():
    for each in available():
        assert chosen(each.name) is each
    with pytest.raises(ValueError, match=r"^POINTWISE_ISA=sse9: there is no such one; here it can"):
        chosen("sse9")


def test_what_a_processor_lacks(monkeypatch):
    monkeypatch.setattr(isa, "_features", lambda: {"avx": True})
    if available()[0].title == "NEON":
        pytest.skip("Arm has one set of instructions")
    assert [each.name for each in available()] == ["baseline"]
    with pytest.raises(ValueError, match=r"^POINTWISE_ISA=avx2: this processor does not have it;"):
        chosen("avx2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["avx512", "avx2", "baseline"])
def test_fewer_instructions_same_results(name):
    if name not in [each.name for each in available()]:
        pytest.skip(f"this processor has no {name}")
    done = run(RESULTS, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name, str(chosen(name).register_bytes)]


@pytest.mark.slow
def test_too_late():
    if ISA.name == "baseline":
        pytest.skip("there is nothing to leave out")
    done = run("import numba; numba.njit(lambda: 1)(); import pointwise.layers", "baseline")
    assert "ImportError: POINTWISE_ISA=baseline comes too late" in done.stderr


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line():
    program = "import sys; sys.argv = ['pointwise', 'bench', 'machine', '--quick']; "
    done = run(program + "from pointwise.cli import main; main()", "sse9")
    assert done.returncode == 1
    assert done.stderr.startswith("pointwise: POINTWISE_ISA=sse9: there is no such one;")
    assert len(done.stderr.splitlines()) == 1
