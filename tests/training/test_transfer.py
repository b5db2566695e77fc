"""A training that starts from another run takes what fits, says so, and keeps it in its record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from short_runs import CLOUDS, SCENES, train
from toys import pictures, scene

from pointwise.cloud.scan import Scan
from pointwise.training.features import Features
from pointwise.training.images.plan import plan_images
from pointwise.training.images.sources import ImageData
from pointwise.training.plan import plan
from pointwise.training.run import Run, load_run, read_run, save_run, save_weights
from pointwise.training.sources import Data
from pointwise.training.train import Settings
from pointwise.training.transfer import cell_size_from, on_scale_of

CELL = 0.5


def renamed(scan: Scan, names: dict[int, str]) -> Scan:
    return replace(scan, classes=names)


def data_of(*scans: Scan) -> Data:
    return Data("segmentation", list(scans), [], [])


def unet(data: Data = SCENES, **more) -> Run:
    arguments = {"width": 8, "depths": (1, 1)}
    return plan(data, cell_size=CELL, block=6.0, arguments=arguments, **more)


@pytest.fixture(scope="module")
def other() -> Run:
    """A run to start from: colour, intensity, height; floor, red box, green box."""
    return unet(seed=5)


def state(run: Run) -> dict[str, torch.Tensor]:
    return run.network.state_dict()


def test_with_the_same_classes_and_features_the_networks_are_the_same(other):
    run = plan(SCENES, seed=1, start=other)
    assert run.arguments == other.arguments
    assert run.recipe.features == other.recipe.features
    for name, weights in state(other).items():
        assert torch.equal(state(run)[name], weights), name
    total = sum(weights.numel() for weights in state(other).values())
    assert run.notes[-3:] == [
        f"taken: {total:,} of {total:,} weights",
        "taken: features color, intensity, height",
        "taken: classes floor, red box, green box",
    ]


def test_features_and_classes_are_found_by_their_names(other):
    """In another order, with some less and some more."""
    codes = {10: "green box", 20: "Floor", 30: "cable"}
    scans = [renamed(scene(i), codes) for i in range(2)]
    for scan in scans:
        scan.fields["time"] = np.linspace(0, 1, len(scan), dtype=np.float32)
    run = plan(
        data_of(*scans), features=["time", "height", "color"], seed=1, start=other, block=6.0
    )
    fresh = unet(data_of(*scans), features=["time", "height", "color"], seed=1)
    own, theirs, random = state(run), state(other), state(fresh)
    stem = "encoder.stem.weight"
    # Here: time, height, three of colour, and ten that the network makes; there colour is first.
    places = {1: 4, 2: 0, 3: 1, 4: 2} | {5 + i: 5 + i for i in range(10)}
    for here, there in places.items():
        assert torch.equal(own[stem][:, here], theirs[stem][:, there])
    assert torch.equal(own[stem][:, 0], random[stem][:, 0])
    assert run.recipe.classes.names == ("green box", "Floor", "cable")
    for here, there in {0: 2, 1: 0}.items():
        assert torch.equal(own["head.weight"][here], theirs["head.weight"][there])
        assert torch.equal(own["head.bias"][here], theirs["head.bias"][there])
    assert torch.equal(own["head.weight"][2], random["head.weight"][2])
    for name in own.keys() - {stem, "head.weight", "head.bias"}:
        assert torch.equal(own[name], theirs[name]), name
    assert run.notes[-4:] == [
        "taken: features height, color",
        "taken: classes green box, Floor",
        "fresh: features time",
        "fresh: classes cable",
    ]
    left = 27 * 8 + 8 + 1  # a column of the stem, a row of the head
    total = sum(weights.numel() for weights in own.values())
    assert f"taken: {total - left:,} of {total:,} weights" in run.notes


def test_a_feature_of_another_width_is_another(other):
    scans = [scene(0), scene(1)]
    for scan in scans:
        scan.fields["intensity"] = np.stack([scan.fields["intensity"]] * 2, axis=1)
    run = plan(data_of(*scans), features=["intensity", "height"], start=other, block=6.0)
    assert "fresh: features intensity" in run.notes
    assert "taken: features height" in run.notes


def test_what_differs_in_size_starts_fresh_and_is_said(other):
    arguments = {"depths": (1, 2)}
    run = plan(SCENES, arguments=arguments, seed=1, start=other, block=6.0)
    own, theirs = state(run), state(other)
    assert own.keys() > theirs.keys()
    for name, weights in theirs.items():
        assert torch.equal(own[name], weights), name
    (said,) = [note for note in run.notes if note.endswith("(1, 2) here and (1, 1) there")]
    assert said.startswith("taken: ")


def test_nothing_that_fits_is_an_error(other):
    with pytest.raises(ValueError, match=r"none of the layers .* fits; width is 4 here and 8 ther"):
        plan(SCENES, arguments={"width": 4}, start=other)


def test_another_network_or_task_is_an_error(other):
    with pytest.raises(ValueError, match=r"the same network, TinyPoints, and .* has CellUNet; "):
        plan(SCENES, network="TinyPoints", start=other)
    with pytest.raises(ValueError, match="must be a run that learned classes of whole clouds"):
        plan(CLOUDS, start=other)


def test_cells_are_those_of_the_run_where_they_fit(other):
    recipe = replace(other.recipe, unit="m")
    there = replace(other, recipe=recipe, arguments=other.arguments | {"cell_size": 0.1})
    assert cell_size_from(there, 0.1, "m") == 0.1
    assert cell_size_from(there, 0.05, "m") == 0.1
    assert cell_size_from(there, 0.25, "m") == 0.1
    assert cell_size_from(there, 0.35, "m") == 0.35  # too sparse for cells of a tenth
    assert cell_size_from(there, 0.01, "m") == 0.01  # too much would be in one
    assert cell_size_from(there, 0.3, "ft") == 0.328
    assert cell_size_from(there, 0.1, None) == 0.1


def test_other_scales_are_said(other):
    there = replace(other, recipe=replace(other.recipe, unit="m"))
    run = plan(SCENES, cell_size=0.25, start=there, block=6.0)
    (cells,) = [note for note in run.notes if "cells are" in note]
    assert cells.startswith("note: cells are 0.25 wide, those of the run to start from 0.5")
    (unit,) = [note for note in run.notes if "taken to be the same" in note]
    assert "the data are in no stated unit, the run to start from in m" in unit
    feet = [replace(scan, unit="ft") for scan in SCENES.train]
    run = plan(data_of(*feet), cell_size=1.64, start=there, block=20.0)
    assert not [note for note in run.notes if note.startswith("note: cells")]


def test_values_alike_are_read_on_the_scale_learned_with():
    learned = Features(("color", "height"), (1, 1), (100.0, 1.0), (50.0, 1.5))
    own = Features(("height", "color", "time"), (1, 1, 1), (1.4, 120.0, 7.0), (1.0, 30.0, 2.0))
    found = on_scale_of(own, learned)
    assert (found.centre, found.scale) == ((1.0, 100.0, 7.0), (1.5, 50.0, 2.0))
    tall = Features(("height",), (1,), (1.0,), (20.0,))  # trees, not tables
    assert on_scale_of(tall, learned) == tall
    high = Features(("height",), (1,), (9.0,), (1.0,))
    assert on_scale_of(high, learned) == high


def test_what_could_be_lacking_still_can():
    other = unet(optional=["color"])
    assert plan(SCENES, start=other, block=6.0).recipe.features.optional == ("color",)
    chosen = plan(SCENES, start=other, block=6.0, features=["intensity", "height"])
    assert chosen.recipe.features.optional == ()
    dark = [replace(scan, fields={"intensity": scan.fields["intensity"]}) for scan in SCENES.train]
    assert plan(data_of(*dark), start=other, block=6.0).recipe.features.optional == ()


def test_images_take_weights_too():
    parts = ImageData(pictures(8), pictures(2, 8), pictures(4, 10))
    other = plan_images(parts, network="TinyImages", arguments={"width": 0.5}, seed=3)
    run = plan_images(parts, seed=1, start=other)
    assert (run.recipe.size, run.recipe.mean) == (other.recipe.size, other.recipe.mean)
    for name, weights in state(other).items():
        assert torch.equal(state(run)[name], weights), name
    grey = ImageData(*(pictures(8, channels=1) for _ in range(3)))
    run = plan_images(grey, seed=1, start=other)
    assert "fresh: features grey" in run.notes
    assert "taken: classes lying, standing" in run.notes
    assert torch.equal(state(run)["layers.3.weight"], state(other)["layers.3.weight"])
    with pytest.raises(ValueError, match=r"classes of images.* learned those of points"):
        plan_images(parts, start=unet())


def test_it_is_learned_from_there_and_resumed(tmp_path):
    """A training from a run begins better than one from scratch, and goes on after a stop."""
    first = unet(seed=0)
    train(first, SCENES, tmp_path / "first", Settings(steps=40))
    start = load_run(tmp_path / "first")
    run = plan(SCENES, seed=1, start=start, options={"data": ["x"], "start": "first"}, block=6.0)
    train(run, SCENES, tmp_path / "second", Settings(steps=2))
    again = read_run(tmp_path / "second")
    assert again.options["start"] == "first"
    assert [note for note in again.notes if note.startswith("taken: classes")]
    spent = train(again, SCENES, tmp_path / "second", Settings(steps=4), resume=True)
    assert spent.steps == 4
    # Four steps from random weights could not come this near to where it started.
    moved, whole = 0.0, 0.0
    for name, weights in state(start).items():
        moved += float((state(again)[name] - weights).norm()) ** 2
        whole += float(weights.norm()) ** 2
    assert moved < 0.25 * whole


def test_a_saved_run_in_half_precision_makes_a_network_in_float32(other, tmp_path):
    save_run(other, tmp_path)
    sizes = []
    for dtype in (None, torch.float16):
        save_weights(other, tmp_path, dtype)
        sizes.append((tmp_path / "weights.pt").stat().st_size)
    assert sizes[0] - sizes[1] == pytest.approx(
        2 * sum(w.numel() for w in state(other).values()), rel=0.1
    )
    again = load_run(tmp_path)
    for name, weights in state(again).items():
        assert weights.dtype == torch.float32
        assert torch.equal(weights, state(other)[name].half().float()), name


def test_weights_that_half_precision_cannot_hold(other, tmp_path):
    wide = unet()
    with torch.no_grad():
        wide.network.head.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"head.bias has values too large for torch.float16"):
        save_weights(wide, tmp_path, torch.float16)
    assert not list(tmp_path.iterdir())
