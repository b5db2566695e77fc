"""The examples in the docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import pointwise

PACKAGE = Path(pointwise.__file__).parent
# Only modules with examples are imported: others may need extras.
MODULES = sorted(
    "pointwise." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name.removesuffix(".__init__"))
    except ImportError as missing:
        if "pip install" not in str(missing):
            raise
        pytest.skip(f"{name}: {missing}")
    public = {each: getattr(pointwise, each) for each in pointwise.__all__}
    results = doctest.testmod(
        module, extraglobs={"torch": torch, **public}, optionflags=doctest.ELLIPSIS
    )
    assert results.attempted > 0
    assert results.failed == 0, "see the captured output"


def test_the_public_functions_have_examples():
    assert {"pointwise.functional.cells", "pointwise.layers.cells"} <= set(MODULES)
