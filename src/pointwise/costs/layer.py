"""A network's modules and what each of them costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointwise.costs.count import Count, total


@dataclass(frozen=True)
class Layer:
    """A module that computes something itself, and how often it is called.

    ``path`` is its place in the network, such as ``blocks.0.depthwise.conv`` ("" is the network
    itself), ``type`` its class. ``parts`` tell its work by kind, of which ``kind`` is the largest.
    Shapes are those of its first call.
    """

    path: str
    type: str
    kind: str
    calls: int
    in_shapes: tuple[tuple[int, ...], ...]
    out_shapes: tuple[tuple[int, ...], ...]
    parts: dict[str, Count] = field(repr=False)

    @property
    def count(self) -> Count:
        return total(self.parts.values())

    @property
    def name(self) -> str:
        """The path, or the class of the network itself in brackets."""
        return self.path or f"({self.type})"


@dataclass(frozen=True)
class Branch:
    """A module with all that is inside it; ``depth`` is 0 for the network itself."""

    path: str
    type: str
    depth: int
    count: Count

    @property
    def name(self) -> str:
        """The last part of the path, or the class of the network itself in brackets."""
        return self.path.rpartition(".")[2] or f"({self.type})"
