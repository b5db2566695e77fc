"""What of a model runs as our kernels, what as plain PyTorch, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.watch import share
from pointwise.convolution.problem import is_depthwise
from pointwise.engine.cpu.isa import ISA
from pointwise.messages import duration


@dataclass(frozen=True, eq=False)
class Entry:
    """One call of the graph."""

    path: str  # of the module it came from, as in ``named_modules``
    what: str
    fused: bool
    why: str  # it is not


@dataclass(frozen=True)
class Report:
    """What became of a model, for one shape of input."""

    shapes: tuple
    entries: tuple[Entry, ...]
    arena: int  # bytes for everything between the layers
    why: str = ""  # the whole model runs as plain PyTorch
    times: Mapping[str, float] = field(default_factory=dict)  # seconds by what they are spent in
    said: str = ""  # of a model on a GPU, which has no plans

    @property
    def fused(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.fused]

    @property
    def plain(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.fused]

    def __str__(self) -> str:
        if self.said:
            return self.said
        if self.why:
            return f"all as plain PyTorch: {self.why}"
        shapes = ", ".join(map(str, self.shapes))
        lines = [
            f"inputs {shapes}: {len(self.fused)} calls as kernels, {len(self.plain)} plain, "
            f"{self.arena / 1e6:.1f} MB between layers, {ISA.title}"
        ]
        kinds = Counter(entry.what for entry in self.fused)
        lines += [f"  fused  {count:4} × {what}" for what, count in kinds.most_common()]
        for (what, why), paths in _grouped(self.plain).items():
            some = ", ".join(paths[:3]) + (" …" if len(paths) > 3 else "")
            lines.append(f"  plain  {len(paths):4} × {what} ({why}): {some}")
        whole = sum(self.times.values())
        for what, seconds in list(self.times.items())[:6] if whole else ():
            lines.append(
                f"  time   {duration(1e3 * seconds):>8} {share(seconds, whole):>6}  {what}"
            )
        return "\n".join(lines)


def _grouped(entries: list[Entry]) -> dict[tuple[str, str], list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        groups.setdefault((entry.what, entry.why), []).append(entry.path or "(the model)")
    return groups


def path_of(node: fx.Node) -> str:
    """The module that a call came from, as in ``named_modules``."""
    if "path" in node.meta:
        return node.meta["path"]
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for found, _ in stack.values():
        path = found
    for begin in ("L['self'].", "L__self___", "L['self']"):
        path = path.removeprefix(begin)
    return path.replace("_modules['", "").replace("']", "")


def describe(node: fx.Node) -> str:
    """What a call is, for people to read."""
    if "what" in node.meta:
        return node.meta["what"]
    name = getattr(node.target, "__name__", str(node.target))
    if node.target not in vocabulary.FUNCTIONS.values():
        return str(node.target).removesuffix(".default")
    extra = ""
    if node.target is vocabulary.chain:
        steps: Any = node.args[1]
        return f"chain of {', '.join(step[0] for step in steps)}"
    if node.target is vocabulary.conv:
        weight = node.args[1].meta.get("val") if isinstance(node.args[1], fx.Node) else None
        if weight is not None:
            groups: Any = node.args[7]
            name = _kind(weight.shape, groups)
    if node.target in (vocabulary.conv, vocabulary.linear) and node.args[3] is not None:
        extra = " + residual"
    last = node.args[-1]
    if isinstance(last, str) and last != "none":
        extra += f" + {last}"
    return name.replace("_", " ") + extra


def _kind(sizes: Sequence[int], groups: int) -> str:
    high, wide = sizes[2:]
    if is_depthwise(sizes, groups):
        return f"depthwise conv {high}×{wide}"
    name = "pointwise conv" if high * wide == 1 else f"conv {high}×{wide}"
    return name if groups == 1 else f"grouped {name}"
