from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist

from pointwise.training.augment import Augmentation

POINTS = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)


def test_moving_keeps_the_shape_and_the_vertical():
    rng = np.random.default_rng(0)
    moved, _, scale = Augmentation(jitter=0).move(POINTS, rng)
    np.testing.assert_allclose(pdist(moved), pdist(POINTS) * scale, rtol=1e-4)
    np.testing.assert_allclose(moved[:, 2], POINTS[:, 2] * scale, rtol=1e-5)
    assert 0.9 <= scale <= 1.1
    assert scale != 1


def test_jitter_is_as_large_as_said():
    still = Augmentation(rotate=0, scale=0, flip=False)
    np.testing.assert_array_equal(still.move(POINTS, np.random.default_rng(0))[0], POINTS)
    noisy = Augmentation(rotate=0, scale=0, flip=False, jitter=0.01)
    noise = noisy.move(POINTS, np.random.default_rng(0))[0] - POINTS
    assert 0.008 < noise.std() < 0.012
    assert np.abs(noise).max() <= 0.0301


def test_half_of_the_clouds_are_mirrored():
    rng = np.random.default_rng(0)
    turns = [Augmentation().move(POINTS, rng)[1] for _ in range(200)]
    mirrored = np.mean([np.linalg.det(turn) < 0 for turn in turns])
    assert 0.4 < mirrored < 0.6


def test_dropping_leaves_a_share_and_never_nothing():
    rng = np.random.default_rng(0)
    shares = [Augmentation(drop=0.2).kept(5000, rng).mean() for _ in range(50)]
    assert 0.78 < min(shares) < 0.85
    assert max(shares) > 0.95
    assert all(Augmentation(drop=1.0).kept(1, rng).any() for _ in range(20))


def test_colour_is_sometimes_lost():
    rng = np.random.default_rng(0)
    tinted = [Augmentation(blank=0.5).tint(POINTS, rng) for _ in range(100)]
    assert 0.3 < np.mean([(color == 0).all() for color in tinted]) < 0.7
    assert all(np.corrcoef(c.ravel(), POINTS.ravel())[0, 1] > 0.9 for c in tinted if c.any())
