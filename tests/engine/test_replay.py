"""Launches that are prepared once: the same bits for other tensors, or not prepared at all."""

from __future__ import annotations

import copy
import gc
import io
import re
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pointwise.cloud.point_cloud import PointCloud
from pointwise.engine import choose
from pointwise.engine.cpu import record, replay
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.replay import replayed
from pointwise.functional import (
    cell_conv,
    cell_depthwise_conv,
    conv2d,
    depthwise_conv2d,
    depthwise_separable_conv2d,
    pointwise_conv,
    pointwise_conv2d,
)
from pointwise.layers import Conv2d, ConvNormAct, DepthwiseSeparableConv2d
from pointwise.layers.conv_norm_act import in_sequence

ADD = Layout("AddNumbers", "*x *y *out *scratch count fails")


@kernel
def _add(arguments, program, thread):
    """out = x + y, by way of the scratch memory."""
    own = ADD(arguments)
    if own.fails != 0:
        raise ValueError("as it was told")
    x, y = array(own.x, own.count, np.float32), array(own.y, own.count, np.float32)
    scratch, out = (
        array(own.scratch, own.count, np.float32),
        array(own.out, own.count, np.float32),
    )
    for i in range(own.count):
        scratch[i] = x[i]
    for i in range(own.count):
        out[i] = scratch[i] + y[i]


def add(x, y, fails=0):
    out, scratch = torch.empty(len(x)), torch.empty(4 * len(x), dtype=torch.uint8)
    launch(_add, ADD(x=x, y=y, out=out, scratch=scratch, count=len(x), fails=fails), 1)
    return out


@pytest.fixture(autouse=True)
def _anew():
    replay.forget()


def counted(function):
    """A replayed function, and how often it ran itself."""
    runs = []

    def count(tensors, *others):
        runs.append(others)
        return function(tensors, *others)

    return replayed(count), runs


def some(*shape):
    return torch.rand(*shape)


# --- what is replayed -----------------------------------------------------------------------------


def test_from_the_third_call_on_nothing_is_prepared():
    function, runs = counted(lambda tensors: add(*tensors))
    for _ in range(5):
        x, y = some(9), some(9)
        assert torch.equal(function((x, y)), x + y)
    assert len(runs) == 2  # shapes that come once are not worth a recording
    x, y = some(10), some(10)
    assert torch.equal(function((x, y)), x + y)
    assert len(runs) == 3


def test_launches_follow_one_another_and_parts_of_memory_are_found():
    def twice(tensors, first):
        x, y = tensors
        once = add(x[first:], y[: len(y) - first])
        again = add(once, once)
        return again[1:], None, once[:2]

    function, runs = counted(twice)
    for _ in range(4):
        x, y = some(9), some(9)
        found, nothing, begin = function((x, y), 3)
        once = x[3:] + y[:6]
        assert nothing is None
        assert torch.equal(found, (once + once)[1:])
        assert torch.equal(begin, once[:2])
    assert len(runs) == 2


def test_results_of_one_memory_stay_parts_of_it():
    def halves(tensors):
        out = add(*tensors)
        return out[:3], out.view(3, 2).t()

    function, _ = counted(halves)
    for _ in range(4):
        x, y = some(6), some(6)
        first, turned = function((x, y))
        assert torch.equal(first, (x + y)[:3])
        assert torch.equal(turned, (x + y).view(3, 2).t())
        assert turned.stride() == (1, 2)
        assert first.data_ptr() == turned.data_ptr()


def test_what_is_replayed_is_part_of_another():
    inner, inner_runs = counted(lambda tensors: add(*tensors))

    def twice(tensors):
        x, y = tensors
        return inner((inner((x, y)), y))

    outer, outer_runs = counted(twice)
    for _ in range(3):
        x, y = some(9), some(9)
        assert torch.equal(inner((x, y)), x + y)
    for _ in range(4):
        x, y = some(9), some(9)
        assert torch.equal(outer((x, y)), x + y + y)
    assert len(outer_runs) == 2
    assert len(inner_runs) == 2 + 2  # and for the recording of the outer one


def test_what_no_step_needs_at_the_same_time_shares_its_memory():
    @replayed
    def sums(tensors, count):
        total, x = tensors
        for _ in range(count):
            total = add(total, x)
        return total

    rooms = []
    for count in (3, 9):
        for _ in range(4):
            total, x = some(30), some(30)
            expected = total
            for _ in range(count):
                expected = expected + x
            assert torch.equal(sums((total, x), count), expected)
        known = next(each.cell_contents for each in sums.__closure__ if
                     isinstance(each.cell_contents, dict))  # fmt: skip
        rooms.append(known[(replay.threads(), *[(x.shape, x.stride(), x.dtype)] * 2, count)]._room)
    assert rooms[0] == rooms[1]


def test_tensors_lie_apart_while_both_are_needed():
    sizes, uses = {1: 128, 2: 64, 3: 64, 4: 256}, {1: (0, 1), 2: (1, 2), 3: (2, 3), 4: (3, 3)}
    offsets, room = replay._together(sizes, uses)
    for one in sizes:
        for other in range(one + 1, 5):
            first, last = max(uses[one][0], uses[other][0]), min(uses[one][1], uses[other][1])
            if first <= last:
                begins = sorted([(offsets[one], sizes[one]), (offsets[other], sizes[other])])
                assert sum(begins[0]) <= begins[1][0]
    assert room == 320


def test_a_constant_is_kept():
    def shifted(tensors):
        (x,) = tensors
        one = np.ones(len(x), dtype=np.float32)
        one.setflags(write=False)
        return add(x, one)

    function, runs = counted(shifted)
    for _ in range(4):
        x = some(7)
        assert torch.equal(function((x,)), x + 1)
        gc.collect()
    assert len(runs) == 2


def test_what_a_kernel_raises_is_raised_in_every_call():
    function, _ = counted(lambda tensors: add(*tensors))
    fails, _ = counted(lambda tensors: add(*tensors, fails=1))
    x, y = some(5), some(5)
    for _ in range(4):
        with pytest.raises(ValueError, match="kernel _add: as it was told"):
            fails((x, y))
        assert torch.equal(function((x, y)), x + y)


# --- what is not ----------------------------------------------------------------------------------


def never_replayed(function, *shapes):
    """Whether a function runs itself in every call, with the right result."""
    called, runs = counted(function)
    for number in range(1, 5):
        tensors = tuple(some(*shape) for shape in shapes)
        found, expected = called(tensors), function(tensors)
        assert torch.equal(found, expected)
        assert len(runs) == number


def test_pytorch_computing_on_the_way_is_noticed():
    never_replayed(lambda tensors: add(tensors[0] * 2, tensors[1]), (8,), (8,))
    never_replayed(lambda tensors: add(tensors[0].flip(0), tensors[1]), (8,), (8,))
    never_replayed(lambda tensors: add(*tensors).mul_(2), (8,), (8,))
    never_replayed(lambda tensors: add(tensors[0], torch.ones(8)), (8,))
    never_replayed(lambda tensors: add(tensors[0][:, 0].contiguous(), tensors[1]), (8, 2), (8,))


def test_a_number_that_is_read_is_noticed():
    def scaled(tensors):
        x, y = tensors
        return add(x, y) if float(y[0]) < 2 else y

    never_replayed(scaled, (8,), (8,))


def test_memory_of_others_is_noticed():
    kept = some(8)
    never_replayed(lambda tensors: add(tensors[0], kept), (8,))
    never_replayed(lambda tensors: add(tensors[0], kept.numpy()), (8,))  # which others may write


def test_what_is_given_is_not_returned_by_a_replay():
    def also(tensors):
        add(*tensors)
        return tensors[0]

    never_replayed(also, (8,), (8,))


def test_tensors_that_share_memory_are_told_apart():
    function, runs = counted(lambda tensors: add(*tensors))
    whole = some(12)
    for _ in range(3):  # which of them an address is of, nobody could tell
        assert torch.equal(function((whole[:8], whole[4:])), whole[:8] + whole[4:])
        assert torch.equal(function((whole[:8], whole[:8])), whole[:8] + whole[:8])
    assert len(runs) == 6
    for _ in range(3):  # side by side they are two
        x = some(16)
        assert torch.equal(function((x[:8], x[8:])), x[:8] + x[8:])
    assert len(runs) == 7
    assert torch.equal(function((whole[:8], whole[4:])), whole[:8] + whole[4:])
    assert len(runs) == 7  # once it is recorded, addresses do not matter


def test_a_failure_is_not_recorded():
    fail = [True]

    def sometimes(tensors):
        if fail[0]:
            raise RuntimeError("not now")
        return add(*tensors)

    function, runs = counted(sometimes)
    x, y = some(5), some(5)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="not now"):
            function((x, y))
    assert record.current() is None
    fail[0] = False
    for _ in range(3):
        assert torch.equal(function((x, y)), x + y)
    assert len(runs) == 4


def test_only_so_many_kinds_are_remembered(monkeypatch):
    monkeypatch.setattr(replay, "_MOST", 3)
    function, runs = counted(lambda tensors: add(*tensors))
    for size in (3, 4, 5, 6, 7, 3):
        x, y = some(size), some(size)
        assert torch.equal(function((x, y)), x + y)
    assert len(runs) == 6
    assert max(map(len, replay._all)) <= 3


def test_differences_of_addresses_stand_in_no_table():
    """Nothing would notice them: so whoever makes tables does not look at addresses."""
    folder = Path(replay.__file__).parent
    files = [*folder.glob("loops/*.py"), *folder.glob("gathers/*.py"), folder / "moments.py",
             folder / "mix.py", folder / "pack.py", folder / "partial_sums.py"]  # fmt: skip
    assert len(files) > 30
    looking = [file.name for file in files if re.search(r"data_ptr|\.ctypes", file.read_text())]
    assert looking == []


# --- convolutions ---------------------------------------------------------------------------------


def plainly(monkeypatch, run):
    """What a run gives where nothing is replayed."""
    with monkeypatch.context() as patched:
        patched.setattr(record, "are_apart", lambda given: False)
        replay.forget()
        return run()


KINDS = {
    "3×3": ((2, 6, 9, 8), (10, 6, 3, 3), {"padding": 1}),
    "1×1": ((2, 6, 5, 8), (10, 6, 1, 1), {"activation": "relu6"}),
    "strided": ((1, 6, 9, 8), (10, 6, 3, 3), {"stride": 2, "padding": "same"}),
    "dilated": ((1, 6, 9, 8), (10, 6, 3, 3), {"dilation": 2, "activation": "silu"}),
    "grouped": ((2, 8, 9, 8), (8, 2, 3, 3), {"groups": 4, "padding": 1}),
    "wide groups": ((2, 80, 5, 6), (80, 40, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 7, 9, 8), (7, 1, 3, 3), {"groups": 7, "padding": 1, "activation": "relu"}),
    "depthwise strided": ((1, 7, 9, 8), (7, 1, 5, 5), {"groups": 7, "padding": 2, "stride": 2}),
    "multiplied": ((1, 4, 9, 8), (8, 1, 3, 3), {"groups": 4, "padding": 1}),
    "large": ((1, 24, 110, 112), (25, 24, 1, 1), {"activation": "relu"}),
    "large depthwise": ((1, 24, 110, 112), (24, 1, 3, 3), {"groups": 24, "padding": 1}),
    "one pixel": ((3, 5, 1, 1), (6, 5, 1, 1), {}),
    "one channel": ((3, 1, 4, 5), (6, 1, 3, 3), {}),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_convolutions_keep_their_bits(name, dtype, bias, monkeypatch):
    size, weight_size, options = KINDS[name]

    def calls():
        generator = torch.Generator().manual_seed(0)
        found = []
        for _ in range(4):
            x, weight, row = (
                torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()
                for shape in (size, weight_size, weight_size[:1])
            )
            given = (x, weight, row) if bias else (x, weight)
            out = conv2d(*given, **options)
            residual = torch.randn(*out.shape, generator=generator, dtype=dtype)
            found += [out, *torch.autograd.grad(out, given, residual)]
            with torch.no_grad():
                found += [conv2d(*given, **options), conv2d(*given, **options, residual=residual)]
        return found

    for one, other in zip(calls(), plainly(monkeypatch, calls), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [30, 206])  # small, and in memory that is used again
def test_training_keeps_its_bits(size, monkeypatch):
    def steps():
        torch.manual_seed(0)
        parts = nn.ModuleList([
            ConvNormAct(3, 16, 3, stride=2, activation="relu6"),
            DepthwiseSeparableConv2d(16, 24, norm=nn.BatchNorm2d, activation="relu"),
            DepthwiseSeparableConv2d(24, 33, stride=2, norm=nn.BatchNorm2d, activation="silu"),
            ConvNormAct(33, 33, 3, groups=3),
        ])  # fmt: skip
        found = []
        for _ in range(4):
            x = some(2, 3, size, size).requires_grad_()
            parts.zero_grad()
            out = in_sequence(x, parts)
            out.square().sum().backward()
            found += [out, x.grad, *(each.grad for each in parts.parameters())]
            found += [each.clone() for each in parts.buffers()]
            with torch.no_grad():
                for parameter in parts.parameters():
                    parameter -= 1e-3 * parameter.grad
        return found

    for one, other in zip(steps(), plainly(monkeypatch, steps), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_convolutions_of_clouds_keep_their_bits(reduction, monkeypatch):
    torch.manual_seed(0)
    cloud, queries = PointCloud(some(70, 3)), PointCloud(some(40, 3))
    tables = [cloud.neighborhood(0.2), cloud.neighborhood(0.3, 3, 1, queries)]

    def calls():
        torch.manual_seed(1)
        found = []
        for _ in range(4):
            x, bias = some(70, 9).requires_grad_(), some(17).requires_grad_()
            weight, square = some(17, 9, 3, 3, 3).requires_grad_(), some(17, 9).requires_grad_()
            for table in tables:
                out = cell_conv(x, table, weight, bias, reduction=reduction)
                slopes = torch.autograd.grad(out.square().sum(), (x, weight, bias))
                found += [out, *slopes]
            out = pointwise_conv(x, square, bias)
            found += [out, *torch.autograd.grad(out.square().sum(), (x, square, bias))]
        return found

    for one, other in zip(calls(), plainly(monkeypatch, calls), strict=True):
        assert torch.equal(one, other)


def test_halves_that_run_one_by_one(monkeypatch):
    """Joined they would read too large a weight; each half was replayed by itself before."""
    monkeypatch.setattr(choose, "fused", lambda *chain: 1)
    torch.manual_seed(0)
    own, square = some(6, 1, 3, 3), some(5, 6)
    for _ in range(4):
        x = some(2, 6, 7, 7)
        middle = depthwise_conv2d(x, own, padding=1)
        expected = pointwise_conv2d(middle, square)
        found = depthwise_separable_conv2d(x, own, square, padding=1)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["dense", "channels_last", "turned", "a part", "backwards"])
def test_images_and_weights_of_any_strides(kind, monkeypatch):
    def laid(x):
        if kind == "channels_last":
            return x.contiguous(memory_format=torch.channels_last)
        if kind == "turned":
            return x.transpose(2, 3).contiguous().transpose(2, 3)
        if kind == "a part":
            return torch.cat([x, x], 1)[:, : x.shape[1]]
        return x.flip(1).contiguous().flip(1) if kind == "backwards" else x

    def calls():
        torch.manual_seed(0)
        found = []
        for _ in range(4):
            x, weight, own = laid(some(2, 6, 5, 5)), laid(some(4, 6, 3, 3)), laid(some(6, 1, 3, 3))
            found += [conv2d(x, weight, padding=1), depthwise_conv2d(x, own, padding=1)]
            found += [pointwise_conv2d(x, weight[:, :, 1, 1])]
        return found

    for one, other in zip(calls(), plainly(monkeypatch, calls), strict=True):
        assert torch.equal(one, other)


def test_every_write_to_a_weight_is_followed():
    x, weight = some(1, 8, 5, 5), some(8, 8, 3, 3)
    layer = Conv2d(8, 8, 3, bias=False)
    for _ in range(3):
        conv2d(x, weight)
    for write in (
        lambda w: w.mul_(2),
        lambda w: w.data.mul_(2),
        lambda w: w.data[3, 2, 1].add_(1),
        lambda w: w.data.view(-1)[77].add_(1),  # a single number, which no sample need hold
        lambda w: w.numpy().fill(0.5),
    ):
        write(weight)
        expected = nn.functional.conv2d(x, weight)
        torch.testing.assert_close(conv2d(x, weight), expected)
        layer.weight.data = weight.clone()
        torch.testing.assert_close(layer(x), expected)  # with gradients
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected)


def test_the_number_of_threads_may_change(threads):
    x, weight = some(2, 16, 20, 20), some(16, 16, 3, 3)
    expected = []
    for count in (1, 2, 3, 1, 3, 2):
        threads(count)
        expected += [conv2d(x, weight) for _ in range(3)]
    assert all(torch.equal(each, expected[0]) for each in expected)


@pytest.mark.parametrize("team", [1, 2])
def test_several_python_threads_call_one_layer(team, threads):
    threads(team)
    torch.manual_seed(0)
    layer = Conv2d(8, 12, 3, padding=1)
    jobs = [some(2, 8, 10, 11) for _ in range(6)]

    def work(x):
        layer_of = layer(x)
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x)
        with torch.no_grad():
            return layer_of.detach(), slope, layer(x), conv2d(x, layer.weight, layer.bias)

    expected = [work(x) for x in jobs]
    replay.forget()
    found: list = [None] * len(jobs)

    def run(number):
        torch.set_num_threads(team)
        found[number] = [work(jobs[number]) for _ in range(20)]

    together = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    for wanted, several in zip(expected, found, strict=True):
        assert several is not None
        for each in several:
            assert all(torch.equal(a, b) for a, b in zip(wanted, each, strict=True))


KEPT = """
import gc
from weakref import ref
import torch
from pointwise.functional import conv2d

weight = torch.rand(11, 7, 3, 5)
for _ in range(3):
    conv2d(torch.rand(1, 7, 13, 17), weight)
x = torch.rand(1, 7, 13, 17)
out = conv2d(x, weight)
gone = ref(x), ref(out), ref(weight)
del x, out, weight
gc.collect()
assert [each() for each in gone] == [None] * 3
held = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
assert not any(tuple(each.shape) in {(1, 7, 13, 17), (11, 7, 3, 5)} for each in held)
"""


def test_nothing_that_was_given_or_made_is_kept():
    """In a process of its own, where no other test holds anything."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profiled", [False, True], ids=["", "profiled"])
def test_results_may_be_written_to(profiled):
    """As by ``relu_`` behind a convolution, while gradients are wanted; under a profiler, calls go
    by PyTorch's dispatcher."""
    cloud = PointCloud(torch.rand(50, 3))
    near = cloud.neighborhood(0.3)
    image, rows = some(1, 4, 8, 8).requires_grad_(), some(50, 4).requires_grad_()
    for make in (
        lambda: conv2d(image, some(5, 4, 3, 3)),
        lambda: cell_conv(rows, near, some(6, 4, 3, 3, 3)),
        lambda: cell_depthwise_conv(rows, near, some(4, 1, 3, 3, 3)),
        lambda: pointwise_conv(rows, some(7, 4)),
        lambda: pointwise_conv(some(5000, 128), some(256, 128).requires_grad_()),  # rows apart
    ):
        with torch.profiler.profile() if profiled else nullcontext():
            for _ in range(3):
                make().mul_(2).sum().backward()


def test_a_layer_that_ran_is_copied_and_pickled():
    layer, x = Conv2d(4, 6, 3), some(1, 4, 8, 8)
    for _ in range(3):
        expected = layer(x)
    twin = copy.deepcopy(layer)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with torch.no_grad():
        layer.weight.zero_()
    for other in (twin, loaded):
        assert torch.equal(other(x), expected)
    assert torch.equal(layer(x), conv2d(x, layer.weight, layer.bias))


def test_inference_tensors_and_others_take_turns():
    x, weight = some(1, 4, 8, 8), some(5, 4, 3, 3)
    expected = conv2d(x, weight)
    for _ in range(3):
        with torch.inference_mode():
            found = conv2d(x, weight)
            inner = conv2d(x.clone(), weight.clone())
        assert found.is_inference()
        assert torch.equal(found, expected)
        assert torch.equal(inner, expected)
        outer = conv2d(x, weight)
        assert not outer.is_inference()
        assert torch.equal(outer, expected)


@pytest.mark.slow
def test_compiled_functions_call_the_same():
    x, weight = some(1, 4, 8, 8), some(5, 4, 3, 3).requires_grad_()

    def step(x, weight):
        return conv2d(x, weight, padding=1, activation="relu").sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for _ in range(4):
        x = x + 1
        expected, found = step(x, weight), compiled(x, weight)
        torch.testing.assert_close(found, expected)
        slopes = [torch.autograd.grad(each, weight)[0] for each in (found, expected)]
        torch.testing.assert_close(*slopes)


def test_gradients_of_gradients_go_the_same_way():
    x = some(1, 3, 6, 6).double().requires_grad_()
    weight = some(2, 3, 3, 3).double().requires_grad_()
    for _ in range(3):
        ours, theirs = conv2d(x, weight).square().sum(), nn.functional.conv2d(x, weight).square()
        found = []
        for out in (ours, theirs.sum()):
            slopes = torch.autograd.grad(out, (x, weight), create_graph=True)
            whole = sum(slope.square().sum() for slope in slopes)
            found.append(torch.autograd.grad(whole, (x, weight)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)
