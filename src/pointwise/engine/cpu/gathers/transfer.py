"""``prologue`` by its name of before, for who has not yet been told."""

from pointwise.engine.cpu.gathers.prologue import (  # noqa: F401
    CORRECT,
    NORMALISE,
    copy,
    transfer,
    transfer_rows,
    zeros,
)
