"""Models not built from our layers, made faster: a backend of torch.compile, and a module.

What makes models faster is imported when it is asked for: who only reads a saved one needs none of
it, and ``torch.load`` needs to know ``Accelerated`` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pointwise.acceleration.module import Accelerated

if TYPE_CHECKING:
    from pointwise.acceleration.dynamo import backend, reports
    from pointwise.acceleration.model import accelerate

__all__ = ["Accelerated", "accelerate", "backend", "reports"]

_WHERE = {"accelerate": "model", "backend": "dynamo", "reports": "dynamo"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pointwise.acceleration' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pointwise.acceleration.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
