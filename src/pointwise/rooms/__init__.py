"""Furnished rooms scanned by a simulated laser scanner: labelled clouds without a download."""

from __future__ import annotations

from pointwise.rooms.generate import SPLITS, room, rooms
from pointwise.rooms.materials import CLASSES

__all__ = ["CLASSES", "SPLITS", "room", "rooms"]
