"""Optional dependencies: imported where they are used, with an error that names the extra."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_extra(module: str, extra: str) -> ModuleType:
    """Imports ``module``, or says which extra of pointwise brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is there, and something inside it is broken
        raise ImportError(
            f"{module.split('.')[0]} is not installed; run: pip install 'pointwise[{extra}]'",
            name=error.name,
        ) from None
