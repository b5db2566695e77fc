"""Scans of rooms by number, and the numbers that belong to training, validation and test."""

from __future__ import annotations

import numpy as np

from pointwise.cloud.scan import Scan
from pointwise.rooms.furnish import furnished
from pointwise.rooms.materials import CLASSES
from pointwise.rooms.scanner import scan_from, stations
from pointwise.rooms.solids import pack

SPLITS = ("train", "validation", "test")
BLOCK = 10_000  # rooms in a split


def room(seed: int, stations: int | None = None, rays: int = 100_000) -> Scan:
    """A furnished room as a terrestrial laser scanner sees it; the same ``seed``, the same scan.

    ``rays`` is about how many rays are sent, from all ``stations`` together (None: one to four by
    the room's size); most come back as points (float64, metres; the floor is z = 0). The scan has
    labels of ``CLASSES`` and the fields ``color`` (uint8 [N, 3]) and ``intensity`` (float32 [N],
    see ``scanner.scan_from``). ValueError for a negative seed, or none of stations or rays.
    """
    if seed < 0:
        raise ValueError(f"room: seed must be 0 or more, got {seed}")
    if stations is not None and not 1 <= stations <= 16:
        raise ValueError(
            f"room: stations must be 1 to 16, or None for a fitting number, got {stations}"
        )
    if rays < 1000:
        raise ValueError(f"room: rays must be at least 1000, got {rays}")
    return _scanned(seed, stations, rays)


def rooms(count: int, split: str = "train", seed: int = 0, rays: int = 100_000) -> list[Scan]:
    """``count`` rooms of a split; no room is in two splits, nor of two values of ``seed``.

    Three rooms in a row hold every class. ValueError for an unknown split or an impossible count.
    """
    return [room(number, rays=rays) for number in room_numbers(count, split, seed)]


def room_numbers(count: int, split: str = "train", seed: int = 0) -> range:
    """The seeds of ``room`` that ``rooms`` uses."""
    if split not in SPLITS:
        raise ValueError(f"rooms: split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 1 <= count <= BLOCK:
        raise ValueError(f"rooms: count must be 1 to {BLOCK}, got {count}")
    if seed < 0:
        raise ValueError(f"rooms: seed must be 0 or more, got {seed}")
    first = (len(SPLITS) * seed + SPLITS.index(split)) * BLOCK
    return range(first, first + count)


def _scanned(seed: int, count: int | None, rays: int) -> Scan:
    plan, solids = furnished(seed)
    # The scanner draws its own numbers, so that the room is the same for any stations and rays.
    rng = np.random.default_rng([seed, 1])
    if count is None:
        count = int(np.clip(round(plan.area / 25 + rng.uniform(0.3, 1.3)), 1, 4))
    packed = pack(solids)
    parts = [scan_from(rng, packed, origin, rays // count) for origin in stations(rng, plan, count)]
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Scan(
        points=merged["points"],
        fields={"color": merged["color"], "intensity": merged["intensity"]},
        labels=merged["labels"],
        classes=dict(enumerate(CLASSES)),
        name=f"room-{seed}",
        group=f"room-{seed}",
        unit="m",
    )
