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

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import make_pictures

from pointwise.timing import BUSY

DOCS = make_pictures.PAGE.parent
# accelerate.md has a test of its own, which also runs where its entry point is not installed.
PAGES = [
    page
    for page in sorted(DOCS.glob("*.md"))
    if make_pictures.blocks(page) and page.stem != "accelerate"
]
PAGE = make_pictures.PAGE.read_text(encoding="utf-8")
NAMED = [
    name
    for page in sorted(DOCS.glob("*.md"))
    for name in re.findall(r"!\[[^]]+\]\(pictures/(\w+\.png)\)", page.read_text(encoding="utf-8"))
    if name != "room.png"  # which a training is behind: make_room.py
]


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


def agrees(printed: str, said: str) -> bool:
    """Whether a page says what was printed; ``…`` on the page stands for a measured number.

    That the machine is busy, which no page can know, may be said beside it.
    """
    printed = printed.replace(f"; {BUSY})", ")")
    pattern = re.escape(said).replace(r"\ …", r"\s+[\d.,]+").replace("…", r"[\d.,]+")
    return re.fullmatch(pattern, printed) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    text = page.read_text(encoding="utf-8")
    found = run_as_written(page)
    assert len(found) == text.count("```python\n")
    assert sum(bool(said) for _, said in found) == text.count("```text\n") > 0
    for printed, said in found:
        assert agrees(printed, said), f"the page says\n{said}\nand the code prints\n{printed}"


def test_a_measured_number_may_be_any_and_no_other_may():
    assert agrees("12 adds:  0.31 ms\n", "12 adds: … ms\n")
    assert agrees("12 adds: 1,031 ms\n", "12 adds: … ms\n")
    assert agrees("0.31 ms (0.3 to 0.4; this machine is busy)\n", "… ms (… to …)\n")
    assert not agrees("13 adds: 0.31 ms\n", "12 adds: … ms\n")
    assert not agrees("12 adds: fast ms\n", "12 adds: … ms\n")
    assert not agrees("12 adds: 1 ms\nmore\n", "12 adds: … ms\n")


def test_a_number_that_is_not_printed_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\nText.\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n"
    )
    assert run_as_written(page) == [("", ""), ("1\n", "2\n")]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8"))
    for target, section in links:
        if target == "pages/explain.html":  # write_explain.py makes it, for the site
            continue
        assert (DOCS / target).exists(), target
        if section:
            assert section in sections(DOCS / target if target else page), section


def sections(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    return {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    script = DOCS / "make_pictures.py"
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_script_draws_the_pictures_that_the_page_names(drawn):
    made = sorted(file.name for file in drawn.iterdir())
    assert made == sorted(NAMED)
    kept = {file.name for file in (DOCS / "pictures").iterdir()}
    assert made == sorted(kept - {"room.png"})


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.slow
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
