"""``run`` and ``in_sequence``: several links at once are the same modules one by one, in training
and in inference, with all gradients and statistics."""

from __future__ import annotations

import pytest
import torch
from image_modules import by_turns, picture
from image_runs import (
    BLOCKS,
    EACH,
    F32,
    F64,
    MODES,
    NORMS,
    compare,
    made,
    one_by_one,
    settled,
    step,
)
from torch import nn

from pointwise.layers import training as layers_training
from pointwise.networks import MobileNetV1
from pointwise.operators import normed_run


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """How many links each call of the joined training had."""
    seen = []
    joined = layers_training.run

    def noted(input, links, residual=None):
        seen.append(len(links))
        return joined(input, links, residual)

    monkeypatch.setattr(layers_training, "run", noted)
    return seen


# --- the whole is its parts -----------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(("block", "dtype"), by_turns(BLOCKS))
def test_blocks_are_their_modules_one_by_one(block, training, dtype):
    for gradients in (True, False):
        ours = made(block, dtype, training)
        theirs = one_by_one(ours)
        for _ in range(2):  # the second time from other running statistics
            compare(ours, theirs, dtype, gradients)


def test_training_is_joined_at_all(runs):
    expected = {"separable": [2], "inverted": [3], "inverted, excite": [2, 1], "bottleneck": [1, 3],
                "three with a residual": [3], "separable, times 2": [1]}  # fmt: skip
    for block, lengths in expected.items():
        runs.clear()
        made(block)(picture(2, 9, 8, 7))
        assert sorted(runs) == sorted(lengths), block
        runs.clear()
        one_by_one(made(block))(picture(2, 9, 8, 7))
        made(block, training=False)(picture(2, 9, 8, 7))
        with torch.no_grad():
            made(block)(picture(2, 9, 8, 7))
        assert runs == []


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", ["separable", "inverted, excite", "bottleneck, stride 2"])
def test_every_kind_of_batch_norm(block, norm):
    for training in (True, False):
        ours = made(block, F64, training, NORMS[norm])
        theirs = one_by_one(ours)
        for gradients in (True, True, False, True):
            compare(ours, theirs, F64, gradients)


@pytest.mark.parametrize("sizes", [(1, 9, 1, 2), (2, 9, 1, 1), (1, 9, 3, 3), (7, 9, 1, 5)])
@EACH
def test_small_images(block, sizes):
    # Those whose batch norm sees one value only are refused by both, with the same words.
    ours = made(block, F64)
    theirs = one_by_one(ours)
    try:
        expected = step(theirs, picture(*sizes, dtype=F64), True)
    except ValueError as refusal:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            ours(picture(*sizes, dtype=F64))
        assert "Expected more than 1 value" in str(refusal)  # noqa: PT017
    else:
        found = step(ours, picture(*sizes, dtype=F64), True)
        for name, b in expected.items():
            scale = 1 + b.double().abs().max()
            torch.testing.assert_close(found[name] / scale, b / scale, rtol=0, atol=1e-9)


def test_one_pixel_is_refused_in_training_as_by_pytorch():
    module = made("separable")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        module(picture(1, 9, 1, 1))
    assert module.eval()(picture(1, 9, 1, 1)).shape == (1, 17, 1, 1)


@MODES
def test_a_whole_network(training, runs):
    torch.manual_seed(0)
    ours = settled(MobileNetV1(classes=7, width=0.25, dropout=0.0)).train(training)
    theirs = one_by_one(ours)
    x = picture(4, 3, 64, 48)
    for gradients in (True, False):
        compare(ours, theirs, F32, gradients, (4, 3, 64, 48), factor=5)
    assert runs == ([27] if training else [])
    assert torch.equal(ours.eval()(x).argmax(1), theirs.eval()(x).argmax(1))


def test_a_network_learns_the_same():
    """Ten steps of an optimiser, joined and one by one, stay together."""
    torch.manual_seed(0)
    ours = settled(MobileNetV1(classes=3, width=0.25, dropout=0.0, stem_stride=1)).double()
    theirs = one_by_one(ours)
    x, wanted = picture(6, 3, 32, 32, dtype=F64), torch.arange(6) % 3
    losses = []
    for network in (ours, theirs):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        losses.append([])
        for _ in range(5):
            loss = nn.functional.cross_entropy(network(x), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-7, atol=1e-9)


# --- parts of it frozen ---------------------------------------------------------------------------


def freezings():
    """What people do to parts of a network, before they train the rest."""

    def norm_evaluated(module):
        norms(module)[0].eval()

    def last_norm_evaluated(module):
        norms(module)[-1].eval()

    def first_block_evaluated(module):
        first = convs(module)[0]
        first.eval()
        norms(module)[0].eval()
        for parameter in (*first.parameters(), *norms(module)[0].parameters()):
            parameter.requires_grad_(False)

    def first_weight(module):
        convs(module)[0].weight.requires_grad_(False)

    def all_weights(module):
        for conv in convs(module):
            conv.requires_grad_(False)

    def all_norms(module):
        for norm in norms(module):
            norm.requires_grad_(False)

    def shifts(module):
        for norm in norms(module):
            norm.bias.requires_grad_(False)

    def scales(module):
        for norm in norms(module):
            norm.weight.requires_grad_(False)

    return [f for f in locals().values() if callable(f)]


def convs(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def norms(module):
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def gradients_after(freeze, block: str, input_wants: bool):
    """(ours, theirs): all gradients that there are, by name."""
    found = []
    ours = made(block, F64)
    for module in (ours, one_by_one(ours)):
        freeze(module)
        x = picture(3, 9, 8, 7, dtype=F64).requires_grad_(input_wants)
        out = module(x)
        out.backward(picture(*out.shape, dtype=F64, seed=6))
        tensors = {"input": x, **dict(module.named_parameters())}
        found.append({name: t.grad for name, t in tensors.items() if t.grad is not None})
        for name, buffer in module.named_buffers():
            found[-1][name] = buffer
    return found


@pytest.mark.parametrize("freeze", freezings(), ids=lambda f: f.__name__)
@pytest.mark.parametrize("input_wants", [True, False], ids=["input wants", "input does not"])
@pytest.mark.parametrize(
    "block", ["separable", "inverted, excite", "bottleneck", "groups, silu between"]
)
def test_parts_may_be_frozen(block, input_wants, freeze):
    ours, theirs = gradients_after(freeze, block, input_wants)
    assert ours.keys() == theirs.keys()
    for name, b in theirs.items():
        scale = 1 + b.double().abs().max()
        torch.testing.assert_close(ours[name] / scale, b / scale, rtol=0, atol=1e-10)


# --- as one call, or one by one -------------------------------------------------------------------


@pytest.fixture
def as_one(monkeypatch) -> list[int]:
    """How many layers each run that was one call had."""
    seen = []
    whole = normed_run.normed_run

    def noted(input, residual, layers, given):
        seen.append(len(layers))
        return whole(input, residual, layers, given)

    monkeypatch.setattr(normed_run, "normed_run", noted)
    return seen


def test_a_run_is_one_call(as_one):
    step(made("separable", F64), picture(2, 9, 8, 7, dtype=F64), True)
    assert as_one == [2]


@pytest.mark.parametrize("reason", ["cumulative averages", "a profiler", "rows with gaps"])
def test_what_is_no_single_call_gives_the_same(reason, as_one):
    ours = made("separable", F64)
    theirs = one_by_one(ours)
    for module in (ours, theirs):
        for norm in norms(module):
            if reason == "cumulative averages":
                norm.momentum = None
            elif reason == "rows with gaps":
                wide = torch.zeros(2 * norm.num_features, dtype=F64)
                norm.running_mean = wide[::2]
    if reason == "a profiler":
        with torch.profiler.profile():
            compare(ours, theirs, F64, True)
    else:
        compare(ours, theirs, F64, True)
        compare(ours, theirs, F64, True)
    assert as_one == []


@EACH
def test_prepared_as_a_whole_or_step_by_step_it_has_the_same_bits(block, monkeypatch):
    whole, parts = made(block, F32), made(block, F32)
    for _ in range(3):  # from the third time on nothing is prepared
        x = picture(2, 9, 8, 7)
        found = step(whole, x, True)
        with monkeypatch.context() as patched:
            for name in ("_forward", "_backward"):
                patched.setattr(normed_run, name, getattr(normed_run, name).__wrapped__)
            expected = step(parts, x, True)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_only_the_residual_wants_a_gradient():
    ours = made("three with a residual", F64)
    theirs = one_by_one(ours)
    gradients = []
    for module in (ours, theirs):
        module.requires_grad_(False)
        x = picture(2, 9, 8, 7, dtype=F64).requires_grad_()
        module(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
