"""Times beside counts: nothing is lost, nothing is counted twice, fused runs stay fused."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pointwise import ChannelAttention, ConvNormAct, cost, costs
from pointwise.costs import clock, measure
from pointwise.costs.alike import Far, alike, far, together
from pointwise.costs.machine import Machine
from pointwise.costs.profiled import profile
from pointwise.costs.timed_counts import BETWEEN
from pointwise.layers import Bottleneck, DepthwiseSeparableConv2d, inference
from pointwise.networks import CellPyramid, MobileNetV1, MobileNetV3, ResNet50
from pointwise.timing import Times, Watch

TOY = Machine("a toy", 2, 100.0, 10.0, caches=((2**17, 50.0), (2**20, 40.0)))
IMAGE = (1, 3, 64, 64)


@pytest.fixture
def quick(monkeypatch):
    """Without the hundreds of empty calls."""
    monkeypatch.setattr(measure, "_call_ms", lambda: 0.002)
    monkeypatch.setattr(measure, "_launch_ms", lambda: 0.005)
    monkeypatch.setattr(measure, "_contradiction", lambda *given: "")  # by other tests' load


def run(model, *inputs, rounds=2, **options):
    return profile(model, *inputs, rounds=rounds, machine=TOY, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MobileNetV1(classes=10, width=0.25),
        lambda: MobileNetV3(classes=10, width=0.35, size="small"),
        lambda: ResNet50(classes=10),
    ],
)
def test_rows_have_every_parameter_and_multiply_add_once(make, quick):
    network = make()
    counted = cost(network, IMAGE).totals
    found = run(network, IMAGE)
    assert found.count.parameters == counted.parameters
    assert found.count.multiply_adds == counted.multiply_adds
    assert found.count.bytes < counted.bytes  # what ran as one stays in cache
    assert sum(row.milliseconds for row in found.rows) == pytest.approx(found.sum_ms)
    assert found.milliseconds > 0
    paths = [path for row in found.rows for path in row.paths]
    assert len(paths) == len(set(paths))
    root = found.tree()[0]
    assert root.milliseconds == pytest.approx(found.sum_ms)
    assert root.count == found.count


def test_fused_runs_are_one_row_and_stay_fused(quick):
    network = MobileNetV1(classes=10).eval()
    rows = {row.name: row for row in run(network, (1, 3, 224, 224)).rows}
    both = rows["blocks.3"]
    assert both.fused
    assert both.kind == "separable"
    assert both.paths == ("blocks.3.depthwise.conv", "blocks.3.pointwise.conv")
    expected = costs.depthwise_separable(56, 128, 256, stride=2, padding=1, joined=True)
    assert both.count.multiply_adds == expected.multiply_adds
    assert both.count.bytes == expected.bytes
    norms = 2 * (128 + 256)
    assert both.count.parameters == expected.parameters + norms
    assert both.count.others == 28 * 28 * (128 + 256)  # activations
    three = rows["stem+blocks.0"]
    assert three.fused
    assert three.kind == "inverted"
    assert len(three.paths) == 3
    assert three.count.bytes_written == 4 * 112 * 112 * 64  # and nothing between
    assert not rows["classifier"].fused
    assert "stem.norm" not in rows
    assert rows[BETWEEN].share is None


def test_a_bottleneck_s_residual_is_in_its_last_launch(quick):
    network = nn.Sequential(Bottleneck(16, 4)).eval()
    found = {row.name: row for row in run(network, (1, 16, 8, 8)).rows}
    last = found["0.conv3"].count
    numbers = 16 * 64
    assert last.additions == costs.pointwise(8, 4, 16).additions + numbers
    assert last.bytes_read == costs.pointwise(8, 4, 16).bytes_read + 4 * numbers
    assert last.others == numbers
    assert "0" not in found  # nothing is left for the block itself
    assert found["0.conv2"].count.others == 4 * 64


def test_a_layer_that_runs_in_several_ways_is_counted_once(quick):
    """``restore`` of channel attention runs twice, the second time with a sum and a sigmoid."""
    network = ChannelAttention(16)
    found = run(network, (2, 16, 8, 8))
    counted = cost(network, (2, 16, 8, 8)).totals
    assert found.count.multiply_adds == counted.multiply_adds
    assert found.count.parameters == counted.parameters
    assert all(row.count.outputs >= 0 and row.count.bytes >= 0 for row in found.rows)


def test_the_times_are_where_they_are_spent(quick):
    class Sleeps(nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            time.sleep(self.seconds)
            return torch.relu(self.inner(x))

    network = nn.Sequential(Sleeps(0.02), Sleeps(0.0))
    found = run(network, (3, 4), rounds=15)
    rows = {row.name: row for row in found.rows}
    assert rows["0"].milliseconds >= 20
    assert rows["0.inner"].milliseconds < rows["0"].milliseconds
    assert rows["1"].milliseconds < rows["0"].milliseconds
    assert found.milliseconds >= 20
    assert found.sorted_rows("time")[0].name == "0"
    assert [row.name for row in found.sorted_rows("order")] == [row.name for row in found.rows]
    assert rows["0"].bound == "call"
    assert re.search(r"twice the batch takes [01]\.\d+ .*times as long", rows["0"].reason)


def test_a_clock_gives_everyone_his_own_time(monkeypatch):
    now = iter(range(100))
    ticks = SimpleNamespace(perf_counter=lambda: float(next(now)))
    monkeypatch.setattr(clock, "time", ticks)
    watch = clock.Stopwatch()
    watch.enter(("a",))
    watch.enter(("b",))
    watch.enter(("c",))
    watch.leave()
    watch.leave()
    watch.leave()
    # A tick before each look at the clock: what the looks themselves take belongs to nobody.
    assert watch.own == {("a",): 2.0, ("b",): 2.0, ("c",): 1.0}


def test_the_model_is_left_as_it_was(quick):
    network = ConvNormAct(3, 8).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    run(network, (2, 3, 8, 8))
    assert network.training
    assert network.norm.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert inference._observer is None
    threads = torch.get_num_threads()

    class Fails(nn.Module):
        def forward(self, x):
            if torch.get_num_threads() == 1:
                raise RuntimeError("on one thread")
            return x + 1

    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="on one thread"):
            run(nn.Sequential(Fails()), (2, 3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert inference._observer is None


def test_a_layer_alone_can_be_the_network(quick):
    for layer in (ConvNormAct(3, 8), DepthwiseSeparableConv2d(3, 8, norm=nn.BatchNorm2d)):
        found = run(layer, (1, 3, 16, 16))
        counted = cost(layer, (1, 3, 16, 16)).totals
        assert found.count.multiply_adds == counted.multiply_adds
        assert found.count.parameters == counted.parameters


def test_clouds_find_their_neighbours_first(quick):
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(400, 3, generator=generator)
    network = CellPyramid(3, 5, 0.2, width=8, depths=(1, 1))
    found = run(network, points, torch.rand(400, 3), torch.tensor([0, 400]))
    rows = {row.name: row for row in found.rows}
    assert found.count.multiply_adds == found.cost.totals.multiply_adds
    assert all(row.seen.double is None for row in found.rows)  # a cloud has no batch to double
    assert rows["encoder.stem"].bound == "search"
    assert "finds neighbours or voxels" in rows["encoder.stem"].reason


def test_batches_are_doubled_where_there_are_some():
    x, y = torch.rand(2, 3), torch.rand(2, 4)
    assert [t.shape[0] for t in measure.doubled((x, y))] == [4, 4]
    assert measure.doubled((x, torch.rand(3, 4))) is None
    assert measure.doubled((x, "words")) is None
    assert measure.doubled((torch.rand(3),)) is None
    assert measure.doubled(()) is None


def test_a_network_for_one_size_only_is_measured_without_doubling(quick):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, 6) * 2

    found = run(Fixed(), (2, 2, 3))
    assert all(row.seen.double is None for row in found.rows)


def test_progress_is_told_after_every_run(quick, threads):
    threads(2)
    told = []
    run(nn.Linear(3, 4), (2, 3), progress=lambda: told.append(1))
    assert len(told) == measure.runs(2)


def test_the_json_has_totals_and_layers(quick):
    found = run(MobileNetV1(classes=10, width=0.25), IMAGE)
    read = json.loads(json.dumps(found.as_dict()))
    assert {"parameters", "multiply_adds", "bytes", "milliseconds"} <= set(read["totals"])
    for name in ("parameters", "multiply_adds", "bytes", "outputs"):
        assert read["totals"][name] == sum(layer[name] for layer in read["layers"])
    assert read["totals"]["milliseconds_of_layers"] == pytest.approx(
        sum(layer["milliseconds"] for layer in read["layers"]), rel=1e-4
    )
    assert read["machine"]["fma_gflops"] == 100.0
    assert read["machine"]["caches"][0] == {"bytes": 2**17, "gbs": 50.0}
    assert {layer["bound_by"] for layer in read["layers"]} <= {
        "arithmetic", "cache", "memory", "cold", "threads", "call", "search", "kernel",
        "unclear"
    }  # fmt: skip
    assert read["input"] == "1x3x64x64"


def test_an_empty_call_is_measured():
    assert 0 < measure._call_ms(20) < 10
    assert 0 < measure._launch_ms(20) < 10


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: run(torch.relu, (2, 3)), TypeError, "profile: model must be a module, got"),
        (lambda: profile(nn.ReLU(), (2, 3), rounds=0), ValueError, "rounds must be 1 or more"),
        (lambda: run(nn.Linear(3, 4, device="meta"), (2, 3)), ValueError, "weight is on meta; mov"),
        (lambda: run(nn.Linear(3, 4), (2, 5)), ValueError, r"Linear does not run on \(2, 5\)"),
    ],
)
def test_what_cannot_be_profiled_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


# --- a busy machine -------------------------------------------------------------------------------


def test_on_a_busy_machine_there_are_no_reasons(quick, monkeypatch):
    monkeypatch.setattr(Watch, "busy", lambda self, *times: "somebody computes")
    found = run(nn.Linear(3, 4), (2, 3), rounds=6)
    assert found.busy == "somebody computes"
    assert {(row.bound, row.reason) for row in found.rows} == {("", "")}
    record = found.as_dict()
    assert record["busy"] == "somebody computes"
    assert {layer["bound_by"] for layer in record["layers"]} == {None}


def test_a_part_that_takes_longer_than_the_whole_is_no_finding():
    whole = Times((1.0, 1.1, 1.2, 0.9))
    fine = {("a",): Times((0.9, 1.3, 0.9, 0.9)), ("b",): Times((0.1,) * 4)}
    assert measure._too_slow(whole, fine, 0.01) == ""
    odd = {("a",): Times((1.3, 1.4, 1.3, 9.0))}
    assert "a alone took longer (1.3 ms) than all" in measure._too_slow(whole, odd, 0.01)


def test_two_threads_that_do_not_help_are_no_finding(threads):
    threads(2)
    one, slow = {("a",): Times((5.0,) * 6)}, {("a",): Times((50.0,) * 6)}
    assert measure._no_help(slow, one) == "one thread took 5 ms, and 2 took 50 ms"
    assert measure._no_help({("a",): Times((4.9,) * 6)}, one) == ""  # they need not help
    few = {("a",): Times((0.05,) * 6)}
    assert (
        measure._no_help({("a",): Times((0.09,) * 6)}, few) == ""
    )  # microseconds cannot be shared
    assert measure._no_help(slow, {}) == ""


# --- layers that are alike ------------------------------------------------------------------------


def test_layers_that_are_alike_are_one_group(quick):
    found = run(ResNet50(classes=10), IMAGE)
    groups = alike(found.rows)
    assert len(groups) < 0.7 * len(found.rows)
    assert sorted(row.name for group in groups for row in group.rows) == sorted(
        row.name for row in found.rows
    )
    for group in groups:
        assert len({row.count for row in group.rows}) == 1
        assert group.milliseconds == pytest.approx(sum(row.milliseconds for row in group.rows))
    assert "layer3.1-5.conv2 ×5" in {group.name for group in groups}


def test_names_of_groups():
    assert together(["stem"]) == "stem"
    assert together(["layer3.1.conv2", "layer3.2.conv2"]) == "layer3.1-2.conv2"
    assert together(["a.0.conv1", "b.1.conv1"]) == "*.0-1.conv1"
    assert together(["stem", "head.conv"]) == "stem … head.conv"


def test_layers_that_lose_for_one_reason_are_one_sentence(quick):
    found = run(ResNet50(classes=10), IMAGE, rounds=6)
    groups = far(found)
    assert len({(group.bound, group.rows[0].kind) for group in groups}) == len(groups)
    assert [group.lost_ms for group in groups] == sorted((g.lost_ms for g in groups), reverse=True)
    many = Far(tuple(replace(row, reason="why") for row in found.rows[:5]))
    names = [row.name for row in found.rows[:5]]
    assert many.names == f"{names[0]}, {names[1]}, {names[2]} and 2 more"
    assert many.reason == f"{names[0]}: why"
    assert Far(many.rows[:1]).reason == "why"
