"""Weights that change after a model was compiled, and sizes that change from call to call."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from random_networks import settle
from torch import nn

from pointwise.acceleration import dynamo, reports


def network() -> nn.Sequential:
    return settle(nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ))  # fmt: skip


def _scale(model):
    with torch.no_grad():
        model[0].weight.mul_(1.5)


def _data(model):
    model[4].weight.data.mul_(1.5)


def _statistics(model):
    model[1].running_var.data.add_(1)


def _replace(model):
    model[8].bias = nn.Parameter(torch.randn(5))


def _other_data(model):
    model[3].bias.data = torch.randn(8)


def _load(model):
    model.load_state_dict(network().state_dict())


def _numpy(model):
    model[8].weight.detach().numpy()[:] += 1


def _optimise(model):
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    with torch.enable_grad():
        model(torch.rand(2, 3, 16, 16)).sum().backward()
    optimiser.step()


@pytest.mark.parametrize(
    "change",
    [_scale, _data, _statistics, _replace, _other_data, _load, _numpy, _optimise],
    ids=lambda change: change.__name__,
)
def test_changed_weights_are_noticed(change):
    torch.manual_seed(0)
    model = network()
    faster = compiled(model)
    x = torch.rand(2, 3, 16, 16)
    assert_as_eager(model, faster, x)
    for _ in range(2):
        change(model)
        assert_as_eager(model, faster, x)


def test_the_accelerated_module_does_not_change_with_the_model():
    model = network()
    x = torch.rand(2, 3, 16, 16)
    faster = exported(model, x)
    before = faster(x)
    for part in model.parameters():
        part.data.zero_()
    assert torch.equal(faster(x), before)
    # Also for a shape that was not planned yet.
    assert torch.isfinite(faster(torch.rand(1, 3, 20, 12))).all()
    assert faster(torch.rand(1, 3, 20, 12)).abs().max() > 0


def test_sizes_change_without_compiling_again():
    model = network()
    faster = compiled(model)
    sizes = [
        (2, 16, 16),
        (3, 16, 16),
        (4, 20, 16),
        (5, 20, 24),
        (1, 30, 30),
        (2, 9, 31),
        (6, 40, 8),
    ]
    for batch, height, width in sizes:
        assert_as_eager(model, faster, torch.rand(batch, 3, height, width))
    # One for the first size, and a few as Dynamo learns which of them are open.
    before = len(dynamo._compiled)
    assert before < len(sizes)
    for batch, height, width in ((7, 18, 16), (2, 40, 41), (3, 11, 12), (9, 8, 8)):
        assert_as_eager(model, faster, torch.rand(batch, 3, height, width))
    assert len(dynamo._compiled) == before
    assert not any(report.why for report in reports())


def test_only_so_many_plans_are_kept():
    model = network()
    faster = exported(model, torch.rand(2, 3, 16, 16))
    for width in range(8, 30):
        assert_as_eager(model, faster, torch.rand(1, 3, 16, width))
    assert len(faster.reports()) == 8


def test_number_of_threads_may_change(threads):
    model = network()
    x = torch.rand(2, 3, 16, 16)
    faster = exported(model, x)
    found = []
    for count in (1, 3, 2):
        threads(count)
        found.append(faster(x))
    assert all(torch.equal(found[0], other) for other in found)


def test_models_are_not_kept_alive():
    model = network()
    faster = compiled(model)
    with torch.no_grad():
        faster(torch.rand(2, 3, 16, 16))
    weight = weakref.ref(model[0].weight)
    del model, faster
    torch._dynamo.reset()
    gc.collect()
    assert weight() is None
