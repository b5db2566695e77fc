"""Real files for the tests of the file formats, and a cloud to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointwise.cloud.scan import Scan

DATA = Path(__file__).parents[3] / "../shared/data"


@pytest.fixture
def data() -> Callable[[str], Path]:
    """The path of a real file, such as ``las/simple.las``; skips the test where it is missing."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"needs the real file {name} in ../shared/data")
        return path

    return find


@pytest.fixture
def scan() -> Scan:
    """Fifty labelled points in UTM coordinates with every kind of field."""
    random = np.random.default_rng(0)
    n = 50
    normal = random.normal(size=(n, 3))
    return Scan(
        points=random.random((n, 3)) * [100, 80, 20] + [565_000, 5_933_000, 12],
        fields={
            "color": random.integers(0, 256, (n, 3), dtype=np.uint8),
            "intensity": random.random(n).astype(np.float32),
            "normal": (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
            "return_number": random.integers(1, 4, n, dtype=np.uint8),
            "curvature": random.random(n).astype(np.float32),
            "descriptor": random.random((n, 5)).astype(np.float32),
            "tree": random.integers(-5, 100_000, n).astype(np.int32),
        },
        labels=random.choice([-1, *range(2, 30)], n),
        classes={2: "ground", 3: "shrub", 29: "street lamp"},
    )
