"""timm and torchvision, which nothing here depends on, wherever they are installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

SHIM = Path(__file__).parents[2] / "../shared/tools/torchvision_cpu.py"


def imported(name: str):
    """timm or torchvision, wherever they are; ``TORCHVISION_CPU`` names a folder with both."""
    folder = os.environ.get("TORCHVISION_CPU", "")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (TORCHVISION_CPU may name its folder)")
    if "torchvision_cpu" not in sys.modules and SHIM.is_file():
        spec = importlib.util.spec_from_file_location("torchvision_cpu", SHIM)
        sys.modules["torchvision_cpu"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return pytest.importorskip(name)
