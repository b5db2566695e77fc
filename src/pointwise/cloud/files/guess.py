"""What the columns of a table without names are, where nothing but the numbers can tell."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

_KNOWN = 16  # no layout that is in use has more columns
_XYZ = ("x", "y", "z")


def guessed_names(path: Path, table: Sequence[np.ndarray]) -> list[str]:
    """Names of the columns ``[N]`` by what they hold; warns of what was assumed beyond x, y, z.

    Three columns of whole numbers 0 to 255 are red, green, blue, and a fourth behind them that is
    255 everywhere is alpha; three of unit vectors are a normal; another fourth column is the
    intensity; what remains is ``feature0``, ``feature1`` … Raises ValueError where the numbers fit
    two such readings alike, as those of ``x y z intensity r g b`` and ``x y z r g b label`` may.
    """
    if len(table) <= 3:
        return list(_XYZ[: len(table)])
    readings = _readings(table) if len(table) <= _KNOWN else [{}]
    named = [" ".join(_named(reading, len(table))) for reading in readings]
    if len(named) > 1:
        raise ValueError(
            f"two readings of its columns fit, {named[0]!r} and {named[1]!r}; name them with "
            "columns= (--columns), or in a header"
        )
    assumed = named[0] if len(table) <= _KNOWN else "x y z feature0 …"
    # The same words for all files of a folder, so that Python shows them once.
    warnings.warn(
        f"{path.with_name('*' + path.suffix)}: no header, so the columns are taken for {assumed}; "
        "name others with columns= (--columns)",
        stacklevel=2,
    )
    return _named(readings[0], len(table))


def is_color(columns: Sequence[np.ndarray]) -> bool:
    """Whole numbers 0 to 255; not only 0 and 1, which normals along the axes have too."""
    return are_bytes(columns) and max(values.max(initial=0) for values in columns) != 1


def are_bytes(columns: Sequence[np.ndarray]) -> bool:
    """Whether all are whole numbers 0 to 255."""
    return all(
        bool(((values >= 0) & (values <= 255)).all() and (values == np.rint(values)).all())
        for values in columns
    )


def _is_unit(columns: Sequence[np.ndarray]) -> bool:
    squares = sum(np.square(values, dtype=np.float64) for values in columns)
    return bool(np.allclose(squares, 1, atol=2e-2))


def _readings(table: Sequence[np.ndarray]) -> list[dict[int, tuple[str, ...]]]:
    """Where colours and normals may begin, as far as the numbers can say: names by column."""
    places = range(3, len(table) - 2)
    colors: list[tuple[int, tuple[str, ...]]] = []
    for k in places:
        if is_color(table[k : k + 3]):
            alpha = k + 3 < len(table) and bool((table[k + 3] == 255).all())
            colors.append((k, ("red", "green", "blue", "alpha")[: 3 + alpha]))
    normals = [(k, ("nx", "ny", "nz")) for k in places if _is_unit(table[k : k + 3])]
    pairs = [*itertools.product(colors, normals)]
    alone = [(group,) for group in (*colors, *normals)]
    found = [dict(groups) for groups in [*filter(_are_apart, pairs), *alone, ()]]
    explained = [sum(map(len, reading.values())) for reading in found]
    return [reading for reading, n in zip(found, explained, strict=True) if n == max(explained)]


def _are_apart(groups: Iterable[tuple[int, tuple[str, ...]]]) -> bool:
    (first, names), (second, _) = sorted(groups)
    return first + len(names) <= second


def _named(reading: dict[int, tuple[str, ...]], width: int) -> list[str]:
    names, features = list(_XYZ), itertools.count()
    while len(names) < width:
        k = len(names)
        if k in reading:
            names += reading[k]
        else:
            names.append("intensity" if k == 3 and width <= _KNOWN else f"feature{next(features)}")
    return names
