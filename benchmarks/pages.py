"""Places in the guide's pages that commands write their figures into."""

from __future__ import annotations

from pathlib import Path

from pointwise.atomic import replacing

END = "<!-- until here -->"


def begin(by: str) -> str:
    """What stands before the place that ``by`` writes into."""
    return f"<!-- written by {by} -->"


def put(page: Path, text: str, by: str) -> None:
    """Replaces what stands between the two marks of a page; ValueError where they are missing."""
    before, start, rest = page.read_text(encoding="utf-8").partition(begin(by))
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{by}: {page} has no place for figures: {begin(by)} … {END}")
    with replacing(page) as part:
        part.write_text(f"{before}{start}\n\n{text}\n{end}{after}", encoding="utf-8")
