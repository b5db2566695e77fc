"""Long work speaks: on stderr only, a line now and then, and of kernels once."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from pointwise.cli import progress
from pointwise.cli.progress import bar, tell_of_kernels, working
from pointwise.messages import rough_duration


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def tick(seconds):
        now[0] += seconds

    return tick


def test_a_line_now_and_then(clock, capsys):
    with bar("timing") as advance:
        for done in range(100):
            advance(done, 100)
            clock(1.0)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[:3] == ["timing: 5 % done", "timing: 20 % done, about 80 s left",
                         "timing: 35 % done, about 65 s left"]  # fmt: skip
    assert len(lines) == 7


def test_what_is_quick_says_nothing(clock, capsys):
    with bar("timing") as advance:
        for done in range(1, 101):
            advance(done, 100)
            clock(0.04)
    with working("reading") as say:
        say("reading more")
    assert capsys.readouterr() == ("", "")


def test_what_takes_long_says_what_it_does(clock, capsys):
    with working("reading data") as say:
        for number in range(40):
            say(f"reading file {number}")
            clock(1.0)
    assert capsys.readouterr() == ("", "reading file 5 …\nreading file 20 …\nreading file 35 …\n")


def test_a_new_part_of_the_work_has_a_time_of_its_own(clock, capsys):
    with bar("separating") as advance:
        advance(0, 4, "finding ranks")
        clock(6)
        advance(1, 4, "finding ranks")
        clock(30)
        advance(0, 2, "timing layers")
        clock(20)
        advance(1, 2, "timing layers")
    assert capsys.readouterr().err.splitlines() == [
        "finding ranks: 25 % done, about 18 s left", "timing layers …",
        "timing layers: 50 % done, about 20 s left"]  # fmt: skip


def test_a_terminal_has_a_bar_that_is_gone(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with bar("timing [all]") as advance:
        advance(1, 2)
        advance(1, 4, "timing [some]")
    text = screen.getvalue()
    assert "timing [some]" in text
    assert "25%" in text
    assert text.rstrip("\x1b[?25h").endswith("\x1b[2K")  # the line is empty again


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (8.4, "8 s"), (80, "80 s"), (100, "2 min"), (600, "10 min")]
)
def test_durations(seconds, said):
    assert rough_duration(seconds) == said


def test_kernels_are_spoken_of_once(clock, capsys):
    log = logging.getLogger("pointwise.kernels")
    before = log.handlers, log.level, log.propagate
    try:
        tell_of_kernels()
        tell_of_kernels()  # still once
        for number in range(4):
            clock(6)
            log.info("compiling kernels for %s: %s", "AVX2", f"k{number}")
            log.info("compiled kernels for %s: %s", "AVX2", f"k{number}")
    finally:
        log.handlers, log.level, log.propagate = before
    assert capsys.readouterr().err.splitlines() == [
        "compiling kernels for AVX2 (once; half a minute where there are none yet)…",
        "compiling kernels: 3 are ready",
    ]


def test_only_one_of_several_processes_speaks(clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with bar("timing") as advance:
        clock(60)
        advance(1, 2)
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import sys, torch
{first}
from pointwise.engine.cpu.launch import kernel

@kernel
def nothing(arguments, program, thread):
    pass

nothing.address
"""


@pytest.mark.slow
@pytest.mark.parametrize("told", [False, True])
def test_the_library_is_silent_and_the_command_line_speaks(told, tmp_path):
    """A kernel that nobody compiled before."""
    first = "from pointwise.cli.progress import tell_of_kernels as t; t()" if told else ""
    (tmp_path / "script.py").write_text(SCRIPT.format(first=first), encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert ("compiling kernels for" in done.stderr) == told
    assert told or done.stderr == ""
