"""Arguments of a network's class, as the command line has them."""

from __future__ import annotations

import json
from typing import Any


def network_arguments(given: list[str] | None) -> dict[str, Any]:
    """The arguments of ``--set NAME=VALUE``: numbers and such where they are, else words."""
    arguments = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"train: --set takes NAME=VALUE, such as width=0.25, got {text!r}")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments
