"""Puts the page of `pointwise explain` into the site while MkDocs builds it: no copy of it is kept.

MkDocs calls ``on_files`` (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from pointwise.report.explain import build_page

ADDRESS = "pages/explain.html"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page to the files of the site."""
    files.append(File.generated(config, ADDRESS, content=build_page()))
    return files
