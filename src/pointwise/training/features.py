"""What the network is told of each point: fields chosen by name, brought to one scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import Scan
from pointwise.training.augment import Augmentation
from pointwise.training.ground import Ground

FIELDS = (
    "color",
    "intensity",
    "velocity",
    "time",
    "return_number",
    "number_of_returns",
    "normal",
)  # used by default where every scan has them
COMPUTED = {"height": 1, "xyz": 3}  # known of any scan: above the ground, and in the block


@dataclass(frozen=True)
class Features:
    """The names of the features, how many channels each has, and each channel's normalisation.

    A channel is ``(value - centre) / scale``, clipped at ±3. Those of an ``optional`` feature are 0
    where a scan lacks it, and, by chance, in training, so that the network learns to do without.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    optional: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return sum(self.widths)

    def check(self, scan: Scan, command: str) -> None:
        """Raises ValueError where the scan lacks a feature, or has it with another width."""
        for name, width in zip(self.names, self.widths, strict=True):
            if name in COMPUTED or name in self.lacking(scan):
                continue
            if _width(scan, name) != width:
                raise ValueError(
                    f"{command}: {_named(scan)} must have {name} with {width} value(s) per point;"
                    f" it has {_fields(scan)}. Choose others when training, with --features, or"
                    " allow that scans lack it, with --optional"
                )

    def lacking(self, scan: Scan) -> list[str]:
        """The optional features that a scan does not have."""
        return [name for name in self.optional if name not in scan.fields]

    def without_constants(self, scan: Scan) -> Scan:
        """The scan without those optional features that are the same at every point of it.

        So a file says that it has none whose format has a place for it, as black all over.
        """
        constant = [
            name
            for name in self.optional
            if name in scan.fields
            and len(scan) > 1
            and bool((scan.fields[name] == scan.fields[name][0]).all())
        ]
        for name in constant:
            warnings.warn(
                f"{_named(scan)}: {name} is the same at every point, which is taken for none",
                stacklevel=4,
            )
        if not constant:
            return scan
        return replace(scan, fields={k: v for k, v in scan.fields.items() if k not in constant})

    def values(
        self,
        scan: Scan,
        index: np.ndarray,
        local: np.ndarray,
        ground: Ground | None,
        augmentation: Augmentation | None = None,
        turn: np.ndarray | None = None,
        scale: float = 1.0,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """The features float32 ``[n, C]`` of the points ``index``, whose place in the block is
        ``local [n, 3]``; ``turn`` and ``scale`` are what the augmentation did to the block."""
        out = np.empty((len(index), self.channels), dtype=np.float32)
        absent = set(self.lacking(scan))
        if augmentation is not None and rng is not None:
            absent.update(augmentation.withheld(self.optional, rng))
        start = 0
        for name, width in zip(self.names, self.widths, strict=True):
            channels = slice(start, start + width)
            start += width
            if name in absent:
                out[:, channels] = 0
                continue
            raw = _raw(scan, name, index, local, ground)
            if name == "height":
                raw = raw * scale
            if name == "normal" and turn is not None:
                raw = raw @ turn
            out[:, channels] = raw.reshape(len(index), width)
            out[:, channels] -= np.array(self.centre[channels], dtype=np.float32)
            out[:, channels] /= np.array(self.scale[channels], dtype=np.float32)
            if name == "color" and augmentation is not None and rng is not None:
                out[:, channels] = augmentation.tint(out[:, channels], rng)
        np.nan_to_num(out, copy=False, nan=0.0)
        return np.clip(out, -3, 3, out=out)


def default_features(
    scans: Sequence[Scan], task: str, optional: Sequence[str] = ()
) -> tuple[str, ...]:
    """The fields of ``FIELDS`` that all scans have, the height, and for whole clouds the shape.

    Those that are ``optional`` need not be in all of the scans, nor among ``FIELDS``.
    """
    known = [*FIELDS, *(name for name in optional if name not in FIELDS)]
    common = [
        name for name in known if name in optional or all(name in scan.fields for scan in scans)
    ]
    return (*common, "height", *(["xyz"] if task == "classification" else []))


def constant_fields(scans: Sequence[Scan]) -> dict[str, str]:
    """The fields of ``FIELDS`` that have one and the same value in all scans, and that value."""
    found = {}
    for name in FIELDS:
        if not scans or not all(name in scan.fields for scan in scans):
            continue
        low, high = np.inf, -np.inf
        for scan in scans:
            values = scan.fields[name]
            finite = values[np.isfinite(values)]
            if finite.size:
                low, high = min(low, finite.min()), max(high, finite.max())
        if low == high:
            found[name] = f"{low:g}"
        elif low > high:
            found[name] = "not a number"
    return found


def left_out(names: Sequence[str], scans: Sequence[Scan]) -> list[str]:
    """A line for each of ``FIELDS`` that is not among ``names``, since only some scans have it."""
    lines = []
    for name in FIELDS:
        without = [scan for scan in scans if name not in scan.fields]
        if name not in names and 0 < len(without) < len(scans):
            such = f"such as {_named(without[0])}"
            lines.append(
                f"left out: {name}, which {len(without):,} of {len(scans):,} clouds lack, {such};"
                f" --optional {name} takes it from the others"
            )
    return lines


def fit_features(
    names: Sequence[str],
    scans: Sequence[Scan],
    *,
    seed: int = 0,
    radius: float = 1.0,
    optional: Sequence[str] = (),
) -> Features:
    """Normalises by median and by the range that holds nine tenths of the values of ``scans``.

    Directions (``normal``) stay as they are; ``xyz`` is divided by ``radius``, the same along all
    axes, so that a turned cloud is the same cloud. Raises ValueError for a name that not all scans
    have; of one that is ``optional``, that none has.
    """
    _check_optional(optional, names, scans)
    _check_names(names, scans, optional)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(scans))
    widths, centre, scale = [], [], []
    for name in names:
        having = [scans[i] for i in order if name in COMPUTED or name in scans[i].fields]
        used = having[:64]
        width = COMPUTED.get(name) or _width(used[0], name)
        if name in ("normal", "xyz"):
            middle, spread = np.zeros(width), np.full(width, radius if name == "xyz" else 1.0)
        else:
            middle, spread = _statistics(name, used, rng)
        widths.append(width)
        centre += middle.tolist()
        scale += spread.tolist()
    return Features(tuple(names), tuple(widths), tuple(centre), tuple(scale), tuple(optional))


def _check_optional(optional: Sequence[str], names: Sequence[str], scans: Sequence[Scan]) -> None:
    for name in optional:
        if name in COMPUTED:
            raise ValueError(
                f"train: --optional {name} needs not be said: it is computed, of any scan"
            )
        if name not in names:
            raise ValueError(
                f"train: --optional {name} is not among the features, {', '.join(names)}; name it"
                " in --features too"
            )
        if not any(name in scan.fields for scan in scans):
            raise ValueError(
                f"train: --optional {name}: no cloud to learn from has it; {_named(scans[0])} has"
                f" {_fields(scans[0])}"
            )
    if optional and len(optional) == len(names):
        raise ValueError(
            "train: --optional must leave one of the --features, such as height, which any scan has"
        )


def _check_names(names: Sequence[str], scans: Sequence[Scan], optional: Sequence[str]) -> None:
    if not names:
        raise ValueError("train: --features must name at least one feature, such as height")
    for name in names:
        if name in COMPUTED:
            continue
        having = [scan for scan in scans if name in scan.fields]
        for scan in scans:
            if name not in scan.fields and name not in optional:
                rest = f". With --optional {name}, clouds may lack it" if having else ""
                raise ValueError(
                    f"train: {_named(scan)} has no feature {name!r}; it has {_fields(scan)}{rest}"
                )
        for scan in having:
            if _width(scan, name) != _width(having[0], name):
                raise ValueError(
                    f"train: {name!r} has {_width(scan, name)} value(s) per point in {_named(scan)}"
                    f" and {_width(having[0], name)} in {_named(having[0])}; choose other"
                    " --features"
                )


def _statistics(
    name: str, scans: Sequence[Scan], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    samples = []
    for scan in scans:
        index = rng.integers(len(scan), size=min(len(scan), 4096))
        ground = Ground(scan.points) if name == "height" and len(scan) else None
        values = _raw(scan, name, index, scan.points[index], ground)
        values = np.asarray(values, dtype=np.float64).reshape(len(index), -1)
        if name == "height":
            values = values[~find_extent(scan.points).stray[index]]
        samples.append(values)
    sample = np.concatenate(samples)
    sample = np.where(np.isfinite(sample), sample, np.nan)
    if np.isnan(sample).all():
        raise ValueError(f"train: {name!r} has no finite value; choose other --features")
    low, middle, high = np.nanquantile(sample, [0.05, 0.5, 0.95], axis=0)
    spread = (high - low) / 2
    full = np.nanmax(sample, axis=0) - np.nanmin(sample, axis=0)
    return middle, np.where(spread > 0, spread, np.where(full > 0, full, 1.0))


def _raw(
    scan: Scan, name: str, index: np.ndarray, local: np.ndarray, ground: Ground | None
) -> np.ndarray:
    if name == "xyz":
        return local
    if name == "height":
        assert ground is not None
        return ground.height(scan.points[index])
    return scan.fields[name][index]


def _width(scan: Scan, name: str) -> int:
    if name not in scan.fields:
        return 0
    return int(np.prod(scan.fields[name].shape[1:]))


def _named(scan: Scan) -> str:
    return str(scan.source or scan.name or "a scan")


def _fields(scan: Scan) -> str:
    return ", ".join((*scan.fields, *COMPUTED))
