"""Reading weights that others have trained into our image networks."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pointwise.networks.image_classifier import ImageClassifier
from pointwise.networks.mobilenet_v1 import MobileNetV1
from pointwise.networks.weight_names import known_names

Network = TypeVar("Network", bound=ImageClassifier)

_SHOWN = 6  # names in a message


def load_weights(
    network: Network, source: str | os.PathLike | Mapping[str, Tensor | np.ndarray],
    head: bool = True,
) -> Network:  # fmt: skip
    """Fills ``network`` with the weights in ``source``, all or none, and returns it.

    ``source`` is a state dict, or a file: ``.pth`` (read with ``weights_only=True``),
    ``.safetensors``, or ``.npz`` with TensorFlow's layout. The names may be the network's own, or
    those of torchvision, timm and, for ``MobileNetV1``, TensorFlow and RetinaFace. With
    ``head=False`` the layer that gives the classes is left as it is: for other classes, or where
    there are weights for the rest only.

    What no file tells is up to who builds the network: activation, padding, and the norm's ``eps``.

    >>> trained = MobileNetV1(classes=10, width=0.25).state_dict()
    >>> network = load_weights(MobileNetV1(classes=3, width=0.25), trained, head=False)
    """
    if not isinstance(network, ImageClassifier):
        raise TypeError(
            "load_weights: network must be one of our image networks, got "
            f"{type(network).__name__}; use its load_state_dict"
        )
    tensors = read_tensors(source)
    if any("MobilenetV1" in name for name in tensors):
        found = _from_tensorflow(network, tensors)
    else:
        found = _rename(network, tensors)
    network.load_state_dict(_fitted(network, found, head))
    return network


# --- reading --------------------------------------------------------------------------------------


def read_tensors(source) -> dict[str, Tensor]:
    """The tensors of a file or of a dict, by name, out of whatever they are nested in."""
    if isinstance(source, (str, os.PathLike)):
        source = _read(Path(source))
    for key in ("state_dict", "model"):  # a checkpoint has more than the weights
        if isinstance(source, Mapping) and isinstance(source.get(key), Mapping):
            source = source[key]
    if not isinstance(source, Mapping) or not source:
        raise TypeError(
            "load_weights: source must be a path or a dict of tensors, as from state_dict(), got "
            f"{'an empty one' if isinstance(source, Mapping) else type(source).__name__}"
        )
    tensors = {}
    for name, value in source.items():
        if not isinstance(value, (Tensor, np.ndarray)):
            raise TypeError(
                f"load_weights: {name!r} is of type {type(value).__name__}, not a tensor; give the "
                "state dict alone"
            )
        tensors[name] = torch.as_tensor(value)
    # What nn.DataParallel and torch.compile put in front of every name.
    for wrapping in ("module.", "_orig_mod."):
        if all(name.startswith(wrapping) for name in tensors):
            tensors = {name.removeprefix(wrapping): value for name, value in tensors.items()}
    return tensors


def _read(path: Path):
    if not path.is_file():
        raise FileNotFoundError(f"load_weights: there is no file {path}")
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(arrays)
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(
                f"load_weights: {path.name} needs the package safetensors: pip install safetensors"
            ) from error
        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"load_weights: {path.name} cannot be read as weights ({type(error).__name__}). A file "
            "that holds a whole pickled model can run any code; save its state_dict() instead: "
            "torch.save(model.state_dict(), path)"
        ) from error


# --- names ----------------------------------------------------------------------------------------


def _rename(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; the table that knows most of the names is the right one."""
    tables = known_names(network)

    def known(library: str) -> int:
        return sum(name.rpartition(".")[0] in tables[library] for name in tensors)

    library = max(tables, key=known)
    if known(library) == 0:
        examples = "; ".join(f"{next(iter(names))!r} ({of})" for of, names in tables.items())
        raise ValueError(
            f"load_weights: none of the {len(tensors)} names is one of a {type(network).__name__}; "
            f"expected such as {examples}, got {_list(list(tensors))}"
        )
    names = tables[library]
    if library == "RetinaFace":  # the rest of the detector is not ours
        _warn_unless(network, activation="relu")
        tensors = {name: value for name, value in tensors.items() if name.startswith("body.")}
    renamed = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{names[layer]}.{kind}" if layer in names else name] = value
    return renamed


def _from_tensorflow(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV1 as TensorFlow's Slim names it, batch norm folded into weights and biases."""
    if not isinstance(network, MobileNetV1):
        raise ValueError(
            f"load_weights: these are TensorFlow's weights of MobileNetV1, and the network is a "
            f"{type(network).__name__}"
        )
    if network.stem.norm is not None:
        raise ValueError(
            "load_weights: batch norm is folded into these weights, and the network has batch norm "
            'of its own; build it with MobileNetV1(..., norm=None, padding="same")'
        )
    _warn_unless(network, padding="same", activation="relu6")
    found = {}
    for name, value in tensors.items():
        layer = re.search(r"Conv2d_(\d+)(?:_(depthwise|pointwise))?\.|Logits\.Conv2d_1c_1x1", name)
        if layer is None:
            continue  # shapes, which TensorFlow keeps as tensors
        number, half = layer.groups()
        if number is None:
            ours = "classifier"
            value = value.flatten(1) if value.dim() == 4 else value
        else:
            ours = f"blocks.{int(number) - 1}.{half}.conv" if half else "stem.conv"
            # depthwise 1, H, W, C; others O, H, W, I
            order = (3, 0, 1, 2) if half == "depthwise" else (0, 3, 1, 2)
            value = value.permute(order) if value.dim() == 4 else value
        found[f"{ours}.{'bias' if value.dim() == 1 else 'weight'}"] = value
    return found


# --- checks ---------------------------------------------------------------------------------------


def _warn_unless(network: nn.Module, **trained_with: str) -> None:
    """Warns where the network's arguments are not those that the weights were trained with."""
    if any(getattr(network, name) != value for name, value in trained_with.items()):
        theirs = " and ".join(f"{name}={value!r}" for name, value in trained_with.items())
        ours = " and ".join(f"{name}={getattr(network, name)!r}" for name in trained_with)
        warnings.warn(
            f"load_weights: these weights were trained with {theirs}; the network has {ours} and "
            "will do worse than they can",
            stacklevel=4,
        )


def _fitted(network: ImageClassifier, found: dict[str, Tensor], head: bool) -> dict[str, Tensor]:
    """A whole state dict for ``network``, or an error that names everything that does not fit."""
    own = network.state_dict()
    last = network.LAST_LAYER
    if not head:
        found = {name: value for name, value in found.items() if not name.startswith(f"{last}.")}
        found |= {name: value for name, value in own.items() if name.startswith(f"{last}.")}
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):  # files of old do not have it
            found.setdefault(name, value)
    missing = [name for name in own if name not in found]
    unexpected = [name for name in found if name not in own]
    fitted, wrong = {}, []
    for name, value in found.items():
        if name in own:
            shape = own[name].shape
            if value.shape != shape and _pointwise(value.shape) == _pointwise(shape):
                value = value.reshape(shape)
            if value.shape != shape:
                wrong.append(f"{name} {tuple(value.shape)} for {tuple(shape)}")
            fitted[name] = value
    problems = [
        f"{words}: {_list(names)}"
        for words, names in (
            ("not in the weights", missing),
            ("not in the network", unexpected),
            ("of another shape than the network's", wrong),
        )
        if names
    ]
    if problems:
        hint = ""
        if all(name.startswith(f"{last}.") for name in [*missing, *unexpected, *wrong]):
            hint = f"; to leave {last} as it is, load with head=False"
        raise ValueError(
            f"load_weights: the weights do not fit this {type(network).__name__}: "
            + "; ".join(problems) + hint
        )  # fmt: skip
    return fitted


def _pointwise(shape: torch.Size) -> tuple[int, ...]:
    """A 1×1 convolution on one pixel is a linear layer; some libraries write it as the one."""
    return tuple(shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
