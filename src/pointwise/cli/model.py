"""What a command calls a model: networks by their names, runs, functions, and files of others."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pointwise.onnx.protobuf import Takes
    from pointwise.training.run import Run

_CLOUD = ["points", "features", "offsets"]  # what our cloud networks are called with
_LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, and the arguments that its class was called with.

    Of a training, ``run`` and its ``folder``. ``inputs`` came with it; ``takes`` says what an ONNX
    ``file`` asks for; ``image`` is channels, height and width of the images that it is made for.
    """

    name: str
    network: nn.Module
    arguments: dict[str, Any]
    run: Run | None = None
    folder: Path | None = None
    image: tuple[int, ...] | None = None
    inputs: tuple | None = None
    takes: Sequence[Takes] | None = None
    file: Path | None = None

    @property
    def is_for_clouds(self) -> bool:
        """Whether it takes points, features and offsets."""
        return list(inspect.signature(self.network.forward).parameters) == _CLOUD


def load_model(
    caller: str, text: str, arguments: dict[str, Any], layers: bool = False, trust: bool = False
) -> Model:
    """The model that a command's user means by ``text``.

    That is ``MobileNetV1``, a network of ours; the name of one of torchvision or timm;
    ``file.py:function_or_class``, which gives a model, or a model and its inputs; a run: its
    folder, or a checkpoint in it; a program of ``torch.export``, ``file.pt2``; or ``file.onnx``.
    ``arguments`` are those of the network's class or of the function. With ``layers``, programs
    have modules, which makes them slower; with ``trust``, they may run code of their own. Raises
    ValueError with ``caller`` in front for what is none of these.
    """
    file, colon, name = text.rpartition(":")
    if colon and (file.endswith(".py") or Path(file).is_file()):
        return _from_function(caller, Path(file), name, arguments)
    if text.endswith(".py"):
        raise ValueError(
            f"{caller}: say which function or class of {text} makes the model, as in {text}:Network"
        )
    from pointwise.training.built_in import find_run

    path = Path(text)
    if path.suffix in (".pt2", ".onnx"):
        return _from_file(caller, path, arguments, layers, trust)
    if find_run(path).exists():
        return _from_run(caller, find_run(path), arguments)
    return _by_name(caller, text, arguments)


# --- by name --------------------------------------------------------------------------------------


def _by_name(caller: str, name: str, arguments: dict[str, Any]) -> Model:
    from pointwise.training.run import network_class

    try:
        made = network_class(name)
    except ValueError as error:
        return _of_libraries(caller, name, arguments, str(error))
    return _of_ours(name, made, arguments)


def _of_ours(name: str, made: Any, arguments: dict[str, Any]) -> Model:
    from pointwise.training.run import build_network

    if "cell_size" in inspect.signature(made).parameters:
        # Cloud networks have no defaults: a room in metres, in colour.
        defaults = {"in_channels": 3, "classes": 13, "cell_size": 0.1}
        arguments = {**defaults, **arguments}
    network = build_network(name, arguments).eval()
    return Model(name, network, arguments, image=_image_of(network, arguments))


def _image_of(network: nn.Module, arguments: dict[str, Any]) -> tuple[int, ...] | None:
    """Channels, height and width that a network of ours was made for."""
    from pointwise.networks.image_classifier import ImageClassifier

    if not isinstance(network, ImageClassifier):
        return None
    side = 299 if type(network).__name__ == "Xception" else 224
    return arguments.get("in_channels", 3), side, side


def _of_libraries(caller: str, name: str, arguments: dict[str, Any], reason: str) -> Model:
    """A network of torchvision or timm; ``timm:resnet50`` says which. ``reason``: none of ours."""
    reasons = []
    for library in _LIBRARIES:
        bare = name.removeprefix(f"{library}:")
        if ":" in bare:
            continue
        try:
            module = importlib.import_module(library)
        except (ImportError, RuntimeError) as error:  # torchvision made for another PyTorch
            reasons.append(f"{library} cannot be imported ({str(error).splitlines()[0]})")
            continue
        known, make = _makers(library, module)
        if not known(bare):
            reasons.append(f"{library} has none of that name")
            continue
        try:
            network = make(bare, **arguments)
        except TypeError as error:
            raise ValueError(f"{caller}: {bare} of {library} cannot be made: {error}") from error
        image = getattr(network, "default_cfg", {}).get("input_size", (3, 224, 224))
        return Model(bare, network.eval(), arguments, image=tuple(image))
    raise ValueError(f"{caller}: {reason}; {'; '.join(reasons)}; or give FILE.py:FUNCTION")


def _makers(library: str, module: Any) -> tuple[Any, Any]:
    """Whether a library knows a name, and what makes the network of that name."""
    if library == "timm":
        return module.is_model, module.create_model
    return module.models.list_models().__contains__, module.models.get_model


# --- runs -----------------------------------------------------------------------------------------


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
        try:
            run.network.load_state_dict(_averages(caller, path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{caller}: {path} does not fit its run.json: {reason}") from None
    else:
        run = load_run(folder)
    size = getattr(run.recipe, "size", None)
    image = None if size is None else (run.recipe.channels, *size)
    name, network = type(run.network).__name__, run.network.eval()
    return Model(name, network, dict(run.arguments), run, folder, image=image)


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


# --- files ----------------------------------------------------------------------------------------


def _from_function(caller: str, file: Path, name: str, arguments: dict[str, Any]) -> Model:
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
    made, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{caller}: {file}:{name} made {type(made).__name__} where a torch.nn.Module is needed,"
            " or one and its inputs"
        )
    if inputs is not None:
        inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    image = _image_of(made, arguments)
    return Model(type(made).__name__, made.eval(), arguments, image=image, inputs=inputs)


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


def _from_file(
    caller: str, path: Path, arguments: dict[str, Any], layers: bool, trust: bool
) -> Model:
    """A program of torch.export, with the inputs it was exported with, or an ONNX file."""
    if not path.is_file():
        raise FileNotFoundError(f"{caller}: there is no file {path}")
    if arguments:
        raise ValueError(f"{caller}: {path} is made already and takes no arguments; omit --set")
    if path.suffix == ".pt2":
        return _from_program(caller, path, layers, trust)
    from pointwise.onnx.file import read

    try:
        network, takes = read(path)
    except ValueError as error:
        raise ValueError(f"{caller}: {error}") from error
    return Model(path.stem, network, {}, takes=takes, file=path)


def _from_program(caller: str, path: Path, layers: bool, trust: bool) -> Model:
    import torch

    from pointwise.acceleration import exported_file

    try:
        program = exported_file.load(path, trust)
    except exported_file.Untrusted as error:
        raise ValueError(f"{caller}: {error}. If you trust whoever made it, say --trust") from error
    except Exception as error:  # zip, JSON, pickle and torch raise a dozen types
        raise ValueError(
            f"{caller}: {path} is no program of torch.export ({type(error).__name__})"
        ) from error
    inputs, named = program.example_inputs or ((), {})
    if named or not inputs:
        raise ValueError(f"{caller}: {path} has no example inputs, or has named ones")
    network = torch.export.unflatten(program) if layers else _program(program.module())
    for part in network.modules():
        part.training = False
    return Model(path.stem, network, {}, inputs=tuple(inputs))


def _program(module: Any) -> nn.Module:
    """A program's module inside one that may be asked for its mode, which it may not itself."""
    from torch import nn

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def train(self, mode: bool = True) -> Program:
            return self

        def forward(self, *args: Any) -> Any:
            return self.inner(*args)

    return Program()
