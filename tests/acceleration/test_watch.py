"""Where a plan's time goes is seen in its first runs, and said."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import pointwise
from pointwise.acceleration import watch
from pointwise.acceleration.watch import KERNELS, Step, Watch


@pytest.fixture
def clock(monkeypatch):
    """Work that takes so many milliseconds, by a clock of its own."""
    now = [0.0]
    monkeypatch.setattr(watch, "perf_counter", lambda: now[0])

    def step(what: str, *milliseconds: float) -> Step:
        left = list(milliseconds)

        def work(_: list) -> None:
            now[0] += left.pop(0) / 1e3

        return Step(what, work)

    return step


def test_most_of_the_time_in_pytorch_is_said_once(clock):
    steps = [clock(KERNELS, 900, 2, 9, 2), clock("softmax", 1, 3, 3, 8), clock("roll", 1, 1, 1, 1)]
    found = Watch([*steps, clock("softmax", 1, 2, 2, 2)])
    assert [found.run([]) for _ in range(3)] == ["", "", ""]
    assert found.run([]) == (
        "75 % of this model's time is spent in PyTorch's own calls, not in kernels: softmax 62 %, "
        "roll 12 %; reports() says why"
    )
    assert found.ended
    assert found.times() == pytest.approx({"softmax": 5e-3, KERNELS: 2e-3, "roll": 1e-3})
    assert list(found.times()) == ["softmax", KERNELS, "roll"]


def test_less_than_half_is_not_said(clock):
    found = Watch([clock(KERNELS, 1, 3, 3, 3), clock("softmax", 50, 2, 2, 2)])
    assert not any(found.run([]) for _ in range(4))


def test_nor_what_takes_no_time(clock):
    found = Watch([clock(KERNELS, 1, 0.1, 0.1, 0.1), clock("softmax", 1, 0.8, 0.8, 0.8)])
    assert not any(found.run([]) for _ in range(4))


def test_the_first_run_alone_tells_nothing(clock):
    found = Watch([clock(KERNELS, 1, 2), clock("softmax", 50, 1)])
    assert found.times() == {}
    found.run([])
    assert found.times() == {}
    found.run([])
    assert found.times() == pytest.approx({KERNELS: 2e-3, "softmax": 1e-3})


@torch.no_grad()
def test_a_model_of_pytorch_s_own_calls_says_so():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.lstm = nn.LSTM(64, 256, batch_first=True)

        def forward(self, x):
            return self.lstm(self.conv(x).flatten(1, 2))[0]

    model, x = Recurrent().eval(), torch.rand(4, 3, 64, 64)
    faster = pointwise.accelerate(model, x)
    with pytest.warns(UserWarning, match=r"of this model's time is spent in PyTorch's own .*lstm"):
        results = [faster(x) for _ in range(4)]
    torch.testing.assert_close(results[-1], model(x), rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faster(x)
    (report,) = faster.reports()
    assert next(iter(report.times)) == "aten.lstm.input"
    assert " time " in str(report)
