"""Nothing that a file or a name holds steers the terminal."""

from __future__ import annotations

import io
import unicodedata

import numpy as np
import pytest

from pointwise import cli
from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan
from pointwise.terminal import plain, shown, terminal

STEERING = "\x1b]0;owned\x07\x1b[2J\n\r\t\x00\x7f\x9b31m\u202eabc\u2066\u200f\u2028\udcff"


def test_steering_characters_are_written_out():
    assert plain("\x1b[2J\n\u202e\x9b") == r"\x1b[2J\n\u202e\x9b"
    assert plain("Gebäude 橋 \u200c👩\u200d🚀 [bold]") == "Gebäude 橋 \u200c👩\u200d🚀 [bold]"
    assert shown("[bold]a[/bold]\x1b") == r"\[bold]a\[/bold]\x1b"
    everything = plain("".join(map(chr, range(0x3000))) + "\ud800\udfff")
    assert not {unicodedata.category(c) for c in everything} & {"Cc", "Cs", "Zl", "Zp"}


def test_what_commands_print_keeps_its_own_colours():
    console = terminal()
    console.file, console._force_terminal, console._color_system = io.StringIO(), True, None
    console.print("[bold]a[/bold]\x1b[2J\u202e\nb")
    printed = console.file.getvalue()
    assert r"\x1b[2J\u202e" in printed
    assert "\x1b[2J" not in printed
    assert printed.count("\n") == 2


def run(*words, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pointwise", *map(str, words)])
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    return out + err


def test_names_on_the_command_line(tmp_path, capsys, monkeypatch):
    name = "[red]\x1b]0;owned\x07\n\u202e"
    scan = Scan(
        np.zeros((2, 3)),
        fields={name: np.arange(2)},
        labels=np.array([0, 1]),
        classes={0: name, 1: "tree"},
    )
    scan.group = name
    path = tmp_path / f"{name}.npz"
    write_scan(scan, path)
    for words in (["info", path], ["info", tmp_path / f"no{name}.ply"], ["info", tmp_path / name]):
        printed = run(*words, capsys=capsys, monkeypatch=monkeypatch)
        assert r"[red]\x1b]0;owned\x07\n\u202e" in printed.replace("\n", "")
        assert not set("\x1b\x07\u202e") & set(printed)
