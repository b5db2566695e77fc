"""What could not be written is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pointwise.cli.outputs import check_output

ENDINGS = (".png", ".svg")


def test_what_can_be_written(tmp_path):
    check_output("draw", "--picture", None, ENDINGS)
    check_output("draw", "--picture", tmp_path / "A.PNG", ENDINGS)
    (tmp_path / "there.svg").write_text("may be written over")
    check_output("draw", "--picture", tmp_path / "there.svg", ENDINGS)
    check_output("draw", "--picture", Path("here.png"), ENDINGS)


def test_what_cannot(tmp_path, monkeypatch):
    def refused(name: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_output("draw", "--picture", tmp_path / name, ENDINGS)

    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    refused("a.txt", r"^draw: --picture must end in \.png or \.svg, got .*a\.txt$")
    refused("gone/a.png", r"^draw: there is no folder .*gone for a\.png$")
    refused("file/a.png", r"^draw: there is no folder .*file for a\.png$")
    refused("folder.png", r"folder\.png is a folder; name a file in it$")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused("a.png", "^draw: nothing can be written into the folder ")
