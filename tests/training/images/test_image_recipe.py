from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import pictures, stripes

from pointwise.training.classes import Classes
from pointwise.training.image_recipe import ImageRecipe, fit
from pointwise.training.images.plan import default_size, normalisation, plan_images
from pointwise.training.images.sources import ImageData
from pointwise.training.picture import Picture
from pointwise.training.run import load_run, read_run, save_run, save_weights

CLASSES = Classes((0, 1), ("lying", "standing"))


def plan(train=None, **more):
    return plan_images(ImageData(train or pictures(4), [], []), network="TinyImages", **more)


def test_fitting_cuts_about_the_middle_and_scales():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 100
    pixels[:20, 20:60] = 200
    small = fit(pixels, (20, 20))
    assert small.shape == (20, 20, 3)
    # At the edges, the filter sees a little of what is cut off.
    assert (small[:9, 1:-1] == 200).all()
    assert (small[11:, 1:-1] == 100).all()
    np.testing.assert_array_equal(fit(pixels, (40, 80)), pixels)
    noise = np.random.default_rng(0).integers(0, 256, size=(40, 80, 3), dtype=np.uint8)
    half = fit(noise, (10, 10), crop=0.5)
    np.testing.assert_array_equal(half[1:-1, 1:-1], fit(noise[10:30, 30:50], (10, 10))[1:-1, 1:-1])


def test_scaling_down_does_not_alias():
    board = ((np.indices((64, 64)).sum(axis=0) % 2) * 255).astype(np.uint8)
    middle = fit(np.repeat(board[:, :, None], 3, axis=2), (16, 16))[2:-2, 2:-2]
    assert np.abs(middle.astype(int) - 127).max() <= 2


def test_what_the_network_reads():
    recipe = ImageRecipe(CLASSES, (5, 7), (10.0, 20.0, 30.0), (2.0, 3.0, 4.0))
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 5, 7, 3), dtype=np.uint8)
    read = recipe.batch(list(pixels))
    expected = (pixels.transpose(0, 3, 1, 2) - np.reshape((10.0, 20, 30), (3, 1, 1))) / np.reshape(
        (2.0, 3, 4), (3, 1, 1)
    )
    assert read.dtype == torch.float32
    assert read.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(read.numpy(), expected, rtol=1e-6, atol=1e-5)


def test_grey_and_colour_become_one_another():
    colour = Picture("a", array=stripes(0, 0, (6, 6)))
    grey = Picture("a", array=stripes(0, 0, (6, 6), channels=1))
    three = ImageRecipe(CLASSES, (6, 6), (0.0,) * 3, (1.0,) * 3)
    one = replace(three, mean=(0.0,), std=(1.0,))
    np.testing.assert_array_equal(three.pixels(grey), np.repeat(grey.array, 3, axis=2))
    pillow = np.asarray(Image.fromarray(colour.array).convert("L"))
    assert np.abs(one.pixels(colour)[:, :, 0].astype(int) - pillow).max() <= 1


def test_targets_are_places_of_names():
    recipe = plan().recipe
    others = [Picture("", "standing"), Picture("", "lying"), Picture("", "other"), Picture("")]
    assert recipe.targets(others).tolist() == [1, 0, -1, -1]


def test_normalisation_is_that_of_the_pixels():
    some = pictures(8)
    run = plan(some)
    pixels = np.stack([picture.array for picture in some]).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(run.recipe.mean, pixels.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(run.recipe.std, pixels.std(axis=0), atol=1e-3)
    flat = [Picture("a", "x", array=np.full((4, 4, 1), 9, np.uint8))]
    recipe = ImageRecipe(CLASSES, (4, 4), (0.0,), (1.0,))
    assert normalisation(recipe, flat) == ((9.0,), (1.0,))


def test_the_size_follows_the_data():
    assert default_size([(8, 8, 1)] * 3) == (8, 8)
    assert default_size([(48, 64, 3)] * 3) == (48, 64)
    assert default_size([(100, 200, 3), (200, 120, 3), (90, 130, 3)]) == (96, 96)
    assert default_size([(480, 640, 3)] * 2) == (224, 224)
    assert default_size([(28, 20, 3), (25, 40, 3)]) == (22, 22)


def test_the_network_follows_the_data():
    run = plan_images(ImageData(pictures(3, channels=1), [], []), arguments={"width": 0.25})
    assert type(run.network).__name__ == "MobileNetV1"
    assert run.arguments == {"in_channels": 1, "classes": 2, "stem_stride": 1, "width": 0.25}
    large = plan_images(ImageData(pictures(1, size=(128, 128)), [], []), arguments={"width": 0.25})
    assert "stem_stride" not in large.arguments
    given = plan_images(ImageData(pictures(3), [], []), arguments={"width": 0.25, "stem_stride": 2})
    assert given.arguments["stem_stride"] == 2


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"classes is 2 by the data .*; leave out --set classes"):
        plan(arguments={"classes": 3})
    with pytest.raises(ValueError, match="the training data has lying, but at least two classes"):
        plan(pictures(4)[:4])
    with pytest.raises(ValueError, match="--size must be 1 or more, got 0"):
        plan(size=0)
    with pytest.raises(ValueError, match=r"TinyImages cannot be made with .*depth=3"):
        plan(arguments={"depth": 3})


def test_a_run_comes_back_as_it_was(tmp_path):
    run = plan(size=24, options={"epochs": 3})
    save_run(run, tmp_path)
    save_weights(run, tmp_path)
    again = load_run(tmp_path)
    assert again.recipe == run.recipe
    assert again.recipe.size == (24, 24)
    assert again.arguments == run.arguments
    assert again.options == {"epochs": 3}
    for name, value in run.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value, rtol=0, atol=0)
    path = tmp_path / "run.json"
    described = json.loads(path.read_text())
    del described["recipe"]["mean"]
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"run.json is broken: .*'mean'"):
        read_run(tmp_path)
