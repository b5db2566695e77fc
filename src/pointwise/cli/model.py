"""What a command calls a model, and what goes into one: networks of ours, files, runs."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pointwise.training.run import Run

_CLOUD = ["points", "features", "offsets"]  # what our cloud networks are called with
_POINTS = 20_000


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, and the arguments that its class was called with.

    Of a training, ``run`` and its ``folder``.
    """

    name: str
    network: nn.Module
    arguments: dict[str, Any]
    run: Run | None = None
    folder: Path | None = None

    @property
    def is_for_clouds(self) -> bool:
        """Whether it takes points, features and offsets."""
        return list(inspect.signature(self.network.forward).parameters) == _CLOUD


def load_model(caller: str, text: str, arguments: dict[str, Any]) -> Model:
    """``MobileNetV1``, ``file.py:function_or_class``, or a run: its folder, or a checkpoint in it.

    ``arguments`` are those of the network's class or of the function. Raises ValueError with
    ``caller`` in front for what is none of these.
    """
    file, colon, name = text.rpartition(":")
    if colon and (file.endswith(".py") or Path(file).is_file()):
        return _from_file(caller, Path(file), name, arguments)
    if text.endswith(".py"):
        raise ValueError(
            f"{caller}: say which function or class of {text} makes the model, as in {text}:Network"
        )
    if Path(text).exists():
        return _from_run(caller, Path(text), arguments)
    return _of_ours(text, arguments)


def _of_ours(name: str, arguments: dict[str, Any]) -> Model:
    from pointwise.training.run import build_network, network_class

    made = network_class(name)
    taken = inspect.signature(made).parameters
    if "cell_size" in taken:  # cloud networks have no defaults: a room in metres, in colour
        defaults = {"in_channels": 3, "classes": 13, "cell_size": 0.1}
        arguments = {**defaults, **arguments}
    return Model(name, build_network(name, arguments).eval(), arguments)


def _from_run(caller: str, path: Path, arguments: dict[str, Any]) -> Model:
    from pointwise.training.run import load_run, read_run

    if arguments:
        raise ValueError(f"{caller}: {path} is a run and knows its own arguments; omit --set")
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not (folder / "run.json").is_file():
        raise ValueError(
            f"{caller}: {path} does not lie in the folder of a run; give that, FILE.py:FUNCTION, or"
            " a network of pointwise.networks"
        )
    if path.suffix == ".ckpt":
        run = read_run(folder)
        run.network.load_state_dict(_averages(caller, path))
    else:
        run = load_run(folder)
    size = getattr(run.recipe, "size", None)
    more = {} if size is None else {"size": tuple(size)}
    name, network = type(run.network).__name__, run.network.eval()
    return Model(name, network, {**run.arguments, **more}, run, folder)


def _averages(caller: str, path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint: the moving averages, which are what a training keeps."""
    import torch

    own = "average.module."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        return {name.removeprefix(own): x for name, x in state.items() if name.startswith(own)}
    except Exception as error:  # pickle, zip and torch raise a dozen types for a broken file
        raise ValueError(
            f"{caller}: {path} is no checkpoint of a training ({type(error).__name__})"
        ) from None


def _from_file(caller: str, file: Path, name: str, arguments: dict[str, Any]) -> Model:
    from torch import nn

    if not file.is_file():
        raise FileNotFoundError(f"{caller}: there is no file {file}")
    module = _imported(caller, file)
    made = getattr(module, name, None)
    if made is None:
        own = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        known = f"; there are {', '.join(own)}" if own else ""
        raise ValueError(f"{caller}: {file} has no {name!r}{known}")
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise ValueError(f"{caller}: {file}:{name} is {type(made).__name__}, not a model")
        try:
            made = made(**arguments)
        except TypeError as error:
            raise ValueError(
                f"{caller}: {name} cannot be called: {error}; give arguments with --set NAME=VALUE"
            ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{caller}: {file}:{name} made {type(made).__name__} where a torch.nn.Module is needed"
        )
    return Model(type(made).__name__, made.eval(), arguments)


def _imported(caller: str, file: Path) -> Any:
    """The module of a file, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(
            f"{caller}: {file} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module


# --- inputs ---------------------------------------------------------------------------------------


def inputs_of(caller: str, model: Model, given: list[str] | None) -> tuple[tuple, str]:
    """What ``--input`` stands for, and in words: ``1x3x224x224``, or ``1x16:int`` for indices.

    Without: an image for our image networks, a room of 20,000 points for cloud networks, whose
    ``--input`` is points x channels.
    """
    shapes = [_shape(caller, text) for text in given or ()]
    if model.is_for_clouds:
        return _room(caller, model, shapes)
    if not shapes:
        shapes = [(_image(caller, model), False)]
    made = tuple(_indices(shape) if whole else shape for shape, whole in shapes)
    words = ", ".join("x".join(map(str, shape)) for shape, _ in shapes)
    return made, words


def _shape(caller: str, text: str) -> tuple[tuple[int, ...], bool]:
    found = re.fullmatch(r"([1-9]\d*(?:x[1-9]\d*)*)(:int)?", text.strip().lower())
    if found is None:
        raise ValueError(
            f"{caller}: --input takes sizes such as 1x3x224x224, or 1x16:int for indices, "
            f"got {text!r}"
        )
    return tuple(map(int, found.group(1).split("x"))), found.group(2) is not None


def _indices(shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.zeros(shape, dtype=torch.int64)


def _image(caller: str, model: Model) -> tuple[int, ...]:
    from pointwise.networks.image_classifier import ImageClassifier

    if not isinstance(model.network, ImageClassifier):
        raise ValueError(
            f"{caller}: say what {model.name} is given, as in --input 1x3x224x224, and once for "
            "each input"
        )
    height, width = model.arguments.get(
        "size", (299, 299) if model.name == "Xception" else (224, 224)
    )
    return 1, model.arguments.get("in_channels", 3), height, width


def _room(
    caller: str, model: Model, shapes: list[tuple[tuple[int, ...], bool]]
) -> tuple[tuple, str]:
    """The points of a built-in room, features for them, and offsets that make it one cloud."""
    import torch

    from pointwise.rooms import room

    channels = model.arguments.get("in_channels", 3)
    count = _POINTS
    if shapes:
        (shape, _), *more = shapes
        if more or len(shape) != 2 or shape[1] != channels:
            raise ValueError(
                f"{caller}: {model.name} takes clouds: --input is points x channels, such as "
                f"{_POINTS}x{channels}"
            )
        count = shape[0]
    scan = room(0, rays=max(1000, 2 * count))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(scan), generator=generator)[:count].sort().values
    if len(chosen) < count:
        raise ValueError(f"{caller}: a room has no {count:,} points; take fewer")
    points = torch.from_numpy(scan.points)[chosen].float()
    features = torch.rand(count, channels, generator=generator)
    offsets = torch.tensor([0, count])
    return (points, features, offsets), f"{count:,} points of a room, {channels} features each"
