"""Formulas as MathML, which browsers show without a script: a hook of MkDocs.

Pages write them as GitHub reads them too, LaTeX between dollars or in a block of language
``math``. Arithmatex, an extension of Markdown, finds them; this puts MathML in their place.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

FOUND = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: object) -> str:
    """What MkDocs calls with the HTML of each page."""
    return FOUND.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    latex = html.unescape(found["latex"]).strip()
    if found["tag"] == "span":
        return convert(latex)
    # It may be wider than a phone, and then scrolls by itself; keys can reach it there.
    return f'<div class="formula" tabindex="0">{convert(latex, display="block")}</div>'
