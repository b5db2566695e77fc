"""``run.json`` checked key by key, so that what is wrong in it is named before anything is made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pointwise.cloud.units import DEGREE, METRES
from pointwise.messages import shortened


class Requirement(NamedTuple):
    """What the value of a key must be: a test of it, and words for it."""

    holds: Callable[[Any], bool]
    words: str

    def or_null(self) -> Requirement:
        return Requirement(
            lambda value: value is None or self.holds(value), f"{self.words}, or null"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _list_of(holds: Callable[[Any], bool], words: str) -> Requirement:
    return Requirement(lambda value: isinstance(value, list) and all(map(holds, value)), words)


OBJECT = Requirement(lambda value: isinstance(value, dict), "an object of keys and values")
TEXT = Requirement(lambda value: isinstance(value, str) and bool(value), "a text")
TRUTH = Requirement(lambda value: isinstance(value, bool), "true or false")
NUMBER = Requirement(_is_number, "a finite number")
POSITIVE = Requirement(
    lambda value: _is_number(value) and value > 0, "a finite number greater than 0"
)
NOT_NEGATIVE = Requirement(
    lambda value: _is_number(value) and value >= 0, "a finite number, 0 or more"
)
WHOLE = Requirement(
    lambda value: _is_whole(value) and 0 <= value < 2**63, "a whole number, 0 or more"
)
COUNT = Requirement(
    lambda value: _is_whole(value) and 0 < value < 2**63, "a whole number, 1 or more"
)
SHARE = Requirement(lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, up to 1")
TEXTS = _list_of(TEXT.holds, "a list of texts")
SOME_TEXTS = Requirement(
    lambda value: TEXTS.holds(value) and bool(value), "a list of texts, not empty"
)
NUMBERS = _list_of(_is_number, "a list of finite numbers")
POSITIVES = _list_of(POSITIVE.holds, "a list of finite numbers greater than 0")
COUNTS = _list_of(COUNT.holds, "a list of whole numbers, 1 or more")
CODES = Requirement(
    lambda value: (
        _list_of(lambda code: _is_whole(code) and abs(code) < 2**63, "").holds(value)
        and all(a < b for a, b in pairwise(value))
    ),
    "a list of whole numbers, ascending",
)
CODES_OF_ANY_ORDER = _list_of(
    lambda code: _is_whole(code) and abs(code) < 2**63, "a list of whole numbers"
)
GROUPS = _list_of(
    lambda group: CODES_OF_ANY_ORDER.holds(group) and bool(group), "a list of lists of codes"
)
NAMES = Requirement(
    lambda value: TEXTS.holds(value) and len(value) > 0 and len(set(value)) == len(value),
    "a list of texts, no two of them the same",
)
UNIT = Requirement(
    lambda value: value in (*METRES, DEGREE), f"one of {', '.join((*METRES, DEGREE))}"
)
PIXELS = Requirement(lambda value: COUNTS.holds(value) and len(value) == 2, "a height and a width")
RANKS = Requirement(
    lambda value: isinstance(value, dict) and all(map(COUNT.holds, value.values())),
    "an object of ranks, 1 or more",
)

CLASSES = {"codes": CODES, "names": NAMES}
FEATURES = {"names": SOME_TEXTS, "widths": COUNTS, "centre": NUMBERS, "scale": POSITIVES}
MAY_FEATURES = {"optional": TEXTS}
CLOUDS = {
    "task": TEXT,
    "classes": OBJECT,
    "features": OBJECT,
    "block": POSITIVE,
    "margin": NOT_NEGATIVE,
    "most": COUNT,
}
MAY_CLOUDS = {
    "unit_sphere": TRUTH,
    "spacing": NOT_NEGATIVE,
    "rotate": NUMBER,
    "ground": NOT_NEGATIVE,
    "relabelling": OBJECT,
    "unit": UNIT.or_null(),
}
RELABELLING = {"merged": GROUPS, "ignored": CODES_OF_ANY_ORDER, "codes": CODES, "names": TEXTS}
IMAGES = {"task": TEXT, "classes": OBJECT, "size": PIXELS, "mean": NUMBERS, "std": POSITIVES}
MAY_IMAGES = {"crop": SHARE, "antialias": TRUTH}
RUN = {"recipe": OBJECT, "network": TEXT, "arguments": OBJECT, "options": OBJECT}
MAY_RUN = {"separated": RANKS, "notes": TEXTS}
OPTIONS = {
    "data": SOME_TEXTS,
    "start": TEXT.or_null(),
    "test": TEXTS.or_null(),
    "minutes": POSITIVE.or_null(),
    "epochs": COUNT.or_null(),
    "steps": COUNT.or_null(),
    "hold_out": NUMBER,
    "task": TEXT.or_null(),
    "split": TEXT.or_null(),
    "rooms": COUNT.or_null(),
    "network": TEXT.or_null(),
    "set": TEXTS.or_null(),
    "features": TEXT.or_null(),
    "optional": TEXT.or_null(),
    "cell_size": POSITIVE.or_null(),
    "block": POSITIVE.or_null(),
    "size": COUNT.or_null(),
    "width": POSITIVE.or_null(),
    "flip": TRUTH,
    "batch": COUNT.or_null(),
    "learning_rate": POSITIVE,
    "rotate": NUMBER.or_null(),
    "patience": COUNT.or_null(),
    "seed": WHOLE,
    "devices": COUNT.or_null(),
    "precision": TEXT.or_null(),
    "columns": TEXT.or_null(),
    "map": TEXTS.or_null(),
    "ignore": TEXT.or_null(),
    "names": OBJECT.or_null(),
    "workers": WHOLE,
    "cache": TEXT.or_null(),
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ValueError for anything else."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply to be a run's") from None
    if not isinstance(described, dict):
        raise ValueError(f"it must be an object of keys and values, got {_as_json(described)}")
    return described


def check(
    described: Mapping[str, Any],
    must: Mapping[str, Requirement],
    may: Mapping[str, Requirement] | None = None,
    *,
    under: str = "",
) -> None:
    """Raises ValueError, naming the key, what it must be and what it is.

    Keys of ``must`` have to be there, those of ``may`` can; others are none of this version's.
    ``under`` is the key that ``described`` itself stands under, and a dot.
    """
    known = {**must, **(may or {})}
    place = f" in {under.removesuffix('.')}" if under else ""
    for key in must:
        if key not in described:
            raise ValueError(f"it has no {key!r}{place}")
    for key, value in described.items():
        if key not in known:
            raise ValueError(
                f"it has {key!r}{place}, which this version does not know; is it a later one's?"
            )
        if not known[key].holds(value):
            raise ValueError(f"{under + key} must be {known[key].words}, got {_as_json(value)}")


def check_lengths(under: str, described: Mapping[str, Sequence], **wanted: int) -> None:
    """Raises ValueError where a list has not as many entries as others make necessary."""
    for key, count in wanted.items():
        if len(described[key]) != count:
            raise ValueError(f"{under}{key} must have {count} entries, got {len(described[key])}")


def check_recipe(recipe: dict[str, Any], *, images: bool) -> None:
    """Raises ValueError where a recipe as ``run.json`` has it cannot be one."""
    check(recipe, *((IMAGES, MAY_IMAGES) if images else (CLOUDS, MAY_CLOUDS)), under="recipe.")
    classes = recipe["classes"]
    check(classes, CLASSES, under="recipe.classes.")
    check_lengths("recipe.classes.", classes, codes=len(classes["names"]))
    if images:
        channels = len(recipe["mean"])
        if channels not in (1, 3):
            raise ValueError(f"recipe.mean must have 1 or 3 entries, got {channels}")
        check_lengths("recipe.", recipe, std=channels)
        return
    features = recipe["features"]
    check(features, FEATURES, MAY_FEATURES, under="recipe.features.")
    for name in features.get("optional", ()):
        if name not in features["names"]:
            raise ValueError(f"recipe.features.optional has {name!r}, which is not among the names")
    check_lengths("recipe.features.", features, widths=len(features["names"]))
    channels = sum(features["widths"])
    check_lengths("recipe.features.", features, centre=channels, scale=channels)
    if "relabelling" in recipe:
        check(recipe["relabelling"], RELABELLING, under="recipe.relabelling.")
        codes = recipe["relabelling"]["codes"]
        check_lengths("recipe.relabelling.", recipe["relabelling"], names=len(codes))
    if not 2 * recipe["margin"] < recipe["block"]:
        raise ValueError(
            f"recipe.margin must be less than half of recipe.block, {recipe['block']:g},"
            f" got {recipe['margin']:g}"
        )


def check_arguments(arguments: Mapping[str, Any], **decided: int) -> None:
    """Raises ValueError where the network's arguments are not what the recipe makes necessary."""
    for name, value in decided.items():
        given = arguments.get(name, value)
        if not _is_whole(given) or given != value:
            raise ValueError(
                f"arguments.{name} must be {value} by the recipe, got {_as_json(given)}"
            )
    if "cell_size" in arguments and not POSITIVE.holds(arguments["cell_size"]):
        given = _as_json(arguments["cell_size"])
        raise ValueError(f"arguments.cell_size must be {POSITIVE.words}, got {given}")


def check_options(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a training that goes on; raises ValueError where it could not."""
    try:
        check(options, {"data": OPTIONS["data"]}, OPTIONS, under="options.")
    except ValueError as error:
        raise ValueError(f"{path} is broken: {error}; train again") from None
    return options


def _as_json(value: Any) -> str:
    """A wrong value as JSON has it."""
    try:
        return shortened(json.dumps(value))
    except (TypeError, ValueError):
        return shortened(repr(value))
