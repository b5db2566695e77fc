"""Which layers are separated, and to which rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pointwise.separation import calibrate
from pointwise.separation.candidates import convolutions, reasons
from pointwise.separation.expand import Expansion, expand
from pointwise.separation.probe import (
    Calls,
    full_rank,
    most_ranks,
    separable_weights,
    standard_weights,
)
from pointwise.separation.ranks import choices, for_error, within

Progress = Callable[[str, int, int], object]
"""Called with a name for the work, how much of it is done, and how much there is."""


@dataclass
class Candidate:
    """A convolution of the given network, and the rank that was chosen for it."""

    name: str
    conv: nn.Conv2d  # or any other convolution, where ``why`` says so
    points: int  # results of each channel for one image; 0 where nobody counted
    why: str = ""  # the convolution is left as it is; empty where it is not
    rank: int | None = None
    expanded: Expansion | None = None

    @property
    def expansion(self) -> Expansion:
        """The decomposition of its weight, made when it is first asked for."""
        if self.expanded is None:
            self.expanded = expand(self.conv.weight, self.conv.groups)
        return self.expanded


def candidates(module: nn.Module, seen: dict[str, Calls] | None) -> list[Candidate]:
    """All convolutions in the order in which they run; those that do not run come last."""
    why = reasons(module)
    found = {
        name: Candidate(name, conv, 0, why[name])  # type: ignore[arg-type]
        for name, conv in convolutions(module).items()
    }
    if seen is None:
        return list(found.values())
    for name, each in found.items():
        if name in seen:
            each.points = seen[name].points
        else:
            each.why = each.why or "the input does not reach it"
    ran = [found.pop(name) for name in seen]
    return [*ran, *found.values()]


def by_rank(layers: Sequence[Candidate], rank: int | Mapping[str, int]) -> None:
    """The ranks that were given, up to the full one."""
    if isinstance(rank, Mapping):
        for name, value in rank.items():
            _check_named(layers, name, value)
    for layer in layers:
        if layer.why:
            continue
        wanted = rank.get(layer.name) if isinstance(rank, Mapping) else rank
        if wanted is None:
            layer.why = "rank does not name it"
        else:
            layer.rank = min(wanted, full_rank(layer.conv))


def _check_named(layers: Sequence[Candidate], name: str, rank: int) -> None:
    found = next((layer for layer in layers if layer.name == name), None)
    if found is None:
        known = ", ".join(repr(layer.name) for layer in layers if not layer.why) or "none"
        raise ValueError(f"separate: rank names {name!r}; what can be separated is {known}")
    if found.why:
        raise ValueError(f"separate: rank names {name!r}, which cannot be separated: {found.why}")
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"separate: the rank of {name!r} must be 1 or more, got {rank!r}")


def by_error(
    layers: Sequence[Candidate], error: float, errors: Mapping[str, Sequence[float]]
) -> None:
    """The smallest rank of each layer that keeps to the error."""
    for name, layer in _open(layers).items():
        layer.rank = for_error(errors[name], error)
        if layer.rank is None:
            layer.why = f"below an error of {error:g} it would multiply no less"


def by_budget(
    layers: Sequence[Candidate],
    budget: float,
    of: str,
    whole: int,
    errors: Mapping[str, Sequence[float]],
) -> None:
    """Chooses ranks within the budget; ``whole`` is what the network has of ``of`` now."""
    options = {}
    for name, layer in _open(layers).items():
        times = layer.points if of == "multiply_adds" else 1
        once, standard = separable_weights(layer.conv, 1), standard_weights(layer.conv)
        options[name] = choices(errors[name], times * once, times * standard)
    limit = int(budget * whole) if budget <= 1 else int(budget)
    fixed = whole - sum(each[-1].cost for each in options.values())
    least = fixed + sum(each[0].cost for each in options.values())
    if least > limit:
        words = of.replace("_", "-")
        raise ValueError(
            f"separate: a budget of {limit:,} {words} cannot be kept: with rank 1 everywhere there"
            f" are {least:,}, which is budget={math.ceil(1e4 * least / whole) / 1e4:g}"
        )
    for name, choice in within(options, limit - fixed).items():
        layer = next(layer for layer in layers if layer.name == name)
        layer.rank = choice.rank
        if choice.rank is None:
            layer.why = "the budget has room for it as it is"


def errors_of(
    module: nn.Module,
    layers: Sequence[Candidate],
    batches: Sequence[Tensor] | None,
    progress: Progress,
) -> dict[str, list[float]]:
    """The errors of ranks 1, 2, … of every layer that has none yet, up to the last that saves work.

    Layers for which rank 1 saves nothing are left as they are.
    """
    for layer in _open(layers).values():
        if most_ranks(layer.conv) == 0:
            layer.why = "even rank 1 would multiply no less"
    errors = {}
    still = _open(layers)
    for number, (name, layer) in enumerate(still.items()):
        progress("finding ranks", number, len(still))
        most = most_ranks(layer.conv)
        if batches is None:
            errors[name] = [layer.expansion.error(rank) for rank in range(1, most + 1)]
        else:
            errors[name] = calibrate.curve(module, layer.conv, layer.expansion, batches, most)
    return errors


def _open(layers: Sequence[Candidate]) -> dict[str, Candidate]:
    return {layer.name: layer for layer in layers if not layer.why}
