"""What messages show of values and of other people's errors: one line, not too long."""

from __future__ import annotations

from decimal import Decimal


def shortened(text: str, most: int = 60) -> str:
    """``text`` with an ellipsis in place of what goes beyond ``most`` letters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def first_line(error: BaseException, most: int | None = 200) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip()[:most] if lines else type(error).__name__


def rounded(number: float, digits: int = 3) -> str:
    """A number with so many digits that matter, as people write it: never in powers of ten.

    >>> rounded(0.0123), rounded(12.345), rounded(1807.2), rounded(348_271_123.6, 6)
    ('0.0123', '12.3', '1,807', '348,271,124')
    """
    if abs(number) >= 10**digits - 0.5:
        return f"{number:,.0f}"
    return format(Decimal(f"{number:.{digits}g}"), "f")


def duration(milliseconds: float) -> str:
    """A time in the unit in which people say it.

    >>> duration(0.0123), duration(7.214), duration(1807), duration(153_000)
    ('12.3 µs', '7.21 ms', '1.81 s', '2 min 33 s')
    """
    if milliseconds < 0.0995:
        return f"{rounded(1e3 * milliseconds)} µs"
    if milliseconds < 999.5:
        return f"{rounded(milliseconds)} ms"
    if milliseconds < 99_950:
        return f"{rounded(milliseconds / 1e3)} s"
    minutes, seconds = divmod(round(milliseconds / 1e3), 60)
    return f"{minutes} min {seconds} s"


def rough_duration(seconds: float) -> str:
    """A time that is not known to the second, and so not said to the second.

    >>> rough_duration(8.4), rough_duration(200), rough_duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
