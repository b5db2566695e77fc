"""What commands that use a run have in common: how points are labelled, and on which device."""

from __future__ import annotations

from typing import Annotated

import typer

VOTES = 3
Votes = Annotated[
    int, typer.Option(min=1, help="How many rotated views vote on each point; 1 is fastest.")
]
Columns = Annotated[
    str | None,
    typer.Option(help="Names of the columns of text, NPY and .bin, as in 'x y z intensity'."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu or cuda.", show_default="cuda if there is one")
]


def device_of(asked: str | None) -> str:
    """The device that was asked for, or the best that there is."""
    import torch

    return asked or ("cuda" if torch.cuda.is_available() else "cpu")
