"""Models whose parameters are inference tensors, which count no versions: planned, and watched."""

from __future__ import annotations

import copy

import pytest
import torch
from both_ways import assert_same, compiled
from random_networks import settle
from torch import nn

import pointwise
from pointwise.acceleration import reports
from pointwise.acceleration.module import Accelerated


def network() -> nn.Module:
    return settle(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 40, 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 300),
        )
    )  # fmt: skip


def made() -> nn.Module:
    with torch.inference_mode():
        return network()


def loaded() -> nn.Module:
    model, state = network(), network().state_dict()
    with torch.inference_mode():
        model.load_state_dict({name: x.clone() for name, x in state.items()}, assign=True)
    return model


def copied() -> nn.Module:
    model = network()
    with torch.inference_mode():
        return copy.deepcopy(model)


def half_of_it() -> nn.Module:
    model = network()
    with torch.inference_mode():
        model[6] = copy.deepcopy(model[6])
    return model


EACH = pytest.mark.parametrize("make", [made, loaded, copied, half_of_it])


@EACH
def test_planned_in_and_outside_of_inference_mode(make):
    model, x = make(), torch.rand(2, 3, 12, 12)
    assert any(part.is_inference() for part in model.parameters())
    faster = compiled(model)
    for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
        with mode():
            assert_same(faster(x), model(x))
    assert all(report.fused and not report.plain and not report.why for report in reports())


@EACH
def test_writes_are_seen(make):
    model, x = make(), torch.rand(2, 3, 12, 12)
    faster = compiled(model)
    other = network().state_dict()

    def one_number():
        model[0].weight[3, 1, 2, 2] = 5  # of a small tensor, each is watched

    writes = [
        lambda: model[0].weight.mul_(2),
        lambda: model[6].weight.copy_(torch.rand(300, 40)),
        lambda: model[6].weight.data.add_(1),
        lambda: model[1].running_mean.add_(1),
        lambda: model.load_state_dict(other),
        one_number,
    ]
    with torch.inference_mode():
        for write in writes:
            before = faster(x)
            write()
            assert_same(faster(x), model(x))
            assert not torch.allclose(faster(x), before)
    with torch.no_grad():
        assert_same(faster(x), model(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@EACH
def test_accelerated(make, mode):
    model, x = make(), torch.rand(2, 3, 12, 12)
    with mode():
        faster = pointwise.accelerate(model, x)
    assert isinstance(faster, Accelerated)
    with torch.no_grad():
        wanted = model(x)
        assert_same(faster(x), wanted)
        assert_same(copy.deepcopy(faster)(x), wanted)
    with torch.inference_mode():
        assert_same(faster(x), wanted)
