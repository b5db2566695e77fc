"""What ``pointwise.accelerate`` gives where torch.export fails: the model, compiled in pieces."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from pointwise.acceleration import dynamo
from pointwise.acceleration.plans import Reasons
from pointwise.acceleration.report import Report


class Compiled(nn.Module):
    """A model that torch.export could not trace, under torch.compile; ``why`` is what it said.

    Pickled, it is the model; whoever reads it needs the model's class.
    """

    def __init__(self, model: nn.Module, why: str) -> None:
        super().__init__()
        self.model, self.why = model, why
        self._compile()
        self.training = False

    def _compile(self) -> None:
        self._graphs: WeakSet = WeakSet()
        self._reasons = Reasons()
        # In a list, so as not to be a submodule.
        self._compiled = [torch.compile(self.model, backend=dynamo.backend_of(self._graphs))]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            result = self._compiled[0](*args, **kwargs)
        if not self._graphs:
            self._reasons.note("torch.compile made no graph of it")
        return result

    def reports(self) -> list[Report]:
        """What runs as kernels, what as plain PyTorch, and why, for each graph and shape so far."""
        return dynamo.reports(self._graphs) or self._reasons.reports()

    def extra_repr(self) -> str:
        return f"compiled in pieces, because torch.export said: {self.why}"

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "why": self.why}

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        self.model, self.why = state["model"], state["why"]
        self._compile()
        self.training = False
