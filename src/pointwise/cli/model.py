"""What MODEL may be in a command: a trained run, a network of ours, or a function in a file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from pointwise.training.run import Run


@dataclass
class Model:
    """A network ready for inference; ``run`` says what it reads, where that is known.

    ``folder`` is that of a training; networks with the weights of others have a run without one.
    """

    name: str
    network: nn.Module
    run: Run | None = None
    folder: Path | None = None


def load_model(
    command: str,
    model: str,
    weights: Path | None = None,
    arguments: dict[str, Any] | None = None,
) -> Model:
    """Loads a run's folder or a file in it, ``FILE.py:FUNCTION``, or a class of pointwise.networks.

    ``weights`` and ``arguments`` are for the last. Raises ValueError or OSError, in one line.
    """
    path = Path(model)
    file, colon, function = model.rpartition(":")
    named = not path.exists() and not (colon and file.endswith(".py"))
    if not named and (weights is not None or arguments):
        raise ValueError(
            f"{command}: --weights and --set go with a network of pointwise.networks, not {model}"
        )
    if path.exists():
        return _of_run(command, path)
    if not named:
        return Model(function, _called(command, Path(file), function))
    return _of_ours(command, model, weights, arguments or {})


def _of_run(command: str, path: Path) -> Model:
    import torch

    from pointwise.training.run import load_run, read_run

    if path.suffix == ".py":
        raise ValueError(f"{command}: which function of it makes the network? Give {path}:FUNCTION")
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not (folder / "run.json").is_file():
        raise ValueError(
            f"{command}: {path} is not in the folder of a run; give a run, FILE.py:FUNCTION, or a"
            f" network with its weights, as in: pointwise {command} MobileNetV1 --weights {path}"
        )
    if path.suffix != ".ckpt":
        run = load_run(folder)
        return Model(folder.name, run.network, run, folder)
    run = read_run(folder)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    own = "average.module."  # what is validated and kept of a training
    found = {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}
    run.network.load_state_dict(found)
    return Model(folder.name, run.network.eval(), run, folder)


def _of_ours(command: str, name: str, weights: Path | None, arguments: dict[str, Any]) -> Model:
    import pointwise.networks
    from pointwise.training.run import build_network

    if not hasattr(pointwise.networks, name):
        known = (n for n, c in vars(pointwise.networks).items() if isinstance(c, type))
        raise ValueError(
            f"{command}: there is no {name}: no run of 'pointwise train', no FILE.py:FUNCTION, and"
            f" no network of ours, which are {', '.join(sorted(known))}"
        )
    if weights is None:
        return Model(name, build_network(name, arguments).eval())
    from pointwise.training.images.pretrained import pretrained

    run = pretrained(name, weights, arguments=arguments)
    return Model(name, run.network, run)


def _called(command: str, file: Path, function: str) -> nn.Module:
    """The module that a function in a file returns."""
    from torch import nn

    if not file.is_file():
        raise FileNotFoundError(f"{command}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, loaded)  # so that what it defines can be pickled
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(loaded)
        make: Callable | None = getattr(loaded, function, None)
        if make is None:
            raise ValueError(f"{command}: {file} has no {function!r}")
        made = make if isinstance(make, nn.Module) else make()
    except (ImportError, OSError):
        raise
    except Exception as error:  # anybody's code may raise anything
        if str(error).startswith(f"{command}: "):
            raise
        raise ValueError(f"{command}: {file}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent.resolve()))
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{command}: {function} of {file} must return a torch.nn.Module, got"
            f" {type(made).__name__}"
        )
    return made.eval()


def input_shape(command: str, text: str) -> tuple[int, ...]:
    """``1x3x224x224`` as numbers: images, channels, height and width."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(
            f"{command}: --input must be images, channels, height and width, as in 1x3x224x224,"
            f" got {text!r}"
        )
    return tuple(int(part) for part in parts)
