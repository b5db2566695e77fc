"""The optimiser: what an update of a matrix is, and that all else is AdamW's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pointwise.networks import CellUNet
from pointwise.training.muon import MOMENTUM, RATE, Muon, matrices_of, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(6, 16), nn.ReLU(), nn.Conv1d(1, 1, 3), nn.Linear(14, 5), nn.Linear(5, 3)
    return nn.Sequential(*layers)


def batch(step: int) -> torch.Tensor:
    return torch.rand(4, 1, 6, generator=torch.Generator().manual_seed(step))


def after(
    steps: int, model: nn.Module, optimiser: torch.optim.Optimizer, begin: int = 0
) -> nn.Module:
    for step in range(begin, begin + steps):
        optimiser.zero_grad()
        model(batch(step)).square().sum().backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("shape", [(3, 3), (8, 30), (1, 5)])
def test_singular_values_come_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    found = torch.linalg.svdvals(orthogonal(x))
    assert ((found > 0.6) & (found < 1.3))[s > 0.01 * s.amax(1, keepdim=True)].all()
    # In the directions that x has, none turned and none mirrored.
    inner = u.mT @ orthogonal(x) @ v.mT
    assert torch.allclose(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=1e-9)
    assert (inner.diagonal(dim1=1, dim2=2) > 0).all()


def test_no_gradient_is_no_direction():
    assert not orthogonal(torch.zeros(1, 3, 4)).any()


def test_an_update_is_as_it_is_defined():
    """By singular values, with the momentum written out; matrices that lie and that stand."""
    model = network()
    before = [layer.weight.detach().clone() for layer in (model[0], model[3])]
    rate, decay, momenta = 0.01, 0.1, [torch.zeros_like(weight) for weight in before]
    optimiser = Muon(model.parameters(), matrices_of(model), lr=rate, weight_decay=decay)
    for step in range(3):
        after(1, model, optimiser)
        for i, layer in enumerate((model[0], model[3])):
            gradient = layer.weight.grad
            momenta[i] = MOMENTUM * momenta[i] + (1 - MOMENTUM) * gradient
            ahead = MOMENTUM * momenta[i] + (1 - MOMENTUM) * gradient
            change = layer.weight.detach() - (1 - RATE * rate * decay) * before[i]
            size = RATE * rate * max(1.0, len(gradient) / gradient.shape[1]) ** 0.5
            u, s, v = torch.linalg.svd(ahead, full_matrices=False)
            inner = (u.mT @ change @ v.mT) / -size
            large = s > 0.01 * s.max()
            assert ((inner.diagonal() > 0.6) & (inner.diagonal() < 1.3))[large].all(), step
            assert (inner - torch.diag(inner.diagonal())).abs().max() < 0.02
            before[i] = layer.weight.detach().clone()


def test_all_else_is_adamw():
    ours, theirs = network(), network()
    more = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.95)}
    after(4, ours, Muon(ours.parameters(), [], **more))
    after(4, theirs, torch.optim.AdamW(theirs.parameters(), **more))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_gradients_may_be_found_in_the_step():
    """As Lightning does; what is in the closure sees all parameters."""
    outside, inside = network(), network()
    after(1, outside, Muon(outside.parameters(), matrices_of(outside)))
    after(1, outside, Muon(outside.parameters(), matrices_of(outside)))
    for _ in range(2):
        optimiser = Muon(inside.parameters(), matrices_of(inside))

        def closure(optimiser=optimiser):
            optimiser.zero_grad()
            loss = inside(batch(0)).square().sum()
            loss.backward()
            return loss

        assert optimiser.step(closure) > 0
    for mine, other in zip(outside.parameters(), inside.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_what_are_matrices():
    model = network()
    assert [id(x) for x in matrices_of(model)] == [id(model[0].weight), id(model[3].weight)]
    model[0].weight.requires_grad_(False)
    assert [id(x) for x in matrices_of(model)] == [id(model[3].weight)]
    large = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 3), nn.Linear(3, 2))
    assert [id(x) for x in matrices_of(large)] == [id(large[1].weight)]
    unet = CellUNet(3, 5, 0.1)
    names = {id(x): name for name, x in unet.named_parameters()}
    found = [names[id(x)] for x in matrices_of(unet)]
    assert len(found) > 20
    assert not any("depthwise" in name or "head" in name for name in found)


def test_a_training_goes_on_where_it_was():
    whole, half = network(), network()
    after(5, whole, Muon(whole.parameters(), matrices_of(whole)))
    first = Muon(half.parameters(), matrices_of(half))
    after(2, half, first)
    state = copy.deepcopy(first.state_dict())
    second = Muon(half.parameters(), matrices_of(half))
    second.load_state_dict(state)
    after(3, half, second, begin=2)
    for mine, other in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_half_precision_is_computed_in_single():
    model = network().to(torch.bfloat16)
    optimiser = Muon(model.parameters(), matrices_of(model))
    model(torch.rand(4, 1, 6, dtype=torch.bfloat16)).sum().backward()
    optimiser.step()
    assert model[0].weight.dtype == torch.bfloat16
    assert model[0].weight.isfinite().all()
