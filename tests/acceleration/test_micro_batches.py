"""The first layers of a batch, a few images at a time: where, how many, and with what results."""

from __future__ import annotations

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from random_networks import random_network, settle
from torch import Tensor, nn

from pointwise import accelerate
from pointwise.acceleration import micro_batches


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def network() -> nn.Module:
    """Large images first, small ones last."""
    torch.manual_seed(0)
    return settle(
        nn.Sequential(
            conv(3, 16), conv(16, 16, groups=16), conv(16, 32, 1), conv(32, 32, stride=2),
            nn.MaxPool2d(2), conv(32, 24, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(24, 5),
        )
    )  # fmt: skip


@pytest.fixture
def found(monkeypatch):
    """What ``find`` said, time after time."""
    said: list[micro_batches.Head | None] = []
    find = micro_batches.find

    def spy(*given):
        said.append(find(*given))
        return said[-1]

    monkeypatch.setattr(micro_batches, "find", spy)
    return said


def cache(monkeypatch, threads, kilobytes: int, team: int = 2) -> None:
    threads(team)
    monkeypatch.setattr(micro_batches, "_CACHE", kilobytes * 1024)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("images", [4, 7, 8])
def test_results_are_those_of_the_whole_batch(images, channels_last, monkeypatch, threads, found):
    cache(monkeypatch, threads, 64)
    net, x = network(), torch.rand(images, 3, 40, 36)
    faster = accelerate(net, x)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    assert found[-1] is not None
    for _ in range(2):  # the second time with other inputs at other addresses
        x = x + torch.rand_like(x)
        assert_as_eager(net, faster, x)


def test_how_many_at_a_time(monkeypatch, threads, found):
    """One image for each thread, if the batch can be divided so, or as many as fit."""

    def at_a_time(images: int) -> int | None:
        accelerate(network(), torch.rand(images, 3, 40, 36))
        return found[-1] and found[-1].images

    cache(monkeypatch, threads, 64)
    assert [at_a_time(images) for images in (1, 2, 7, 8, 12)] == [None, None, 1, 2, 2]
    cache(monkeypatch, threads, 64, team=3)
    assert [at_a_time(images) for images in (8, 12)] == [4, 3]
    cache(monkeypatch, threads, 4 * 40 * 36 * 32 * 4 // 2 // 1024)  # four of the largest result
    assert at_a_time(12) == 4


def test_it_ends_where_a_batch_fits(monkeypatch, threads, found):
    """The rest, whose weights are better read once, runs for all images in one launch."""
    cache(monkeypatch, threads, 64)
    net, x = network(), torch.rand(8, 3, 40, 36)
    plan = next(iter(accelerate(net, x)._plans.values()))
    assert found[-1].count == 4
    ran = [node.name for node in found[-1].nodes]
    assert "mean" not in ran
    assert "linear" not in ran
    cache(monkeypatch, threads, 1 << 20)
    whole = next(iter(accelerate(net, x)._plans.values()))
    assert found[-1] is None
    assert plan.bytes < whole.bytes / 2  # and less is kept between layers


class LaterAgain(nn.Module):
    """Reads its first result at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(3, 16), conv(16, 16), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.second(y)) + y


class Residuals(nn.Module):
    """Reads results again soon."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = conv(3, 16), conv(16, 16), conv(16, 8, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.inner(y) + y).flatten(1).cumsum(1)


class ReadsTheInput(nn.Module):
    """Reads the whole input behind the first layers, which ran on parts of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(3, 16), conv(16, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers(x)
        return y.roll(1, 0) + x, x.mean((1, 2, 3))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 16), conv(3, 16)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.one(x) + self.two(y)


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize(
    ("kind", "inputs", "in_turns"),
    [(LaterAgain, 1, True), (Residuals, 1, True), (ReadsTheInput, 1, True), (TwoInputs, 2, False)],
)
def test_what_is_read_again(kind, inputs, in_turns, way, monkeypatch, threads, found):
    cache(monkeypatch, threads, 16)
    torch.manual_seed(0)
    net = settle(kind())
    images = [torch.rand(6, 3, 24, 20) for _ in range(inputs)]
    assert_as_eager(net, way(net, *images), *images)
    assert (found[-1] is not None) == in_turns


def test_batches_are_not_mixed(monkeypatch, threads):
    """What is computed over a whole batch comes behind, or there are no turns."""
    cache(monkeypatch, threads, 16)

    class OverBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv(3, 16), conv(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            y = y - y.mean(0, keepdim=True)
            return self.two(y) + x.shape[0]

    torch.manual_seed(0)
    net, x = settle(OverBatch()), torch.rand(4, 3, 24, 24)
    faster = accelerate(net, x)
    for images in (4, 6):
        assert_as_eager(net, faster, torch.rand(images, 3, 24, 24))


def test_sizes_that_torch_compile_leaves_open(monkeypatch, threads, found):
    cache(monkeypatch, threads, 64)
    net = network()
    faster = compiled(net)
    for images in (8, 12, 10):
        assert_as_eager(net, faster, torch.rand(images, 3, 40, 36))
    assert [several.images for several in found] == [2, 2, 2]


@pytest.mark.parametrize(
    "seed",
    [*range(200, 206), *(pytest.param(n, marks=pytest.mark.slow) for n in range(206, 224))],
)
def test_random_networks(seed, monkeypatch, threads):
    cache(monkeypatch, threads, 1)
    model, x = random_network(seed)
    x = torch.cat((x, x.flip(0), x + 1))
    assert_as_eager(model, exported(model, x), x)
