"""What the classes of one part of the data are in the others: lines to be told and kept.

A class that only the test part has is never learned, one that only the training part has is never
tested, and a validation part that is not there chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pointwise.messages import shortened

Counts = Mapping[str, int]  # of each class, by name


def doubts(train: Counts, validation: Counts, test: Counts, counted: str) -> list[str]:
    """Lines on the classes that not every part has; ``counted`` is what there are so many of."""
    lines = []
    if never := {name: n for name, n in test.items() if n and not train.get(name)}:
        lines.append(
            f"never learned, since only the test part has them: {_listed(never, counted)}; they"
            " count as wrong"
        )
    tested = [name for name, n in test.items() if n]
    if untested := {name: n for name, n in train.items() if n and not test.get(name)}:
        lines.append(f"not in the test part, so not tested: {_listed(untested, counted)}")
    if len(tested) == 1:
        lines.append(
            f"the test part has one class only, {tested[0]}: its scores cannot say whether classes"
            " are told apart; give more with --test or --hold-out"
        )
    known = {name: n for name, n in train.items() if n}
    missing = {name: n for name, n in known.items() if not validation.get(name)}
    if missing and any(validation.values()):
        lines.append(f"not in the validation part, which best.ckpt is chosen by: {_names(missing)}")
    return lines


def without_validation(why: str) -> str:
    """The line on a validation part that could not be had."""
    return (
        f"there is no validation part: {why}; so best.ckpt is that of the last step, whether or"
        " not an earlier one was better"
    )


def means_over(counts: np.ndarray, names: tuple[str, ...]) -> str:
    """What is to be said beside scores in which not every class occurs; nothing where all do."""
    there = [name for name, count in zip(names, counts, strict=True) if count]
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if not missing:
        return ""
    if len(there) == 1:
        return (
            f"All of the test part is {there[0]}: these scores do not say whether classes are told"
            " apart."
        )
    several = f"The means are over {len(there)} of {len(names)} classes; not tested: "
    return f"{several}{', '.join(missing)}."


def _listed(counts: Counts, counted: str) -> str:
    return ", ".join(f"{name} ({n:,} {counted})" for name, n in sorted(counts.items()))


def _names(counts: Counts) -> str:
    return shortened(", ".join(sorted(counts)), 200)
