"""A link of a run of convolutions."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Link(NamedTuple):
    """A convolution, its norm and its activation: ``activation(norm(conv(x)))``."""

    conv: nn.Conv2d
    norm: nn.Module | None = None
    activation: str | None = None
    own: bool = False
    """Whether the activation is the convolution's own, which is not to be applied twice."""
