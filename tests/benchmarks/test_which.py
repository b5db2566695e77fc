"""The experiment of the page "Which convolution?": its networks, its widths, a tiny run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pages
import which
from typer.testing import CliRunner
from which import KINDS, PARAMETERS, REFERENCE, TIME, Network, Result, Stages, Task

TASK = Task("digits", "digits", 8, 8, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind(kind):
    torch.manual_seed(0)
    network = Stages(kind, 8, 1, 10)
    first, other = (block.state_dict() for block in (network.blocks[3], network.blocks[5]))
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    network(torch.rand(2, 1, 8, 8)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    torch.manual_seed(1)
    again = Stages(kind, 8, 1, 10).blocks[3].state_dict()
    assert not all(torch.equal(first[name], again[name]) for name in first)  # seeds count
    assert set(first) == set(other)


def test_without_norms_it_is_the_network_in_inference():
    """As fast, that is: with the same convolutions and nothing besides."""
    with_norms, without = Stages("separable", 8, 1, 10), Stages("separable", 8, 1, 10, norm=False)
    missing = set(with_norms.state_dict()) - set(without.state_dict())
    assert missing
    assert all("norm" in name for name in missing)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != REFERENCE])
def test_widths_at_equal_parameters(kind):
    wanted = which.parameters_of(REFERENCE, 16, 3, 10)
    width = which.at_equal_parameters(kind, Task("", "", 32, 16, 1), 3, 10)
    assert which.parameters_of(kind, width, 3, 10) == pytest.approx(wanted, rel=0.2)
    assert width % (2 if kind == "inverted residual" else 4) == 0


@pytest.mark.parametrize("limit", [0, 4, 37, 64, 127, 500])
def test_widths_at_equal_time(limit):
    asked = []

    def slower(width):
        asked.append(width)
        return width > limit

    found = which.at_equal_time(which.WIDTHS, slower)
    assert found == max([width for width in which.WIDTHS if width <= limit], default=4)
    assert len(asked) <= 5


def results():
    def one(kind, budget, width, *accuracies):
        return Result("digits", budget, Network(kind, width, 19_100, 189_000, 2.57), accuracies)

    return [one("standard", PARAMETERS, 8, 0.9, 0.92), one("shift", PARAMETERS, 24, 0.95, 0.93),
            one("standard", TIME, 8, 0.9, 0.92), one("shift", TIME, 4, 0.5, 0.5)]  # fmt: skip


def test_the_table_and_its_place_in_a_page(tmp_path):
    text = which.table(results())
    assert "**digits, at equal parameters**" in text
    assert "| standard | 8 | 19.1 k | 189 k | 2.57 | 91.0 % | 1.4 |" in text
    assert "| shift | 24 | 19.1 k | 189 k | 2.57 | **94.0 %** | 1.4 |" in text
    page = tmp_path / "page.md"
    begin, end = pages.begin(which.BY), pages.END
    page.write_text(f"# Before\n\n{begin}\nold\n{end}\n\nAfter.\n", encoding="utf-8")
    for _ in range(2):
        pages.put(page, text, which.BY)
        found = page.read_text(encoding="utf-8")
        assert found == f"# Before\n\n{begin}\n\n{text}\n{end}\n\nAfter.\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no place for figures"):
        pages.put(page, text, which.BY)


def test_on_a_busy_machine_nothing_is_compared_at_equal_time(monkeypatch):
    monkeypatch.setattr(which, "KINDS", ("standard", "separable"))
    monkeypatch.setattr(which.Watch, "busy", lambda self: "somebody computes")
    monkeypatch.setattr(which, "at_equal_time", lambda widths, slower: 12)
    monkeypatch.setattr(which, "trained", lambda run, data, epochs, seed: 0.5)
    said = []
    experiment = which.Experiment(1, 1, {}, said.append)
    found = experiment.run(TASK)
    assert {each.budget for each in found} == {PARAMETERS}
    assert {each.network.milliseconds for each in found} == {None}
    assert "this machine is busy (somebody computes)" in " ".join(said)
    assert "at equal time" not in which.table(found)
    assert "| – | **50.0 %** |  |" in which.table(found)


@pytest.mark.slow
def test_a_tiny_experiment(tmp_path, monkeypatch):
    """Two kinds, one epoch, one seed; what is kept is not trained again."""
    monkeypatch.setattr(which, "KINDS", ("standard", "separable"))
    monkeypatch.setattr(which, "WIDTHS", range(4, 13, 4))
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    page.write_text(f"{pages.begin(which.BY)}\n{pages.END}\n", encoding="utf-8")
    app = which.typer.Typer()
    app.command()(which.command)
    arguments = [
        "--quick",
        "--seeds",
        "1",
        "--rounds",
        "1",
        "--kept",
        str(kept),
        "--page",
        str(page),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    text = page.read_text(encoding="utf-8")
    assert text.count("| standard | 8 |") == 2
    assert text.count("| separable |") == 2
    found = json.loads(kept.read_text())
    assert 2 <= len(found) <= 3
    assert all(0.05 < accuracy <= 1 for accuracy in found.values())
    monkeypatch.setattr(which, "trained", lambda *given: pytest.fail("trained again"))
    monkeypatch.setattr(which, "at_equal_time", lambda widths, slower: int(_widths(found)[-1]))
    assert CliRunner().invoke(app, arguments).exit_code == 0


def _widths(found):
    """Of the separable networks that were trained."""
    return [name.split("separable ")[1].split(",")[0] for name in found if "separable" in name]
