from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pointwise.cli.view import view
from pointwise.cloud.files import read_scan

DATA = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in an empty folder; an error is raised as it is."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(view)

    def call(*arguments) -> list[str]:
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    return call


@pytest.fixture
def cloud(tmp_path) -> Path:
    path = tmp_path / "input" / "small.xyz"
    path.parent.mkdir()
    np.savetxt(path, np.random.default_rng(0).random((300, 3)) * (5, 4, 1))
    return path


def test_a_page_and_a_picture_in_the_current_folder(run, cloud, tmp_path):
    assert run(cloud) == ["small.html", "small.png"]
    assert "showlegend" in (tmp_path / "small.html").read_text()
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def test_output_and_by(run, cloud, tmp_path):
    assert run(cloud, "-o", "out/a.html", "--by", "height") == ["out/a.html", "out/a.png"]
    assert '"start": "height"' in (tmp_path / "out/a.html").read_text()


def test_real_file(run, tmp_path):
    path = DATA / "las/town_6_classes.las"
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    assert run(path) == ["town_6_classes.html", "town_6_classes.png"]
    page = (tmp_path / "town_6_classes.html").read_text(encoding="utf-8")
    names = {read_scan(path).classes[code] for code in (2, 3, 4, 5, 6, 7)}
    assert all(f"{name} · " in page or f"{name} \\u00b7 " in page for name in names)


def test_a_file_of_several_clouds(run, tmp_path):
    path = DATA / "radhar/radhar_train.npz"
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    first, page, _ = run(path, "--cloud", 3)
    assert "holds 2484 clouds; this is number 3 (choose with --cloud)" in first
    assert "class: " in (tmp_path / page).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"--cloud must be 1 to 2484.*got 0"):
        run(path, "--cloud", 0)


def test_the_input_is_never_overwritten(run, cloud, tmp_path):
    other = tmp_path / "scan.html"
    other.write_bytes(cloud.read_bytes())
    with pytest.raises(ValueError, match=r"scan\.html is the input; choose another name"):
        run(other)
    with pytest.raises(ValueError, match=r"scan\.html is the input"):
        run(other, "-o", tmp_path / "input" / ".." / "scan.html")
    assert other.read_bytes() == cloud.read_bytes()


def test_what_is_wrong_becomes_one_line(run, cloud, tmp_path):
    with pytest.raises(ValueError, match=r"--output must end in .html, got a.png"):
        run(cloud, "-o", "a.png")
    with pytest.raises(ValueError, match="this scan has no color"):
        run(cloud, "--by", "color")
    with pytest.raises(OSError, match=r"nowhere\.las"):
        run(tmp_path / "nowhere.las")
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


def test_an_empty_cloud_is_told(run):
    path = DATA / "e57/ZeroPoints.e57"
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    with pytest.raises(ValueError, match="holds no points"):
        run(path)


def test_open_shows_the_page_in_the_browser(run, cloud, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    run(cloud)
    assert opened == []
    run(cloud, "--open")
    assert opened == [(tmp_path / "small.html").as_uri()]
