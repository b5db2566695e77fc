"""How a model may be given its inputs: by place or by name, with its own defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pointwise.acceleration.guards import is_same

Given = tuple[tuple, dict[str, Any]]
"""What a call gives, by place and by name."""

_PLAIN = (bool, int, float, str, type(None))


class _Own:
    """A default that is no plain value, which only the model has."""

    def __repr__(self) -> str:
        return "the model's own default"


_OWN = _Own()


@dataclass(frozen=True)
class Arguments:
    """The parameters of a model's ``forward``, and the names of those that the example gave."""

    signature: inspect.Signature
    given: tuple[str, ...]

    @classmethod
    def of(cls, forward: Callable, example: Given) -> Arguments:
        """Raises TypeError where ``forward`` does not take the example."""
        signature = inspect.signature(forward)
        bound = signature.bind(*example[0], **example[1])
        parameters = [
            inspect.Parameter(found.name, found.kind, default=_plain(found.default))
            for found in signature.parameters.values()
        ]
        return cls(inspect.Signature(parameters), tuple(bound.arguments))

    def named(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Each argument by the name of its parameter."""
        return dict(self.signature.bind(*args, **kwargs).arguments)

    def arranged(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Given:
        """A call as the example would give it: by place as far as that goes.

        Raises TypeError for what ``forward`` does not take, and ValueError where another value than
        its default is given for an argument that the example left out.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"accelerated model: {error}; it takes {', '.join(self.signature.parameters)}"
            ) from error
        here = dict(bound.arguments)
        for name in here.keys() - set(self.given):
            default = self.signature.parameters[name].default
            if not is_same(default, here[name]):
                was = "" if default is inspect.Parameter.empty else f" where it was {default!r},"
                raise ValueError(
                    f"accelerated model: {name} was left out of the example,{was} and is given "
                    "here. Accelerate it again with such an example"
                )
        for name in self.given:
            default = self.signature.parameters[name].default
            if name not in here and default in (inspect.Parameter.empty, _OWN):
                raise ValueError(
                    f"accelerated model: {name} must be given, as in the example that the model "
                    "was traced with"
                )
        bound.arguments = {  # type: ignore[assignment]
            name: here.get(name, parameter.default)
            for name, parameter in self.signature.parameters.items()
            if name in self.given
        }
        return bound.args, bound.kwargs

    def as_plain(self) -> dict[str, Any]:
        """As JSON has it; defaults in a list, of none or one."""
        return {
            "parameters": [
                [found.name, int(found.kind), _listed(found.default)]
                for found in self.signature.parameters.values()
            ],
            "given": list(self.given),
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Arguments:
        """The inverse of ``as_plain``. Raises ValueError for what is none."""
        try:
            parameters = [
                inspect.Parameter(name, inspect._ParameterKind(kind), default=_from_list(default))
                for name, kind, default in plain["parameters"]
            ]
            signature = inspect.Signature(parameters)
            given = tuple(plain["given"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"no parameters of a model: {plain!r}") from error
        if not set(given) <= set(signature.parameters):
            raise ValueError(f"no parameters of a model: {plain!r}")
        return cls(signature, given)


def called(model: Callable, example: Given) -> Any:
    """What a model makes of an example."""
    args, kwargs = example
    return model(*args, **kwargs)


def _plain(default: Any) -> Any:
    known = default is inspect.Parameter.empty or type(default) in _PLAIN
    return default if known else _OWN


def _listed(default: Any) -> list[Any] | None:
    """[] for none, [value] for a plain one, None for one of the model's own."""
    if default is _OWN:
        return None
    return [] if default is inspect.Parameter.empty else [default]


def _from_list(listed: Any) -> Any:
    if listed is None:
        return _OWN
    if not isinstance(listed, list) or any(type(value) not in _PLAIN for value in listed):
        raise ValueError(f"a default is a number, text or nothing, got {listed!r}")
    return listed[0] if listed else inspect.Parameter.empty
