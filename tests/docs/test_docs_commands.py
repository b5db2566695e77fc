"""The commands of the pages on labelling, comparing and separating run, and do what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointwise.cloud.files import read_scan, write_scan

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = Path(sys.executable).with_name("pointwise")


def commands(page: str) -> list[list[str]]:
    """What a page tells to run: lines of ``sh`` blocks, and those behind a ``$``."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [
        line
        for language, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.M | re.S)
        for line in block.splitlines()
        if language == "sh" or line.startswith("$ ")
    ]
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in found if line.strip()]


def run(words: list[str], folder: Path) -> str:
    assert words[0] == "pointwise"
    done = subprocess.run([COMMAND, *words[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def counted(text: str) -> list[tuple[str, ...]]:
    """Titles and rows of comparisons without what was measured: kind, parameters, multiply-adds,
    and the gain by count."""
    row = r"^(\d+×\d+×\d+ to \d+ channels)|^([a-z]+) +(\S+) +([\d.]+[kMG]) .* (\S+) +\S+ +\S+ *$"
    return re.findall(row, text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_comparing_counts_what_the_page_says(number, tmp_path):
    found = commands("compare.md")
    assert [words[1] for words in found] == ["compare", "compare"]
    page = (DOCS / "compare.md").read_text(encoding="utf-8")
    (shown,) = [
        block
        for block in re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)
        if block.startswith(f"$ {shlex.join(found[number])}\n")
    ]
    words = [word for word in found[number] if word not in ("--rounds", "20")]
    printed = run([*words, "--rounds", "1"], tmp_path)
    assert len(counted(shown)) == (9, 21)[number]
    assert counted(shown) == counted(printed)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        word for word in words if word.startswith("compare.")
    )


@pytest.mark.slow
def test_the_commands_on_labelling_run_in_their_order(shared_data, tmp_path):
    """As they stand, but for the minutes."""
    source = shared_data / "las/town_6_classes.las"
    (tmp_path / source.name).symlink_to(source.resolve())
    town = read_scan(source)
    east, north = (town.points[:, :2] > np.median(town.points[:, :2], axis=0)).T
    for number in range(4):
        tile = town.select(2 * east + north == number)
        (tmp_path / "tiles" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        write_scan(tile, tmp_path / "tiles" / str(number % 2) / f"{number}.laz")
    found = commands("label.md")
    assert [words[1] for words in found] == ["info", "train", "info", *["label"] * 5]
    printed = []
    for words in found:
        if "--minutes" in words:
            words[words.index("--minutes") + 1] = "0.05"
        printed.append(run(words, tmp_path))
    for text in (printed[0], printed[2], printed[3]):
        assert "vegetation" in text
        assert "low vegetation" not in text
    assert "4 files lie side by side" in printed[6]
    assert "4 of 4 files are labelled already" in printed[7]
    assert len([*tmp_path.glob("out/*/*.laz")]) == 4
    codes = set(read_scan(tmp_path / "labelled.laz").labels)
    assert codes <= {2, 3, 6}
    doubtful = read_scan(tmp_path / "doubtful.las").labels
    np.testing.assert_array_equal(doubtful[town.labels == 6], 6)
    assert "confidence" in read_scan(tmp_path / "labelled.laz").fields


@pytest.mark.rare
def test_the_commands_on_separating_run_in_their_order(shared_data, tmp_path):
    """As they stand, but for the epochs."""
    images = shared_data / "image_classes/signdigits64.npz"
    (tmp_path / images.name).symlink_to(images.resolve())
    with np.load(images) as data:
        Image.fromarray(data["images"][0]).save(tmp_path / "sign.png")
    found = commands("separate.md")
    assert [words[1] for words in found] == ["train", "separate", "separate", "classify"]
    printed = []
    for words in found:
        for option in ("--epochs", "--finetune"):
            if option in words:
                words[words.index(option) + 1] = "1"
        printed.append(run(words, tmp_path))
    page = (DOCS / "separate.md").read_text(encoding="utf-8")
    for line in ("256 training images to fit to, 64 test images to compare outputs on",
                 "Accuracy on the test part (519 images)"):  # fmt: skip
        assert line in page
        assert line in printed[1]
    assert "fine-tuned" in printed[2]
    assert (tmp_path / "runs/signs-rank-1/weights.pt").is_file()


def test_which_convolution_asks_for_what_there_is(tmp_path):
    """The page's commands are ones that ``compare`` and the experiment understand."""
    from pointwise.comparison import budget_of

    found = commands("which.md")
    assert [words[0] for words in found] == ["pointwise"] * 3 + ["python"]
    budgets = [words[words.index("--budget") + 1] for words in found if "--budget" in words]
    assert [budget_of(text).of for text in budgets] == ["time", "parameters"]
    experiment = DOCS.parent / found[-1][1]
    options = [word for word in found[-1] if word.startswith("--")]
    assert all(f"{option[2:]}: Annotated" in experiment.read_text() for option in options)
