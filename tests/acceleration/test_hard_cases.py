"""Models with parts that no kernel knows run all the same, and give what eager PyTorch gives."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, assert_same, compiled, exported
from random_networks import settle
from torch import Tensor, nn

from pointwise.acceleration import accelerate, plans


def stem(channels: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels),
                         nn.ReLU())  # fmt: skip


class WithStem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()


class Attention(WithStem):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        y = self.stem(x).flatten(2).transpose(1, 2)
        return self.norm(y + self.attention(y, y, y, need_weights=False)[0])


class Recurrent(WithStem):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 5, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.lstm(self.stem(x).mean(3).transpose(1, 2))


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class OwnFunction(WithStem):
    def forward(self, x):
        return Twice.apply(self.stem(x)) + 1


class DecidesByValues(WithStem):
    def forward(self, x):
        y = self.stem(x)
        return y * 2 if y.mean() > 0.1 else y - 1


class DecidesBySize(WithStem):
    def forward(self, x):
        y = self.stem(x)
        return F.max_pool2d(y, 2) if y.shape[-1] > 6 else y


class Shared(WithStem):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        y = self.block(self.stem(x))
        return self.block(self.block(y) + y)


class WritesInside(WithStem):
    def forward(self, x):
        y = self.stem(x)
        y.mul_(2).add_(1)
        y[:, 1:3] = 0.5
        y[:, :2] += self.stem(x)[:, :2]
        return F.relu_(y - 1)


class WritesToInput(WithStem):
    def forward(self, x):
        x.mul_(2)
        return self.stem(x)


class WritesToBuffer(WithStem):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.stem(x) * self.calls


class Named(NamedTuple):
    features: Tensor
    more: dict


class ManyResults(WithStem):
    def forward(self, x):
        y = self.stem(x)
        z = y.mean((2, 3))
        return Named(y, {"z": z, "pair": (z, [y[:, :1], None, 3]), "input": x, "view": y.view(-1)})


class Detection(WithStem):
    """As many results as there are large values."""

    def forward(self, x):
        y = self.stem(x)
        return y[y > 0.7], torch.nonzero(y.amax(1) > 0.9)


class MakesItsWeights(WithStem):
    """A convolution whose weight depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(8, 8 * 8)

    def forward(self, x):
        y = self.stem(x)
        weight = self.make(y.mean((0, 2, 3))).view(8, 8, 1, 1)
        return F.relu(F.conv2d(y, weight))


class OtherDimensions(nn.Module):
    """Lines, volumes, transposed convolutions, tables of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.ReLU())
        self.volume = nn.Conv3d(3, 2, 2)
        self.up = nn.ConvTranspose2d(3, 4, 2, 2)
        self.table = nn.Embedding(11, 5)

    def forward(self, x):
        words = self.table((x[:, 0, 0] * 10).long().clamp(0, 10))
        return self.line(x.flatten(2)), self.volume(torch.stack((x, x, x), 2)), self.up(x), words


class Half(WithStem):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1).bfloat16()

    def forward(self, x):
        return self.inner(self.stem(x).bfloat16()).relu()


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = stem(), stem()

    def forward(self, x, y):
        return self.one(x) + self.two(y), y


MODELS = [
    Attention, Recurrent, OwnFunction, DecidesByValues, DecidesBySize, Shared, WritesInside,
    WritesToInput, WritesToBuffer, ManyResults, Detection, MakesItsWeights, OtherDimensions, Half,
]  # fmt: skip


@pytest.mark.parametrize("way", [compiled, exported])
@pytest.mark.parametrize("kind", MODELS)
def test_hard_models_give_what_eager_gives(kind, way):
    torch.manual_seed(1)
    model = settle(kind())
    x = torch.rand(2, 3, 12, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faster = way(model, x)
        if kind is WritesToBuffer:
            model.calls.zero_()
        for _ in range(2):
            before = {name: part.clone() for name, part in model.named_buffers()}
            with torch.no_grad():
                wanted = model(x.clone())
            after = {name: part.clone() for name, part in model.named_buffers()}
            model.load_state_dict({**model.state_dict(), **before})
            given_x = x.clone()
            with torch.no_grad():
                given = faster(given_x)
            assert_same(given, wanted)
            assert_same(dict(model.named_buffers()), after)


@pytest.mark.parametrize("way", [compiled, exported])
def test_inputs_that_are_written_to_show_it(way):
    model = settle(WritesToInput())
    assert_as_eager(model, way(model, torch.rand(2, 3, 8, 8)), torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("way", [compiled, exported])
def test_several_inputs_some_returned_some_the_same(way):
    model = settle(TwoInputs())
    x = torch.rand(2, 3, 8, 8)
    faster = way(model, x, x.clone())
    assert_as_eager(model, faster, x, torch.rand(2, 3, 8, 8))
    with torch.no_grad():
        sum_, same = faster(x, x)
        assert same is x
        assert_same(sum_, model(x, x)[0])


@pytest.mark.parametrize("way", [compiled, exported])
def test_results_are_never_written_to_again(way):
    model = settle(stem())
    x, other = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    faster = way(model, x)
    with torch.no_grad():
        first = faster(x)
        kept = first.clone()
        faster(other)
        assert torch.equal(first, kept)
        first.fill_(7)  # and nothing of ours is written to through them
        assert torch.equal(faster(x), kept)


@pytest.mark.parametrize("way", [compiled, exported])
def test_strides_are_those_of_eager(way):
    model = settle(nn.Sequential(stem(), nn.Conv2d(8, 6, 3)))
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(2, 3, 16, 20).contiguous(memory_format=layout)
        with torch.no_grad():
            assert way(model, x)(x).stride() == model(x).stride()


@pytest.mark.parametrize("way", [compiled, exported])
def test_inputs_of_any_strides(way):
    model = settle(stem())
    wide = torch.rand(2, 16, 20, 6)
    x = wide.permute(0, 3, 1, 2)[:, ::2, 1:, ::3]
    assert_as_eager(model, way(model, torch.rand(2, 3, 15, 7)), x)
    expanded = torch.rand(1, 3, 15, 7).expand(2, -1, -1, -1)
    assert_as_eager(model, way(model, torch.rand(2, 3, 15, 7)), expanded)


def test_float64_and_nothing_at_all():
    model = settle(nn.Sequential(stem(), nn.Conv2d(8, 6, 3))).double()
    x = torch.rand(2, 3, 16, 20, dtype=torch.float64)
    assert_as_eager(model, exported(model, x), x)
    assert_as_eager(model, compiled(model, x), x)
    model.float()
    assert_as_eager(model, compiled(model), torch.rand(0, 3, 16, 20))


def test_values_that_are_no_numbers_stay_so():
    model = settle(nn.Sequential(stem(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1), nn.ReLU6()))
    x = torch.rand(1, 3, 16, 16)
    x[0, 1, 3, 4], x[0, 0, 9, 9] = float("nan"), float("inf")
    assert_as_eager(model, exported(model, x), x)


def test_gradients_are_intact_and_one_warning_is_given():
    model = settle(nn.Sequential(stem(), nn.Conv2d(8, 6, 3)))
    x = torch.rand(2, 3, 16, 16)
    faster = compiled(model)
    plans._warned.clear()
    with pytest.warns(UserWarning, match="plain PyTorch: gradients are wanted"):
        faster(x).square().sum().backward()
    given = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    for a, p in zip(given, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faster(torch.rand(3, 3, 20, 16)).sum().backward()  # no second one


def test_training_mode_is_left_to_pytorch():
    model = nn.Sequential(stem(), nn.Dropout(0.5))
    x = torch.rand(4, 3, 8, 8)
    faster = compiled(model)
    plans._warned.clear()
    before = model[0][1].running_mean.clone()
    with torch.no_grad(), pytest.warns(UserWarning, match="in training mode"):
        given = faster(x)
    assert not torch.equal(model[0][1].running_mean, before)
    assert 0.2 < (given == 0).float().mean() < 0.9
    model.eval()
    assert_as_eager(model, faster, x)


def test_autocast_and_inference_mode():
    model = settle(nn.Sequential(stem(), nn.Conv2d(8, 6, 1), nn.ReLU()))
    x = torch.rand(2, 3, 16, 16)
    faster = compiled(model)
    with torch.inference_mode():
        assert_same(faster(x), model(x))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        given, wanted = faster(x), model(x)
    assert given.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(given, wanted, rtol=0.05, atol=0.05)
    assert_as_eager(model, faster, x)


class WritesAndShuffles(nn.Module):
    """Views of what has been copied, once by ``contiguous`` and once by a write."""

    def forward(self, x):
        x = torch.relu(x)
        y = x.clone()
        y[:, :1].copy_(x[:, 1:2])
        y += 1
        shuffled = x.unflatten(1, (2, -1)).transpose(1, 2).contiguous().view(x.shape)
        return torch.cat([y.flatten(1), y[:, :1].flatten(1), shuffled.flatten(1)], 1)


def test_views_whose_copies_are_gone_run_as_pytorch():
    model, x = WritesAndShuffles().eval(), torch.randn(2, 4, 5, 6)
    faster = accelerate(model, x)
    assert_same(faster(x), model(x))
    with torch.no_grad(), torch.autocast("cpu", torch.float16):  # of which there are no kernels
        assert_same(faster(x), model(x))
    given, wanted = (
        torch.func.grad(lambda x, f=f: f(x).square().sum())(x) for f in (faster, model)
    )
    assert_same(given, wanted)


def test_models_made_under_inference_mode_run():
    with torch.inference_mode():
        model = settle(stem())
    faster = compiled(model)
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert_same(faster(x), model(x))
        model[0].weight.mul_(2)
        assert_same(faster(x), model(x))
