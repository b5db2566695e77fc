"""What README.md and CONTRIBUTING.md tell people to do works, in the order in which they say it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointwise.cloud.files import write_scan
from pointwise.networks import MobileNetV1
from pointwise.rooms import room

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("pointwise")


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    lines = "".join(blocks(document, "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def save_weights(folder: Path) -> None:
    """The file of weights that README.md has from somewhere."""
    torch.save(MobileNetV1(width=0.25).state_dict(), folder / "mobilenet_v1_0.25.pth")


def run(arguments: list, folder: Path) -> subprocess.CompletedProcess:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.slow
@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_python_runs(document, tmp_path):
    found = blocks(document, "python")
    assert found
    save_weights(tmp_path)
    for number, source in enumerate(found):
        script = tmp_path / f"{number}.py"  # kernels must live in a file
        script.write_text(source, encoding="utf-8")
        run([sys.executable, script], tmp_path)


@pytest.mark.slow
def test_the_commands_run(tmp_path):
    """As they stand, but for minutes of training and rounds; ``bench`` has tests of its own."""
    save_weights(tmp_path)
    Image.linear_gradient("L").save(tmp_path / "photo.jpg")
    Image.linear_gradient("L").save(tmp_path / "digit.png")
    write_scan(room(1, rays=20_000), tmp_path / "scan.laz")
    write_scan(replace(room(2, rays=20_000), labels=None), tmp_path / "new.laz")
    found = commands("README.md")
    assert {words[1] for words in found} == {
        "info", "train", "label", "view", "classify", "speedup", "explain", "profile", "compare",
        "separate", "bench",
    }  # fmt: skip
    for words in found:
        assert words[0] == "pointwise"
        if words[1] == "bench":
            continue
        if "--minutes" in words:
            words[words.index("--minutes") + 1] = "0.05"
        if words[1] in ("profile", "compare"):
            words += ["--rounds", "1"]
        run([COMMAND, *words[1:]], tmp_path)
    runs = ("run/metrics.json", "digits-run/metrics.json")
    for made in (*runs, "labelled.laz", "labelled.html", "labelled.png", "page.html"):
        assert (tmp_path / made).stat().st_size > 0


@pytest.mark.rare
def test_the_benchmarks_run(tmp_path):
    found = [words for words in commands("README.md") if words[1] == "bench"]
    cases = {"cloud": "paper_forward", "image": "mobilenet_v1"}
    assert sorted(words[2] for words in found) == sorted(cases)
    for words in found:
        assert "--quick" in words
        assert cases[words[2]] in run([COMMAND, *words[1:]], tmp_path).stdout


def test_make_has_what_the_readme_promises():
    promised = re.findall(r"^\$ make (\w+)", "".join(blocks("README.md", "console")), re.MULTILINE)
    assert promised == ["demo", "test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(promised) <= set(targets)
    # Both are run on a clean checkout by CI.
    run_by_ci = (ROOT / ".ci/run").read_text()
    assert all(f"make --no-print-directory {target}" in run_by_ci for target in promised)
    assert "test ARGS=--slow" in run_by_ci
