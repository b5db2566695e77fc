"""The guide becomes a site without warnings, and the site asks nothing from a network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))

needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "latex2mathml")),
    reason="the site is made by mkdocs-material and latex2mathml: pip install 'pointwise[docs]'",
)


class Asked(HTMLParser):
    """What a browser fetches for a page by itself; links that are to be clicked are none of it."""

    TAGS = frozenset({"script", "img", "iframe", "source", "video", "audio", "embed", "object"})
    RELATIONS = frozenset(
        {"stylesheet", "preload", "modulepreload", "preconnect", "dns-prefetch", "prefetch", "icon"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.inside = tag
        if tag in self.TAGS:
            names = ("src", "srcset", "data", "poster")
            self.found += [given[name] for name in names if name in given]
        if tag == "link" and self.RELATIONS & set(given.get("rel", "").split()):
            self.found.append(given["href"])
        self.found += re.findall(r"url\(([^)]*)\)", given.get("style", ""))

    def handle_data(self, data):
        if self.inside == "style":
            self.found += wanted_by_style(data)


def wanted_by_style(sheet: str) -> list[str]:
    """Addresses that a style sheet names."""
    found = re.findall(r"url\(\s*['\"]?([^)'\"]+)", sheet)
    return found + re.findall(r"@import\s+['\"]([^'\"]+)", sheet)


def asked_by(page: str) -> list[str]:
    parser = Asked()
    parser.feed(page)
    return parser.found


def elsewhere(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@needs_mkdocs
def test_every_page_is_built_and_named_in_the_contents(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        assert (site / page.with_suffix(".html").name).is_file()
        assert page.stem == "index" or f'href="{page.stem}.html"' in home


@needs_mkdocs
def test_the_page_of_explain_is_in_the_site(site):
    from pointwise.report.explain import build_page

    written = site / "pages" / "explain.html"
    assert written.read_text(encoding="utf-8") == build_page()
    shown = (site / "explain.html").read_text(encoding="utf-8")
    assert 'src="pages/explain.html#standard"' in shown


@needs_mkdocs
def test_nothing_is_fetched_from_elsewhere(site):
    fetched = {
        file: asked_by(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")
    } | {file: wanted_by_style(file.read_text(encoding="utf-8")) for file in site.rglob("*.css")}
    assert sum(map(len, fetched.values())) > 3 * len(PAGES)
    for file, addresses in fetched.items():
        assert [address for address in addresses if elsewhere(address)] == [], file
        for address in addresses:
            path = re.split("[?#]", address)[0]
            if path and not path.startswith("data:"):
                root = site if path.startswith("/") else file.parent
                assert (root / path.lstrip("/")).is_file(), f"{file.name}: {address}"


@needs_mkdocs
def test_formulas_are_mathml_and_none_is_left_as_latex(site):
    written = {page.stem: page.read_text(encoding="utf-8").count("```math\n") for page in PAGES}
    assert sum(map(bool, written.values())) >= 4
    for page, formulas in written.items():
        built = (site / f"{page}.html").read_text(encoding="utf-8")
        assert built.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') == (
            formulas
        )
        assert "arithmatex" not in built
        for shown in re.findall(r"<math.*?</math>", built, re.DOTALL):
            assert "\\" not in shown, shown  # a command that the library does not know
            assert "<mi>&" not in re.sub("&#x[0-9A-F]+;", "", shown), shown  # a table's cells


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<link rel="preconnect" href="https://fonts.example">',
        "<style>@font-face { src: url('https://fonts.example/a.woff2') }</style>",
        '<p style="background: url(http://a.example/b.png)">',
        '<img src="http://a.example/b.png">',
    ],
)
def test_what_is_fetched_is_noticed(page):
    assert any(elsewhere(address) for address in asked_by(page))
    assert not any(map(elsewhere, asked_by('<a href="https://a.example">read</a>')))


@needs_mkdocs
def test_a_broken_link_fails_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        (tmp_path / "docs" / page.name).write_text("# A page\n")
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[nowhere](convolutions.md#nowhere)\n")
    (tmp_path / "docs" / "guide.css").write_text("")
    for hook in ("formulas.py", "write_explain.py"):
        text = (ROOT / "docs" / hook).read_text(encoding="utf-8")
        (tmp_path / "docs" / hook).write_text(text, encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
