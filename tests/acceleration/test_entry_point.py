"""torch.compile finds the backend by its name, with nothing imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import tomllib
import torch
from torch import nn

from pointwise.acceleration import backend

GROUP = "torch_dynamo_backends"


def test_pyproject_names_the_backend():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    named = project["project"]["entry-points"][GROUP]
    assert EntryPoint("pointwise", named["pointwise"], GROUP).load() is backend


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.slow
def test_found_by_name(installed, tmp_path):
    """As installed here; and from metadata as an installation would write it."""
    if installed and "pointwise" not in {point.name for point in entry_points(group=GROUP)}:
        pytest.skip("this installation was made before the entry point; install it again")
    if not installed:
        folder = tmp_path / "pointwise_probe-0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: pointwise-probe\nVersion: 0\n"
        )
        point = "pointwise = pointwise.acceleration.dynamo:backend"
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{point}\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import torch\n"
        "model = torch.nn.Conv2d(3, 4, 1).eval()\n"
        "x = torch.rand(1, 3, 5, 5)\n"
        "with torch.no_grad():\n"
        "    given = torch.compile(model, backend='pointwise')(x)\n"
        "    torch.testing.assert_close(given, model(x))\n"
        "from pointwise.acceleration import reports\n"
        "print(len(reports()), len(reports()[0].fused))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1 1\n", done.stderr


def test_options_are_refused():
    model = nn.Conv2d(3, 4, 1).eval()
    faster = torch.compile(model, backend=backend, options={"fast": True})
    with pytest.raises(Exception, match=r"takes no options, got \{'fast': True\}"), torch.no_grad():
        faster(torch.rand(1, 3, 5, 5))
