"""Classes as the user wants them: codes merged, left out, or given names of the user's own."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pointwise.cloud.files.las_classes import BY_STANDARD
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.classes import codes_of

IGNORED = "ignored, as asked"  # why a code is no class


@dataclass(frozen=True)
class Relabelling:
    """What is made of the codes in files before anything is learned of them, or compared with them.

    The codes of each group in ``merged`` are one class, under the first of them. Codes in
    ``ignored`` are no class. ``names[i]`` is that of the class ``codes[i]``; a code with a name is
    a class, whatever the file's format thinks of it.
    """

    merged: tuple[tuple[int, ...], ...] = ()
    ignored: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.merged or self.ignored or self.codes)

    def applied(self, scan: Scan) -> Scan:
        """The scan with these classes; applied again, it changes nothing more."""
        if not self:
            return scan
        named = dict(zip(self.codes, self.names, strict=True))
        classes = {**scan.classes, **named}
        for first, *others in self.merged:
            for code in others:
                classes.pop(code, None)
            classes.setdefault(first, str(first))
        known = {code for group in self.merged for code in group} | named.keys()
        no_class = {code: why for code, why in scan.no_class.items() if code not in known}
        label = None if scan.label is None else self._one(scan.label)
        labels = scan.labels
        if labels is not None:
            if scan.codes is not None and no_class.keys() != scan.no_class.keys():
                labels = scan.codes.astype(np.int64)
                labels[np.isin(labels, list(no_class))] = UNLABELLED
            left_out, counts = np.unique(labels[np.isin(labels, self.ignored)], return_counts=True)
            for code, count in zip(left_out.tolist(), counts.tolist(), strict=True):
                no_class[code] = count, IGNORED
            labels = self._all(labels)
        whole = set(codes_of(scan).tolist()) <= known | set(self.ignored)
        assumed = tuple(line for line in scan.assumed if not (whole and line == BY_STANDARD))
        return replace(
            scan,
            labels=labels,
            label=label,
            classes={code: name for code, name in classes.items() if code not in self.ignored},
            no_class=no_class,
            assumed=assumed,
        )

    def _one(self, code: int) -> int | None:
        found = int(self._all(np.array([code]))[0])
        return None if found == UNLABELLED else found

    def _all(self, labels: np.ndarray) -> np.ndarray:
        labels = np.where(np.isin(labels, self.ignored), UNLABELLED, labels)
        for group in self.merged:
            labels = np.where(np.isin(labels, group), group[0], labels)
        return labels


AS_IS = Relabelling()


def relabelling(
    scans: Sequence[Scan],
    merge: Sequence[str] = (),
    ignore: str | None = None,
    names: Mapping[str, str] | None = None,
    caller: str = "train",
) -> Relabelling:
    """What ``--map 3,4,5=vegetation``, ``--ignore 0,7`` and ``--names`` say of these scans.

    Classes may be given by code or, where the scans or ``names`` have one, by name. Raises
    ValueError for what cannot be understood, and warns of codes that no scan has.
    """
    named = {int(code): name for code, name in (names or {}).items()}
    known: dict[int, str] = {}
    for scan in scans:
        known |= scan.classes
    known |= named
    groups: list[tuple[int, ...]] = []
    for text in merge:
        left, sign, name = text.rpartition("=")
        if not (sign and left.strip() and name.strip()):
            raise ValueError(f"{caller}: --map must be such as 3,4,5=vegetation, got {text!r}")
        group = codes_in(left, known, f"{caller}: --map {text}")
        named |= {group[0]: name.strip()}
        groups.append(group)
    ignored = () if ignore is None else codes_in(ignore, known, f"{caller}: --ignore {ignore}")
    every = [code for group in groups for code in group] + [*ignored]
    twice = sorted({code for code in every if every.count(code) > 1})
    if twice:
        raise ValueError(
            f"{caller}: code {twice[0]} is named twice by --map and --ignore; leave one out"
        )
    found = _occurring(scans)
    for code in every:
        if found and code not in found and code not in ignored:
            warnings.warn(f"{caller}: nothing has the code {code} of --map", stacklevel=2)
    merged = {code for group in groups for code in group[1:]}
    named = {c: n for c, n in named.items() if c not in merged and c not in ignored}
    codes = tuple(sorted(named))
    return Relabelling(tuple(groups), ignored, codes, tuple(named[code] for code in codes))


def read_names(path: Path, caller: str = "train") -> dict[str, str]:
    """The names of codes in a JSON file: ``{"2": "ground"}``, ``{"ground": 2}``, or a list of them.

    A list names the codes 0, 1, … Raises ValueError for anything else.
    """
    wanted = f'{caller}: --names {path} must be JSON such as {{"2": "ground", "6": "roof"}}'
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}; it cannot be read: {error}") from None
    if isinstance(held, list):
        held = {str(code): name for code, name in enumerate(held)}
    if not isinstance(held, dict) or not held:
        raise ValueError(f"{wanted}, or a list of names")
    if all(isinstance(code, int) and not isinstance(code, bool) for code in held.values()):
        if len(set(held.values())) < len(held):
            raise ValueError(f"{wanted}; a code has two names")
        held = {str(code): name for name, code in held.items()}
    for code, name in held.items():
        if not re.fullmatch(r"-?\d{1,18}", code) or not isinstance(name, str) or not name.strip():
            raise ValueError(f"{wanted}, got {code!r}: {name!r}")
    if len({int(code) for code in held}) < len(held):
        raise ValueError(f"{wanted}; a code has two names")
    return {str(int(code)): " ".join(name.split()) for code, name in held.items()}


def codes_in(text: str, known: Mapping[int, str], given: str) -> tuple[int, ...]:
    """The codes in ``3,4,high vegetation``, each once."""
    found: dict[int, None] = {}
    for word in filter(None, map(str.strip, text.split(","))):
        if re.fullmatch(r"-?\d{1,18}", word):
            found[int(word)] = None
            continue
        called = [code for code, name in known.items() if name.casefold() == word.casefold()]
        if not called:
            there = ", ".join(f"{name} ({code})" for code, name in sorted(known.items()))
            raise ValueError(
                f"{given}: no class is called {word!r}; there are {there or 'none'}, others go by"
                " their code"
            )
        found |= dict.fromkeys(called)
    if not found:
        raise ValueError(f"{given}: names no code")
    return tuple(found)


def _occurring(scans: Sequence[Scan]) -> set[int]:
    return {c for scan in scans for c in (*codes_of(scan).tolist(), *scan.no_class)}
