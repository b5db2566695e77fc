"""A ``ConvNormAct`` computes from what it is at the moment: changed, copied, moved, shared."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_modules import CLOSE, EACH_KIND, KINDS, PLAIN, compare, copied, pair, picture
from torch import nn

from pointwise.layers import ConvNormAct


def changes():
    """Every way to change what an evaluated layer computes."""

    def optimiser(layer):
        steps = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        steps.step()

    def loaded(layer):
        state = {k: v + 1 if v.is_floating_point() else v for k, v in layer.state_dict().items()}
        layer.load_state_dict(state)

    def trained(layer):
        layer.train()
        layer(picture(4, 6, 7, 8, seed=9) * 5 + 2)
        layer.eval()

    def assigned(layer):
        state = {k: v + 1 if v.is_floating_point() else v for k, v in layer.state_dict().items()}
        layer.load_state_dict(state, assign=True)

    def element(layer):
        with torch.no_grad():
            layer.conv.weight[0, 0] += 1

    def data(layer):
        layer.conv.weight.data = layer.conv.weight.data + 1

    def in_data(layer):
        layer.conv.weight.data.add_(1)  # past autograd: no version is counted

    def new_parameter(layer):
        layer.conv.weight = nn.Parameter(layer.conv.weight.detach() + 1)

    def new_norm(layer):
        layer.norm = nn.BatchNorm2d(layer.conv.out_channels).eval()

    def norm_buffer(layer):
        layer.norm.running_var.mul_(3)

    def norm_mean(layer):
        layer.norm.running_mean = layer.norm.running_mean + 1

    def norm_scale(layer):
        with torch.no_grad():
            layer.norm.weight.add_(1)

    def norm_shift(layer):
        with torch.no_grad():
            layer.norm.bias.sub_(1)

    def eps(layer):
        layer.norm.eps = 0.7

    def reset(layer):
        layer.norm.reset_running_stats()

    def activation(layer):
        layer.activation = "sigmoid"

    def no_norm(layer):
        layer.norm = None

    def stride(layer):
        layer.conv.stride = (3, 3)

    def numpy(layer):
        layer.conv.weight.detach().numpy()[...] += 1  # no version is counted either

    def inference(layer):
        with torch.inference_mode():
            layer.conv.weight.add_(1)

    return [f for f in locals().values() if callable(f)]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "grad"])
def test_a_changed_layer_computes_from_what_it_is_now(mode, change):
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode,
               "grad": torch.enable_grad}[mode]  # fmt: skip
    for kind in ("pointwise", "depthwise", "standard"):
        ours, _ = pair(kind, "BatchNorm2d", "relu")
        ours.eval()
        x = picture(2, 6, 7, 8)
        with context():
            before = [ours(x) for _ in range(2)][-1]
        change(ours)
        with context():
            after = ours(x)
            conv = ours.conv
            padding = tuple(conv.padding)
            expected = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, 1, conv.groups)
            expected = expected if ours.norm is None else ours.norm(expected)
            expected = PLAIN[ours.activation](expected)
        torch.testing.assert_close(after, expected, **CLOSE[torch.float32])
        assert after.shape != before.shape or not torch.allclose(after, before)


def test_a_part_of_data_changed():
    # As pruning does it: weight.data[...] = 0. No version is counted, and the beginning stays.
    for kind in ("pointwise", "depthwise", "standard"):
        ours, theirs = (module.eval() for module in pair(kind, "BatchNorm2d", None))
        x = picture(2, 6, 7, 8)
        with torch.no_grad():
            ours(x)
            for module in (ours, theirs):
                module.conv.weight.data[-1] = 0
            torch.testing.assert_close(ours(x), theirs(x), **CLOSE[torch.float32])


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "state_dict"])
@EACH_KIND
def test_copies_of_the_whole_are_their_own(kind, way):
    ours, _ = pair(kind, "BatchNorm2d", "relu")
    ours.eval()
    x = picture(2, 6, 7, 8)
    with torch.no_grad():
        before = ours(x)
        other: Any = copied(ours, way, lambda: ConvNormAct(**KINDS[kind], activation="relu").eval())
        assert torch.equal(other(x), before)
        ours.conv.weight.mul_(-1)
        ours.norm.running_mean.add_(1)
        assert torch.equal(other(x), before)
        other.conv.weight.mul_(2)
        assert not torch.equal(other(x), before)
    assert ours.state_dict().keys() == other.state_dict().keys()
    assert {key.split(".")[0] for key in ours.state_dict()} == {"conv", "norm"}


def test_moved_to_float64_and_back():
    ours, theirs = pair("standard", "BatchNorm2d", "relu")
    ours.eval()
    theirs.eval()
    x = picture(2, 6, 7, 8)
    with torch.no_grad():
        single = ours(x)
        double = ours.double()(x.double())
        assert double.dtype == torch.float64
        torch.testing.assert_close(double, theirs.double()(x.double()), **CLOSE[torch.float64])
        assert torch.equal(ours.float()(x), single)


def test_shared_by_threads():
    # A layer that several threads evaluate, while its first call is still being prepared.
    ours, theirs = pair("standard", "BatchNorm2d", "hardswish")
    ours.eval()
    theirs.eval()
    pictures = [picture(2, 6, 7 + i, 8, seed=i) for i in range(6)]
    found: list = [None] * 6
    start = threading.Barrier(6)

    def work(i):
        start.wait()
        with torch.no_grad():
            found[i] = [ours(pictures[i]) for _ in range(20)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with torch.no_grad():
        for x, outs in zip(pictures, found, strict=True):
            for out in outs:
                torch.testing.assert_close(out, theirs(x), **CLOSE[torch.float32])


@EACH_KIND
def test_inference_mode_and_gradients_after_it(kind):
    ours, theirs = pair(kind, "BatchNorm2d", "relu")
    ours.eval()
    theirs.eval()
    x = picture(2, 6, 7, 8)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), **CLOSE[torch.float32])
    # Nothing that was made there may be part of a graph now.
    compare(ours, theirs, torch.float32, residual=True)
    ours.train()
    theirs.train()
    compare(ours, theirs, torch.float32, residual=False)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@EACH_KIND
def test_half_precision(kind, half):
    ours, theirs = pair(kind, "BatchNorm2d", "relu")
    x = picture(2, 6, 7, 8)
    ours.eval()
    theirs.eval()
    bound = 20 * torch.finfo(half).eps
    with torch.no_grad():
        exact = theirs(x)
        out = copy.deepcopy(ours).to(half)(x.to(half))
        assert out.dtype == half
        torch.testing.assert_close(out.float(), exact, rtol=bound, atol=bound)
        with torch.autocast("cpu", dtype=half):
            out, expected = ours(x), theirs(x)
        assert out.dtype == expected.dtype
        torch.testing.assert_close(out.float(), exact, rtol=bound, atol=bound)
    for module in (ours, theirs):
        module.train()
        with torch.autocast("cpu", dtype=half):
            out = module(x)
        out.float().square().sum().backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert a.grad.dtype == b.grad.dtype, name
        scale = 1 + float(b.grad.abs().max())
        torch.testing.assert_close(a.grad / scale, b.grad / scale, rtol=0, atol=4 * bound)


@EACH_KIND
def test_made_in_inference_mode(kind):
    # Such parameters count no versions, and asking for one raises.
    with torch.inference_mode():
        ours, theirs = pair(kind, "BatchNorm2d", "relu")
        ours.eval()
        theirs.eval()
        x = picture(2, 6, 7, 8)
        for _ in range(2):
            torch.testing.assert_close(ours(x), theirs(x), **CLOSE[torch.float32])
