from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import cloud, scene

from pointwise.training.augment import Augmentation
from pointwise.training.classes import IGNORED
from pointwise.training.data import (
    FEWEST,
    RandomBlocks,
    Tiles,
    label_counts,
    pack,
    train_loader,
    validation_loader,
)
from pointwise.training.feed import Epochs
from pointwise.training.plan import plan
from pointwise.training.recipe import Recipe, to_unit_sphere
from pointwise.training.sources import Data
from pointwise.training.thin import thin


def scenes(spacing: float = 0.0, **more) -> tuple[list, Recipe]:
    """Two scenes; all their points are read, unless there is a ``spacing``."""
    scans = [scene(0), scene(1, 1000)]
    recipe = plan(Data("segmentation", scans, [], []), network="TinyPoints", **more).recipe
    return scans, replace(recipe, spacing=spacing)


def clouds() -> tuple[list, Recipe]:
    scans = [cloud(label, i, 100 + i) for label in (0, 1) for i in range(5)]
    return scans, plan(Data("classification", scans, [], []), network="TinyClouds").recipe


def loader(scans, recipe, workers=0, seed=0):
    return train_loader(
        recipe, scans, augmentation=Augmentation(), batch=2, workers=workers, seed=seed
    )


def test_packing():
    one = np.zeros((3, 3), np.float32), np.ones((3, 2), np.float32), np.array([0, 1, 2])
    two = np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32), np.array([3, 4])
    batch = pack([one, two])
    assert batch.offsets.tolist() == [0, 3, 5]
    assert batch.labels.tolist() == [0, 1, 2, 3, 4]
    assert batch.points.shape == (5, 3)
    assert batch.points.dtype == batch.features.dtype == torch.float32
    assert batch.offsets.dtype == batch.labels.dtype == torch.int64


@pytest.mark.parametrize("make", [scenes, clouds])
def test_batches_depend_on_the_seed_and_not_on_the_workers(make):
    alone, forked, other = (list(loader(*make(), w, s)) for w, s in ((0, 0), (2, 0), (0, 1)))
    assert len(alone) == len(forked)
    for a, b in zip(alone, forked, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)
    assert not torch.equal(alone[0].points, other[0].points)


def test_no_epoch_repeats_another():
    batches = loader(*scenes())
    first, second = list(batches), list(batches)
    assert not any(torch.equal(a.points, b.points) for a in first for b in second)
    batches.sampler.set_epoch(0)
    assert torch.equal(next(iter(batches)).points, first[0].points)


def test_numbers_go_on_from_epoch_to_epoch():
    epochs = Epochs(3)
    assert [list(epochs), list(epochs)] == [[0, 1, 2], [3, 4, 5]]


def test_blocks_are_as_wide_as_said_and_centred_in_float32():
    scans, recipe = scenes(block=3.0)
    blocks = RandomBlocks(recipe, scans, None, seed=0)
    for n in range(10):
        points, _, _ = blocks[n]
        assert (np.ptp(points[:, :2], axis=0) <= 3.0).all()
        assert np.abs(points.mean(axis=0)).max() < 1e-4
        source = blocks.source(0)
        index = blocks._block(source, np.random.default_rng(n))
        local, _ = recipe.sample(source.prepared, index)
        points = source.prepared.scan.points[index]
        exact = points - points.mean(axis=0)
        assert np.abs(local - exact).max() < 1e-6  # UTM coordinates lose nothing


def test_an_epoch_reads_the_data_about_once():
    scans, recipe = scenes(block=0.8)
    blocks = RandomBlocks(recipe, scans, None, seed=0)
    assert len(blocks) > FEWEST
    read = sum(len(blocks[n][0]) for n in range(len(blocks)))
    assert 0.7 < read / 3000 < 1.5


def test_small_scans_have_as_many_turns_as_make_an_epoch():
    scans, recipe = scenes(block=50.0)
    blocks = RandomBlocks(recipe, scans, None, seed=0)
    read = [len(blocks[n][0]) for n in range(len(blocks))]
    assert len(read) == FEWEST
    assert read.count(2000) == read.count(1000) == FEWEST / 2


def test_rare_classes_are_in_the_middle_as_often_as_others():
    scans, recipe = scenes(block=0.4)
    scans[0].labels[scans[0].labels == 20] = 10
    scans[0].labels[:10] = 20
    blocks = RandomBlocks(recipe, scans[:1], None, seed=0)
    has_rare = [bool((blocks[n][2] == 1).any()) for n in range(200)]
    assert 0.2 < np.mean(has_rare) < 0.6  # a third, where chance alone would give hardly any


def test_dense_blocks_are_made_smaller():
    scans, recipe = scenes()
    recipe = replace(recipe, most=100)
    blocks = RandomBlocks(recipe, scans, None, seed=0)
    assert all(0 < len(blocks[n][0]) <= 100 for n in range(20))


def test_a_pole_is_thinned():
    scans, recipe = scenes()
    scans[0].points[:, :2] = scans[0].points[0, :2]
    recipe = replace(recipe, most=100)
    assert len(RandomBlocks(recipe, scans[:1], None, seed=0)[0][0]) == 100


def test_blocks_to_train_on_are_thinned():
    scans, recipe = scenes(spacing=0.5, block=50.0, features=["intensity"])
    _, features, labels = RandomBlocks(recipe, scans[:1], None, seed=0)[0]
    thinned, _ = thin(scans[0], 0.5, ["intensity"])
    assert len(features) == len(thinned) < 1000
    (centre,), (scale,) = recipe.features.centre, recipe.features.scale
    expected = ((thinned.fields["intensity"] - centre) / scale).clip(-3, 3)
    order, other = np.argsort(features[:, 0]), np.argsort(expected)
    np.testing.assert_allclose(features[order, 0], expected[other], atol=1e-5)
    np.testing.assert_array_equal(labels[order], recipe.classes.index(thinned.labels)[other])


@pytest.mark.parametrize("spacing", [0.0, 0.5])
def test_tiles_hold_every_label_once(spacing):
    scans, recipe = scenes(spacing, block=3.0)
    tiles = Tiles(recipe, scans)
    assert len(tiles) > 4
    for number, scan in enumerate(scans):
        read = thin(scan, spacing)[0] if spacing else scan
        assert len(read) == len(scan) if spacing == 0 else len(read) < 0.6 * len(scan)
        counts = np.zeros(len(read), dtype=np.int64)
        found = np.full(len(read), IGNORED)
        for (place, tile), (_, _, labels) in zip(tiles.places, tiles, strict=True):
            if place == number:
                cut = tiles.cuts[place].arrays
                index = np.split(cut["index"], cut["ends"][:-1])[tile]
                labelled = index[labels != IGNORED]
                counts[labelled] += 1
                found[labelled] = labels[labels != IGNORED]
        # In the order of the columns, in which the points are held.
        order = recipe.prepare(scan).columns.sorting
        np.testing.assert_array_equal(
            tiles.held[number].arrays["points"], recipe.prepare(scan).scan.points[order]
        )
        expected = recipe.classes.index(read.labels)[order]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(counts, expected != IGNORED)


def test_validation_does_not_vary():
    for scans, recipe in (scenes(), clouds()):
        batches = validation_loader(recipe, scans, batch=2, workers=0)
        for a, b in zip(list(batches), list(batches), strict=True):
            assert torch.equal(a.points, b.points)


def test_whole_clouds_have_one_label_each():
    scans, recipe = clouds()
    batches = list(validation_loader(recipe, scans, batch=4, workers=0))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0] * 5 + [1] * 5
    assert batches[0].offsets.diff().tolist() == [100, 101, 102, 103]


def test_large_clouds_are_thinned():
    scans, recipe = clouds()
    recipe = replace(recipe, most=64)
    for batches in (loader(scans, recipe), validation_loader(recipe, scans, batch=4, workers=0)):
        for batch in batches:
            assert (batch.offsets.diff() == 64).all()


def test_models_in_any_unit_are_brought_to_one_size():
    scans, recipe = clouds()
    assert not recipe.unit_sphere
    for i, scan in enumerate(scans):
        scan.points *= 10**i
    recipe = plan(Data("classification", scans, [], []), network="TinyClouds").recipe
    assert recipe.unit_sphere
    for batch in validation_loader(recipe, scans, batch=4, workers=0):
        assert 0.5 < batch.points.norm(dim=1).max() <= 1.01
    unit = to_unit_sphere(scans[3]).points
    assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1)


def test_labels_are_counted_by_class():
    scans, recipe = scenes()
    counts = label_counts(recipe, scans)
    for i, code in enumerate((10, 20, 30)):
        assert counts[i] == sum((scan.labels == code).sum() for scan in scans)
    scans, recipe = clouds()
    assert label_counts(recipe, scans).tolist() == [5, 5]
