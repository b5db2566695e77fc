"""The kernels that the guide shows are those that run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pointwise

PACKAGE = Path(pointwise.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
SHOWN = re.findall(
    r"`(engine/[\w/]+\.py)`\n\n```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)


def test_two_kernels_stand_beside_each_other():
    assert [file.split("/")[1] for file, _ in SHOWN] == ["cpu", "gpu"]
    assert PAGE.read_text(encoding="utf-8").count("```py\n") == 2
    for _, code in SHOWN:
        assert "def fill(" in code


@pytest.mark.parametrize(("file", "code"), SHOWN, ids=[file for file, _ in SHOWN])
def test_code_is_that_of_the_file(file, code):
    source = (PACKAGE / file).read_text(encoding="utf-8")
    assert f"\n\n\n{code.strip()}\n" in source
    end = source.index(code) + len(code)
    assert source[end:].strip() == "" or source[end:].startswith("\n\n"), "it goes on"
