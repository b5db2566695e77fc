"""The runs that come with the library, which commands take by their names."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"  # a folder each


def built_in_runs() -> list[str]:
    """Their names."""
    return sorted(path.parent.name for path in MODELS.glob("*/run.json"))


def find_run(run: str | Path) -> Path:
    """The folder of a run: as it is given or, where there is none, that of a built-in run."""
    path = Path(run)
    return MODELS / path if not path.exists() and str(run) in built_in_runs() else path
