"""What an accelerated model asks of its inputs: as those of the example that it was traced with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pointwise.acceleration import guards, saved
from pointwise.acceleration.arguments import Arguments
from pointwise.acceleration.guards import Traced


@dataclass(frozen=True)
class Inputs:
    """How a call must be arranged, of which types its inputs must be, and of which sizes.

    ``traced`` has an entry for each input in a row, ``conditions`` are on their sizes, and ``spec``
    is how the example had them, by place and by name.
    """

    arguments: Arguments
    spec: pytree.TreeSpec
    traced: list[Traced]
    conditions: list[str]

    def flat(self, args: tuple, kwargs: Mapping[str, Any]) -> list[Any]:
        """The inputs of a call in a row. Raises TypeError or ValueError where they do not fit."""
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        if spec == self.spec:
            return leaves
        leaves, spec = pytree.tree_flatten(self.arguments.arranged(args, kwargs))
        if spec != self.spec:
            raise ValueError(
                f"accelerated model: the inputs must be arranged as in the example, "
                f"{_on_one_line(self.spec)}, got {_on_one_line(spec)}"
            )
        return leaves

    def check(self, leaves: Sequence[Any]) -> None:
        """Raises ValueError for inputs, in a row, that the trace does not hold for."""
        guards.check(leaves, self.traced, self.conditions)

    def of_types(self, dtypes: Sequence[torch.dtype | None]) -> Inputs:
        """The same for tensors of other types, in a row."""
        traced = [
            found if dtype is None else replace(found, dtype=str(dtype).removeprefix("torch."))
            for found, dtype in zip(self.traced, dtypes, strict=True)
        ]
        return replace(self, traced=traced)

    def as_plain(self) -> dict[str, Any]:
        return {
            "arguments": self.arguments.as_plain(),
            "in": pytree.treespec_dumps(self.spec),
            "inputs": [found.as_plain() for found in self.traced],
            "conditions": self.conditions,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Inputs:
        """The inverse of ``as_plain``, from JSON. Raises ValueError for what is none."""
        return cls(
            Arguments.from_plain(plain["arguments"]),
            saved.spec_from_text(plain["in"]),
            [Traced.from_plain(found) for found in plain["inputs"]],
            list(plain["conditions"]),
        )


def _on_one_line(spec: pytree.TreeSpec) -> str:
    return " ".join(str(spec).split())
