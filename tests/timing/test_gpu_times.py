"""Times on GPUs: what is said where there is none, and what events around layers give."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pointwise.cli import app
from pointwise.costs.count import Count
from pointwise.costs.on_gpu import layer_times, limit_ms
from pointwise.timing import gpu

NOWHERE = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_devices_by_their_names(monkeypatch):
    with pytest.raises(ValueError, match=r"bench: --device is cpu, cuda or cuda:1, got 'gpu'"):
        gpu.chosen("bench", "gpu")
    with pytest.raises(ValueError, match=r"bench: --device is cpu, cuda or cuda:1, got 'meta'"):
        gpu.chosen("bench", "meta")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert gpu.chosen("bench", "cuda") == torch.device("cuda", 1)
    assert gpu.chosen("bench", "cuda:0") == torch.device("cuda", 0)
    assert current == [1, 0]
    with pytest.raises(ValueError, match=r"--device cuda:2, and there are 2, from cuda:0 on"):
        gpu.chosen("bench", "cuda:2")


@NOWHERE
@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "image", "--device", "cuda", "--quick"],
        ["bench", "training", "--device", "cuda"],
        ["bench", "accelerate", "--device", "cuda"],
        ["bench", "gpu_choice"],
        ["compare", "--device", "cuda"],
        ["profile", "mobilenet_v1", "--device", "cuda"],
    ],
    ids=" ".join,
)
def test_without_a_gpu_one_line_says_so(arguments):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ValueError)
    assert "finds no CUDA device here; leave --device out for the CPU" in str(result.exception)


def test_a_benchmark_of_the_cpu_alone_says_so():
    result = CliRunner().invoke(app, ["bench", "machine", "--device", "cuda"])
    assert "bench: machine runs on the CPU alone, got --device cuda" in str(result.exception)


def test_profile_on_a_gpu_takes_less():
    for options in (["--tree"], ["--threads", "1"], ["--html", "a.html"]):
        result = CliRunner().invoke(app, ["profile", "x", "--device", "cuda", *options])
        assert "--html, --tree and --threads are for the CPU" in str(result.exception)


class _Event:
    """As of CUDA, on a clock that goes on by one with every event."""

    clock = itertools.count()

    def record(self):
        self.at = next(self.clock)

    def elapsed_time(self, other):
        return float(other.at - self.at)


def test_events_stand_around_the_innermost_modules():
    twice = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 3), nn.Sequential(twice, nn.Linear(3, 3), twice))
    found = layer_times(network, lambda: network(torch.ones(1, 3)), 4, _Event, lambda: None)
    assert {path: times.milliseconds for path, times in found.items()} == {
        "0": (1.0,) * 4, "1.0": (2.0,) * 4, "1.1": (1.0,) * 4,
    }  # fmt: skip
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_a_limit_is_the_larger_of_two():
    count = Count(multiplications=500, additions=500, bytes_read=60, bytes_written=40)
    assert limit_ms(count, gflops=1.0, gbs=1.0) == 1000 / 1e6
    assert limit_ms(count, gflops=100.0, gbs=1.0) == 100 / 1e6
