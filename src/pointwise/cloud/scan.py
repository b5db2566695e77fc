"""A scan as a file holds it: positions, what is known of each point, and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

UNLABELLED = -1


@dataclass
class Scan:
    """One point cloud outside the network: NumPy arrays under the names the field uses.

    ``points`` are float64 in the file's own unit and frame (UTM coordinates stay what they are).
    ``fields`` holds everything else a point carries, by name: ``color`` is always uint8 ``[N, 3]``
    RGB, ``intensity`` always float32 ``[N]`` as stored, ``normal`` float32 ``[N, 3]``; other names
    are the file's. ``labels`` are the class codes of the points (``UNLABELLED``, -1, where there is
    none) and ``classes`` their names. A file for classification gives one ``label`` for the whole
    cloud instead. Clouds with the same ``group`` (a recording, a building) are never divided
    between training and test. ``source`` is the file it came from, and ``kept`` a mask of its rows
    where some were dropped in reading (None where the points are all of them, or selected since).
    ``no_class`` are the codes that the file's format calls no class, which are ``UNLABELLED`` here:
    how many points of the file had each, and what the format calls it; ``codes`` are then those of
    all points as the file has them. ``assumed`` are lines on what the file does not say.
    """

    points: np.ndarray  # [N, 3] float64
    fields: dict[str, np.ndarray] = field(default_factory=dict)  # each [N] or [N, K]
    labels: np.ndarray | None = None  # [N] int64
    classes: dict[int, str] = field(default_factory=dict)  # code -> name
    label: int | None = None
    name: str = ""
    group: str = ""
    source: Path | None = None
    kept: np.ndarray | None = None  # [rows of the file] bool
    no_class: dict[int, tuple[int, str]] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    codes: np.ndarray | None = None  # [N] uint8
    unit: str | None = None  # of the points, where the file or its format states it

    def __len__(self) -> int:
        return len(self.points)

    def select(self, index: np.ndarray) -> Scan:
        """The same scan with only the points of ``index`` (a mask, or integers)."""
        return Scan(
            points=self.points[index],
            fields={name: values[index] for name, values in self.fields.items()},
            labels=None if self.labels is None else self.labels[index],
            classes=self.classes,
            label=self.label,
            name=self.name,
            group=self.group,
            source=self.source,
            assumed=self.assumed,
            codes=None if self.codes is None else self.codes[index],
            unit=self.unit,
        )
