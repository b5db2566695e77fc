"""What messages show of values and of other people's errors: one line, not too long."""

from __future__ import annotations


def shortened(text: str, most: int = 60) -> str:
    """``text`` with an ellipsis in place of what goes beyond ``most`` letters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def first_line(error: BaseException, most: int | None = 200) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip()[:most] if lines else type(error).__name__
