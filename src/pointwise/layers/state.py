"""Whether modules are still what a plan was made of, asked in some microseconds.

A network of thirty convolutions is asked before every run, so nothing is looked up that a list of
dictionaries, gathered once, cannot answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_

from torch import nn
from torch.nn.modules import module as hooks

from pointwise.engine.cpu.changes import State

_NUMBERS = ("stride", "padding", "dilation", "groups", "padding_mode", "activation", "eps",
            "training", "forward")  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ModuleState:
    """The state of modules: their submodules, numbers, hooks, and the values of their tensors.

    Holds dictionaries of the modules, not the modules: it does not keep them alive.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._own = [module.__dict__ for module in modules]
        every = [inner.__dict__ for module in modules for inner in module.modules()]
        self._hooks: list[dict] = [hooks._global_forward_hooks, hooks._global_forward_pre_hooks]
        self._hooks += [own[name] for own in every for name in _HOOKS]
        self._numbers = [(own, name) for own in every for name in _NUMBERS]
        self._places: list[tuple[dict, str]] = []
        for own in every:
            for kind in ("_modules", "_parameters", "_buffers"):
                names = (name for name in own[kind] if name != "num_batches_tracked")
                self._places += [(own[kind], name) for name in names]
        self._state = State(*self._now())

    def _now(self) -> tuple[list, list]:
        things = [place.get(name) for place, name in self._places]
        return things, [own.get(name) for own, name in self._numbers]

    def is_still(self, modules: Sequence[nn.Module]) -> bool:
        """Whether ``modules`` are the ones given, and nothing about them has changed."""
        return (
            len(modules) == len(self._own)
            and all(map(is_, (module.__dict__ for module in modules), self._own))
            and not any(self._hooks)
            and self._state.is_still(*self._now())
        )
