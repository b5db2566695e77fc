"""Weights that others have trained: the same numbers come out, and misfits are named."""

from __future__ import annotations

import re
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pointwise.networks import (
    EfficientNetB0,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    ResNet50,
    Xception,
    load_weights,
)

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def photo(path, size) -> Tensor:
    """A photograph as [1, 3, size, size] from -1 to 1, as these weights' authors evaluated them.

    The middle seven eighths (here of the largest square), bilinear without smoothing.
    """
    image = pytest.importorskip("PIL.Image").open(path).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None]
    height, width = pixels.shape[2:]
    edge = min(height, width) * 7 // 8
    top, left = (height - edge) // 2, (width - edge) // 2
    pixels = pixels[:, :, top : top + edge, left : left + edge]
    return F.interpolate(pixels, size=(size, size), mode="bilinear") / 127.5 - 1


# --- TensorFlow's MobileNetV1 x0.25 ---------------------------------------------------------------


@pytest.fixture
def tensorflow(shared_data):
    return shared_data / "mobilenet_v1/mobilenet_v1_0.25_128_quant_weights_dequant.npz"


def as_tensorflow():
    return MobileNetV1(classes=1001, width=0.25, norm=None, padding="same").eval()


def plain_tensorflow(path, x: Tensor) -> Tensor:
    """The network written out from the file's own names, with PyTorch's functions."""
    arrays = {key.split("|", 1)[1]: value for key, value in np.load(path).items()}

    def find(layer):
        mine = [torch.from_numpy(v) for k, v in arrays.items() if f"{layer}." in k.split(";")[0]]
        (weight,) = [value for value in mine if value.dim() == 4]
        (bias,) = [value for value in mine if value.dim() == 1]
        return weight, bias

    def convolve(x, weight, bias, stride, groups=1):
        if stride == 2 and weight.shape[2] == 3:  # SAME, for even sizes
            x = F.pad(x, (0, 1, 0, 1))
        padding = weight.shape[2] // 2 if stride == 1 else 0
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    weight, bias = find("Conv2d_0")
    x = F.relu6(convolve(x, weight.permute(0, 3, 1, 2), bias, 2))
    for number, stride in enumerate(STRIDES, start=1):
        weight, bias = find(f"Conv2d_{number}_depthwise")
        x = F.relu6(convolve(x, weight.permute(3, 0, 1, 2), bias, stride, len(bias)))
        weight, bias = find(f"Conv2d_{number}_pointwise")
        x = F.relu6(convolve(x, weight.permute(0, 3, 1, 2), bias, 1))
    weight, bias = find("Logits.Conv2d_1c_1x1")
    return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), weight[:, 0, 0], bias)


def test_tensorflow_weights_compute_what_plain_pytorch_computes(tensorflow, shared_data):
    network = load_weights(as_tensorflow(), tensorflow)
    for name in ("owl.jpg", "cat.png"):
        image = photo(shared_data / "photos" / name, 128)
        expected = plain_tensorflow(tensorflow, image)
        with torch.no_grad():
            found = network(image)
        assert expected.abs().max() > 5  # there is something to compare
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "label"), [("hot_dog.jpg", "hotdog"), ("owl.jpg", "owl"), ("parrot.jpg", "macaw")]
)
def test_tensorflow_weights_know_the_photographs(tensorflow, shared_data, name, label):
    network = load_weights(as_tensorflow(), tensorflow)
    labels = (tensorflow.parent / "imagenet_labels.txt").read_text().splitlines()
    with torch.no_grad():
        scores = network(photo(shared_data / "photos" / name, 128))[0]
    best = [labels[i] for i in scores.topk(5).indices]
    assert any(label in name for name in best), best


# --- RetinaFace's backbone ------------------------------------------------------------------------


@pytest.fixture
def retinaface(shared_data):
    return shared_data / "retinaface/mobilenet0.25_Final.pth"


def plain_retinaface(state: dict[str, Tensor]) -> dict[int, nn.Sequential]:
    """The three stages as their authors' code has them: modules of PyTorch, same names."""

    def convolution(inputs, outputs, kernel, stride, groups):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    def block(inputs, outputs, stride):
        return nn.Sequential(
            *convolution(inputs, inputs, 3, stride, inputs), *convolution(inputs, outputs, 1, 1, 1)
        )

    stem = nn.Sequential(*convolution(3, 8, 3, 2, 1))
    first = [block(8, 16, 1), block(16, 32, 2), block(32, 32, 1), block(32, 64, 2)]
    stages = {
        1: nn.Sequential(stem, *first, block(64, 64, 1)),
        2: nn.Sequential(block(64, 128, 2), *[block(128, 128, 1) for _ in range(5)]),
        3: nn.Sequential(block(128, 256, 2), block(256, 256, 1)),
    }
    for number, stage in stages.items():
        prefix = f"body.stage{number}."
        mine = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        stage.load_state_dict(mine)
        stage.eval()
    return stages


def test_the_backbone_of_retinaface_loads_by_name(retinaface, shared_data):
    network = MobileNetV1(classes=2, width=0.25, activation="relu").eval()
    before = network.classifier.weight.clone()
    load_weights(network, retinaface, head=False)
    assert torch.equal(network.classifier.weight, before)
    seen = {}
    for stage, last in ((1, 4), (2, 10), (3, 12)):
        network.blocks[last].register_forward_hook(
            lambda module, inputs, output, stage=stage: seen.__setitem__(stage, output)
        )
    image = 128 * photo(shared_data / "photos/grace_hopper.png", 128)
    x = image
    with torch.no_grad():
        network(image)
        state = torch.load(retinaface, map_location="cpu", weights_only=True)
        for number, stage in plain_retinaface(state).items():
            x = stage(x)
            torch.testing.assert_close(seen[number], x, rtol=1e-4, atol=1e-4)
    assert x.abs().max() > 1


def test_a_detector_has_no_classes(retinaface):
    with pytest.raises(ValueError, match=re.escape(
        "not in the weights: classifier.weight, classifier.bias; to leave classifier as it is, "
        "load with head=False"
    )):  # fmt: skip
        load_weights(MobileNetV1(width=0.25, activation="relu"), retinaface)


def test_retinaface_was_trained_with_relu(retinaface):
    with pytest.warns(UserWarning, match=r"trained with activation='relu'.*activation='relu6' and"):
        load_weights(MobileNetV1(width=0.25), retinaface, head=False)


# --- torchvision and timm -------------------------------------------------------------------------


@pytest.fixture
def library(shared_data, monkeypatch):
    """Imports torchvision or timm beside a CPU build of PyTorch; skips where it is missing."""
    monkeypatch.syspath_prepend(str(shared_data.parent / "tools"))

    def load(name):
        pytest.importorskip("torchvision_cpu", reason="the shared tools are not here")
        return pytest.importorskip(name, reason=f"{name} is not installed")

    return load


TORCHVISION = {
    "resnet50": ResNet50,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": lambda: MobileNetV3(size="small"),
    "mobilenet_v3_large": MobileNetV3,
    "efficientnet_b0": EfficientNetB0,
}
PYTORCH_NORM = nn.BatchNorm2d
TENSORFLOW = {"padding": "same", "norm": partial(nn.BatchNorm2d, eps=1e-3)}
TIMM = {
    "mobilenetv1_100": MobileNetV1,
    "mobilenetv1_125": lambda: MobileNetV1(width=1.25),
    "mobilenetv2_050": lambda: MobileNetV2(width=0.5),
    "mobilenetv2_100": MobileNetV2,
    "mobilenetv2_140": lambda: MobileNetV2(width=1.4),
    "mobilenetv3_small_075": lambda: MobileNetV3(size="small", width=0.75, norm=PYTORCH_NORM),
    "mobilenetv3_large_100": lambda: MobileNetV3(norm=PYTORCH_NORM),
    "tf_mobilenetv3_large_075": lambda: MobileNetV3(width=0.75, **TENSORFLOW),
    "efficientnet_b0": EfficientNetB0,
    "tf_efficientnet_b0": lambda: EfficientNetB0(**TENSORFLOW),
    "resnet50": ResNet50,
    "legacy_xception": Xception,
}


def randomise(network: nn.Module, images: Tensor) -> None:
    """Weights as they might be after training: norms that do something, statistics that fit."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.momentum = 1.0
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 0.1, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    network.train()
    with torch.no_grad():
        network(images)
    network.eval()


def check_same_outputs(theirs: nn.Module, ours: nn.Module) -> None:
    """In double precision to the last digits; in single, fifty layers of rounding may differ."""
    torch.manual_seed(1)
    images = torch.rand(4, 3, 64, 80)
    randomise(theirs, images)
    load_weights(ours.eval(), theirs.state_dict())
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
        exact, doubled = theirs.double()(images.double()), ours.double()(images.double())
    assert expected.std(0).mean() > 0.05  # the images make a difference
    torch.testing.assert_close(doubled, exact, rtol=1e-9, atol=1e-9)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_of_torchvision(library, name):
    check_same_outputs(getattr(library("torchvision").models, name)(), TORCHVISION[name]())


@pytest.mark.parametrize("name", TIMM)
def test_weights_of_timm(library, name):
    check_same_outputs(library("timm").create_model(name), TIMM[name]())


# --- files and wrappings --------------------------------------------------------------------------


def small() -> MobileNetV1:
    return MobileNetV1(classes=4, width=0.25)


def same(one: nn.Module, other: nn.Module) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


def test_every_kind_of_file(tmp_path):
    trained = small()
    state = trained.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
               tmp_path / "checkpoint.pth")  # fmt: skip
    np.savez(tmp_path / "arrays.npz", **{name: value.numpy() for name, value in state.items()})
    save_file(state, tmp_path / "plain.safetensors")
    for name in ("plain.pth", "checkpoint.pth", "arrays.npz", "plain.safetensors"):
        assert same(load_weights(small(), tmp_path / name), trained), name
    assert same(load_weights(small(), str(tmp_path / "plain.pth")), trained)
    assert same(load_weights(small(), torch.compile(trained).state_dict()), trained)


def test_files_without_the_number_of_batches(tmp_path):
    """Before PyTorch 0.4.1, batch norm did not count."""
    state = {k: v for k, v in small().state_dict().items() if "num_batches" not in k}
    network = load_weights(small(), state)
    assert torch.equal(network.stem.conv.weight, state["stem.conv.weight"])


def test_other_classes_keep_their_head():
    trained, network = small(), MobileNetV1(classes=7, width=0.25)
    head = network.classifier.weight.clone()
    load_weights(network, trained.state_dict(), head=False)
    assert torch.equal(network.classifier.weight, head)
    assert torch.equal(network.blocks[3].pointwise.conv.weight,
                       trained.blocks[3].pointwise.conv.weight)  # fmt: skip


def test_weights_with_a_head_of_another_name_leave_ours_out(library):
    theirs = library("timm").create_model("mobilenetv1_100")
    network = load_weights(MobileNetV1(classes=5), theirs.state_dict(), head=False)
    assert torch.equal(network.stem.conv.weight, theirs.conv_stem.weight)


# --- what does not fit ----------------------------------------------------------------------------


def test_misfits_are_named_and_nothing_is_loaded():
    state = small().state_dict()
    del state["blocks.2.depthwise.conv.weight"]
    state["blocks.99.conv.weight"] = torch.zeros(3)
    state["stem.norm.bias"] = torch.zeros(5)
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(
        "the weights do not fit this MobileNetV1: "
        "not in the weights: blocks.2.depthwise.conv.weight; "
        "not in the network: blocks.99.conv.weight; "
        "of another shape than the network's: stem.norm.bias (5,) for (8,)"
    )):  # fmt: skip
        load_weights(network, state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_another_number_of_classes_says_how_to_mend_it():
    with pytest.raises(ValueError, match=re.escape(
        "of another shape than the network's: classifier.weight (4, 256) for (7, 256), "
        "classifier.bias (4,) for (7,); to leave classifier as it is, load with head=False"
    )):  # fmt: skip
        load_weights(MobileNetV1(classes=7, width=0.25), small().state_dict())


def test_many_misfits_are_counted():
    with pytest.raises(ValueError, match=r"stem\.norm\.bias \(8,\) for \(16,\), .* and \d+ more"):
        load_weights(MobileNetV1(classes=4, width=0.5), small().state_dict())


def test_another_network_has_other_names():
    with pytest.raises(ValueError, match=re.escape(
        "none of the 2 names is one of a MobileNetV2; expected such as 'stem.conv' (MobileNetV2); "
        "'conv_stem' (timm); 'features.0.0' (torchvision), got encoder.weight, encoder.bias"
    )):  # fmt: skip
        load_weights(MobileNetV2(), {"encoder.weight": torch.zeros(1), "encoder.bias": np.zeros(1)})


def test_tensorflow_weights_need_a_network_like_theirs(tensorflow):
    with pytest.raises(ValueError, match=r"batch norm is folded into these weights.*norm=None"):
        load_weights(MobileNetV1(classes=1001, width=0.25), tensorflow)
    with pytest.raises(
        ValueError, match="weights of MobileNetV1, and the network is a MobileNetV2"
    ):
        load_weights(MobileNetV2(), tensorflow)
    with pytest.warns(
        UserWarning, match=r"trained with padding='same' and activation='relu6'.*has padding=1"
    ):
        load_weights(MobileNetV1(classes=1001, width=0.25, norm=None), tensorflow)
    with pytest.raises(ValueError, match=r"classifier.weight \(1001, 256\) for \(1000, 256\)"):
        load_weights(MobileNetV1(width=0.25, norm=None, padding="same"), tensorflow)


def test_sources_that_hold_no_weights(tmp_path):
    network = small()
    with pytest.raises(TypeError, match=r"source must be a path or a dict of tensors.*got list"):
        load_weights(network, [1, 2])
    with pytest.raises(TypeError, match="got an empty one"):
        load_weights(network, {})
    with pytest.raises(TypeError, match="'epoch' is of type int, not a tensor"):
        load_weights(network, {"epoch": 3})
    with pytest.raises(TypeError, match="must be one of our image networks, got Linear"):
        load_weights(nn.Linear(2, 2), {})
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.pth"):
        load_weights(network, tmp_path / "nothing.pth")
    torch.save(network, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth cannot be read as weights.*save its state_d"):
        load_weights(network, tmp_path / "model.pth")


def test_safetensors_are_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").touch()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="needs the package safetensors: pip install safetensors"):
        load_weights(small(), tmp_path / "a.safetensors")
