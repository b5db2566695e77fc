"""Runs of several links: what does not fit is refused before a kernel sees it, and results follow
from what the modules are at the moment."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest
import torch
from image_modules import CLOSE, copied, picture
from image_runs import F32, F64, MODES, compare, made, one_by_one
from torch import nn

from pointwise.layers import ConvNormAct, conv_norm_act, in_sequence, inference
from pointwise.layers.conv_norm_act import run
from pointwise.layers.unit import Unit

# --- what does not fit ----------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("shape", [(3, 17, 8, 8), (3, 16, 8, 7), (2, 17, 8, 7), (3, 17, 7, 8)])
def test_a_residual_of_another_shape_is_refused(shape, training):
    module = made("separable", training=training)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(RuntimeError, match=r"The size of tensor a .* must match"):
            module(picture(3, 9, 8, 7), picture(*shape))


@MODES
def test_a_residual_that_spreads_is_added_as_pytorch_adds(training):
    ours = made("separable", training=training)
    theirs = one_by_one(ours)
    for shape in ((3, 17, 1, 1), (1, 17, 8, 7), (17, 1, 1)):
        for context in (torch.enable_grad, torch.no_grad):
            with context():
                given = (picture(3, 9, 8, 7), picture(*shape, seed=2))
                torch.testing.assert_close(ours(*given), theirs(*given), **CLOSE[F32])


@MODES
def test_a_wrong_number_of_channels_is_refused(training):
    module = made("separable", training=training)
    with pytest.raises((ValueError, RuntimeError), match=r"channels|C_in"):
        module(picture(3, 8, 8, 7))
    first, second = ConvNormAct(9, 5, 1).train(training), ConvNormAct(6, 7, 1).train(training)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises((ValueError, RuntimeError), match=r"channels|C_in"):
            in_sequence(picture(3, 9, 8, 7), (first, second))


@MODES
def test_other_types_are_refused_as_by_pytorch(training):
    module = made("separable", training=training)
    with pytest.raises((TypeError, ValueError, RuntimeError), match=r"dtype|type|float"):
        module(picture(3, 9, 8, 7, dtype=F64))


@pytest.mark.parametrize("wrong", ["one channel", "float64"])
def test_norms_that_do_not_fit_do_not_reach_a_kernel(wrong):
    x = picture(2, 6, 5, 4)
    for groups in (1, 6):
        conv = nn.Conv2d(6, 6, 1, groups=groups, bias=False)
        norm = nn.BatchNorm2d(1 if wrong == "one channel" else 6, track_running_stats=False)
        norm = norm.double() if wrong == "float64" else norm
        for links in ([Unit(conv, norm)], [Unit(conv, norm, "relu"), Unit(conv, norm)]):
            with pytest.raises((RuntimeError, ValueError, TypeError)):
                run(x, links)


def test_fixed_norms_that_do_not_fit_do_not_reach_a_kernel():
    conv = nn.Conv2d(6, 6, 1, groups=6, bias=False)
    with torch.no_grad(), pytest.raises((RuntimeError, ValueError)):
        conv_norm_act(picture(2, 6, 5, 4), conv, nn.BatchNorm2d(1).eval())


@MODES
def test_modules_with_a_forward_of_their_own(training):
    class Doubled(ConvNormAct):
        def forward(self, input, residual=None):
            return 2 * super().forward(input, residual)

    modules = nn.ModuleList([Doubled(9, 5, 1), Doubled(5, 7, 1)]).train(training)
    x = picture(3, 9, 8, 7)
    expected = copy.deepcopy(modules[1])(copy.deepcopy(modules[0])(x))
    torch.testing.assert_close(in_sequence(x, modules), expected, **CLOSE[F32])


# --- changed, copied, moved -----------------------------------------------------------------------


def changes():
    """Ways to change what an evaluated block computes."""

    def in_place(block):
        with torch.no_grad():
            block.pointwise.conv.weight.mul_(-1)

    def depthwise_in_place(block):
        with torch.no_grad():
            block.depthwise.conv.weight[1] += 1

    def data(block):
        block.depthwise.conv.weight.data.add_(1)

    def data_of_a_norm(block):
        block.depthwise.norm.bias.data.sub_(1)

    def assigned_data(block):
        block.pointwise.conv.weight.data = block.pointwise.conv.weight.data * 2

    def loaded(block):
        block.load_state_dict(made("separable", training=False).double().float().state_dict())
        state = {k: v * 2 if v.is_floating_point() else v for k, v in block.state_dict().items()}
        block.load_state_dict(state)

    def optimiser(block):
        steps = torch.optim.AdamW(block.parameters(), lr=0.5)
        for parameter in block.parameters():
            parameter.grad = torch.ones_like(parameter)
        steps.step()

    def replaced(block):
        block.depthwise.conv.weight = nn.Parameter(block.depthwise.conv.weight.detach() + 1)

    def trained(block):
        block.train()
        block(picture(3, 9, 8, 7, seed=8) * 4 + 1)
        block.eval()

    def another_norm(block):
        block.depthwise.norm = nn.BatchNorm2d(9).eval()

    def mean(block):
        block.depthwise.norm.running_mean = block.depthwise.norm.running_mean + 1

    def data_of_a_variance(block):
        block.pointwise.norm.running_var.data.mul_(5)

    def eps(block):
        block.pointwise.norm.eps = 0.8

    def padding_and_dilation(block):
        block.depthwise.conv.padding, block.depthwise.conv.dilation = (2, 2), (2, 2)

    def stride(block):
        block.depthwise.conv.stride = (2, 1)

    def no_norm(block):
        block.depthwise.norm = None

    def other_activation(block):
        block.depthwise.activation = "silu"

    found = [f for f in locals().values() if callable(f)]
    return [pytest.param(f, id=f.__name__) for f in found]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", changes())
def test_a_changed_block_computes_from_what_it_is_now(change, mode):
    block, x = made("separable", training=False), picture(3, 9, 8, 7)
    with mode():
        before = [block(x) for _ in range(2)][-1]
    change(block)
    expected = one_by_one(block)(x)
    with mode():
        after = block(x)
    torch.testing.assert_close(after, expected, **CLOSE[F32])
    assert after.shape != before.shape or not torch.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("part", ["depthwise", "pointwise"])
def test_a_parametrized_weight_is_made_anew(part):
    block, x = made("separable", training=False), picture(3, 9, 8, 7)
    conv = getattr(block, part).conv
    torch.nn.utils.parametrizations.weight_norm(conv)
    with torch.no_grad():
        block(x)
        conv.parametrizations.weight.original0.mul_(2)
        torch.testing.assert_close(block(x), one_by_one(block)(x), **CLOSE[F32])


@MODES
def test_moved_to_float64_and_back(training):
    block = made("inverted, excite", training=training)
    compare(block, one_by_one(block), F32)
    compare(block, one_by_one(block), F32, gradients=False)
    block.to(F64)
    compare(block, one_by_one(block), F64)
    compare(block, one_by_one(block), F64, gradients=False)
    block.to(F32)
    compare(block, one_by_one(block), F32, gradients=False)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "state_dict"])
def test_copies_after_a_run_are_their_own(way):
    for training in (True, False):
        block, x = made("inverted", training=training), picture(3, 9, 8, 7)
        with torch.set_grad_enabled(training):
            block(x)
        other = copied(block, way, lambda: made("inverted", training=training))  # noqa: B023
        block.eval()
        other.eval()
        with torch.no_grad():
            before = block(x)
            assert torch.equal(other(x), before)
            block.expand.conv.weight.mul_(-1)
            block.depthwise.norm.running_mean.add_(1)
            assert torch.equal(other(x), before)
            assert not torch.equal(block(x), before)


@MODES
def test_inputs_are_left_alone(training):
    block, x = made("three with a residual", training=training), picture(3, 9, 8, 7)
    before = x.clone()
    with torch.set_grad_enabled(training):
        block(x)
    assert torch.equal(x, before)


def test_two_runs_before_either_goes_back():
    # As when a network is shared by two inputs: each keeps what it needs for its gradients.
    found = []
    block = made("inverted, excite", F64)
    for module in (block, one_by_one(block)):
        one, other = (picture(2, 9, 6, 5, dtype=F64, seed=s).requires_grad_() for s in (1, 2))
        out, again = module(one), module(other)
        again.square().sum().backward()
        out.square().sum().backward()
        found.append([one.grad, other.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max() + 1))


# --- what is kept between calls -------------------------------------------------------------------


def test_sizes_and_threads_may_take_turns(threads):
    block = made("inverted", training=False)
    theirs, expected = one_by_one(block), {}
    sizes = [(1, 9, 5, 5), (2, 9, 8, 7), (1, 9, 9, 4), (3, 9, 3, 3), (2, 9, 4, 4), (1, 9, 1, 1)]
    with torch.no_grad():
        for number, size in enumerate([*sizes, *reversed(sizes), *sizes[::2]]):
            threads(1 + number % 3)
            x = picture(*size, seed=number)
            expected[number] = (block(x), theirs(x))
    for out, wanted in expected.values():  # none was written to by a later call
        torch.testing.assert_close(out, wanted, **CLOSE[F32])


def test_shared_by_threads():
    block = made("inverted", training=False)
    theirs, start, found = one_by_one(block), threading.Barrier(5), [None] * 5

    def work(i):
        start.wait()
        with torch.no_grad():
            found[i] = [block(picture(2, 9, 8 - i % 2, 7, seed=i)) for _ in range(20)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with torch.no_grad():
        for i, outs in enumerate(found):
            expected = theirs(picture(2, 9, 8 - i % 2, 7, seed=i))
            for out in outs:
                torch.testing.assert_close(out, expected, **CLOSE[F32])


@pytest.mark.parametrize(
    "name", ["separable", "inverted", "inverted, excite", "bottleneck, stride 2"]
)
def test_what_is_kept_goes_with_the_modules(name):
    block = made(name)
    block(picture(2, 9, 8, 7)).sum().backward()
    block.eval()
    with torch.no_grad():
        block(picture(2, 9, 8, 7))
    gone = [weakref.ref(part) for part in block.modules()]
    gone += [weakref.ref(parameter) for parameter in block.parameters()]
    del block
    gc.collect()
    assert [left() for left in gone if left() is not None] == []


def test_blocks_of_inference_tensors_are_planned_and_every_write_is_seen():
    with torch.inference_mode():
        block = copy.deepcopy(made("separable", training=False))
    x, runs = picture(3, 9, 8, 7), []

    def seen(plan, with_residual):
        runs.append(plan)
        plan._program.run()

    with inference.observed(seen):
        for mode in (torch.inference_mode, torch.no_grad):
            with mode():
                torch.testing.assert_close(block(x), one_by_one(block)(x), **CLOSE[F32])
        with torch.inference_mode():
            before = block(x)
            block.pointwise.conv.weight[16, 3] += 9
            torch.testing.assert_close(block(x), one_by_one(block)(x), **CLOSE[F32])
            assert not torch.allclose(block(x), before)
    assert len(runs) == 5
    assert len(set(map(id, runs))) == 2
