"""What ``pointwise train`` is told: kept with a run, so that its training can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Options:
    """The command's options; None where it chooses for itself."""

    data: list[str]
    start: str | None = None  # --from: the run whose weights were the first
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    test: list[str] | None = None
    hold_out: float = 0.25
    task: str | None = None
    split: str | None = None
    rooms: int | None = None
    columns: str | None = None
    map: list[str] | None = None
    ignore: str | None = None
    names: dict[str, str] | None = None  # of codes, as the file said them
    network: str | None = None
    features: str | None = None
    optional: str | None = None
    cell_size: float | None = None
    block: float | None = None
    size: int | None = None
    width: float | None = None
    flip: bool = False
    batch: int | None = None
    learning_rate: float = 0.005
    rotate: float | None = None
    patience: int | None = None
    seed: int = 0
    devices: int | None = None
    precision: str | None = None
    workers: int = 0
    set: list[str] | None = None
    cache: str | None = None

    def as_plain(self) -> dict[str, Any]:
        """For ``run.json``."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Options:
        """The inverse of ``as_plain``; what runs of earlier versions do not have is as by default.

        What this version does not know is passed over (see ``run_schema.check_options``).
        """
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in names})
