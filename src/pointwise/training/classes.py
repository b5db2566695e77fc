"""The classes of a training: codes as files hold them, indices as a network gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pointwise.cloud.scan import UNLABELLED, Scan

IGNORED = -1  # the index of what has no class: never a loss, never counted


@dataclass(frozen=True)
class Classes:
    """The codes, ascending, and the names of the classes; a class's index is its place here."""

    codes: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def index(self, labels: np.ndarray) -> np.ndarray:
        """Maps codes ``[N]`` to indices int64 ``[N]``; any other code to ``IGNORED``."""
        codes = np.asarray(self.codes, dtype=np.int64)
        place = np.searchsorted(codes, labels).clip(max=len(codes) - 1)
        return np.where(codes[place] == labels, place, IGNORED)

    def by_name(self, labels: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
        """Codes ``[N]`` as these classes have them, where a scan has others for the same names."""
        code_of = dict(zip(self.names, self.codes, strict=True))
        found = labels
        for code, name in names.items():
            if name in code_of and code_of[name] != code:
                found = np.where(labels == code, code_of[name], found)
        return found

    def code(self, index: np.ndarray) -> np.ndarray:
        """Maps indices ``[N]`` to codes int64 ``[N]``."""
        return np.asarray(self.codes, dtype=np.int64)[index]


def codes_of(scan: Scan) -> np.ndarray:
    """The codes that occur in a scan: of its points, or the one of the whole cloud."""
    if scan.labels is not None:
        return np.unique(scan.labels[scan.labels != UNLABELLED])
    return np.array([] if scan.label is None else [scan.label], dtype=np.int64)


def find_classes(scans: Sequence[Scan], others: Sequence[Scan] = ()) -> Classes:
    """The classes that occur in ``scans`` or in ``others``, with the names the scans give them.

    Raises ValueError where there are fewer than two in ``scans``, which are learned from.
    """
    learned = name_classes(scans)
    if len(learned) < 2:
        found = ", ".join(learned.names) or "no labels"
        raise ValueError(
            f"train: the training data has {found}, but at least two classes are needed"
        )
    return name_classes([*scans, *others])


def name_classes(scans: Iterable[Scan]) -> Classes:
    """The classes that occur in ``scans``, with the names the scans give them."""
    codes: set[int] = set()
    names: dict[int, str] = {}
    for scan in scans:
        codes.update(codes_of(scan).tolist())
        names.update(scan.classes)
    ordered = sorted(codes)
    called = [names.get(code, str(code)) for code in ordered]
    unique = [
        f"{n} ({c})" if called.count(n) > 1 else n for n, c in zip(called, ordered, strict=True)
    ]
    return Classes(tuple(ordered), tuple(unique))


def count_classes(scans: Iterable[Scan], classes: Classes) -> dict[str, int]:
    """How many points of each class, or clouds, ``scans`` have."""
    counts: Counter[int] = Counter()
    for scan in scans:
        if scan.labels is None:
            counts.update([] if scan.label is None else [scan.label])
            continue
        codes, found = np.unique(scan.labels, return_counts=True)
        counts.update(dict(zip(codes.tolist(), found.tolist(), strict=True)))
    return {name: counts[code] for code, name in zip(classes.codes, classes.names, strict=True)}


def class_weights(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Weights of the loss ``[K]``: 1/∛frequency, with a mean of 1 over the labelled points.

    Enough for rare classes to be learned; more, and too much is taken for them.
    """
    share = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    weights = 1 / np.cbrt(share)
    return weights * share.sum() / (weights * share).sum()
