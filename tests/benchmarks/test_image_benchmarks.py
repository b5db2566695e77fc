"""The benchmarks on images: shapes, work by definition, peers, the choice of cases.

No test looks at how long anything really took.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cloud
import image
import image_pairs
import image_shapes
import image_work
import machine
import plain_networks
import planned
import runtimes
import training
from frame import OURS, Case
from image_shapes import Block, Convolution
from image_work import Work
from planned import Planned

EPS = torch.finfo(torch.float32).eps
PLAIN = frozenset({runtimes.COMPILE, runtimes.ONNXRUNTIME, runtimes.OPENVINO})
SHAPES = [
    Convolution(7, 6, 6, 3, 1, 6),
    Convolution(8, 6, 6, 3, 2, 6),
    Convolution(7, 4, 8, 3, 2),
    Convolution(9, 3, 8, 7, 2),
    Convolution(6, 4, 8),
    Convolution(7, 4, 8, 1, 2),
]
BLOCKS = [
    Block("separable", 8, 8, 16, 8, 2),
    Block("inverted", 7, 8, 8, 48, 1),
    Block("inverted", 8, 8, 16, 8, 2),
    Block("bottleneck", 8, 16, 32, 8, 2),
    Block("bottleneck", 8, 32, 32, 8, 1),
]


# --- shapes and networks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "convolutions", "blocks"),
    [
        ("mobilenet_v1", 4_231_976, 27, 9),
        ("mobilenet_v2", 3_504_872, 52, 12),
        ("resnet50", 25_557_032, 53, 8),
    ],
)
def test_networks_are_those_of_the_papers(name, parameters, convolutions, blocks):
    with torch.device("meta"):
        network = image_shapes.NETWORKS[name]()
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert len(image_shapes.network_convolutions(network)) == convolutions
    assert len(image_shapes.blocks(name)) == blocks
    assert network.training  # looking at it changes nothing


def test_depthwise_shapes_are_those_of_mobilenet_s_table():
    names = [shape.name for shape in image_shapes.convolutions("mobilenet_v1")]
    assert names[:4] == [
        "conv3_s2_224x224x3_32",
        "dw3_s1_112x112x32",
        "pw_112x112x32_64",
        "dw3_s2_112x112x64",
    ]
    sizes = (112, 32, 1), (112, 64, 2), (56, 128, 1), (56, 128, 2), (28, 256, 1), (28, 256, 2), \
        (14, 512, 1), (14, 512, 2), (7, 1024, 1)  # fmt: skip
    depthwise = [name for name in names if name.startswith("dw")]
    assert depthwise == [f"dw3_s{stride}_{size}x{size}x{c}" for size, c, stride in sizes]
    assert "pw_s2_56x56x256_512" in [s.name for s in image_shapes.convolutions("resnet50")]
    assert image_shapes.blocks("mobilenet_v2")[1].name == "block_inverted_s2_112x112x16_24"
    assert len({shape.name for shape in image_shapes.all_convolutions()}) == 70


def test_statistics_and_scales_are_uneven_once_settled():
    torch.manual_seed(0)
    images = 3 + torch.randn(8, 4, 6, 6)
    block = plain_networks.settle(plain_networks.Separable(4, 8), images)
    first, last = block[1], block[4]
    x = block[0](images)  # 288 values of each channel
    limit = 4 * EPS * np.sqrt(288) * float(x.detach().abs().max())
    torch.testing.assert_close(first.running_mean, x.mean(dim=(0, 2, 3)), rtol=0, atol=limit)
    for norm in (first, last):
        assert norm.momentum == 0.1
        assert norm.running_var.std() > 0
        assert norm.weight.std() > 0


def test_weights_are_handed_over_in_order_or_refused():
    torch.manual_seed(0)
    source, target = plain_networks.Separable(4, 8), plain_networks.Separable(4, 8)
    plain_networks.copy_weights(plain_networks.settle(source, torch.randn(2, 4, 5, 5)), target)
    images = torch.randn(1, 4, 5, 5)
    assert torch.equal(source.eval()(images), target.eval()(images))
    with pytest.raises(ValueError, match=r"3.weight is \(8, 4, 1, 1\) where 3.weight is \(9, 4, 1"):
        plain_networks.copy_weights(source, plain_networks.Separable(4, 9))
    with pytest.raises(ValueError, match="12 weights and statistics for 6"):
        plain_networks.copy_weights(source, nn.Sequential(*list(source)[:2]))


# --- work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, Convolution(1, 2, 2, 3)], ids=lambda s: s.name)
def test_multiply_adds_are_the_taps_inside_the_image(shape):
    image = torch.ones(1, shape.c_in, shape.size, shape.size)
    weight = torch.ones(shape.c_out, shape.c_in // shape.groups, shape.kernel, shape.kernel)
    out = F.conv2d(image, weight, None, shape.stride, shape.padding, groups=shape.groups)
    assert out.shape[2] == shape.out
    assert image_work.multiply_adds(shape) == out.sum()
    assert image_work.weights(shape) == weight.numel()


def test_work_by_hand():
    # 4×4 pixels, 3×3 kernel: 2 + 3 + 3 + 2 taps along each side.
    depthwise = Convolution(4, 2, 2, 3, 1, 2)
    assert image_work.forward(depthwise, batch=5) == Work(
        flops=2 * 5 * 100 * 2, bytes=4 * (2 * 9 + 5 * 2 * (16 + 16))
    )
    assert image_work.training(depthwise, batch=5) == Work(
        flops=3 * 2 * 5 * 100 * 2, bytes=4 * (2 * 2 * 9 + 5 * 2 * (16 + 16) + 5 * 2 * (16 + 16))
    )
    skipping = Convolution(6, 2, 4, 1, 2)  # reads nine pixels of 36; all get a gradient
    assert image_work.forward(skipping, 1) == Work(2 * 9 * 8, 4 * (8 + 18 + 36))
    assert image_work.training(skipping, 1).bytes == 4 * (2 * 8 + 18 + 72 + 2 * 36)
    # A depthwise one, then a pointwise one to three channels, then 3 → 10 scores.
    shapes = [depthwise, Convolution(4, 2, 3)]
    products = 2 * 100 + 16 * 6
    assert image_work.network_forward(shapes, 5, result=10, others=30) == Work(
        2 * 5 * (products + 30), 4 * (18 + 6 + 30 + 5 * (32 + 10))
    )
    # The images' gradient, a third of the first layer's work, is not wanted in a network.
    assert image_work.network_training(shapes, 5, others=30) == Work(
        2 * 5 * (3 * (products + 30) - 200), 4 * (2 * (18 + 6 + 30) + 5 * 32)
    )
    assert image_work.network_training(shapes, 5, input_gradient=True) == Work(
        2 * 5 * 3 * products, 4 * (2 * (18 + 6) + 2 * 5 * 32)
    )


@pytest.mark.slow
def test_mobilenet_s_work_is_a_little_less_than_published():
    """The paper counts 569 million multiply-adds, zeros outside of the image included."""
    case = image.network_case("mobilenet_v1", 2, 224, missing=PLAIN)
    shapes = image_shapes.network_convolutions(plain_networks.mobilenet_v1())
    padded = sum(image_work.weights(shape) * shape.out**2 for shape in shapes) + 1024 * 1000
    assert round(padded / 1e6) == 569
    assert 0.99 * padded < case.flops / 4 < padded
    values = 4_209_088 + 2 * (3 * 224**2 + 1000)  # weights but for norms and biases
    assert case.bytes == 4 * values


# --- everyone does the same -----------------------------------------------------------------------


def results_of(case: Case) -> dict:
    """Everyone's results, which the case's own check accepts."""
    results = {one.who: one.run(one.prepare()) for one in case.contestants}
    assert case.check(results) is None
    return results


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if i else [])
        for i, name in enumerate(image_shapes.NETWORKS)
    ],
)
def test_networks_agree_and_mistakes_are_seen(name):
    case = image.network_case(name, 1, 32, missing=PLAIN)
    results = results_of(case)
    assert list(results) == [OURS, "torch_eager", "torch_channels_last"]
    assert results[OURS].shape == (1, 1000)
    assert results[OURS].std() > 0.01  # or it would say nothing that they agree
    results[OURS] = 1.002 * results[OURS]
    assert "torch_eager differs from pointwise" in case.check(results)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_convolutions_agree_and_mistakes_are_seen(shape):
    case = image.convolution_case(shape, 2, PLAIN)
    assert case.name == f"{shape.name}_b2"
    results = results_of(case)
    assert ("torch_mm" in results) == (shape.kind == "pw" and shape.stride == 1)
    wrong = results["torch_eager"].clone()
    wrong[-1, -1, -1, -1] += 1e-3 * wrong.abs().max()
    assert "torch_eager differs" in case.check(results | {"torch_eager": wrong})

    step = training.convolution_case(shape, 2, PLAIN)
    assert step.name == f"{shape.name}_b2_train"
    results = results_of(step)
    assert ("torch_mm" in results) == (shape.kind == "pw" and shape.stride == 1)
    for number in range(3):
        wrong = [tensor.clone() for tensor in results["torch_eager"]]
        wrong[number].view(-1)[-1] += 1e-3 * wrong[number].abs().max()
        assert f"in result {number}" in step.check(results | {"torch_eager": wrong})


@pytest.mark.parametrize("shape", BLOCKS, ids=lambda shape: shape.name)
def test_blocks_agree_and_mistakes_are_seen(shape):
    results = results_of(image.block_case(shape, 2, PLAIN))
    side = (shape.size - 1) // shape.stride + 1
    assert results[OURS].shape == (2, shape.c_out, side, side)
    case = training.block_case(shape, 4, PLAIN)
    results = results_of(case)
    wrong = [tensor.clone() for tensor in results[OURS]]
    wrong[0][0, 0, 0, 0] += 1e-3 * wrong[0].abs().max()
    assert "in result 0" in case.check(results | {OURS: wrong})
    for number in range(1, len(wrong)):
        wrong = [tensor.clone() for tensor in results[OURS]]
        wrong[number] *= 1.05
        assert f"in gradient {number}, more than" in case.check(results | {OURS: wrong})


def test_gradients_of_networks_agree_and_mistakes_are_seen():
    case = training.network_case("mobilenet_v1_train", "mobilenet_v1", 4, 64, 0.25, PLAIN)
    assert case.name == "mobilenet_v1_train"
    results = results_of(case)
    assert len(results[OURS]) == 1 + 3 * 27 + 2  # loss; weight, scale, bias; the last layer
    loss, *gradients = results[OURS]
    assert "in result 0" in case.check(results | {OURS: [loss * 1.01, *gradients]})
    gradients[1] = 1.3 * gradients[1]
    assert "in gradient 2, more than" in case.check(results | {OURS: [loss, *gradients]})


def test_dropout_is_off_in_training():
    pair = image_pairs.network("mobilenet_v2", 1, 32).train(True)
    (dropout,) = (module for module in pair.ours.modules() if isinstance(module, nn.Dropout))
    assert pair.ours.training
    assert pair.plain.training
    assert dropout.p == 0


# --- peers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_runtimes_agree_on_convolutions(shape):
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    case = image.convolution_case(shape, 2, frozenset({runtimes.COMPILE}))
    assert {runtimes.ONNXRUNTIME, runtimes.OPENVINO} < set(results_of(case))


@pytest.mark.slow
def test_exported_networks_have_their_norms_folded_in():
    onnx = pytest.importorskip("onnx")
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    pair = image_pairs.block(BLOCKS[1], 2).train(False)
    file = runtimes.onnx_file(pair.plain, pair.input.contiguous())
    kinds = {node.op_type for node in onnx.load_from_string(file).graph.node}
    assert kinds == {"Conv", "Clip", "Add"}
    results = results_of(image.block_case(BLOCKS[1], 2, frozenset({runtimes.COMPILE})))
    assert {runtimes.ONNXRUNTIME, runtimes.OPENVINO} < set(results)


@pytest.mark.rare
def test_compiled_peers_agree():
    if reason := runtimes.missing(inference=False, quick=False).get(runtimes.COMPILE):
        pytest.skip(reason)
    peers = PLAIN - {runtimes.COMPILE}
    for case in (image.block_case(BLOCKS[0], 2, peers), training.block_case(BLOCKS[0], 4, peers)):
        assert runtimes.COMPILE in results_of(case)


def test_who_is_missing_is_said(monkeypatch):
    assert runtimes.missing(inference=False, quick=True) == {
        "torch_compile": "compiling is not quick"
    }
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reasons = runtimes.missing(inference=True, quick=True)
    assert list(reasons) == ["torch_compile", "onnxruntime", "openvino"]
    assert reasons["openvino"] == (
        "onnx and onnxscript and openvino not installed; run: pip install 'pointwise[bench]'"
    )

    def fails(function):
        raise RuntimeError("no C++ compiler\nand many more lines")

    monkeypatch.setattr(torch, "compile", fails)
    runtimes._why_no_compiler.cache_clear()
    assert runtimes.missing(inference=False, quick=False) == {"torch_compile": "no C++ compiler"}
    runtimes._why_no_compiler.cache_clear()


# --- the choice of cases --------------------------------------------------------------------------


def names(found: list[Planned]) -> list[str]:
    return [plan.name for plan in found]


def toy(name: str, usual: bool = True) -> Planned:
    return Planned(name, lambda: pytest.fail("nothing is built before its turn"), usual)


def test_cases_are_chosen_by_name():
    cases = [toy("net_b1"), toy("net_b16", usual=False), toy("dw_b1"), toy("dw_b8", usual=False)]
    assert names(planned.chosen(cases, None)) == ["net_b1", "dw_b1"]
    assert names(planned.chosen(cases, "dw")) == ["dw_b1", "dw_b8"]
    assert names(planned.chosen(cases, "net_b1")) == ["net_b1"]  # a whole name is only itself
    assert names(planned.chosen(cases, "dw_b8, *_b1")) == ["net_b1", "dw_b1", "dw_b8"]
    assert names(planned.chosen(cases, "*")) == names(cases)
    with pytest.raises(ValueError, match="no case has 'pw' in its name; there are net_b1, net_b16"):
        planned.chosen(cases, "dw,pw")
    with pytest.raises(ValueError, match="--only ',' names no case"):
        planned.chosen(cases, ",")
    many = [toy(f"case_{number}") for number in range(100)]
    with pytest.raises(ValueError, match=r"there are case_0, case_8, .* and so on, 100 in all"):
        planned.chosen(many, "pw")


@pytest.mark.parametrize("plan", [image.plan, training.plan], ids=["image", "training"])
def test_names_of_cases_are_unique(plan):
    found = names(plan())
    assert len(set(found)) == len(found) > 300
    assert set(names(plan(quick=True))) - set(found)  # other shapes


def test_the_cases_of_the_issue_are_usual():
    assert {"mobilenet_v1_b1", "mobilenet_v1_b8"} < set(names(planned.chosen(image.plan(), None)))
    assert "mobilenet_v1_b32" in names(image.plan())
    assert "mobilenet_v1_train" in names(planned.chosen(training.plan(), None))
    everything = set(names(training.plan()))
    assert {"resnet50_train", "mobilenet_v2_b8_train", "dw3_s1_56x56x144_b32_train"} < everything


def test_clouds_and_machine_know_the_choice():
    assert names(planned.chosen(cloud.plan(cloud.QUICK), "conv_500,paper")) == [
        "paper_forward",
        "paper_backward",
        "conv_500",
    ]
    with pytest.raises(ValueError, match="machine has no cases to choose from, got --only conv"):
        machine.main(only="conv")


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.rare
@pytest.mark.parametrize("name", ["image", "training"])
def test_quick_runs(name, tmp_path, capsys):
    command = importlib.import_module("pointwise.cli.bench")
    path = tmp_path / "speed.json"
    command.bench(name, json=path, rounds=2, quick=True)
    out = capsys.readouterr().out
    assert "without torch_compile: compiling is not quick" in out
    assert max(map(len, out.splitlines())) <= 80
    found = json.loads(path.read_text())
    limits = ["cpu", "threads", "fma_gflops", "bandwidth_gbs", "caches"]
    assert list(found["machine"]) == limits
    who: dict[str, list[str]] = {}
    for row in found["rows"]:
        assert list(row) == ["case", "who", "median_ms", "min_ms", "p95_ms", "ratio",
                             "share_of_limit", "peak_mb", "busy"]  # fmt: skip
        assert 0 < row["min_ms"] <= row["median_ms"]
        assert row["share_of_limit"] > 0
        who.setdefault(row["case"], []).append(row["who"])
    everyone = [OURS, "torch_eager", "torch_channels_last"]
    if name == "image":
        missing = runtimes.missing(inference=True, quick=True)
        everyone += [peer for peer in ("onnxruntime", "openvino") if peer not in missing]
    for case, people in who.items():
        assert people == everyone + ["torch_mm"] * case.startswith("pw_")
    networks = {"image": {"mobilenet_v1_b1", "mobilenet_v1_b8"}, "training": {"mobilenet_v1_train"}}
    assert networks[name] < set(who)


def test_the_command_passes_the_choice_on():
    command = importlib.import_module("pointwise.cli.bench")
    with pytest.raises(ValueError, match="no case has 'dw5' in its name"):
        command.bench("image", quick=True, only="dw5")
