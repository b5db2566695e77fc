"""What modules keep of themselves: read before a run, compared with or put back after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

_OWN = frozenset(nn.Module().__dict__)  # of every module: parameters, hooks and the like


class ModuleState:
    """The attributes of a model and of all modules in it, as they are when this is made.

    Lists, dicts and sets within each other are copied; everything else is kept as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [(path, _copied(vars(part))) for path, part in model.named_modules()]

    def restore(self) -> None:
        """Puts everything back, in the very collections that it came from."""
        for _, state in self._modules:
            _put_back(state)

    def changed(self, later: ModuleState, is_same: Callable[[Any, Any], bool]) -> str | None:
        """The path of the first attribute that is no more, is new or is not the same.

        Parameters, buffers and modules are none of it.
        """
        before, after = dict(self._attributes()), dict(later._attributes())
        for path in before | after:
            if path not in before or path not in after or not is_same(before[path], after[path]):
                return path
        return None

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        for path, (_, attributes) in self._modules:
            for name, copied in attributes.items():
                if name not in _OWN:
                    yield f"{path}.{name}" if path else name, _value(copied)


def _copied(kept: Any) -> tuple[Any, Any]:
    """A value and, of a list, dict or set, a copy of what is in it."""
    if type(kept) is dict:
        return kept, {name: _copied(value) for name, value in kept.items()}
    if type(kept) is list:
        return kept, [_copied(value) for value in kept]
    return (kept, set(kept)) if type(kept) is set else (kept, None)


def _value(copied: tuple[Any, Any]) -> Any:
    """The value as it was, in collections of its own."""
    own, entries = copied
    if type(own) is dict:
        return {name: _value(entry) for name, entry in entries.items()}
    if type(own) is list:
        return [_value(entry) for entry in entries]
    return entries if type(own) is set else own


def _put_back(copied: tuple[Any, Any]) -> Any:
    """The value as it was, in the collections that it came from."""
    own, entries = copied
    if type(own) is dict:
        values = {name: _put_back(entry) for name, entry in entries.items()}
        own.clear()
        own.update(values)
    elif type(own) is list:
        own[:] = [_put_back(entry) for entry in entries]
    elif type(own) is set:
        own.clear()
        own.update(entries)
    return own
