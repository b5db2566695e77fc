"""Draws README's badges from what ``pyproject.toml`` says, so that no service has to.

``python docs/make_badges.py`` writes them into ``docs/badges``; with a folder as argument, there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
LETTER, MARGIN = 6.6, 8  # pixels: a letter at this size, and the space beside words
BADGE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img">
<title>{left}: {right}</title>
<rect width="{width}" height="20" rx="3" fill="#2f6f9f"/>
<path d="M3 0h{split_inner}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#4a5259"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{at_left}" y="14" textLength="{left_length}">{left}</text>
<text x="{at_right}" y="14" textLength="{right_length}">{right}</text>
</g>
</svg>
"""


def said(pattern: str) -> str:
    """What the project's file says there."""
    found = re.search(pattern, PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{PROJECT} has nothing of the form {pattern}")
    return found[1]


def badge(left: str, right: str) -> str:
    lengths = [round(LETTER * len(text)) for text in (left, right)]
    split = lengths[0] + 2 * MARGIN
    width = split + lengths[1] + 2 * MARGIN
    return BADGE.format(
        left=left, right=right, width=width, split_inner=split - 3, at_left=split / 2,
        at_right=(split + width) / 2, left_length=lengths[0], right_length=lengths[1],
    )  # fmt: skip


def badges() -> dict[str, str]:
    """The badges by the names of their files."""
    python = said(r'^requires-python = ">=([\d.]+)"')
    torch = said(r'^ +"torch>=([\d.]+)"')
    return {
        "python.svg": badge("Python", f"{python} or newer"),
        "pytorch.svg": badge("PyTorch", f"{torch} or newer"),
        "licence.svg": badge("licence", said(r'^license = "(.+)"')),
        "checked.svg": badge("checked with", "ruff, mypy, import-linter"),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("badges")
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in badges().items():
        (folder / name).write_text(drawn, encoding="utf-8")
