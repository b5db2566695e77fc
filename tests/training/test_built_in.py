"""The run that comes with the library: it is there whole, small, and labels rooms it never saw."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import replace

import pytest
import torch

from pointwise.rooms import CLASSES, room
from pointwise.training.built_in import MODELS, built_in_runs, find_run
from pointwise.training.evaluate import evaluate
from pointwise.training.metrics import scores
from pointwise.training.options import Options
from pointwise.training.run import load_run
from pointwise.training.run_schema import check_options

UNSEEN = (20_000, 20_001, 20_002)  # of seed 0; what was learned from is of another

LEAST = {True: 0.6, False: 0.5}  # of mean IoU: below what it reaches, far above chance


@pytest.fixture(scope="module")
def run():
    return load_run("rooms")


def test_it_is_small_and_whole():
    assert built_in_runs() == ["rooms"]
    folder = find_run("rooms")
    assert folder == MODELS / "rooms"
    assert (folder / "weights.pt").stat().st_size <= 3_000_000
    stored = torch.load(folder / "weights.pt", weights_only=True)
    assert {weights.dtype for weights in stored.values()} == {torch.float16}
    assert {"README.md", "training.log"} <= {file.name for file in folder.iterdir()}


def test_it_is_part_of_what_is_packed():
    """The build takes what is not ignored."""
    weights = MODELS / "rooms" / "weights.pt"
    asked = ["git", "-C", str(weights.parent), "check-ignore", "--quiet", weights.name]
    done = subprocess.run(asked, capture_output=True)
    if done.returncode not in (0, 1):
        pytest.skip("this is no checkout of git")
    assert done.returncode == 1


def test_it_is_a_network_in_float32_that_needs_no_colour(run):
    assert {weights.dtype for weights in run.network.state_dict().values()} == {torch.float32}
    assert not run.network.training
    assert run.recipe.classes.names == CLASSES
    assert run.recipe.features.names == ("color", "height")
    assert run.recipe.features.optional == ("color",)
    assert run.recipe.unit == "m"


def test_its_record_names_no_machine(run):
    options = Options.from_plain(check_options(MODELS / "rooms" / "run.json", run.options))
    assert options.data == ["rooms"]
    assert (options.cache, options.devices) == (None, None)


def test_a_scan_in_millimetres_is_doubted(run):
    scan = replace(room(1, rays=5000), unit=None)
    with pytest.warns(UserWarning, match=r"much further apart .* are its coordinates in m\?"):
        run.recipe.prepare(replace(scan, points=1000 * scan.points))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.recipe.prepare(replace(scan, unit="m"))


@pytest.mark.parametrize("colour", [True, False])
def test_it_labels_rooms_it_has_never_seen(run, colour):
    scans = [room(number, rays=30_000) for number in UNSEEN]
    if not colour:
        scans = [replace(scan, fields={}) for scan in scans]
    assert scores(evaluate(run, scans, votes=1)).mean_iou > LEAST[colour]
