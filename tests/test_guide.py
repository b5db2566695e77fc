"""The guide runs as it stands, prints what it says, and shows pictures of what it computes."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

import make_pictures

DOCS = make_pictures.PAGE.parent
PAGE = make_pictures.PAGE.read_text(encoding="utf-8")
NAMED = re.findall(r"!\[[^]]+\]\(pictures/(\w+\.png)\)", PAGE)


def run_as_written(page: Path) -> list[tuple[str, str]]:
    """What each block of the page prints, and what the page says that it does."""
    names: dict = {}
    found = []
    for source, said in make_pictures.blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(source, names)
        found.append((printed.getvalue(), said or ""))
    return found


def test_the_code_runs_and_prints_what_the_page_says():
    found = run_as_written(make_pictures.PAGE)
    assert len(found) == PAGE.count("```python\n")
    assert sum(bool(said) for _, said in found) == PAGE.count("```text\n") >= 10
    for printed, said in found:
        assert printed == said


def test_a_number_that_is_not_printed_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\nText.\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n"
    )
    assert run_as_written(page) == [("", ""), ("1\n", "2\n")]


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (DOCS / target).exists(), target
    titles = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= titles


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    script = DOCS / "make_pictures.py"
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_script_draws_the_pictures_that_the_page_names(drawn):
    made = sorted(file.name for file in drawn.iterdir())
    assert made == sorted(NAMED)
    assert made == sorted(file.name for file in (DOCS / "pictures").iterdir())


@pytest.mark.parametrize("name", NAMED)
def test_a_picture_in_the_guide_is_what_the_script_draws(drawn, name):
    kept = DOCS / "pictures" / name
    assert kept.stat().st_size < 200_000
    here, there = (
        np.asarray(Image.open(folder / name).convert("RGB"), dtype=float)
        for folder in (drawn, kept.parent)
    )
    assert here.shape == there.shape
    # Another release of matplotlib may set its letters a little differently.
    assert np.abs(here - there).mean() < 4
