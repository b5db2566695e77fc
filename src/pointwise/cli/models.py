"""Models by what one calls them: ours, torchvision's, timm's, a function's, a file's."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

OURS = ("MobileNetV1", "MobileNetV2", "MobileNetV3", "EfficientNetB0", "ResNet50", "Xception")


class Model(NamedTuple):
    """A model in inference mode, and what to run it on."""

    model: nn.Module
    inputs: tuple[Tensor, ...]


def find_model(name: str, batch: int, size: int) -> Model:
    """The model of that name, with weights as its maker makes them (mostly at random).

    Raises ValueError for what is no model, OSError for files that are not there, ImportError for a
    library that is not.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    if ".py:" in name:
        found = _from_function(name)
    elif name.endswith(".pt2"):
        return _from_program(Path(name))
    elif name.endswith(".onnx"):
        raise ValueError(
            f"speedup: {name}: pointwise makes PyTorch models faster and does not read ONNX files; "
            "give the model that it was made from"
        )
    else:
        found = _by_name(name)
    model, inputs = found if isinstance(found, tuple) else (found, None)
    if not isinstance(model, nn.Module):
        raise ValueError(f"speedup: {name} gives {type(model).__name__}, not an nn.Module")
    if inputs is None:
        inputs = (torch.randn(batch, 3, size, size),)
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return Model(model.eval(), inputs)


def _by_name(name: str) -> Any:
    if name in OURS:
        return getattr(importlib.import_module("pointwise.networks"), name)()
    reasons = []
    for library in ("torchvision", "timm"):
        bare = name.removeprefix(f"{library}:")
        if ":" in bare:
            continue
        try:
            module = importlib.import_module(library)
        except (ImportError, RuntimeError) as error:  # torchvision made for another PyTorch
            reasons.append(f"{library} cannot be imported ({str(error).splitlines()[0]})")
            continue
        if library == "torchvision" and bare in module.models.list_models():
            return module.models.get_model(bare)
        if library == "timm" and module.is_model(bare):
            return module.create_model(bare)
        reasons.append(f"{library} has none of that name")
    raise ValueError(
        f"speedup: no model {name!r}: ours are {', '.join(OURS)}; "
        f"{'; '.join(reasons) or 'before a colon is torchvision or timm'}. Others: file.py:function"
    )


def _from_function(name: str) -> Any:
    """What a function without arguments returns: a model, or a model and its inputs."""
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"speedup: there is no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"speedup: there is no function {function!r} in {file}")
    return getattr(module, function)()


def _from_program(path: Path) -> Model:
    """An exported program, with the inputs it was exported with."""
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"speedup: there is no file {path}")
    program = torch.export.load(path)
    if program.example_inputs is None or program.example_inputs[1]:
        raise ValueError(f"speedup: {path} has no example inputs, or has named ones")
    return Model(Program(program.module()), tuple(program.example_inputs[0]))


def Program(module: Any) -> nn.Module:
    """A program's module inside one that may be asked for its mode, which it may not itself."""
    from torch import nn

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def train(self, mode: bool = True) -> Wrapped:
            return self

        def forward(self, *args: Any) -> Any:
            return self.inner(*args)

    wrapped = Wrapped()
    for part in wrapped.modules():
        part.training = False
    return wrapped
