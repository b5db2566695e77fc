from __future__ import annotations

import json
import sys

import pytest
import typer
from typer.testing import CliRunner

from pointwise import comparison
from pointwise.cli import compare as command
from pointwise.comparison import Job


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


@pytest.mark.slow
def test_a_job_of_ones_own(tmp_path):
    picture, numbers = tmp_path / "a.png", tmp_path / "a.json"
    result = run("--in", "10x12x16", "--out", 32, "--stride", 2, "--batch", 2, "--rounds", 2,
                 "--groups", 2, "--expand", 3, "--norm", "--budget", "1k-parameters",
                 "--budget", "50%-multiply-adds", "--json", numbers,
                 "--picture", picture)  # fmt: skip
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    lines = result.output.splitlines()
    named = [line for line in lines if str(tmp_path) in line.replace("wrote ", "")]
    assert max(len(line.rstrip()) for line in lines if line not in named) <= 80
    for words in ("10×12×16 to 32 channels, 3×3, stride 2, 2 images", "standard", "depthwise",
                  "pointwise", "separable", "grouped", "bottleneck", "inverted", "ours backward",
                  "torch forward", "least", "95th", "threads.",
                  "Recommended: ", "keeps to 1.00 k parameters and",
                  "a part of the job only: "):  # fmt: skip
        assert words in result.output, words
    (found,) = json.loads(numbers.read_text())["comparisons"]
    assert (found["in"], found["out"], found["stride"]) == ([10, 12, 16], 32, 2)
    counts = {row["kind"]: row["multiply_adds"] for row in found["rows"]}
    assert counts["standard"] == 2 * 30 * 16 * 32 * 9
    assert counts["grouped"] == counts["standard"] // 2
    assert found["rows"][0]["forward"]["ours"]["runs"] == 2
    assert found["recommendation"]["kind"] in ("separable", "shift", "bottleneck")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_arguments_the_classic_sweep(monkeypatch):
    seen = []
    compared = comparison.compare

    def small(job, **options):
        seen.append((job, options["samples"]))
        return compared(Job(8, 8, job.in_channels, job.out_channels), **options | {"samples": 1})

    monkeypatch.setattr(comparison, "compare", small)
    result = run()
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert seen == [(Job(224, 224, 3, outputs), 50) for outputs in (64, 128, 256)]
    flat = " ".join(result.output.split())
    assert "No depthwise: each channel has its own results, and 256 is no multiple of 3." in flat
    assert "No grouped: 4 groups do not go into 3 and 64 channels." in flat


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", 3], "--out 3 needs --in, such as --in 56x56x128"),
        (["--in", "56x56x128"], "--in 56x56x128 needs --out, the channels of the result"),
        (["--in", "56x56", "--out", 3], "--in must be height, width and channels, as in 56x56x128"),
        (["--in", "0x5x3", "--out", 3], "got '0x5x3'"),
        (["--kernel", 2], "kernel must be odd"),
        (["--budget", "fast"], "--budget must be a number and what it is of, such as 2ms, 20k-p"),
        (["--budget", "2ms", "--budget", "9 apples"], "got '9 apples'"),
        (["--json", "a.txt"], "--json must end in .json, got a.txt"),
        (["--json", "nowhere/a.json"], "there is no folder nowhere for a.json"),
        (["--picture", "a.gif"], "--picture must end in .png or .svg or .pdf, got a.gif"),
    ],
)
def test_what_goes_wrong(arguments, message):
    result = run(*arguments)
    assert isinstance(result.exception, ValueError), result.output
    assert message in str(result.exception)


def test_a_picture_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("--picture", "a.png")
    assert isinstance(result.exception, ImportError)
    assert "pip install 'pointwise[report]'" in str(result.exception)
