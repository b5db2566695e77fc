"""The folder of a training: what was trained, how, and the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from pointwise.atomic import replacing
from pointwise.separation.replace import separate_as
from pointwise.training.built_in import built_in_runs, find_run
from pointwise.training.classes import Classes
from pointwise.training.features import Features
from pointwise.training.image_recipe import IMAGES, ImageRecipe
from pointwise.training.recipe import TASKS, Recipe
from pointwise.training.relabel import Relabelling
from pointwise.training.run_schema import (
    MAY_RUN,
    RUN,
    check,
    check_arguments,
    check_recipe,
    read_json,
)

R = TypeVar("R", Recipe, ImageRecipe)


@dataclass
class Run(Generic[R]):
    """A network and the recipe that feeds it, ready for labelling: clouds, or images.

    ``arguments`` are what the network's class was called with; ``options`` is what the training was
    told, so that it can be continued; ``separated`` the ranks of those convolutions that
    ``pointwise separate`` has replaced, by name; ``notes`` what of the data was left out and what
    was assumed of them.
    """

    recipe: R
    network: nn.Module
    arguments: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    separated: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


def build_network(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Makes a network of ``pointwise.networks`` by the name of its class.

    Raises ValueError for a name that is none, or for arguments the class does not take.
    """
    network = network_class(name)
    try:
        return network(**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise ValueError(f"{name} cannot be made with {given}: {error}") from None


def network_class(name: str) -> type[nn.Module]:
    """The class of ``pointwise.networks`` with this name, or a ValueError that lists them."""
    import pointwise.networks as networks

    found = getattr(networks, name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        known = [n for n, c in vars(networks).items() if isinstance(c, type)]
        raise ValueError(f"no network is called {name!r}; there are {', '.join(sorted(known))}")
    return found


def save_run(run: Run, folder: Path) -> None:
    """Writes ``run.json``; the weights are written by ``save_weights`` when there are any."""
    described = {
        "network": type(run.network).__name__,
        "arguments": run.arguments,
        "recipe": asdict(run.recipe),
        "options": run.options,
    }
    if run.notes:
        described["notes"] = run.notes
    if run.separated:
        described["separated"] = run.separated
    with replacing(folder / "run.json") as part:
        part.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def save_weights(run: Run, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes ``weights.pt``: the network's ``state_dict`` and nothing else.

    Its numbers are written as ``dtype``, where one is given; read again, they are float32. Raises
    ValueError for a number that is too large for it.
    """
    state = {}
    for name, value in run.network.state_dict().items():
        written = value.cpu()
        if dtype is not None and value.is_floating_point():
            written = written.to(dtype)
            if not bool(torch.isfinite(written).all()):
                raise ValueError(f"{name} has values too large for {dtype}; write it as float32")
        state[name] = written
    with replacing(folder / "weights.pt") as part:
        torch.save(state, part)


def read_run(folder: str | Path) -> Run:
    """Reads ``run.json`` and makes the network, with random weights.

    ``folder`` can be the name of a built-in run. Raises ValueError where the file is broken,
    OSError where there is none.
    """
    path = find_run(folder) / "run.json"
    if not path.is_file():
        hidden = ""
        if str(folder) in built_in_runs():
            hidden = "; it hides the built-in run of this name, so call the folder by another"
        raise FileNotFoundError(
            f"{folder} is no run: it has no run.json, which 'train' writes{hidden}"
        )
    try:
        described = read_json(path)
        check(described, RUN, MAY_RUN)
        loaded = _recipe(described["recipe"])
        arguments = described["arguments"]
        channels = loaded.channels if isinstance(loaded, ImageRecipe) else loaded.features.channels
        check_arguments(arguments, in_channels=channels, classes=len(loaded.classes))
    except ValueError as error:
        raise ValueError(f"{path} is broken: {error}; train again") from None
    separated = described.get("separated", {})
    try:
        network = build_network(described["network"], arguments)
        if separated:
            network = separate_as(network, separated, inplace=True)
    except Exception as error:  # whatever a network makes of arguments that it was never given
        raise ValueError(f"{path}: {_on_one_line(error)}") from None
    return Run(
        loaded, network, arguments, described["options"], separated, described.get("notes", [])
    )


def _on_one_line(error: Exception) -> str:
    """All that an error says, its lines joined."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _recipe(described: dict[str, Any]) -> Recipe | ImageRecipe:
    """The recipe as ``run.json`` describes it, of clouds or of images."""
    task = described.get("task")
    if task is None:
        raise ValueError("it has no 'task' in recipe")
    if task not in (*TASKS, IMAGES):
        raise ValueError(f"the task is {task!r:.60}, not one of {', '.join((*TASKS, IMAGES))}")
    check_recipe(described, images=task == IMAGES)
    described = {**described, "classes": Classes(**_tuples(described["classes"]))}
    if task == IMAGES:
        return ImageRecipe(**_tuples(described))
    described["features"] = Features(**_tuples(described["features"]))
    if "relabelling" in described:
        relabelling = _tuples(described["relabelling"])
        relabelling["merged"] = tuple(map(tuple, relabelling["merged"]))
        described["relabelling"] = Relabelling(**relabelling)
    return Recipe(**described)


def _tuples(described: dict[str, Any]) -> dict[str, Any]:
    """Lists, which is what JSON makes of tuples, as tuples again."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}


def load_run(folder: str | Path, device: str = "cpu") -> Run:
    """Reads a finished run, its network in evaluation mode and on ``device``.

    ``folder`` can be the name of a built-in run, ``rooms``. Raises ValueError where a file is
    broken or does not fit, OSError where one is missing.
    """
    run = read_run(folder)
    path = find_run(folder) / "weights.pt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no weights.pt yet; finish it with: pointwise train --resume {folder}"
        )
    try:
        run.network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # pickle, zip and torch raise a dozen types for a broken file
        raise ValueError(f"{path} cannot be loaded: {_on_one_line(error)}; train again") from None
    for name, value in run.network.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {name} has values that are not finite; train again")
    run.network.to(device).eval()
    return run
