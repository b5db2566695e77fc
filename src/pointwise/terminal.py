"""Text from files and names, made safe to show: what would steer a terminal is written out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Control characters (C0, delete, C1), line ends of Unicode, marks that turn the direction of what
# follows, and halves of surrogates, which names of files that are no UTF-8 have.
_STEERING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINES = re.compile(f"(?!\n)[{_STEERING}]")
_IN_A_LINE = re.compile(f"[{_STEERING}]")


def plain(text: object) -> str:
    r"""One line of text without steering characters: an escape becomes ``\x1b``, for one."""
    return _IN_A_LINE.sub(_written_out, str(text))


def shown(name: object) -> str:
    """``plain``, and what rich would take for markup is not: for names between a page's words."""
    from rich.markup import escape

    return escape(plain(name))


def terminal(quiet: bool = False) -> Console:
    """What commands print with, if they are not to be ``quiet``: nothing steers the terminal.

    Names are to be given through ``shown`` as well, so that they have one line and no markup.
    """
    from rich.console import Console

    class Terminal(Console):
        def render(self, renderable, options=None):
            for segment in super().render(renderable, options):
                if segment.control is None:
                    segment = segment._replace(text=_IN_LINES.sub(_written_out, segment.text))
                yield segment

    return Terminal(highlight=False, quiet=quiet)


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
