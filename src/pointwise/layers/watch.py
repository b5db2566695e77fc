"""Whether modules are still what a plan was made of, asked in some microseconds.

A network of thirty convolutions is asked before every run, so nothing is looked up that a list of
dictionaries, gathered once, cannot answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from pointwise.engine.cpu.changes import Snapshot

_NUMBERS = ("stride", "padding", "dilation", "groups", "padding_mode", "activation", "eps",
            "training", "forward")  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Watch:
    """The state of modules: their parts, numbers, hooks, and the values of their tensors.

    Holds dictionaries of the modules, not the modules: it does not keep them alive.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._own = [module.__dict__ for module in modules]
        every = [part.__dict__ for module in modules for part in module.modules()]
        self._hooks: list[dict] = [hooks._global_forward_hooks, hooks._global_forward_pre_hooks]
        self._hooks += [own[name] for own in every for name in _HOOKS]
        self._numbers = [(own, name) for own in every for name in _NUMBERS]
        self._values = [own.get(name) for own, name in self._numbers]
        self._places: list[tuple[dict, str]] = []
        for own in every:
            for kind in ("_modules", "_parameters", "_buffers"):
                names = (name for name in own[kind] if name != "num_batches_tracked")
                self._places += [(own[kind], name) for name in names]
        self._things = [place[name] for place, name in self._places]
        self._tensors = [thing for thing in self._things if isinstance(thing, Tensor)]
        self._snapshot = Snapshot(self._tensors)

    def is_still(self, modules: Sequence[nn.Module]) -> bool:
        """Whether ``modules`` are the ones watched, and nothing about them has changed."""
        return (
            len(modules) == len(self._own)
            and all(map(is_, (module.__dict__ for module in modules), self._own))
            and not any(self._hooks)
            and [own.get(name) for own, name in self._numbers] == self._values
            and all(map(is_, [place.get(name) for place, name in self._places], self._things))
            and self._snapshot.is_still(self._tensors)
        )
