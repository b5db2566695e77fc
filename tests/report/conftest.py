from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointwise.cloud.scan import Scan

DATA = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture
def room() -> Scan:
    """A box of 4 × 3 × 2.5 with everything a scan can carry, far from the origin."""
    rng = np.random.default_rng(7)
    floor = rng.random((900, 3)) * (4, 3, 0)
    wall = rng.random((500, 3)) * (4, 0, 2.5) + (0, 3, 0)
    chair = rng.random((90, 3)) * (0.5, 0.5, 0.9) + (1, 1, 0)
    ceiling = rng.random((600, 3)) * (4, 3, 0) + (0, 0, 2.5)
    unknown = rng.random((10, 3)) * (4, 3, 2.5)
    points = np.concatenate([floor, wall, chair, ceiling, unknown]) + (451_000, 5_411_000, 120)
    return Scan(
        points=points,
        labels=np.repeat([1, 2, 8, 0, -1], [900, 500, 90, 600, 10]),
        classes={0: "ceiling", 1: "floor", 2: "wall", 8: "chair"},
        fields={
            "color": rng.integers(1, 256, (len(points), 3)).astype(np.uint8),
            "intensity": rng.random(len(points)).astype(np.float32) * 4000,
        },
        name="room 12",
    )


@pytest.fixture
def town() -> Scan:
    """A real aerial scan with six classes."""
    from pointwise.cloud.files import read_scan

    path = DATA / "las/town_6_classes.las"
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    return read_scan(path)
