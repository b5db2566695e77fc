from __future__ import annotations

import numpy as np
import pytest
import torch

from pointwise.training.images.augment import ImageAugmentation, apply

STILL = ImageAugmentation(shift=0, scale=0, rotate=0, brightness=0, contrast=0)


def blob(x: float, y: float, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    """A soft spot with its middle at pixel (x, y)."""
    rows, columns = np.indices(size)
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    return torch.from_numpy(spot.astype(np.float32))[None, None]


def middle(image: torch.Tensor) -> tuple[float, float]:
    weight = image[0, 0].clamp(min=0).numpy()
    rows, columns = np.indices(weight.shape)
    total = weight.sum()
    return float((columns * weight).sum() / total), float((rows * weight).sum() / total)


def drawn(**more) -> np.ndarray:
    values = {"shift": 0, "scale": 0, "rotate": 0, "brightness": 0, "contrast": 0} | more
    return ImageAugmentation(**values).draw(np.random.default_rng(1))[None]


def test_nothing_is_done_where_nothing_may():
    image = torch.rand(1, 3, 9, 12)
    torch.testing.assert_close(apply(image, drawn()), image, rtol=0, atol=1e-5)


def test_a_turn_keeps_distances_in_an_oblong_image():
    centre = np.array([23.5, 15.5])
    for one in many(rotate=30)[:20]:
        turn = np.arctan2(one[0, 3], one[0, 0])
        for before in (np.array([9.0, 0.0]), np.array([0.0, 8.0])):
            found = np.array(middle(apply(blob(*(centre + before)), one))) - centre
            assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(before), rel=0.03)
            cosine = found @ before / np.linalg.norm(before) ** 2
            assert cosine == pytest.approx(np.cos(turn), abs=0.03)
    assert np.abs([np.arctan2(one[0, 3], one[0, 0]) for one in many(rotate=30)]).max() > 0.5


def test_a_change_of_size():
    wide = [middle(apply(blob(33.5, 15.5), drawn_))[0] - 23.5 for drawn_ in many(scale=0.2)]
    assert 7.5 < min(wide) < 9
    assert 11 < max(wide) < 12.5


def test_a_shift_is_as_large_as_said():
    places = np.array([middle(apply(blob(23.5, 15.5), one)) for one in many(shift=0.1)])
    assert 4 < np.abs(places[:, 0] - 23.5).max() <= 4.81
    assert 2.7 < np.abs(places[:, 1] - 15.5).max() <= 3.21


def many(**more):
    values = {"shift": 0, "scale": 0, "rotate": 0, "brightness": 0, "contrast": 0} | more
    rng = np.random.default_rng(0)
    return [ImageAugmentation(**values).draw(rng)[None] for _ in range(100)]


def test_half_are_mirrored_if_that_is_wanted():
    image = torch.rand(1, 2, 6, 8)
    results = [apply(image, one) for one in many(flip=True)]
    mirrored = [torch.allclose(found, image.flip(3), atol=1e-5) for found in results]
    same = [torch.allclose(found, image, atol=1e-5) for found in results]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 35 < sum(mirrored) < 65
    assert not ImageAugmentation().flip


def test_light_changes_each_image_as_a_whole():
    image = torch.rand(1, 3, 5, 5)
    for one in many(contrast=0.3, brightness=0.2)[:10]:
        found = apply(image, one)
        contrast, brightness = float(one[0, 6]), float(one[0, 7])
        torch.testing.assert_close(found, image * contrast + brightness, rtol=0, atol=1e-5)
        assert 0.7 <= contrast <= 1.3
        assert abs(brightness) <= 0.2


def test_each_image_of_a_batch_has_its_own():
    images = torch.rand(4, 3, 8, 8)
    all_drawn = np.concatenate(many(shift=0.1, rotate=10, scale=0.1)[:4])
    together = apply(images, all_drawn)
    for i in range(4):
        torch.testing.assert_close(
            together[i : i + 1], apply(images[i : i + 1], all_drawn[i : i + 1])
        )
    assert together.is_contiguous(memory_format=torch.channels_last)
