from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pointwise.cli.explain import explain

COMMAND = Path(sys.executable).with_name("pointwise")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in an empty folder, with a page of its own."""
    from pointwise.report import explain as page

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "build_page", lambda: "<!doctype html>page")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(explain)

    def call(*arguments) -> list[str]:
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    return call


def test_it_says_what_it_wrote_and_how_to_open_it(run, tmp_path):
    said = run()
    assert said == ["explain.html (0 kB)", "Open it in any browser; --open does so at once."]
    assert all(len(line) <= 80 for line in said)
    assert (tmp_path / "explain.html").read_text() == "<!doctype html>page"
    assert [path.name for path in tmp_path.iterdir()] == ["explain.html"]


def test_out_names_the_file_and_its_folder_is_made(run, tmp_path):
    assert run("--out", "pages/convolutions.HTML")[0] == "pages/convolutions.HTML (0 kB)"
    assert run("-o", "short.htm")[0] == "short.htm (0 kB)"
    assert (tmp_path / "pages/convolutions.HTML").is_file()


def test_a_page_from_before_is_replaced(run, tmp_path):
    (tmp_path / "explain.html").write_text("from before")
    run()
    assert (tmp_path / "explain.html").read_text() == "<!doctype html>page"


def test_open_shows_it_in_the_browser(run, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    run("--no-open")
    assert opened == []
    assert run("--open") == ["explain.html (0 kB)"]
    assert opened == [(tmp_path / "explain.html").as_uri()]


def test_a_folder_is_not_overwritten(run, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "dir.html").mkdir()
    with pytest.raises(
        ValueError, match=r"pages is a folder; name a file in it, as in --out pages/"
    ):
        run("--out", "pages")
    with pytest.raises(ValueError, match=r"dir\.html is a folder"):
        run("--out", "dir.html")
    assert not any((tmp_path / "pages").iterdir())


def test_only_pages_are_written(run, tmp_path):
    with pytest.raises(ValueError, match=r"--out must end in \.html, got page\.pdf"):
        run("--out", "page.pdf")
    assert not any(tmp_path.iterdir())


def test_where_nothing_can_be_written_one_sentence_says_so(run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"^file/page\.html cannot be written: its folder is a file$"):
        run("--out", "file/page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_there_stays_when_writing_fails(run, tmp_path, monkeypatch):
    (tmp_path / "explain.html").write_text("from before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"explain\.html cannot be written: No space left"):
        run()
    assert [path.name for path in tmp_path.iterdir()] == ["explain.html"]
    assert (tmp_path / "explain.html").read_text() == "from before"


def test_it_needs_neither_torch_nor_kernels(tmp_path):
    """So it is written at once: torch takes seconds to import, kernels minutes to compile."""
    program = (
        "import sys; from pointwise.cli.explain import explain; from pathlib import Path;"
        "explain(Path(sys.argv[1]), False);"
        "print({'torch', 'numba', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "explain.html")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.slow
def test_the_command_itself(tmp_path):
    """As a user runs it: the page is there, and a mistake is one line without a traceback."""
    done = subprocess.run([COMMAND, "explain"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("explain.html (")
    assert "</html>" in (tmp_path / "explain.html").read_text(encoding="utf-8")
    done = subprocess.run(
        [COMMAND, "explain", "--out", "."], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "pointwise: . is a folder; name a file in it, as in --out explain.html"
    ]
