"""What README.md and CONTRIBUTING.md tell people to do works, in the order in which they say it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import make_badges

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("pointwise")


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    return lines("".join(blocks(document, "sh")))


def lines(block: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


def run(arguments: list, folder: Path) -> subprocess.CompletedProcess:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done


def run_python(source: str, script: Path) -> None:
    script.write_text(source, encoding="utf-8")  # kernels must live in a file
    run([sys.executable, script], script.parent)


@pytest.mark.slow
def test_the_python_of_contributing_runs(tmp_path):
    found = blocks("CONTRIBUTING.md", "python")
    assert found
    for number, source in enumerate(found):
        run_python(source, tmp_path / f"{number}.py")


@pytest.mark.slow
def test_readme_runs_from_top_to_bottom(tmp_path):
    """As it stands, but for minutes of training and rounds; ``bench`` has tests of its own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(python|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert {words[1] for words in commands("README.md")} == {
        "info", "train", "label", "view", "classify", "speedup", "explain", "profile", "compare",
        "separate", "bench",
    }  # fmt: skip
    for number, (language, block) in enumerate(found):
        if language == "python":
            run_python(block, tmp_path / f"{number}.py")
            continue
        for words in lines(block):
            assert words[0] == "pointwise"
            if words[1] == "bench":
                continue
            if "--minutes" in words:
                words[words.index("--minutes") + 1] = "0.05"
            if words[1] in ("profile", "compare"):
                words += ["--rounds", "1"]
            run([COMMAND, *words[1:]], tmp_path)
    runs = ("run/metrics.json", "digits-run/metrics.json")
    pages = ("explain.html", "labelled.html", "labelled.png", "page.html")
    for made in (*runs, *pages, "labelled.laz"):
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


def test_the_steps_without_make_install_what_make_does():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (pinned,) = set(re.findall(r"torch==\S+", makefile))
    for document in ("README.md", "docs/index.md"):
        steps = re.findall(r"^\$ pip install (\S+)", "".join(blocks(document, "console")), re.M)
        assert steps == [pinned, "--editable"], document  # torch first


def test_badges_say_what_the_project_says(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = make_badges.badges()
    assert re.findall(r"\(docs/badges/([\w.]+)\)", text) == list(drawn)
    for name, badge in drawn.items():
        assert (ROOT / "docs/badges" / name).read_text(encoding="utf-8") == badge
    check = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ncheck:")[2]
    for tool in ("ruff", "mypy", "lint-imports"):
        assert f"$(BIN)/{tool}" in check


def test_links_lead_somewhere():
    """To files, and to sections as GitHub names them."""
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target, section in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
            file = ROOT / (target or document)
            assert file.exists(), target
            titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.M) if section else []
            names = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not section or section in names, section
